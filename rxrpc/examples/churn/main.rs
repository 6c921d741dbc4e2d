//! Sockets come and go while their cores receive at full speed: under AddressSanitizer, the proof that nothing is freed early and no
//! wake-up is lost. `cargo lab test rcu/churn` runs it.
//!
//! `churn [--seconds 60] [--operations 1000000] [--limit 180] [--seed N] [--json]`. Two cores take a flood of datagrams and
//! calls from `memory:`; threads bind, close, accept and abort, at least so long and so often; `--limit` seconds bound it.
//! Meanwhile threads sleep on sockets, and measure how long each slept after its message. In the end nothing may be left.

mod calls;
mod flood;
mod sockets;
mod tally;

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Scope};
use std::time::{Duration, Instant};

use rxrpc::engine::{self, Engine, Report, rcu};
use rxrpc::{RxEngine, RxExt, SocketConfig};

use flood::{Flood, Pings};
use tally::Tally;

/// Retired memory may never be more: some hundred sockets, so that binders do come to it.
const CAP_BYTES: usize = 1 << 20;
/// The cores that receive.
const CORES: usize = 2;
/// Threads of each kind.
const BINDERS: u64 = 2;
const ACCEPTORS: u64 = 2;
const CALLERS: u64 = 3;

struct Plan {
    seconds: u64,
    operations: u64,
    limit: u64,
    seed: u64,
    json: bool,
}

impl Plan {
    fn parse(args: impl Iterator<Item = String>) -> Result<Plan, String> {
        let seed = fastrand::u64(..1 << 32);
        let mut plan = Plan { seconds: 60, operations: 1_000_000, limit: 180, seed, json: false };
        let mut args = args;
        while let Some(name) = args.next() {
            let place = match name.as_str() {
                "--seconds" => &mut plan.seconds,
                "--operations" => &mut plan.operations,
                "--limit" => &mut plan.limit,
                "--seed" => &mut plan.seed,
                "--json" => {
                    plan.json = true;
                    continue;
                }
                _ => return Err(format!("{name} is none of --seconds --operations --limit --seed --json")),
            };
            let value = args.next().and_then(|value| value.parse().ok());
            *place = value.ok_or_else(|| format!("{name} wants a number"))?;
        }
        Ok(plan)
    }
}

fn main() -> ExitCode {
    let plan = match Plan::parse(std::env::args().skip(1)) {
        Ok(plan) => plan,
        Err(error) => {
            eprintln!("churn: {error}");
            return ExitCode::from(2);
        }
    };
    let tally = Tally::new();
    let elapsed = run(&plan, &tally);
    let failures = tally.failures();
    if plan.json {
        println!("{}", tally.json(plan.seed, elapsed));
    } else {
        println!("{}", tally.summary(elapsed));
    }
    for failure in &failures {
        eprintln!("FAILED: {failure}");
    }
    if failures.is_empty() {
        return ExitCode::SUCCESS;
    }
    let Plan { seconds, operations, limit, seed, .. } = plan;
    eprintln!("again: churn --seconds {seconds} --operations {operations} --limit {limit} --seed {seed}");
    ExitCode::FAILURE
}

fn run(plan: &Plan, tally: &Tally) -> Duration {
    rcu::set_retired_cap(CAP_BYTES);
    let wire = |wire: &str, address: &str| {
        Engine::builder().name(address).port(format!("memory:{wire}")).address(address).core_count(CORES)
    };
    let receiver = wire("churn-udp", flood::RECEIVER_NET).start().expect("the receiver starts");
    let pings = Pings::new();
    let sender = Flood::start(wire("churn-udp", "192.0.2.2/24"), &receiver, pings.clone(), plan.seed);
    // Small buffers, so that calls and accepts cost their bookkeeping and not the clearing of memory.
    let config =
        SocketConfig { backlog: 8, receive_buffer: 4 << 10, send_buffer: 4 << 10, ..SocketConfig::default() };
    let start =
        |address| wire("churn-rx", address).start_rx_with(config.clone()).expect("an Rx engine starts");
    let (server, client) = (start(calls::SERVER_NET), start("192.0.2.20/24"));
    let (stop, began) = (AtomicBool::new(false), Instant::now());
    thread::scope(|scope| {
        let mut seeds = (plan.seed..).map(fastrand::Rng::with_seed);
        let mut rng = || seeds.next().expect("endless");
        sockets::start(scope, &receiver, &pings, &stop, tally, BINDERS, &mut rng);
        calls::start(scope, (&server, &client), &stop, tally, (ACCEPTORS, CALLERS), &mut rng);
        watch(scope, plan, tally, began, &stop);
    });
    let elapsed = began.elapsed();
    tally.received(receiver.stats().ledger().received, server.stats().ledger().received);
    for (name, engine) in [("server", &server), ("client", &client)] {
        nothing_left(name, engine, tally);
    }
    let reports = [receiver.shutdown(), sender.shutdown(), server.shutdown(), client.shutdown()];
    reports.iter().flat_map(Report::leaks).for_each(|leak| tally.fail(leak));
    let freed = tally::eventually(Duration::from_secs(5), || rcu::retired_bytes() == 0);
    if !freed {
        tally.fail(format!("{} bytes are retired and never freed", rcu::retired_bytes()));
    }
    if tally.operations() < plan.operations {
        let (done, wanted) = (tally.operations(), plan.operations);
        tally.fail(format!("{done} of {wanted} operations in {} s", elapsed.as_secs()));
    }
    elapsed
}

/// Tells how it goes once a second, and ends it.
fn watch<'s>(
    scope: &'s Scope<'s, '_>,
    plan: &'s Plan,
    tally: &'s Tally,
    began: Instant,
    stop: &'s AtomicBool,
) {
    scope.spawn(move || {
        let mut told = 0;
        loop {
            tally.look_at_retired(CAP_BYTES);
            let seconds = began.elapsed().as_secs();
            let enough = seconds >= plan.seconds && tally.operations() >= plan.operations;
            if enough || seconds >= plan.limit || !tally.failures().is_empty() {
                return stop.store(true, Ordering::Relaxed);
            }
            if seconds > told {
                told = seconds;
                eprintln!("{}", tally.summary(began.elapsed()));
            }
            thread::sleep(Duration::from_millis(1));
        }
    });
}

/// The engine's calls are all gone.
fn nothing_left(name: &str, engine: &RxEngine, tally: &Tally) {
    let rx = engine.rx();
    if !tally::eventually(Duration::from_secs(20), || rx.live_calls() == 0 && rx.unread_bytes() == 0) {
        tally.fail(format!(
            "{name}: {} calls and {} unread bytes are left",
            rx.live_calls(),
            rx.unread_bytes()
        ));
    }
}

/// The time in nanoseconds, as pings carry it. Never 0.
fn now() -> u64 {
    (engine::Clock::now() - engine::Instant::default()).as_nanos() as u64 | 1
}
