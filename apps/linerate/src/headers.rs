//! Where headers lie in a frame: for those who change a few bytes of it.

pub(crate) const ARP: u16 = 0x0806;
pub(crate) const IPV4: u16 = 0x0800;
pub(crate) const IPV6: u16 = 0x86dd;

/// IPv6 extension headers that are looked through.
const EXTENSIONS_MAX: usize = 8;

/// Bytes of an Ethernet header.
pub(crate) const ETHERNET: usize = 14;

/// The Ethertype behind up to two VLAN tags, and where what it names begins.
#[inline]
pub(crate) fn network(head: &[u8]) -> Option<(u16, usize)> {
    let mut at = 12;
    while at < 20 && matches!(be16(head, at)?, 0x8100 | 0x88a8) {
        at += 4;
    }
    Some((be16(head, at)?, at + 2))
}

/// The protocol in an IPv4 packet that begins at `ip`, and where it begins: not in a fragment but the first.
#[inline]
pub(crate) fn transport_v4(head: &[u8], ip: usize) -> Option<(u8, usize)> {
    let header_len = usize::from(head.get(ip)? & 15) * 4;
    let later_fragment = be16(head, ip + 6)? & 0x1fff != 0;
    (header_len >= 20 && !later_fragment).then_some((*head.get(ip + 9)?, ip + header_len))
}

/// The same of an IPv6 packet: behind hop-by-hop, routing, destination options and the header of a first fragment.
pub(crate) fn transport_v6(head: &[u8], ip: usize) -> Option<(u8, usize)> {
    let (mut protocol, mut at) = (*head.get(ip + 6)?, ip + 40);
    for _ in 0..EXTENSIONS_MAX {
        let len = match protocol {
            0 | 43 | 60 => (usize::from(*head.get(at + 1)?) + 1) * 8,
            44 if be16(head, at + 2)? & 0xfff8 == 0 => 8,
            44 => return None,
            _ => return Some((protocol, at)),
        };
        protocol = *head.get(at)?;
        at += len;
    }
    None
}

#[inline]
pub(crate) fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

/// Swaps two neighbours of `len` bytes each.
#[inline]
pub(crate) fn swap_halves(bytes: &mut [u8], len: usize) {
    let (front, back) = bytes.split_at_mut(len);
    front.swap_with_slice(&mut back[..len]);
}
