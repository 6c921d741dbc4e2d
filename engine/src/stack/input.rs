//! Reception: from a frame to a verdict.
//!
//! [`Stack::demux`] tries the plain case first: an untagged, unfragmented IPv4/UDP frame without options for us,
//! whose checks are a handful of compares. Anything else goes the long way, which alone names reasons.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV4};

use pmd::{Checksum, Instant, MacAddr, Mbuf, Pool};

use super::checksum::Sum;
use super::reassembly::{Key, Outcome};
use super::route::socket_address;
use super::verdict::{Datagram, Outbox, Verdict};
use super::wire::*;
use super::{Io, Stack};
use crate::stats::Drop;

/// Headers lie within so many bytes, contiguous in the first segment when the long way starts to parse.
const HEADERS_MAX: usize = 256;
/// Extension headers looked through before the payload (Linux and FreeBSD: 8).
const EXTENSIONS_MAX: usize = 8;

/// What the layers above need to know of the IP header that was taken off.
#[derive(Clone, Copy, Debug)]
pub struct Packet {
    pub port: usize,
    pub src: IpAddr,
    pub dst: IpAddr,
    pub hop_limit: u8,
    pub src_mac: MacAddr,
    /// Whole as it came, so that what the device says of the checksum is about it.
    pub whole: bool,
}

impl Stack {
    /// Takes one received frame. `port` is the index of the port it came from; `now` the time of its burst.
    pub fn demux(
        &mut self,
        now: Instant,
        port: usize,
        mut frame: Mbuf,
        pool: &mut Pool,
        out: &mut Outbox,
    ) -> Verdict {
        if let Some((peer, local)) = self.plain_udp4(port, &mut frame) {
            return Verdict::Datagram(Datagram { local: local.into(), peer: peer.into(), payload: frame });
        }
        let frame = match contiguous(frame, HEADERS_MAX, pool) {
            Ok(frame) => frame,
            Err(frame) => return Verdict::Drop(Drop::NoBuffers, frame),
        };
        self.input_ethernet(&mut Io { now, pool, out }, port, frame)
    }

    /// If the frame is a plain and sound UDP datagram for us, leaves only its data of it, and returns from where to where it goes.
    /// Otherwise the frame is as it was.
    #[inline]
    fn plain_udp4(&mut self, port: usize, frame: &mut Mbuf) -> Option<(SocketAddrV4, SocketAddrV4)> {
        const IP: usize = ETHERNET;
        const UDP_AT: usize = ETHERNET + IPV4;
        let ours = &self.ports[port];
        let len = frame.len();
        let head: &[u8; UDP_AT + UDP] = frame.data().first_chunk()?;
        let (total, udp_len) = (usize::from(be16(head, IP + 2)), usize::from(be16(head, UDP_AT + 4)));
        let (src, dst) = (ipv4_at(head, IP + 12), ipv4_at(head, IP + 16));
        let (from, to) = (be16(head, UDP_AT), be16(head, UDP_AT + 2));
        let mut header_sum = Sum::default();
        header_sum.add(&head[IP..UDP_AT]);
        let plain = head[..6] == ours.mac.0
            && head[6] & 1 == 0
            && be16(head, 12) == ETHERTYPE_IPV4
            && head[IP] == 0x45
            && be16(head, IP + 6) & 0x3fff == 0
            && head[IP + 9] == PROTOCOL_UDP
            && ours.vlan.is_none()
            && frame.meta().vlan.is_none()
            && total <= len - ETHERNET
            && (UDP..=total.saturating_sub(IPV4)).contains(&udp_len)
            && from != 0
            && to != 0
            && header_sum.is_intact()
            && !self.is_martian4(port, src)
            && (self.last_local4 == (port, dst) || self.routes.has4(port, dst));
        if !plain || !self.udp_checksum_holds(frame, UDP_AT, (src.into(), dst.into()), udp_len) {
            return None;
        }
        self.last_local4 = (port, dst);
        frame.truncate(UDP_AT + udp_len);
        frame.advance(UDP_AT + UDP);
        Some((SocketAddrV4::new(src, from), SocketAddrV4::new(dst, to)))
    }

    /// Verifies the checksum of the UDP datagram of `len` bytes at `at`, where the device has not.
    fn udp_checksum_holds(&self, frame: &Mbuf, at: usize, (src, dst): (IpAddr, IpAddr), len: usize) -> bool {
        match frame.meta().checksum {
            Checksum::Good | Checksum::Partial => return true,
            Checksum::Bad => return false,
            Checksum::Unknown => {}
        }
        if be16(frame.data(), at + 6) == 0 {
            return self.accept_zero_checksum && src.is_ipv4();
        }
        let mut sum = Sum::pseudo_header(src, dst, PROTOCOL_UDP, len);
        let (mut skip, mut left) = (at, len);
        for segment in frame.segments() {
            let from = skip.min(segment.len());
            let piece = &segment[from..segment.len().min(from + left)];
            sum.add(piece);
            skip -= from;
            left -= piece.len();
        }
        sum.is_intact()
    }

    fn input_ethernet(&mut self, io: &mut Io<'_>, port: usize, mut frame: Mbuf) -> Verdict {
        let head = frame.data();
        if head.len() < ETHERNET {
            return Verdict::Drop(Drop::Runt, frame);
        }
        let (dst, src_mac, mut ethertype) = (mac_at(head, 0), mac_at(head, 6), be16(head, 12));
        let mut tag = frame.meta().vlan;
        let mut header = ETHERNET;
        if ethertype == ETHERTYPE_VLAN && tag.is_none() {
            if head.len() < ETHERNET + VLAN_TAG {
                return Verdict::Drop(Drop::Runt, frame);
            }
            (tag, ethertype, header) = (Some(be16(head, 14)), be16(head, 16), ETHERNET + VLAN_TAG);
        }
        let ours = &self.ports[port];
        // Identifier 0 only carries a priority: such a frame counts as untagged.
        if tag.map(|tag| tag & 0xfff).filter(|&id| id != 0) != ours.vlan {
            return Verdict::Drop(Drop::WrongVlan, frame);
        }
        if src_mac.is_multicast() {
            return Verdict::Drop(Drop::BadSourceMac, frame);
        }
        if dst != ours.mac && !dst.is_multicast() {
            return Verdict::Drop(Drop::NotOurMac, frame);
        }
        frame.advance(header);
        match ethertype {
            ETHERTYPE_IPV4 if dst.is_multicast() => Verdict::Drop(Drop::NotOurAddress, frame),
            ETHERTYPE_IPV4 => self.input_ipv4(io, port, src_mac, frame),
            ETHERTYPE_IPV6 => self.input_ipv6(io, port, src_mac, frame),
            ETHERTYPE_ARP => self.input_arp(io, port, frame),
            _ => Verdict::Drop(Drop::UnknownEthertype, frame),
        }
    }

    fn input_ipv4(&mut self, io: &mut Io<'_>, port: usize, src_mac: MacAddr, mut frame: Mbuf) -> Verdict {
        let head = frame.data();
        if head.len() < IPV4 {
            return Verdict::Drop(Drop::Runt, frame);
        }
        if head[0] >> 4 != 4 {
            return Verdict::Drop(Drop::BadIpVersion, frame);
        }
        let (header, total) = (usize::from(head[0] & 0xf) * 4, usize::from(be16(head, 2)));
        if header < IPV4 || header > total || header > head.len() || total > frame.len() {
            return Verdict::Drop(Drop::BadIpLength, frame);
        }
        let mut sum = Sum::default();
        sum.add(&head[..header]);
        if !sum.is_intact() {
            return Verdict::Drop(Drop::BadIpChecksum, frame);
        }
        let (src, dst) = (ipv4_at(head, 12), ipv4_at(head, 16));
        if self.is_martian4(port, src) {
            return Verdict::Drop(Drop::MartianSource, frame);
        }
        if !self.routes.has4(port, dst) {
            return Verdict::Drop(Drop::NotOurAddress, frame);
        }
        if let Err(reason) = check_options(&head[IPV4..header]) {
            return Verdict::Drop(reason, frame);
        }
        let (protocol, hop_limit, flags) = (head[9], head[8], be16(head, 6));
        let id = u32::from(be16(head, 4));
        let part = Part { id, offset: usize::from(flags & 0x1fff) * 8, more: flags & 0x2000 != 0 };
        frame.truncate(total);
        frame.advance(header);
        let mut packet = Packet { port, src: src.into(), dst: dst.into(), hop_limit, src_mac, whole: true };
        if part.offset == 0 && !part.more {
            return self.input_payload(io, packet, protocol, frame);
        }
        let key = Key { port: port as u16, src: packet.src, dst: packet.dst, id, protocol };
        match self.reassemble(io, key, part, protocol, frame) {
            Ok((whole, protocol)) => {
                packet.whole = false;
                self.input_payload(io, packet, protocol, whole)
            }
            Err(verdict) => verdict,
        }
    }

    /// A source that may not have sent this: none, loopback, group, broadcast or reserved, or ourselves.
    #[inline]
    fn is_martian4(&self, port: usize, src: Ipv4Addr) -> bool {
        matches!(src.octets()[0], 0 | 127 | 224..) || self.routes.is_impossible_source4(port, src)
    }

    fn input_ipv6(&mut self, io: &mut Io<'_>, port: usize, src_mac: MacAddr, mut frame: Mbuf) -> Verdict {
        let head = frame.data();
        if head.len() < IPV6 {
            return Verdict::Drop(Drop::Runt, frame);
        }
        if head[0] >> 4 != 6 {
            return Verdict::Drop(Drop::BadIpVersion, frame);
        }
        let len = usize::from(be16(head, 4));
        if IPV6 + len > frame.len() {
            return Verdict::Drop(Drop::BadIpLength, frame);
        }
        let (next, hop_limit) = (head[6], head[7]);
        let (src, dst) = (ipv6_at(head, 8), ipv6_at(head, 24));
        // The unspecified source is for neighbour discovery, which checks what it may say.
        let unspecified = src.is_unspecified() && next != PROTOCOL_ICMPV6;
        let mapped = src.to_ipv4_mapped().is_some();
        if unspecified
            || mapped
            || src.is_multicast()
            || src.is_loopback()
            || self.routes.has(port, src.into())
        {
            return Verdict::Drop(Drop::MartianSource, frame);
        }
        let for_us =
            if dst.is_multicast() { self.has_group(port, dst) } else { self.routes.has(port, dst.into()) };
        if !for_us {
            return Verdict::Drop(Drop::NotOurAddress, frame);
        }
        frame.truncate(IPV6 + len);
        frame.advance(IPV6);
        let packet = Packet { port, src: src.into(), dst: dst.into(), hop_limit, src_mac, whole: true };
        self.input_extensions(io, packet, next, frame)
    }

    /// The groups that neighbour discovery needs: all nodes, and the solicited-node groups of our addresses.
    fn has_group(&self, port: usize, group: Ipv6Addr) -> bool {
        group == ALL_NODES || self.routes.has_solicited_node(port, group)
    }

    /// Takes extension headers off (RFC 8200 section 4) until a payload is left.
    fn input_extensions(
        &mut self,
        io: &mut Io<'_>,
        mut packet: Packet,
        mut next: u8,
        mut frame: Mbuf,
    ) -> Verdict {
        for nth in 0..=EXTENSIONS_MAX {
            match next {
                PROTOCOL_HOP_BY_HOP if nth == 0 => {}
                PROTOCOL_ROUTING | PROTOCOL_DESTINATION | PROTOCOL_FRAGMENT => {}
                _ => return self.input_payload(io, packet, next, frame),
            }
            if next == PROTOCOL_FRAGMENT {
                (frame, next) = match self.input_fragment6(io, &mut packet, frame) {
                    Ok(whole) => whole,
                    Err(verdict) => return verdict,
                };
                continue;
            }
            frame = match contiguous(frame, HEADERS_MAX, io.pool) {
                Ok(frame) => frame,
                Err(frame) => return Verdict::Drop(Drop::NoBuffers, frame),
            };
            let head = frame.data();
            if head.len() < 8 {
                return Verdict::Drop(Drop::BadIpLength, frame);
            }
            let len = 8 + usize::from(head[1]) * 8;
            if len > frame.len() {
                return Verdict::Drop(Drop::BadIpLength, frame);
            }
            if len > HEADERS_MAX {
                return Verdict::Drop(Drop::HeaderChainTooLong, frame);
            }
            if next == PROTOCOL_ROUTING && head[3] != 0 {
                return Verdict::Drop(Drop::SourceRoute, frame);
            }
            if next != PROTOCOL_ROUTING && !options_may_be_skipped(&head[2..len]) {
                return Verdict::Drop(Drop::BadIpOption, frame);
            }
            next = head[0];
            frame.advance(len);
        }
        Verdict::Drop(Drop::HeaderChainTooLong, frame)
    }

    fn input_fragment6(
        &mut self,
        io: &mut Io<'_>,
        packet: &mut Packet,
        frame: Mbuf,
    ) -> Result<(Mbuf, u8), Verdict> {
        let mut frame =
            contiguous(frame, FRAGMENT, io.pool).map_err(|f| Verdict::Drop(Drop::NoBuffers, f))?;
        let head = frame.data();
        if head.len() < FRAGMENT {
            return Err(Verdict::Drop(Drop::BadIpLength, frame));
        }
        let (next, field, id) = (head[0], be16(head, 2), be32(head, 4));
        let part = Part { id, offset: usize::from(field & !7), more: field & 1 != 0 };
        frame.advance(FRAGMENT);
        if part.offset == 0 && !part.more {
            // An atomic fragment is whole by itself, whatever else is about (RFC 6946).
            return Ok((frame, next));
        }
        if !packet.whole {
            // Fragments do not nest.
            return Err(Verdict::Drop(Drop::BadFragment, frame));
        }
        packet.whole = false;
        let key = Key { port: packet.port as u16, src: packet.src, dst: packet.dst, id, protocol: 0 };
        self.reassemble(io, key, part, next, frame)
    }

    fn reassemble(
        &mut self,
        io: &mut Io<'_>,
        key: Key,
        part: Part,
        protocol: u8,
        data: Mbuf,
    ) -> Result<(Mbuf, u8), Verdict> {
        let out = &mut *io.out;
        match self
            .reassembly
            .insert(io.now, key, part, protocol, data, &mut |reason, n| out.count_rx(reason, n))
        {
            Outcome::Held => Err(Verdict::Held),
            Outcome::Refused(reason, frame) => Err(Verdict::Drop(reason, frame)),
            Outcome::Whole { mut payload, protocol, parts } => {
                out.count_consumed(parts - 1);
                payload.meta_mut().checksum = Checksum::Unknown;
                Ok((payload, protocol))
            }
        }
    }

    fn input_payload(&mut self, io: &mut Io<'_>, packet: Packet, protocol: u8, payload: Mbuf) -> Verdict {
        // What follows reads headers of at most a quoted packet's size from the first segment.
        let payload = match contiguous(payload, HEADERS_MAX, io.pool) {
            Ok(payload) => payload,
            Err(payload) => return Verdict::Drop(Drop::NoBuffers, payload),
        };
        match (protocol, packet.dst) {
            (PROTOCOL_UDP, _) => self.input_udp(packet, payload),
            (PROTOCOL_ICMP, IpAddr::V4(_)) => self.input_icmp(io, packet, payload),
            (PROTOCOL_ICMPV6, IpAddr::V6(_)) => self.input_icmpv6(io, packet, payload),
            _ => Verdict::Drop(Drop::UnknownProtocol, payload),
        }
    }

    fn input_udp(&self, packet: Packet, mut payload: Mbuf) -> Verdict {
        if packet.dst.is_multicast() {
            return Verdict::Drop(Drop::NotOurAddress, payload);
        }
        let head = payload.data();
        if head.len() < UDP {
            return Verdict::Drop(Drop::BadUdpLength, payload);
        }
        let (from, to, len) = (be16(head, 0), be16(head, 2), usize::from(be16(head, 4)));
        if len < UDP || len > payload.len() {
            return Verdict::Drop(Drop::BadUdpLength, payload);
        }
        if from == 0 || to == 0 {
            return Verdict::Drop(Drop::ZeroPort, payload);
        }
        if !self.udp_checksum_holds(&payload, 0, (packet.src, packet.dst), len) {
            let absent = be16(head, 6) == 0 && payload.meta().checksum == Checksum::Unknown;
            return Verdict::Drop(if absent { Drop::NoUdpChecksum } else { Drop::BadUdpChecksum }, payload);
        }
        payload.truncate(len);
        payload.advance(UDP);
        Verdict::Datagram(Datagram {
            local: socket_address(packet.dst, to, packet.port),
            peer: socket_address(packet.src, from, packet.port),
            payload,
        })
    }
}

/// All nodes on the link (RFC 4291 section 2.7.1).
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// Makes the first `n` bytes of a packet, or all of a shorter one, contiguous in its first segment.
fn contiguous(mut packet: Mbuf, n: usize, pool: &mut Pool) -> Result<Mbuf, Mbuf> {
    let n = n.min(packet.len());
    if packet.pull_up(n, pool) { Ok(packet) } else { Err(packet) }
}

/// IPv4 options must be well-formed, and none may route (RFC 791, RFC 7126). The others mean nothing to a host.
fn check_options(mut options: &[u8]) -> Result<(), Drop> {
    const END: u8 = 0;
    const NOP: u8 = 1;
    const LOOSE_ROUTE: u8 = 131;
    const STRICT_ROUTE: u8 = 137;
    while let Some((&kind, rest)) = options.split_first() {
        match kind {
            END => return Ok(()),
            NOP => options = rest,
            LOOSE_ROUTE | STRICT_ROUTE => return Err(Drop::SourceRoute),
            _ => {
                let len = rest.first().map_or(0, |&len| usize::from(len));
                options = options.get(len..).filter(|_| len >= 2).ok_or(Drop::BadIpOption)?;
            }
        }
    }
    Ok(())
}

/// Whether a node that knows none of these IPv6 options may process the packet (RFC 8200 section 4.2).
fn options_may_be_skipped(mut options: &[u8]) -> bool {
    const PAD1: u8 = 0;
    while let Some((&kind, rest)) = options.split_first() {
        if kind == PAD1 {
            options = rest;
            continue;
        }
        let len = rest.first().map_or(usize::MAX, |&len| usize::from(len) + 2);
        let Some(behind) = options.get(len.min(options.len() + 1)..) else { return false };
        if kind >> 6 != 0 {
            return false;
        }
        options = behind;
    }
    true
}
