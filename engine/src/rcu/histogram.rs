//! Durations, counted into buckets of a sixteenth of an octave: read and written without a lock, 6 % exact.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Buckets per octave, as a power of two.
const STEPS_LOG2: u32 = 4;
const STEPS: usize = 1 << STEPS_LOG2;
/// Durations of 2^40 ns (18 minutes) and more share the last bucket.
const OCTAVES: usize = 40;
const BUCKETS: usize = (OCTAVES + 1 - STEPS_LOG2 as usize) * STEPS;

/// What is known of a number of durations.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Latency {
    /// How many there were.
    pub count: u64,
    /// Half took at most this long; 6 % exact, like the next.
    pub p50: Duration,
    /// 99 of 100 took at most this long.
    pub p99: Duration,
    /// The longest, exactly.
    pub max: Duration,
}

pub(crate) struct Histogram {
    buckets: Box<[AtomicU64]>,
    max: AtomicU64,
}

impl Histogram {
    pub fn new() -> Self {
        Histogram { buckets: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(), max: AtomicU64::new(0) }
    }

    pub fn record(&self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[bucket(nanos)].fetch_add(1, Ordering::Relaxed);
        self.max.fetch_max(nanos, Ordering::Relaxed);
    }

    pub fn latency(&self) -> Latency {
        let counts: Vec<u64> = self.buckets.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        let count: u64 = counts.iter().sum();
        let max = self.max.load(Ordering::Relaxed);
        let at_most = |percent: u64| {
            let rank = (count * percent).div_ceil(100).max(1);
            let mut below = 0;
            let reached = counts.iter().position(|&here| {
                below += here;
                below >= rank
            });
            Duration::from_nanos(reached.map_or(0, |bucket| last_of(bucket).min(max)))
        };
        Latency { count, p50: at_most(50), p99: at_most(99), max: Duration::from_nanos(max) }
    }
}

fn bucket(nanos: u64) -> usize {
    if nanos < STEPS as u64 {
        return nanos as usize;
    }
    let shift = nanos.ilog2() - STEPS_LOG2;
    let step = (nanos >> shift) as usize - STEPS;
    ((shift as usize + 1) * STEPS + step).min(BUCKETS - 1)
}

/// The largest value that falls into the bucket.
fn last_of(bucket: usize) -> u64 {
    if bucket < STEPS {
        return bucket as u64;
    }
    let shift = bucket / STEPS - 1;
    let first = ((STEPS + bucket % STEPS) as u64) << shift;
    first + ((1 << shift) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_in_its_bucket_and_a_sixteenth_exact() {
        let mut last = 0;
        for nanos in (0..4096).chain((12..40).flat_map(|bit| [(1 << bit) - 1, 1 << bit, 3 << (bit - 1)])) {
            let bucket = bucket(nanos);
            assert!(nanos <= last_of(bucket), "{nanos} in {bucket}");
            assert!(last_of(bucket) - nanos <= nanos / STEPS as u64, "{nanos} in {bucket}");
            if nanos < 4096 {
                assert!(bucket == last || bucket == last + 1, "{nanos} skips a bucket");
                last = bucket;
            }
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_count_from_below() {
        let histogram = Histogram::new();
        assert_eq!(histogram.latency(), Latency::default());
        for nanos in 1..=100 {
            histogram.record(Duration::from_nanos(nanos));
        }
        histogram.record(Duration::from_secs(3));
        let latency = histogram.latency();
        assert_eq!(latency.count, 101);
        assert!((50..=54).contains(&latency.p50.as_nanos()), "{latency:?}");
        assert!((99..=106).contains(&latency.p99.as_nanos()), "{latency:?}");
        assert_eq!(latency.max, Duration::from_secs(3));
    }
}
