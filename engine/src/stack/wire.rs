//! Header layouts: constants, bounded reads, and the headers that we write.
//!
//! Sources: IEEE 802.3 and 802.1Q, RFC 791, RFC 8200, RFC 768.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use pmd::{MacAddr, Mbuf, Pool};

use super::checksum::Sum;
use crate::stats::Drop;

pub const ETHERNET: usize = 14;
pub const VLAN_TAG: usize = 4;
pub const IPV4: usize = 20;
pub const IPV6: usize = 40;
pub const UDP: usize = 8;
pub const FRAGMENT: usize = 8;

pub const ETHERTYPE_IPV4: u16 = 0x0800;
pub const ETHERTYPE_ARP: u16 = 0x0806;
pub const ETHERTYPE_VLAN: u16 = 0x8100;
pub const ETHERTYPE_IPV6: u16 = 0x86dd;

pub const PROTOCOL_HOP_BY_HOP: u8 = 0;
pub const PROTOCOL_ICMP: u8 = 1;
pub const PROTOCOL_UDP: u8 = 17;
pub const PROTOCOL_ROUTING: u8 = 43;
pub const PROTOCOL_FRAGMENT: u8 = 44;
pub const PROTOCOL_ICMPV6: u8 = 58;
pub const PROTOCOL_DESTINATION: u8 = 60;

/// The hop limit of what we send, neighbour discovery apart.
pub const TTL: u8 = 64;
/// The largest IP payload of either version (no jumbograms, RFC 2675).
pub const IP_PAYLOAD_MAX: usize = 65535;

/// The big-endian word at `at`. Panics outside of `bytes`: callers have checked the length.
#[inline]
pub fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

#[inline]
pub fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[inline]
pub fn mac_at(bytes: &[u8], at: usize) -> MacAddr {
    MacAddr(std::array::from_fn(|i| bytes[at + i]))
}

#[inline]
pub fn ipv4_at(bytes: &[u8], at: usize) -> Ipv4Addr {
    Ipv4Addr::from(be32(bytes, at))
}

#[inline]
pub fn ipv6_at(bytes: &[u8], at: usize) -> Ipv6Addr {
    Ipv6Addr::from(std::array::from_fn::<u8, 16, _>(|i| bytes[at + i]))
}

/// Where a frame goes on its link. The tag is 802.1Q control information.
#[derive(Clone, Copy)]
pub struct Link {
    pub src: MacAddr,
    pub dst: MacAddr,
    pub vlan: Option<u16>,
}

/// The multicast MAC address of an IPv6 multicast group (RFC 2464 section 7).
pub fn multicast_mac(group: Ipv6Addr) -> MacAddr {
    let [.., a, b, c, d] = group.octets();
    MacAddr([0x33, 0x33, a, b, c, d])
}

/// The solicited-node group of an address (RFC 4291 section 2.7.1).
pub fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]))
}

/// Puts `n` bytes in front of `mbuf`, in a buffer of their own where its headroom is too small. They are the first
/// `n` bytes of `data()`. The caller overwrites all of them.
#[inline]
pub fn grow_front(mut mbuf: Mbuf, n: usize, pool: &mut Pool) -> Result<Mbuf, Drop> {
    if mbuf.prepend(n).is_some() { Ok(mbuf) } else { grow_front_elsewhere(mbuf, n, pool) }
}

#[cold]
fn grow_front_elsewhere(mbuf: Mbuf, n: usize, pool: &mut Pool) -> Result<Mbuf, Drop> {
    let mut head = pool.alloc().ok_or(Drop::NoBuffers)?;
    head.append(n).ok_or(Drop::NoBuffers)?;
    *head.meta_mut() = *mbuf.meta();
    head.chain(mbuf);
    Ok(head)
}

/// Puts the Ethernet header, tagged or not, in front of an IP or ARP packet.
#[inline]
pub fn push_ethernet(packet: Mbuf, link: Link, ethertype: u16, pool: &mut Pool) -> Result<Mbuf, Drop> {
    let len = if link.vlan.is_some() { ETHERNET + VLAN_TAG } else { ETHERNET };
    let mut frame = grow_front(packet, len, pool)?;
    let header = &mut frame.data_mut()[..len];
    header[..6].copy_from_slice(&link.dst.0);
    header[6..12].copy_from_slice(&link.src.0);
    if let Some(tag) = link.vlan {
        header[12..14].copy_from_slice(&ETHERTYPE_VLAN.to_be_bytes());
        header[14..16].copy_from_slice(&tag.to_be_bytes());
    }
    header[len - 2..].copy_from_slice(&ethertype.to_be_bytes());
    Ok(frame)
}

/// Which part of a datagram a fragment is. `offset` in bytes, a multiple of 8 unless it is the whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Part {
    pub id: u32,
    pub offset: usize,
    pub more: bool,
}

/// Puts an IPv4 header in front of a payload. `len` bytes in all fit 16 bits: the caller has checked.
#[inline]
pub fn push_ipv4(
    payload: Mbuf,
    (src, dst): (Ipv4Addr, Ipv4Addr),
    protocol: u8,
    part: Part,
    pool: &mut Pool,
) -> Result<Mbuf, Drop> {
    let mut packet = grow_front(payload, IPV4, pool)?;
    let total = packet.len() as u16;
    let flags = (part.offset / 8) as u16 | if part.more { 0x2000 } else { 0 };
    let header = &mut packet.data_mut()[..IPV4];
    header[..2].copy_from_slice(&[0x45, 0]);
    header[2..4].copy_from_slice(&total.to_be_bytes());
    header[4..6].copy_from_slice(&(part.id as u16).to_be_bytes());
    header[6..8].copy_from_slice(&flags.to_be_bytes());
    header[8..12].copy_from_slice(&[TTL, protocol, 0, 0]);
    header[12..16].copy_from_slice(&src.octets());
    header[16..20].copy_from_slice(&dst.octets());
    let mut sum = Sum::default();
    sum.add(header);
    header[10..12].copy_from_slice(&sum.checksum().to_be_bytes());
    Ok(packet)
}

/// Puts an IPv6 header in front of a payload, and a fragment header between them if it is a part of something.
pub fn push_ipv6(
    payload: Mbuf,
    (src, dst): (Ipv6Addr, Ipv6Addr),
    (protocol, hop_limit): (u8, u8),
    part: Option<Part>,
    pool: &mut Pool,
) -> Result<Mbuf, Drop> {
    let len = if part.is_some() { IPV6 + FRAGMENT } else { IPV6 };
    let mut packet = grow_front(payload, len, pool)?;
    let payload_len = (packet.len() - IPV6) as u16;
    let header = &mut packet.data_mut()[..len];
    header[..4].copy_from_slice(&[0x60, 0, 0, 0]);
    header[4..6].copy_from_slice(&payload_len.to_be_bytes());
    header[6..8].copy_from_slice(&[if part.is_some() { PROTOCOL_FRAGMENT } else { protocol }, hop_limit]);
    header[8..24].copy_from_slice(&src.octets());
    header[24..40].copy_from_slice(&dst.octets());
    if let Some(part) = part {
        let offset = part.offset as u16 | u16::from(part.more);
        header[40..42].copy_from_slice(&[protocol, 0]);
        header[42..44].copy_from_slice(&offset.to_be_bytes());
        header[44..48].copy_from_slice(&part.id.to_be_bytes());
    }
    Ok(packet)
}

/// The one's complement sum of `message` behind a pseudo header. Intact messages sum to all ones.
#[inline]
pub fn sum_message(mut sum: Sum, message: &Mbuf) -> Sum {
    for segment in message.segments() {
        sum.add(segment);
    }
    sum
}

/// Puts the UDP header in front of its data, checksum included.
#[inline]
pub fn push_udp(
    payload: Mbuf,
    (src, dst): (IpAddr, IpAddr),
    (from, to): (u16, u16),
    pool: &mut Pool,
) -> Result<Mbuf, Drop> {
    let mut datagram = grow_front(payload, UDP, pool)?;
    let len = datagram.len();
    let header = &mut datagram.data_mut()[..UDP];
    header[..2].copy_from_slice(&from.to_be_bytes());
    header[2..4].copy_from_slice(&to.to_be_bytes());
    header[4..6].copy_from_slice(&(len as u16).to_be_bytes());
    header[6..8].fill(0);
    let sum = sum_message(Sum::pseudo_header(src, dst, PROTOCOL_UDP, len), &datagram);
    // Zero means "no checksum" on the wire; its other representation says the same number (RFC 768).
    let checksum = if sum.checksum() == 0 { 0xffff } else { sum.checksum() };
    datagram.data_mut()[6..8].copy_from_slice(&checksum.to_be_bytes());
    Ok(datagram)
}
