//! A controller in the manner of BBR: it models the path by its bandwidth and its shortest round trip, keeps about two of
//! their product in flight, and sends at that bandwidth. A packet lost here and there does not slow it down.
//!
//! Follows draft-ietf-ccwg-bbr in outline: start-up, drain, a cycle of paces that probes for more bandwidth, and a pause
//! that measures the round trip without our own queue. The bandwidth is measured once a round trip, over all of it.
//! A round that loses more than one packet in twenty bounds what is in flight, as BBR's later versions do.
//!
//! Deliberately absent: a rate for each packet, policers, ECN.

use super::{CongestionControl, Delivery, INITIAL_WINDOW, WINDOW_MAX};
use pmd::Instant;
use std::time::Duration;

/// Doubles what is delivered in each round trip: 2 / ln 2.
const STARTUP_GAIN: f32 = 2.885;
/// Products of bandwidth and round trip in flight, for what acknowledgements come late.
const WINDOW_GAIN: f32 = 2.0;
/// The cycle of paces, a round trip each.
const CYCLE: [f32; 8] = [1.25, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0];
/// The step that probes for more bandwidth, and the packets that it sends on top at least.
const PROBE: u8 = 0;
const PROBE_STEP: f32 = 25.0;
/// The step after it, until the queue that it made is gone.
const DRAIN: u8 = 1;
/// Start-up is over when so many rounds have brought less than a quarter more.
const FULL_ROUNDS: u8 = 3;
/// The shortest round trip is measured anew after so long.
const LEAST_RTT_AGE: Duration = Duration::from_secs(10);
/// For so long.
const PROBE_RTT: Duration = Duration::from_millis(200);
const LEAST_WINDOW: f32 = 4.0;
/// A round that loses more than one packet in so many, and at least `LOSSES`, was too much for the path.
const LOSS_SHARE: u32 = 20;
const LOSSES: u32 = 4;
/// Packets by which that bound is let go in each round without.
const BOUND_STEP: f32 = 2.0;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Startup,
    /// Until what start-up left in the queue is gone.
    Drain,
    /// The cycle; the step it is at.
    Cruise(u8),
    /// Until then the window is small.
    ProbeRtt(Instant),
}

/// See the module's head.
#[derive(Clone, Copy, Debug)]
pub struct Bbr {
    phase: Phase,
    window: f32,
    /// What losses have shown to be too much.
    bound: f32,
    /// Packets a second: the most of any round in this cycle, and in the cycle before.
    best: [f32; 2],
    /// The bandwidth when it last grew by a quarter, and the rounds since.
    full: (f32, u8),
    /// When the round began; what it has delivered and lost.
    round_at: Option<Instant>,
    delivered: u32,
    lost: u32,
    /// The sender ran out of data in it.
    starved: bool,
    least_rtt: Duration,
    least_rtt_at: Instant,
}

impl Default for Bbr {
    fn default() -> Self {
        Self {
            phase: Phase::Startup,
            window: INITIAL_WINDOW as f32,
            bound: WINDOW_MAX as f32,
            best: [0.0; 2],
            full: (0.0, 0),
            round_at: None,
            delivered: 0,
            lost: 0,
            starved: false,
            least_rtt: Duration::ZERO,
            least_rtt_at: Instant::ZERO,
        }
    }
}

impl Bbr {
    /// Packets a second.
    fn bandwidth(&self) -> f32 {
        self.best[0].max(self.best[1])
    }

    /// Packets that fill the path and no queue; zero before anything is known.
    fn product(&self) -> f32 {
        self.bandwidth() * self.least_rtt.as_secs_f32()
    }

    fn gain(&self) -> f32 {
        match self.phase {
            Phase::Startup => STARTUP_GAIN,
            Phase::Drain => 1.0 / STARTUP_GAIN,
            Phase::Cruise(PROBE) => self.probe_gain(),
            Phase::Cruise(step) => CYCLE[usize::from(step)],
            Phase::ProbeRtt(_) => 1.0,
        }
    }

    /// How much faster than the bandwidth the probe for more goes: by a quarter, or by `PROBE_STEP` packets a round trip if
    /// that is more. So a small flow gains on a large one that it shares a path with.
    fn probe_gain(&self) -> f32 {
        (1.0 + PROBE_STEP / self.product().max(1.0)).clamp(CYCLE[usize::from(PROBE)], 2.0)
    }

    /// A round trip is over.
    fn round(&mut self, delivery: &Delivery) {
        let now = delivery.now;
        let elapsed = self.round_at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        if elapsed > Duration::ZERO {
            let rate = self.delivered as f32 / elapsed.as_secs_f32();
            // Of a sender without data nobody learns how little the path takes.
            if !self.starved || rate > self.bandwidth() {
                self.best[0] = self.best[0].max(rate);
            }
            self.watch_losses();
            self.advance(now);
        }
        (self.round_at, self.delivered, self.lost, self.starved) = (Some(now), 0, 0, false);
    }

    /// Bounds the window after a round with many losses; lets go by and by otherwise.
    fn watch_losses(&mut self) {
        let sent = self.delivered + self.lost;
        if self.lost >= LOSSES && self.lost * LOSS_SHARE > sent {
            self.bound = (self.bound.min(sent as f32) * 0.7).max(LEAST_WINDOW);
        } else {
            // By as much for a small flow as for a large one, so that flows that share a path come to share it evenly.
            self.bound = (self.bound + BOUND_STEP).min(WINDOW_MAX as f32);
        }
    }

    /// Moves on from phase to phase, by rounds.
    fn advance(&mut self, now: Instant) {
        match self.phase {
            Phase::Startup if !self.starved => {
                let (full, rounds) = &mut self.full;
                if self.best[0] >= *full * 1.25 {
                    (*full, *rounds) = (self.best[0], 0);
                } else {
                    *rounds += 1;
                }
                if *rounds >= FULL_ROUNDS {
                    self.phase = Phase::Drain;
                }
            }
            Phase::Cruise(step) => {
                let next = (step + 1) % CYCLE.len() as u8;
                if next == 0 && self.best[0] > 0.0 {
                    self.best = [0.0, self.best[0]];
                }
                self.phase = Phase::Cruise(next);
            }
            Phase::ProbeRtt(until) if until <= now => {
                self.least_rtt_at = now;
                self.phase = Phase::Cruise(start(now));
            }
            _ => {}
        }
    }

    fn measure(&mut self, now: Instant, rtt: Duration) {
        let probing = matches!(self.phase, Phase::ProbeRtt(_));
        if self.least_rtt.is_zero() || rtt < self.least_rtt {
            (self.least_rtt, self.least_rtt_at) = (rtt, now);
        } else if rtt <= self.least_rtt + self.least_rtt / 16 {
            self.least_rtt_at = now;
        } else if !probing && now.saturating_duration_since(self.least_rtt_at) >= LEAST_RTT_AGE {
            // What is measured from here on counts, be it longer.
            self.least_rtt = rtt;
            if self.phase != Phase::Startup {
                self.phase = Phase::ProbeRtt(now + PROBE_RTT);
            }
        }
    }

    /// What may be in flight, by the model.
    fn target(&self) -> f32 {
        let gain = if self.phase == Phase::Startup { STARTUP_GAIN } else { WINDOW_GAIN };
        // Three more than the product, for ACKs that speak of two.
        (gain * self.product() + 3.0).clamp(LEAST_WINDOW, self.bound)
    }
}

impl CongestionControl for Bbr {
    fn window(&self) -> u32 {
        match self.phase {
            Phase::ProbeRtt(_) => self.window.min(LEAST_WINDOW) as u32,
            _ => self.window as u32,
        }
    }

    fn on_ack(&mut self, delivery: &Delivery) {
        self.delivered += delivery.packets;
        self.lost += delivery.lost;
        self.starved |= delivery.starved;
        if let Some(rtt) = delivery.rtt {
            self.measure(delivery.now, rtt);
        }
        if delivery.round {
            self.round(delivery);
        }
        let in_flight = delivery.in_flight as f32;
        match self.phase {
            Phase::Drain if in_flight <= self.product() => self.phase = Phase::Cruise(start(delivery.now)),
            Phase::Cruise(DRAIN) if in_flight <= self.product() => self.phase = Phase::Cruise(DRAIN + 1),
            _ => {}
        }
        let grown = self.window + delivery.packets as f32;
        self.window = if self.product() > 0.0 { grown.min(self.target()) } else { grown.min(self.bound) };
    }

    fn on_loss(&mut self) {}

    fn on_timeout(&mut self) {
        self.window = LEAST_WINDOW;
        self.round_at = None;
    }

    fn interval(&self, _smoothed: Duration) -> Option<Duration> {
        let rate = self.gain() * self.bandwidth();
        (rate > 0.0).then(|| Duration::from_nanos((1e9 / rate) as u64))
    }
}

/// Where a cycle begins: not with the step that drains, and not where every other call begins.
fn start(now: Instant) -> u8 {
    (2 + (now.as_nanos() >> 10) % (CYCLE.len() as u64 - 2)) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A path of so many packets a second and so many milliseconds, with a queue without end, in rounds.
    struct Path {
        bbr: Bbr,
        now: u64,
        rate: f32,
        rtt_ms: u64,
    }

    impl Path {
        fn new(rate: f32, rtt_ms: u64) -> Self {
            Self { bbr: Bbr::default(), now: 1_000_000, rate, rtt_ms }
        }

        /// One round trip: what the window lets out comes back, no faster than the path.
        fn round(&mut self, lost: u32) {
            let sent = self.bbr.window() as f32;
            let nanos = (self.rtt_ms * 1_000_000).max((sent / self.rate * 1e9) as u64);
            self.now += nanos;
            let now = Instant::from_nanos(self.now);
            self.bbr.on_ack(&Delivery {
                now,
                packets: sent as u32 - lost,
                limited: true,
                starved: false,
                recovering: lost > 0,
                round: true,
                rtt: Some(Duration::from_nanos(nanos)),
                lost,
                in_flight: 0,
                smoothed_rtt: Duration::from_nanos(nanos),
            });
        }
    }

    #[test]
    fn the_path_is_found_and_kept_filled() {
        // 100 packets a round trip.
        let mut path = Path::new(10_000.0, 10);
        (0..40).for_each(|_| path.round(0));
        let Bbr { phase, .. } = path.bbr;
        assert!(matches!(phase, Phase::Cruise(_)), "{phase:?}");
        let bandwidth = path.bbr.bandwidth();
        assert!((9_500.0..10_500.0).contains(&bandwidth), "{bandwidth}");
        assert!((195..=210).contains(&path.bbr.window()), "{:?}", path.bbr);
    }

    #[test]
    fn single_losses_do_not_slow_it_down_and_many_do() {
        let mut path = Path::new(10_000.0, 10);
        (0..40).for_each(|_| path.round(0));
        (0..100).for_each(|_| path.round(2));
        let window = path.bbr.window();
        assert!(window > 190, "{:?}", path.bbr);
        (0..3).for_each(|_| path.round(path.bbr.window() / 5));
        assert!(path.bbr.window() < window / 2, "{:?}", path.bbr);
        (0..100).for_each(|_| path.round(0));
        assert!(path.bbr.window() > 190, "and comes back: {:?}", path.bbr);
    }

    #[test]
    fn a_path_that_became_slower_is_believed_after_two_cycles() {
        let mut path = Path::new(10_000.0, 10);
        (0..40).for_each(|_| path.round(0));
        path.rate = 5_000.0;
        (0..20).for_each(|_| path.round(0));
        assert!(path.bbr.bandwidth() < 5_500.0, "{:?}", path.bbr);
    }

    #[test]
    fn a_longer_path_is_measured_with_a_small_window() {
        let mut path = Path::new(10_000.0, 10);
        (0..40).for_each(|_| path.round(0));
        path.rtt_ms = 20;
        let mut paused = false;
        for _ in 0..600 {
            path.round(0);
            paused |= path.bbr.window() == 4;
        }
        assert!(paused, "ten seconds are over");
        assert_eq!(path.bbr.least_rtt, Duration::from_millis(20));
    }

    #[test]
    fn a_timeout_starts_small() {
        let mut path = Path::new(10_000.0, 10);
        (0..40).for_each(|_| path.round(0));
        path.bbr.on_timeout();
        assert_eq!(path.bbr.window(), 4);
        (0..10).for_each(|_| path.round(0));
        assert!(path.bbr.window() > 190, "{:?}", path.bbr);
    }
}
