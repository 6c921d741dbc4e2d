//! The calls of one core, by [`CallName`]: where threads, queues and views find them, under RCU.
//!
//! Owned by the threads: they make calls, within the socket's and the core's limit, and clean them up. The core only
//! reads it, under its guard. The memory of a call that was cleaned up, rings included, is kept for the next one, a generation
//! later, so that calls begin and end without allocating. What is not kept is unpublished and freed by RCU after a
//! grace period.

use std::sync::atomic::{Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use engine::rcu::{RcuCell, ReadGuard, pin};

use super::budget::ReadAccount;
use super::call_shared::{CallName, CallShared, CoreHalf, NewCall};

/// Spare calls kept; each has its two rings.
const SPARES_MAX: usize = 128;

/// See the module.
pub(crate) struct CallTable {
    pub(super) core: usize,
    /// Capacities of a call's rings, received and to send, in bytes.
    pub(super) buffers: (usize, usize),
    pub(super) account: Arc<ReadAccount>,
    cells: Box<[RcuCell<CallShared>]>,
    places: Mutex<Places>,
}

/// Where no call is: places without memory, and the halves of spare calls.
struct Places {
    empty: Vec<u32>,
    #[allow(clippy::vec_box, reason = "a half is large and travels in its box, which is recycled with it")]
    spares: Vec<Box<CoreHalf>>,
}

impl CallTable {
    /// An empty table for a core, for as many calls as `account` allows.
    pub(crate) fn new(core: usize, buffers: (usize, usize), account: Arc<ReadAccount>) -> Arc<Self> {
        let calls = account.calls_max();
        let places = Places {
            empty: (0..calls as u32).rev().collect(),
            spares: Vec::with_capacity(SPARES_MAX.min(calls)),
        };
        let cells = (0..calls).map(|_| RcuCell::empty()).collect();
        Arc::new(CallTable { core, buffers, account, cells, places: Mutex::new(places) })
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new call, with its half for the core. The error is the limit that leaves no room for it: of the socket's calls or of
    /// the core's.
    pub(crate) fn begin(self: &Arc<Self>, new: &NewCall<'_>) -> Result<Box<CoreHalf>, usize> {
        if !new.ledger.begin(new.calls_max) {
            return Err(new.calls_max);
        }
        self.account.begin_call().inspect_err(|_| new.ledger.end())?;
        let mut half = self.spare().unwrap_or_else(|| self.make());
        CallShared::renew(&mut half, new);
        Ok(half)
    }

    /// The memory of a call that was cleaned up and that nobody can reach any more, but for a view.
    fn spare(&self) -> Option<Box<CoreHalf>> {
        /// The table's reference and the half's own.
        const OWN: usize = 2;
        loop {
            let spare = self.places().spares.pop()?;
            if Arc::strong_count(&spare.shared) == OWN {
                // Pairs with the release of whoever dropped the last other reference.
                fence(Ordering::Acquire);
                return Some(spare);
            }
            // Somebody was about to do something with the call that it was. It stays that call.
            let index = spare.shared.index;
            drop(spare);
            self.discard(index);
        }
    }

    fn make(self: &Arc<Self>) -> Box<CoreHalf> {
        let index = self.places().empty.pop().expect("there are as many places as the account allows calls");
        let half = CallShared::halves(self, index);
        self.cells[index as usize].replace(Some(half.shared.clone()));
        half
    }

    /// Takes a call's memory back.
    pub(super) fn take_back(&self, index: u32, half: Option<Box<CoreHalf>>) {
        if let Some(mut half) = half {
            half.in_use = false;
            let mut places = self.places();
            if places.spares.len() < SPARES_MAX {
                return places.spares.push(half);
            }
        }
        self.discard(index);
    }

    /// Unpublishes what a place has; RCU frees it.
    fn discard(&self, index: u32) {
        self.cells[index as usize].replace(None);
        self.places().empty.push(index);
    }

    /// The call of this name, to be looked at under the guard; `None`: it is gone. It may go while one looks, and its memory
    /// be another call's: what matters is looked at under its lock, or the name once more afterwards.
    #[inline]
    pub(crate) fn get<'g>(&'g self, name: CallName, guard: ReadGuard<'g>) -> Option<&'g CallShared> {
        let call = self.cells.get(name.index as usize)?.load(guard)?;
        // Acquire: pairs with the Release in `clean_up`.
        (call.generation.load(Ordering::Acquire) == name.generation).then_some(call)
    }

    /// The call of this name, to be kept from being another; `None`: it is gone.
    pub(crate) fn find(&self, name: CallName) -> Option<Arc<CallShared>> {
        let pin = pin();
        let call = self.cells.get(name.index as usize)?.load_owned(pin.guard())?;
        (call.generation.load(Ordering::Acquire) == name.generation).then_some(call)
    }

    /// Whether there is no call.
    pub(crate) fn is_empty(&self) -> bool {
        let places = self.places();
        places.empty.len() + places.spares.len() == self.cells.len()
    }

    /// Looks at every call there is. For views, while cores and threads go on.
    pub(crate) fn for_each(&self, mut look: impl FnMut(&CallShared)) {
        for cell in &self.cells {
            let pin = pin();
            let Some(call) = cell.load(pin.guard()) else { continue };
            look(call);
        }
    }
}
