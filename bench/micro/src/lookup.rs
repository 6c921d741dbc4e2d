//! The socket table: finding sockets, binding and closing them. `bench/arms/hash_rte.c` does the look-ups in C, on DPDK's rte_hash.
//!
//! There are as many plain sockets as connected ones. A datagram of a plain socket is looked for among the connected ones too. The
//! addresses are made from a list of random numbers while the burst is prepared, on either side, and every burst is one of 32.

use std::hint::black_box;
use std::net::SocketAddr;

use engine::bench::Lookups;
use engine::rcu::Reader;
use engine::{BURST, Engine, SocketHandle};
use rustix::time::ClockId;
use serde::Serialize;

use crate::measure::{cpu_time, median, pin_to};

const LOCALS: u32 = 64;
const LOOKUPS: usize = 1 << 19;
const ROUNDS: usize = 5;
const BINDS: u32 = 1000;

/// What a table of one size comes to: ns of CPU time for each datagram, bind or close.
#[derive(Serialize)]
pub struct Found {
    /// 32 flows over and over, of plain sockets.
    hot_plain_ns: f64,
    /// The same of connected ones.
    hot_connected_ns: f64,
    /// Random flows out of all, of plain sockets.
    cold_plain_ns: f64,
    /// The same of connected ones.
    cold_connected_ns: f64,
    /// One more socket.
    bind_ns: f64,
    /// Closing it again, the reclaimer's work included and the wait for the grace period not.
    close_ns: f64,
}

/// Where the `n`th plain and the `n`th connected socket are bound, and the latter's peer.
#[inline]
fn addresses(n: u32) -> (SocketAddr, SocketAddr) {
    let local = SocketAddr::from(([10, 0, 0, (n % LOCALS) as u8 + 1], (n / LOCALS) as u16 + 1));
    (local, SocketAddr::from(((0x0a80_0000 | n).to_be_bytes(), 7000)))
}

/// A datagram that only the `n`th plain socket takes.
#[inline]
fn of_plain(n: u32) -> (SocketAddr, SocketAddr) {
    (addresses(n).0, SocketAddr::from(([10, 200, 0, 1], 9)))
}

/// Fills a table with `pairs` sockets of either kind and measures it.
pub fn lookup(pairs: u32, cpu: usize) -> Found {
    let mut builder = Engine::builder().port("memory:lookup").sockets_max(2 * pairs as usize + 10_000);
    for n in 0..LOCALS {
        builder = builder.address(format!("10.0.0.{}/8", n + 1));
    }
    let engine = builder.start().expect("an engine");
    pin_to(cpu);
    let mut sockets: Vec<SocketHandle> = Vec::with_capacity(2 * pairs as usize);
    for n in 0..pairs {
        let (local, peer) = addresses(n);
        sockets.push(engine.bind(local, 0).expect("a free address"));
        sockets.push(engine.bind_connected(local, peer, 0).expect("a free flow"));
    }
    let table = Lookups::of(&engine);
    verify(&table, pairs);
    let (hot_plain_ns, hot_connected_ns) = (look_up(&table, of_plain, 32), look_up(&table, addresses, 32));
    let (cold_plain_ns, cold_connected_ns) =
        (look_up(&table, of_plain, pairs), look_up(&table, addresses, pairs));
    let (bind_ns, close_ns) = bind_and_close(&engine, pairs);
    drop(sockets);
    assert_eq!(engine.shutdown().leaks(), Vec::<String>::new());
    Found { hot_plain_ns, hot_connected_ns, cold_plain_ns, cold_connected_ns, bind_ns, close_ns }
}

/// Random numbers below `distinct`, the same ones each time.
fn numbers(distinct: u32) -> impl Iterator<Item = u32> {
    let mut random = 42u64;
    std::iter::repeat_with(move || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (((random >> 32) * u64::from(distinct)) >> 32) as u32
    })
}

/// Every burst finds the right sockets.
fn verify(table: &Lookups<'_>, pairs: u32) {
    let reader = Reader::register("micro");
    let numbers: Vec<u32> = numbers(pairs).take(4096).collect();
    for burst in numbers.chunks(BURST) {
        for (flow, connected) in [(of_plain as fn(u32) -> _, false), (addresses, true)] {
            let flows: Vec<_> = burst.iter().map(|n| flow(*n)).collect();
            for ((local, peer), found) in
                flows.iter().zip(table.lookup_burst(flows.iter().copied(), reader.guard()))
            {
                let found = found.expect("it is bound");
                assert_eq!((found.local(), found.peer()), (*local, connected.then_some(*peer)));
            }
        }
    }
}

/// ns for each datagram: the median of some rounds, after one of warm-up. `distinct` flows are used.
fn look_up(table: &Lookups<'_>, flow: impl Fn(u32) -> (SocketAddr, SocketAddr), distinct: u32) -> f64 {
    let mut reader = Reader::register("micro");
    let numbers: Vec<u32> = numbers(distinct).take(LOOKUPS).collect();
    let mut round = || {
        let begun = cpu_time(ClockId::ThreadCPUTime);
        for burst in numbers.chunks_exact(BURST) {
            let flows: [_; BURST] = std::array::from_fn(|i| flow(burst[i]));
            black_box(table.lookup_burst(flows.iter().copied(), reader.guard()));
            reader.quiescent();
        }
        (cpu_time(ClockId::ThreadCPUTime) - begun).as_nanos() as f64 / LOOKUPS as f64
    };
    round();
    median((0..ROUNDS).map(|_| round()))
}

/// ns to bind one more socket, and ns to close it.
fn bind_and_close(engine: &Engine, pairs: u32) -> (f64, f64) {
    let (mut binds, mut closes) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS as u32 {
        let begun = cpu_time(ClockId::ThreadCPUTime);
        let more = (0..BINDS).map(|n| addresses(pairs + round * BINDS + n).0);
        let bound: Vec<_> = more.map(|local| engine.bind(local, 0).expect("a free address")).collect();
        let between = cpu_time(ClockId::ThreadCPUTime);
        drop(bound);
        let end = cpu_time(ClockId::ThreadCPUTime);
        binds.push((between - begun).as_nanos() as f64 / f64::from(BINDS));
        closes.push((end - between).as_nanos() as f64 / f64::from(BINDS));
    }
    (median(binds), median(closes))
}
