//! The read side: a shared pointer is followed and a word behind it is read, each time anew.
//!
//! Every arm does the same load through the same kind of pointer; they differ in what they do around it. Those with quiescent states
//! have one every [`LOADS`] reads, or every [`BURST`] where it is part of what is compared.

use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Arc, RwLock};

use arc_swap::ArcSwap;
use clap::ValueEnum;
use crossbeam_epoch::{Atomic, Collector};
use engine::rcu::{RcuCell, Reader};

use crate::measure::{Figure, measure};

/// Reads between two quiescent states where these are not what is measured.
const LOADS: u64 = 1024;
/// Reads under one guard where the guard is renewed by the burst.
const BURST: u64 = 32;

/// Who protects what is read.
#[derive(Clone, Copy, ValueEnum)]
pub enum Arm {
    /// Nobody: an acquire load of the pointer and a load through it
    Plain,
    /// `engine::rcu`: `RcuCell::load` under a reader's guard
    Ours,
    /// crossbeam-epoch, pinned for each read
    CrossbeamPin,
    /// crossbeam-epoch, one guard, repinned every 32 reads
    CrossbeamRepin,
    /// seize, entered for each read
    Seize,
    /// arc-swap: `load` and drop of its guard for each read
    ArcSwap,
    /// `std::sync::RwLock`, read-locked for each read
    StdRwlock,
    /// parking_lot's RwLock, read-locked for each read
    ParkingLotRwlock,
    /// `Arc`, cloned and dropped for each read
    ArcClone,
}

/// Whose quiescent state.
#[derive(Clone, Copy, ValueEnum)]
pub enum Quiescent {
    /// `Reader::quiescent`
    Ours,
    /// crossbeam-epoch's `Guard::repin`
    CrossbeamRepin,
}

/// ns per read.
pub fn read(arm: Arm, cpus: &[usize]) -> Figure {
    match arm {
        Arm::Plain => plain(cpus),
        Arm::Ours => ours(cpus),
        Arm::CrossbeamPin => crossbeam_pin(cpus),
        Arm::CrossbeamRepin => crossbeam_repin(cpus),
        Arm::Seize => seize(cpus),
        Arm::ArcSwap => arc_swap(cpus),
        Arm::StdRwlock => std_rwlock(cpus),
        Arm::ParkingLotRwlock => parking_lot_rwlock(cpus),
        Arm::ArcClone => arc_clone(cpus),
    }
}

/// ns per quiescent state.
pub fn quiescent(arm: Quiescent, cpus: &[usize]) -> Figure {
    match arm {
        Quiescent::Ours => measure(cpus, |_| {
            let mut reader = Reader::register("bench");
            move |n| {
                (0..n).for_each(|_| reader.quiescent());
                n
            }
        }),
        Quiescent::CrossbeamRepin => {
            let collector = Collector::new();
            measure(cpus, |_| {
                let mut guard = collector.register().pin();
                move |n| {
                    (0..n).for_each(|_| guard.repin());
                    n
                }
            })
        }
    }
}

fn plain(cpus: &[usize]) -> Figure {
    static SEVEN: u64 = 7;
    let shared = AtomicPtr::new((&raw const SEVEN).cast_mut());
    measure(cpus, |_| {
        |n| {
            let mut sum = 0;
            for _ in 0..n {
                // SAFETY: the pointer is to a static that nobody writes.
                sum += unsafe { *shared.load(Ordering::Acquire) };
            }
            sum
        }
    })
}

fn ours(cpus: &[usize]) -> Figure {
    let cell = RcuCell::new(Arc::new(7));
    measure(cpus, |_| {
        let (cell, mut reader) = (&cell, Reader::register("bench"));
        move |n| {
            let mut sum = 0;
            for done in (0..n).step_by(LOADS as usize) {
                let guard = reader.guard();
                for _ in 0..LOADS.min(n - done) {
                    sum += cell.load(guard).copied().unwrap_or(0);
                }
                reader.quiescent();
            }
            sum
        }
    })
}

fn crossbeam_pin(cpus: &[usize]) -> Figure {
    let (collector, cell) = (Collector::new(), Atomic::new(7u64));
    measure(cpus, |_| {
        let (cell, handle) = (&cell, collector.register());
        move |n| {
            let mut sum = 0;
            for _ in 0..n {
                let guard = handle.pin();
                // SAFETY: the cell was filled when it was made and nobody writes it.
                sum += unsafe { *cell.load(Ordering::Acquire, &guard).deref() };
            }
            sum
        }
    })
}

fn crossbeam_repin(cpus: &[usize]) -> Figure {
    let (collector, cell) = (Collector::new(), Atomic::new(7u64));
    measure(cpus, |_| {
        let (cell, mut guard) = (&cell, collector.register().pin());
        move |n| {
            let mut sum = 0;
            for done in (0..n).step_by(BURST as usize) {
                for _ in 0..BURST.min(n - done) {
                    // SAFETY: the cell was filled when it was made and nobody writes it.
                    sum += unsafe { *cell.load(Ordering::Acquire, &guard).deref() };
                }
                guard.repin();
            }
            sum
        }
    })
}

fn seize(cpus: &[usize]) -> Figure {
    use seize::Guard;
    let collector = seize::Collector::new();
    let seven = 7u64;
    let shared = AtomicPtr::new((&raw const seven).cast_mut());
    measure(cpus, |_| {
        |n| {
            let mut sum = 0;
            for _ in 0..n {
                let guard = collector.enter();
                // SAFETY: the pointer is to a local of the caller, which outlives the threads and which nobody writes.
                sum += unsafe { *guard.protect(&shared, Ordering::Acquire) };
            }
            sum
        }
    })
}

fn arc_swap(cpus: &[usize]) -> Figure {
    let shared = ArcSwap::new(Arc::new(7u64));
    measure(cpus, |_| |n| (0..n).map(|_| **shared.load()).sum())
}

fn std_rwlock(cpus: &[usize]) -> Figure {
    let shared = RwLock::new(Box::new(7u64));
    measure(cpus, |_| |n| (0..n).map(|_| **shared.read().expect("nobody panics")).sum())
}

fn parking_lot_rwlock(cpus: &[usize]) -> Figure {
    let shared = parking_lot::RwLock::new(Box::new(7u64));
    measure(cpus, |_| |n| (0..n).map(|_| **shared.read()).sum())
}

fn arc_clone(cpus: &[usize]) -> Figure {
    let shared = Arc::new(7u64);
    measure(cpus, |_| |n| (0..n).map(|_| *std::hint::black_box(shared.clone())).sum())
}
