//! DATA packets: jumbograms taken apart, packets put in order, the ACK that they call for.

use crate::ack::Need;
use crate::call::Call;
use crate::endpoint::Endpoint;
use crate::recv_queue::Arrival;
use crate::security::{ConnSecurity, NotOpened};
use crate::shared::Shared;
use crate::wire::{Flags, HEADER_LEN, Header, JUMBO_HEADER_LEN, PacketType, SubPacket, SubPackets, split};
use crate::{CallId, Completion, ConnId, Role, RxDrop};
use pmd::{Instant, Mbuf, Pool};

/// What a datagram brought, over all of its packets.
struct Haul {
    /// Packets taken.
    taken: usize,
    /// Whether something became readable.
    readable: bool,
    need: Need,
    /// Serial of the packet that caused the need.
    serial: u32,
    /// Why the last packet that was not taken was not.
    refused: Option<RxDrop>,
    /// A packet's protection does not hold: the call ends with this abort code.
    broken: Option<i32>,
}

impl Endpoint {
    /// `data` begins behind the header; `parts` are those of a jumbogram.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn input_data(
        &mut self,
        now: Instant,
        pool: &mut Pool,
        conn_id: ConnId,
        call_id: CallId,
        header: &Header,
        data: Mbuf,
        parts: Option<SubPackets>,
    ) -> Result<(), RxDrop> {
        let conn = self.conns.get(conn_id).ok_or(RxDrop::NoConnection)?;
        let call = self.calls.get_mut(call_id).ok_or(RxDrop::NoCall)?;
        if header.seq == 0 {
            return Err(RxDrop::BadSequence);
        }
        if call.reply_ends_request() && !call.recv.complete() {
            // The rest of a request whose reply has begun. The reply, sent again if need be, tells the client.
            call.deadlines.heard = now;
            return Err(RxDrop::Duplicate);
        }
        let shared = &mut self.shared;
        let mut haul = Haul {
            taken: 0,
            readable: false,
            need: Need::Later,
            serial: header.serial,
            refused: None,
            broken: None,
        };
        let mut taker = Taker { haul: &mut haul, call, shared, pool, header, security: &conn.security };
        if let Some(parts) = parts {
            taker.take_parts(&parts, data);
        } else {
            let packet = SubPacket {
                seq: header.seq,
                serial: header.serial,
                flags: header.flags,
                checksum: header.checksum,
                offset: 0,
                len: 0,
            };
            taker.take(&packet, data);
        }
        if !conn.security.secured() {
            self.repeat_challenge(now, conn_id);
        }
        if let Some(code) = haul.broken {
            self.finish(now, call_id, Completion::LocalAbort(code));
            return Err(RxDrop::BadSeal);
        }
        self.stow(now, conn_id, call_id, haul)
    }

    /// What follows from a datagram: the ACK owed, the user's event, the end of a reply.
    fn stow(&mut self, now: Instant, conn_id: ConnId, call_id: CallId, haul: Haul) -> Result<(), RxDrop> {
        let (Some(call), shared) = (self.calls.get_mut(call_id), &mut self.shared) else {
            return Err(RxDrop::NoCall);
        };
        if matches!(haul.refused, Some(RxDrop::BadSequence)) && haul.taken == 0 {
            return Err(RxDrop::BadSequence);
        }
        call.deadlines.heard = now;
        call.deadlines.busy = None;
        if haul.taken > 0 {
            call.deadlines.moved = now;
            if call.role == Role::Client && !call.reply_begun {
                // The reply acknowledges all of the request, sent or not.
                call.reply_begun = true;
                shared.queued -= call.send.finish();
                call.deadlines.resend = None;
            }
        }
        let config = &shared.config;
        call.ack.data(haul.need, haul.serial, config.ack_every, now + config.delayed_ack);
        if haul.readable {
            call.notify_readable(shared);
        }
        if call.role == Role::Client && call.recv.complete() {
            let owed = call.ack.due();
            self.finish(now, call_id, Completion::Succeeded);
            self.owe_final_ack(now, conn_id, call_id, owed);
        } else {
            if call.ack.due().is_some() {
                call.schedule(shared);
            }
            call.rearm(shared);
        }
        if haul.taken > 0 { Ok(()) } else { Err(haul.refused.unwrap_or(RxDrop::Duplicate)) }
    }
}

impl Haul {
    /// Takes one packet into the call.
    fn add(&mut self, call: &mut Call, shared: &mut Shared, packet: &SubPacket, data: Mbuf) {
        // The packet that others wait for makes them readable: those do not stand in its way.
        let waiting = if packet.seq == call.recv.next() { 0 } else { call.recv.out_of_order() };
        if !shared.takes(call.recv.ready() + waiting) {
            self.refused = Some(RxDrop::NoBuffers);
            // What was granted before no longer holds: a peer that believed it would send this again at once.
            call.ack.edge = call.recv.next().wrapping_sub(1);
            self.wants(Need::NoSpace, packet.serial);
            return;
        }
        let segments = data.segment_count();
        let arrival = call.recv.insert(packet, &mut Some(data), shared.config.receive_window);
        match arrival {
            Arrival::InOrder | Arrival::OutOfOrder => {
                self.taken += 1;
                shared.unread += segments;
                shared.stats.data_new += 1;
            }
            Arrival::Duplicate => self.refused = Some(RxDrop::Duplicate),
            Arrival::Window => self.refused = Some(RxDrop::Window),
            Arrival::BadSequence => self.refused = Some(RxDrop::BadSequence),
        }
        self.readable |= arrival == Arrival::InOrder;
        shared.stats.data_duplicate += u64::from(arrival == Arrival::Duplicate);
        shared.stats.data_out_of_order += u64::from(arrival == Arrival::OutOfOrder);
        let need = match arrival {
            Arrival::Duplicate => Need::Duplicate,
            Arrival::Window => Need::Window,
            Arrival::OutOfOrder => Need::OutOfSequence,
            _ if packet.flags.contains(Flags::REQUEST_ACK) => Need::Requested,
            _ => Need::Later,
        };
        self.wants(need, packet.serial);
    }

    /// One ACK speaks for all: for the packet that needs it most.
    fn wants(&mut self, need: Need, serial: u32) {
        if need >= self.need {
            (self.need, self.serial) = (need, serial);
        }
    }
}

/// Finds the parts of a jumbogram, in a packet that still has its header. One that is wrong anywhere is refused as a
/// whole, before it can begin a call.
pub fn take_apart(header: &Header, packet: &Mbuf) -> Result<SubPackets, RxDrop> {
    let read = |offset: usize| {
        let mut bytes = [0; JUMBO_HEADER_LEN];
        packet.copy_to(HEADER_LEN + offset, &mut bytes);
        bytes
    };
    split(header, packet.len() - HEADER_LEN, read).map_err(|_| RxDrop::BadJumbo)
}

/// What it takes to take the packets of a datagram into a call.
struct Taker<'a> {
    haul: &'a mut Haul,
    call: &'a mut Call,
    shared: &'a mut Shared,
    pool: &'a mut Pool,
    /// The datagram's.
    header: &'a Header,
    security: &'a ConnSecurity,
}

impl Taker<'_> {
    /// Takes one packet. On a connection that is not secured yet it is kept as it is: the key to it comes with the RESPONSE.
    fn take(&mut self, packet: &SubPacket, mut data: Mbuf) {
        if self.security.secured() {
            let header = Header { seq: packet.seq, checksum: packet.checksum, ..*self.header };
            match self.security.open(&header, &mut data, self.pool) {
                Ok(()) => {}
                Err(NotOpened::Abort(code)) => {
                    self.haul.broken = Some(code);
                    return;
                }
                Err(NotOpened::NoBuffers) => {
                    self.haul.refused = Some(RxDrop::NoBuffers);
                    return;
                }
            }
        }
        // It is opened where it lies: in one buffer, then.
        if !self.security.secured() && !data.pull_up(data.len(), self.pool) {
            self.haul.refused = Some(RxDrop::NoBuffers);
            return;
        }
        self.haul.add(self.call, self.shared, packet, data);
    }

    /// Takes the parts of a jumbogram.
    fn take_parts(&mut self, parts: &SubPackets, mut data: Mbuf) {
        self.shared.stats.jumbograms += 1;
        self.shared.stats.received[PacketType::Data as usize] += parts.len() as u64 - 1;
        for part in parts {
            if self.haul.broken.is_some() {
                return;
            }
            if !part.flags.contains(Flags::JUMBO) {
                return self.take(part, data);
            }
            let Ok(front) = data.split_to(part.len, self.pool) else {
                self.haul.refused = Some(RxDrop::NoBuffers);
                return;
            };
            data.advance(JUMBO_HEADER_LEN);
            self.take(part, front);
        }
    }
}
