//! The round trip of one frame over a port, spinning: sends one, polls until the far end (pmd's example `forward`, or anything that
//! swaps addresses) sent it back, and tells the median.
//!
//! ```text
//! cargo run --release -p pmd --example round_trip -- af_xdp:eth0 --rounds 100000
//! ```

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use pmd::{Burst, Clock, OpenOptions, PoolConfig};
use serde_json::json;

/// Measure round trips of single frames.
#[derive(Parser)]
struct Args {
    /// A port, by URL
    port: String,
    /// Round trips that count; a tenth of them goes before
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    rounds: u32,
    /// Bytes of a frame
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u16).range(18..=1514))]
    len: u16,
}

/// What came not back within so long is lost.
const PATIENCE: Duration = Duration::from_millis(100);
/// So many lost: nobody answers.
const LOST_MAX: u32 = 100;

fn main() -> ExitCode {
    match measure(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("round_trip: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(args: &Args) -> Result<(), Box<dyn std::error::Error>> {
    let mut pool = PoolConfig::new("round_trip", 8192).build()?.claim();
    let mut port = pmd::open(&args.port, &OpenOptions::default())?;
    let mut queue = port.open_queues(&[pool.handle()])?.remove(0);
    let (mut took, mut lost) = (Vec::with_capacity(args.rounds as usize), 0);
    let mut frame = vec![0x02; usize::from(args.len)];
    let warm_up = args.rounds / 10;
    for round in 0..args.rounds + warm_up {
        frame[14..18].copy_from_slice(&round.to_be_bytes());
        let mut burst: Burst = pool.copy_from(&frame).into_iter().collect();
        let begun = Instant::now();
        queue.tx_burst(Clock::now(), &mut burst);
        let mut came = None;
        while came.is_none() && begun.elapsed() < PATIENCE {
            burst.clear();
            queue.rx_burst(Clock::now(), &mut pool, &mut burst);
            if burst.iter().any(|mbuf| mbuf.data().get(14..18) == Some(&round.to_be_bytes())) {
                came = Some(begun.elapsed());
            }
        }
        match came {
            Some(time) if round >= warm_up => took.push(time),
            Some(_) => {}
            None => lost += 1,
        }
        if lost == LOST_MAX {
            return Err("nobody answers: run `forward` at the far end".into());
        }
    }
    took.sort_unstable();
    let us = |share: usize| took[(took.len() * share / 100).min(took.len() - 1)].as_secs_f64() * 1e6;
    println!("{}", json!({"us": us(50), "p99_us": us(99), "lost": lost}));
    Ok(())
}
