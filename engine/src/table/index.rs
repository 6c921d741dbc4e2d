//! Hash to candidates: buckets of one cache line, seven words each, and a list of further buckets behind those that are full.
//!
//! A word is 32 bits of the hash and a slot's number, written by one store, so no reader ever sees half of an entry. Buckets are
//! scanned whole: to remove an entry is to clear its word, and nothing else ever moves. An overflow bucket that is empty is taken off
//! its list; a reader that stands in it goes on along its link, which stays until a grace period has passed.

use std::hint::select_unpredictable;

use pmd::RegionError;

use super::places::Places;
use super::zeroed::{Zeroable, Zeroed};
use crate::sync::{AtomicU32, AtomicU64, Ordering};

const ENTRIES: usize = 7;
/// Entries of a full table for so many buckets: one bucket in 240 has a second line then, which a look-up cannot fetch in advance.
const LOAD: (usize, usize) = (5, 2);

#[derive(Default)]
#[repr(C, align(64))]
struct Bucket {
    /// Upper half: [`tag`]; lower half: the slot's number plus one. Zero: no entry.
    entries: [AtomicU64; ENTRIES],
    /// The next bucket of the chain; zero, which is never one: none. In a free bucket: the link of [`Places`].
    next: AtomicU32,
}

const _: () = assert!(cfg!(loom) || size_of::<Bucket>() == 64);
/// The most that an entry differs from its tag by.
const CANDIDATE_MAX: u64 = u32::MAX as u64;

// SAFETY: atomics are plain integers; zeros are what Default gives.
unsafe impl Zeroable for Bucket {}

pub(super) struct Index {
    /// First those that hashes point at, then those for overflow: one for each slot, since a linked one has an entry and one that waits
    /// for its grace period waits with a slot. So there is always one left.
    buckets: Zeroed<Bucket>,
    /// How many hashes point at.
    homes: u32,
    spare: Places,
}

#[inline]
fn tag(hash: u64) -> u64 {
    // Never zero, so that no entry looks like none.
    (hash >> 32) | 1
}

#[inline]
fn word(hash: u64, slot: u32) -> u64 {
    tag(hash) << 32 | u64::from(slot + 1)
}

impl Bucket {
    /// Of the entries with that tag the one with the lowest slot: that slot's number plus one. What differs from the tag in no bit is less
    /// than all that differ. Without branches, since where an entry is cannot be predicted.
    #[inline]
    fn candidate(&self, tag: u64) -> Option<u64> {
        let lower = |a: u64, b: u64| select_unpredictable(a < b, a, b);
        let nearest = self.distances(tag).fold(u64::MAX, lower);
        (nearest <= CANDIDATE_MAX).then_some(nearest)
    }

    /// The next one above `after`: hardly ever wanted.
    #[cold]
    fn candidate_after(&self, tag: u64, after: u64) -> Option<u64> {
        self.distances(tag).filter(|distance| (after + 1..=CANDIDATE_MAX).contains(distance)).min()
    }

    #[inline]
    fn distances(&self, tag: u64) -> impl Iterator<Item = u64> {
        // Acquire: pairs with the release in `insert`, so the slot's contents are seen.
        self.entries.iter().map(move |entry| entry.load(Ordering::Acquire) ^ (tag << 32))
    }

    fn find(&self, word: u64) -> Option<&AtomicU64> {
        self.entries.iter().find(|entry| entry.load(Ordering::Relaxed) == word)
    }

    fn is_empty(&self) -> bool {
        self.entries.iter().all(|entry| entry.load(Ordering::Relaxed) == 0)
    }
}

impl Index {
    pub fn new(slots: usize) -> Result<Self, RegionError> {
        let homes = (slots * LOAD.1).div_ceil(LOAD.0);
        let end = u32::try_from(homes + slots).expect("a table's limit is checked by its owner");
        let homes = homes as u32;
        Ok(Index { buckets: Zeroed::new(end as usize)?, homes, spare: Places::new(homes, end) })
    }

    /// Where a hash's chain begins. Spreads the lower half evenly over any number of buckets; the upper half is in the tag.
    #[inline]
    fn home_of(&self, hash: u64) -> usize {
        ((u64::from(hash as u32) * u64::from(self.homes)) >> 32) as usize
    }

    #[inline]
    fn bucket(&self, at: usize) -> &Bucket {
        #[cfg(test)]
        super::tests::work();
        &self.buckets[at]
    }

    #[inline]
    fn home(&self, hash: u64) -> &Bucket {
        self.bucket(self.home_of(hash))
    }

    /// Fetches what [`find`](Self::find) will read first.
    #[inline]
    pub fn prefetch(&self, hash: u64) {
        super::prefetch(&self.buckets[self.home_of(hash)]);
    }

    /// The first thing that `accept` makes of the slots that may be meant, which it must compare.
    #[inline]
    pub fn find<R>(&self, hash: u64, mut accept: impl FnMut(u32) -> Option<R>) -> Option<R> {
        let tag = tag(hash);
        let mut bucket = self.home(hash);
        loop {
            let mut candidate = bucket.candidate(tag);
            while let Some(slot) = candidate {
                if let Some(found) = accept(slot as u32 - 1) {
                    return Some(found);
                }
                candidate = bucket.candidate_after(tag, slot);
            }
            // Acquire: pairs with the release in `link`: the bucket's entry is seen.
            match bucket.next.load(Ordering::Acquire) {
                0 => return None,
                next => bucket = self.bucket(next as usize),
            }
        }
    }

    /// Under the writers' mutex; the slot is filled in and in no bucket.
    pub fn insert(&self, hash: u64, slot: u32) {
        let home = self.home(hash);
        let mut bucket = home;
        loop {
            if let Some(free) = bucket.find(0) {
                // Release: pairs with the acquire in `find`.
                free.store(word(hash, slot), Ordering::Release);
                return;
            }
            match bucket.next.load(Ordering::Relaxed) {
                0 => return self.link(home, word(hash, slot)),
                next => bucket = self.bucket(next as usize),
            }
        }
    }

    #[cold]
    fn link(&self, home: &Bucket, word: u64) {
        let link = |place: u32| &self.bucket(place as usize).next;
        let place = self.spare.take(link).expect("there are as many overflow buckets as slots");
        let bucket = self.bucket(place as usize);
        bucket.entries[0].store(word, Ordering::Relaxed);
        bucket.next.store(home.next.load(Ordering::Relaxed), Ordering::Relaxed);
        // Release: pairs with the acquire of `next` in `find`.
        home.next.store(place, Ordering::Release);
    }

    /// Under the writers' mutex. Yields the overflow bucket that this emptied, for [`recycle`](Self::recycle).
    pub fn remove(&self, hash: u64, slot: u32) -> Option<u32> {
        let word = word(hash, slot);
        let mut before: Option<&Bucket> = None;
        let mut bucket = self.home(hash);
        let mut at = 0;
        loop {
            let next = bucket.next.load(Ordering::Relaxed);
            if let Some(entry) = bucket.find(word) {
                entry.store(0, Ordering::Release);
                let before = before.filter(|_| bucket.is_empty())?;
                // Release: what the next bucket holds was published with the link that is copied here.
                before.next.store(next, Ordering::Release);
                return Some(at);
            }
            assert_ne!(next, 0, "a published slot is in its bucket's chain");
            before = Some(bucket);
            at = next;
            bucket = self.bucket(next as usize);
        }
    }

    /// A grace period has passed since [`remove`](Self::remove) gave the bucket out.
    pub fn recycle(&self, bucket: u32) {
        self.spare.give(bucket, |place| &self.bucket(place as usize).next);
    }

    /// Overflow buckets that are linked or wait for their grace period.
    #[cfg(test)]
    pub fn spare_taken(&self) -> usize {
        self.spare.taken(|place| &self.buckets[place as usize].next)
    }

    /// Lengths in buckets and in entries of every chain.
    pub fn chains(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        (0..self.homes).map(|at| {
            let (mut bucket, mut buckets, mut entries) = (&self.buckets[at as usize], 1, 0);
            loop {
                entries += bucket.entries.iter().filter(|entry| entry.load(Ordering::Relaxed) != 0).count();
                match bucket.next.load(Ordering::Relaxed) {
                    0 => return (buckets, entries),
                    next => bucket = &self.buckets[next as usize],
                }
                buckets += 1;
            }
        })
    }
}
