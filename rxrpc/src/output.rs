//! Transmission: what is owed becomes packets.
//!
//! Calls and connections with something to send wait in line; each turn of a call is limited, and one with more to send
//! goes to the end of the line. A packet that finds no buffer, or no room at the driver, is sent in a later turn: all
//! state changes after its buffer is there.

use crate::call::Call;
use crate::congestion::{CongestionControl, Pace};
use crate::conn::{Channel, Conn, Last};
use crate::endpoint::Endpoint;
use crate::finish::arm_conn;
use crate::peer::Peer;
use crate::security::LANES;
use crate::shared::{Reply, Shared, Work};
use crate::wire::{
    Abort, Ack, AckReason, AckTrailer, Flags, HEADER_LEN, Header, JUMBO_PAYLOAD_LEN, PacketType,
};
use crate::{ConnId, LocalId, Role};
use pmd::{Instant, Mbuf, Pool};
use std::net::SocketAddr;

/// Takes packets: from where, to where. False: no more for now (this one was taken).
pub type Send<'a> = &'a mut dyn FnMut(LocalId, SocketAddr, SocketAddr, Mbuf) -> bool;

/// How a turn ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// Nothing is left to send.
    Done,
    /// There is more; others first.
    Again,
    /// No buffer, or no room at the driver.
    Stop,
}

/// A packet was not sent: the pool is empty, or the driver took it and wants no more.
pub(crate) struct Halt;

impl Endpoint {
    pub(crate) fn transmit_all(&mut self, now: Instant, pool: &mut Pool, send: Send<'_>) {
        self.wake_starved(now);
        while let Some(reply) = self.shared.replies.pop_front() {
            let Reply { local, from, to, packet } = reply;
            if !send(local, from, to, packet) {
                return;
            }
        }
        while let Some(work) = self.shared.work.pop_front() {
            let turn = match work {
                Work::Call(id) => self.transmit_call(now, pool, send, id),
                Work::Conn(id) => self.transmit_conn(now, pool, send, id),
            };
            match turn {
                Turn::Done => {}
                Turn::Again => self.shared.work.push_back(work),
                Turn::Stop => {
                    self.shared.work.push_front(work);
                    return;
                }
            }
        }
    }

    fn transmit_call(&mut self, now: Instant, pool: &mut Pool, send: Send<'_>, id: crate::CallId) -> Turn {
        let Some(call) = self.calls.get_mut(id) else { return Turn::Done };
        let parts = call.conn.and_then(|conn| {
            let conn = self.conns.get_mut(conn)?;
            let peer = self.peers.get_mut(conn.peer)?;
            Some((self.locals.get(conn.local)?.addr, conn, peer))
        });
        let Some((from, conn, peer)) = parts else {
            call.queued = false;
            return Turn::Done;
        };
        let begun = call.send.begun();
        let mut out = Out { now, pool, send, shared: &mut self.shared, call, conn, peer, from };
        let turn = out.turn();
        if turn == Turn::Done {
            call.queued = false;
        }
        if begun {
            call.rearm(&mut self.shared);
        } else {
            // From its first packet on a client waits for its peer.
            call.rearm_all(&mut self.shared);
        }
        turn
    }

    /// Sends what the connection owes as such, then what its channels owe for calls that have ended.
    fn transmit_conn(&mut self, now: Instant, pool: &mut Pool, send: Send<'_>, id: ConnId) -> Turn {
        let Some(conn) = self.conns.get_mut(id) else { return Turn::Done };
        let Some(local) = self.locals.get(conn.local) else { return Turn::Done };
        // Nothing more can come of a connection whose client was refused: it goes as soon as that is said.
        let refused = conn.security.rxkad().is_some_and(|rxkad| rxkad.is_refused());
        let (from, closing) = (local.addr, local.closing || refused);
        if conn.security.owes() {
            let Some(packet) = proof(&mut self.shared, conn, now, pool) else {
                self.shared.stats.no_buffer_on_send += 1;
                return Turn::Stop;
            };
            arm_conn(conn, &mut self.shared);
            if !send(conn.local, from, conn.addr, packet) {
                return Turn::Stop;
            }
        }
        for index in 0..conn.channels.len() {
            while conn.channels[index].owes() {
                let Some(packet) = answer(&mut self.shared, conn, index, pool) else {
                    self.shared.stats.no_buffer_on_send += 1;
                    return Turn::Stop;
                };
                if let Some(peer) = self.peers.get_mut(conn.peer) {
                    peer.bytes_sent += packet.len() as u64;
                }
                if !send(conn.local, from, conn.addr, packet) {
                    return Turn::Stop;
                }
            }
        }
        conn.queued = false;
        if closing {
            self.remove_conn(id);
        }
        Turn::Done
    }
}

/// One call's turn: everything that it takes to make and send its packets.
pub(crate) struct Out<'a, 's> {
    pub now: Instant,
    pub pool: &'a mut Pool,
    send: Send<'s>,
    pub shared: &'a mut Shared,
    pub call: &'a mut Call,
    pub conn: &'a mut Conn,
    pub peer: &'a mut Peer,
    from: SocketAddr,
}

impl Out<'_, '_> {
    fn turn(&mut self) -> Turn {
        match self.control().and_then(|()| self.data()) {
            Ok(turn) => turn,
            Err(Halt) => Turn::Stop,
        }
    }

    /// ACKs and pings come before data.
    fn control(&mut self) -> Result<(), Halt> {
        if let Some((reason, serial)) = self.call.ack.due() {
            let window = self.call.receive_window(self.shared);
            let packet = self.ack(reason, serial, window)?;
            self.call.ack.sent(self.call.recv.next().wrapping_sub(1).wrapping_add(window));
            self.hand_over(packet)?;
        }
        if self.call.ack.ping {
            let window = self.call.receive_window(self.shared);
            let packet = self.ack(AckReason::Ping, 0, window)?;
            self.call.ack.ping = false;
            self.call.ack.pinged = Some((self.conn.serial, self.now));
            self.call.ack.edge = self.call.recv.next().wrapping_sub(1).wrapping_add(window);
            self.shared.stats.pings_sent += 1;
            self.hand_over(packet)?;
        }
        Ok(())
    }

    /// Data, as far as the windows and the turn allow.
    fn data(&mut self) -> Result<Turn, Halt> {
        let mut left = self.shared.config.burst_packets;
        self.look_at_path()?;
        let payload = self.call.payload(self.shared);
        if self.call.send_closed && !self.call.send.ended() {
            let Some(empty) = self.pool.alloc() else { return self.no_buffer() };
            self.call.send.push(empty);
            self.shared.queued += 1;
            self.call.send.end();
        }
        if std::mem::take(&mut self.call.deadlines.probe)
            && let Some(tail) = self.call.send.tail()
        {
            self.shared.stats.tail_probes += 1;
            let sent = self.packet(tail, true);
            self.call.send.probed(self.conn.serial);
            sent?;
        }
        let interval = Pace::interval(&self.call.congestion, self.peer.rtt.smoothed());
        self.call.deadlines.pace = None;
        loop {
            let window = self.call.congestion.window().min(self.shared.config.transmit_window);
            let Some(index) = self.call.send.next(window, self.call.peer_window, payload) else {
                self.call.limited = self.call.send.unsent() > 0 && self.call.send.in_flight() >= window;
                self.watch_stall();
                return Ok(Turn::Done);
            };
            if left == 0 {
                return Ok(Turn::Again);
            }
            let count = match (self.call.jumbo, self.call.seal) {
                (1, None) => 1,
                (1, Some(_)) => self.run(index, LANES as u8, payload, window),
                (most, _) => self.run(index, most, JUMBO_PAYLOAD_LEN, window),
            };
            if let Some(interval) = interval
                && let Err(at) = self.call.pace.depart(self.now, interval * count as u32)
            {
                (self.call.deadlines.pace, self.call.limited) = (Some(at), true);
                return Ok(Turn::Done);
            }
            left = left.saturating_sub(count);
            if count > 1 && self.call.seal.is_some() {
                self.sealed_run(index, count, window)?;
                continue;
            }
            let ask = self.asks_for_ack(index, count, window);
            if count > 1 { self.jumbogram(index, count, ask)? } else { self.packet(index, ask)? }
        }
    }

    /// How many packets from `index` may be made at once: see [`SendQueue::run`](crate::send_queue::SendQueue::run).
    fn run(&self, index: usize, most: u8, full: usize, window: u32) -> usize {
        self.call.send.run(index, most, full, window, self.call.peer_window)
    }

    /// Whether the last of `count` packets that travel together asks for an ACK: when it is sent again, when nothing can
    /// follow it until one comes, and now and then to measure the round trip. The only packet of a message asks for none:
    /// the answer is its ACK.
    pub fn asks_for_ack(&mut self, index: usize, count: usize, window: u32) -> bool {
        let (send, next) = (&self.call.send, index + count);
        let outgoing = send.outgoing(next - 1);
        let follows = next < send.len()
            && send.in_flight() + (count as u32) < window
            && next < self.call.peer_window as usize;
        let alone = outgoing.last && outgoing.seq == 1;
        // One packet of each round trip measures it.
        let measures = send.begins_round() && outgoing.seq > 1;
        outgoing.again || !follows && !alone || measures || self.peer.wants_rtt(self.now)
    }

    /// Data that the peer's window holds back, or that it has not taken for good, with nothing in flight: only the peer
    /// can change that, and what says so may be lost. The timer asks.
    fn watch_stall(&mut self) {
        let (d, send) = (&self.call.deadlines, &self.call.send);
        if send.in_flight() > 0 || !send.wants_to_send() && send.outstanding() == 0 {
            return;
        }
        if d.resend.is_none_or(|at| at <= self.now) {
            self.call.arm_resend(self.now, &self.peer.rtt, &self.shared.config, true);
        }
    }

    /// Makes an ACK.
    pub fn ack(&mut self, reason: AckReason, serial: u32, window: u32) -> Result<Mbuf, Halt> {
        let mut slots = [0; 255];
        let slots_len = if self.call.recv.out_of_order() > 0 { self.call.recv.slots(&mut slots) } else { 0 };
        let ack = Ack {
            buffer_space: 0,
            max_skew: 0,
            first: self.call.recv.next(),
            previous: self.call.recv.highest(),
            serial,
            reason,
            slots: &slots[..slots_len],
            trailer: trailer(self.shared, window),
        };
        let Some(packet) = self.pool.alloc() else { return self.no_buffer() };
        let mut header = self.conn.header(PacketType::Ack, self.call.channel, self.call.number);
        header.flags = header.flags | Flags::SLOW_START_OK;
        if reason == AckReason::Ping {
            header.flags = header.flags | Flags::REQUEST_ACK;
        }
        self.shared.stats.sent[PacketType::Ack as usize] += 1;
        Ok(encode_ack(packet, &header, &ack))
    }

    pub fn no_buffer<T>(&mut self) -> Result<T, Halt> {
        self.shared.stats.no_buffer_on_send += 1;
        Err(Halt)
    }

    pub fn hand_over(&mut self, packet: Mbuf) -> Result<(), Halt> {
        self.peer.bytes_sent += packet.len() as u64;
        self.peer.sent_at = self.now;
        match (self.send)(self.conn.local, self.from, self.conn.addr, packet) {
            true => Ok(()),
            false => Err(Halt),
        }
    }
}

fn trailer(shared: &Shared, window: u32) -> AckTrailer {
    let config = &shared.config;
    AckTrailer::full(config.mtu, config.mtu, window, config.jumbo_max)
}

fn encode_ack(mut packet: Mbuf, header: &Header, ack: &Ack<'_>) -> Mbuf {
    let room = packet.append(HEADER_LEN + ack.encoded_len()).expect("a buffer holds an ACK");
    room[..HEADER_LEN].copy_from_slice(&header.to_bytes());
    ack.encode(&mut room[HEADER_LEN..]).expect("sized for it");
    packet
}

/// The next answer that a channel owes for a call that has ended. `None`: no buffer.
fn answer(shared: &mut Shared, conn: &mut Conn, index: usize, pool: &mut Pool) -> Option<Mbuf> {
    let packet = pool.alloc()?;
    let channel = &mut conn.channels[index];
    let Channel { number, last, .. } = *channel;
    if let Some(code) = channel.abort_before.take() {
        let header = conn.header(PacketType::Abort, index, number - 1);
        shared.stats.sent[PacketType::Abort as usize] += 1;
        return Some(with_body(packet, &header, &Abort::body(code)));
    }
    let (reason, serial) = channel.reply.take()?;
    channel.final_ack = None;
    let kind = if let Last::Abort { .. } = last { PacketType::Abort } else { PacketType::Ack };
    let mut header = conn.header(kind, index, number);
    shared.stats.sent[kind as usize] += 1;
    let (next, highest) = match last {
        Last::Abort { code } => return Some(with_body(packet, &header, &Abort::body(code))),
        Last::Ack { next, highest } => (next, highest),
        Last::Nothing => (1, 0),
    };
    header.flags = header.flags | Flags::SLOW_START_OK;
    let window = shared.recv_share() as u32;
    let trailer = trailer(shared, window);
    let ack = Ack {
        buffer_space: 0,
        max_skew: 0,
        first: next,
        previous: highest,
        serial,
        reason,
        slots: &[],
        trailer,
    };
    Some(encode_ack(packet, &header, &ack))
}

/// The CHALLENGE or RESPONSE that a connection owes. `None`: no buffer.
fn proof(shared: &mut Shared, conn: &mut Conn, now: Instant, pool: &mut Pool) -> Option<Mbuf> {
    let mut packet = pool.alloc()?;
    let kind = if conn.role == Role::Client { PacketType::Response } else { PacketType::Challenge };
    let (place, header) = (conn.place(), conn.header(kind, 0, 0));
    let rxkad = conn.security.rxkad()?;
    if let Some(challenge) = rxkad.challenge_mut() {
        packet = with_body(packet, &header, &challenge.send(now));
    } else {
        let (fixed, ticket) = rxkad.response(&place)?;
        packet = with_body(packet, &header, &fixed);
        packet.extend_from_slice(ticket, pool).ok()?;
        rxkad.answered();
    }
    shared.stats.sent[kind as usize] += 1;
    Some(packet)
}

/// A packet of a header and a body.
pub(crate) fn with_body(mut packet: Mbuf, header: &Header, body: &[u8]) -> Mbuf {
    let room = packet.append(HEADER_LEN + body.len()).expect("a buffer holds a small packet");
    room[..HEADER_LEN].copy_from_slice(&header.to_bytes());
    room[HEADER_LEN..].copy_from_slice(body);
    packet
}

impl Endpoint {
    /// Queues an answer to a packet that belongs to no call: the same ids, the other direction.
    pub(crate) fn reply_to(
        &mut self,
        pool: &mut Pool,
        local: LocalId,
        to: SocketAddr,
        to_header: &Header,
        kind: PacketType,
        body: &[u8],
    ) -> bool {
        let Some(from) = self.locals.get(local).map(|local| local.addr) else { return false };
        let room = self.shared.replies.len() < self.shared.config.replies_max;
        let Some(packet) = room.then(|| pool.alloc()).flatten() else {
            self.shared.stats.replies_lost += 1;
            return false;
        };
        let header = Header {
            packet_type: kind,
            flags: if to_header.from_client() { Flags::NONE } else { Flags::CLIENT_INITIATED },
            seq: 0,
            serial: 0,
            checksum: 0,
            user_status: 0,
            ..*to_header
        };
        self.shared.stats.sent[kind as usize] += 1;
        let packet = with_body(packet, &header, body);
        self.shared.replies.push_back(Reply { local, from, to, packet });
        true
    }

    /// The role of a packet's receiver.
    pub(crate) fn role_of(header: &Header) -> Role {
        if header.from_client() { Role::Service } else { Role::Client }
    }
}
