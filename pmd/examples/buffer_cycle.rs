//! The buffer cycle on one core: alloc, write 64 bytes, ring, read, free; 32 at a time.
//!
//! `cargo run --release -p pmd --example buffer_cycle [-- --json]`. The median of 9 rounds, in ns a packet.

use std::hint::black_box;
use std::time::Instant;

use pmd::{BURST, Burst, Clock, OpenOptions, PoolConfig};

const BURSTS: usize = 200_000;

fn main() {
    let mut pool = PoolConfig::new("cycle", 4096).build().expect("memory").claim();
    let mut ends: Vec<_> = (0..2)
        .map(|_| {
            pmd::open("memory:cycle", &OpenOptions::default())
                .expect("a free name")
                .open_queues(&[pool.handle()])
                .expect("one queue")
        })
        .collect();
    let (mut rx, mut tx) = (ends.pop().unwrap().pop().unwrap(), ends.pop().unwrap().pop().unwrap());
    let (now, mut sum) = (Clock::now(), 0u64);
    let mut round = || {
        let (mut out, mut burst, start) = (Burst::new(), Burst::new(), Instant::now());
        for i in 0..BURSTS {
            pool.alloc_burst(&mut out, BURST);
            for mbuf in &mut out {
                mbuf.append(64).expect("room").copy_from_slice(&[i as u8; 64]);
            }
            tx.tx_burst(now, &mut out);
            rx.rx_burst(now, &mut pool, &mut burst);
            for mbuf in burst.drain(..) {
                sum += u64::from(black_box(mbuf.data())[63]);
            }
        }
        start.elapsed().as_secs_f64() * 1e9 / (BURSTS * BURST) as f64
    };
    let mut ns: Vec<f64> = (0..9).map(|_| round()).collect();
    ns.sort_by(f64::total_cmp);
    black_box(sum);
    report("buffer_cycle", ns[4], ns[0], ns[8]);
}

fn report(name: &str, median: f64, best: f64, worst: f64) {
    if std::env::args().any(|arg| arg == "--json") {
        println!(
            "{{\"name\":\"{name}\",\"ns_per_packet\":{median:.3},\"best\":{best:.3},\"worst\":{worst:.3}}}"
        );
    } else {
        println!("{name}: {median:.2} ns a packet ({best:.2} to {worst:.2}), {:.1} Mpps", 1e3 / median);
    }
}
