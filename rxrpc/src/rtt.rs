//! Round-trip time and retransmission timeout of a peer (RFC 6298).

use std::time::Duration;

/// Estimator with the RFC's gains of 1/8 and 1/4.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rtt {
    smoothed: Option<Duration>,
    deviation: Duration,
    minimum: Option<Duration>,
}

impl Rtt {
    /// Takes a measurement in.
    pub fn sample(&mut self, sample: Duration) {
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

    /// The shortest measured.
    pub fn minimum(&self) -> Option<Duration> {
        self.minimum
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
        assert_eq!(rtt.rto(ms(350), ms(200), ms(10_000)), ms(350));
        rtt.sample(ms(100));
        assert_eq!(rtt.rto(ms(350), ms(200), ms(10_000)), ms(300), "R + 4 * R/2");
        rtt.sample(ms(200));
        assert_eq!(rtt.smoothed(), Some(ms(100) * 7 / 8 + ms(200) / 8));
        assert_eq!(rtt.deviation(), ms(50) * 3 / 4 + ms(100) / 4);
        for _ in 0..100 {
            rtt.sample(ms(1));
        }
        assert_eq!(rtt.rto(ms(350), ms(200), ms(10_000)), ms(200), "the floor");
    }
}
