//! A table of fixed size: found by key, forgotten by age.
//!
//! All room is laid out at the start. Entries hang on three threads of slot numbers: their bucket's chain, and one of two
//! lists by time of last use. What is new and what has proven itself age apart, so that a flood of the first can be cleared
//! away without touching the second. Everything takes the same time however full it is: keys are hashed under a secret, so
//! that who chooses them does not choose the buckets.

use std::hash::{Hash, Hasher};
use std::time::Duration;

use pmd::Instant;
use siphasher::sip::SipHasher13;

const NONE: u32 = u32::MAX;

/// Uses within this time of the last one written down are not written down: a packet need not move its entry.
pub(crate) const GRAIN: Duration = Duration::from_secs(1);

/// Names an entry; of one that is gone it names nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Id {
    at: u32,
    generation: u32,
}

/// Which of the two lists an entry is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Age {
    /// Both ends have not been heard yet.
    New,
    /// Both ends have.
    Proven,
}

struct Slot<K, V> {
    entry: Option<(K, V)>,
    generation: u32,
    /// The next of its bucket; of a free slot, the next free one.
    next: u32,
    older: u32,
    newer: u32,
    used: Instant,
    age: Age,
}

#[derive(Clone, Copy)]
struct List {
    oldest: u32,
    newest: u32,
}

/// See the module's head.
pub(crate) struct Table<K, V> {
    keys: (u64, u64),
    /// A power of two of them; each the first slot of a chain.
    buckets: Vec<u32>,
    slots: Vec<Slot<K, V>>,
    free: u32,
    len: usize,
    lists: [List; 2],
}

impl<K: Hash + Eq + Copy, V> Table<K, V> {
    /// For so many entries; `keys` are the hash's.
    pub fn new(capacity: usize, keys: (u64, u64)) -> Self {
        assert!(capacity < NONE as usize, "slot numbers have 32 bits");
        let slots = (0..capacity as u32).map(|at| Slot {
            entry: None,
            generation: 0,
            next: if at + 1 < capacity as u32 { at + 1 } else { NONE },
            older: NONE,
            newer: NONE,
            used: Instant::default(),
            age: Age::New,
        });
        Self {
            keys,
            buckets: vec![NONE; capacity.next_power_of_two()],
            slots: slots.collect(),
            free: if capacity > 0 { 0 } else { NONE },
            len: 0,
            lists: [List { oldest: NONE, newest: NONE }; 2],
        }
    }

    /// Entries there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no room.
    pub fn is_full(&self) -> bool {
        self.free == NONE
    }

    fn bucket(&self, key: &K) -> usize {
        let mut hasher = SipHasher13::new_with_keys(self.keys.0, self.keys.1);
        key.hash(&mut hasher);
        hasher.finish() as usize & (self.buckets.len() - 1)
    }

    /// The entry with this key.
    pub fn find(&self, key: &K) -> Option<Id> {
        let mut at = self.buckets[self.bucket(key)];
        while at != NONE {
            let slot = &self.slots[at as usize];
            match &slot.entry {
                Some((held, _)) if held == key => return Some(Id { at, generation: slot.generation }),
                _ => at = slot.next,
            }
        }
        None
    }

    fn slot(&self, id: Id) -> Option<&Slot<K, V>> {
        self.slots.get(id.at as usize).filter(|slot| slot.generation == id.generation)
    }

    /// What the entry holds, unless it is gone.
    pub fn get(&self, id: Id) -> Option<(&K, &V)> {
        self.slot(id)?.entry.as_ref().map(|(key, value)| (key, value))
    }

    /// The same, to change it.
    pub fn get_mut(&mut self, id: Id) -> Option<&mut V> {
        let slot = self.slots.get_mut(id.at as usize).filter(|slot| slot.generation == id.generation)?;
        slot.entry.as_mut().map(|(_, value)| value)
    }

    /// A new entry, used now. There must be room, and none with this key.
    pub fn insert(&mut self, now: Instant, key: K, value: V) -> Id {
        assert!(!self.is_full(), "asked is_full before");
        debug_assert!(self.find(&key).is_none(), "one entry for each key");
        let (at, bucket) = (self.free, self.bucket(&key));
        let next = std::mem::replace(&mut self.buckets[bucket], at);
        let slot = &mut self.slots[at as usize];
        self.free = std::mem::replace(&mut slot.next, next);
        slot.entry = Some((key, value));
        (slot.used, slot.age) = (now, Age::New);
        self.len += 1;
        self.append(at);
        Id { at, generation: self.slots[at as usize].generation }
    }

    /// Takes an entry out, unless it is gone.
    pub fn remove(&mut self, id: Id) -> Option<(K, V)> {
        let (key, _) = self.get(id)?;
        let bucket = self.bucket(key);
        self.unlink(id.at);
        let next = self.slots[id.at as usize].next;
        if self.buckets[bucket] == id.at {
            self.buckets[bucket] = next;
        } else {
            let mut before = self.buckets[bucket];
            while self.slots[before as usize].next != id.at {
                before = self.slots[before as usize].next;
            }
            self.slots[before as usize].next = next;
        }
        let free = std::mem::replace(&mut self.free, id.at);
        let slot = &mut self.slots[id.at as usize];
        slot.next = free;
        slot.generation = slot.generation.wrapping_add(1);
        self.len -= 1;
        slot.entry.take()
    }

    /// It is in use, and of this age from now on.
    pub fn touch(&mut self, now: Instant, id: Id, age: Age) {
        let Some(slot) = self.slot(id) else { return };
        if slot.age == age && now.saturating_duration_since(slot.used) < GRAIN {
            return;
        }
        self.unlink(id.at);
        let slot = &mut self.slots[id.at as usize];
        (slot.used, slot.age) = (now, age);
        self.append(id.at);
    }

    /// Whether it has proven itself.
    pub fn age(&self, id: Id) -> Age {
        self.slot(id).map_or(Age::New, |slot| slot.age)
    }

    /// The entry of this age that was used longest ago, and when.
    pub fn oldest(&self, age: Age) -> Option<(Id, Instant)> {
        let at = self.lists[age as usize].oldest;
        let slot = self.slots.get(at as usize)?;
        Some((Id { at, generation: slot.generation }, slot.used))
    }

    /// Shows the entries from slot `from` on, with when each was used, until `show` says no or `slots` were looked at. Returns where to
    /// go on; `None`: the table ends there.
    pub fn page(
        &self,
        from: usize,
        slots: usize,
        mut show: impl FnMut(&K, &V, Age, Instant) -> bool,
    ) -> Option<usize> {
        let end = from.saturating_add(slots).min(self.slots.len());
        for (at, slot) in self.slots.iter().enumerate().take(end).skip(from) {
            let Some((key, value)) = &slot.entry else { continue };
            if !show(key, value, slot.age, slot.used) {
                return Some(at);
            }
        }
        (end < self.slots.len()).then_some(end)
    }

    /// When an entry was used last, give or take a [`GRAIN`].
    pub fn last_used(&self) -> Option<Instant> {
        self.lists.iter().filter_map(|list| Some(self.slots.get(list.newest as usize)?.used)).max()
    }

    /// Puts a slot behind the newest of its age.
    fn append(&mut self, at: u32) {
        let list = &mut self.lists[self.slots[at as usize].age as usize];
        let older = std::mem::replace(&mut list.newest, at);
        if older == NONE {
            list.oldest = at;
        } else {
            self.slots[older as usize].newer = at;
        }
        let slot = &mut self.slots[at as usize];
        (slot.older, slot.newer) = (older, NONE);
    }

    /// Takes a slot off its list.
    fn unlink(&mut self, at: u32) {
        let Slot { older, newer, age, .. } = self.slots[at as usize];
        let list = &mut self.lists[age as usize];
        match older {
            NONE => list.oldest = newer,
            older => self.slots[older as usize].newer = newer,
        }
        match newer {
            NONE => self.lists[age as usize].newest = older,
            newer => self.slots[newer as usize].older = older,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn at(seconds: u64) -> Instant {
        Instant::from_nanos(seconds * 1_000_000_000)
    }

    /// Against a map and plain vectors, whatever is done to it.
    #[test]
    fn it_is_a_map_with_two_orders() {
        for seed in 0..50 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut table: Table<u32, u32> = Table::new(40, (seed, 7));
            let mut model: HashMap<u32, (u32, Id)> = HashMap::new();
            let mut orders: [Vec<u32>; 2] = Default::default();
            for step in 0..2000 {
                let (now, key) = (at(2 * step), random.u32(0..60));
                match random.u8(0..4) {
                    0 | 1 if !model.contains_key(&key) && !table.is_full() => {
                        let id = table.insert(now, key, key * 3);
                        model.insert(key, (key * 3, id));
                        orders[0].push(key);
                    }
                    2 => {
                        let age = if random.bool() { Age::New } else { Age::Proven };
                        if let Some((_, id)) = model.get(&key) {
                            orders.iter_mut().for_each(|order| order.retain(|other| *other != key));
                            orders[age as usize].push(key);
                            table.touch(now, *id, age);
                            assert_eq!(table.age(*id), age, "SEED={seed}");
                            assert_eq!(table.last_used(), Some(now), "SEED={seed}");
                        }
                    }
                    _ => {
                        if let Some((value, id)) = model.remove(&key) {
                            orders.iter_mut().for_each(|order| order.retain(|other| *other != key));
                            assert_eq!(table.remove(id), Some((key, value)), "SEED={seed}");
                            assert!(table.get(id).is_none() && table.remove(id).is_none(), "SEED={seed}");
                        }
                    }
                }
                assert_eq!((table.len(), table.is_full()), (model.len(), model.len() == 40), "SEED={seed}");
                for key in 0..60 {
                    let found = table.find(&key).map(|id| (*table.get(id).expect("found").1, id));
                    assert_eq!(found, model.get(&key).copied(), "SEED={seed} key {key}");
                }
                for age in [Age::New, Age::Proven] {
                    let oldest = table.oldest(age).map(|(id, _)| *table.get(id).expect("listed").0);
                    assert_eq!(oldest, orders[age as usize].first().copied(), "SEED={seed}");
                }
            }
        }
    }

    #[test]
    fn a_use_right_after_another_is_not_written_down() {
        let mut table: Table<u32, ()> = Table::new(2, (1, 2));
        let (first, second) = (table.insert(at(1), 1, ()), table.insert(at(1), 2, ()));
        table.touch(at(1) + GRAIN / 2, first, Age::New);
        assert_eq!(table.oldest(Age::New), Some((first, at(1))));
        table.touch(at(1) + GRAIN, first, Age::New);
        assert_eq!(table.oldest(Age::New), Some((second, at(1))));
    }

    #[test]
    fn none_at_all_is_a_size_too() {
        let table: Table<u32, ()> = Table::new(0, (1, 2));
        assert!(table.is_full() && table.find(&1).is_none() && table.oldest(Age::New).is_none());
    }
}
