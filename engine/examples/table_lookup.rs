//! What the socket table costs: nanoseconds per look-up, bind and close, and bytes per socket, with 1 k, 100 k and 1 M sockets and as
//! many connected ones. `table_lookup [--json] [SOCKETS..]`; one line for each size. Build it with `--release`.
//!
//! - *hot*: 32 flows over and over, one look-up at a time; *chained*: the next flow is known only when the last socket is found
//! - *cold*: random flows out of all, in bursts of 32; *cold one by one*: the same without bursts
//! - *plain* flows belong to unconnected sockets, so that both kinds are looked for; *connected* ones are found at once
//! - *bind*, *close*: one more socket and back, with everything that belongs to a socket; the time until the grace period has passed is not
//!   in it, but the work of the reclaimer is, as far as it runs on the closing thread
//! - *bytes*: growth of the resident memory by binding, per socket, everything included

use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Instant;

use arrayvec::ArrayVec;
use engine::bench::Lookups;
use engine::rcu::Reader;
use engine::{BURST, Engine, Socket, SocketHandle};

/// Where a datagram goes and where it comes from: addresses and ports. Small, so that reading the list costs little.
#[derive(Clone, Copy)]
struct Datagram {
    local: (u32, u16),
    peer: (u32, u16),
}

impl Datagram {
    #[inline]
    fn addresses(self) -> (SocketAddr, SocketAddr) {
        let address = |(ip, port): (u32, u16)| SocketAddr::from((Ipv4Addr::from_bits(ip), port));
        (address(self.local), address(self.peer))
    }
}

const LOCALS: u32 = 64;
const LOOKUPS: usize = 1 << 20;
/// A stretch that is timed by itself: short, so that the median is of stretches that nothing interrupted.
const STRETCH: usize = 1 << 14;
const ROUNDS: usize = 5;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let json = arguments.iter().any(|argument| argument == "--json");
    let mut sizes = Vec::new();
    for argument in arguments.iter().filter(|argument| *argument != "--json") {
        sizes.push(argument.parse()?);
    }
    if sizes.is_empty() {
        sizes = vec![1_000, 100_000, 1_000_000];
    }
    for size in sizes {
        let figures = measure(size)?;
        let line: Vec<String> = figures
            .iter()
            .map(
                |(name, value)| {
                    if json { format!("\"{name}\":{value:.1}") } else { format!("{name} {value:.1}") }
                },
            )
            .collect();
        if json {
            println!("{{{}}}", line.join(","));
        } else {
            println!("{}", line.join("  "));
        }
    }
    Ok(())
}

/// The `n`th pair of one plain and one connected socket: where both are bound, and the connected one's peer.
fn pair(n: u32) -> Datagram {
    Datagram { local: (0x0a00_0001 + n % LOCALS, (n / LOCALS) as u16 + 1), peer: (0x0a80_0000 | n, 7000) }
}

fn measure(pairs: u32) -> Result<Vec<(&'static str, f64)>, Box<dyn std::error::Error>> {
    let mut builder = Engine::builder().port("memory:table_lookup").sockets_max(2 * pairs as usize + 10_000);
    for n in 0..LOCALS {
        builder = builder.address(format!("10.0.0.{}/8", n + 1));
    }
    let engine = builder.start()?;
    let before = resident_bytes()?;
    let mut sockets: Vec<SocketHandle> = Vec::with_capacity(2 * pairs as usize);
    for n in 0..pairs {
        let (local, peer) = pair(n).addresses();
        sockets.push(engine.bind(local, 0)?);
        sockets.push(engine.bind_connected(local, peer, 0)?);
    }
    let handles = sockets.len() * size_of::<SocketHandle>();
    let bytes = (resident_bytes()? - before).saturating_sub(handles) as f64 / sockets.len() as f64;

    let table = Lookups::of(&engine);
    let mut random = fastrand::Rng::with_seed(42);
    let stranger = (0x0ac8_0001, 9);
    let mut flows = |connected: bool, distinct: u32| -> Vec<Datagram> {
        let mut flow = || {
            let pair = pair(random.u32(..pairs.min(distinct)));
            if connected { pair } else { Datagram { peer: stranger, ..pair } }
        };
        (0..LOOKUPS).map(|_| flow()).collect()
    };
    let (plain, connected) = (flows(false, pairs), flows(true, pairs));
    let (hot_plain, hot_connected) = (flows(false, 32), flows(true, 32));
    verify(&table, &plain, &connected);

    let mut figures = vec![("sockets", f64::from(2 * pairs))];
    figures.push(("hot_plain_ns", timed(&hot_plain, |flows| one_by_one(&table, flows))));
    figures.push(("hot_connected_ns", timed(&hot_connected, |flows| one_by_one(&table, flows))));
    figures.push(("chained_plain_ns", timed(&hot_plain, |flows| chained(&table, flows))));
    figures.push(("chained_connected_ns", timed(&hot_connected, |flows| chained(&table, flows))));
    figures.push(("hot_burst_plain_ns", timed(&hot_plain, |flows| in_bursts(&table, flows))));
    figures.push(("hot_burst_connected_ns", timed(&hot_connected, |flows| in_bursts(&table, flows))));
    figures.push(("cold_plain_ns", timed(&plain, |flows| in_bursts(&table, flows))));
    figures.push(("cold_connected_ns", timed(&connected, |flows| in_bursts(&table, flows))));
    figures.push(("cold_one_by_one_plain_ns", timed(&plain, |flows| one_by_one(&table, flows))));
    figures.push(("cold_one_by_one_connected_ns", timed(&connected, |flows| one_by_one(&table, flows))));

    let (mut binds, mut closes) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS as u32 {
        let more = |n| pair(pairs + round * 1000 + n).addresses().0;
        let started = Instant::now();
        let added: Vec<_> = (0..1000).map(|n| engine.bind(more(n), 0)).collect::<Result<_, _>>()?;
        binds.push(started.elapsed().as_nanos() as f64 / 1000.0);
        let started = Instant::now();
        drop(added);
        closes.push(started.elapsed().as_nanos() as f64 / 1000.0);
    }
    figures.push(("bind_ns", median(binds)));
    figures.push(("close_ns", median(closes)));
    figures.push(("bytes_per_socket", bytes));
    drop(sockets);
    let leaks = engine.shutdown().leaks();
    if leaks.is_empty() { Ok(figures) } else { Err(leaks.join("; ").into()) }
}

/// Every look-up finds the right socket, one by one and in bursts.
fn verify(table: &Lookups<'_>, plain: &[Datagram], connected: &[Datagram]) {
    let reader = Reader::register("bench");
    let right = |found: Option<&Socket>, flow: Datagram, connected: bool| {
        let (local, peer) = flow.addresses();
        let found = found.expect("it is bound");
        assert_eq!((found.local(), found.peer()), (local, connected.then_some(peer)));
    };
    for (flows, connected) in [(plain, false), (connected, true)] {
        for flows in flows[..flows.len() / 8].chunks(BURST) {
            for (&flow, found) in flows.iter().zip(burst(table, flows, &reader)) {
                right(found, flow, connected);
                right(table.lookup(flow.addresses(), reader.guard()), flow, connected);
            }
        }
    }
}

#[inline]
fn burst<'g>(
    table: &'g Lookups<'_>,
    flows: &[Datagram],
    reader: &'g Reader,
) -> ArrayVec<Option<&'g Socket>, BURST> {
    table.lookup_burst(flows.iter().map(|flow| flow.addresses()), reader.guard())
}

fn one_by_one(table: &Lookups<'_>, flows: &[Datagram]) {
    let mut reader = Reader::register("bench");
    for flows in flows.chunks(BURST) {
        for &flow in flows {
            black_box(table.lookup(flow.addresses(), reader.guard()));
        }
        reader.quiescent();
    }
}

fn chained(table: &Lookups<'_>, flows: &[Datagram]) {
    let mut reader = Reader::register("bench");
    for flows in flows.chunks_exact(BURST) {
        let mut at = 0;
        for _ in 0..BURST {
            let found = table.lookup(flows[at % BURST].addresses(), reader.guard());
            // The next place depends on what was found, in a way that the compiler does not see through.
            at += black_box(usize::from(found.is_some()));
        }
        reader.quiescent();
    }
}

fn in_bursts(table: &Lookups<'_>, flows: &[Datagram]) {
    let mut reader = Reader::register("bench");
    for flows in flows.chunks(BURST) {
        black_box(burst(table, flows, &reader));
        reader.quiescent();
    }
}

/// Nanoseconds per look-up: the median over stretches, after one round for warming up.
fn timed(flows: &[Datagram], run: impl Fn(&[Datagram])) -> f64 {
    run(flows);
    let stretches = (0..ROUNDS).flat_map(|_| flows.chunks_exact(STRETCH));
    let time = |flows: &[Datagram]| {
        let started = Instant::now();
        run(flows);
        started.elapsed().as_nanos() as f64 / STRETCH as f64
    };
    median(stretches.map(time).collect())
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn resident_bytes() -> Result<usize, Box<dyn std::error::Error>> {
    let statm = std::fs::read_to_string("/proc/self/statm")?;
    let pages: usize = statm.split_whitespace().nth(1).ok_or("no second field in statm")?.parse()?;
    Ok(pages * 4096)
}
