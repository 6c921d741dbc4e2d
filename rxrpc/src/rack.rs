//! RACK (RFC 8985): what is lost, judged by time.
//!
//! A packet is lost once one that was sent after it has arrived, and it has had a round trip and a little more to arrive
//! as well. The little more is nothing until reordering was seen, and grows where it turns out to have been too little.
//! Rx serves the rules better than TCP: an ACK names the very transmission that caused it.
//!
//! Deliberately absent: the packets (send_queue.rs) and the tail probe (call.rs).

use crate::rtt::Rtt;
use pmd::Instant;
use std::time::Duration;

/// Packets that must have overtaken one before it counts as lost at once.
const OVERTAKERS: u32 = 3;
/// Timers are no finer.
const WINDOW_MIN: Duration = Duration::from_millis(1);
/// The most quarters of a round trip that are waited for.
const QUARTERS_MAX: u8 = 16;
/// Recoveries after which a wider window has served.
const PERSIST: u8 = 16;

/// What is known of the order in which packets arrive.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rack {
    /// The latest transmission known to have arrived, by its position among all of the call's.
    pub arrived: u32,
    /// How long that took.
    rtt: Duration,
    /// Highest sequence number acknowledged, less the queue's origin.
    highest: u32,
    /// A packet arrived after one that was sent later.
    reordered: bool,
    /// Quarters of the least round trip that a packet is waited for, less one.
    extra_quarters: u8,
    /// Recoveries left until the window is narrow again.
    persists: u8,
    /// How long a packet is waited for beyond a round trip.
    window: Duration,
    /// When the next packet may turn out to be lost.
    pub check_at: Option<Instant>,
}

impl Rack {
    /// A transmission arrived; `order` is its position, `age` the time since it was sent.
    pub fn arrival(&mut self, order: u32, age: Duration) {
        if order > self.arrived {
            (self.arrived, self.rtt) = (order, age);
        }
    }

    /// A packet was acknowledged for the first time. `once`: it was sent once only, so that it shows in which order the
    /// network delivers.
    pub fn note_order(&mut self, seq: u32, once: bool) {
        if seq.wrapping_sub(self.highest) < u32::MAX / 2 {
            self.highest = seq;
        } else if once {
            self.reordered = true;
        }
    }

    /// A packet that was taken for lost had arrived: it was not waited for long enough.
    pub fn was_not_lost(&mut self) {
        self.reordered = true;
        self.extra_quarters = (self.extra_quarters + 1).min(QUARTERS_MAX - 1);
        self.persists = PERSIST;
    }

    /// A recovery began.
    pub fn recovery(&mut self) {
        self.persists = self.persists.saturating_sub(1);
        if self.persists == 0 {
            self.extra_quarters = 0;
        }
    }

    /// Decides how long packets are waited for. `acked`: packets that have overtaken others.
    pub fn set_window(&mut self, recovering: bool, acked: u32, rtt: &Rtt) {
        let at_once = !self.reordered && (recovering || acked >= OVERTAKERS);
        self.window = match (rtt.minimum(), rtt.smoothed()) {
            _ if at_once => Duration::ZERO,
            (Some(least), Some(smoothed)) => {
                let quarters = u32::from(self.extra_quarters) + 1;
                (least / 4 * quarters).min(smoothed).max(WINDOW_MIN)
            }
            _ => WINDOW_MIN,
        };
    }

    /// Whether a packet that was sent before the latest arrival is lost now. If not, notes when it will be.
    pub fn is_lost(&mut self, now: Instant, sent_at: Instant) -> bool {
        let due = sent_at + self.rtt + self.window;
        if due <= now {
            return true;
        }
        self.check_at = Some(self.check_at.map_or(due, |at| at.min(due)));
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    fn rtt(ms: u64) -> Rtt {
        let mut rtt = Rtt::default();
        rtt.sample(at(0), Duration::from_millis(ms));
        rtt
    }

    #[test]
    fn a_packet_is_waited_for_a_quarter_of_a_round_trip() {
        let mut rack = Rack::default();
        rack.arrival(2, Duration::from_millis(40));
        rack.set_window(false, 1, &rtt(40));
        assert!(!rack.is_lost(at(40), at(0)));
        assert_eq!(rack.check_at, Some(at(50)));
        assert!(rack.is_lost(at(50), at(0)));
    }

    #[test]
    fn three_overtakers_and_a_recovery_are_proof_until_something_was_reordered() {
        let mut rack = Rack::default();
        rack.arrival(4, Duration::from_millis(40));
        for (recovering, acked) in [(false, 3), (true, 1)] {
            rack.set_window(recovering, acked, &rtt(40));
            assert!(rack.is_lost(at(40), at(0)));
        }
        rack.note_order(4, true);
        rack.note_order(2, false);
        assert!(!rack.reordered, "what was sent twice shows nothing");
        rack.note_order(3, true);
        rack.set_window(true, 3, &rtt(40));
        assert!(!rack.is_lost(at(40), at(0)));
    }

    #[test]
    fn a_window_that_was_too_narrow_widens_for_sixteen_recoveries() {
        let mut rack = Rack::default();
        let due = |rack: &mut Rack| {
            rack.check_at = None;
            rack.set_window(false, 0, &rtt(40));
            assert!(!rack.is_lost(at(0), at(0)));
            rack.check_at.unwrap()
        };
        rack.was_not_lost();
        assert_eq!(due(&mut rack), at(20), "two quarters; nothing has arrived yet that took time");
        for _ in 0..40 {
            rack.was_not_lost();
        }
        assert_eq!(due(&mut rack), at(40), "never more than a round trip");
        (0..15).for_each(|_| rack.recovery());
        assert_eq!(due(&mut rack), at(40));
        rack.recovery();
        assert_eq!(due(&mut rack), at(10));
    }
}
