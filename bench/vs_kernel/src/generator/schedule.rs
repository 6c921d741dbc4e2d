//! Times of a Poisson process: independent, exponentially distributed gaps.

use std::time::Duration;

use pmd::Instant;

/// The times of requests, one after the other.
pub struct Poisson {
    begun: Instant,
    gap_ns: f64,
    /// Nanoseconds from the beginning to the next one: exact to the nanosecond for a hundred days.
    next_ns: f64,
    random: fastrand::Rng,
}

impl Poisson {
    /// So many a second on average, the first one a gap after `begun`.
    pub fn new(begun: Instant, rate: f64, seed: u64) -> Poisson {
        let mut poisson =
            Poisson { begun, gap_ns: 1e9 / rate, next_ns: 0.0, random: fastrand::Rng::with_seed(seed) };
        poisson.advance();
        poisson
    }

    /// When the next one is due; `None`: later than any clock goes.
    pub fn due(&self) -> Option<Instant> {
        self.begun.checked_add(Duration::from_nanos(self.next_ns as u64))
    }

    /// On to the one after.
    pub fn advance(&mut self) {
        // 1 - [0, 1): never the logarithm of zero.
        self.next_ns += -(1.0 - self.random.f64()).ln() * self.gap_ns;
    }
}
