//! CUBIC (RFC 9438), in packets and seconds.
//!
//! Deliberately absent: HyStart, and undoing a reduction that turns out to have been spurious. Only additions,
//! multiplications and divisions are used, so that every machine computes the same windows.

use super::{CongestionControl, Delivery, INITIAL_WINDOW, WINDOW_MAX};
use pmd::Instant;
use std::time::Duration;

/// How fast the window returns to where it was, in packets per cubic second.
const C: f32 = 0.4;
/// What a loss leaves of the window.
const BETA: f32 = 0.7;
/// What Reno must add in a round trip to be CUBIC's equal: 3 * (1 - BETA) / (1 + BETA).
const ALPHA: f32 = 0.529_411_8;
const LEAST: f32 = 2.0;

/// See the module's head.
#[derive(Clone, Copy, Debug)]
pub struct Cubic {
    window: f32,
    /// Slow start ends here.
    threshold: f32,
    /// Where the plateau of the curve is (W_max).
    plateau: f32,
    /// The window when it was last reduced (cwnd_prior).
    prior: f32,
    /// What Reno's window would be (W_est).
    reno: f32,
    /// Seconds from the epoch's start to the plateau (K).
    k: f32,
    /// When the growth since the last reduction began.
    epoch: Option<Instant>,
    /// The last ACK.
    seen: Instant,
}

impl Default for Cubic {
    fn default() -> Self {
        Self {
            window: INITIAL_WINDOW as f32,
            threshold: WINDOW_MAX as f32,
            plateau: 0.0,
            prior: 0.0,
            reno: 0.0,
            k: 0.0,
            epoch: None,
            seen: Instant::ZERO,
        }
    }
}

impl Cubic {
    /// Whether the window still grows by a packet for each packet acknowledged.
    pub fn in_slow_start(&self) -> bool {
        self.window < self.threshold
    }

    /// Congestion avoidance, sections 4.2 to 4.5.
    fn avoid(&mut self, delivery: &Delivery) {
        let now = delivery.now;
        let epoch = match self.epoch {
            Some(epoch) => epoch,
            None => self.begin_epoch(now),
        };
        let packets = delivery.packets as f32;
        let time = now.saturating_duration_since(epoch).as_secs_f32();
        let ahead = time + delivery.smoothed_rtt.as_secs_f32();
        self.reno += if self.reno < self.prior { ALPHA } else { 1.0 } * packets / self.window;
        if self.curve(time) < self.reno {
            self.window = self.window.max(self.reno);
        } else {
            let target = self.curve(ahead).clamp(self.window, self.window * 1.5);
            self.window += (target - self.window) / self.window * packets;
        }
    }

    /// W_cubic(t).
    fn curve(&self, time: f32) -> f32 {
        let t = time - self.k;
        C * t * t * t + self.plateau
    }

    fn begin_epoch(&mut self, now: Instant) -> Instant {
        if self.window < self.plateau {
            self.k = cube_root((self.plateau - self.window) / C);
        } else {
            (self.k, self.plateau) = (0.0, self.window);
        }
        self.reno = self.window;
        self.epoch = Some(now);
        now
    }

    /// Section 4.6, with the fast convergence of 4.7.
    fn reduce(&mut self) {
        let shrinks = self.window < self.plateau;
        self.plateau = if shrinks { self.window * (1.0 + BETA) / 2.0 } else { self.window };
        self.prior = self.window;
        self.threshold = (self.window * BETA).max(LEAST);
        self.epoch = None;
    }
}

impl CongestionControl for Cubic {
    fn window(&self) -> u32 {
        self.window as u32
    }

    fn on_ack(&mut self, delivery: &Delivery) {
        let since = delivery.now.saturating_duration_since(self.seen);
        self.seen = delivery.now;
        if delivery.recovering {
            return;
        }
        if !delivery.limited {
            // A sender short of data proves nothing, and its time does not count (section 5.8).
            self.epoch = self.epoch.map(|epoch| epoch + since);
            return;
        }
        if self.in_slow_start() {
            self.window = (self.window + delivery.packets as f32).min(self.threshold);
        } else {
            self.avoid(delivery);
        }
        self.window = self.window.min(WINDOW_MAX as f32);
    }

    fn on_loss(&mut self) {
        self.reduce();
        self.window = self.threshold;
    }

    fn on_timeout(&mut self) {
        self.reduce();
        self.window = 1.0;
    }

    /// A little faster than the window needs, so that the pace does not become the limit.
    fn interval(&self, smoothed: Duration) -> Option<Duration> {
        let packets = self.window * if self.in_slow_start() { 2.0 } else { 1.25 };
        Some(Duration::from_nanos((smoothed.as_nanos() as f32 / packets) as u64))
    }
}

/// By Newton's method; `x` is at most `WINDOW_MAX / C`.
fn cube_root(x: f32) -> f32 {
    let mut root = 4.0;
    for _ in 0..16 {
        root = (2.0 * root + x / (root * root)) / 3.0;
    }
    root
}

#[cfg(test)]
mod tests {
    use super::*;

    const RTT: Duration = Duration::from_millis(100);

    fn ack(now_ms: u64, packets: u32) -> Delivery {
        let now = Instant::from_nanos(now_ms * 1_000_000);
        Delivery {
            now,
            packets,
            limited: true,
            starved: false,
            round: true,
            rtt: Some(RTT),
            lost: 0,
            in_flight: 0,
            recovering: false,
            smoothed_rtt: RTT,
        }
    }

    /// Acknowledges a window in every round trip until `end`.
    fn run(cubic: &mut Cubic, rtt_ms: u64, from: u64, end: u64) {
        for now in (from..end).step_by(rtt_ms as usize) {
            cubic.on_ack(&Delivery {
                smoothed_rtt: Duration::from_millis(rtt_ms),
                ..ack(now, cubic.window())
            });
        }
    }

    #[test]
    fn slow_start_doubles_up_to_the_largest_window() {
        let mut cubic = Cubic::default();
        cubic.on_ack(&ack(0, 10));
        assert_eq!((cubic.window(), cubic.in_slow_start()), (20, true));
        cubic.on_ack(&Delivery { limited: false, ..ack(1, 10) });
        cubic.on_ack(&Delivery { recovering: true, ..ack(1, 10) });
        assert_eq!(cubic.window(), 20, "neither a lack of data nor a recovery makes it grow");
        run(&mut cubic, 100, 100, 10_000);
        assert_eq!(cubic.window(), WINDOW_MAX);
    }

    #[test]
    fn the_plateau_is_reached_after_k() {
        let mut cubic = Cubic { window: 200.0, threshold: 100.0, ..Cubic::default() };
        cubic.on_loss();
        assert_eq!((cubic.window(), cubic.in_slow_start()), (140, false));
        // K = cbrt(200 * 0.3 / 0.4) = 5.31 seconds, section 4.2.
        run(&mut cubic, 100, 0, 5_300);
        assert!((196..=201).contains(&cubic.window()), "{cubic:?}");
        run(&mut cubic, 100, 5_300, 7_300);
        assert!((202..=210).contains(&cubic.window()), "W_cubic = 200 + 0.4 * 2^3 = 203: {cubic:?}");
    }

    #[test]
    fn a_short_round_trip_grows_as_reno_does() {
        let mut cubic = Cubic { window: 40.0, threshold: 20.0, ..Cubic::default() };
        cubic.on_loss();
        // 0.53 packets a round trip: from 28 to 40 in 23 of them.
        run(&mut cubic, 10, 0, 230);
        assert!((39..=41).contains(&cubic.window()), "{cubic:?}");
    }

    #[test]
    fn time_without_data_does_not_count() {
        let mut cubic = Cubic { window: 200.0, threshold: 100.0, ..Cubic::default() };
        cubic.on_loss();
        cubic.on_ack(&ack(0, 1));
        for now in 1..1_000 {
            cubic.on_ack(&Delivery { limited: false, ..ack(now * 10, 1) });
        }
        cubic.on_ack(&ack(10_000, 1));
        assert!(cubic.window() < 145, "{cubic:?}");
    }

    #[test]
    fn a_loss_below_the_plateau_makes_room_and_a_timeout_starts_again() {
        let mut cubic = Cubic { window: 100.0, threshold: 50.0, plateau: 120.0, ..Cubic::default() };
        cubic.on_loss();
        assert_eq!((cubic.window(), cubic.plateau), (70, 85.0));
        cubic.on_timeout();
        assert_eq!((cubic.window(), cubic.in_slow_start(), cubic.threshold), (1, true, 49.0));
        for _ in 0..100 {
            cubic.on_loss();
        }
        assert_eq!(cubic.window(), 2, "never less");
    }

    #[test]
    fn roots() {
        for x in [0.1_f32, 1.0, 8.0, 191.0, 637.0] {
            let root = cube_root(x);
            assert!((root * root * root - x).abs() < x * 1e-4, "{x}: {root}");
        }
    }
}
