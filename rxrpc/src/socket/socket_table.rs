//! The sockets of this API, by [`SocketId`]: where calls, cores and handles find the socket that they name, under RCU.
//!
//! Nobody who notifies a socket has a reference on it: it is loaded under the guard, and may be gone. Opening and closing
//! are the threads', who serialise among themselves.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use engine::rcu::{RcuCell, ReadGuard, pin};

use super::SocketId;
use super::socket_shared::SocketShared;

/// See the module.
pub(crate) struct SocketTable {
    cells: Box<[RcuCell<SocketShared>]>,
    slots: Mutex<Slots>,
}

/// Which slots are free, and what generation each is at.
struct Slots {
    free: Vec<u32>,
    generations: Vec<u32>,
}

impl SocketTable {
    /// An empty table for at most `limit` sockets.
    pub(crate) fn new(limit: usize) -> Self {
        let slots = Slots { free: (0..limit as u32).rev().collect(), generations: vec![0; limit] };
        SocketTable { cells: (0..limit).map(|_| RcuCell::empty()).collect(), slots: Mutex::new(slots) }
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A name for a new socket; the error is the limit.
    pub(crate) fn take_slot(&self) -> Result<SocketId, usize> {
        let mut slots = self.slots();
        let slot = slots.free.pop().ok_or(self.cells.len())?;
        Ok(SocketId { slot, generation: slots.generations[slot as usize] })
    }

    /// From here on the socket is found.
    pub(crate) fn publish(&self, socket: Arc<SocketShared>) {
        self.cells[socket.id.slot as usize].replace(Some(socket));
    }

    /// From here on it is not; its memory is freed after a grace period.
    pub(crate) fn unpublish(&self, id: SocketId) {
        self.cells[id.slot as usize].replace(None);
    }

    /// The slot is free for another socket: nobody can find the old one any more.
    pub(crate) fn give_slot(&self, id: SocketId) {
        let mut slots = self.slots();
        slots.generations[id.slot as usize] += 1;
        slots.free.push(id.slot);
    }

    /// The socket of this name; `None`: it is gone.
    #[inline]
    pub(crate) fn get<'g>(&'g self, id: SocketId, guard: ReadGuard<'g>) -> Option<&'g SocketShared> {
        self.cells.get(id.slot as usize)?.load(guard).filter(|socket| socket.id == id)
    }

    /// The same for threads, who look at it for a moment.
    pub(crate) fn with<R>(&self, id: SocketId, look: impl FnOnce(&SocketShared) -> R) -> Option<R> {
        let pin = pin();
        self.get(id, pin.guard()).map(look)
    }
}
