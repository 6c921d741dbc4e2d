//! Addresses as tables and owners see them: six words, and a keyed hash over these.
//!
//! The hash is the multilinear one over 64-bit words in 128-bit arithmetic: its upper 64 bits are *strongly universal* (Lemire and
//! Kaser, "Strongly universal string hashing is fast", theorem 3.1), and what follows is a fixed permutation, which keeps that. So for
//! whoever does not know the keys, any two different flows are hashed like two independent random numbers: two chosen flows share one of
//! B buckets with probability 1/B, and an entry meets n/B others on average, whatever ports and addresses were chosen. The permutation
//! also breaks up the progressions that consecutive ports and addresses give, so that the longest chain is that of random numbers too
//! (tested). The keys are an engine's own and never leave it. It is no PRF: a peer who could time single lookups to the nanosecond
//! might learn about collisions; what that buys is bounded, since peers cannot put entries into a table, and those there are get
//! found within one chain.

use std::net::{IpAddr, SocketAddr};

use crate::owner::HashKeys;

/// Words of a flow.
pub(crate) const WORDS: usize = 6;

/// In word 0, above the two ports.
const IPV6: u64 = 1 << 32;
const CONNECTED: u64 = 1 << 33;
const PEER_PORT: u64 = 0xffff;
const PEER_HALF: u64 = 0xffff_ffff;

/// Ways to match a datagram, most specific first: bit 0 is set for a wildcard address, bit 1 for no peer.
pub(crate) const KINDS: usize = 4;
pub(crate) const WILDCARD: usize = 1;
pub(crate) const UNCONNECTED: usize = 2;

/// A local address and port, with or without a peer.
///
/// Word 0: flags, local port, peer's port. Word 1: IPv4 addresses, or IPv6 scopes; the local one in the upper half. Words 2, 3 and
/// 4, 5: the local and the peer's IPv6 address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Flow(pub [u64; WORDS]);

impl Flow {
    /// What a datagram from `peer` to `local` belongs to, or a socket with `peer` or without is bound to.
    #[inline]
    pub fn new(local: SocketAddr, peer: Option<SocketAddr>) -> Self {
        let ports = u64::from(local.port()) << 16;
        match (local, peer) {
            (SocketAddr::V4(local), None) => Flow([ports, u64::from(local.ip().to_bits()) << 32, 0, 0, 0, 0]),
            (SocketAddr::V4(local), Some(SocketAddr::V4(peer))) => Flow([
                CONNECTED | ports | u64::from(peer.port()),
                u64::from(local.ip().to_bits()) << 32 | u64::from(peer.ip().to_bits()),
                0,
                0,
                0,
                0,
            ]),
            _ => Self::v6(ports, local, peer),
        }
    }

    /// Also for a pair of two families, which no datagram ever is.
    fn v6(ports: u64, local: SocketAddr, peer: Option<SocketAddr>) -> Self {
        let parts = |addr: SocketAddr| {
            let (ip, scope) = match addr {
                SocketAddr::V4(addr) => (addr.ip().to_ipv6_mapped(), 0),
                SocketAddr::V6(addr) => (*addr.ip(), addr.scope_id()),
            };
            let bits = ip.to_bits();
            ((bits >> 64) as u64, bits as u64, u64::from(scope))
        };
        let (high, low, scope) = parts(local);
        let mut flow = Flow([IPV6 | ports, scope << 32, high, low, 0, 0]);
        if let Some(peer) = peer {
            flow.0[0] |= CONNECTED | u64::from(peer.port());
            let (high, low, scope) = parts(peer);
            flow.0[1] |= scope;
            (flow.0[4], flow.0[5]) = (high, low);
        }
        flow
    }

    /// The way in which a socket that is bound to this is found. `local` is the address that the flow was made from.
    pub fn kind(&self, local: IpAddr) -> usize {
        let wildcard = if local.is_unspecified() { WILDCARD } else { 0 };
        wildcard | if self.0[0] & CONNECTED == 0 { UNCONNECTED } else { 0 }
    }

    /// What a socket of that kind would be bound to, to get this flow's datagrams.
    #[inline]
    pub fn as_kind(mut self, kind: usize) -> Self {
        if kind & WILDCARD != 0 {
            self.0[1] &= PEER_HALF;
            (self.0[2], self.0[3]) = (0, 0);
        }
        if kind & UNCONNECTED != 0 {
            self.0[0] &= !(CONNECTED | PEER_PORT);
            self.0[1] &= !PEER_HALF;
            (self.0[4], self.0[5]) = (0, 0);
        }
        self
    }

    #[inline]
    fn is_v6(&self) -> bool {
        self.0[0] & IPV6 != 0
    }
}

/// An engine's keyed hash of flows: one for the owner and for the table, so that it is computed once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FlowHash {
    offset: u128,
    factors: [u128; WORDS],
}

impl FlowHash {
    pub fn new(keys: HashKeys) -> Self {
        let wide =
            |n: u64| u128::from(keys.derive(1000 + 2 * n)) << 64 | u128::from(keys.derive(1001 + 2 * n));
        FlowHash { offset: wide(0), factors: std::array::from_fn(|i| wide(1 + i as u64)) }
    }

    /// Words that are zero add nothing, so an IPv4 flow needs only the first two.
    #[inline]
    pub fn hash(&self, flow: &Flow) -> u64 {
        let term = |i: usize| self.factors[i].wrapping_mul(u128::from(flow.0[i]));
        let mut sum = self.offset.wrapping_add(term(0)).wrapping_add(term(1));
        if flow.is_v6() {
            for i in 2..WORDS {
                sum = sum.wrapping_add(term(i));
            }
        }
        permute((sum >> 64) as u64)
    }

    /// Every flow has the same hash: what is right with this is right with any.
    #[cfg(test)]
    pub fn worst() -> Self {
        FlowHash { offset: 0, factors: [0; WORDS] }
    }
}

/// A permutation of the 64-bit numbers: the output function of SplitMix64 (Steele, Lea and Flood 2014).
#[inline]
fn permute(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(local: &str, peer: Option<&str>) -> Flow {
        Flow::new(local.parse().unwrap(), peer.map(|peer| peer.parse().unwrap()))
    }

    #[test]
    fn every_part_of_an_address_counts() {
        let base = flow("[fe80::1%3]:7", Some("[fe80::9%3]:8"));
        let others = [
            flow("[fe80::2%3]:7", Some("[fe80::9%3]:8")),
            flow("[fe81::1%3]:7", Some("[fe80::9%3]:8")),
            flow("[fe80::1%4]:7", Some("[fe80::9%3]:8")),
            flow("[fe80::1%3]:6", Some("[fe80::9%3]:8")),
            flow("[fe80::1%3]:7", Some("[fe80::8%3]:8")),
            flow("[fe80::1%3]:7", Some("[fe81::9%3]:8")),
            flow("[fe80::1%3]:7", Some("[fe80::9%4]:8")),
            flow("[fe80::1%3]:7", Some("[fe80::9%3]:9")),
            flow("[fe80::1%3]:7", None),
            flow("1.2.3.4:7", None),
            flow("1.2.3.4:7", Some("5.6.7.8:9")),
            flow("1.2.3.4:7", Some("5.6.7.8:0")),
            flow("1.2.3.4:7", Some("0.0.0.0:0")),
            flow("[::]:7", None),
            flow("0.0.0.0:7", None),
        ];
        let hash = FlowHash::new(HashKeys(7, 9));
        for (i, a) in others.iter().enumerate() {
            for b in others[i + 1..].iter().chain([&base]) {
                assert_ne!(a, b);
                assert_ne!(hash.hash(a), hash.hash(b), "{a:?} and {b:?}");
            }
        }
    }

    #[test]
    fn a_datagram_matches_what_each_kind_is_bound_to() {
        for (local, any, peer) in [
            ("10.0.0.1:7", "0.0.0.0:7", "10.0.0.2:9"),
            ("[2001:db8::1]:7", "[::]:7", "[2001:db8::2]:9"),
            ("[fe80::1%3]:7", "[::]:7", "[fe80::2%3]:9"),
        ] {
            let datagram = flow(local, Some(peer));
            for (kind, bound) in
                [flow(local, Some(peer)), flow(any, Some(peer)), flow(local, None), flow(any, None)]
                    .into_iter()
                    .enumerate()
            {
                assert_eq!(datagram.as_kind(kind), bound, "kind {kind} of {local}");
                let address: SocketAddr = if kind & WILDCARD == 0 { local } else { any }.parse().unwrap();
                assert_eq!(bound.kind(address.ip()), kind);
            }
        }
    }

    /// Over many keys, two fixed flows meet in one of 256 buckets about once in 256: the defining property, on the pairs that are
    /// likeliest to break it.
    #[test]
    fn two_flows_collide_as_rarely_as_random_numbers() {
        let base = flow("10.0.0.1:7000", Some("10.1.0.1:7001"));
        for other in [
            flow("10.0.0.1:7000", Some("10.1.0.1:7002")),
            flow("10.0.0.1:7001", Some("10.1.0.1:7001")),
            flow("10.0.0.1:7000", Some("10.1.0.2:7001")),
            flow("138.0.0.1:7000", Some("10.1.0.1:7001")),
        ] {
            let collisions = (0..100_000u64)
                .map(|key| FlowHash::new(HashKeys(key, 77)))
                .filter(|hash| hash.hash(&base) as u8 == hash.hash(&other) as u8)
                .count();
            // 391 are expected; the standard deviation is 20.
            assert!((290..490).contains(&collisions), "{collisions} collisions in 100000 of {other:?}");
        }
    }
}
