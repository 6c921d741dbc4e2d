//! Congestion control of one call.
//!
//! The send queue decides what is lost; a controller only turns what it is told into a window and a pace. Windows are in
//! packets, as everything in Rx is. [`CongestionAlgorithm`] chooses: [`Cubic`] shares a path with whatever else is on it, TCP
//! above all, and is the default for that; [`Bbr`] is for paths of one's own that lose packets without being full.

mod bbr;
mod cubic;

pub use bbr::Bbr;
pub use cubic::Cubic;
use pmd::Instant;
use std::time::Duration;

/// The largest window that Rx's acknowledgements can describe.
pub const WINDOW_MAX: u32 = 255;
/// Packets sent before anything is known (RFC 6928).
const INITIAL_WINDOW: u32 = 10;

/// What one ACK shows of the network.
#[derive(Clone, Copy, Debug)]
pub struct Delivery {
    pub now: Instant,
    /// Packets newly acknowledged, softly or for good.
    pub packets: u32,
    /// The window or the pace, and not a lack of data or of room at the peer, is what holds the sender back.
    pub limited: bool,
    /// There is no data left that was never sent.
    pub starved: bool,
    /// A round trip is over: the packet that it is measured by has arrived.
    pub round: bool,
    /// The round trip that this ACK measured.
    pub rtt: Option<Duration>,
    /// Packets newly found lost.
    pub lost: u32,
    /// Packets in flight now.
    pub in_flight: u32,
    /// A loss was found in the window that is being acknowledged.
    pub recovering: bool,
    /// The peer's smoothed round trip; zero before the first measurement.
    pub smoothed_rtt: Duration,
}

/// What a controller is told, and what it answers.
pub trait CongestionControl {
    /// The most packets that may be in flight.
    fn window(&self) -> u32;
    /// An ACK brought news.
    fn on_ack(&mut self, delivery: &Delivery);
    /// A loss was found: called once for each window of data.
    fn on_loss(&mut self);
    /// Nothing was heard for a retransmission timeout.
    fn on_timeout(&mut self);
    /// Time from one packet to the next; `None` while nothing is known. `smoothed` is the peer's round trip.
    fn interval(&self, smoothed: Duration) -> Option<Duration>;
}

/// Which controller a call has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CongestionAlgorithm {
    /// CUBIC (RFC 9438).
    #[default]
    Cubic,
    /// In the manner of BBR: by measured bandwidth and round trip, whatever is lost.
    Bbr,
}

/// A call's controller.
#[derive(Clone, Copy, Debug)]
pub enum Congestion {
    Cubic(Cubic),
    Bbr(Bbr),
}

impl Congestion {
    pub fn new(algorithm: CongestionAlgorithm) -> Self {
        match algorithm {
            CongestionAlgorithm::Cubic => Self::Cubic(Cubic::default()),
            CongestionAlgorithm::Bbr => Self::Bbr(Bbr::default()),
        }
    }
}

/// Hands a method on to the controller that there is.
macro_rules! with {
    ($congestion:expr, $controller:ident => $call:expr) => {
        match $congestion {
            Congestion::Cubic($controller) => $call,
            Congestion::Bbr($controller) => $call,
        }
    };
}

impl CongestionControl for Congestion {
    fn window(&self) -> u32 {
        with!(self, controller => controller.window())
    }
    fn on_ack(&mut self, delivery: &Delivery) {
        with!(self, controller => controller.on_ack(delivery));
    }
    fn on_loss(&mut self) {
        with!(self, controller => controller.on_loss());
    }
    fn on_timeout(&mut self) {
        with!(self, controller => controller.on_timeout());
    }
    fn interval(&self, smoothed: Duration) -> Option<Duration> {
        with!(self, controller => controller.interval(smoothed))
    }
}

/// When a call's next packet may depart. Timers fire up to a millisecond late, so what a late timer withheld may go at
/// once: a pace is kept over milliseconds, not from packet to packet.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    next: Instant,
}

/// What of the pace may be made up for.
const BURST: Duration = Duration::from_millis(2);
/// The same in packets.
const BURST_PACKETS: u32 = INITIAL_WINDOW;
/// Over shorter round trips a whole window is a burst, and pacing would change nothing.
const PACED_RTT: Duration = Duration::from_millis(4);

impl Pace {
    /// The interval that packets to a peer at this distance keep, if any.
    pub fn interval(congestion: &Congestion, smoothed: Option<Duration>) -> Option<Duration> {
        let smoothed = smoothed.filter(|&smoothed| smoothed >= PACED_RTT)?;
        congestion.interval(smoothed)
    }

    /// Lets a packet depart now, or says when it may.
    pub fn depart(&mut self, now: Instant, interval: Duration) -> Result<(), Instant> {
        if self.next > now {
            return Err(self.next);
        }
        let burst = BURST.max(interval * BURST_PACKETS);
        let earliest = Instant::from_nanos(now.as_nanos().saturating_sub(burst.as_nanos() as u64));
        self.next = self.next.max(earliest) + interval;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(us: u64) -> Instant {
        Instant::from_nanos(1_000_000_000 + us * 1_000)
    }

    /// Packets that depart at a time.
    fn departing(pace: &mut Pace, now: Instant, interval: Duration) -> usize {
        std::iter::from_fn(|| pace.depart(now, interval).ok()).count()
    }

    #[test]
    fn packets_keep_their_distance_on_average() {
        let (mut pace, interval) = (Pace::default(), Duration::from_micros(100));
        assert_eq!(departing(&mut pace, at(0), interval), 21, "what two milliseconds allow");
        assert_eq!(pace.depart(at(0), interval), Err(at(100)));
        assert_eq!(departing(&mut pace, at(1_000), interval), 10, "a late timer's packets go at once");
        let later = (2..102).map(|ms| departing(&mut pace, at(ms * 1_000), interval)).sum::<usize>();
        assert_eq!(later, 1_000);
        assert_eq!(departing(&mut pace, at(10_000_000), interval), 21, "time without data is not saved up");
    }

    #[test]
    fn a_slow_pace_still_lets_a_small_message_go() {
        let mut pace = Pace::default();
        assert_eq!(departing(&mut pace, at(0), Duration::from_millis(5)), 11);
    }

    #[test]
    fn short_round_trips_are_not_paced() {
        let cubic = Congestion::new(CongestionAlgorithm::Cubic);
        assert_eq!(Pace::interval(&cubic, None), None);
        assert_eq!(Pace::interval(&cubic, Some(Duration::from_millis(3))), None);
        // Twice ten packets in ten milliseconds, in slow start.
        assert_eq!(Pace::interval(&cubic, Some(Duration::from_millis(10))), Some(Duration::from_micros(500)));
    }
}
