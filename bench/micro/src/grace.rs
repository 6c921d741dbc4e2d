//! Grace periods as a writer sees them, while one reader is busy on a CPU of its own. `bench/arms/grace.h` does the same in C.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use crossbeam_epoch::{Atomic, Collector};
use engine::rcu::{self, RcuCell, Reader};
use serde::Serialize;

use crate::measure::pin_to;

const GRACES_MAX: usize = 20_000;
const GRACES_WARM_UP: usize = 500;
const FOR: Duration = Duration::from_millis(500);

/// Whose grace period.
#[derive(Clone, Copy, ValueEnum)]
pub enum Arm {
    /// `rcu::synchronize`
    Ours,
    /// crossbeam-epoch: defer a signal, then pin and flush until it has come
    CrossbeamFlush,
}

/// How long they took.
#[derive(Serialize)]
pub struct Graces {
    p50_ns: f64,
    p99_ns: f64,
    worst_ns: f64,
    count: usize,
}

/// ns from the call to the end of the grace period.
pub fn grace(arm: Arm, writer: usize, reader: usize) -> Graces {
    match arm {
        Arm::Ours => ours(writer, reader),
        Arm::CrossbeamFlush => crossbeam_flush(writer, reader),
    }
}

fn ours(writer: usize, cpu: usize) -> Graces {
    let cell = RcuCell::new(Arc::new(7u64));
    let be_busy = |stop: &AtomicBool, ready: &Barrier| {
        let mut reader = Reader::register("bench");
        ready.wait();
        while !stop.load(Ordering::Relaxed) {
            std::hint::black_box(cell.load(reader.guard()));
            reader.quiescent();
        }
    };
    beside(writer, cpu, be_busy, rcu::synchronize)
}

fn crossbeam_flush(writer: usize, cpu: usize) -> Graces {
    let (collector, cell) = (Collector::new(), Atomic::new(7u64));
    let be_busy = |stop: &AtomicBool, ready: &Barrier| {
        let mut guard = collector.register().pin();
        ready.wait();
        while !stop.load(Ordering::Relaxed) {
            std::hint::black_box(cell.load(Ordering::Acquire, &guard));
            guard.repin();
        }
    };
    let handle = collector.register();
    beside(writer, cpu, be_busy, || {
        let passed = Arc::new(AtomicBool::new(false));
        let signal = passed.clone();
        handle.pin().defer(move || signal.store(true, Ordering::Release));
        while !passed.load(Ordering::Acquire) {
            handle.pin().flush();
        }
    })
}

/// Times `synchronize` on one CPU while `be_busy` runs on the other.
fn beside(
    writer: usize,
    reader: usize,
    be_busy: impl Fn(&AtomicBool, &Barrier) + Send + Sync,
    synchronize: impl Fn(),
) -> Graces {
    let (stop, ready) = (AtomicBool::new(false), Barrier::new(2));
    thread::scope(|scope| {
        scope.spawn(|| {
            pin_to(reader);
            be_busy(&stop, &ready);
        });
        pin_to(writer);
        ready.wait();
        (0..GRACES_WARM_UP).for_each(|_| synchronize());
        let (begun, mut ns) = (Instant::now(), Vec::with_capacity(GRACES_MAX));
        while ns.len() < GRACES_MAX && begun.elapsed() < FOR {
            let before = Instant::now();
            synchronize();
            ns.push(before.elapsed().as_nanos() as f64);
        }
        stop.store(true, Ordering::Relaxed);
        summary(ns)
    })
}

fn summary(mut ns: Vec<f64>) -> Graces {
    ns.sort_by(f64::total_cmp);
    let at = |percent: usize| ns[ns.len() * percent / 100];
    Graces { p50_ns: at(50), p99_ns: at(99), worst_ns: ns[ns.len() - 1], count: ns.len() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_what_was_measured() {
        let graces = summary((0..1000).rev().map(f64::from).collect());
        assert_eq!(
            (graces.p50_ns, graces.p99_ns, graces.worst_ns, graces.count),
            (500.0, 990.0, 999.0, 1000)
        );
    }
}
