//! Figures that one thread writes and any thread reads.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A number with one writer. Not a read-modify-write: no locked instruction on the data path.
///
/// Relaxed throughout: readers want figures, and order nothing by them.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// The writer's: counts `n` more.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// The writer's: counts one less.
    pub fn decrement(&self) {
        debug_assert!(self.get() > 0, "a gauge below zero");
        self.0.store(self.0.load(Relaxed).wrapping_sub(1), Relaxed);
    }

    /// The writer's: replaces the value.
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// Anyone's.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}
