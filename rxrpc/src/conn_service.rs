//! Service connections, and how calls come in on them.

use crate::call::{Call, INITIAL_WINDOW};
use crate::congestion::Congestion;
use crate::conn::{Channel, Conn, ConnKey, Last};
use crate::conn_client::CHANNELS;
use crate::endpoint::Endpoint;
use crate::error::code;
use crate::security::ConnSecurity;
use crate::wire::{Abort, Header, PacketType};
use crate::{CallId, Completion, ConnId, Event, LocalId, Role, RxDrop};
use pmd::{Instant, Pool};
use std::hash::BuildHasher;
use std::net::SocketAddr;

impl Endpoint {
    /// The connection for a client's DATA packet that belongs to none yet. Nothing is made before it is known that the
    /// call can be taken.
    pub(crate) fn accept_conn(
        &mut self,
        now: Instant,
        pool: &mut Pool,
        local_id: LocalId,
        peer: SocketAddr,
        header: &Header,
    ) -> Result<ConnId, RxDrop> {
        self.may_begin(header)?;
        let local = self.locals.get_mut(local_id).ok_or(RxDrop::NoLocal)?;
        let service_id = local.upgraded(header);
        let Some(service) = local.service(service_id) else {
            self.stray_abort(now, pool, local_id, peer, header);
            return Err(RxDrop::NoService);
        };
        let charged = service.charged > 0;
        let nonces = &mut self.nonces;
        let nonce = || {
            nonces.1 += 1;
            nonces.0.hash_one(nonces.1) as u32
        };
        let Some(security) =
            ConnSecurity::for_service(header.security_index, &service.config.security, nonce)
        else {
            self.stray_abort(now, pool, local_id, peer, header);
            return Err(RxDrop::UnknownSecurity);
        };
        if !charged {
            self.busy(now, pool, local_id, peer, header);
            return Err(RxDrop::Busy);
        }
        if self.conns.is_full() || self.peers.is_full() {
            self.reclaim_conn();
        }
        let unsecured = !security.secured() && self.unsecured >= self.shared.config.unsecured_conns_max;
        if unsecured || self.conns.is_full() || self.calls.is_full() {
            self.busy(now, pool, local_id, peer, header);
            return Err(RxDrop::Limit);
        }
        let Some(peer_id) = self.peer_for(local_id, peer) else {
            self.busy(now, pool, local_id, peer, header);
            return Err(RxDrop::Limit);
        };
        self.unsecured += usize::from(!security.secured());
        let (id, conn) = self.conns.insert().expect("not full");
        *conn = Conn {
            id,
            role: Role::Service,
            local: local_id,
            peer: peer_id,
            addr: peer,
            epoch: header.epoch,
            cid: header.cid.connection(),
            service: service_id,
            asked_service: header.service,
            security,
            used: now,
            ..Conn::default()
        };
        let key = ConnKey::new(Role::Service, local_id, peer, header.epoch, header.cid);
        self.register_conn(id, key);
        self.shared.stats.service_conns += 1;
        if self.conns.get(id).is_some_and(|conn| conn.security.owes()) {
            self.schedule_conn(id);
        }
        Ok(id)
    }

    /// The table is full: an unused service connection makes room, if one is found soon. Its client loses nothing but the
    /// memory of its last calls.
    fn reclaim_conn(&mut self) {
        const LOOKS: usize = 32;
        for _ in 0..LOOKS {
            let Some(id) = self.conns.next_from(self.reclaim_at).or_else(|| self.conns.next_from(0)) else {
                return;
            };
            self.reclaim_at = id.slot() + 1;
            let unused = |conn: &&Conn| conn.role == Role::Service && conn.unused() && !conn.owes();
            if self.conns.get(id).filter(unused).is_some() {
                return self.remove_conn(id);
            }
        }
    }

    /// Whether a packet can be the first of a call: only DATA creates one, and not DATA from so far into a call that it
    /// must be of one from before a restart.
    fn may_begin(&self, header: &Header) -> Result<(), RxDrop> {
        if header.packet_type != PacketType::Data {
            return Err(RxDrop::NoConnection);
        }
        if header.call == 0 || header.seq == 0 {
            return Err(RxDrop::BadSequence);
        }
        if header.seq > self.shared.config.receive_window {
            return Err(RxDrop::MidCall);
        }
        Ok(())
    }

    /// The call that a client's packet belongs to; made if it begins one.
    pub(crate) fn service_call(
        &mut self,
        now: Instant,
        pool: &mut Pool,
        conn_id: ConnId,
        header: &Header,
    ) -> Result<CallId, RxDrop> {
        let conn = self.conns.get(conn_id).ok_or(RxDrop::NoConnection)?;
        let Channel { call, number, .. } = conn.channels[header.cid.channel()];
        if header.call < number {
            return Err(RxDrop::OldCall);
        }
        if header.call == number {
            return match call {
                Some(call) => Ok(call),
                None => Err(self.answer_ended(conn_id, header)),
            };
        }
        if header.packet_type != PacketType::Data {
            return Err(RxDrop::NoCall);
        }
        self.may_begin(header)?;
        if matches!(&conn.security, ConnSecurity::Rxkad(rxkad) if rxkad.is_refused()) {
            return Err(RxDrop::NoConnection);
        }
        let (local, addr, service) = (conn.local, conn.addr, conn.service);
        self.may_take(now, pool, local, addr, service, header)?;
        if let Some(call) = call {
            self.superseded(now, call);
        }
        Ok(self.accept_call(now, conn_id, header))
    }

    /// Whether there is an accept charged and room for a call.
    fn may_take(
        &mut self,
        now: Instant,
        pool: &mut Pool,
        local: LocalId,
        peer: SocketAddr,
        service: u16,
        header: &Header,
    ) -> Result<(), RxDrop> {
        let service = self.locals.get_mut(local).and_then(|local| local.service(service));
        let refused = match service {
            None => {
                self.stray_abort(now, pool, local, peer, header);
                return Err(RxDrop::NoService);
            }
            Some(service) if service.charged == 0 => RxDrop::Busy,
            Some(_) if self.calls.is_full() => RxDrop::Limit,
            Some(_) => return Ok(()),
        };
        self.busy(now, pool, local, peer, header);
        Err(refused)
    }

    /// The client began another call on the channel: it has all of the reply, or no longer wants it.
    fn superseded(&mut self, now: Instant, id: CallId) {
        let Some(call) = self.calls.get(id) else { return };
        let completion = match call.send_closed && call.send.unsent() == 0 {
            true => Completion::Succeeded,
            false => Completion::RemoteAbort(code::CALL_DEAD),
        };
        self.finish(now, id, completion);
    }

    /// Makes the call. There is room: `may_take` has looked.
    fn accept_call(&mut self, now: Instant, conn_id: ConnId, header: &Header) -> CallId {
        let channel = header.cid.channel();
        let conn = self.conns.get_mut(conn_id).expect("the caller has it");
        let (id, call) = self.calls.insert().expect("there is room");
        conn.channels[channel] = Channel { call: Some(id), number: header.call, ..Channel::default() };
        (call.id, call.role, call.local, call.addr) = (id, Role::Service, conn.local, conn.addr);
        (call.conn, call.channel, call.number, call.peer) = (Some(conn_id), channel, header.call, conn.peer);
        (call.epoch, call.cid, call.service) = (conn.epoch, header.cid.0, conn.service);
        self.shared.trace_begun(now, call);
        let d = &mut call.deadlines;
        (d.began, d.heard, d.pinged, d.moved) = (now, now, now, now);
        d.dead = self.shared.config.dead;
        call.ack.edge = INITIAL_WINDOW.min(self.shared.config.receive_window);
        call.congestion = Congestion::new(self.shared.config.congestion);
        if let Some(service) = self.locals.get_mut(conn.local).and_then(|local| local.service(conn.service)) {
            service.charged -= 1;
            call.holds_charge = true;
        }
        // Whatever becomes of this packet, the call will not wait for its peer for ever.
        call.rearm_all(&mut self.shared);
        self.shared.stats.calls_accepted += 1;
        if conn.security.secured() {
            announce(call, &conn.security, &mut self.shared);
        }
        id
    }

    /// A client says who it is. With the proof complete, what came in meanwhile is opened, and whoever listens is told of it.
    pub(crate) fn secure_conn(&mut self, now: Instant, id: ConnId, response: &[u8]) -> Result<(), RxDrop> {
        let unix = self.unix_origin.map(|origin| (origin + (now - Instant::ZERO)).as_secs());
        let conn = self.conns.get_mut(id).ok_or(RxDrop::NoConnection)?;
        #[cfg(test)]
        if let Some(gate) = conn.security.gate().filter(|gate| !gate.secured()) {
            gate.respond();
            self.announce_conn(now, id);
            return Ok(());
        }
        let place = conn.place();
        let judgement = match conn.security.rxkad() {
            Some(rxkad) => rxkad.respond(response, &place, unix),
            None => return Err(RxDrop::ResponseUnasked),
        };
        match judgement {
            Ok(calls) => {
                for (channel, number) in conn.channels.iter_mut().zip(calls) {
                    // The call with that number may be on its way; those before it are over.
                    if channel.call.is_none() {
                        channel.number = channel.number.max(number.saturating_sub(1));
                    }
                }
                self.announce_conn(now, id);
                Ok(())
            }
            Err(refused) => {
                if let Some(code) = refused.code {
                    self.end_conn(now, id, Completion::LocalAbort(code));
                }
                Err(refused.reason)
            }
        }
    }

    /// A connection is secured from here on.
    fn announce_conn(&mut self, now: Instant, id: ConnId) {
        self.unsecured -= 1;
        let Some(conn) = self.conns.get(id) else { return };
        let mut broken = [None; CHANNELS];
        for (channel, broken) in conn.channels.iter().zip(&mut broken) {
            let Some(call) = channel.call.and_then(|call| self.calls.get_mut(call)) else { continue };
            match open_held(call, conn) {
                Ok(()) => announce(call, &conn.security, &mut self.shared),
                Err(code) => *broken = Some((call.id, code)),
            }
        }
        for (call, code) in broken.into_iter().flatten() {
            self.finish(now, call, Completion::LocalAbort(code));
        }
    }

    /// Another CHALLENGE falls due, or the client has had time enough. Then it is let go without a word: it may be nobody, and
    /// whose address that is has heard enough from us.
    pub(crate) fn expire_challenge(&mut self, now: Instant, id: ConnId) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        let Some(challenge) = conn.security.rxkad().and_then(|rxkad| rxkad.challenge_mut()) else { return };
        if !challenge.is_over(now) {
            challenge.expire(now);
            if challenge.deadline().is_none() {
                self.schedule_conn(id);
            }
            return;
        }
        for call in conn.channels.map(|channel| channel.call).into_iter().flatten() {
            self.give_up(now, call);
        }
        self.remove_conn(id);
    }

    /// A client sends on a connection that it has not proved anything on: it may not have heard the CHALLENGE.
    pub(crate) fn repeat_challenge(&mut self, now: Instant, id: ConnId) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        if let Some(challenge) = conn.security.rxkad().and_then(|rxkad| rxkad.challenge_mut()) {
            challenge.repeat(now);
            if conn.security.owes() {
                self.schedule_conn(id);
            }
        }
    }

    /// A packet for the channel's last call, which has ended: DATA and pings are answered from memory, nothing else is.
    pub(crate) fn answer_ended(&mut self, conn_id: ConnId, header: &Header) -> RxDrop {
        use crate::wire::AckReason;
        let Some(conn) = self.conns.get_mut(conn_id) else { return RxDrop::NoConnection };
        let channel = &mut conn.channels[header.cid.channel()];
        let reason = match header.packet_type {
            PacketType::Data => AckReason::Duplicate,
            PacketType::Ack if header.flags.contains(crate::wire::Flags::REQUEST_ACK) => {
                AckReason::PingResponse
            }
            _ => return RxDrop::NoCall,
        };
        if channel.last == Last::Nothing {
            return RxDrop::NoCall;
        }
        channel.reply = Some((reason, header.serial));
        self.schedule_conn(conn_id);
        if header.packet_type == PacketType::Data { RxDrop::Duplicate } else { RxDrop::NoCall }
    }

    /// No such service, or not with this security: an abort, unless too many were sent of late.
    fn stray_abort(
        &mut self,
        now: Instant,
        pool: &mut Pool,
        local: LocalId,
        peer: SocketAddr,
        header: &Header,
    ) {
        if self.stray_reply_allowed(now) {
            self.reply_to(
                pool,
                local,
                peer,
                header,
                PacketType::Abort,
                &Abort::body(code::INVALID_OPERATION),
            );
        }
    }

    /// No room for the call now.
    fn busy(&mut self, now: Instant, pool: &mut Pool, local: LocalId, peer: SocketAddr, header: &Header) {
        if self.stray_reply_allowed(now) {
            self.reply_to(pool, local, peer, header, PacketType::Busy, &[]);
        }
    }

    /// A token bucket of a second's worth.
    fn stray_reply_allowed(&mut self, now: Instant) -> bool {
        let rate = u64::from(self.shared.config.stray_replies_per_second);
        let since = now.saturating_duration_since(self.stray_at).as_nanos() as u64;
        let fresh = (u128::from(since) * u128::from(rate) / 1_000_000_000) as u64;
        if fresh > 0 {
            self.stray_tokens = self.stray_tokens.saturating_add(fresh).min(rate);
            self.stray_at = now;
        }
        let allowed = self.stray_tokens > 0;
        self.stray_tokens -= u64::from(allowed);
        allowed
    }
}

/// Opens what a call received before the key to it was there. The error is an abort code.
fn open_held(call: &mut Call, conn: &Conn) -> Result<(), i32> {
    let header = Header {
        epoch: conn.epoch,
        cid: conn.cid.with_channel(call.channel),
        call: call.number,
        ..Header::new(PacketType::Data)
    };
    call.recv
        .open_all(|seq, checksum, data| conn.security.open_held(&Header { seq, checksum, ..header }, data))
}

/// Tells the user of a call: once, and once its connection is secured.
fn announce(call: &mut Call, security: &ConnSecurity, shared: &mut crate::shared::Shared) {
    debug_assert!(!call.announced);
    call.announced = true;
    call.holds_charge = false;
    (call.seal, call.identity) = (security.level(), security.identity().cloned());
    let (id, local, service, peer) = (call.id, call.local, call.service, call.addr);
    shared.events.push_back(Event::Incoming { call: id, local, service, peer });
    if call.recv.ready() > 0 {
        call.notify_readable(shared);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Cid, Flags};
    use crate::{EndpointConfig, ServiceConfig};
    use pmd::{Pool, PoolConfig};

    const GATE: u8 = 200;

    struct Server {
        rx: Endpoint,
        pool: Pool,
        local: LocalId,
        serial: u32,
    }

    impl Server {
        fn new(config: EndpointConfig) -> Self {
            let mut rx = Endpoint::new(config, 1);
            let local = rx.add_local("192.0.2.10:7009".parse().unwrap()).unwrap();
            rx.listen(local, ServiceConfig { backlog: 4, ..ServiceConfig::new(147) }).unwrap();
            let pool = PoolConfig::new("service", 64).build().unwrap().claim();
            Server { rx, pool, local, serial: 0 }
        }

        /// A packet of the client on this channel of a connection of its own.
        fn input(&mut self, kind: PacketType, security: u8, client: u16, channel: u32) -> Result<(), RxDrop> {
            self.serial += 1;
            let call = u32::from(kind == PacketType::Data);
            let header = Header {
                epoch: 7,
                cid: Cid(0x100 | channel),
                call,
                seq: call,
                serial: self.serial,
                flags: Flags::CLIENT_INITIATED | Flags::LAST,
                service: 147,
                security_index: security,
                ..Header::new(kind)
            };
            let bytes = [&header.to_bytes()[..], b"body"].concat();
            let packet = self.pool.copy_from(&bytes).unwrap();
            let peer = SocketAddr::from(([192, 0, 2, 20], client));
            self.rx.input(Instant::default(), &mut self.pool, self.local, peer, packet)
        }

        /// Calls that came in, and those that are readable.
        fn told(&mut self) -> (usize, usize) {
            let events: Vec<_> = std::iter::from_fn(|| self.rx.poll_event()).collect();
            let count = |wanted: fn(&Event) -> bool| events.iter().filter(|event| wanted(event)).count();
            (
                count(|event| matches!(event, Event::Incoming { .. })),
                count(|event| matches!(event, Event::Readable { .. })),
            )
        }
    }

    #[test]
    fn nobody_is_told_of_a_call_before_its_connection_is_secured_and_once_after() {
        let mut server = Server::new(EndpointConfig::default());
        server.input(PacketType::Data, GATE, 1, 0).unwrap();
        server.input(PacketType::Data, GATE, 1, 1).unwrap();
        assert_eq!(server.told(), (0, 0), "not secured");
        server.input(PacketType::Response, GATE, 1, 0).unwrap();
        assert_eq!(server.told(), (2, 2));
        assert_eq!(server.input(PacketType::Response, GATE, 1, 0), Err(RxDrop::ResponseUnasked));
        assert_eq!(server.told(), (0, 0), "once");
        // A later call of the connection is announced as it comes.
        server.input(PacketType::Data, GATE, 1, 2).unwrap();
        assert_eq!(server.told(), (1, 1));
    }

    /// 8. Whoever never answers a challenge holds one of a few places, and no more.
    #[test]
    fn connections_that_are_not_secured_are_limited() {
        let mut server = Server::new(EndpointConfig { unsecured_conns_max: 1, ..EndpointConfig::default() });
        server.input(PacketType::Data, GATE, 1, 0).unwrap();
        assert_eq!(server.input(PacketType::Data, GATE, 2, 0), Err(RxDrop::Limit));
        server.input(PacketType::Response, GATE, 1, 0).unwrap();
        server.input(PacketType::Data, GATE, 2, 0).unwrap();
    }

    /// 6. A charged accept is used only when there is room for all that a call needs: calls within connections within peers.
    #[test]
    fn a_charge_is_used_only_with_room_for_call_connection_and_peer() {
        let charged = |server: &Server| server.rx.locals().next().unwrap().services[0].1;
        for config in [
            EndpointConfig { peers_max: 1, ..EndpointConfig::default() },
            EndpointConfig { conns_max: 1, ..EndpointConfig::default() },
            EndpointConfig { calls_max: 1, ..EndpointConfig::default() },
        ] {
            let mut server = Server::new(config);
            server.input(PacketType::Data, 0, 1, 0).unwrap();
            assert_eq!(charged(&server), 3);
            assert_eq!(server.input(PacketType::Data, 0, 2, 0), Err(RxDrop::Limit));
            assert_eq!(charged(&server), 3, "refused, and the charge is still there");
        }
    }
}
