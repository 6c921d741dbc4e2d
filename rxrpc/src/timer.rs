//! The endpoint's timer wheel: one entry for each call and connection.
//!
//! Six levels of 64 slots; a tick is about a millisecond (2^20 ns). An entry sits on the level of the highest bit in
//! which its tick differs from the current one, so the lowest level in use always holds the earliest entries, and
//! `next` is a look at six words. Arming, moving and cancelling unlink in constant time. An entry never fires early; it
//! fires up to one tick late.

use pmd::Instant;

const TICK_BITS: u32 = 20;
const LEVELS: usize = 6;
const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
const NONE: u32 = u32::MAX;
/// Where an unlinked entry is.
const IDLE: u16 = u16::MAX;

/// An object's place in the wheel. Give it back with [`Wheel::free`].
#[derive(Debug)]
pub struct Timer(u32);

impl Default for Timer {
    fn default() -> Self {
        Self(NONE)
    }
}

struct Entry<K> {
    previous: u32,
    next: u32,
    /// Level * 64 + slot, or [`IDLE`].
    place: u16,
    tick: u64,
    key: K,
}

/// The wheel; `K` says whose timer an entry is.
pub struct Wheel<K> {
    entries: Vec<Entry<K>>,
    free: Vec<u32>,
    heads: [u32; LEVELS * SLOTS],
    occupied: [u64; LEVELS],
    /// Entries that are due and not handed out yet.
    due: Vec<u32>,
    tick: u64,
}

/// The first tick at or after `at`.
fn tick_of(at: Instant) -> u64 {
    at.as_nanos().div_ceil(1 << TICK_BITS)
}

impl<K: Copy> Wheel<K> {
    pub fn new() -> Self {
        Self {
            entries: Vec::new(),
            free: Vec::new(),
            heads: [NONE; LEVELS * SLOTS],
            occupied: [0; LEVELS],
            due: Vec::new(),
            tick: 0,
        }
    }

    /// (Re)arms a timer.
    pub fn arm(&mut self, timer: &mut Timer, key: K, at: Instant) {
        if timer.0 == NONE {
            let entry = Entry { previous: NONE, next: NONE, place: IDLE, tick: 0, key };
            timer.0 = match self.free.pop() {
                Some(index) => {
                    self.entries[index as usize] = entry;
                    index
                }
                None => {
                    self.entries.push(entry);
                    (self.entries.len() - 1) as u32
                }
            };
        } else {
            self.unlink(timer.0);
        }
        let entry = &mut self.entries[timer.0 as usize];
        entry.key = key;
        entry.tick = tick_of(at);
        self.link(timer.0);
    }

    /// Gives the object's entry back.
    pub fn free(&mut self, timer: &mut Timer) {
        if timer.0 != NONE {
            self.unlink(timer.0);
            self.free.push(timer.0);
            timer.0 = NONE;
        }
    }

    /// Takes one due entry out. Its object keeps it and may arm it again.
    pub fn pop_due(&mut self, now: Instant) -> Option<K> {
        let target = now.as_nanos() >> TICK_BITS;
        loop {
            while let Some(index) = self.due.pop() {
                // One that was moved or given back in the meantime is no longer due.
                let entry = &mut self.entries[index as usize];
                if entry.place == DUE {
                    entry.place = IDLE;
                    return Some(entry.key);
                }
            }
            match self.first_slot() {
                Some((level, slot, start)) if start <= target => self.open(level, slot, start),
                _ => {
                    self.tick = self.tick.max(target);
                    return None;
                }
            }
        }
    }

    /// When `pop_due` has something to do next; early where that is a move to a finer level.
    pub fn next(&self) -> Option<Instant> {
        if !self.due.is_empty() {
            return Some(Instant::from_nanos(self.tick << TICK_BITS));
        }
        self.first_slot().map(|(_, _, start)| Instant::from_nanos(start << TICK_BITS))
    }

    /// The earliest slot in use: level, slot, and the tick at which it starts.
    fn first_slot(&self) -> Option<(usize, usize, u64)> {
        let level = self.occupied.iter().position(|&slots| slots != 0)?;
        let slot = self.occupied[level].trailing_zeros() as usize;
        let shift = SLOT_BITS * level as u32;
        let above = self.tick >> (shift + SLOT_BITS) << (shift + SLOT_BITS);
        Some((level, slot, (above | (slot as u64) << shift).max(self.tick)))
    }

    /// Moves the clock to a slot's start and its entries one level down, or among the due ones.
    fn open(&mut self, level: usize, slot: usize, start: u64) {
        self.tick = start;
        let place = level * SLOTS + slot;
        let mut index = std::mem::replace(&mut self.heads[place], NONE);
        self.occupied[level] &= !(1 << slot);
        while index != NONE {
            let next = self.entries[index as usize].next;
            if level == 0 {
                self.entries[index as usize].place = DUE;
                self.due.push(index);
            } else {
                self.link(index);
            }
            index = next;
        }
    }

    fn link(&mut self, index: u32) {
        let last = self.tick | ((1 << (SLOT_BITS * LEVELS as u32)) - 1);
        let tick = self.entries[index as usize].tick.clamp(self.tick, last);
        let differs = (tick ^ self.tick) | 1;
        let level = ((63 - differs.leading_zeros()) / SLOT_BITS) as usize;
        let slot = (tick >> (SLOT_BITS * level as u32)) as usize % SLOTS;
        let place = level * SLOTS + slot;
        let head = std::mem::replace(&mut self.heads[place], index);
        if head != NONE {
            self.entries[head as usize].previous = index;
        }
        let entry = &mut self.entries[index as usize];
        (entry.previous, entry.next, entry.place) = (NONE, head, place as u16);
        self.occupied[level] |= 1 << slot;
    }

    fn unlink(&mut self, index: u32) {
        let Entry { previous, next, place, .. } = self.entries[index as usize];
        self.entries[index as usize].place = IDLE;
        if place >= DUE {
            return;
        }
        if next != NONE {
            self.entries[next as usize].previous = previous;
        }
        if previous != NONE {
            self.entries[previous as usize].next = next;
        } else {
            self.heads[place as usize] = next;
            if next == NONE {
                self.occupied[place as usize / SLOTS] &= !(1 << (place as usize % SLOTS));
            }
        }
    }
}

/// Where an entry is that waits in `due`.
const DUE: u16 = u16::MAX - 1;

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn fires_in_time_and_never_early() {
        let mut rng = fastrand::Rng::with_seed(7);
        let mut wheel = Wheel::new();
        let mut deadlines: Vec<Option<Instant>> = vec![None; 300];
        let mut timers: Vec<Timer> = (0..300).map(|_| Timer::default()).collect();
        let mut now = Instant::from_nanos(rng.u64(..1 << 50));
        for _ in 0..20_000 {
            let index = rng.usize(..300);
            match rng.u8(..4) {
                0 => {
                    wheel.free(&mut timers[index]);
                    deadlines[index] = None;
                }
                _ => {
                    let at = now + Duration::from_nanos(1 << rng.u32(10..44));
                    wheel.arm(&mut timers[index], index, at);
                    deadlines[index] = Some(at);
                }
            }
            if rng.u8(..4) == 0 {
                let earliest = deadlines.iter().flatten().min();
                if let Some(earliest) = earliest {
                    let next = wheel.next().expect("something is armed");
                    assert!(next.as_nanos() <= earliest.as_nanos() + (1 << TICK_BITS), "next is late");
                }
                now += Duration::from_nanos(1 << rng.u32(10..36));
                while let Some(index) = wheel.pop_due(now) {
                    let at = deadlines[index].take().expect("fired and was not armed");
                    assert!(at <= now, "fired early");
                }
                for at in deadlines.iter().flatten() {
                    assert!(at.as_nanos() + (1 << TICK_BITS) > now.as_nanos(), "was missed");
                }
            }
        }
    }
}
