//! The receiver's side of a stream: which sequence numbers came, and how.
//!
//! A bit for each of the last [`WINDOW`] numbers, and nothing else; a frame costs one bit. What comes further behind cannot be judged any
//! more and is said to be late. Numbers have 40 bits and go round.

/// How far behind the latest frame another may come and still be told for the first or for a duplicate.
pub const WINDOW: u64 = 1 << 16;

const WORDS: usize = (WINDOW / 64) as usize;
const ROUND: u64 = 1 << 40;
/// How far ahead of the latest a number may be: more frames are not lost in a row. What is further ahead is of another run, whose numbers
/// began elsewhere.
const AHEAD: u64 = 1 << 32;

/// How a sequence number came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// For the first time, and after all that are lower (RFC 4737's "in order").
    InOrder,
    /// For the first time, and after a higher one.
    Reordered,
    /// Not for the first time.
    Duplicate,
    /// More than a window behind the latest: not to be judged.
    Late,
    /// From before the first that this tracker is about, or absurdly far ahead: of another run.
    Stale,
}

/// The sequence numbers of one stream.
#[derive(Clone, Debug)]
pub struct Tracker {
    seen: Box<[u64; WORDS]>,
    /// The lowest number that is tracked, from which all are counted.
    first: u64,
    /// One more than the highest that came, less `first`.
    next: u64,
}

impl Tracker {
    /// For a stream whose first frame has this number.
    pub fn starting_at(first: u64) -> Tracker {
        Tracker { seen: Box::new([0; WORDS]), first: first % ROUND, next: 0 }
    }

    /// Begins anew: what was sent before number `first` is stale.
    pub fn restart_at(&mut self, first: u64) {
        self.seen.fill(0);
        (self.first, self.next) = (first % ROUND, 0);
    }

    /// Takes note of a number.
    #[inline]
    pub fn note(&mut self, sequence: u64) -> Arrival {
        let ahead = sequence.wrapping_sub(self.first.wrapping_add(self.next)) & (ROUND - 1);
        if ahead < AHEAD {
            self.advance(ahead + 1);
            self.set(self.next - 1);
            return Arrival::InOrder;
        }
        let behind = ROUND - ahead;
        if behind > self.next {
            return Arrival::Stale;
        }
        if behind > WINDOW {
            return Arrival::Late;
        }
        if self.set(self.next - behind) { Arrival::Duplicate } else { Arrival::Reordered }
    }

    /// Makes `n` numbers known that have not come yet. Costs a word in 64 of them, and a whole window at most.
    fn advance(&mut self, n: u64) {
        let (from, to) = (self.next, self.next + n);
        self.next = to;
        if n >= WINDOW {
            self.seen.fill(0);
            return;
        }
        let mut at = from;
        while at < to {
            let end = to.min((at | 63) + 1);
            let bits = if end - at == 64 { !0 } else { ((1 << (end - at)) - 1) << (at % 64) };
            self.seen[Self::word(at)] &= !bits;
            at = end;
        }
    }

    /// Sets a number's bit; whether it was set.
    #[inline]
    fn set(&mut self, at: u64) -> bool {
        let (word, bit) = (&mut self.seen[Self::word(at)], 1 << (at % 64));
        let was = *word & bit != 0;
        *word |= bit;
        was
    }

    #[inline]
    fn word(at: u64) -> usize {
        (at % WINDOW / 64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    /// All numbers ever seen, and no window but in the rule.
    struct Naive {
        first: u64,
        seen: BTreeSet<u64>,
    }

    impl Naive {
        fn note(&mut self, number: u64) -> Arrival {
            let next = self.seen.last().map_or(self.first, |last| last + 1);
            let arrival = if number >= next {
                Arrival::InOrder
            } else if number < self.first {
                Arrival::Stale
            } else if next - number > WINDOW {
                Arrival::Late
            } else if self.seen.contains(&number) {
                Arrival::Duplicate
            } else {
                Arrival::Reordered
            };
            if matches!(arrival, Arrival::InOrder | Arrival::Reordered) {
                self.seen.insert(number);
            }
            arrival
        }
    }

    /// Steps of all sizes that matter, from the highest so far.
    fn step() -> impl Strategy<Value = i64> {
        prop_oneof![
            6 => -3i64..4,
            3 => -200i64..200,
            2 => prop::sample::select(vec![-65_537, -65_536, -65_535, 65_535, 65_536, 65_537, -64, 63, 64]),
            1 => -200_000i64..200_000,
        ]
    }

    proptest! {
        #[test]
        fn a_tracker_is_the_naive_model(
            first in prop_oneof![Just(500_000u64), Just(ROUND - 70_000), Just(ROUND - 1)],
            steps in prop::collection::vec(step(), 1..400),
        ) {
            // The model's numbers do not go round.
            let mut naive = Naive { first, seen: BTreeSet::new() };
            let mut tracker = Tracker::starting_at(first);
            for step in steps {
                let highest = naive.seen.last().copied().unwrap_or(first);
                let number = highest.saturating_add_signed(step);
                prop_assert_eq!(tracker.note(number % ROUND), naive.note(number), "number {}", number);
            }
        }
    }

    #[test]
    fn a_window_is_full_and_one_number_more_is_late() {
        let mut tracker = Tracker::starting_at(10);
        for number in 10..10 + WINDOW {
            assert_eq!(tracker.note(number), Arrival::InOrder);
        }
        assert_eq!(tracker.note(10), Arrival::Duplicate);
        assert_eq!(tracker.note(10 + WINDOW), Arrival::InOrder);
        assert_eq!(tracker.note(10), Arrival::Late);
        assert_eq!(tracker.note(9), Arrival::Stale);
        assert_eq!(tracker.note(10 + WINDOW + AHEAD + 1), Arrival::Stale);
        tracker.restart_at(1000);
        assert_eq!(tracker.note(999), Arrival::Stale);
        assert_eq!(tracker.note(1001), Arrival::InOrder);
        assert_eq!(tracker.note(1000), Arrival::Reordered);
    }
}
