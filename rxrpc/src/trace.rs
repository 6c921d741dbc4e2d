//! The event log: what an endpoint did, packet by packet, as plain values in a bounded ring.
//!
//! [`trace_ring`] makes one; the endpoint has the [`TraceSink`] and whoever writes events down has the [`TraceReader`]. Without
//! a sink each hook is one test. With one, an event is copied into the ring, without allocation or lock; what finds it full is
//! counted, and the next event that finds room is preceded by [`Happened::Overflow`] with the count. Times are those that the endpoint was
//! given. Packets are traced where datagrams come in and go out, and nowhere else; everything that belongs to a call names it.
//!
//! Deliberately absent: formats and files, which are the writer's.

use crate::call::Call;
use crate::congestion::CongestionControl;
use crate::peer::Peer;
use crate::shared::Shared;
use crate::wire::{ACK_MAX_SLOTS, Abort, Ack, AckReason, Flags, HEADER_LEN, Header, PacketType};
use crate::{Completion, Role, RxDrop};
use pmd::{Instant, Mbuf};
use rtrb::{Consumer, Producer, RingBuffer};
use std::net::SocketAddr;
use std::time::Duration;

/// The longest ACK that is looked at: header, fixed part, all slots, padding and trailer.
const ACK_LEN_MAX: usize = HEADER_LEN + 18 + ACK_MAX_SLOTS + 3 + 16;
/// What follows the header of a full packet within a jumbogram: payload and the next packet's header.
const JUMBO_STRIDE: usize = crate::wire::JUMBO_PAYLOAD_LEN + crate::wire::JUMBO_HEADER_LEN;

/// Something that happened.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TraceEvent {
    /// When.
    pub at: Instant,
    /// The call it is about.
    pub call: TracedCall,
    /// What.
    pub happened: Happened,
}

/// A call as it is named on the wire. Service connections of two clients may have the same name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TracedCall {
    /// Epoch of the connection.
    pub epoch: u32,
    /// Connection id, with the channel in its low two bits.
    pub cid: u32,
    /// Call number on the channel; 0: the connection itself, or a packet that belongs to none.
    pub number: u32,
}

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Happened {
    /// A call has its place on a connection: its packets can go out, or have begun to come in.
    Begun {
        /// Which side we are.
        role: Role,
        /// The other side.
        peer: SocketAddr,
        /// Service id.
        service: u16,
    },
    /// It is over. Packets that repeat its end may follow.
    Ended(Completion),
    /// A datagram went out.
    Sent(TracedPacket),
    /// A datagram came in.
    Received(TracedPacket),
    /// The datagram that came in last was refused.
    Refused(RxDrop),
    /// Packets were found lost by what was acknowledged.
    Lost {
        /// How many, all at once.
        packets: u32,
    },
    /// Nothing was heard for a retransmission timeout: all that was under way counts as lost.
    TimedOut {
        /// How much that was, in packets.
        packets: u32,
    },
    /// A round trip was measured.
    Rtt {
        /// What it took.
        sample: Duration,
        /// The smoothed one, this one included.
        smoothed: Duration,
        /// The shortest so far.
        minimum: Duration,
        /// The retransmission timeout that follows, without backoff.
        timeout: Duration,
    },
    /// The windows after an ACK or a timeout, in packets.
    Windows {
        /// Congestion window.
        congestion: u32,
        /// What the peer lets us send beyond what it has for good.
        peer: u32,
        /// Under way: sent, neither acknowledged nor given up.
        in_flight: u32,
    },
    /// So many events found the ring full and are missing before this one.
    Overflow {
        /// How many.
        events: u64,
    },
}

/// A datagram's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TracedPacket {
    /// Type.
    pub kind: PacketType,
    /// Flags.
    pub flags: Flags,
    /// Sequence number of the first packet in it; 0 where there is none.
    pub seq: u32,
    /// Serial number.
    pub serial: u32,
    /// Packets in it: more than one in a jumbogram.
    pub packets: u16,
    /// Bytes, header included.
    pub len: u32,
    /// What an ACK says.
    pub ack: Option<TracedAck>,
    /// The code of an ABORT.
    pub abort: Option<i32>,
}

/// What an ACK says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TracedAck {
    /// Why it was sent.
    pub reason: AckReason,
    /// Serial of the packet that caused it.
    pub serial: u32,
    /// Everything before this sequence number is acknowledged for good.
    pub first: u32,
    /// Packets from `first` on that it speaks of.
    pub slots: u8,
    /// Those that have arrived: bit n of word n / 64 is packet `first + n`.
    pub soft: [u64; 4],
    /// The receive window, if it says one.
    pub window: Option<u32>,
}

impl TracedAck {
    /// Whether packet `first + n` is acknowledged, softly.
    pub const fn has(&self, n: usize) -> bool {
        n < self.slots as usize && self.soft[n / 64] >> (n % 64) & 1 == 1
    }
}

/// The endpoint's end of a ring.
pub struct TraceSink {
    ring: Producer<TraceEvent>,
    missing: u64,
    /// Of the last event, there or missing.
    last: Instant,
}

/// The writer's end of a ring.
pub struct TraceReader {
    ring: Consumer<TraceEvent>,
}

/// A ring for `events` events of some 130 bytes each.
pub fn trace_ring(events: usize) -> (TraceSink, TraceReader) {
    let (ring, reader) = RingBuffer::new(events.max(2));
    (TraceSink { ring, missing: 0, last: Instant::ZERO }, TraceReader { ring: reader })
}

impl TraceReader {
    /// The next event.
    pub fn next_event(&mut self) -> Option<TraceEvent> {
        self.ring.pop().ok()
    }

    /// Whether the endpoint has let go of its end: what is in the ring is all there will be.
    pub fn is_abandoned(&self) -> bool {
        self.ring.is_abandoned()
    }
}

impl TraceSink {
    fn push(&mut self, event: TraceEvent) {
        self.last = event.at;
        if self.missing > 0 {
            // Its place, and one for what is to follow it.
            if self.ring.slots() < 2 {
                self.missing += 1;
                return;
            }
            let happened = Happened::Overflow { events: self.missing };
            let _ = self.ring.push(TraceEvent { happened, ..event });
            self.missing = 0;
        }
        if self.ring.push(event).is_err() {
            self.missing += 1;
        }
    }

    /// A datagram that goes out.
    pub(crate) fn sent(&mut self, at: Instant, packet: &Mbuf) {
        if let Some((call, packet)) = look(packet) {
            self.push(TraceEvent { at, call, happened: Happened::Sent(packet) });
        }
    }

    /// A datagram that comes in. Nothing, if it is none of Rx. Returns its call.
    pub(crate) fn received(&mut self, at: Instant, packet: &Mbuf) -> Option<TracedCall> {
        let (call, packet) = look(packet)?;
        self.push(TraceEvent { at, call, happened: Happened::Received(packet) });
        Some(call)
    }

    pub(crate) fn refused(&mut self, at: Instant, call: TracedCall, reason: RxDrop) {
        self.push(TraceEvent { at, call, happened: Happened::Refused(reason) });
    }
}

impl Drop for TraceSink {
    /// What is missing at the very end is told like the rest, if there is room.
    fn drop(&mut self) {
        if self.missing > 0 {
            let happened = Happened::Overflow { events: self.missing };
            let _ = self.ring.push(TraceEvent { at: self.last, call: TracedCall::default(), happened });
        }
    }
}

impl Shared {
    /// Traces something about a call. What is behind `happened` is only worked out when somebody traces.
    #[inline]
    pub(crate) fn trace(&mut self, at: Instant, call: &Call, happened: impl FnOnce() -> Happened) {
        if let Some(sink) = &mut self.tracer {
            let call = TracedCall { epoch: call.epoch, cid: call.cid, number: call.number };
            sink.push(TraceEvent { at, call, happened: happened() });
        }
    }
}

/// Events of several places.
impl Shared {
    #[inline]
    pub(crate) fn trace_begun(&mut self, at: Instant, call: &Call) {
        let (role, peer, service) = (call.role, call.addr, call.service);
        self.trace(at, call, || Happened::Begun { role, peer, service });
    }

    #[inline]
    pub(crate) fn trace_windows(&mut self, at: Instant, call: &Call) {
        self.trace(at, call, || Happened::Windows {
            congestion: call.congestion.window(),
            peer: call.peer_window,
            in_flight: call.send.in_flight(),
        });
    }

    /// The sample is in the peer's estimator already.
    #[inline]
    pub(crate) fn trace_rtt(&mut self, at: Instant, call: &Call, peer: &Peer, sample: Duration) {
        let config = &self.config;
        let timeout = peer.rtt.rto(config.initial_rto, config.min_rto, config.max_rto);
        let smoothed = peer.rtt.smoothed().unwrap_or(sample);
        let minimum = peer.rtt.minimum().unwrap_or(sample);
        self.trace(at, call, || Happened::Rtt { sample, smoothed, minimum, timeout });
    }
}

/// What a datagram's first bytes say.
fn look(datagram: &Mbuf) -> Option<(TracedCall, TracedPacket)> {
    let mut bytes = [0; ACK_LEN_MAX];
    let copied = datagram.copy_to(0, &mut bytes);
    let (header, body) = Header::parse(&bytes[..copied]).ok()?;
    let call = TracedCall { epoch: header.epoch, cid: header.cid.0, number: header.call };
    let len = datagram.len();
    let jumbo = header.packet_type == PacketType::Data && header.flags.contains(Flags::JUMBO);
    let packets = if jumbo { (len - HEADER_LEN) / JUMBO_STRIDE + 1 } else { 1 };
    let ack = match header.packet_type {
        PacketType::Ack => Ack::parse(body).ok().map(|ack| traced(&ack)),
        _ => None,
    };
    let abort = match header.packet_type {
        PacketType::Abort => Abort::parse(&header, body).ok().map(|abort| abort.code),
        _ => None,
    };
    let packet = TracedPacket {
        kind: header.packet_type,
        flags: header.flags,
        seq: header.seq,
        serial: header.serial,
        packets: packets as u16,
        len: len as u32,
        ack,
        abort,
    };
    Some((call, packet))
}

fn traced(ack: &Ack<'_>) -> TracedAck {
    let mut soft = [0; 4];
    for (n, _) in ack.slots.iter().enumerate().filter(|(_, slot)| *slot & 1 == 1) {
        soft[n / 64] |= 1 << (n % 64);
    }
    TracedAck {
        reason: ack.reason,
        serial: ack.serial,
        first: ack.first,
        slots: ack.slots.len() as u8,
        soft,
        window: ack.trailer.receive_window,
    }
}
