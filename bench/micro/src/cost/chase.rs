//! What a load costs that waits for the one before it, anywhere in so much memory: what a look-up in tables of that size pays each time it
//! follows a pointer. On pages as the tables have them.

use std::hint::black_box;

use rustix::time::ClockId;
use serde::Serialize;

use crate::measure::{cpu_time, median, pin_to};

/// One place in a cache line.
const STRIDE: usize = 64 / size_of::<u32>();
const LOADS: usize = 1 << 18;
const ROUNDS: usize = 5;

/// What a run comes to.
#[derive(Serialize)]
pub struct Chased {
    /// CPU time of a load.
    ns: f64,
}

/// Follows pointers through so many bytes.
pub fn chase(bytes: usize, cpu: usize) -> Chased {
    pin_to(cpu);
    let lines = (bytes / 64).max(2);
    let next = circle(lines);
    let mut at = 0;
    let mut round = || {
        let begun = cpu_time(ClockId::ThreadCPUTime);
        for _ in 0..LOADS {
            at = next[at as usize * STRIDE];
        }
        black_box(at);
        (cpu_time(ClockId::ThreadCPUTime) - begun).as_nanos() as f64 / LOADS as f64
    };
    round();
    Chased { ns: median((0..ROUNDS).map(|_| round())) }
}

/// One circle through all lines in random order (Sattolo's algorithm): every line names the next.
fn circle(lines: usize) -> Vec<u32> {
    let mut order: Vec<u32> = (0..lines as u32).collect();
    let mut random = fastrand::Rng::with_seed(7);
    for last in (1..lines).rev() {
        order.swap(last, random.usize(..last));
    }
    let mut next = vec![0; lines * STRIDE];
    for (line, to) in order.into_iter().enumerate() {
        next[line * STRIDE] = to;
    }
    next
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_circle_goes_through_every_line() {
        let next = circle(1000);
        let (mut at, mut steps) = (0, 0);
        loop {
            at = next[at as usize * STRIDE];
            steps += 1;
            if at == 0 {
                break;
            }
        }
        assert_eq!(steps, 1000);
    }

    #[test]
    fn memory_is_slower_than_a_cache() {
        let cpu = core_affinity::get_core_ids().unwrap()[0].id;
        let (near, far) = (chase(16 << 10, cpu).ns, chase(256 << 20, cpu).ns);
        assert!(near > 0.0 && far > near, "{near} ns near, {far} ns far");
    }
}
