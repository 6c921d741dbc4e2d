//! Round-trip time and retransmission timeout of a peer (RFC 6298).

use pmd::Instant;
use std::time::Duration;

/// How long the shortest round trip stands at least, and half as long as it stands at most: paths change.
const MINIMUM_AGE: Duration = Duration::from_secs(10);

/// Estimator with the RFC's gains of 1/8 and 1/4.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rtt {
    smoothed: Option<Duration>,
    deviation: Duration,
    /// The shortest since `since`, and the shortest of the time before.
    minimum: Option<Duration>,
    minimum_before: Option<Duration>,
    since: Instant,
}

impl Rtt {
    /// Takes a measurement in.
    pub fn sample(&mut self, now: Instant, sample: Duration) {
        if now.saturating_duration_since(self.since) >= MINIMUM_AGE {
            (self.minimum_before, self.minimum, self.since) = (self.minimum, None, now);
        }
        self.minimum = Some(self.minimum.map_or(sample, |least| least.min(sample)));
        match self.smoothed {
            None => {
                self.smoothed = Some(sample);
                self.deviation = sample / 2;
            }
            Some(smoothed) => {
                self.deviation = self.deviation * 3 / 4 + smoothed.abs_diff(sample) / 4;
                self.smoothed = Some(smoothed * 7 / 8 + sample / 8);
            }
        }
    }

    /// The smoothed round trip; `None` before the first measurement.
    pub fn smoothed(&self) -> Option<Duration> {
        self.smoothed
    }

    /// Its mean deviation.
    pub fn deviation(&self) -> Duration {
        self.deviation
    }

    /// The shortest measured lately.
    pub fn minimum(&self) -> Option<Duration> {
        match (self.minimum, self.minimum_before) {
            (Some(now), Some(before)) => Some(now.min(before)),
            (now, before) => now.or(before),
        }
    }

    /// The timeout without backoff.
    pub fn rto(&self, initial: Duration, least: Duration, most: Duration) -> Duration {
        match self.smoothed {
            None => initial,
            Some(smoothed) => (smoothed + self.deviation * 4).clamp(least, most),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_rfc_6298() {
        let ms = Duration::from_millis;
        let mut rtt = Rtt::default();
        let now = Instant::ZERO;
        assert_eq!(rtt.rto(ms(350), ms(200), ms(10_000)), ms(350));
        rtt.sample(now, ms(100));
        assert_eq!(rtt.rto(ms(350), ms(200), ms(10_000)), ms(300), "R + 4 * R/2");
        rtt.sample(now, ms(200));
        assert_eq!(rtt.smoothed(), Some(ms(100) * 7 / 8 + ms(200) / 8));
        assert_eq!(rtt.deviation(), ms(50) * 3 / 4 + ms(100) / 4);
        for _ in 0..100 {
            rtt.sample(now, ms(1));
        }
        assert_eq!(rtt.rto(ms(350), ms(200), ms(10_000)), ms(200), "the floor");
    }
    #[test]
    fn the_shortest_round_trip_is_forgotten() {
        let (ms, at) = (Duration::from_millis, |s: u64| Instant::from_nanos(s * 1_000_000_000));
        let mut rtt = Rtt::default();
        rtt.sample(at(100), ms(10));
        rtt.sample(at(105), ms(50));
        assert_eq!(rtt.minimum(), Some(ms(10)));
        rtt.sample(at(111), ms(50));
        assert_eq!(rtt.minimum(), Some(ms(10)), "for ten seconds at least");
        rtt.sample(at(122), ms(50));
        assert_eq!(rtt.minimum(), Some(ms(50)));
    }
}
