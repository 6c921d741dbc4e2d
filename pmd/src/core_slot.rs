//! Which thread this is: its token, and the core slot that it may have registered for.
//!
//! A pool knows its owner by the owner's token. A thread with a *core slot* returns the buffers of others through a
//! ring of its own per pool (see [`crate::home`]); a thread without one pays for an atomic push instead. Slots are
//! for the few polling threads; everything here but [`token`] and [`slot`] is control path.

use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::home;

/// Core slots of a process, in use at the same time.
pub const CORE_SLOTS: usize = 64;
const NO_SLOT: usize = usize::MAX;

thread_local! {
    // Const-initialised and without a destructor: a plain load, and alive until the thread is gone.
    static TOKEN: Cell<u64> = const { Cell::new(0) };
    static SLOT: Cell<usize> = const { Cell::new(NO_SLOT) };
}

/// This thread's token, 0 while it has none.
#[inline]
pub(crate) fn token() -> u64 {
    TOKEN.get()
}

/// This thread's token, which no other thread ever has or had.
pub(crate) fn token_or_new() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    if TOKEN.get() == 0 {
        TOKEN.set(NEXT.fetch_add(1, Ordering::Relaxed));
    }
    TOKEN.get()
}

/// The slot that this thread holds.
#[inline]
pub(crate) fn slot() -> Option<usize> {
    let slot = SLOT.get();
    (slot < CORE_SLOTS).then_some(slot)
}

/// Why a thread could not become a core.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CoreSlotError {
    /// One slot a thread.
    #[error("this thread holds core slot {slot} already; keep that CoreSlot and register once per thread")]
    Registered {
        /// The slot that it holds.
        slot: usize,
    },
    /// Too many cores.
    #[error("all {CORE_SLOTS} core slots are taken; drop the CoreSlot of a thread that polls no more")]
    Full,
}

/// Registration of the current thread as a polling core; the slot is free again when this is dropped.
///
/// ```
/// let slot = pmd::CoreSlot::register()?;
/// assert!(slot.index() < pmd::CORE_SLOTS);
/// # Ok::<(), pmd::CoreSlotError>(())
/// ```
#[derive(Debug)]
pub struct CoreSlot {
    index: usize,
    /// Belongs to this thread: neither Send nor Sync.
    _thread: PhantomData<*const ()>,
}

impl CoreSlot {
    /// Takes a free slot for this thread, and makes its return ring in each pool alive.
    pub fn register() -> Result<CoreSlot, CoreSlotError> {
        if let Some(slot) = slot() {
            return Err(CoreSlotError::Registered { slot });
        }
        let index = home::take_slot().ok_or(CoreSlotError::Full)?;
        SLOT.set(index);
        Ok(CoreSlot { index, _thread: PhantomData })
    }

    /// The slot's number, below [`CORE_SLOTS`].
    pub fn index(&self) -> usize {
        self.index
    }
}

impl Drop for CoreSlot {
    fn drop(&mut self) {
        SLOT.set(NO_SLOT);
        home::free_slot(self.index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_slot_a_thread_and_it_is_given_back() {
        std::thread::spawn(|| {
            let slot = CoreSlot::register().unwrap();
            let index = slot.index();
            assert_eq!(CoreSlot::register().unwrap_err(), CoreSlotError::Registered { slot: index });
            drop(slot);
            CoreSlot::register().unwrap();
        })
        .join()
        .unwrap();
    }

    #[test]
    fn tokens_differ_between_threads() {
        let mine = token_or_new();
        assert_eq!(mine, token());
        let theirs = std::thread::spawn(token_or_new).join().unwrap();
        assert_ne!(mine, theirs);
    }
}
