//! A counting allocator proves it: calls begin and end without allocating or freeing anything, on the cores and on the
//! threads that make and answer them.
//!
//! `STEADY_SECONDS=10 cargo test -p rxrpc --test no_allocation` makes calls for so long; it is one second otherwise.

#[path = "../../engine/tests/counting/mod.rs"]
mod counting;
mod support;

use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use counting::{counts, operations};
use rxrpc::socket::ServedCall;
use rxrpc::{Call, Client, RxControl, RxEngine, Service};

use support::{LONG, Pair, SERVICE, server};

/// Calls before it counts: everything has grown to its size by then.
const WARM_UP: usize = 2_000;

/// The counter is the process's: one test at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn steady() -> Duration {
    let seconds = std::env::var("STEADY_SECONDS").ok().map(|text| text.parse().expect("seconds"));
    Duration::from_secs(seconds.unwrap_or(1))
}

/// The polling threads of an engine count from here on.
fn count_on_cores(engine: &RxEngine) {
    for core in 0..engine.cores() {
        engine.inspect(core, |_| counts(true)).expect("the core runs");
    }
}

/// A call whose request and reply are `len` bytes, without a buffer of its own.
fn call(client: &Client, buffer: &mut [u8], len: usize) {
    let mut call = client.call(server(), SERVICE).unwrap();
    call.set_timeout(Some(LONG));
    call.send(&buffer[..len]).unwrap();
    call.finish().unwrap();
    assert_eq!(read(&mut call, buffer), len);
}

/// All of the other side's data; returns its length.
fn read(call: &mut Call, buffer: &mut [u8]) -> usize {
    let mut read = 0;
    loop {
        match call.recv(&mut buffer[read..]).unwrap() {
            0 => return read,
            n => read += n,
        }
    }
}

/// Calls from this thread, small ones and some of several packets: first to warm up, then counted. Yields how many were
/// counted, and what was allocated and freed meanwhile.
fn calls(pair: &Pair, client: &Client) -> (u64, u64) {
    let mut buffer = vec![7; 8 << 10];
    let steady = steady();
    let len = |n: u64| if n.is_multiple_of(10) { 4_000 } else { 64 };
    (0..WARM_UP as u64).for_each(|n| call(client, &mut buffer, len(n)));
    count_on_cores(&pair.server);
    count_on_cores(&pair.client);
    let seen = operations();
    pair.client.inspect(0, |_| drop(std::hint::black_box(Box::new(1)))).expect("the core runs");
    assert!(operations() > seen, "the counter must see what a core allocates");
    counts(true);
    (0..WARM_UP as u64).for_each(|n| call(client, &mut buffer, len(n)));
    let end = Instant::now() + steady;
    let before = operations();
    let mut made = 0;
    while Instant::now() < end {
        call(client, &mut buffer, len(made));
        made += 1;
    }
    let allocated = operations() - before;
    counts(false);
    (made, allocated)
}

#[test]
fn calls_answered_on_the_core_allocate_nothing() {
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let pair = Pair::new("no-allocation-inline");
    let answer = |call: &mut ServedCall<'_, '_>| {
        let mut reply = [0; 8 << 10];
        let len = call.request().len();
        reply[..len].copy_from_slice(call.request());
        call.reply(&reply[..len]);
    };
    let serving = pair.service().serve(answer).unwrap();
    let client = pair.client();
    let (made, allocated) = calls(&pair, &client);
    println!("{made} calls");
    assert!(made > 100, "{made} calls");
    assert_eq!(allocated, 0, "allocations and frees in {made} calls");
    drop((serving, client));
    pair.end();
}

fn answer_counted(service: &Service) {
    counts(true);
    let mut buffer = [0; 8 << 10];
    while let Ok(mut call) = service.accept() {
        let len = read(&mut call, &mut buffer);
        call.reply(&buffer[..len]).unwrap();
    }
    counts(false);
}

#[test]
fn calls_answered_by_threads_allocate_nothing() {
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let pair = Pair::new("no-allocation-threads");
    let (service, client) = (pair.service(), pair.client());
    let (made, allocated) = thread::scope(|scope| {
        scope.spawn(|| answer_counted(&service));
        let result = calls(&pair, &client);
        service.close();
        result
    });
    println!("{made} calls");
    assert!(made > 100, "{made} calls");
    assert_eq!(allocated, 0, "allocations and frees in {made} calls");
    drop((service, client));
    pair.end();
}
