//! ICMP for both IP versions (RFC 792, RFC 4443): echo is answered, errors about what we sent become
//! [`Verdict::Unreachable`], and datagrams for ports that nobody has can be answered with one.

use std::net::{IpAddr, SocketAddr};

use pmd::{Checksum, Instant, Mbuf, Pool};

use super::checksum::Sum;
use super::input::Packet;
use super::ndp;
use super::route::socket_address;
use super::verdict::{Datagram, NetError, Outbox, Unreachable, Update, Verdict};
use super::wire::*;
use super::{Io, Stack, scope};
use crate::stats::Drop;

/// Type, code, checksum and four bytes that depend on the type.
const HEADER: usize = 8;

/// What an ICMP message is to us. The two versions number the same things differently.
enum Kind {
    EchoRequest { reply: u8 },
    Error(NetError),
    Other,
}

fn kind_v4(head: &[u8]) -> Kind {
    Kind::Error(match (head[0], head[1]) {
        (8, 0) => return Kind::EchoRequest { reply: 0 },
        (3, 0 | 6 | 11) => NetError::NetUnreachable,
        (3, 1 | 5 | 7 | 8 | 12) => NetError::HostUnreachable,
        (3, 2) => NetError::ProtocolUnreachable,
        (3, 3) => NetError::PortUnreachable,
        (3, 4) => NetError::MessageTooBig { mtu: be16(head, 6) },
        (3, 9 | 10 | 13..=15) => NetError::Prohibited,
        (11, 0 | 1) => NetError::TimeExceeded,
        (12, _) => NetError::ParameterProblem,
        _ => return Kind::Other,
    })
}

fn kind_v6(head: &[u8]) -> Kind {
    Kind::Error(match (head[0], head[1]) {
        (128, 0) => return Kind::EchoRequest { reply: 129 },
        (1, 0 | 2) => NetError::NetUnreachable,
        (1, 1 | 5 | 6) => NetError::Prohibited,
        (1, 4) => NetError::PortUnreachable,
        (1, _) => NetError::HostUnreachable,
        (2, _) => NetError::MessageTooBig { mtu: be32(head, 4).min(0xffff) as u16 },
        (3, _) => NetError::TimeExceeded,
        (4, _) => NetError::ParameterProblem,
        _ => return Kind::Other,
    })
}

/// The addresses of a quoted UDP packet, and its ports if the quotation goes that far into a first fragment.
pub type Flow = (IpAddr, IpAddr, Option<(u16, u16)>);

/// Reads a packet of ours from an ICMP error, or from a frame that was never sent.
pub fn quoted_flow(packet: &[u8]) -> Result<Flow, Drop> {
    let (src, dst, protocol, first, udp) = match packet.first().map(|byte| byte >> 4) {
        Some(4) if packet.len() >= IPV4 => {
            let header = usize::from(packet[0] & 0xf) * 4;
            let first = be16(packet, 6) & 0x1fff == 0;
            (ipv4_at(packet, 12).into(), ipv4_at(packet, 16).into(), packet[9], first, header.max(IPV4))
        }
        Some(6) if packet.len() >= IPV6 => {
            let (src, dst): (IpAddr, IpAddr) = (ipv6_at(packet, 8).into(), ipv6_at(packet, 24).into());
            match packet[6] {
                PROTOCOL_FRAGMENT if packet.len() >= IPV6 + FRAGMENT => {
                    (src, dst, packet[40], be16(packet, 42) & !7 == 0, IPV6 + FRAGMENT)
                }
                next => (src, dst, next, true, IPV6),
            }
        }
        _ => return Err(Drop::BadIcmp),
    };
    if protocol != PROTOCOL_UDP {
        return Err(Drop::BadIcmp);
    }
    let ports = packet.get(udp..udp + 4).filter(|_| first);
    Ok((src, dst, ports.map(|bytes| (be16(bytes, 0), be16(bytes, 2)))))
}

impl Stack {
    /// Takes an ICMP message over IPv4.
    pub(super) fn input_icmp(&mut self, io: &mut Io<'_>, packet: Packet, message: Mbuf) -> Verdict {
        self.input_message(io, packet, message, Sum::default(), kind_v4)
    }

    /// Takes an ICMPv6 message.
    pub(super) fn input_icmpv6(&mut self, io: &mut Io<'_>, packet: Packet, message: Mbuf) -> Verdict {
        let sum = Sum::pseudo_header(packet.src, packet.dst, PROTOCOL_ICMPV6, message.len());
        self.input_message(io, packet, message, sum, kind_v6)
    }

    fn input_message(
        &mut self,
        io: &mut Io<'_>,
        packet: Packet,
        message: Mbuf,
        sum: Sum,
        kind: fn(&[u8]) -> Kind,
    ) -> Verdict {
        if message.data().len() < HEADER {
            return Verdict::Drop(Drop::BadIcmp, message);
        }
        let unfinished = packet.whole && message.meta().checksum == Checksum::Partial;
        if !unfinished && !sum_message(sum, &message).is_intact() {
            return Verdict::Drop(Drop::BadIcmpChecksum, message);
        }
        let discovery =
            packet.dst.is_ipv6() && matches!(message.data()[0], ndp::SOLICITATION | ndp::ADVERTISEMENT);
        if discovery {
            // Whoever may be asked in fragments may be asked by anyone (RFC 6980).
            return if packet.whole {
                self.input_neighbour_discovery(io, packet, message)
            } else {
                Verdict::Drop(Drop::BadNeighbourDiscovery, message)
            };
        }
        if packet.src.is_unspecified() {
            return Verdict::Drop(Drop::MartianSource, message);
        }
        match kind(message.data()) {
            _ if packet.dst.is_multicast() => Verdict::Drop(Drop::NotOurAddress, message),
            Kind::EchoRequest { reply } => {
                self.reply_echo(io, packet, reply, message);
                Verdict::Consumed
            }
            Kind::Error(error) => self.input_error(io, packet, error, message),
            Kind::Other => Verdict::Drop(Drop::UnhandledIcmp, message),
        }
    }

    /// Answers an echo in the buffers that it came in.
    fn reply_echo(&mut self, io: &mut Io<'_>, packet: Packet, reply: u8, mut message: Mbuf) {
        message.data_mut()[0] = reply;
        let to = socket_address(packet.src, 0, packet.port);
        let sent = self.send_message(io, packet.dst, to, message);
        if let Err(reason) = sent {
            io.out.count_tx(reason, 1);
        }
    }

    /// Fills the checksum of an ICMP message in and sends it.
    fn send_message(
        &mut self,
        io: &mut Io<'_>,
        src: IpAddr,
        to: SocketAddr,
        mut message: Mbuf,
    ) -> Result<(), Drop> {
        let dst = to.ip();
        let (protocol, sum) = match dst {
            IpAddr::V4(_) => (PROTOCOL_ICMP, Sum::default()),
            IpAddr::V6(_) => (PROTOCOL_ICMPV6, Sum::pseudo_header(src, dst, PROTOCOL_ICMPV6, message.len())),
        };
        message.data_mut()[2..4].fill(0);
        let checksum = sum_message(sum, &message).checksum();
        message.data_mut()[2..4].copy_from_slice(&checksum.to_be_bytes());
        let hop = self.routes.lookup(dst, scope(to)).ok_or(Drop::NoRoute)?;
        self.output(io, hop, (src, dst), protocol, message)
    }

    fn input_error(
        &mut self,
        io: &mut Io<'_>,
        packet: Packet,
        mut error: NetError,
        message: Mbuf,
    ) -> Verdict {
        let (src, dst, ports) = match quoted_flow(&message.data()[HEADER..]) {
            Ok(flow) => flow,
            Err(reason) => return Verdict::Drop(reason, message),
        };
        let scope = packet.port as u32 + 1;
        if src.is_ipv4() != packet.src.is_ipv4() || self.routes.local_port(src, scope).is_none() {
            return Verdict::Drop(Drop::BadIcmp, message);
        }
        if let NetError::MessageTooBig { mtu } = &mut error {
            // Below the least MTU nothing need be believed (RFC 1191 section 3, RFC 8201 section 4).
            *mtu = (*mtu).max(if dst.is_ipv4() { 576 } else { 1280 });
            self.path_mtus.report(io.now, dst, *mtu);
            if self.shared {
                io.out.push_update(Update::PathMtu { to: dst, mtu: *mtu });
            }
        }
        let Some((from, to)) = ports else { return Verdict::Consumed };
        let local = socket_address(src, from, packet.port);
        let peer = socket_address(dst, to, packet.port);
        Verdict::Unreachable(Unreachable { local, peer, error })
    }

    /// Answers a datagram whose port nobody has, within the rate limit. Quotes the packet's own headers, which still
    /// stand in front of the data; a packet that they were not in front of (reassembled from IPv6 fragments, say) is
    /// not answered.
    pub fn port_unreachable(&mut self, now: Instant, datagram: Datagram, pool: &mut Pool, out: &mut Outbox) {
        let Datagram { local, peer, payload } = datagram;
        let headers = UDP + if local.is_ipv4() { IPV4 } else { IPV6 };
        let Some(mut quote) = uncover(payload, headers, peer, local) else { return };
        if !self.icmp_errors.take(now) {
            return;
        }
        // RFC 1812 section 4.3.2.3 and RFC 4443 section 2.4 (c): what fits the least MTU.
        let (head, quote_max): ([u8; HEADER], usize) = match local {
            SocketAddr::V4(_) => ([3, 3, 0, 0, 0, 0, 0, 0], 576 - IPV4 - HEADER),
            SocketAddr::V6(_) => ([1, 4, 0, 0, 0, 0, 0, 0], 1280 - IPV6 - HEADER),
        };
        quote.truncate(quote_max);
        let mut io = Io { now, pool, out };
        let sent = grow_front(quote, HEADER, io.pool).and_then(|mut message| {
            message.data_mut()[..HEADER].copy_from_slice(&head);
            self.send_message(&mut io, local.ip(), peer, message)
        });
        if let Err(reason) = sent {
            io.out.count_tx(reason, 1);
        }
    }
}

/// Gives a datagram the headers back that were taken off its front, if they are still there.
fn uncover(mut payload: Mbuf, headers: usize, src: SocketAddr, dst: SocketAddr) -> Option<Mbuf> {
    let data_len = payload.len();
    payload.prepend(headers)?;
    let bytes = payload.data();
    let total = match src {
        SocketAddr::V4(_) if bytes[0] == 0x45 => usize::from(be16(bytes, 2)),
        SocketAddr::V6(_) => IPV6 + usize::from(be16(bytes, 4)),
        _ => return None,
    };
    let flow = quoted_flow(bytes).ok()?;
    let same = flow == (src.ip(), dst.ip(), Some((src.port(), dst.port())));
    let udp_len = usize::from(be16(bytes, headers - 4));
    (same && udp_len == UDP + data_len && total <= headers + data_len).then_some(payload)
}
