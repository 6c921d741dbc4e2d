//! Counters of a queue: written by the core that owns it with plain stores, read by anyone.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrayvec::ArrayVec;

/// Drops that a driver can name.
pub const DROP_NAMES_MAX: usize = 12;

/// What was dropped, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Drops(ArrayVec<(&'static str, u64), DROP_NAMES_MAX>);

impl Drops {
    /// Adds `count` under `name`. Names beyond the first [`DROP_NAMES_MAX`] are counted under the last.
    pub fn add(&mut self, name: &'static str, count: u64) {
        if let Some(entry) = self.0.iter_mut().find(|entry| entry.0 == name) {
            entry.1 += count;
        } else if let Err(full) = self.0.try_push((name, count)) {
            self.0[DROP_NAMES_MAX - 1].1 += full.element().1;
        }
    }

    /// Adds all of `other`.
    pub fn merge(&mut self, other: &Drops) {
        for (name, count) in other.iter() {
            self.add(name, count);
        }
    }

    /// Name and count of each.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.0.iter().copied()
    }

    /// The count under `name`.
    pub fn get(&self, name: &str) -> u64 {
        self.iter().find(|entry| entry.0 == name).map_or(0, |entry| entry.1)
    }

    /// All of them together.
    pub fn total(&self) -> u64 {
        self.iter().map(|entry| entry.1).sum()
    }
}

/// What a queue did since it was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueueStats {
    /// Frames given to the core.
    pub rx_frames: u64,
    /// Their bytes.
    pub rx_bytes: u64,
    /// Frames that the device took.
    pub tx_frames: u64,
    /// Their bytes.
    pub tx_bytes: u64,
    /// Received frames lost because the pool was empty.
    pub rx_no_buffer: u64,
    /// Times that `tx_burst` left frames with the caller because the ring was full.
    pub tx_full: u64,
    /// Frames sent that had to be copied, because the device does not know the memory that they lay in.
    pub tx_copied: u64,
    /// Frames that the driver or the device dropped, by name.
    pub drops: Drops,
}

impl QueueStats {
    /// Adds all of `other`.
    pub fn merge(&mut self, other: &QueueStats) {
        self.rx_frames += other.rx_frames;
        self.rx_bytes += other.rx_bytes;
        self.tx_frames += other.tx_frames;
        self.tx_bytes += other.tx_bytes;
        self.rx_no_buffer += other.rx_no_buffer;
        self.tx_full += other.tx_full;
        self.tx_copied += other.tx_copied;
        self.drops.merge(&other.drops);
    }
}

/// A number with one writer.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    #[inline]
    pub(crate) fn add(&self, n: u64) {
        // One writer, so that a plain load and store do; Relaxed, for nothing else depends on it.
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The counters of one queue, shared by the queue (which writes) and its port (which reads).
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub rx_frames: Counter,
    pub rx_bytes: Counter,
    pub tx_frames: Counter,
    pub tx_bytes: Counter,
    pub rx_no_buffer: Counter,
    pub tx_full: Counter,
    pub tx_copied: Counter,
    drops: Box<[(&'static str, Counter)]>,
}

impl Counters {
    /// Counters with the drops that this driver can name; `dropped(i, n)` counts under `names[i]`.
    pub(crate) fn new(names: &[&'static str]) -> Arc<Counters> {
        assert!(names.len() <= DROP_NAMES_MAX);
        let drops = names.iter().map(|&name| (name, Counter::default())).collect();
        Arc::new(Counters { drops, ..Counters::default() })
    }

    #[inline]
    pub(crate) fn rx(&self, frames: usize, bytes: usize) {
        self.rx_frames.add(frames as u64);
        self.rx_bytes.add(bytes as u64);
    }

    #[inline]
    pub(crate) fn tx(&self, frames: usize, bytes: usize) {
        self.tx_frames.add(frames as u64);
        self.tx_bytes.add(bytes as u64);
    }

    #[inline]
    pub(crate) fn dropped(&self, which: usize, n: u64) {
        self.drops[which].1.add(n);
    }

    pub(crate) fn snapshot(&self) -> QueueStats {
        let mut drops = Drops::default();
        for (name, count) in &self.drops {
            drops.add(name, count.get());
        }
        QueueStats {
            rx_frames: self.rx_frames.get(),
            rx_bytes: self.rx_bytes.get(),
            tx_frames: self.tx_frames.get(),
            tx_bytes: self.tx_bytes.get(),
            rx_no_buffer: self.rx_no_buffer.get(),
            tx_full: self.tx_full.get(),
            tx_copied: self.tx_copied.get(),
            drops,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_keep_their_names_and_their_sum() {
        let names: Vec<&'static str> =
            (0..20).map(|i| &*Box::leak(format!("n{i}").into_boxed_str())).collect();
        let mut drops = Drops::default();
        for name in &names {
            drops.add(name, 1);
        }
        drops.add("n0", 4);
        assert_eq!((drops.get("n0"), drops.get("n19"), drops.total()), (5, 0, 24));
    }

    #[test]
    fn a_snapshot_has_what_was_counted() {
        let counters = Counters::new(&["a", "b"]);
        counters.rx(2, 120);
        counters.dropped(1, 3);
        let stats = counters.snapshot();
        assert_eq!((stats.rx_frames, stats.rx_bytes, stats.drops.get("b")), (2, 120, 3));
    }
}
