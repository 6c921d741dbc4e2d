//! Threads on CPUs of their own, batches of about 10 ms of CPU time, medians. `bench/arms/measure.h` does the same in C.
//!
//! CPU time and not the clock's, so that a thread that is made to wait does not seem slow.

use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

const BATCHES: usize = 9;
const BATCH: Duration = Duration::from_millis(10);

/// What a run of batches comes to.
#[derive(Serialize)]
pub struct Figure {
    /// ns for each, the mean over the threads of each one's median batch.
    ns: f64,
}

/// Keeps the calling thread on a CPU.
///
/// # Panics
/// If the process may not use it.
pub fn pin_to(cpu: usize) {
    assert!(
        core_affinity::set_for_current(core_affinity::CoreId { id: cpu }),
        "this process may not use CPU {cpu}"
    );
}

/// Runs one thread on each CPU, all at once. `make` is called on each thread with its index; what it returns does `n` of what is
/// measured and returns something that depends on all of it.
pub fn measure<F: FnMut(u64) -> u64>(cpus: &[usize], make: impl Fn(usize) -> F + Sync) -> Figure {
    let (begin, done) = (Barrier::new(cpus.len()), AtomicUsize::new(0));
    let work = |index: usize, cpu: usize| {
        pin_to(cpu);
        let mut run = make(index);
        begin.wait();
        let n = calibrate(&mut run);
        let ns: Vec<f64> = (0..BATCHES).map(|_| time(&mut run, n).as_nanos() as f64 / n as f64).collect();
        // The others are measured against us to their end.
        done.fetch_add(1, Ordering::SeqCst);
        while done.load(Ordering::SeqCst) < cpus.len() {
            std::hint::black_box(run(n / 16 + 1));
        }
        median(ns)
    };
    let medians: Vec<f64> = thread::scope(|scope| {
        let threads: Vec<_> =
            cpus.iter().enumerate().map(|(index, &cpu)| scope.spawn(move || work(index, cpu))).collect();
        threads.into_iter().map(|thread| thread.join().expect("the arm itself panicked")).collect()
    });
    Figure { ns: medians.iter().sum::<f64>() / medians.len() as f64 }
}

/// The middle one.
pub fn median(figures: impl IntoIterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.into_iter().collect();
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// How many fill a batch while the others run too; the warm-up besides.
fn calibrate(run: &mut impl FnMut(u64) -> u64) -> u64 {
    let mut n = 1000;
    loop {
        let took = time(run, n);
        if took >= BATCH {
            return n;
        }
        let factor = BATCH.as_secs_f64() / took.as_secs_f64().max(1e-9);
        n = if factor > 8.0 { n * 4 } else { (n as f64 * factor * 1.1) as u64 + 1 };
    }
}

fn time(run: &mut impl FnMut(u64) -> u64, n: u64) -> Duration {
    let begun = cpu_time(ClockId::ThreadCPUTime);
    std::hint::black_box(run(n));
    cpu_time(ClockId::ThreadCPUTime) - begun
}

/// CPU time that the calling thread, or the process, has had so far.
pub fn cpu_time(of: ClockId) -> Duration {
    let time = clock_gettime(of);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_of_cpu_time_and_every_thread_counts() {
        let cpu = core_affinity::get_core_ids().unwrap()[0].id;
        let threads = AtomicUsize::new(0);
        let figure = measure(&[cpu, cpu], |_| {
            threads.fetch_add(1, Ordering::SeqCst);
            |n| {
                let begun = cpu_time(ClockId::ThreadCPUTime);
                while cpu_time(ClockId::ThreadCPUTime) - begun < Duration::from_micros(n) {}
                n
            }
        });
        // Two threads on one CPU: by the clock, each would seem to take twice as long.
        assert!((999.0..1500.0).contains(&figure.ns), "{} ns for a microsecond", figure.ns);
        assert_eq!(threads.into_inner(), 2);
    }
}
