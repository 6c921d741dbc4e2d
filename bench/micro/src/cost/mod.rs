//! The programs of `cargo lab bench cost-curve`: what calls and echoes over `memory:` cost with much or little of one thing, and what a
//! load from memory costs here. Each prints its rate and the process's memory.
//!
//! On stderr they say `steady` once all connections and sockets are there, and go on for so many seconds: long enough to be looked at with
//! a profiler, where that is asked for.

pub mod calls;
pub mod chase;
pub mod sockets;

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::measure::median;

const WARM_UP: Duration = Duration::from_millis(200);
const BATCH: Duration = Duration::from_millis(100);

/// What a run comes to.
#[derive(Serialize)]
pub struct Cost {
    /// Calls or echoes that ended well, each with the right bytes, a second: the median batch.
    per_second: f64,
    /// Resident memory of the process, both ends, while it worked.
    resident_bytes: usize,
    /// Thereof before there were any sockets or connections.
    before_bytes: usize,
}

/// Resident memory of this process in bytes.
pub fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux has it");
    let pages = statm.split(' ').nth(1).and_then(|word| word.parse::<usize>().ok());
    pages.expect("its second word is a number") * rustix::param::page_size()
}

/// Watches a counter that cores of this process add to.
fn watch(done: impl Fn() -> u64, seconds: f64, before_bytes: usize) -> Cost {
    thread::sleep(WARM_UP);
    eprintln!("steady");
    let batches = (seconds / BATCH.as_secs_f64()).ceil().max(1.0) as usize;
    let batch = |_| {
        let (before, begun) = (done(), Instant::now());
        thread::sleep(BATCH);
        let (after, took) = (done(), begun.elapsed());
        assert!(after > before, "nothing came back in {took:?}");
        (after - before) as f64 / took.as_secs_f64()
    };
    let per_second = median((0..batches).map(batch));
    Cost { per_second, resident_bytes: resident(), before_bytes }
}

/// Waits until a counter has come so far.
///
/// # Panics
/// If it stands still.
fn wait_until(done: impl Fn() -> u64, wanted: u64) {
    let (mut seen, mut moved) = (0, Instant::now());
    while done() < wanted {
        let now = done();
        if now > seen {
            (seen, moved) = (now, Instant::now());
        }
        assert!(moved.elapsed() < Duration::from_secs(10), "{seen} of {wanted}, and no more come");
        thread::sleep(Duration::from_millis(1));
    }
}

/// A core's counter, which nobody else writes.
fn count_one(counter: &AtomicU64) {
    counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}
