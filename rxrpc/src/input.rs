//! Reception: from a datagram to its connection and call.

use crate::conn::ConnKey;
use crate::endpoint::Endpoint;
use crate::error::code;
use crate::input_data::take_apart;
use crate::security::RESPONSE_MAX;
use crate::wire::{Abort, Flags, HEADER_LEN, Header, PacketType};
use crate::{CallId, Completion, ConnId, LocalId, NetError, Role, RxDrop};
use pmd::{Instant, Mbuf, Pool};
use std::net::SocketAddr;

/// The most of a packet other than DATA that is looked at: the longest ACK, and the longest debug record.
const CONTROL_LEN: usize = 512;

impl Endpoint {
    pub(crate) fn input_datagram(
        &mut self,
        now: Instant,
        pool: &mut Pool,
        local: LocalId,
        peer: SocketAddr,
        mut payload: Mbuf,
    ) -> Result<(), RxDrop> {
        if self.locals.get(local).is_none_or(|local| local.closing) {
            return Err(RxDrop::NoLocal);
        }
        if payload.data().len() < HEADER_LEN && !payload.pull_up(HEADER_LEN, pool) {
            return Err(RxDrop::BadHeader);
        }
        let (header, _) = Header::parse(payload.data()).map_err(|_| RxDrop::BadHeader)?;
        self.shared.stats.received[header.packet_type as usize] += 1;
        match header.packet_type {
            PacketType::Version | PacketType::Debug => {
                self.input_probe(now, pool, local, peer, &header, payload)
            }
            PacketType::Params | PacketType::Params10 | PacketType::Params11 => Err(RxDrop::Unexpected),
            _ => self.input_conn(now, pool, local, peer, &header, payload),
        }
    }

    /// A packet that belongs to a connection, or begins one.
    fn input_conn(
        &mut self,
        now: Instant,
        pool: &mut Pool,
        local: LocalId,
        peer: SocketAddr,
        header: &Header,
        mut payload: Mbuf,
    ) -> Result<(), RxDrop> {
        let parts = match header.packet_type {
            PacketType::Data if header.flags.contains(Flags::JUMBO) => Some(take_apart(header, &payload)?),
            _ => None,
        };
        let role = Self::role_of(header);
        let key = ConnKey::new(role, local, peer, header.epoch, header.cid);
        let conn_id = match self.find_conn(&key) {
            Some(id) => id,
            None if role == Role::Service => self.accept_conn(now, pool, local, peer, header)?,
            None => return Err(RxDrop::NoConnection),
        };
        self.check_conn(conn_id, header, payload.len())?;
        if header.call == 0 {
            return self.input_conn_level(now, pool, conn_id, header, payload);
        }
        let call_id = match role {
            Role::Service => self.service_call(now, pool, conn_id, header)?,
            Role::Client => self.client_call(conn_id, header)?,
        };
        if self.conns.get(conn_id).is_some_and(|conn| conn.asks_upgrade) {
            self.learn_service(now, conn_id, header);
        }
        if header.packet_type == PacketType::Data {
            payload.advance(HEADER_LEN);
            return self.input_data(now, pool, conn_id, call_id, header, payload, parts);
        }
        payload.pull_up(payload.len().min(CONTROL_LEN), pool);
        let body = &payload.data()[HEADER_LEN..];
        match header.packet_type {
            PacketType::Ack => self.input_ack(now, call_id, header, body),
            PacketType::AckAll => self.input_ack_all(now, call_id),
            PacketType::Abort => {
                let abort = Abort::parse(header, body).map_err(|_| RxDrop::BadPacket)?;
                self.finish(now, call_id, Completion::RemoteAbort(abort.code));
                Ok(())
            }
            PacketType::Busy if role == Role::Client => self.input_busy(now, call_id),
            _ => Err(RxDrop::Unexpected),
        }
    }

    /// The connection under a key.
    #[inline]
    fn find_conn(&mut self, key: &ConnKey) -> Option<ConnId> {
        if let Some(id) = self.recent_conns.get(key) {
            return Some(id);
        }
        let id = *self.conn_index.get(key)?;
        self.recent_conns.put(*key, id);
        Some(id)
    }

    /// What must be the same on every packet of a connection. An OpenAFS ABORT may name no service, and a client learns
    /// of a service upgrade from the replies, so that only a client's requests are held to it.
    fn check_conn(&mut self, id: ConnId, header: &Header, len: usize) -> Result<(), RxDrop> {
        let conn = self.conns.get(id).ok_or(RxDrop::NoConnection)?;
        let security =
            header.security_index != conn.security.index() && header.packet_type != PacketType::Abort;
        let service = conn.role == Role::Service
            && header.packet_type == PacketType::Data
            && header.service != conn.service
            && header.service != conn.asked_service;
        if security || service {
            return Err(RxDrop::ConnMismatch);
        }
        if let Some(peer) = self.peers.get_mut(conn.peer) {
            peer.bytes_received += len as u64;
        }
        Ok(())
    }

    /// A packet that speaks of the whole connection.
    fn input_conn_level(
        &mut self,
        now: Instant,
        pool: &mut Pool,
        id: ConnId,
        header: &Header,
        mut payload: Mbuf,
    ) -> Result<(), RxDrop> {
        if header.packet_type == PacketType::Response {
            return if header.from_client() {
                self.input_response(now, id, &payload)
            } else {
                Err(RxDrop::Unexpected)
            };
        }
        payload.pull_up(payload.len().min(CONTROL_LEN), pool);
        let body = &payload.data()[HEADER_LEN..];
        match header.packet_type {
            PacketType::Abort => {
                let abort = Abort::parse(header, body).map_err(|_| RxDrop::BadPacket)?;
                self.end_conn(now, id, Completion::RemoteAbort(abort.code));
                Ok(())
            }
            PacketType::Challenge if !header.from_client() => self.input_challenge(now, id, header, body),
            _ => Err(RxDrop::Unexpected),
        }
    }

    /// The server wants to know who we are.
    fn input_challenge(
        &mut self,
        now: Instant,
        id: ConnId,
        header: &Header,
        body: &[u8],
    ) -> Result<(), RxDrop> {
        let conn = self.conns.get_mut(id).ok_or(RxDrop::NoConnection)?;
        let ends = match conn.security.rxkad() {
            Some(rxkad) => rxkad.challenged(body)?,
            // We have no way to tell: better an end than a hang.
            None => Some(code::PROTOCOL_ERROR),
        };
        if conn.asks_upgrade {
            self.learn_service(now, id, header);
        }
        match ends {
            Some(code) => self.end_conn(now, id, Completion::LocalAbort(code)),
            None => self.schedule_conn(id),
        }
        Ok(())
    }

    /// A client says who it is. What is judged is a copy: its length is known by then.
    fn input_response(&mut self, now: Instant, id: ConnId, packet: &Mbuf) -> Result<(), RxDrop> {
        let len = packet.len() - HEADER_LEN;
        if len > RESPONSE_MAX {
            return Err(RxDrop::ResponseLong);
        }
        let mut body = [0; RESPONSE_MAX];
        packet.copy_to(HEADER_LEN, &mut body[..len]);
        self.secure_conn(now, id, &body[..len])
    }

    /// The call that a server's packet belongs to.
    fn client_call(&mut self, conn_id: ConnId, header: &Header) -> Result<CallId, RxDrop> {
        let conn = self.conns.get(conn_id).ok_or(RxDrop::NoConnection)?;
        let channel = conn.channels[header.cid.channel()];
        match channel.call {
            Some(call) if header.call == channel.number => Ok(call),
            None if header.call == channel.number => Err(self.answer_ended(conn_id, header)),
            _ if header.call < channel.number => Err(RxDrop::OldCall),
            _ => Err(RxDrop::NoCall),
        }
    }

    /// The server has no room. The request is repeated by the retransmission timer until it has, or until we have put
    /// up with it for long enough.
    fn input_busy(&mut self, now: Instant, id: CallId) -> Result<(), RxDrop> {
        let call = self.calls.get_mut(id).ok_or(RxDrop::NoCall)?;
        call.deadlines.heard = now;
        if !call.recv.begun() && call.ack_serial.is_none() {
            call.deadlines.busy = call.deadlines.busy.or(Some(now));
        }
        Ok(())
    }

    /// The network says that a peer cannot be reached: its calls end. Errors can be forged and may come in crowds, so
    /// they are acted upon now and then only.
    pub(crate) fn input_unreachable(
        &mut self,
        now: Instant,
        local: LocalId,
        addr: SocketAddr,
        error: NetError,
    ) {
        let Some(&peer_id) = self.peer_index.get(&(local, addr)) else { return };
        if !self.peers.get_mut(peer_id).is_some_and(|peer| peer.takes_error(now)) {
            return;
        }
        let mut at = 0;
        while let Some(id) = self.conns.next_from(at) {
            at = id.slot() + 1;
            let Some(conn) = self.conns.get(id).filter(|conn| conn.peer == peer_id) else { continue };
            for call in conn.channels.map(|channel| channel.call).into_iter().flatten() {
                self.finish(now, call, Completion::NetworkError(error));
            }
        }
    }
}
