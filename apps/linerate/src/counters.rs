//! What cores count and other threads look at: numbers with one writer, without a lock or a locked instruction.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use hdrhistogram::Histogram;
use pmd::BURST;

use crate::figures::{MarkedFigures, QueueFigures};

/// A number with one writer.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds; only its owner does.
    #[inline]
    pub fn add(&self, n: u64) {
        // A load and a store, which is enough for one writer; Relaxed, for nothing else depends on it.
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// As counted so far.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// How many bursts there were of each size.
#[derive(Debug)]
struct Bursts([Counter; BURST + 1]);

impl Default for Bursts {
    fn default() -> Self {
        Bursts(std::array::from_fn(|_| Counter::default()))
    }
}

impl Bursts {
    #[inline]
    fn note(&self, frames: usize) {
        self.0[frames].add(1);
    }

    fn get(&self) -> [u64; BURST + 1] {
        std::array::from_fn(|frames| self.0[frames].get())
    }
}

/// What one core counts of one port.
#[derive(Debug, Default)]
pub struct QueueCounters {
    rx_frames: Counter,
    rx_bytes: Counter,
    tx_frames: Counter,
    tx_bytes: Counter,
    unsent: Counter,
    behind: Counter,
    rx_bursts: Bursts,
    tx_bursts: Bursts,
    pub(crate) busy_cycles: Counter,
    /// Inputs that were set.
    pub(crate) inputs: Counter,
    /// Sources of frames that have come to their end.
    pub(crate) ended: Counter,
}

impl QueueCounters {
    /// A poll found `frames`, of `bytes` together.
    #[inline]
    pub fn received(&self, frames: usize, bytes: usize) {
        self.rx_bursts.note(frames);
        self.rx_frames.add(frames as u64);
        self.rx_bytes.add(bytes as u64);
    }

    /// A poll found nothing.
    #[inline]
    pub fn received_nothing(&self) {
        self.rx_bursts.note(0);
    }

    /// The device was offered a burst and took `frames` of it, of `bytes` together.
    #[inline]
    pub fn sent(&self, frames: usize, bytes: usize) {
        self.tx_bursts.note(frames);
        self.tx_frames.add(frames as u64);
        self.tx_bytes.add(bytes as u64);
    }

    /// Frames were due and are no longer: because the device had refused some, or because nobody came in time.
    pub(crate) fn forfeited(&self, frames: u64, refused: bool) {
        let why = if refused { &self.unsent } else { &self.behind };
        why.add(frames);
    }

    /// Frames that were due and are not sent.
    pub(crate) fn not_sent(&self, frames: usize) {
        self.unsent.add(frames as u64);
    }

    /// Frames sent so far.
    pub fn sent_frames(&self) -> u64 {
        self.tx_frames.get()
    }

    /// Frames received and sent so far.
    pub fn frames(&self) -> u64 {
        self.rx_frames.get() + self.tx_frames.get()
    }

    /// All of it, now.
    pub fn read(&self, cpu: usize) -> QueueFigures {
        QueueFigures {
            cpu,
            rx_frames: self.rx_frames.get(),
            rx_bytes: self.rx_bytes.get(),
            tx_frames: self.tx_frames.get(),
            tx_bytes: self.tx_bytes.get(),
            unsent: self.unsent.get(),
            behind: self.behind.get(),
            rx_bursts: self.rx_bursts.get(),
            tx_bursts: self.tx_bursts.get(),
            busy_cycles: self.busy_cycles.get(),
        }
    }
}

/// What one core counts of the marked frames that it receives.
#[derive(Debug, Default)]
pub struct MarkCounters {
    pub(crate) received: Counter,
    pub(crate) duplicates: Counter,
    pub(crate) reordered: Counter,
    pub(crate) late: Counter,
    pub(crate) corrupted: Counter,
    pub(crate) foreign: Counter,
    pub(crate) latency: Latencies,
}

impl MarkCounters {
    /// Adds all of it to `marked`, except `sent` and `missing`, which a receiver does not know; and the latencies to `histogram`.
    pub fn read(&self, marked: &mut MarkedFigures, histogram: &mut Histogram<u64>) {
        marked.received += self.received.get();
        marked.duplicates += self.duplicates.get();
        marked.reordered += self.reordered.get();
        marked.late += self.late.get();
        marked.corrupted += self.corrupted.get();
        marked.foreign += self.foreign.get();
        self.latency.read(histogram);
    }
}

/// Steps in each power of two: what is read back is within 0.4 % of what was noted.
const STEPS: u64 = 128;
const STEP_BITS: u32 = STEPS.trailing_zeros();
/// Up to 2^40 ns, the longest age that a mark can tell.
const BUCKETS: usize = (40 - STEP_BITS as usize + 1) * STEPS as usize;

/// A histogram of durations that one core writes and others read: logarithmic, of fixed size.
#[derive(Debug)]
pub struct Latencies(Box<[Counter]>);

impl Default for Latencies {
    fn default() -> Self {
        Latencies((0..BUCKETS).map(|_| Counter::default()).collect())
    }
}

impl Latencies {
    /// Notes one.
    #[inline]
    pub fn note(&self, latency: Duration) {
        self.0[Self::bucket(latency.as_nanos() as u64).min(BUCKETS - 1)].add(1);
    }

    #[inline]
    fn bucket(nanos: u64) -> usize {
        // Below STEPS each number has a bucket of its own.
        let shift = (64 - (nanos | (STEPS - 1)).leading_zeros()).saturating_sub(STEP_BITS + 1);
        let step = nanos >> shift;
        (u64::from(shift) * STEPS + step) as usize
    }

    /// The middle of a bucket, nanoseconds.
    fn middle(bucket: usize) -> u64 {
        let bucket = bucket as u64;
        if bucket < 2 * STEPS {
            return bucket;
        }
        let shift = bucket / STEPS - 1;
        ((bucket - shift * STEPS) << shift) + (1 << shift) / 2
    }

    fn read(&self, histogram: &mut Histogram<u64>) {
        for (bucket, count) in self.0.iter().enumerate().filter(|(_, count)| count.get() > 0) {
            // A histogram that grows by itself takes any value.
            let _ = histogram.record_n(Self::middle(bucket), count.get());
        }
    }
}

/// A histogram for latencies, nanoseconds, empty.
pub fn histogram() -> Histogram<u64> {
    Histogram::new(3).expect("three digits are allowed")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn latencies_are_read_back_within_half_a_per_cent(nanos in prop_oneof![0u64..100_000, 0u64..(1 << 40)]) {
            let latencies = Latencies::default();
            latencies.note(Duration::from_nanos(nanos));
            let mut read = histogram();
            latencies.read(&mut read);
            prop_assert_eq!(read.len(), 1);
            let error = read.max().abs_diff(nanos);
            prop_assert!(error as f64 <= nanos as f64 * 0.005, "{} for {}", read.max(), nanos);
        }
    }

    #[test]
    fn buckets_follow_one_another_without_a_gap() {
        let mut last = 0;
        for nanos in 0..100_000u64 {
            let bucket = Latencies::bucket(nanos);
            assert!(bucket == last || bucket == last + 1, "{nanos} ns: bucket {bucket} after {last}");
            last = bucket;
        }
        assert!(Latencies::bucket((1 << 40) - 1) < BUCKETS);
        Latencies::default().note(Duration::MAX);
    }
}
