//! A counting allocator proves it: whatever strangers send, the stack's tables never grow after its creation. They
//! are hash maps; deleted entries must be cleared out in place.

mod counting;

use std::net::Ipv6Addr;

use counting::{counts, operations};
use engine::stack::{Limits, Outbox, PortConfig, Stack, StackConfig, Verdict};
use pmd::{Checksum, Instant, MacAddr, Pool, PoolConfig};

const OURS: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);

fn packet(src: Ipv6Addr, dst: Ipv6Addr, next: u8, payload: &[u8]) -> Vec<u8> {
    let len = (payload.len() as u16).to_be_bytes();
    [&[0x60, 0, 0, 0, len[0], len[1], next, 64], &src.octets()[..], &dst.octets(), payload].concat()
}

/// Everything that makes an entry somewhere, from a source of its own.
fn frames(n: u32) -> [Vec<u8>; 3] {
    let source = Ipv6Addr::from_bits(OURS.to_bits() + 1 + u128::from(n));
    let elsewhere = Ipv6Addr::from_bits(OURS.to_bits() + (u128::from(n) << 64));
    let quoted = packet(OURS, elsewhere, 17, &[0x1b, 0x58, 0x1b, 0x59, 0, 8, 0, 0]);
    let id = n.to_be_bytes();
    let payloads = [
        // An echo request makes us look for a neighbour.
        (58, vec![128, 0, 0, 0, 0, 1, 0, 2]),
        // A first fragment waits for the others.
        (44, [&[17, 0, 0, 1], &id[..], &[0; 64]].concat()),
        // "Packet too big" makes a path MTU.
        (58, [&[2, 0, 0, 0, 0, 0, 5, 0], &quoted[..]].concat()),
    ];
    payloads.map(|(next, payload)| {
        let packet = packet(source, OURS, next, &payload);
        [&MAC.0[..], &[2, 0, 0, 0, 0, 2, 0x86, 0xdd], &packet].concat()
    })
}

fn receive(stack: &mut Stack, now: Instant, frame: &[u8], pool: &mut Pool, out: &mut Outbox) -> bool {
    let mut frame = pool.copy_from(frame).unwrap();
    // As from a sender on this machine: the checksums of ICMP are not filled in.
    frame.meta_mut().checksum = Checksum::Partial;
    counts(true);
    let verdict = stack.demux(now, 0, frame, pool, out);
    let taken = !matches!(verdict, Verdict::Drop(..));
    drop(verdict);
    stack.expire(now, pool, out);
    out.frames(0).clear();
    while out.pop_unreachable().is_some() {}
    out.take_tally();
    counts(false);
    taken
}

#[test]
fn strangers_make_no_table_grow() {
    let address = format!("{OURS}/64").parse().unwrap();
    let limits = Limits { neighbours: 64, reassemblies: 32, path_mtus: 32, ..Limits::default() };
    let config = StackConfig { limits, ..StackConfig::new(vec![PortConfig::new(MAC, 1500, vec![address])]) };
    let mut stack = Stack::new(config).unwrap();
    let mut pool = PoolConfig::new("test", 1024).build().unwrap().claim();
    let mut out = Outbox::new(1, 256);
    for n in 0..20_000 {
        let now = Instant::from_nanos(u64::from(n) * 1_000_000);
        for (kind, frame) in frames(n).iter().enumerate() {
            assert!(
                receive(&mut stack, now, frame, &mut pool, &mut out),
                "frame kind {kind} of {n} was dropped"
            );
        }
    }
    assert_eq!(operations(), 0, "allocations and frees inside the stack");
    counts(true);
    drop(std::hint::black_box(Box::new(1)));
    counts(false);
    assert_eq!(operations(), 2, "the counter counts");
    stack.clear(&mut out);
    drop(out);
    assert_eq!(pool.available(), pool.capacity());
}
