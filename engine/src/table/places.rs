//! Which places of a fixed array are free: a stack whose links are in the free places themselves, so that it never grows.
//!
//! Writers take places; whoever ends a grace period gives them back. Its lock is held for a few instructions, by nobody who
//! waits for anything, and cores never see it.

use crate::sync::{AtomicU32, Mutex, MutexGuard, Ordering};

pub(super) struct Places {
    state: Mutex<State>,
    first: u32,
    end: u32,
}

struct State {
    /// The place given back last, plus one; zero: none.
    free: u32,
    /// No place from here on was ever used.
    fresh: u32,
}

impl Places {
    /// The places `first..end`.
    pub fn new(first: u32, end: u32) -> Self {
        Places { state: Mutex::new(State { free: 0, fresh: first }), first, end }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// A free place; the one given back last, as its memory is warm. `link` says where a place keeps its link.
    pub fn take<'a>(&self, link: impl Fn(u32) -> &'a AtomicU32) -> Option<u32> {
        let mut state = self.state();
        if let Some(place) = state.free.checked_sub(1) {
            state.free = link(place).load(Ordering::Relaxed);
            return Some(place);
        }
        let place = state.fresh;
        (place < self.end).then(|| {
            state.fresh += 1;
            place
        })
    }

    /// Nobody reaches the place any more.
    pub fn give<'a>(&self, place: u32, link: impl Fn(u32) -> &'a AtomicU32) {
        let mut state = self.state();
        link(place).store(state.free, Ordering::Relaxed);
        state.free = place + 1;
    }

    /// Places that are taken.
    #[cfg(test)]
    pub fn taken<'a>(&self, link: impl Fn(u32) -> &'a AtomicU32) -> usize {
        let state = self.state();
        let free = std::iter::successors(state.free.checked_sub(1), |place| {
            link(*place).load(Ordering::Relaxed).checked_sub(1)
        });
        (state.fresh - self.first) as usize - free.count()
    }

    /// The places that were ever used.
    pub fn used(&self) -> std::ops::Range<u32> {
        self.first..self.state().fresh
    }
}
