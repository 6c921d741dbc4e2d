//! The rate at which frames are sent, and the token bucket that holds it.
//!
//! Bits a second are bits on the wire: preamble, FCS and gap are counted ([`bits_on_the_wire`]), so that 10 Gbit/s is what a 10G link
//! carries (layer 1), whatever the size of the frames.
//!
//! The bucket counts time, not frames: what has passed is its credit, and each frame costs what it may take. Nothing is rounded but that price,
//! by less than one in 10^5, so the rate holds however irregularly it is polled. Credit ends at `catch_up`: who was away for longer than that
//! does not make up for it, and is told how much that was.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use pmd::Instant;

use crate::line_rate::bits_on_the_wire;

/// How long one may be away and still make up for it, unless said otherwise.
pub const CATCH_UP: Duration = Duration::from_millis(10);

/// Fractions of a nanosecond that the bucket counts in, as a power of two.
const FRACTION: u32 = 24;
/// The slowest rate: a frame in a hundred seconds.
const FRAMES_MIN: f64 = 0.01;
const BITS_MIN: f64 = 1000.0;
const MOST: f64 = 1e12;

/// How fast to send.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rate {
    /// As fast as the device takes frames.
    Max,
    /// Frames a second.
    Frames(f64),
    /// Bits on the wire a second, preamble, FCS and gap included.
    Bits(f64),
    /// Of line rate, in per cent.
    Percent(f64),
}

/// Not a rate, or none for this port.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum RateError {
    /// The text says none.
    #[error(
        "{text:?} is no rate: write frames a second as 100kpps or 1.5Mpps, bits a second (preamble, FCS and gap included) as 2.5Gbit, \
         a part of line rate as 40%, or max"
    )]
    Bad {
        /// What was given.
        text: String,
    },
    /// A part of nothing.
    #[error(
        "{percent}% of line rate, but {url:?} has no speed: give frames or bits a second, as in 100kpps or 1Gbit"
    )]
    NoSpeed {
        /// What was given.
        percent: f64,
        /// The port.
        url: String,
    },
}

impl FromStr for Rate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Rate, RateError> {
        let bad = || RateError::Bad { text: text.into() };
        if text == "max" {
            return Ok(Rate::Max);
        }
        let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(bad)?;
        let (number, unit) = text.split_at(split);
        let number: f64 = number.parse().map_err(|_| bad())?;
        if unit == "%" {
            let fits = number > 0.0 && number <= 100.0;
            return fits.then_some(Rate::Percent(number)).ok_or_else(bad);
        }
        let (factor, unit) = match unit.as_bytes()[0] {
            b'k' => (1e3, &unit[1..]),
            b'M' => (1e6, &unit[1..]),
            b'G' => (1e9, &unit[1..]),
            _ => (1.0, unit),
        };
        let value = number * factor;
        match unit {
            "pps" if (FRAMES_MIN..=MOST).contains(&value) => Ok(Rate::Frames(value)),
            "bit" | "bps" | "bit/s" if (BITS_MIN..=MOST).contains(&value) => Ok(Rate::Bits(value)),
            _ => Err(bad()),
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scaled = |value: f64| match value {
            _ if value >= 1e9 => (value / 1e9, "G"),
            _ if value >= 1e6 => (value / 1e6, "M"),
            _ if value >= 1e3 => (value / 1e3, "k"),
            _ => (value, ""),
        };
        match *self {
            Rate::Max => f.write_str("max"),
            Rate::Percent(percent) => write!(f, "{percent}%"),
            Rate::Frames(value) => {
                let (value, prefix) = scaled(value);
                write!(f, "{value}{prefix}pps")
            }
            Rate::Bits(value) => {
                let (value, prefix) = scaled(value);
                write!(f, "{value}{prefix}bit")
            }
        }
    }
}

impl Rate {
    /// The rate of one of `n` who share it, on a port of that speed: never a per cent.
    pub fn share(self, n: usize, bits_per_second: Option<u64>, url: &str) -> Result<Rate, RateError> {
        let n = n as f64;
        Ok(match self {
            Rate::Max => Rate::Max,
            Rate::Frames(frames) => Rate::Frames(frames / n),
            Rate::Bits(bits) => Rate::Bits(bits / n),
            Rate::Percent(percent) => {
                let speed = bits_per_second.ok_or_else(|| RateError::NoSpeed { percent, url: url.into() })?;
                Rate::Bits(speed as f64 * percent / 100.0 / n)
            }
        })
    }

    /// Frames a second of a size (FCS included), if it is a number of these.
    pub fn frames_per_second(self, size: f64) -> Option<f64> {
        match self {
            Rate::Frames(frames) => Some(frames),
            Rate::Bits(bits) => Some(bits / (bits_on_the_wire(0) + (size - 64.0).max(0.0) * 8.0)),
            Rate::Max | Rate::Percent(_) => None,
        }
    }
}

/// What a frame costs.
#[derive(Clone, Copy, Debug)]
enum Price {
    Nothing,
    Frame(u64),
    Bit(u64),
}

/// Holds a rate.
#[derive(Clone, Debug)]
pub struct Bucket {
    price: Price,
    /// Time that may still be spent, in 2^-24 ns.
    credit: u64,
    most: u64,
    /// Credit that was lost because nobody came for it, not yet told.
    forfeited: u64,
    last: Instant,
}

impl Bucket {
    /// A bucket for this rate, empty but for one frame at `now`. `catch_up` is the longest absence that is made up for, some seconds at most.
    ///
    /// # Panics
    /// On a rate in per cent: [`Rate::share`] makes it bits a second.
    pub fn new(rate: Rate, catch_up: Duration, now: Instant) -> Bucket {
        let fixed = |seconds: f64| ((seconds * 1e9 * f64::from(1 << FRACTION)).round() as u64).max(1);
        let price = match rate {
            Rate::Max => Price::Nothing,
            Rate::Frames(frames) => Price::Frame(fixed(1.0 / frames)),
            Rate::Bits(bits) => Price::Bit(fixed(1.0 / bits)),
            Rate::Percent(_) => panic!("a share of the port's speed was to be taken first"),
        };
        let mut bucket = Bucket { price, credit: 0, most: 0, forfeited: 0, last: now };
        // The dearest frame must always be affordable.
        let dearest = bucket.price(crate::template::FRAME_MAX);
        bucket.most = ((catch_up.as_nanos() as u64) << FRACTION) + dearest;
        if let Price::Frame(price) = price {
            bucket.credit = price;
        }
        bucket
    }

    /// Time passes. Called once a turn, before frames are taken.
    #[inline]
    pub fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.last).as_nanos() as u64;
        self.last = self.last.max(now);
        // Of what is forfeited ten minutes are counted at most: more does not fit the arithmetic.
        let credit = self.credit + (passed.min(600_000_000_000) << FRACTION);
        self.credit = credit.min(self.most);
        self.forfeited = self.forfeited.saturating_add(credit - self.credit);
    }

    /// Whether a frame of `size` bytes (FCS included) is due now; if so it is paid for.
    #[inline]
    pub fn take(&mut self, size: usize) -> bool {
        match self.credit.checked_sub(self.price(size)) {
            Some(left) => {
                self.credit = left;
                true
            }
            None => false,
        }
    }

    /// Whether everything is always due.
    pub fn is_unlimited(&self) -> bool {
        matches!(self.price, Price::Nothing)
    }

    /// A frame that was paid for was not sent: it is still due.
    #[inline]
    pub fn give_back(&mut self, size: usize) {
        let credit = self.credit + self.price(size);
        self.credit = credit.min(self.most);
        self.forfeited = self.forfeited.saturating_add(credit - self.credit);
    }

    /// How many frames of `size` bytes were due and nobody came for them, since this was last asked.
    #[inline]
    pub fn forfeited(&mut self, size: usize) -> u64 {
        if self.forfeited == 0 {
            return 0;
        }
        let price = self.price(size).max(1);
        let frames = self.forfeited / price;
        self.forfeited %= price;
        frames
    }

    /// When a frame of `size` bytes will be due.
    pub fn next_due(&self, size: usize) -> Instant {
        let missing = self.price(size).saturating_sub(self.credit);
        self.last + Duration::from_nanos(missing.div_ceil(1 << FRACTION))
    }

    #[inline]
    fn price(&self, size: usize) -> u64 {
        match self.price {
            Price::Nothing => 0,
            Price::Frame(price) => price,
            Price::Bit(price) => price * bits_on_the_wire(size) as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::line_rate::frames_per_second;
    use proptest::prelude::*;

    const SECOND: u64 = 1_000_000_000;

    fn rate(text: &str) -> Rate {
        text.parse().unwrap()
    }

    #[test]
    fn rates_are_read_as_they_are_written() {
        for text in ["max", "100kpps", "1.5Mpps", "0.5pps", "2.5Gbit", "40%", "64kbit", "14.88Mpps"] {
            assert_eq!(rate(text).to_string(), text);
        }
        assert_eq!(rate("1Gbps"), Rate::Bits(1e9));
        assert_eq!(rate("1Gbit/s"), Rate::Bits(1e9));
        for text in [
            "",
            "100",
            "pps",
            "0pps",
            "-1pps",
            "1e9pps",
            "101%",
            "0%",
            "1Tbit",
            "1.2.3Mpps",
            "1kk",
            "1µpps",
            "5bit",
        ] {
            let error = text.parse::<Rate>().unwrap_err().to_string();
            assert!(error.contains("or max"), "{text}: {error}");
        }
    }

    #[test]
    fn a_share_of_line_rate_needs_a_speed() {
        let ten_gigabits = Some(10 * SECOND);
        assert_eq!(rate("50%").share(2, ten_gigabits, "x"), Ok(Rate::Bits(2.5e9)));
        assert_eq!(rate("1Mpps").share(4, None, "x"), Ok(Rate::Frames(250e3)));
        let error = rate("50%").share(1, None, "memory:a").unwrap_err().to_string();
        assert!(error.contains("\"memory:a\" has no speed: give frames or bits"), "{error}");
        // The whole of it is line rate, whatever the size.
        for size in [64, 1518] {
            let share = rate("100%").share(1, ten_gigabits, "x").unwrap();
            let frames = share.frames_per_second(size as f64).unwrap();
            assert!((frames - frames_per_second(10 * SECOND, size)).abs() < 1e-3);
        }
    }

    /// Frames that a bucket lets pass in ten seconds of virtual time, polled at these intervals, and what it would have to be.
    fn ten_seconds(rate: Rate, size: usize, mut gap: impl FnMut() -> u64) -> (u64, f64) {
        let start = Instant::from_nanos(77 * SECOND);
        let (mut bucket, mut now, mut frames) = (Bucket::new(rate, CATCH_UP, start), start, 0);
        while now < start + Duration::from_secs(10) {
            bucket.refill(now);
            while bucket.take(size) {
                frames += 1;
            }
            now += Duration::from_nanos(gap());
        }
        assert_eq!(bucket.forfeited(size), 0);
        (frames, rate.frames_per_second(size as f64).unwrap() * 10.0)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn a_rate_holds_over_ten_seconds_however_it_is_polled(
            rate in prop::sample::select(vec!["100kpps", "99991pps", "1kpps", "1Mpps", "100Mbit", "3Mbit"]),
            size in prop::sample::select(vec![64usize, 594, 1518]),
            gap_max in prop::sample::select(vec![40_000u64, 500_000, 9_900_000]),
            seed: u64,
        ) {
            let mut random = fastrand::Rng::with_seed(seed);
            let (frames, wanted) = ten_seconds(rate.parse().unwrap(), size, || random.u64(100..gap_max));
            // The first frame is due at once, and the last poll may be a gap before the end.
            let slack = 2.0 + wanted * (gap_max as f64 / 1e10);
            prop_assert!((frames as f64 - wanted).abs() <= slack, "{frames} instead of {wanted}");
            prop_assert!((frames as f64 - wanted).abs() <= wanted * 0.005 + 2.0);
        }
    }

    #[test]
    fn an_absence_is_made_up_for_as_far_as_may_be_and_the_rest_is_told() {
        let start = Instant::from_nanos(SECOND);
        let mut bucket = Bucket::new(rate("100kpps"), Duration::from_millis(10), start);
        assert!(bucket.take(64) && !bucket.take(64), "the first frame is due at once");
        bucket.refill(start + Duration::from_millis(35));
        let frames = (0..).take_while(|_| bucket.take(64)).count();
        assert!((1000..=1001).contains(&frames), "10 ms of it: {frames}");
        let forfeited = bucket.forfeited(64);
        assert!((2499..=2500).contains(&forfeited), "25 ms of it: {forfeited}");
        assert_eq!(bucket.forfeited(64), 0, "told once");
    }

    #[test]
    fn what_the_device_did_not_take_is_still_due_until_the_bucket_is_full() {
        let start = Instant::from_nanos(SECOND);
        let mut bucket = Bucket::new(rate("100kpps"), Duration::from_millis(1), start);
        assert!(bucket.take(64));
        bucket.give_back(64);
        assert!(bucket.take(64), "no time had to pass");
        assert_eq!(bucket.next_due(64), start + Duration::from_micros(10));
        for ms in 1..=5 {
            bucket.refill(start + Duration::from_millis(ms));
            assert!(bucket.take(64));
            bucket.give_back(64);
        }
        assert!((399..=400).contains(&bucket.forfeited(64)), "four of five milliseconds");
    }

    #[test]
    fn slow_rates_and_fast_ones_fit_the_arithmetic() {
        for (text, size) in [("0.01pps", 64), ("1kbit", 9000), ("1000Gbit", 64), ("1000Gpps", 64)] {
            let mut bucket = Bucket::new(rate(text), CATCH_UP, Instant::ZERO);
            bucket.refill(Instant::FAR_FUTURE);
            assert!(bucket.take(size), "{text}");
            bucket.give_back(size);
            bucket.refill(Instant::ZERO);
            let _ = bucket.next_due(size);
        }
        let mut bucket = Bucket::new(Rate::Max, CATCH_UP, Instant::ZERO);
        assert!((0..1000).all(|_| bucket.take(1518)));
        assert_eq!(bucket.forfeited(64), 0);
    }
}
