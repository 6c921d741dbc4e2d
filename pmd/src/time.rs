//! Monotonic time in nanoseconds.
//!
//! The clock is read once per burst and the value passed down, so everything below takes `now` as a parameter
//! and tests run in virtual time. Deliberately absent: wall-clock time and any hidden clock.

use std::fmt;
use std::ops::{Add, AddAssign, Sub};
use std::time::Duration;

/// A point on the monotonic clock, in nanoseconds since an arbitrary origin (virtual in tests).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Hash)]
pub struct Instant(u64);

impl Instant {
    /// The origin of the clock.
    pub const ZERO: Instant = Instant(0);
    /// Later than any instant that occurs: 584 years after the origin.
    pub const FAR_FUTURE: Instant = Instant(u64::MAX);

    /// The instant `nanos` nanoseconds after the origin.
    #[inline]
    pub const fn from_nanos(nanos: u64) -> Self {
        Instant(nanos)
    }

    /// Nanoseconds since the origin.
    #[inline]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// `self - earlier`, or zero when `earlier` is the later one.
    #[inline]
    pub const fn saturating_duration_since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// `self + duration`, or `None` when that is beyond [`Instant::FAR_FUTURE`].
    #[inline]
    pub fn checked_add(self, duration: Duration) -> Option<Instant> {
        let seconds = duration.as_secs().checked_mul(1_000_000_000)?;
        let nanos = seconds.checked_add(u64::from(duration.subsec_nanos()))?;
        self.0.checked_add(nanos).map(Instant)
    }
}

/// Saturates at [`Instant::FAR_FUTURE`].
impl Add<Duration> for Instant {
    type Output = Instant;
    #[inline]
    fn add(self, duration: Duration) -> Instant {
        self.checked_add(duration).unwrap_or(Instant::FAR_FUTURE)
    }
}

impl AddAssign<Duration> for Instant {
    #[inline]
    fn add_assign(&mut self, duration: Duration) {
        *self = *self + duration;
    }
}

/// Zero when the right-hand side is the later one.
impl Sub for Instant {
    type Output = Duration;
    #[inline]
    fn sub(self, earlier: Instant) -> Duration {
        self.saturating_duration_since(earlier)
    }
}

impl fmt::Display for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09}s", self.0 / 1_000_000_000, self.0 % 1_000_000_000)
    }
}

/// The machine's monotonic clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock;

impl Clock {
    /// CLOCK_MONOTONIC now. Costs 40-60 ns: read it once per burst.
    pub fn now() -> Instant {
        let mut ts = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: `ts` is a live, writable timespec for the length of the call.
        let rc = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut ts) };
        assert_eq!(rc, 0, "CLOCK_MONOTONIC exists on every Linux");
        Instant(ts.tv_sec as u64 * 1_000_000_000 + ts.tv_nsec as u64)
    }

    /// The CPU's time stamp counter, to count cycles with; on other machines than x86-64, nanoseconds.
    #[inline]
    pub fn ticks() -> u64 {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: every x86-64 CPU has the instruction, and Linux lets processes use it.
        return unsafe { std::arch::x86_64::_rdtsc() };
        #[cfg(not(target_arch = "x86_64"))]
        return Clock::now().as_nanos();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates_at_both_ends() {
        let t = Instant::from_nanos(5);
        assert_eq!(t - Instant::from_nanos(9), Duration::ZERO);
        assert_eq!(Instant::from_nanos(9) - t, Duration::from_nanos(4));
        assert_eq!(t + Duration::MAX, Instant::FAR_FUTURE);
        assert_eq!(t.checked_add(Duration::MAX), None);
        assert_eq!(t.checked_add(Duration::from_nanos(2)), Some(Instant::from_nanos(7)));
    }

    #[test]
    fn the_clock_does_not_go_back() {
        let first = Clock::now();
        assert!(Clock::now() >= first);
        assert!(first > Instant::ZERO);
        let ticks = Clock::ticks();
        std::thread::sleep(Duration::from_millis(1));
        assert!(Clock::ticks() > ticks);
    }
}
