//! Frames that nobody should send, in great numbers, and every way to cut a frame into segments.

use super::build::*;
use super::*;
use proptest::prelude::*;

/// A seeded source of randomness (SplitMix64), so that a failure can be run again.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ x >> 31
    }

    /// Below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

fn seed() -> u64 {
    std::env::var("SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// Sound frames of every kind that the stack deals with.
fn corpus() -> Vec<Vec<u8>> {
    let udp4 = udp(B4, A4, &pattern(300, 1));
    let udp6 = udp(B6, A6, &pattern(300, 2));
    let quoted4 = &ipv4(A4, B4, 17, (9, 0), &[], &udp(A4, B4, b"data"))[14..];
    let quoted6 = &ipv6(A6, B6, 17, 64, &udp(A6, B6, b"data"))[14..];
    let lladdr = |kind| [kind, 1, 2, 0, 0, 0, 0, 2];
    let fragment6 = |offset: u16, more: u16, data: &[u8]| {
        let field = (offset | more).to_be_bytes();
        ipv6(B6, A6, 44, 64, &[&[17, 0, field[0], field[1], 0, 0, 0, 7], data].concat())
    };
    let echo6 = icmpv6(B6, A6, [&[128, 0, 0, 0, 1, 2, 3, 4], &pattern(64, 3)[..]].concat());
    let error4 = icmp([&[3, 4, 0, 0, 0, 0, 3, 0], quoted4].concat());
    let error6 = icmpv6(B6, A6, [&[2, 0, 0, 0, 0, 0, 5, 0], quoted6].concat());
    vec![
        datagram4(&pattern(100, 0)),
        datagram6(&pattern(100, 0)),
        [&datagram4(b"tagged")[..12], &[0x81, 0, 0, 0], &datagram4(b"tagged")[12..]].concat(),
        ipv4(B4, A4, 17, (5, 0x2000), &[], &udp4[..160]),
        ipv4(B4, A4, 17, (5, 20), &[], &udp4[160..]),
        fragment6(0, 1, &udp6[..160]),
        fragment6(160, 0, &udp6[160..]),
        ipv4(B4, A4, 17, (1, 0), &[7, 4, 4, 0, 1, 1, 1, 0], &udp4),
        ipv6(B6, A6, 0, 64, &[&[60, 0, 5, 2, 0, 0, 1, 0, 17, 0, 1, 4, 0, 0, 0, 0], &udp6[..]].concat()),
        ipv4(B4, A4, 1, (1, 0), &[], &icmp([&[8, 0, 0, 0, 1, 2, 3, 4], &pattern(64, 3)[..]].concat())),
        ipv4("192.0.2.99", A4, 1, (1, 0), &[], &icmp(vec![8, 0, 0, 0, 1, 2, 3, 4])),
        ipv6(B6, A6, 58, 64, &echo6),
        ipv4(B4, A4, 1, (1, 0), &[], &error4),
        ipv6(B6, A6, 58, 64, &error6),
        arp(1, mac(2), B4, mac(0), A4),
        arp(2, mac(2), B4, mac(1), A4),
        neighbour(135, B6, "ff02::1:ff00:1", 0, A6, &lladdr(1)),
        neighbour(136, B6, A6, 0x60, B6, &lladdr(2)),
    ]
}

/// Changes a frame a little, a lot, or not at all; headers most, and often with the header checksum right again.
fn mutate(random: &mut Random, mut frame: Vec<u8>) -> Vec<u8> {
    for _ in 0..random.below(4) {
        let reach = if random.one_in(4) { frame.len() } else { frame.len().min(70) };
        if reach == 0 {
            break;
        }
        let at = random.below(reach);
        match random.below(4) {
            0 => frame[at] ^= 1 << random.below(8),
            1 => frame[at] = random.next() as u8,
            2 => frame[at] = [0, 1, 0x7f, 0x80, 0xff][random.below(5)],
            _ => frame[at] = frame[at].wrapping_add(1),
        }
    }
    match random.below(12) {
        0 => frame.truncate(random.below(frame.len() + 1)),
        1 => frame.extend(pattern(random.below(1600), 9)),
        2 => frame = (0..random.below(200)).map(|_| random.next() as u8).collect(),
        _ => {}
    }
    if !random.one_in(4) {
        mend_ipv4(&mut frame);
    }
    frame
}

/// The frame in segments of the given sizes, the rest in one more.
fn segmented(pool: &mut Pool, frame: &[u8], cuts: &[usize]) -> Mbuf {
    let (mut whole, mut rest) = (None::<Mbuf>, frame);
    for &cut in cuts.iter().chain([&usize::MAX]) {
        let (piece, behind) = rest.split_at(cut.min(rest.len()));
        let piece = pool.copy_from(piece).expect("the pool has room");
        match &mut whole {
            Some(whole) => whole.chain(piece),
            None => whole = Some(piece),
        }
        rest = behind;
    }
    whole.expect("at least one segment")
}

#[test]
fn two_hundred_thousand_bad_frames_do_no_harm() {
    let seed = seed();
    let mut random = Random(seed);
    let corpus = corpus();
    let limits = Limits { neighbours: 64, reassemblies: 16, reassembly_buffers: 64, ..Limits::default() };
    let mut host = Host::new(StackConfig { limits, ..host_config(1, 1500) });
    let mut verdicts = std::collections::BTreeMap::<&str, u64>::new();
    let mut real = 0;
    for i in 0..200_000u64 {
        host.now = Instant::from_nanos(i * 50_000);
        let frame = mutate(&mut random, corpus[i as usize % corpus.len()].clone());
        let cuts: Vec<usize> = match random.below(3) {
            0 => (0..random.below(6)).map(|_| 1 + random.below(60)).collect(),
            _ => Vec::new(),
        };
        let frame = segmented(&mut host.pool, &frame, &cuts);
        *verdicts.entry(host.receive_mbuf(frame)).or_default() += 1;
        if i % 64 == 0 {
            host.expire(host.now);
            host.frames();
            host.datagrams.clear();
            host.unreachable.clear();
            assert_eq!(host.receive(&datagram4(b"a real one")), "datagram", "SEED={seed}, frame {i}");
            assert_eq!(host.datagrams.pop().unwrap().2, b"a real one");
            real += 1;
            host.assert_ledger_closes();
        }
    }
    assert_eq!(verdicts.values().sum::<u64>() + real, host.received);
    // The noise must reach every corner, or it proves nothing.
    let wanted = ["datagram", "consumed", "held", "unreachable"].into_iter().chain(
        [
            Drop::Runt,
            Drop::NotOurMac,
            Drop::BadSourceMac,
            Drop::UnknownEthertype,
            Drop::WrongVlan,
            Drop::BadArp,
            Drop::BadNeighbourDiscovery,
            Drop::UnrelatedNeighbour,
            Drop::BadIpVersion,
            Drop::BadIpLength,
            Drop::BadIpChecksum,
            Drop::MartianSource,
            Drop::NotOurAddress,
            Drop::UnknownProtocol,
            Drop::BadIpOption,
            Drop::BadFragment,
            Drop::DuplicateFragment,
            Drop::FragmentOverlap,
            Drop::BadUdpLength,
            Drop::BadUdpChecksum,
            Drop::BadIcmpChecksum,
            Drop::BadIcmp,
        ]
        .map(Drop::name),
    );
    for name in wanted {
        assert!(verdicts.contains_key(name), "SEED={seed}: no frame became {name:?}: {verdicts:?}");
    }
    assert!(host.drops.get(Drop::ReassemblyLimit) > 0, "fragments were never given up");
    host.finish();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    /// How a frame is cut into segments changes nothing.
    #[test]
    fn segments_make_no_difference(which in 0usize..18, seed: u64, cuts in proptest::collection::vec(0usize..80, 0..8)) {
        let frame = mutate(&mut Random(seed), corpus()[which].clone());
        let mut one = Host::new(host_config(1, 1500));
        let mut many = Host::new(host_config(1, 1500));
        let pieces = segmented(&mut many.pool, &frame, &cuts);
        prop_assert_eq!(one.receive(&frame), many.receive_mbuf(pieces));
        prop_assert_eq!(&one.datagrams, &many.datagrams);
        prop_assert_eq!(&one.unreachable, &many.unreachable);
        prop_assert_eq!(one.frames(), many.frames());
        one.finish();
        many.finish();
    }

    #[test]
    fn any_bytes_at_all_get_a_verdict(frame in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut host = Host::new(host_config(1, 1500));
        host.receive(&frame);
        host.finish();
    }
}
