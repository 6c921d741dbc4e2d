//! Answers to ARP, neighbour solicitations and ICMP echo requests, made in the buffer that the request came in: enough for a plain ping.
//!
//! Only for the addresses that were given: to answer for any, as some testers do, takes a network down. Deliberately absent: everything else
//! that a host answers (fragments, IP options, duplicate address detection, errors); `rxline gateway` is a host, this is a mirror.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use pmd::checksum::Sum;
use pmd::{MacAddr, Mbuf};

use crate::headers::{ARP, IPV4, IPV6, be16, network, swap_halves};

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const HOP_LIMIT: u8 = 64;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;

/// Answers for a station.
#[derive(Clone, Debug)]
pub struct Answerer {
    mac: MacAddr,
    addresses: Box<[IpAddr]>,
}

impl Answerer {
    /// For the station `mac` with these addresses.
    pub fn new(mac: MacAddr, addresses: &[IpAddr]) -> Answerer {
        Answerer { mac, addresses: addresses.into() }
    }

    /// Turns a request into its answer, to be sent where it came from. False: it was none, or not for us, and may have been changed.
    pub fn answer(&self, frame: &mut Mbuf) -> bool {
        let head = frame.data();
        let Some((kind, at)) = network(head) else { return false };
        // No station is called by a group address.
        if head[6] & 1 != 0 {
            return false;
        }
        let answered = match kind {
            ARP => self.arp(frame.data_mut(), at),
            IPV4 => self.echo_v4(frame.data_mut(), at),
            IPV6 => self.icmp_v6(frame, at),
            _ => None,
        };
        if answered.is_none() {
            return false;
        }
        let head = frame.data_mut();
        head.copy_within(6..12, 0);
        head[6..12].copy_from_slice(&self.mac.0);
        true
    }

    fn is_ours(&self, address: impl Into<IpAddr>) -> bool {
        self.addresses.contains(&address.into())
    }

    /// A request for one of our addresses becomes the reply.
    fn arp(&self, head: &mut [u8], at: usize) -> Option<()> {
        let packet: &mut [u8; 28] = head.get_mut(at..)?.first_chunk_mut()?;
        // Ethernet, IPv4, their lengths, request.
        if packet[..8] != [0, 1, 8, 0, 6, 4, 0, 1] || !self.is_ours(v4(&packet[24..])) {
            return None;
        }
        let wanted: [u8; 4] = packet[24..].try_into().ok()?;
        packet[7] = 2;
        packet.copy_within(8..18, 18);
        packet[8..14].copy_from_slice(&self.mac.0);
        packet[14..18].copy_from_slice(&wanted);
        Some(())
    }

    fn echo_v4(&self, head: &mut [u8], ip: usize) -> Option<()> {
        let packet = head.get_mut(ip..)?;
        let total = usize::from(be16(packet, 2)?);
        // No options, no fragment, at least an echo header.
        if packet.len() < total || total < 28 || packet[0] != 0x45 || be16(packet, 6)? & 0x3fff != 0 {
            return None;
        }
        let (source, destination) = (v4(&packet[12..]), v4(&packet[16..]));
        let asks = packet[9] == ICMP && packet[20] == 8 && packet[21] == 0;
        let bad_source = source.is_multicast() || source.is_broadcast() || source.is_unspecified();
        if !asks
            || !self.is_ours(destination)
            || bad_source
            || self.is_ours(source)
            || checksum(&packet[..20]) != 0
        {
            return None;
        }
        swap_halves(&mut packet[12..20], 4);
        packet[8] = HOP_LIMIT;
        packet[10..12].fill(0);
        let header = checksum(&packet[..20]);
        packet[10..12].copy_from_slice(&header.to_be_bytes());
        packet[20] = 0;
        update(&mut packet[22..24], 0x0800, 0);
        Some(())
    }

    fn icmp_v6(&self, frame: &mut Mbuf, ip: usize) -> Option<()> {
        let packet = frame.data().get(ip..)?;
        let len = usize::from(be16(packet, 4)?);
        if len < 8
            || packet.len() < 48
            || frame.len() < ip + 40 + len
            || packet[0] >> 4 != 6
            || packet[6] != ICMPV6
        {
            return None;
        }
        let source = v6(&packet[8..]);
        if source.is_multicast() || source.is_unspecified() || self.is_ours(source) {
            return None;
        }
        match (packet[40], packet[41]) {
            (128, 0) => self.echo_v6(frame.data_mut().get_mut(ip..)?),
            (SOLICITATION, 0) => self.advertise(frame, ip, len),
            _ => None,
        }
    }

    fn echo_v6(&self, packet: &mut [u8]) -> Option<()> {
        if !self.is_ours(v6(&packet[24..])) {
            return None;
        }
        swap_halves(&mut packet[8..40], 16);
        packet[7] = HOP_LIMIT;
        packet[40] = 129;
        update(&mut packet[42..44], 0x8000, 0x8100);
        Some(())
    }

    /// A solicitation for one of our addresses becomes the advertisement: RFC 4861, section 7.2.4.
    fn advertise(&self, frame: &mut Mbuf, ip: usize, len: usize) -> Option<()> {
        const LEN: usize = 32;
        let icmp = ip + 40;
        let packet = frame.data().get(ip..icmp + len)?;
        let target: [u8; 16] = packet.get(48..64)?.try_into().ok()?;
        // RFC 4861, section 7.1.1: from this link, and whole.
        if packet[7] != 255 || !self.is_ours(v6(&target)) || checksum_v6(packet) != 0 {
            return None;
        }
        frame.truncate(icmp + LEN);
        let missing = (icmp + LEN).saturating_sub(frame.len());
        frame.append(missing)?;
        let packet = frame.data_mut().get_mut(ip..icmp + LEN)?;
        packet[4..6].copy_from_slice(&(LEN as u16).to_be_bytes());
        packet.copy_within(8..24, 24);
        packet[8..24].copy_from_slice(&target);
        // Solicited, and to override what the asker knew; then our link-layer address.
        packet[40..48].copy_from_slice(&[ADVERTISEMENT, 0, 0, 0, 0x60, 0, 0, 0]);
        packet[48..64].copy_from_slice(&target);
        packet[64..66].copy_from_slice(&[2, 1]);
        packet[66..72].copy_from_slice(&self.mac.0);
        let sum = checksum_v6(packet);
        packet[42..44].copy_from_slice(&sum.to_be_bytes());
        Some(())
    }
}

fn v4(bytes: &[u8]) -> Ipv4Addr {
    Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3])
}

fn v6(bytes: &[u8]) -> Ipv6Addr {
    let bytes: [u8; 16] = bytes[..16].try_into().expect("sixteen bytes");
    bytes.into()
}

fn checksum(bytes: &[u8]) -> u16 {
    let mut sum = Sum::default();
    sum.add(bytes);
    sum.finish()
}

/// Of ICMPv6 in an IPv6 packet without extension headers.
fn checksum_v6(packet: &[u8]) -> u16 {
    let mut sum = Sum::default();
    sum.add(&packet[8..]);
    sum.add(&(packet.len() as u32 - 40).to_be_bytes());
    sum.add(&u32::from(ICMPV6).to_be_bytes());
    sum.finish()
}

/// A word that is summed has changed from `old` to `new`: RFC 1624, equation 3.
fn update(field: &mut [u8], old: u16, new: u16) {
    let sum = u32::from(!u16::from_be_bytes([field[0], field[1]])) + u32::from(!old) + u32::from(new);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    field.copy_from_slice(&(!(sum as u16)).to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use pmd::{Pool, PoolConfig};
    use proptest::prelude::*;

    const US: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
    const THEM: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);

    fn answerer() -> Answerer {
        Answerer::new(US, &["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()])
    }

    fn pool() -> Pool {
        PoolConfig::new("answer", 16).build().unwrap().claim()
    }

    fn frame(ethertype: u16, packet: &[u8], pool: &mut Pool) -> Mbuf {
        let bytes = [&US.0[..], &THEM.0, &ethertype.to_be_bytes(), packet].concat();
        pool.copy_from(&bytes).unwrap()
    }

    fn arp(target: [u8; 4]) -> Vec<u8> {
        let mut packet = vec![0, 1, 8, 0, 6, 4, 0, 1];
        packet.extend(THEM.0);
        packet.extend([192, 0, 2, 2]);
        packet.extend([0; 6]);
        packet.extend(target);
        packet
    }

    /// ICMP with `icmp` behind its checksum field's place, over IPv4.
    fn ping_v4(destination: [u8; 4], payload: &[u8]) -> Vec<u8> {
        let total = 28 + payload.len() as u16;
        let mut packet = vec![0x45, 0];
        packet.extend(total.to_be_bytes());
        packet.extend([0, 7, 0x40, 0, 60, ICMP, 0, 0, 192, 0, 2, 2]);
        packet.extend(destination);
        let sum = checksum(&packet);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        packet.extend([8, 0, 0, 0, 0x12, 0x34, 0, 1]);
        packet.extend(payload);
        let sum = checksum(&packet[20..]);
        packet[22..24].copy_from_slice(&sum.to_be_bytes());
        packet
    }

    fn icmp_v6(hop_limit: u8, destination: &str, icmp: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0];
        packet.extend((icmp.len() as u16).to_be_bytes());
        packet.extend([ICMPV6, hop_limit]);
        packet.extend("2001:db8::2".parse::<Ipv6Addr>().unwrap().octets());
        packet.extend(destination.parse::<Ipv6Addr>().unwrap().octets());
        packet.extend(icmp);
        let sum = checksum_v6(&packet);
        packet[42..44].copy_from_slice(&sum.to_be_bytes());
        packet
    }

    fn solicitation(target: &str, option: bool) -> Vec<u8> {
        let mut icmp = vec![SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
        icmp.extend(target.parse::<Ipv6Addr>().unwrap().octets());
        if option {
            icmp.extend([1, 1]);
            icmp.extend(THEM.0);
        }
        icmp_v6(255, "ff02::1:ff00:1", &icmp)
    }

    #[test]
    fn who_has_our_address_is_told_and_others_are_not() {
        let mut pool = pool();
        let mut request = frame(ARP, &arp([192, 0, 2, 1]), &mut pool);
        assert!(answerer().answer(&mut request));
        let expected = [
            &THEM.0[..],
            &US.0,
            &[8, 6, 0, 1, 8, 0, 6, 4, 0, 2],
            &US.0,
            &[192, 0, 2, 1],
            &THEM.0,
            &[192, 0, 2, 2],
        ];
        assert_eq!(request.data(), expected.concat());
        assert!(!answerer().answer(&mut frame(ARP, &arp([192, 0, 2, 9]), &mut pool)));
        // The reply is no request.
        assert!(!answerer().answer(&mut request));
    }

    #[test]
    fn an_echo_request_becomes_its_reply_with_right_checksums() {
        let mut pool = pool();
        for payload in [&b""[..], b"odd", &[0xff; 1000]] {
            let mut request = frame(IPV4, &ping_v4([192, 0, 2, 1], payload), &mut pool);
            assert!(answerer().answer(&mut request));
            let packet = &request.data()[14..];
            assert_eq!((&packet[12..16], &packet[16..20]), (&[192, 0, 2, 1][..], &[192, 0, 2, 2][..]));
            assert_eq!((packet[20], &packet[24..28], &packet[28..]), (0, &[0x12, 0x34, 0, 1][..], payload));
            assert_eq!((checksum(&packet[..20]), checksum(&packet[20..])), (0, 0));
        }
        let icmp = [&[128, 0, 0, 0, 1, 2, 0, 1][..], b"ping"].concat();
        let mut request = frame(IPV6, &icmp_v6(64, "2001:db8::1", &icmp), &mut pool);
        assert!(answerer().answer(&mut request));
        let packet = &request.data()[14..];
        assert_eq!(
            (packet[40], v6(&packet[8..]), checksum_v6(packet)),
            (129, "2001:db8::1".parse().unwrap(), 0)
        );
    }

    #[test]
    fn a_solicitation_is_answered_with_our_address() {
        let mut pool = pool();
        for option in [true, false] {
            let mut request = frame(IPV6, &solicitation("2001:db8::1", option), &mut pool);
            assert!(answerer().answer(&mut request));
            let packet = &request.data()[14..];
            assert_eq!((packet.len(), packet[7], packet[40], packet[44]), (72, 255, ADVERTISEMENT, 0x60));
            assert_eq!(
                (v6(&packet[24..]), v6(&packet[48..])),
                ("2001:db8::2".parse().unwrap(), "2001:db8::1".parse().unwrap())
            );
            assert_eq!((&packet[64..66], &packet[66..], checksum_v6(packet)), (&[2, 1][..], &US.0[..], 0));
        }
        assert!(!answerer().answer(&mut frame(IPV6, &solicitation("2001:db8::9", true), &mut pool)));
        let mut from_afar = solicitation("2001:db8::1", true);
        from_afar[7] = 254;
        assert!(!answerer().answer(&mut frame(IPV6, &from_afar, &mut pool)), "through a router");
    }

    #[test]
    fn what_is_not_for_us_or_not_whole_is_not_answered() {
        let mut pool = pool();
        let good = ping_v4([192, 0, 2, 1], b"");
        let refused = |change: fn(&mut Vec<u8>), pool: &mut Pool| {
            let mut packet = good.clone();
            change(&mut packet);
            packet[10..12].fill(0);
            let sum = checksum(&packet[..20]);
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
            !answerer().answer(&mut frame(IPV4, &packet, pool))
        };
        assert!(!refused(|_| (), &mut pool), "unchanged it is answered");
        assert!(refused(|p| p[19] = 9, &mut pool), "to another host");
        assert!(refused(|p| p[15] = 1, &mut pool), "from ourselves");
        assert!(refused(|p| p[12] = 224, &mut pool), "from a group");
        assert!(refused(|p| p[6] = 0x20, &mut pool), "a fragment");
        assert!(refused(|p| p[20] = 0, &mut pool), "a reply");
        assert!(refused(|p| p[3] = 29, &mut pool), "longer than the frame");
        let mut wrong = good.clone();
        wrong[10] ^= 1;
        assert!(!answerer().answer(&mut frame(IPV4, &wrong, &mut pool)), "its header checksum is wrong");
        let mut from_group = frame(IPV4, &good, &mut pool);
        from_group.data_mut()[6] |= 1;
        assert!(!answerer().answer(&mut from_group));
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_answered_without_a_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..150), kind in 0usize..4, cut in 0usize..150
        ) {
            let mut pool = pool();
            let packets = [arp([192, 0, 2, 1]), ping_v4([192, 0, 2, 1], b"x"), solicitation("2001:db8::1", true), bytes.clone()];
            let kinds = [ARP, IPV4, IPV6, IPV4];
            let mut packet = packets[kind].clone();
            for (at, byte) in bytes.iter().enumerate().filter(|(_, byte)| **byte > 250) {
                if let Some(place) = packet.get_mut(at) {
                    *place ^= byte;
                }
            }
            packet.truncate(cut);
            let _ = answerer().answer(&mut frame(kinds[kind], &packet, &mut pool));
        }
    }
}
