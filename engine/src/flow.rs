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

use std::hash::Hasher;
use std::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6};

use siphasher::sip::SipHasher13;

/// Words of a flow.
pub(crate) const WORDS: usize = 6;

/// In word 0, above the two ports.
const IPV6: u64 = 1 << 32;
const CONNECTED: u64 = 1 << 33;
const PEER_PORT: u64 = 0xffff;
const PEER_HALF: u64 = 0xffff_ffff;
/// Words that are not always zero where [`Flow::is_v6`] says no.
pub(crate) const WORDS_V4: usize = 2;

/// Ways to match a datagram, most specific first: bit 0 is set for a wildcard address, bit 1 for no peer.
pub(crate) const KINDS: usize = 4;
pub(crate) const WILDCARD: usize = 1;
pub(crate) const UNCONNECTED: usize = 2;

/// Keys of the engine's hashes, drawn at the start so that a peer cannot choose what collides.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HashKeys(pub u64, pub u64);

impl HashKeys {
    /// The `n`th value derived from the keys, for those who need randomness of their own.
    pub fn derive(&self, n: u64) -> u64 {
        let mut hasher = SipHasher13::new_with_keys(self.0, self.1);
        hasher.write_u64(n);
        hasher.finish()
    }
}

/// What a kind of socket is bound to: these bits of what a datagram belongs to.
const BOUND: [[u64; WORDS]; KINDS] = {
    const ALL: u64 = u64::MAX;
    const PORT: u64 = !(CONNECTED | PEER_PORT);
    [
        [ALL; WORDS],
        [ALL, PEER_HALF, 0, 0, ALL, ALL],
        [PORT, !PEER_HALF, ALL, ALL, 0, 0],
        [PORT, 0, 0, 0, 0, 0],
    ]
};

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
        match (local, peer) {
            (SocketAddr::V4(local), None) => Self::v4(local, None),
            (SocketAddr::V4(local), Some(SocketAddr::V4(peer))) => Self::v4(local, Some(peer)),
            (SocketAddr::V6(local), None) => Self::v6(&local, None),
            (SocketAddr::V6(local), Some(SocketAddr::V6(peer))) => Self::v6(&local, Some(&peer)),
            (local, Some(peer)) => Self::v6(&as_v6(local), Some(&as_v6(peer))),
        }
    }

    #[inline]
    fn v4(local: SocketAddrV4, peer: Option<SocketAddrV4>) -> Self {
        let mut flow =
            Flow([u64::from(local.port()) << 16, u64::from(local.ip().to_bits()) << 32, 0, 0, 0, 0]);
        if let Some(peer) = peer {
            flow.0[0] |= CONNECTED | u64::from(peer.port());
            flow.0[1] |= u64::from(peer.ip().to_bits());
        }
        flow
    }

    /// Not inlined: else the loads of its many bytes are hoisted into the way of IPv4.
    #[inline(never)]
    fn v6(local: &SocketAddrV6, peer: Option<&SocketAddrV6>) -> Self {
        let bits = local.ip().to_bits();
        let ports = u64::from(local.port()) << 16;
        let mut flow =
            Flow([IPV6 | ports, u64::from(local.scope_id()) << 32, (bits >> 64) as u64, bits as u64, 0, 0]);
        if let Some(peer) = peer {
            let bits = peer.ip().to_bits();
            flow.0[0] |= CONNECTED | u64::from(peer.port());
            flow.0[1] |= u64::from(peer.scope_id());
            (flow.0[4], flow.0[5]) = ((bits >> 64) as u64, bits as u64);
        }
        flow
    }

    /// The way in which a socket that is bound to this is found. `local` is the address that the flow was made from.
    pub fn kind(&self, local: IpAddr) -> usize {
        let wildcard = if local.is_unspecified() { WILDCARD } else { 0 };
        wildcard | if self.0[0] & CONNECTED == 0 { UNCONNECTED } else { 0 }
    }

    /// What a socket of that kind would be bound to, to get this flow's datagrams: the first `N` words, [`WORDS`] or, of an
    /// IPv4 flow, [`WORDS_V4`].
    #[inline]
    pub fn as_kind<const N: usize>(&self, kind: usize) -> [u64; N] {
        std::array::from_fn(|i| self.0[i] & BOUND[kind][i])
    }

    #[inline]
    pub fn is_v6(&self) -> bool {
        self.0[0] & IPV6 != 0
    }
}

/// For a pair of two families, which no datagram ever is.
#[cold]
fn as_v6(addr: SocketAddr) -> SocketAddrV6 {
    match addr {
        SocketAddr::V4(addr) => SocketAddrV6::new(addr.ip().to_ipv6_mapped(), addr.port(), 0, 0),
        SocketAddr::V6(addr) => addr,
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

    /// Words that are zero add nothing: the first two are enough for an IPv4 flow.
    #[inline]
    pub fn hash<const N: usize>(&self, words: &[u64; N]) -> u64 {
        let terms =
            words.iter().zip(&self.factors).map(|(word, factor)| factor.wrapping_mul(u128::from(*word)));
        permute((terms.fold(self.offset, u128::wrapping_add) >> 64) as u64)
    }

    /// Of the whole flow.
    #[inline]
    pub fn of(&self, flow: &Flow) -> u64 {
        self.of_kind(flow, 0)
    }

    /// Of what a socket of that kind would be bound to.
    #[inline]
    pub fn of_kind(&self, flow: &Flow, kind: usize) -> u64 {
        if flow.is_v6() {
            self.hash(&flow.as_kind::<WORDS>(kind))
        } else {
            self.hash(&flow.as_kind::<WORDS_V4>(kind))
        }
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
                assert_ne!(hash.hash(&a.0), hash.hash(&b.0), "{a:?} and {b:?}");
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
                assert_eq!(datagram.as_kind(kind), bound.0, "kind {kind} of {local}");
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
                .filter(|hash| hash.hash(&base.0) as u8 == hash.hash(&other.0) as u8)
                .count();
            // 391 are expected; the standard deviation is 20.
            assert!((290..490).contains(&collisions), "{collisions} collisions in 100000 of {other:?}");
        }
    }
}
