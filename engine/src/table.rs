//! The socket table of an engine: local address and port, with or without a peer, to socket; and socket name to socket.
//!
//! Two arrays, sized once from the limit on sockets: the [`Index`] leads from a flow's hash to the numbers of slots, and a slot is one
//! cache line with the flow itself, the socket's pointer and its generation. A hit costs a bucket's line and a slot's. All cores
//! read the same table, with plain loads under their read guards. Writers (bind, close) serialise on the registry's mutex, which
//! readers never see; each touches one chain and one slot, however many sockets there are: nothing grows, is rehashed or decays.
//!
//! What readers may still hold is used again only after a grace period: the socket, its slot (a reader compares the flow there and
//! then follows the pointer), and an overflow bucket that became empty. [`Unpublished`] and [`Quiesced`] carry that in their types.
//!
//! Deliberately absent: growing, iteration by cores, and any knowledge of what a socket is: the table is generic, so that models can
//! run it with numbers.

mod index;
mod places;
mod zeroed;

#[cfg(test)]
mod tests;

use std::mem::ManuallyDrop;
use std::net::SocketAddr;
use std::sync::Arc;

use arrayvec::ArrayVec;
use crossbeam_utils::CachePadded;
use pmd::{BURST, RegionError};

use crate::flow::{Flow, FlowHash, KINDS, WORDS, WORDS_V4};
use crate::rcu::{self, ReadGuard};
use crate::socket::SocketId;
use crate::sync::{AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use index::Index;
use places::Places;
use zeroed::{Zeroable, Zeroed};

/// Slots beyond the limit on sockets: those of closed sockets that wait for their grace period must not stop a bind.
const SLOTS_SPARE: usize = 16_384;
/// More sockets than that are not numbered.
pub(crate) const SOCKETS_MAX: usize = 1 << 30;

/// What a socket is bound to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Key {
    /// The IP may be unspecified: any of ours.
    pub local: SocketAddr,
    /// Connected to this peer only.
    pub peer: Option<SocketAddr>,
}

impl Key {
    pub fn flow(&self) -> Flow {
        Flow::new(self.local, self.peer)
    }
}

/// Where an engine's sockets are found.
pub(crate) struct Table<T> {
    hash: FlowHash,
    index: Index,
    slots: Zeroed<Slot<T>>,
    free: Places,
    kinds: CachePadded<Kinds>,
}

/// How many values of each kind are published, so that a lookup tries only kinds that exist. Changed under the writers' mutex.
#[derive(Default)]
struct Kinds {
    /// A bit for each kind with a count that is not zero.
    exist: AtomicU32,
    counts: [AtomicUsize; KINDS],
}

impl Kinds {
    fn add(&self, kind: usize) {
        if self.counts[kind].fetch_add(1, Ordering::Relaxed) == 0 {
            // Release: pairs with the acquire in `Table::kinds`.
            self.exist.fetch_or(1 << kind, Ordering::Release);
        }
    }

    fn remove(&self, kind: usize) {
        if self.counts[kind].fetch_sub(1, Ordering::Relaxed) == 1 {
            self.exist.fetch_and(!(1 << kind), Ordering::Release);
        }
    }
}

/// Where a burst's flow seems to be found.
#[derive(Clone, Copy, Default)]
struct Guess {
    hash: u64,
    /// Plus one; zero: nowhere yet.
    slot: u32,
    kind: u32,
}

#[repr(C, align(64))]
struct Slot<T> {
    flow: [AtomicU64; WORDS],
    /// From `Arc::into_raw`, or null. The slot owns one strong reference.
    value: AtomicPtr<T>,
    generation: AtomicU32,
    next_free: AtomicU32,
}

const _: () = assert!(cfg!(loom) || size_of::<Slot<u8>>() == 64);

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Slot {
            flow: Default::default(),
            value: AtomicPtr::new(std::ptr::null_mut()),
            generation: AtomicU32::new(0),
            next_free: AtomicU32::new(0),
        }
    }
}

// SAFETY: atomics are plain integers and a pointer, and zeros (the pointer null) are what Default gives.
unsafe impl<T> Zeroable for Slot<T> {}

impl<T> Slot<T> {
    /// Whether its flow begins with `words`; that of two different flows at least one of the first two words differs by family, so two
    /// are enough for IPv4. They do not change while a reader that found the slot is in its section.
    #[inline]
    fn holds<const N: usize>(&self, words: &[u64; N]) -> bool {
        let differ = |(held, word): (&AtomicU64, &u64)| held.load(Ordering::Relaxed) ^ word;
        self.flow.iter().zip(words).map(differ).fold(0, |all, one| all | one) == 0
    }

    #[inline]
    fn load<'g>(&'g self, _guard: ReadGuard<'g>) -> Option<&'g T> {
        // Acquire: pairs with the release in `Table::publish`.
        let value = self.value.load(Ordering::Acquire);
        // SAFETY: non-null values come from Arc::into_raw, and the slot's reference is dropped only through `Unpublished`, that is after
        // a grace period of the one domain; the guard keeps that period from ending before 'g does.
        unsafe { value.as_ref() }
    }

    /// A strong reference to the value, for those who keep it longer than a read section.
    fn load_owned(&self, guard: ReadGuard<'_>) -> Option<Arc<T>> {
        let value: *const T = self.load(guard)?;
        // SAFETY: `value` came from Arc::into_raw, and the slot's own reference outlives the guard (see `load`), so the count is at least
        // one while it is raised.
        unsafe {
            Arc::increment_strong_count(value);
            Some(Arc::from_raw(value))
        }
    }
}

/// A value that was taken out of the table, with the table's reference to it, which readers may still borrow. It leaves through
/// [`retire`](Self::retire); dropped without that, it leaks.
#[must_use]
pub(crate) struct Unpublished<T> {
    value: ManuallyDrop<Arc<T>>,
    slot: u32,
    bucket: Option<u32>,
}

/// An unpublished value that no reader reaches any more: a grace period has passed.
pub(crate) struct Quiesced<T> {
    value: Arc<T>,
    slot: u32,
    bucket: Option<u32>,
}

impl<T: Send + Sync + 'static> Unpublished<T> {
    /// Waits for nothing: calls `then` after a grace period, on whatever thread ends it.
    pub fn retire(self, then: impl FnOnce(Quiesced<T>) + Send + 'static) {
        let bytes = size_of::<T>() + size_of::<Slot<T>>();
        rcu::retire(AfterGrace(Some((self, then))), bytes);
    }

    /// # Safety
    /// A grace period has passed since it was unpublished.
    pub unsafe fn quiesced(self) -> Quiesced<T> {
        Quiesced { value: ManuallyDrop::into_inner(self.value), slot: self.slot, bucket: self.bucket }
    }
}

impl<T> Quiesced<T> {
    /// The value.
    pub fn value(&self) -> &Arc<T> {
        &self.value
    }
}

struct AfterGrace<T: Send + Sync + 'static, F: FnOnce(Quiesced<T>)>(Option<(Unpublished<T>, F)>);

impl<T: Send + Sync + 'static, F: FnOnce(Quiesced<T>)> Drop for AfterGrace<T, F> {
    fn drop(&mut self) {
        if let Some((unpublished, then)) = self.0.take() {
            // SAFETY: this value is made only in `Unpublished::retire`, which gives it to `rcu::retire`: a grace period has passed.
            then(unsafe { unpublished.quiesced() });
        }
    }
}

impl<T: Send + Sync + 'static> Table<T> {
    /// A table for `sockets_max` sockets, at most [`SOCKETS_MAX`]. Memory is used as sockets come.
    pub fn new(keys: crate::flow::HashKeys, sockets_max: usize) -> Result<Self, RegionError> {
        Self::with_hash(FlowHash::new(keys), sockets_max.min(SOCKETS_MAX) + SLOTS_SPARE)
    }

    /// A table of exactly so many slots.
    pub fn with_hash(hash: FlowHash, slots: usize) -> Result<Self, RegionError> {
        Ok(Table {
            hash,
            index: Index::new(slots)?,
            slots: Zeroed::new(slots)?,
            free: Places::new(0, slots as u32),
            kinds: Default::default(),
        })
    }

    #[inline]
    fn slot(&self, at: u32) -> &Slot<T> {
        #[cfg(test)]
        tests::work();
        &self.slots[at as usize]
    }

    /// The value of that name, unless it is gone.
    #[inline]
    pub fn get<'g>(&'g self, id: SocketId, guard: ReadGuard<'g>) -> Option<&'g T> {
        let slot = self.slots.get(id.slot as usize)?;
        let value = slot.load(guard)?;
        // Written before the value was published, and not again before a grace period after it is gone.
        (slot.generation.load(Ordering::Relaxed) == id.generation).then_some(value)
    }

    /// The value for a datagram: connected before unconnected, exact before wildcard.
    #[inline]
    pub fn lookup<'g>(&'g self, flow: &Flow, guard: ReadGuard<'g>) -> Option<&'g T> {
        if flow.is_v6() {
            self.lookup_words::<WORDS>(flow, guard)
        } else {
            self.lookup_words::<WORDS_V4>(flow, guard)
        }
    }

    #[inline]
    fn lookup_words<'g, const N: usize>(&'g self, flow: &Flow, guard: ReadGuard<'g>) -> Option<&'g T> {
        self.kinds().find_map(|kind| {
            let words = flow.as_kind::<N>(kind);
            self.find(self.hash.hash(&words), &words, guard)
        })
    }

    #[inline]
    fn find<'g, const N: usize>(
        &'g self,
        hash: u64,
        words: &[u64; N],
        guard: ReadGuard<'g>,
    ) -> Option<&'g T> {
        self.index.find(hash, |slot| {
            let slot = self.slot(slot);
            if slot.holds(words) { slot.load(guard) } else { None }
        })
    }

    /// Whether exactly this flow is bound.
    pub fn contains(&self, flow: &Flow, guard: ReadGuard<'_>) -> bool {
        self.find(self.hash.of(flow), &flow.0, guard).is_some()
    }

    /// As [`lookup`](Self::lookup), for a burst at once: cache misses overlap. What is found is not touched; to [`prefetch`] it is the
    /// caller's part.
    ///
    /// # Panics
    /// If there are more flows than a [`BURST`].
    pub fn lookup_burst<'g>(
        &'g self,
        flows: &[Flow],
        guard: ReadGuard<'g>,
    ) -> ArrayVec<Option<&'g T>, BURST> {
        let mut guesses = [Guess::default(); BURST];
        let guesses = &mut guesses[..flows.len()];
        for kind in self.kinds() {
            for (flow, guess) in flows.iter().zip(&mut *guesses).filter(|(_, guess)| guess.slot == 0) {
                guess.hash = self.hash.of_kind(flow, kind);
                self.index.prefetch(guess.hash);
            }
            for guess in guesses.iter_mut().filter(|guess| guess.slot == 0) {
                // The first slot with the right tag is the right one but for one in 2^32.
                if let Some(slot) = self.index.find(guess.hash, Some) {
                    prefetch(&self.slots[slot as usize]);
                    (guess.slot, guess.kind) = (slot + 1, kind as u32);
                }
            }
        }
        flows.iter().zip(guesses).map(|(flow, guess)| self.confirm(flow, guess, guard)).collect()
    }

    #[inline]
    fn confirm<'g>(&'g self, flow: &Flow, guess: &Guess, guard: ReadGuard<'g>) -> Option<&'g T> {
        let slot = self.slot(guess.slot.checked_sub(1)?);
        let kind = guess.kind as usize;
        let holds = if flow.is_v6() {
            slot.holds(&flow.as_kind::<WORDS>(kind))
        } else {
            slot.holds(&flow.as_kind::<WORDS_V4>(kind))
        };
        let held = if holds { slot.load(guard) } else { None };
        // Another's tag, or just being closed: something less specific may be there.
        held.or_else(|| self.lookup_again(flow, guard))
    }

    #[cold]
    fn lookup_again<'g>(&'g self, flow: &Flow, guard: ReadGuard<'g>) -> Option<&'g T> {
        self.lookup(flow, guard)
    }

    /// The kinds that exist, most specific first.
    #[inline]
    fn kinds(&self) -> impl Iterator<Item = usize> {
        // Acquire: a value that is counted can be found.
        let mut exist = self.kinds.exist.load(Ordering::Acquire);
        std::iter::from_fn(move || {
            let kind = exist.trailing_zeros() as usize;
            exist &= exist.wrapping_sub(1);
            (kind < KINDS).then_some(kind)
        })
    }

    /// Published values.
    pub fn len(&self) -> usize {
        self.kinds.counts.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// Entries of the index, counted one by one. Takes as long as the table is large.
    pub fn entries(&self) -> usize {
        self.index.chains().map(|(_, entries)| entries).sum()
    }

    /// Every value there is.
    pub fn all(&self) -> Vec<Arc<T>> {
        let pin = rcu::pin();
        self.free.used().filter_map(|at| self.slot(at).load_owned(pin.guard())).collect()
    }

    // ---- writers, under the registry's mutex ----

    /// Takes a slot, and names it. `None`: every slot that is free waits for its grace period.
    pub fn reserve(&self) -> Option<SocketId> {
        let slot = self.free.take(|at| &self.slot(at).next_free)?;
        Some(SocketId { slot, generation: self.slot(slot).generation.load(Ordering::Relaxed) })
    }

    /// Makes the value findable, by all cores at once. `id` was reserved and the flow is not bound.
    pub fn publish(&self, id: SocketId, flow: &Flow, kind: usize, value: Arc<T>) {
        let slot = self.slot(id.slot);
        for (held, word) in slot.flow.iter().zip(flow.0) {
            held.store(word, Ordering::Relaxed);
        }
        // Release: pairs with the acquire in `Slot::load`.
        slot.value.store(Arc::into_raw(value).cast_mut(), Ordering::Release);
        self.index.insert(self.hash.of(flow), id.slot);
        self.kinds.add(kind);
    }

    /// Makes it unfindable. Readers that found it before keep it until they are quiescent.
    pub fn unpublish(&self, id: SocketId, flow: &Flow, kind: usize) -> Unpublished<T> {
        let bucket = self.index.remove(self.hash.of(flow), id.slot);
        let value = self.slot(id.slot).value.swap(std::ptr::null_mut(), Ordering::AcqRel);
        assert!(!value.is_null(), "what is unpublished was published");
        self.kinds.remove(kind);
        // SAFETY: it came from Arc::into_raw, and the swap took the slot's reference out, exactly once.
        let value = ManuallyDrop::new(unsafe { Arc::from_raw(value.cast_const()) });
        Unpublished { value, slot: id.slot, bucket }
    }

    // ---- whoever ends a grace period ----

    /// Makes the places of an unpublished value free for others.
    pub fn recycle(&self, quiesced: Quiesced<T>) {
        if let Some(bucket) = quiesced.bucket {
            self.index.recycle(bucket);
        }
        let slot = self.slot(quiesced.slot);
        slot.generation.store(slot.generation.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        self.free.give(quiesced.slot, |at| &self.slot(at).next_free);
    }
}

impl<T> Drop for Table<T> {
    fn drop(&mut self) {
        for at in self.free.used() {
            // Relaxed: `&mut self` came here with everything that others wrote.
            let value = self.slots[at as usize].value.load(Ordering::Relaxed);
            if !value.is_null() {
                // SAFETY: no borrow of what a slot holds is alive (they borrow the table), and the reference is the slot's own.
                drop(unsafe { Arc::from_raw(value.cast_const()) });
            }
        }
    }
}

// SAFETY: the table hands out &T and Arc<T> to any thread and drops T on any thread: what Arc<T> itself requires.
unsafe impl<T: Send + Sync> Send for Table<T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Sync for Table<T> {}

/// Asks for a cache line that will be read soon.
#[inline]
pub(crate) fn prefetch<T>(at: &T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing that the program sees; the address is valid besides.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(std::ptr::from_ref(at).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}
