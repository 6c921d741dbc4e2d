//! A hierarchical timer wheel: plain data, driven by the `now` it is given.
//!
//! Arming, cancelling and firing are O(1); all entries are allocated at the start. A timer never fires early and fires at most
//! one tick late, if the owner polls often enough. Each timer carries a token of the user's choosing.
//!
//! Deliberately absent: callbacks, threads, a clock. One owner; nothing here is shared.

use pmd::Instant;

const LEVEL_BITS: u32 = 6;
const SLOTS: usize = 1 << LEVEL_BITS;
/// Enough levels for every 64-bit tick, so that no deadline is out of range and no level wraps.
const LEVELS: usize = 64usize.div_ceil(LEVEL_BITS as usize);
const NONE: u32 = u32::MAX;
/// Pseudo-lists beside the slots: due timers, in firing order.
const DUE: usize = LEVELS * SLOTS;

/// Names an armed timer. Stale IDs (fired or cancelled) are recognised by their generation and do nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct TimerId {
    slot: u32,
    generation: u32,
}

/// The wheel was built for fewer timers than are armed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("all {capacity} timers are armed: build the wheel with a larger capacity")]
pub struct TimersFull {
    /// What the wheel was built for.
    pub capacity: usize,
}

#[derive(Clone, Copy)]
struct Entry {
    /// The tick at which it fires.
    when: u64,
    token: u64,
    prev: u32,
    next: u32,
    generation: u32,
    /// Which list it is on; `u32::MAX` while free.
    list: u32,
}

#[derive(Clone, Copy)]
struct List {
    head: u32,
    tail: u32,
}

/// The wheel. Time is counted in ticks of `2^shift` nanoseconds.
pub struct TimerWheel {
    shift: u32,
    /// Every timer with `when <= tick` is due or has fired.
    tick: u64,
    entries: Box<[Entry]>,
    free: u32,
    armed: usize,
    lists: Box<[List; DUE + 1]>,
    /// One bit per slot that is not empty.
    occupied: [u64; LEVELS],
    /// One bit per level that is not empty.
    levels: u32,
}

impl TimerWheel {
    /// A wheel for at most `capacity` armed timers whose tick is the largest power of two of nanoseconds not above `tick_nanos`.
    pub fn new(now: Instant, capacity: usize, tick_nanos: u64) -> Self {
        assert!(capacity < NONE as usize, "a wheel holds fewer than 2^32 - 1 timers");
        let shift = tick_nanos.max(1).ilog2();
        let entry = |i: usize| Entry {
            when: 0,
            token: 0,
            prev: NONE,
            next: if i + 1 < capacity { i as u32 + 1 } else { NONE },
            generation: 0,
            list: NONE,
        };
        Self {
            shift,
            tick: now.as_nanos() >> shift,
            entries: (0..capacity).map(entry).collect(),
            free: if capacity == 0 { NONE } else { 0 },
            armed: 0,
            lists: Box::new([List { head: NONE, tail: NONE }; DUE + 1]),
            occupied: [0; LEVELS],
            levels: 0,
        }
    }

    /// Timers armed now, due ones included.
    pub fn len(&self) -> usize {
        self.armed
    }

    /// Whether no timer is armed.
    pub fn is_empty(&self) -> bool {
        self.armed == 0
    }

    /// The length of a tick in nanoseconds: how late a timer may fire.
    pub fn tick_nanos(&self) -> u64 {
        1 << self.shift
    }

    /// Arms a timer that [`poll`](Self::poll) yields once `now >= at`.
    pub fn arm(&mut self, at: Instant, token: u64) -> Result<TimerId, TimersFull> {
        let slot = self.free;
        if slot == NONE {
            return Err(TimersFull { capacity: self.entries.len() });
        }
        let tick_mask = (1u64 << self.shift) - 1;
        let nanos = at.as_nanos();
        let when = (nanos >> self.shift) + u64::from(nanos & tick_mask != 0);
        let entry = &mut self.entries[slot as usize];
        self.free = entry.next;
        entry.when = when;
        entry.token = token;
        let id = TimerId { slot, generation: entry.generation };
        self.armed += 1;
        self.place(slot);
        Ok(id)
    }

    /// Disarms a timer. `None`: it has fired or was cancelled before.
    pub fn cancel(&mut self, id: TimerId) -> Option<u64> {
        let entry = self.entries.get(id.slot as usize)?;
        if entry.generation != id.generation || entry.list == NONE {
            return None;
        }
        let token = entry.token;
        self.unlink(id.slot);
        self.release(id.slot);
        Some(token)
    }

    /// The token of one timer that is due at `now`, earliest tick first; `None` when no more is.
    /// The owner may arm and cancel between calls.
    pub fn poll(&mut self, now: Instant) -> Option<u64> {
        let target = now.as_nanos() >> self.shift;
        while self.lists[DUE].head == NONE {
            match self.next_slot() {
                Some((slot, at)) if at <= target => {
                    self.tick = self.tick.max(at);
                    self.cascade(slot);
                }
                _ => {
                    self.tick = self.tick.max(target);
                    return None;
                }
            }
        }
        let slot = self.lists[DUE].head;
        let token = self.entries[slot as usize].token;
        self.unlink(slot);
        self.release(slot);
        Some(token)
    }

    /// When to poll next. Never later than the earliest timer; earlier when far timers must move to a finer level first.
    pub fn next_timeout(&self) -> Option<Instant> {
        if self.lists[DUE].head != NONE {
            return Some(Instant::from_nanos(self.tick << self.shift));
        }
        let (_, at) = self.next_slot()?;
        Some(Instant::from_nanos(if at > u64::MAX >> self.shift { u64::MAX } else { at << self.shift }))
    }

    /// The first slot that is not empty and the tick at which it begins. A lower level is always earlier than a higher one.
    fn next_slot(&self) -> Option<(usize, u64)> {
        if self.levels == 0 {
            return None;
        }
        let level = self.levels.trailing_zeros() as usize;
        let index = self.occupied[level].trailing_zeros() as usize;
        let low = level as u32 * LEVEL_BITS;
        let above = u64::MAX.checked_shl(low + LEVEL_BITS).unwrap_or(0);
        Some((level * SLOTS + index, (self.tick & above) | ((index as u64) << low)))
    }

    /// Moves a slot's timers to where they belong at the present tick: a finer level, or the due list.
    fn cascade(&mut self, slot: usize) {
        let mut at = self.lists[slot].head;
        self.lists[slot] = List { head: NONE, tail: NONE };
        self.clear_bit(slot);
        while at != NONE {
            let next = self.entries[at as usize].next;
            self.place(at);
            at = next;
        }
    }

    /// Puts a timer on the list of its tick. The level is that of the highest bit in which its tick differs from the present one.
    fn place(&mut self, entry: u32) {
        let when = self.entries[entry as usize].when;
        if when <= self.tick {
            return self.link(entry, DUE);
        }
        let level = (63 - ((when ^ self.tick) | (SLOTS as u64 - 1)).leading_zeros()) / LEVEL_BITS;
        let index = (when >> (level * LEVEL_BITS)) as usize & (SLOTS - 1);
        self.occupied[level as usize] |= 1 << index;
        self.levels |= 1 << level;
        self.link(entry, level as usize * SLOTS + index);
    }

    fn link(&mut self, entry: u32, list: usize) {
        let tail = self.lists[list].tail;
        let e = &mut self.entries[entry as usize];
        e.prev = tail;
        e.next = NONE;
        e.list = list as u32;
        match tail {
            NONE => self.lists[list].head = entry,
            _ => self.entries[tail as usize].next = entry,
        }
        self.lists[list].tail = entry;
    }

    fn unlink(&mut self, entry: u32) {
        let Entry { prev, next, list, .. } = self.entries[entry as usize];
        let list = list as usize;
        match prev {
            NONE => self.lists[list].head = next,
            _ => self.entries[prev as usize].next = next,
        }
        match next {
            NONE => self.lists[list].tail = prev,
            _ => self.entries[next as usize].prev = prev,
        }
        if self.lists[list].head == NONE && list != DUE {
            self.clear_bit(list);
        }
    }

    fn clear_bit(&mut self, slot: usize) {
        let level = slot / SLOTS;
        self.occupied[level] &= !(1 << (slot % SLOTS));
        if self.occupied[level] == 0 {
            self.levels &= !(1 << level);
        }
    }

    fn release(&mut self, slot: u32) {
        let entry = &mut self.entries[slot as usize];
        entry.generation = entry.generation.wrapping_add(1);
        entry.list = NONE;
        entry.next = self.free;
        self.free = slot;
        self.armed -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(nanos: u64) -> Instant {
        Instant::from_nanos(nanos)
    }

    #[test]
    fn fires_in_order_and_never_early() {
        let mut wheel = TimerWheel::new(at(0), 8, 1000);
        for (i, t) in [70_000u64, 5_000, 1_000_000_000, 5_001].iter().enumerate() {
            wheel.arm(at(*t), i as u64).unwrap();
        }
        assert_eq!(wheel.poll(at(4_999)), None);
        assert_eq!(wheel.poll(at(10_000)), Some(1));
        assert_eq!(wheel.poll(at(10_000)), Some(3));
        assert_eq!(wheel.poll(at(10_000)), None);
        assert_eq!(wheel.poll(at(2_000_000_000)), Some(0));
        assert_eq!(wheel.poll(at(2_000_000_000)), Some(2));
        assert!(wheel.is_empty());
        assert_eq!(wheel.next_timeout(), None);
    }

    #[test]
    fn full_wheel_refuses_by_name_and_recovers() {
        let mut wheel = TimerWheel::new(at(0), 1, 1);
        let id = wheel.arm(at(9), 1).unwrap();
        assert_eq!(wheel.arm(at(9), 2), Err(TimersFull { capacity: 1 }));
        assert_eq!(wheel.cancel(id), Some(1));
        assert_eq!(wheel.cancel(id), None);
        let again = wheel.arm(at(9), 3).unwrap();
        assert_ne!(id, again);
        assert_eq!(wheel.cancel(id), None, "a stale ID must not cancel its slot's next timer");
        assert_eq!(wheel.poll(at(9)), Some(3));
    }

    #[test]
    fn far_future_neither_wraps_nor_panics() {
        let mut wheel = TimerWheel::new(at(12_345), 4, 1 << 10);
        wheel.arm(at(u64::MAX), 7).unwrap();
        assert!(wheel.next_timeout().unwrap() > at(12_345));
        assert_eq!(wheel.poll(at(u64::MAX >> 1)), None);
        assert_eq!(wheel.len(), 1);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Arm(u64),
        Cancel(usize),
        Advance(u64),
    }

    fn delay() -> impl Strategy<Value = u64> {
        prop_oneof![0..5_000u64, 0..500_000u64, 0..100_000_000_000u64]
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => delay().prop_map(Step::Arm),
            1 => (0..64usize).prop_map(Step::Cancel),
            2 => delay().prop_map(Step::Advance),
        ]
    }

    proptest! {
        /// The model: a list of (deadline, token), sorted on demand.
        #[test]
        fn agrees_with_a_sorted_list(start in 0..u64::MAX / 4, shift in 0..18u32, steps in prop::collection::vec(step(), 1..200)) {
            let mut now = start;
            let tick = 1u64 << shift;
            let mut wheel = TimerWheel::new(at(now), 64, tick);
            let mut model: Vec<(u64, u64, TimerId)> = Vec::new();
            let mut tokens = 0;
            for step in steps {
                match step {
                    Step::Arm(delay) => {
                        let armed = wheel.arm(at(now + delay), tokens);
                        prop_assert_eq!(armed.is_ok(), model.len() < 64);
                        if let Ok(id) = armed {
                            model.push((now + delay, tokens, id));
                        }
                        tokens += 1;
                    }
                    Step::Cancel(n) if !model.is_empty() => {
                        let (_, token, id) = model.swap_remove(n % model.len());
                        prop_assert_eq!(wheel.cancel(id), Some(token));
                        prop_assert_eq!(wheel.cancel(id), None);
                    }
                    Step::Cancel(_) => {}
                    Step::Advance(by) => {
                        now += by;
                        let mut last = 0;
                        while let Some(token) = wheel.poll(at(now)) {
                            let i = model.iter().position(|m| m.1 == token).expect("fired twice, or after a cancel");
                            let (deadline, ..) = model.swap_remove(i);
                            prop_assert!(deadline <= now, "early by {}", deadline - now);
                            prop_assert!(deadline.div_ceil(tick) >= last, "out of order");
                            last = deadline.div_ceil(tick);
                        }
                        for (deadline, ..) in &model {
                            prop_assert!(now < deadline + tick, "late by more than a tick");
                        }
                    }
                }
                prop_assert_eq!(wheel.len(), model.len());
                let earliest = model.iter().map(|m| m.0).min();
                match (wheel.next_timeout(), earliest) {
                    (None, None) => {}
                    (Some(next), Some(earliest)) => prop_assert!(next.as_nanos() < earliest + tick, "would oversleep"),
                    (next, earliest) => prop_assert!(false, "{next:?} against {earliest:?}"),
                }
            }
        }
    }
}
