//! Transmission: from a datagram to frames in the outbox.
//!
//! Headers go into the payload's headroom. A datagram larger than the path's MTU is fragmented: with IPv4's "don't
//! fragment" clear, as Rx over kernel sockets does it (IP_PMTUDISC_DONT). A frame whose neighbour is not known yet waits in
//! the neighbour cache, complete but for the destination's MAC address.

use std::net::{IpAddr, SocketAddr};

use pmd::{Instant, MacAddr, Mbuf, MbufList, Meta, Pool};

use super::icmp::quoted_flow;
use super::neighbour::{Action, Claim, Lookup};
use super::route::{Hop, is_link_local, socket_address};
use super::verdict::{Datagram, NetError, Outbox, Unreachable, Update};
use super::wire::*;
use super::{Io, Stack, arp, ndp, scope};
use crate::stats::Drop;

impl Stack {
    /// Sends `payload` in a UDP datagram. An unspecified address in `from` is replaced by the route's. The payload is
    /// consumed either way; `Ok` means that it is in the outbox, or waits for its neighbour's address.
    pub fn send(
        &mut self,
        now: Instant,
        from: SocketAddr,
        to: SocketAddr,
        payload: Mbuf,
        pool: &mut Pool,
        out: &mut Outbox,
    ) -> Result<(), Drop> {
        if from.port() == 0 || to.port() == 0 {
            return Err(Drop::ZeroPort);
        }
        let headers = if to.is_ipv4() { IPV4 + UDP } else { UDP };
        if payload.len() > IP_PAYLOAD_MAX - headers {
            return Err(Drop::TooBig);
        }
        let hop = match self.last_way {
            Some((last, hop)) if last == (to.ip(), scope(to)) => hop,
            _ => {
                if let Some(port) = self.routes.local_port(to.ip(), scope(to)) {
                    let src = self.source(from, Hop { port, next: to.ip(), source: to.ip() })?;
                    let peer = socket_address(src, from.port(), port);
                    return out.push_loopback(Datagram { local: to, peer, payload });
                }
                let hop = self.routes.lookup(to.ip(), scope(to)).ok_or(Drop::NoRoute)?;
                self.last_way = Some(((to.ip(), scope(to)), hop));
                hop
            }
        };
        let ends = (self.source(from, hop)?, to.ip());
        let datagram = push_udp(payload, ends, (from.port(), to.port()), pool)?;
        self.output(&mut Io { now, pool, out }, hop, ends, PROTOCOL_UDP, datagram)
    }

    /// The address to send from: the one asked for, if it is ours and fits the destination.
    #[inline]
    fn source(&self, from: SocketAddr, hop: Hop) -> Result<IpAddr, Drop> {
        let address = from.ip();
        if address.is_ipv4() != hop.source.is_ipv4() {
            return Err(Drop::BadSource);
        }
        if address.is_unspecified() || address == hop.source {
            return Ok(hop.source);
        }
        match self.routes.local_port(address, hop.port as u32 + 1) {
            Some(port) if port == hop.port || !is_link_local(address) => Ok(address),
            _ => Err(Drop::BadSource),
        }
    }

    /// Sends an IP payload, in fragments if it must be.
    #[inline]
    pub(super) fn output(
        &mut self,
        io: &mut Io<'_>,
        hop: Hop,
        (src, dst): (IpAddr, IpAddr),
        protocol: u8,
        payload: Mbuf,
    ) -> Result<(), Drop> {
        let mtu = self.mtu(io.now, hop, dst);
        let header = if dst.is_ipv4() { IPV4 } else { IPV6 };
        if header + payload.len() <= mtu {
            let part = Part { id: 0, offset: 0, more: false };
            let packet = self.push_ip(io, (src, dst), protocol, part, payload)?;
            return self.transmit(io, hop, packet);
        }
        let mut fragments = self.fragment(io, mtu, (src, dst), protocol, payload)?;
        while let Some(fragment) = fragments.pop_front() {
            self.transmit(io, hop, fragment)?;
        }
        Ok(())
    }

    #[inline]
    fn push_ip(
        &mut self,
        io: &mut Io<'_>,
        ends: (IpAddr, IpAddr),
        protocol: u8,
        mut part: Part,
        payload: Mbuf,
    ) -> Result<Mbuf, Drop> {
        let whole = part.offset == 0 && !part.more;
        match ends {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                if whole {
                    part.id = u32::from(self.whole_ids.next16());
                }
                push_ipv4(payload, (src, dst), protocol, part, io.pool)
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                push_ipv6(payload, (src, dst), (protocol, TTL), (!whole).then_some(part), io.pool)
            }
            _ => Err(Drop::BadSource),
        }
    }

    /// Cuts a payload into IP fragments, all of them or none.
    fn fragment(
        &mut self,
        io: &mut Io<'_>,
        mtu: usize,
        ends: (IpAddr, IpAddr),
        protocol: u8,
        mut rest: Mbuf,
    ) -> Result<MbufList, Drop> {
        let (headers, id) = if ends.1.is_ipv4() {
            (IPV4, u32::from(self.fragment_ids.next16()))
        } else {
            (IPV6 + FRAGMENT, self.fragment_ids.next32())
        };
        let step = (mtu - headers) & !7;
        let mut fragments = MbufList::new();
        let mut offset = 0;
        while rest.len() > step {
            let piece = rest.split_to(step, io.pool).map_err(|_| Drop::NoBuffers)?;
            let part = Part { id, offset, more: true };
            fragments.push_back(self.push_ip(io, ends, protocol, part, piece)?);
            offset += step;
        }
        fragments.push_back(self.push_ip(io, ends, protocol, Part { id, offset, more: false }, rest)?);
        Ok(fragments)
    }

    /// Sends an IP packet to its next hop, or parks it until that is known.
    #[inline]
    fn transmit(&mut self, io: &mut Io<'_>, hop: Hop, packet: Mbuf) -> Result<(), Drop> {
        let out = &mut *io.out;
        let key = (hop.port as u16, hop.next);
        let found = self.neighbours.lookup(io.now, key, hop.source, &mut |action| give_up(out, action));
        let dst = match found {
            Lookup::Known(mac) => mac,
            Lookup::Unresolved { .. } => MacAddr::default(),
            Lookup::Failed => return Err(Drop::NeighbourUnreachable),
            Lookup::Full => return Err(Drop::NeighbourTableFull),
        };
        let ours = &self.ports[hop.port];
        let ethertype = if hop.next.is_ipv4() { ETHERTYPE_IPV4 } else { ETHERTYPE_IPV6 };
        let link = Link { src: ours.mac, dst, vlan: ours.vlan };
        let mut frame = push_ethernet(packet, link, ethertype, io.pool)?;
        // Whatever a device said of the payload when it came in, it is finished now.
        *frame.meta_mut() = Meta::default();
        let Lookup::Unresolved { slot, solicit } = found else { return io.out.push(hop.port, frame) };
        if solicit {
            self.solicit(io, hop.port, hop.next, hop.source, None);
        }
        self.neighbours.park(slot, frame)
    }

    /// Takes what a station said about itself, and sends what waited for it. False: nobody we deal with.
    pub(super) fn learn(&mut self, io: &mut Io<'_>, claim: &Claim) -> bool {
        let Some((mac, mut waiting)) = self.neighbours.learn(io.now, claim) else { return false };
        while let Some(mut frame) = waiting.pop_front() {
            frame.data_mut()[..6].copy_from_slice(&mac.0);
            if let Err(reason) = io.out.push(usize::from(claim.port), frame) {
                io.out.count_tx(reason, 1);
            }
        }
        true
    }

    /// As [`Stack::learn`], for what this core heard itself: the other cores are told.
    pub(super) fn hear(&mut self, io: &mut Io<'_>, claim: Claim) -> bool {
        if self.shared {
            io.out.push_update(Update::Neighbour(claim));
        }
        // Whether another core deals with it, this one cannot tell.
        self.learn(io, &claim) || self.shared
    }

    /// Asks where `address` is: everyone, or the station thought to have it.
    fn solicit(
        &mut self,
        io: &mut Io<'_>,
        port: usize,
        address: IpAddr,
        source: IpAddr,
        mac: Option<MacAddr>,
    ) {
        if !self.solicitations.take(io.now) {
            return;
        }
        let ours = &self.ports[port];
        let link = Link { src: ours.mac, dst: mac.unwrap_or(MacAddr::BROADCAST), vlan: ours.vlan };
        let frame = match (address, source) {
            (IpAddr::V4(target), IpAddr::V4(source)) => arp::request(link, target, source, io.pool),
            (IpAddr::V6(target), IpAddr::V6(source)) => {
                ndp::solicitation(link, target, source, mac.is_none(), io.pool)
            }
            _ => return,
        };
        self.emit(io, port, frame);
    }

    /// Queues a frame of our own accord; nobody waits to hear why it could not be sent.
    pub(super) fn emit(&mut self, io: &mut Io<'_>, port: usize, frame: Result<Mbuf, Drop>) {
        if let Err(reason) = frame.and_then(|frame| io.out.push(port, frame)) {
            io.out.count_tx(reason, 1);
        }
    }

    pub(super) fn expire_neighbours(&mut self, io: &mut Io<'_>) {
        // The cache is lent to its own timers; what they demand is done right after.
        while let Some(action) = self.neighbours.expire(io.now) {
            match action {
                Action::Solicit { port, address, source, mac } => {
                    self.solicit(io, port, address, source, mac)
                }
                given_up => give_up(io.out, given_up),
            }
        }
    }

    /// Tells every link where our addresses are (RFC 5227 section 2.3, RFC 4861 section 7.2.6): once, at the start.
    pub fn announce(&mut self, now: Instant, pool: &mut Pool, out: &mut Outbox) {
        let mut io = Io { now, pool, out };
        for i in 0..self.routes.addresses().len() {
            let (port, address) = self.routes.addresses()[i];
            let ours = &self.ports[port];
            let link = Link { src: ours.mac, dst: MacAddr::BROADCAST, vlan: ours.vlan };
            let frame = match address {
                IpAddr::V4(address) => arp::request(link, address, address, io.pool),
                IpAddr::V6(address) => ndp::announcement(link, address, io.pool),
            };
            self.emit(&mut io, port, frame);
        }
    }
}

/// Counts frames that will not be sent, and tells their senders if a neighbour is to blame.
pub(super) fn give_up(out: &mut Outbox, action: Action) {
    let Action::GiveUp { port, mut frames, reason } = action else { return };
    out.count_tx(reason, frames.len());
    while let Some(frame) = frames.pop_front() {
        let tagged = frame.data().get(12..14) == Some(&ETHERTYPE_VLAN.to_be_bytes());
        let header = if tagged { ETHERNET + VLAN_TAG } else { ETHERNET };
        let flow = frame.data().get(header..).and_then(|packet| quoted_flow(packet).ok());
        if let Some((src, dst, Some((from, to)))) = flow {
            let (local, peer) = (socket_address(src, from, port), socket_address(dst, to, port));
            out.push_unreachable(Unreachable { local, peer, error: NetError::NeighbourUnresolved });
        }
    }
}
