//! Forwarding over `memory:` with the MAC addresses swapped, as testpmd's macswap does; 64-byte frames, bursts of 32, one
//! core. A fixed set of frames goes round: end A sends, the far side swaps and sends back, A takes them again.
//!
//! `cargo run --release -p pmd --example forward_memory [-- --json]`. One forwarded packet is one rx, one swap, one tx;
//! both sides forward, and both are counted. The median of 9 rounds.

use std::time::Instant;

use pmd::{Burst, Clock, OpenOptions, PoolConfig};

const TURNS: usize = 100_000;

fn main() {
    let mut pool = PoolConfig::new("forward", 1024).build().expect("memory").claim();
    let mut queues: Vec<_> = (0..2)
        .flat_map(|_| {
            pmd::open("memory:forward", &OpenOptions::default())
                .expect("a free name")
                .open_queues(&[pool.handle()])
                .expect("one")
        })
        .collect();
    let now = Clock::now();
    for _ in 0..4 {
        let mut burst = Burst::new();
        pool.alloc_burst(&mut burst, 32);
        burst.iter_mut().for_each(|mbuf| mbuf.append(64).expect("room").fill(2));
        queues[0].tx_burst(now, &mut burst);
    }
    let mut round = || {
        let (mut forwarded, start) = (0, Instant::now());
        let mut burst = Burst::new();
        for _ in 0..TURNS {
            for queue in &mut queues {
                forwarded += queue.rx_burst(now, &mut pool, &mut burst);
                for mbuf in &mut burst {
                    swap_addresses(mbuf.data_mut());
                }
                queue.tx_burst(now, &mut burst);
            }
        }
        start.elapsed().as_secs_f64() * 1e9 / forwarded as f64
    };
    let mut ns: Vec<f64> = (0..9).map(|_| round()).collect();
    ns.sort_by(f64::total_cmp);
    let (median, best, worst) = (ns[4], ns[0], ns[8]);
    if std::env::args().any(|arg| arg == "--json") {
        println!(
            "{{\"name\":\"forward_memory\",\"ns_per_packet\":{median:.3},\"best\":{best:.3},\"worst\":{worst:.3},\"mpps\":{:.2}}}",
            1e3 / median
        );
    } else {
        println!(
            "forward_memory: {median:.2} ns a packet ({best:.2} to {worst:.2}), {:.1} Mpps",
            1e3 / median
        );
    }
}

fn swap_addresses(frame: &mut [u8]) {
    if let Some((to, rest)) = frame.split_first_chunk_mut::<6>()
        && let Some(from) = rest.first_chunk_mut::<6>()
    {
        std::mem::swap(to, from);
    }
}
