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
use std::net::SocketAddr;
use std::time::Instant;

use engine::bench::Lookups;
use engine::rcu::Reader;
use engine::{BURST, Engine, Socket, SocketHandle};

const LOCALS: u32 = 64;
const LOOKUPS: usize = 1 << 20;
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

/// The `n`th pair of one plain and one connected socket: where it is bound, and the connected one's peer.
fn addresses(n: u32) -> (SocketAddr, SocketAddr) {
    let local = SocketAddr::from(([10, 0, 0, (n % LOCALS) as u8 + 1], (n / LOCALS) as u16 + 1));
    (local, SocketAddr::from(((0x0a80_0000 | n).to_be_bytes(), 7000)))
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
        let (local, peer) = addresses(n);
        sockets.push(engine.bind(local, 0)?);
        sockets.push(engine.bind_connected(local, peer, 0)?);
    }
    let handles = sockets.len() * size_of::<SocketHandle>();
    let bytes = (resident_bytes()? - before).saturating_sub(handles) as f64 / sockets.len() as f64;

    let table = Lookups::of(&engine);
    let mut random = fastrand::Rng::with_seed(42);
    let stranger = SocketAddr::from(([10, 200, 0, 1], 9));
    let mut flows = |connected: bool, distinct: u32| -> Vec<(SocketAddr, SocketAddr)> {
        let mut flow = || {
            let (local, peer) = addresses(random.u32(..pairs.min(distinct)));
            (local, if connected { peer } else { stranger })
        };
        (0..LOOKUPS).map(|_| flow()).collect()
    };
    let (plain, connected) = (flows(false, pairs), flows(true, pairs));
    let (hot_plain, hot_connected) = (flows(false, 32), flows(true, 32));
    verify(&table, &plain, &connected);

    let mut figures = vec![("sockets", f64::from(2 * pairs))];
    figures.push(("hot_plain_ns", timed(|| one_by_one(&table, &hot_plain))));
    figures.push(("hot_connected_ns", timed(|| one_by_one(&table, &hot_connected))));
    figures.push(("chained_plain_ns", timed(|| chained(&table, &hot_plain))));
    figures.push(("chained_connected_ns", timed(|| chained(&table, &hot_connected))));
    figures.push(("hot_burst_plain_ns", timed(|| in_bursts(&table, &hot_plain))));
    figures.push(("hot_burst_connected_ns", timed(|| in_bursts(&table, &hot_connected))));
    figures.push(("cold_plain_ns", timed(|| in_bursts(&table, &plain))));
    figures.push(("cold_connected_ns", timed(|| in_bursts(&table, &connected))));
    figures.push(("cold_one_by_one_plain_ns", timed(|| one_by_one(&table, &plain))));
    figures.push(("cold_one_by_one_connected_ns", timed(|| one_by_one(&table, &connected))));

    let (mut binds, mut closes) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS as u32 {
        let more = |n| addresses(pairs + round * 1000 + n).0;
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
fn verify(table: &Lookups<'_>, plain: &[(SocketAddr, SocketAddr)], connected: &[(SocketAddr, SocketAddr)]) {
    let reader = Reader::register("test");
    let right = |found: Option<&Socket>, (local, peer): (SocketAddr, SocketAddr), connected: bool| {
        let found = found.expect("it is bound");
        assert_eq!((found.local(), found.peer()), (local, connected.then_some(peer)));
    };
    for (flows, connected) in [(plain, false), (connected, true)] {
        for flows in flows[..flows.len() / 8].chunks(BURST) {
            for (&flow, found) in flows.iter().zip(table.lookup_burst(flows, reader.guard())) {
                right(found, flow, connected);
                right(table.lookup(flow, reader.guard()), flow, connected);
            }
        }
    }
}

fn one_by_one(table: &Lookups<'_>, flows: &[(SocketAddr, SocketAddr)]) {
    let mut reader = Reader::register("test");
    for flows in flows.chunks(BURST) {
        for &flow in flows {
            black_box(table.lookup(flow, reader.guard()));
        }
        reader.quiescent();
    }
}

fn chained(table: &Lookups<'_>, flows: &[(SocketAddr, SocketAddr)]) {
    let mut reader = Reader::register("test");
    for flows in flows.chunks_exact(BURST) {
        let mut at = 0;
        for _ in 0..BURST {
            let found = table.lookup(flows[at % BURST], reader.guard());
            // The next place depends on what was found, in a way that the compiler does not see through.
            at += black_box(usize::from(found.is_some()));
        }
        reader.quiescent();
    }
}

fn in_bursts(table: &Lookups<'_>, flows: &[(SocketAddr, SocketAddr)]) {
    let mut reader = Reader::register("test");
    for flows in flows.chunks(BURST) {
        black_box(table.lookup_burst(flows, reader.guard()));
        reader.quiescent();
    }
}

/// Nanoseconds per look-up: the median of some rounds, after one for warming up.
fn timed(run: impl Fn()) -> f64 {
    run();
    let round = |_| {
        let started = Instant::now();
        run();
        started.elapsed().as_nanos() as f64 / LOOKUPS as f64
    };
    median((0..ROUNDS).map(round).collect())
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
