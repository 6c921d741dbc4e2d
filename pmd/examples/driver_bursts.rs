//! Bursts of 32 frames from one port to another, for whoever counts the instructions of `tx_burst` and `rx_burst`.
//!
//! `cargo run --release -p pmd --example driver_bursts -- URL URL FRAMES`: sends on the first, receives on the second. Prints
//! `sent=N received=N` of what it did after `steady_from_here`.

use std::time::{Duration, Instant as Wall};

use pmd::{BURST, Burst, Clock, LinkState, OpenOptions, Pool, PoolConfig, Queue};

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [from, to, frames] = words.as_slice() else { panic!("usage: driver_bursts URL URL FRAMES") };
    let frames: usize = frames.parse().expect("FRAMES is a number");
    let mut pool = PoolConfig::new("bursts", 4096).build().expect("memory").claim();
    let mut ports = [from, to]
        .map(|url| pmd::open(url, &OpenOptions::default()).unwrap_or_else(|error| panic!("{error}")));
    let mut queues = ports
        .each_mut()
        .map(|port| port.open_queues(&[pool.handle()]).unwrap_or_else(|error| panic!("{error}")).remove(0));
    let begun = Wall::now();
    while ports.iter().any(|port| port.link() == LinkState::Down) {
        assert!(begun.elapsed() < Duration::from_secs(20), "the link is down");
        std::thread::sleep(Duration::from_millis(1));
    }
    pass(&mut queues, &mut pool, 64 * BURST);
    steady_from_here();
    let (sent, received) = pass(&mut queues, &mut pool, frames);
    println!("sent={sent} received={received}");
}

/// Counting begins here.
#[inline(never)]
fn steady_from_here() {
    std::hint::black_box(());
}

fn pass(queues: &mut [Box<dyn Queue>; 2], pool: &mut Pool, frames: usize) -> (usize, usize) {
    let (mut sent, mut received) = (0, 0);
    let [from, to] = queues;
    let (mut out, mut burst) = (Burst::new(), Burst::new());
    let begun = Wall::now();
    while sent < frames || received < sent {
        if sent < frames && out.is_empty() {
            pool.alloc_burst(&mut out, BURST);
            for mbuf in &mut out {
                mbuf.append(64).expect("room").fill(2);
            }
        }
        if !out.is_empty() {
            sent += from.tx_burst(Clock::now(), &mut out);
        }
        let came = to.rx_burst(Clock::now(), pool, &mut burst);
        received += came;
        burst.clear();
        if came == 0 {
            // Between here and there is a kernel that needs a moment. Not too many looks at nothing: they would count.
            std::thread::sleep(Duration::from_millis(1));
        }
        // What a kernel in between dropped does not come; and a port that only swallows is its own other end.
        if begun.elapsed() > Duration::from_secs(30) {
            break;
        }
    }
    (sent, received)
}
