//! Frames built the plain way, with none of the stack's own code, so that it cannot agree with itself.

use super::*;

/// RFC 1071, word by word.
pub fn naive_checksum(bytes: &[u8]) -> u16 {
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
    let mut sum: u32 = bytes.chunks(2).map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn octets(address: &str) -> Vec<u8> {
    match ip(address) {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    }
}

/// An Ethernet header from host 2 to host 1, and what follows it.
pub fn ethernet(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&mac(1).0[..], &mac(2).0, &ethertype.to_be_bytes(), payload].concat()
}

/// An IPv4 packet; `fragment` is the field of flags and offset, `options` a multiple of four bytes.
pub fn ipv4(
    src: &str,
    dst: &str,
    protocol: u8,
    (id, fragment): (u16, u16),
    options: &[u8],
    payload: &[u8],
) -> Vec<u8> {
    let header = 20 + options.len();
    let mut packet = vec![0x40 | (header / 4) as u8, 0];
    packet.extend(((header + payload.len()) as u16).to_be_bytes());
    packet.extend(id.to_be_bytes());
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, protocol, 0, 0]);
    packet.extend(octets(src));
    packet.extend(octets(dst));
    packet.extend(options);
    let checksum = naive_checksum(&packet);
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    packet.extend(payload);
    ethernet(0x0800, &packet)
}

pub fn ipv6(src: &str, dst: &str, next: u8, hop_limit: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((payload.len() as u16).to_be_bytes());
    packet.extend([next, hop_limit]);
    packet.extend(octets(src));
    packet.extend(octets(dst));
    packet.extend(payload);
    ethernet(0x86dd, &packet)
}

fn with_checksum(at: usize, src: &str, dst: &str, protocol: u8, mut message: Vec<u8>) -> Vec<u8> {
    let len = (message.len() as u32).to_be_bytes();
    let pseudo = [&octets(src)[..], &octets(dst), &len, &[0, 0, 0, protocol], &message].concat();
    message[at..at + 2].copy_from_slice(&naive_checksum(&pseudo).to_be_bytes());
    message
}

/// A UDP datagram from port 7001 to port 7000.
pub fn udp(src: &str, dst: &str, payload: &[u8]) -> Vec<u8> {
    let mut message = vec![0x1b, 0x59, 0x1b, 0x58];
    message.extend((8 + payload.len() as u16).to_be_bytes());
    message.extend([0, 0]);
    message.extend(payload);
    with_checksum(6, src, dst, 17, message)
}

pub fn icmp(mut message: Vec<u8>) -> Vec<u8> {
    let checksum = naive_checksum(&message);
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    message
}

pub fn icmpv6(src: &str, dst: &str, message: Vec<u8>) -> Vec<u8> {
    with_checksum(2, src, dst, 58, message)
}

pub const A4: &str = "192.0.2.1";
pub const B4: &str = "192.0.2.2";
pub const A6: &str = "2001:db8::1";
pub const B6: &str = "2001:db8::2";

/// A plain datagram from host 2 to host 1.
pub fn datagram4(payload: &[u8]) -> Vec<u8> {
    ipv4(B4, A4, 17, (1, 0), &[], &udp(B4, A4, payload))
}

pub fn datagram6(payload: &[u8]) -> Vec<u8> {
    ipv6(B6, A6, 17, 64, &udp(B6, A6, payload))
}

pub fn arp(operation: u8, sender_mac: MacAddr, sender: &str, target_mac: MacAddr, target: &str) -> Vec<u8> {
    let head = [0, 1, 8, 0, 6, 4, 0, operation];
    ethernet(0x0806, &[&head[..], &sender_mac.0, &octets(sender), &target_mac.0, &octets(target)].concat())
}

/// A neighbour solicitation (135) or advertisement (136) with its link-layer address option.
pub fn neighbour(kind: u8, src: &str, dst: &str, flags: u8, target: &str, option: &[u8]) -> Vec<u8> {
    let message = [&[kind, 0, 0, 0, flags, 0, 0, 0], &octets(target)[..], option].concat();
    ipv6(src, dst, 58, 255, &icmpv6(src, dst, message))
}

/// `frame` with one byte changed and, if it is IPv4, its header checksum right again.
pub fn with(frame: &[u8], at: usize, value: u8) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame[at] = value;
    mend_ipv4(&mut frame);
    frame
}

/// Makes an IPv4 header checksum right, where there is room for a header.
pub fn mend_ipv4(frame: &mut [u8]) {
    let header = frame.get(14).map_or(0, |byte| usize::from(byte & 0xf) * 4);
    if frame.get(12..14) == Some(&[8, 0]) && header >= 20 && frame.len() >= 14 + header {
        frame[24..26].fill(0);
        let checksum = naive_checksum(&frame[14..14 + header]);
        frame[24..26].copy_from_slice(&checksum.to_be_bytes());
    }
}
