//! A table of objects with generations, whose slots are recycled with the memory their objects own.
//!
//! A slot keeps its object when it becomes free: a call's queues keep their capacity for the slot's next call, so that
//! calls start and end without allocating. The table never grows past the limit given.

/// An identifier made of a slot and a generation.
pub trait Key: Copy {
    /// Puts it together.
    fn new(slot: u32, generation: u32) -> Self;
    /// Slot and generation.
    fn parts(self) -> (u32, u32);
}

/// What lives in a [`Slab`].
pub trait Recycle: Default {
    /// Brings a used object back to its first state, keeping allocations worth keeping. Must drop every buffer. What comes
    /// and goes with each call does it field by field, which the compiler checks to be all: to assign a new object and drop the
    /// old one, empty queues and all, took a fifth of the instructions of a small call.
    fn recycle(&mut self);
}

struct Slot<T> {
    /// Odd while in use.
    generation: u32,
    value: T,
}

/// The table.
pub struct Slab<K, T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    live: usize,
    limit: usize,
    key: std::marker::PhantomData<K>,
}

impl<K: Key, T: Recycle> Slab<K, T> {
    /// An empty table for at most `limit` objects.
    pub fn new(limit: usize) -> Self {
        let limit = limit.min(u32::MAX as usize);
        Self { slots: Vec::new(), free: Vec::new(), live: 0, limit, key: std::marker::PhantomData }
    }

    /// Objects in use.
    pub fn len(&self) -> usize {
        self.live
    }

    /// The most objects there may be.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Whether the next `insert` would be refused.
    pub fn is_full(&self) -> bool {
        self.live >= self.limit
    }

    /// Takes a slot whose object is in its first state. `None`: the table is full.
    pub fn insert(&mut self) -> Option<(K, &mut T)> {
        if self.is_full() {
            return None;
        }
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                self.slots.push(Slot { generation: 0, value: T::default() });
                (self.slots.len() - 1) as u32
            }
        };
        let slot = &mut self.slots[index as usize];
        slot.generation = slot.generation.wrapping_add(1);
        debug_assert!(slot.generation % 2 == 1);
        self.live += 1;
        Some((K::new(index, slot.generation), &mut slot.value))
    }

    /// Gives the slot back. False if the key is stale.
    pub fn remove(&mut self, key: K) -> bool {
        let (index, generation) = key.parts();
        match self.slots.get_mut(index as usize) {
            Some(slot) if slot.generation == generation => {
                slot.generation = slot.generation.wrapping_add(1);
                slot.value.recycle();
                self.free.push(index);
                self.live -= 1;
                true
            }
            _ => false,
        }
    }

    /// The object, unless the key is stale.
    #[inline]
    pub fn get(&self, key: K) -> Option<&T> {
        let (index, generation) = key.parts();
        self.slots.get(index as usize).filter(|slot| slot.generation == generation).map(|slot| &slot.value)
    }

    /// The object, unless the key is stale.
    #[inline]
    pub fn get_mut(&mut self, key: K) -> Option<&mut T> {
        let (index, generation) = key.parts();
        self.slots
            .get_mut(index as usize)
            .filter(|slot| slot.generation == generation)
            .map(|slot| &mut slot.value)
    }

    /// The object at a slot, and its key if it is in use: for what belongs to the slot and outlives its tenants.
    pub fn slot_mut(&mut self, index: u32) -> Option<(Option<K>, &mut T)> {
        let slot = self.slots.get_mut(index as usize)?;
        let key = (slot.generation % 2 == 1).then(|| K::new(index, slot.generation));
        Some((key, &mut slot.value))
    }

    /// All objects in use, in slot order.
    pub fn iter(&self) -> impl Iterator<Item = (K, &T)> {
        self.slots
            .iter()
            .enumerate()
            .filter(|(_, slot)| slot.generation % 2 == 1)
            .map(|(index, slot)| (K::new(index as u32, slot.generation), &slot.value))
    }

    /// Shows the objects in use from slot `from` on to `look`, until it has seen `rows` of them or `slots` slots were
    /// looked at. Returns where to go on; `None`: the table ends there.
    pub fn page(&self, from: usize, rows: usize, slots: usize, mut look: impl FnMut(K, &T)) -> Option<usize> {
        let end = from.saturating_add(slots).min(self.slots.len());
        let mut seen = 0;
        for (index, slot) in self.slots.iter().enumerate().take(end).skip(from) {
            if slot.generation.is_multiple_of(2) {
                continue;
            }
            if seen == rows {
                return Some(index);
            }
            look(K::new(index as u32, slot.generation), &slot.value);
            seen += 1;
        }
        (end < self.slots.len()).then_some(end)
    }

    /// The first object in use at or after slot `from`: for walks that change the table on their way.
    pub fn next_from(&self, from: usize) -> Option<K> {
        let index = (from..self.slots.len()).find(|&index| self.slots[index].generation % 2 == 1)?;
        Some(K::new(index as u32, self.slots[index].generation))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CallId;

    #[derive(Default)]
    struct Thing(Vec<u8>);
    impl Recycle for Thing {
        fn recycle(&mut self) {
            self.0.clear();
        }
    }

    #[test]
    fn a_stale_key_means_nothing_and_memory_is_kept() {
        let mut slab: Slab<CallId, Thing> = Slab::new(1);
        let (first, thing) = slab.insert().unwrap();
        thing.0.extend_from_slice(&[1; 100]);
        assert!(slab.insert().is_none(), "the limit holds");
        assert!(slab.remove(first));
        assert!(!slab.remove(first), "only once");
        let (second, thing) = slab.insert().unwrap();
        assert!(thing.0.is_empty() && thing.0.capacity() >= 100);
        assert!(slab.get(first).is_none() && slab.get(second).is_some());
        assert_eq!((first.slot(), slab.len()), (second.slot(), 1));
    }

    /// The objects that pages of these sizes show, and the most slots that one of them looked at.
    fn walk(slab: &Slab<CallId, Thing>, rows: usize, slots: usize) -> (Vec<CallId>, usize) {
        let (mut seen, mut longest, mut from) = (Vec::new(), 0, Some(0));
        while let Some(at) = from {
            let before = seen.len();
            from = slab.page(at, rows, slots, |key, _| seen.push(key));
            assert!(seen.len() - before <= rows, "a page of more than {rows} rows");
            longest = longest.max(from.unwrap_or(slab.slots.len()) - at);
        }
        (seen, longest)
    }

    #[test]
    fn pages_show_each_object_in_use_once_and_look_at_no_more_slots_than_they_may() {
        let mut slab: Slab<CallId, Thing> = Slab::new(1000);
        let keys: Vec<_> = (0..1000).map(|_| slab.insert().unwrap().0).collect();
        // A long stretch of free slots, and single ones.
        let (gone, stay): (Vec<_>, Vec<_>) =
            keys.into_iter().partition(|key| (200..900).contains(&key.slot()) || key.slot() % 3 == 0);
        gone.into_iter().for_each(|key| assert!(slab.remove(key)));
        for (rows, slots) in [(1, 1), (7, 64), (64, 7), (1000, 1000), (32, 128)] {
            let (seen, longest) = walk(&slab, rows, slots);
            assert!(longest <= slots, "{longest} slots in one page of {slots}");
            assert_eq!(seen, stay, "pages of {rows} rows and {slots} slots");
        }
        assert_eq!(slab.page(5000, 1, 1, |_, _| panic!("there is nothing")), None);
    }
}
