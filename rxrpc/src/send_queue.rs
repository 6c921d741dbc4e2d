//! What a call has to send: packets from the first one that the peer has not taken for good up to the last one that
//! the user handed over.
//!
//! Payload stays in its buffer until the peer's hard acknowledgement; every transmission copies it into a fresh one, so
//! that a buffer that a driver still holds is never touched. What is lost is judged by RACK (rack.rs), which sees packets in
//! the order of their transmissions. What the peer acknowledges softly it may take back, until the hard acknowledgement.
//!
//! Deliberately absent: windows of congestion (congestion/) and clocks.

use crate::rack::Rack;
use crate::rtt::Rtt;
use crate::slab::Recycle;
use pmd::{Instant, Mbuf, Pool};
use std::collections::VecDeque;
use std::time::Duration;

/// Where a packet is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Unsent,
    InFlight,
    /// Given up: to be sent again.
    Lost,
    /// The peer has it, and may still throw it away.
    Acked,
}

struct Packet {
    data: Mbuf,
    state: State,
    last: bool,
    /// How often it was sent.
    sends: u8,
    /// Its latest transmission travelled with others in one datagram.
    jumbo: bool,
    /// Position of its latest transmission among all of the call's.
    order: u32,
    /// Serial number of its latest transmission.
    serial: u32,
    sent_at: Instant,
}

/// A packet to be sent now.
pub struct Outgoing<'a> {
    pub seq: u32,
    pub data: &'a Mbuf,
    pub last: bool,
    /// It was sent before.
    pub again: bool,
}

/// What an ACK said that was new.
#[derive(Debug, Default)]
pub struct Acked {
    /// Packets acknowledged for the first time, softly or hard.
    pub packets: u32,
    /// Buffers freed.
    pub freed: usize,
    /// Time since the packet was sent that the ACK names.
    pub rtt: Option<Duration>,
    /// Packets newly found lost.
    pub lost: u32,
    /// The packet arrived that a round trip is measured by.
    pub round: bool,
    /// A tail probe repaired a loss.
    pub repaired: bool,
    /// A packet arrived that travelled in a jumbogram.
    pub jumbo: bool,
}

/// Why an ACK was not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckFault {
    /// It is older than one seen before.
    Old,
    /// It acknowledges what was never sent.
    Beyond,
}

/// The queue.
#[derive(Default)]
pub struct SendQueue {
    packets: VecDeque<Packet>,
    /// Sequence number of the first packet, less one: zero at the start, so that `Default` is a queue's first state.
    before: u32,
    /// Packets at the front that were sent at least once.
    sent: usize,
    in_flight: u32,
    lost: u32,
    acked: u32,
    order: u32,
    rack: Rack,
    /// Once the transmission at this position has arrived, a round trip is over and the next packet begins another.
    mark: u32,
    /// Serial of the tail probe that is under way.
    probe: Option<u32>,
    /// Packets found lost that travelled in jumbograms, until `take_jumbo_lost` asks.
    jumbo_lost: u32,
    /// Recovery from a loss lasts until this sequence number is acknowledged.
    recovery_end: u32,
    /// The first packet found lost is sent again at once, whatever the halved window says.
    urgent: bool,
    ended: bool,
}

impl Recycle for SendQueue {
    #[rustfmt::skip]
    fn recycle(&mut self) {
        let Self {
            packets, before, sent, in_flight, lost, acked, order, rack, mark, probe, jumbo_lost, recovery_end, urgent,
            ended,
        } = self;
        if !packets.is_empty() {
            packets.clear();
        }
        (*before, *sent, *in_flight, *lost, *acked, *order, *mark) = (0, 0, 0, 0, 0, 0, 0);
        (*rack, *probe, *jumbo_lost, *recovery_end) = (Rack::default(), None, 0, 0);
        (*urgent, *ended) = (false, false);
    }
}

impl SendQueue {
    /// Sequence number of the first packet that is not hard-acknowledged.
    pub fn first(&self) -> u32 {
        self.before.wrapping_add(1)
    }

    /// Packets in the queue; each holds one buffer.
    pub fn len(&self) -> usize {
        self.packets.len()
    }

    /// Packets that were never sent.
    pub fn unsent(&self) -> usize {
        self.packets.len() - self.sent
    }

    /// Packets that were sent, are not acknowledged and not given up.
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Packets sent at least once that the peer does not have for good.
    pub fn outstanding(&self) -> usize {
        self.sent
    }

    /// When the next packet may turn out to be lost.
    pub fn check_at(&self) -> Option<Instant> {
        self.rack.check_at.filter(|_| self.in_flight > 0)
    }

    /// Whether the next packet sent begins a round trip.
    pub fn begins_round(&self) -> bool {
        self.rack.arrived >= self.mark
    }

    /// Whether there is something that was never sent, or is to be sent again.
    pub fn wants_to_send(&self) -> bool {
        self.lost > 0 || self.unsent() > 0
    }

    /// Whether the user has ended this direction.
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// Whether this direction was ended and the peer has all of it, softly at least.
    pub fn all_acked(&self) -> bool {
        self.ended && self.acked as usize == self.packets.len()
    }

    /// Whether anything was ever sent.
    pub fn begun(&self) -> bool {
        self.order > 0
    }

    /// Bytes that fit into the last packet, which has not been sent yet.
    pub fn tail_room(&self, payload: usize) -> usize {
        match self.packets.back() {
            Some(tail) if tail.state == State::Unsent && !tail.last && tail.data.segment_count() == 1 => {
                payload.saturating_sub(tail.data.len()).min(tail.data.tailroom())
            }
            _ => 0,
        }
    }

    /// Copies bytes to the end: into the last packet, then into at most `packets` new ones. Returns the bytes taken and
    /// the packets added.
    pub fn push_bytes(
        &mut self,
        mut bytes: &[u8],
        payload: usize,
        packets: usize,
        pool: &mut Pool,
    ) -> (usize, usize) {
        let wanted = bytes.len();
        let mut added = 0;
        let room = self.tail_room(payload).min(bytes.len());
        if room > 0 {
            let tail = self.packets.back_mut().expect("it has room");
            tail.data.append(room).expect("checked").copy_from_slice(&bytes[..room]);
            bytes = &bytes[room..];
        }
        while !bytes.is_empty() && added < packets {
            let Some(mut data) = pool.alloc() else { break };
            let (now, later) = bytes.split_at(bytes.len().min(payload));
            data.append(now.len()).expect("a buffer holds a packet").copy_from_slice(now);
            self.push(data);
            added += 1;
            bytes = later;
        }
        (wanted - bytes.len(), added)
    }

    /// Appends a buffer as one packet.
    pub fn push(&mut self, data: Mbuf) {
        debug_assert!(!self.ended);
        self.packets.push_back(Packet {
            data,
            state: State::Unsent,
            last: false,
            sends: 0,
            jumbo: false,
            order: 0,
            serial: 0,
            sent_at: Instant::default(),
        });
    }

    /// Ends this direction. False: an empty packet is needed to carry the end, and the caller must push one first.
    pub fn end(&mut self) -> bool {
        match self.packets.back_mut() {
            Some(tail) if tail.state == State::Unsent => {
                tail.last = true;
                self.ended = true;
                true
            }
            _ => false,
        }
    }

    /// The packet to send next, if any may be sent: what was lost, then what is new within the windows. `window` is the
    /// congestion window, `peer` the peer's; both in packets. `payload` is what a full packet holds: one that is not
    /// full waits while others are in flight, since more may come.
    pub fn next(&self, window: u32, peer: u32, payload: usize) -> Option<usize> {
        let urgent = self.urgent && self.lost > 0;
        if self.in_flight >= window && !urgent {
            return None;
        }
        if self.lost > 0 {
            let index = self.packets.iter().take(self.sent).position(|packet| packet.state == State::Lost);
            debug_assert!(index.is_some());
            return index.filter(|&index| index < peer as usize);
        }
        let packet = self.packets.get(self.sent)?;
        let partial = !packet.last && packet.data.len() < payload && self.sent + 1 == self.packets.len();
        let held = partial && self.in_flight > 0;
        (self.sent < peer as usize && !held).then_some(self.sent)
    }

    /// How many packets from `index`, which `next` returned, may be made at once: up to `most` that were never sent, within the
    /// windows. All but the last of them are `full` bytes long.
    pub fn run(&self, index: usize, most: u8, full: usize, window: u32, peer: u32) -> usize {
        if index < self.sent {
            return 1;
        }
        let room = (window - self.in_flight).min(peer - index as u32).min(u32::from(most)) as usize;
        let mut count = 0;
        for packet in self.packets.range(index..).take(room) {
            // One that more may be added to waits for that.
            if packet.data.len() != full && !packet.last || packet.data.len() > full {
                break;
            }
            count += 1;
            if packet.last {
                break;
            }
        }
        count.max(1)
    }

    /// The last packet that is in flight: what a tail probe sends again.
    pub fn tail(&self) -> Option<usize> {
        self.packets.iter().take(self.sent).rposition(|packet| packet.state == State::InFlight)
    }

    /// The packet at an index from `next` or `tail`.
    pub fn outgoing(&self, index: usize) -> Outgoing<'_> {
        let packet = &self.packets[index];
        Outgoing {
            seq: self.first().wrapping_add(index as u32),
            data: &packet.data,
            last: packet.last,
            again: packet.sends > 0,
        }
    }

    /// Notes that the packet was sent, in a jumbogram or alone.
    pub fn sent(&mut self, index: usize, now: Instant, serial: u32, jumbo: bool) {
        self.order += 1;
        if self.begins_round() {
            self.mark = self.order;
        }
        let packet = &mut self.packets[index];
        match packet.state {
            State::Unsent => {
                debug_assert_eq!(index, self.sent);
                self.sent += 1;
                self.in_flight += 1;
            }
            State::Lost => {
                self.urgent = false;
                self.lost -= 1;
                self.in_flight += 1;
            }
            State::InFlight | State::Acked => {}
        }
        if packet.state != State::Acked {
            packet.state = State::InFlight;
        }
        packet.sends = packet.sends.saturating_add(1);
        packet.order = self.order;
        packet.serial = serial;
        packet.jumbo = jumbo;
        packet.sent_at = now;
    }

    /// Notes that the packet with this serial probes the tail.
    pub fn probed(&mut self, serial: u32) {
        self.probe = Some(serial);
    }

    /// Takes an ACK in: everything before `first` has been taken for good; `slots` speak of what follows, if there are any
    /// to be believed.
    pub fn acked(
        &mut self,
        now: Instant,
        first: u32,
        slots: Option<&[u8]>,
        serial: u32,
        rtt: &Rtt,
    ) -> Result<Acked, AckFault> {
        let gone = first.wrapping_sub(self.first());
        if gone > u32::MAX / 2 {
            return Err(AckFault::Old);
        }
        if gone as usize > self.sent {
            return Err(AckFault::Beyond);
        }
        let round = self.begins_round();
        let mut ack =
            Arrivals { now, serial, least: rtt.minimum().unwrap_or_default(), news: Acked::default() };
        for _ in 0..gone {
            let packet = self.packets.pop_front().expect("was sent");
            self.before = self.before.wrapping_add(1);
            self.sent -= 1;
            ack.news.freed += 1;
            self.leave(packet.state);
            if packet.state != State::Acked {
                ack.note(&packet, self.before, &mut self.rack, self.probe);
            }
        }
        if let Some(slots) = slots {
            self.soft(slots, &mut ack);
        }
        let mut news = ack.news;
        // Only news can prove a loss.
        if news.packets > 0 && self.in_flight > 0 {
            self.rack.set_window(self.recovering(), self.acked, rtt);
            news.lost = self.judge(now);
        }
        news.round = !round && self.begins_round();
        Ok(news)
    }

    fn soft(&mut self, slots: &[u8], ack: &mut Arrivals) {
        // Nothing was held softly and nothing is: the plain case.
        if slots.is_empty() && self.acked == 0 {
            return;
        }
        for index in 0..self.sent {
            let had = self.packets[index].state == State::Acked;
            // Of what lies beyond the slots the peer has nothing.
            let has = slots.get(index).is_some_and(|slot| slot & 1 != 0);
            if has && !had {
                let state = std::mem::replace(&mut self.packets[index].state, State::Acked);
                self.leave(state);
                self.acked += 1;
                let seq = self.first().wrapping_add(index as u32);
                ack.note(&self.packets[index], seq, &mut self.rack, self.probe);
            } else if !has && had {
                // The peer threw away what it had; it may do that until the hard acknowledgement.
                self.packets[index].state = State::Lost;
                self.acked -= 1;
                self.lost += 1;
            }
        }
    }

    /// The peer saw the packet with this serial and threw it away, for want of room. It is to be sent again when the
    /// window allows.
    pub fn refused(&mut self, serial: u32) {
        let named = |packet: &&mut Packet| packet.serial == serial && packet.state == State::InFlight;
        if let Some(packet) = self.packets.iter_mut().take(self.sent).find(named) {
            packet.state = State::Lost;
            self.in_flight -= 1;
            self.lost += 1;
        }
    }

    fn leave(&mut self, state: State) {
        match state {
            State::InFlight => self.in_flight -= 1,
            State::Lost => self.lost -= 1,
            State::Acked => self.acked -= 1,
            State::Unsent => {}
        }
    }

    /// Gives up packets that were overtaken by later ones and have had their time.
    fn judge(&mut self, now: Instant) -> u32 {
        let mut lost = 0;
        self.rack.check_at = None;
        for packet in self.packets.iter_mut().take(self.sent) {
            if packet.order > self.rack.arrived {
                // Whatever follows one that was sent once was sent after it.
                if packet.sends == 1 {
                    break;
                }
            } else if packet.state == State::InFlight && self.rack.is_lost(now, packet.sent_at) {
                packet.state = State::Lost;
                lost += 1;
                self.jumbo_lost += u32::from(packet.jumbo);
            }
        }
        self.in_flight -= lost;
        self.lost += lost;
        lost
    }

    /// Packets found lost since the last question that had travelled in jumbograms.
    pub fn take_jumbo_lost(&mut self) -> u32 {
        std::mem::take(&mut self.jumbo_lost)
    }

    /// Time has passed: gives up what has had its time by now. Returns how many packets.
    pub fn overdue(&mut self, now: Instant) -> u32 {
        self.judge(now)
    }

    /// A packet that we took for lost had arrived: the network reorders more than we thought.
    pub fn was_not_lost(&mut self) {
        self.rack.was_not_lost();
    }

    /// Whether a loss found now belongs to a window that was punished already. Starts a new recovery if not.
    pub fn in_recovery(&mut self) -> bool {
        let inside = self.recovering();
        if !inside {
            self.urgent = true;
            self.rack.recovery();
            self.recovery_end = self.before.wrapping_add(self.sent as u32);
        }
        inside
    }

    /// Whether the window in which the last loss was found is not fully acknowledged yet.
    pub fn recovering(&self) -> bool {
        self.recovery_end.wrapping_sub(self.before).wrapping_sub(1) < u32::MAX / 2
    }

    /// Nothing came back for too long: everything in flight is lost.
    pub fn timed_out(&mut self) {
        self.rack.check_at = None;
        for packet in self.packets.iter_mut().take(self.sent) {
            if packet.state == State::InFlight {
                packet.state = State::Lost;
                self.jumbo_lost += u32::from(packet.jumbo);
            }
        }
        self.lost += self.in_flight;
        self.in_flight = 0;
        // What is sent again starts slowly and is allowed to grow.
        self.recovery_end = self.before;
    }

    /// The peer has all that was sent, and wants no more. Returns the buffers freed.
    pub fn finish(&mut self) -> usize {
        let freed = self.packets.len();
        let sent = self.sent as u32;
        if freed > 0 {
            self.packets.clear();
        }
        self.before = self.before.wrapping_add(sent);
        (self.sent, self.in_flight, self.lost, self.acked, self.ended) = (0, 0, 0, 0, true);
        freed
    }

    /// The peer has all that was sent so far (ACKALL). Returns what is new.
    pub fn acked_all(&mut self, now: Instant) -> Acked {
        let first = self.first().wrapping_add(self.sent as u32);
        self.acked(now, first, None, 0, &Rtt::default()).unwrap_or_default()
    }
}

/// One ACK, and what it shows to have arrived.
struct Arrivals {
    now: Instant,
    /// Serial of the transmission that caused it.
    serial: u32,
    /// The least round trip.
    least: Duration,
    news: Acked,
}

impl Arrivals {
    /// The packet is acknowledged for the first time.
    fn note(&mut self, packet: &Packet, seq: u32, rack: &mut Rack, probe: Option<u32>) {
        self.news.packets += 1;
        let age = self.now.saturating_duration_since(packet.sent_at);
        let (once, named) = (packet.sends == 1, packet.serial == self.serial);
        if named {
            self.news.rtt = Some(age);
            self.news.repaired |= probe == Some(packet.serial) && !once;
        }
        self.news.jumbo |= packet.jumbo;
        rack.note_order(seq, once);
        // Of a packet sent twice nobody knows which copy arrived, unless the ACK names it or it came too soon.
        if once || named || age >= self.least && self.least > Duration::ZERO {
            rack.arrival(packet.order, age);
        }
    }
}
