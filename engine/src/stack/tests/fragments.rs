//! Reassembly against a model: whatever the cuts, the order and the duplicates, whole datagrams come out once.

use super::build::*;
use super::noise::Random;
use super::*;
use proptest::prelude::*;

/// An IPv4 or IPv6 fragment of a UDP datagram, as a frame.
fn fragment(v6: bool, id: u16, message: &[u8], range: std::ops::Range<usize>) -> Vec<u8> {
    let more = range.end < message.len();
    let data = &message[range.clone()];
    if v6 {
        let field = (range.start as u16 | u16::from(more)).to_be_bytes();
        let id = u32::from(id).to_be_bytes();
        ipv6(B6, A6, 44, 64, &[&[17, 0, field[0], field[1]], &id[..], data].concat())
    } else {
        let field = (range.start / 8) as u16 | if more { 0x2000 } else { 0 };
        ipv4(B4, A4, 17, (id, field), &[], data)
    }
}

/// Cuts a message into at most 100 parts at random multiples of eight.
fn cut(random: &mut Random, v6: bool, id: u16, message: &[u8]) -> Vec<Vec<u8>> {
    let step_min = message.len().div_ceil(100).max(8);
    let (mut parts, mut at) = (Vec::new(), 0);
    while at < message.len() {
        let step = (step_min + random.below(1600)).next_multiple_of(8);
        let end = (at + step).min(message.len());
        parts.push(fragment(v6, id, message, at..end));
        at = end;
    }
    if parts.len() == 1 { cut(random, v6, id, message) } else { parts }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn any_order_any_cuts_any_duplicates(seed: u64, sizes in proptest::collection::vec(20usize..65400, 1..6)) {
        let mut random = Random(seed);
        let mut host = Host::new(host_config(1, 1500));
        let (mut frames, mut fewest) = (Vec::new(), usize::MAX);
        for (id, &size) in sizes.iter().enumerate() {
            let v6 = random.one_in(2);
            let (src, dst) = if v6 { (B6, A6) } else { (B4, A4) };
            let message = udp(src, dst, &pattern(size, id as u8));
            let parts = cut(&mut random, v6, id as u16, &message);
            fewest = fewest.min(parts.len());
            frames.extend(parts);
        }
        let unique = frames.len();
        // Too few to make a second copy of any datagram.
        for _ in 0..random.below(fewest) {
            frames.push(frames[random.below(unique)].clone());
        }
        for i in (1..frames.len()).rev() {
            frames.swap(i, random.below(i + 1));
        }
        frames.iter().for_each(|frame| host.take(frame));
        let mut got: Vec<_> = host.datagrams.drain(..).map(|(_, _, payload)| payload).collect();
        let mut expected: Vec<_> = sizes.iter().enumerate().map(|(id, &size)| pattern(size, id as u8)).collect();
        got.sort();
        expected.sort();
        prop_assert!(got == expected, "{} of {} datagrams arrived whole", got.len(), expected.len());
        prop_assert_eq!(host.consumed, (unique - sizes.len()) as u64);
        // A duplicate that comes after its datagram is whole begins a new one, which never becomes whole.
        let held = host.stack.held() as u64;
        prop_assert_eq!(host.drops.get(Drop::DuplicateFragment) + held, (frames.len() - unique) as u64);
        host.expire(ms(60_000));
        prop_assert_eq!(host.drops.get(Drop::ReassemblyTimeout), held);
        host.finish();
    }
}

#[test]
fn an_openafs_jumbogram_in_four_fragments() {
    // 5,692 bytes of Rx in 5,700 of UDP: how OpenAFS sends four packets at once over Ethernet.
    let message = udp(B4, A4, &pattern(5692, 7));
    let ranges = [0..1480, 1480..2960, 2960..4440, 4440..5700];
    for order in [[0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2]] {
        let mut host = Host::new(host_config(1, 1500));
        let verdicts: Vec<_> =
            order.iter().map(|&i| host.receive(&fragment(false, 1, &message, ranges[i].clone()))).collect();
        assert_eq!(verdicts, ["held", "held", "held", "datagram"]);
        assert!(host.datagrams[0].2 == pattern(5692, 7));
        assert_eq!((host.consumed, host.delivered), (3, 1));
        host.finish();
    }
}

#[test]
fn overlaps_condemn_the_datagram() {
    let message = udp(B4, A4, &pattern(100, 1));
    let overlaps = [
        // Within, around, at the start, at the end.
        [0..64, 16..32],
        [16..32, 0..64],
        [0..32, 24..48],
        [24..48, 0..32],
    ];
    for v6 in [false, true] {
        for ranges in &overlaps {
            let mut host = Host::new(host_config(1, 1500));
            let verdicts: Vec<_> =
                ranges.iter().map(|range| host.receive(&fragment(v6, 1, &message, range.clone()))).collect();
            assert_eq!(verdicts, ["held", "fragment_overlap"], "{ranges:?}");
            assert_eq!(host.drops.get(Drop::FragmentOverlap), 2, "the one that was held goes as well");
            assert_eq!(host.stack.held(), 0);
            host.finish();
        }
    }
}

#[test]
fn contradictory_ends_condemn_the_datagram() {
    let long = udp(B4, A4, &pattern(100, 1));
    let end_at = |end: usize| fragment(false, 1, &long[..end], end - 8..end);
    let data_at = |at: usize| fragment(false, 1, &long, at..at + 8);
    for (first, second) in [
        (end_at(64), end_at(80)),
        (end_at(80), end_at(64)),
        (end_at(64), data_at(72)),
        (data_at(72), end_at(64)),
    ] {
        let mut host = Host::new(host_config(1, 1500));
        assert_eq!(host.receive(&first), "held");
        assert_eq!(host.receive(&second), "fragment_overlap");
        assert_eq!(host.stack.held(), 0);
        host.finish();
    }
}

#[test]
fn a_datagram_longer_than_ip_can_carry_is_refused() {
    let mut host = Host::new(host_config(1, 1500));
    // Offset 65,528 plus 8 bytes is the classic ping of death.
    assert_eq!(host.receive(&ipv4(B4, A4, 17, (1, 0x1fff), &[], &[0; 8])), "bad_fragment");
    host.finish();
}

#[test]
fn limits_hold_and_the_oldest_gives_way() {
    let limits =
        Limits { reassemblies: 8, reassemblies_per_source: 4, reassembly_buffers: 20, ..Limits::default() };
    let mut host = Host::new(StackConfig { limits, ..host_config(1, 1500) });
    let message = udp(B4, A4, &pattern(400, 1));
    for id in 0..100 {
        host.now = ms(u64::from(id));
        assert_eq!(host.receive(&fragment(false, id, &message, 0..64)), "held");
        assert!(host.stack.held() <= 4);
    }
    assert_eq!(host.drops.get(Drop::ReassemblyLimit), 96);
    // The youngest still becomes whole.
    assert_eq!(host.receive(&fragment(false, 99, &message, 64..408)), "datagram");
    // One datagram alone may not have more than all buffers.
    let verdicts: Vec<_> =
        (0..21).map(|i| host.receive(&fragment(false, 200, &message, i * 8..i * 8 + 8))).collect();
    assert_eq!(verdicts[..20], ["held"; 20]);
    assert_eq!(verdicts[20], "reassembly_limit");
    assert_eq!(host.stack.held(), 0);
    host.finish();
}

#[test]
fn what_stays_incomplete_times_out() {
    let mut host = Host::new(host_config(1, 1500));
    let message = udp(B4, A4, &pattern(400, 1));
    host.receive(&fragment(false, 1, &message, 0..64));
    host.receive(&fragment(false, 1, &message, 128..192));
    assert_eq!(host.stack.next_timeout(), Some(ms(30_000)));
    host.expire(ms(29_999));
    assert_eq!(host.stack.held(), 2);
    host.expire(ms(30_000));
    assert_eq!((host.stack.held(), host.drops.get(Drop::ReassemblyTimeout)), (0, 2));
    assert_eq!(host.stack.next_timeout(), None);
    host.finish();
}

#[test]
fn a_fragment_is_never_taken_for_a_whole() {
    // A UDP length that fits the first fragment, and a later one that looks like a datagram of its own.
    let message = udp(B4, A4, b"sixteen bytes ok");
    for field in [0x2000, 3] {
        let mut host = Host::new(host_config(1, 1500));
        assert_eq!(host.receive(&ipv4(B4, A4, 17, (1, field), &[], &message)), "held");
        host.finish();
    }
}

#[test]
fn what_a_device_says_of_one_fragment_is_not_believed_of_the_whole() {
    let message = udp(B4, A4, &pattern(100, 1));
    for status in [pmd::Checksum::Good, pmd::Checksum::Partial] {
        let mut host = Host::new(host_config(1, 1500));
        for (range, damage) in [(0..64, 0), (64..108, 1)] {
            let mut bytes = fragment(false, 1, &message, range);
            *bytes.last_mut().unwrap() ^= damage;
            let mut frame = host.pool.copy_from(&bytes).unwrap();
            frame.meta_mut().checksum = status;
            host.receive_mbuf(frame);
        }
        assert_eq!(host.drops.get(Drop::BadUdpChecksum), 1, "{status:?}");
        host.finish();
    }
}
