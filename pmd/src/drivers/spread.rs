//! What the receive side of a NIC does with a frame before anybody sees it, in software: hash it, and choose its queue.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::mbuf::Mbuf;
use crate::rss::{Rss, Toeplitz};

/// 802.1Q and 802.1ad.
const TAGS: [u16; 2] = [0x8100, 0x88a8];
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const UDP: u8 = 17;
/// An IPv4 packet's fragment offset and its "more fragments".
const FRAGMENT: u16 = 0x3fff;

/// A hash and the table behind it.
pub(crate) struct Spreader {
    pub(crate) rss: Rss,
    toeplitz: Toeplitz,
}

impl Spreader {
    pub(crate) fn new(rss: Rss) -> Spreader {
        Spreader { toeplitz: Toeplitz::new(&rss.key), rss }
    }

    /// The queue for a frame, which carries its hash from then on. What has no addresses to hash has hash 0, as with NICs.
    #[inline]
    pub(crate) fn queue_of(&self, frame: &mut Mbuf) -> usize {
        let hash = match tuple(frame.data()) {
            Some((from, to, ports)) => self.toeplitz.hash(from, to, ports && self.rss.udp_ports),
            None => 0,
        };
        frame.meta_mut().rss_hash = hash;
        self.rss.queue(hash)
    }
}

/// Source, destination, and whether they have ports: those of UDP in one piece, right behind the IP header.
fn tuple(frame: &[u8]) -> Option<(SocketAddr, SocketAddr, bool)> {
    let be16 = |at: usize| Some(u16::from_be_bytes(*frame.get(at..)?.first_chunk()?));
    let mut at = 12;
    while TAGS.contains(&be16(at)?) {
        at += 4;
    }
    let (ether, ip) = (be16(at)?, at + 2);
    let (from, to, ports_at) = match ether {
        IPV4 => {
            let addr = |at: usize| Some(Ipv4Addr::from(*frame.get(at..)?.first_chunk::<4>()?).into());
            let whole = *frame.get(ip + 9)? == UDP && be16(ip + 6)? & FRAGMENT == 0;
            let header = usize::from(*frame.get(ip)? & 15) * 4;
            (addr(ip + 12)?, addr(ip + 16)?, whole.then_some(ip + header))
        }
        IPV6 => {
            let addr = |at: usize| Some(Ipv6Addr::from(*frame.get(at..)?.first_chunk::<16>()?).into());
            (addr(ip + 8)?, addr(ip + 24)?, (*frame.get(ip + 6)? == UDP).then_some(ip + 40))
        }
        _ => return None,
    };
    let ports = ports_at.and_then(|at| be16(at).zip(be16(at + 2)));
    let (source, destination) = ports.unwrap_or_default();
    Some((SocketAddr::new(from, source), SocketAddr::new(to, destination), ports.is_some()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(more: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame
            .extend_from_slice(&[8, 0, 0x45, 0, 0, 32, 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2]);
        frame.extend_from_slice(more);
        frame
    }

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_datagrams_tuple_is_read_and_a_fragments_has_no_ports() {
        let frame = v4(&[0x1b, 0x59, 0, 7, 0, 12, 0, 0]);
        let whole = Some((addr("192.0.2.1:7001"), addr("192.0.2.2:7"), true));
        assert_eq!(tuple(&frame), whole);
        let mut tagged = frame.clone();
        tagged.splice(12..12, [0x81, 0, 0, 5]);
        assert_eq!(tuple(&tagged), whole);
        for (at, value) in [(20, 0x20), (21, 1), (23, 6)] {
            let mut part = frame.clone();
            part[at] = value;
            assert_eq!(tuple(&part), Some((addr("192.0.2.1:0"), addr("192.0.2.2:0"), false)), "byte {at}");
        }
        let mut v6 = vec![0; 12];
        v6.extend_from_slice(&[0x86, 0xdd, 0x60, 0, 0, 0, 0, 8, 17, 64]);
        v6.extend_from_slice(&"2001:db8::1".parse::<Ipv6Addr>().unwrap().octets());
        v6.extend_from_slice(&"2001:db8::2".parse::<Ipv6Addr>().unwrap().octets());
        v6.extend_from_slice(&[0x1b, 0x59, 0, 7]);
        assert_eq!(tuple(&v6), Some((addr("[2001:db8::1]:7001"), addr("[2001:db8::2]:7"), true)));
    }

    #[test]
    fn no_frame_is_read_beyond_its_end() {
        let mut random = fastrand::Rng::with_seed(9);
        for _ in 0..20_000 {
            let mut frame = v4(&[0x1b, 0x59, 0, 7, 0, 12, 0, 0]);
            frame.truncate(random.usize(..=frame.len()));
            for _ in 0..random.usize(..4) {
                let at = random.usize(..frame.len().max(1));
                frame.get_mut(at).into_iter().for_each(|byte| *byte = random.u8(..));
            }
            let _ = tuple(&frame);
        }
    }
}
