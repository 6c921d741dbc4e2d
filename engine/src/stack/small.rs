//! Small parts: keyed hashing, identifications, a rate limit.

use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

use pmd::Instant;
use siphasher::sip::SipHasher13;

/// Hashes keys that peers choose: keyed, so that they cannot fill one bucket.
#[derive(Clone, Copy)]
pub struct Keyed(pub u64, pub u64);

impl BuildHasher for Keyed {
    type Hasher = SipHasher13;
    fn build_hasher(&self) -> SipHasher13 {
        SipHasher13::new_with_keys(self.0, self.1)
    }
}

/// Hashes keys of our own choice (our addresses): one multiplication a word.
#[derive(Clone, Copy, Default)]
pub struct Fold(u64);

impl Hasher for Fold {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.write_u64(u64::from(byte)));
    }
    fn write_u32(&mut self, word: u32) {
        self.write_u64(u64::from(word));
    }
    fn write_u64(&mut self, word: u64) {
        let product = u128::from(self.0 ^ word ^ 0x243f_6a88_85a3_08d3) * 0x9e37_79b9_7f4a_7c15;
        self.0 = (product >> 64) as u64 ^ product as u64;
    }
    fn write_u128(&mut self, word: u128) {
        self.write_u64(word as u64);
        self.write_u64((word >> 64) as u64);
    }
}

/// Values for IP identification fields: a counter behind a keyed permutation, so that they do not tell what else we
/// send and yet do not repeat within a period of the counter (RFC 7739 section 5). Cores count in strides: no two
/// cores of an engine give out the same value.
pub struct Identification {
    counter: u32,
    stride: u32,
    key: u64,
}

impl Identification {
    pub fn new(key: u64, core: usize, cores: usize) -> Self {
        // A power of two divides both periods, so that the strides stay apart when the counter wraps.
        Identification { counter: core as u32, stride: cores.next_power_of_two() as u32, key }
    }

    /// For IPv4: 16 bits.
    pub fn next16(&mut self) -> u16 {
        permute(self.step(), 8, self.key) as u16
    }

    /// For IPv6: 32 bits.
    pub fn next32(&mut self) -> u32 {
        permute(self.step(), 16, self.key)
    }

    fn step(&mut self) -> u32 {
        let value = self.counter;
        self.counter = value.wrapping_add(self.stride);
        value
    }
}

/// A four-round Feistel network over the low two halves of `half` bits: whatever the round function, a permutation.
fn permute(value: u32, half: u32, key: u64) -> u32 {
    let mask = (1u32 << half) - 1;
    let (mut left, mut right) = (value >> half & mask, value & mask);
    for round in 0..4 {
        let mixed = (u64::from(right) + 1).wrapping_mul(key.rotate_left(round * 16) | 1);
        (left, right) = (right, left ^ ((mixed >> 32) as u32 & mask));
    }
    left << half | right
}

/// A token bucket: so many a second, a burst of a tenth of a second at once.
pub struct RateLimit {
    per_second: u32,
    tokens: u64,
    filled: Instant,
}

/// Tokens are counted in billionths, so that a nanosecond adds `per_second` of them.
const TOKEN: u64 = 1_000_000_000;

impl RateLimit {
    pub fn new(per_second: u32) -> Self {
        let mut limit = RateLimit { per_second, tokens: 0, filled: Instant::ZERO };
        limit.tokens = limit.burst();
        limit
    }

    fn burst(&self) -> u64 {
        u64::from(self.per_second).div_ceil(10).max(1) * TOKEN
    }

    /// Takes a token, if there is one.
    pub fn take(&mut self, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.filled).min(Duration::from_secs(1));
        self.filled = now.max(self.filled);
        let earned = elapsed.as_nanos() as u64 * u64::from(self.per_second);
        self.tokens = (self.tokens + earned).min(self.burst());
        let granted = self.per_second > 0 && self.tokens >= TOKEN;
        if granted {
            self.tokens -= TOKEN;
        }
        granted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn identifications_of_all_cores_are_distinct_for_a_whole_period() {
        let mut seen = HashSet::new();
        let mut sequence = Vec::new();
        for core in 0..4 {
            let mut ids = Identification::new(0x1234_5678_9abc_def1, core, 4);
            for _ in 0..65536 / 4 {
                let id = ids.next16();
                assert!(seen.insert(id), "{id} was given out twice");
                sequence.push(id);
            }
        }
        let steps = sequence.windows(2).filter(|pair| pair[1].wrapping_sub(pair[0]) == 4).count();
        assert!(steps < 100, "{steps} of 65535 identifications follow their predecessor");
    }

    #[test]
    fn identifications_depend_on_the_key() {
        let mut a = Identification::new(1, 0, 1);
        let mut b = Identification::new(2, 0, 1);
        let same = (0..1000).filter(|_| a.next32() == b.next32()).count();
        assert!(same < 10, "{same} of 1000 identifications are the same under another key");
    }

    #[test]
    fn rate_limit_grants_a_burst_and_then_its_rate() {
        let mut limit = RateLimit::new(100);
        let at = |ms: u64| Instant::from_nanos(ms * 1_000_000);
        assert_eq!((0..1000).filter(|_| limit.take(at(0))).count(), 10);
        let granted = (1..=2000).filter(|&ms| limit.take(at(ms))).count();
        assert_eq!(granted, 200);
        assert!(!RateLimit::new(0).take(at(5)));
    }
}
