//! Receive-side scaling: the Toeplitz hash with which NICs spread flows over their queues, in software.
//!
//! Whoever computes it foretells the queue on which a datagram will arrive: the engine makes it its ownership function, so that a frame's
//! core is the one whose queue it came in by, and a client chooses its port so that replies reach its own core. The hash is Microsoft's
//! ("RSS Hashing Types", with the verification suite that the tests here use), as the 82576, 82599, virtio and mlx5 datasheets have it.
//!
//! Deliberately absent: a symmetric key. A key of one repeated 16-bit word makes both directions of a flow hash alike, which a
//! bystander on the wire needs; we are one end, hash what we receive and nothing else, and such a key throws half of the input away
//! (it sees only the XOR of the two sides). Keys here are random, for each engine its own, so that peers cannot aim at one core.

use std::net::{IpAddr, SocketAddr};

/// Bytes of a Toeplitz key: enough for IPv6 addresses and ports.
pub const RSS_KEY_LEN: usize = 40;
/// Bytes of the longest input: two IPv6 addresses and two ports.
const INPUT_MAX: usize = RSS_KEY_LEN - 4;
/// Entries of a table that nothing else says the size of, as the 82576 and the 82599 have.
const TABLE: usize = 128;
/// Low bits of the hash that every choice of a port must be able to reach: those of the largest table (512 entries, X550).
const TABLE_BITS: u32 = 9;

/// A device's choice of queue: the Toeplitz hash of addresses and, where it looks so far, UDP ports; its low bits index a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rss {
    /// The hash's key.
    pub key: [u8; RSS_KEY_LEN],
    /// The queue for each value of the hash's low bits: a power of two of them.
    pub table: Vec<u16>,
    /// Whether the ports of UDP datagrams (of those not fragmented) are hashed too.
    pub udp_ports: bool,
}

impl Rss {
    /// Addresses and ports, hashed with `key`, spread evenly over `queues`.
    ///
    /// # Panics
    /// With no queues, or more than a table can name.
    pub fn spread(key: [u8; RSS_KEY_LEN], queues: usize) -> Rss {
        assert!((1..=usize::from(u16::MAX)).contains(&queues), "{queues} queues cannot be spread over");
        let entries = TABLE.max(queues.next_power_of_two());
        Rss { key, table: (0..entries).map(|i| (i % queues) as u16).collect(), udp_ports: true }
    }

    /// The queue for what `peer` sends to `local`. Builds tables first: [`Toeplitz`] is for many.
    pub fn queue_of(&self, local: SocketAddr, peer: SocketAddr) -> usize {
        self.queue(Toeplitz::new(&self.key).hash(peer, local, self.udp_ports))
    }

    /// The queue for a hash.
    #[inline]
    pub fn queue(&self, hash: u32) -> usize {
        debug_assert!(self.table.len().is_power_of_two(), "a table has a power of two entries");
        usize::from(self.table[hash as usize & (self.table.len() - 1)])
    }

    /// Whether both send every frame to the queue of the same number, though one table may repeat the other.
    pub fn agrees_with(&self, other: &Rss) -> bool {
        let longer = self.table.len().max(other.table.len()) as u32;
        self.key == other.key
            && self.udp_ports == other.udp_ports
            && (0..longer).all(|hash| self.queue(hash) == other.queue(hash))
    }
}

/// A key from `random` words: one whose ports, of either side and family, reach every entry of a table. About one draw in sixty does not.
pub fn rss_key(mut random: impl FnMut() -> u64) -> [u8; RSS_KEY_LEN] {
    loop {
        let mut key = [0; RSS_KEY_LEN];
        key.chunks_exact_mut(8).for_each(|word| word.copy_from_slice(&random().to_be_bytes()));
        // Where source and destination ports stand in the two inputs.
        if [8, 10, 32, 34].into_iter().all(|at| port_reach(&key, at) == TABLE_BITS) {
            return key;
        }
    }
}

/// How many of the hash's low bits a port at byte `at` of the input moves independently: the rank, over GF(2), of its bits' windows.
fn port_reach(key: &[u8; RSS_KEY_LEN], at: usize) -> u32 {
    let mut rank = 0;
    let mut rows: Vec<u32> = (0..16).map(|bit| window(key, 8 * at + bit) & ((1 << TABLE_BITS) - 1)).collect();
    for column in 0..TABLE_BITS {
        let Some(pivot) = rows.iter().position(|row| row >> column & 1 == 1) else { continue };
        let pivot = rows.swap_remove(pivot);
        rows.iter_mut().filter(|row| **row >> column & 1 == 1).for_each(|row| *row ^= pivot);
        rank += 1;
    }
    rank
}

/// The 32 bits of the key from bit `at` on: what input bit `at` adds to the hash.
fn window(key: &[u8; RSS_KEY_LEN], at: usize) -> u32 {
    let mut bytes = [0; 8];
    let rest = &key[at / 8..];
    let len = rest.len().min(8);
    bytes[..len].copy_from_slice(&rest[..len]);
    (u64::from_be_bytes(bytes) << (at % 8) >> 32) as u32
}

/// The hash of one key, as tables: the hash is linear, so that each byte of the input adds one word. 36 KiB, of which a host's own
/// addresses and ports are a few cache lines and an IPv4 tuple never touches more than a third. Measured at 5 ns for an IPv4 tuple and
/// 15 for IPv6; tables of four bits (4.5 KiB) took twice as long.
#[derive(Clone)]
pub struct Toeplitz(Box<[[u32; 256]; INPUT_MAX]>);

impl Toeplitz {
    /// The tables for a key.
    pub fn new(key: &[u8; RSS_KEY_LEN]) -> Toeplitz {
        let mut words = Box::new([[0; 256]; INPUT_MAX]);
        for (at, of_byte) in words.iter_mut().enumerate() {
            for (value, word) in of_byte.iter_mut().enumerate() {
                let bits = (0..8).filter(|bit| value >> (7 - bit) & 1 == 1);
                *word = bits.fold(0, |hash, bit| hash ^ window(key, 8 * at + bit));
            }
        }
        Toeplitz(words)
    }

    /// The hash of a datagram from `source` to `destination`, with its ports or without. Where only one side is IPv4, it is hashed as
    /// mapped into IPv6.
    #[inline]
    pub fn hash(&self, source: SocketAddr, destination: SocketAddr, ports: bool) -> u32 {
        let (hash, at) = match (source, destination) {
            (SocketAddr::V4(from), SocketAddr::V4(to)) => {
                (self.part(0, from.ip().octets()) ^ self.part(4, to.ip().octets()), 8)
            }
            (from, to) => (self.part(0, as_v6(from.ip())) ^ self.part(16, as_v6(to.ip())), 32),
        };
        if !ports {
            return hash;
        }
        let ports = [source.port(), destination.port()].map(u16::to_be_bytes);
        hash ^ self.part(at, ports[0]) ^ self.part(at + 2, ports[1])
    }

    /// What the bytes at `at` of the input add to the hash.
    #[inline]
    fn part<const N: usize>(&self, at: usize, bytes: [u8; N]) -> u32 {
        let tables: &[[u32; 256]; N] = self.0[at..].first_chunk().expect("no part goes beyond the input");
        tables.iter().zip(bytes).fold(0, |hash, (of_byte, byte)| hash ^ of_byte[usize::from(byte)])
    }
}

impl std::fmt::Debug for Toeplitz {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Toeplitz")
    }
}

fn as_v6(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The key of Microsoft's verification suite.
    const KEY: [u8; RSS_KEY_LEN] = [
        0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0,
        0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42,
        0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
    ];

    /// Destination, source, the hash of the addresses, the hash with the ports: "Verifying the RSS Hash Calculation", Microsoft.
    const VECTORS: [(&str, &str, u32, u32); 8] = [
        ("161.142.100.80:1766", "66.9.149.187:2794", 0x323e_8fc2, 0x51cc_c178),
        ("65.69.140.83:4739", "199.92.111.2:14230", 0xd718_262a, 0xc626_b0ea),
        ("12.22.207.184:38024", "24.19.198.95:12898", 0xd2d0_a5de, 0x5c2b_394a),
        ("209.142.163.6:2217", "38.27.205.30:48228", 0x8298_9176, 0xafc7_327f),
        ("202.188.127.2:1303", "153.39.163.191:44251", 0x5d18_09c5, 0x10e8_28a2),
        ("[3ffe:2501:200:3::1]:1766", "[3ffe:2501:200:1fff::7]:2794", 0x2cc1_8cd5, 0x4020_7d3d),
        ("[ff02::1]:4739", "[3ffe:501:8::260:97ff:fe40:efab]:14230", 0x0f0c_461c, 0xdde5_1bbf),
        (
            "[fe80::200:f8ff:fe21:67cf]:38024",
            "[3ffe:1900:4545:3:200:f8ff:fe21:67cf]:44251",
            0x4b61_e985,
            0x02d1_feef,
        ),
    ];

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_hash_is_microsofts() {
        let toeplitz = Toeplitz::new(&KEY);
        for (destination, source, addresses, with_ports) in VECTORS {
            let (to, from) = (addr(destination), addr(source));
            assert_eq!(toeplitz.hash(from, to, false), addresses, "{source} -> {destination}, addresses");
            assert_eq!(toeplitz.hash(from, to, true), with_ports, "{source} -> {destination}, with ports");
        }
    }

    #[test]
    fn a_queue_is_that_of_the_frames_received() {
        let mut rss = Rss::spread(KEY, 3);
        // Local is the destination, the peer the source.
        let (local, peer) = (addr(VECTORS[0].0), addr(VECTORS[0].1));
        assert_eq!(rss.queue_of(local, peer), (0x51cc_c178 % 128) % 3);
        rss.udp_ports = false;
        assert_eq!(rss.queue_of(local, peer), (0x323e_8fc2 % 128) % 3);
    }

    #[test]
    fn tables_agree_if_one_repeats_the_other() {
        let table = |entries: usize| (0..entries).map(|i| (i % 4) as u16).collect();
        let small = Rss { key: KEY, table: table(4), udp_ports: true };
        let large = Rss { table: table(512), ..small.clone() };
        assert!(small.agrees_with(&large) && large.agrees_with(&small));
        assert!(!small.agrees_with(&Rss { udp_ports: false, ..large.clone() }));
        assert!(!small.agrees_with(&Rss::spread(KEY, 3)));
        let mut key = KEY;
        key[39] ^= 1;
        assert!(!small.agrees_with(&Rss { key, ..small.clone() }));
    }

    #[test]
    fn with_any_key_drawn_ports_reach_every_queue_alike() {
        let mut random = fastrand::Rng::with_seed(4);
        for queues in [2, 3, 8, 64] {
            let rss = Rss::spread(rss_key(|| random.u64(..)), queues);
            let toeplitz = Toeplitz::new(&rss.key);
            for (local, peer) in
                [("192.0.2.1:7", "198.51.100.9:7001"), ("[2001:db8::1]:7", "[2001:db8::2]:7001")]
            {
                let (local, peer) = (addr(local), addr(peer));
                let with = |port, mut side: SocketAddr| {
                    side.set_port(port);
                    side
                };
                let by = |flow: &dyn Fn(u16) -> (SocketAddr, SocketAddr)| {
                    let mut counts = vec![0; queues];
                    for port in 0..=u16::MAX {
                        let (peer, local) = flow(port);
                        counts[rss.queue(toeplitz.hash(peer, local, true))] += 1;
                    }
                    counts
                };
                // Each entry of the table is reached by as many ports as every other.
                let mut expected = vec![0; queues];
                rss.table.iter().for_each(|queue| expected[usize::from(*queue)] += 65_536 / rss.table.len());
                assert_eq!(by(&|port| (peer, with(port, local))), expected, "by our ports");
                assert_eq!(by(&|port| (with(port, peer), local)), expected, "by the peer's ports");
            }
        }
    }

    #[test]
    fn a_key_whose_ports_do_nothing_is_not_drawn() {
        let mut draws = 0u64;
        let key = rss_key(|| {
            draws += 1;
            // The first key is one word repeated: of rank 16 at most, and here 1.
            if draws <= 5 { u64::MAX } else { draws.wrapping_mul(0x9e37_79b9_7f4a_7c15) }
        });
        assert!(draws > 5);
        assert_eq!(port_reach(&key, 10), TABLE_BITS);
        assert_eq!(port_reach(&[0xff; RSS_KEY_LEN], 10), 1);
    }
}
