//! Those who read: cores, with a [`Reader`] each, and other threads under a [`Pin`].

use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::Arc;
use std::thread;

use pmd::{Clock, Instant};

use super::domain::DOMAIN;
use super::grace::{Epoch, Progress, Seen};
use super::member::Member;
use super::reclaim::Retirer;

thread_local! {
    /// Readers of this thread that are online: waiting for a grace period here would wait for ourselves.
    static ONLINE: Cell<usize> = const { Cell::new(0) };
    /// Pins of this thread: the same holds for these.
    static PINS: Cell<usize> = const { Cell::new(0) };
    /// The place of this thread's pins.
    static PLACE: Cell<Option<&'static Member>> = const { Cell::new(None) };
    static LEAVE: Leave = const { Leave };
}

/// Whether this thread has an online [`Reader`].
pub(super) fn polls() -> bool {
    ONLINE.get() > 0
}

/// Whether this thread holds a [`Pin`].
pub(super) fn is_pinned() -> bool {
    PINS.get() > 0
}

/// Permission to read what RCU protects, until the reader's next quiescent state. A copy of a borrow: costs nothing.
#[derive(Clone, Copy)]
pub struct ReadGuard<'r> {
    _reader: PhantomData<(&'r (), NotSend)>,
}

type NotSend = *const ();

impl ReadGuard<'_> {
    fn new() -> Self {
        ReadGuard { _reader: PhantomData }
    }
}

/// A core's membership in the domain. Lives on the core's thread.
pub struct Reader {
    /// Offline or online, and how far.
    seen: Seen,
    epoch: &'static Epoch,
    member: &'static Member,
    retirer: Retirer,
    _not_send: PhantomData<NotSend>,
}

impl Reader {
    /// Joins the domain, online. `name` is how the stall watch calls it: "engine/core-1".
    pub fn register(name: &str) -> Self {
        let mut reader = Reader {
            seen: Seen::OFFLINE,
            epoch: &DOMAIN.epoch,
            member: DOMAIN.members.claim(name.into()),
            retirer: Retirer::new(&DOMAIN.reclaim),
            _not_send: PhantomData,
        };
        reader.online();
        reader
    }

    /// Permission to read; borrows the reader. The reader must be online.
    #[inline]
    pub fn guard(&self) -> ReadGuard<'_> {
        assert!(self.seen != Seen::OFFLINE, "an offline reader may not read");
        ReadGuard::new()
    }

    /// Permission to read, and beside it the way to retire. Both end before the next quiescent state.
    #[inline]
    pub fn split(&mut self) -> (ReadGuard<'_>, &mut Retirer) {
        assert!(self.seen != Seen::OFFLINE, "an offline reader may not read");
        (ReadGuard::new(), &mut self.retirer)
    }

    /// Declares that nothing read before is still held. The signature proves it.
    #[inline]
    pub fn quiescent(&mut self) {
        if Progress::is_behind(self.epoch, self.seen) {
            self.follow();
        }
    }

    #[cold]
    fn follow(&mut self) {
        if self.seen != Seen::OFFLINE {
            self.member.answer(Clock::now);
            self.seen = self.member.progress().follow(self.epoch);
        }
    }

    /// Notes when the turn began that ends with the next quiescent state: a plain store. The stall watch measures from there; a reader
    /// that does not note it is measured from the beginning of the grace period it holds up.
    #[inline]
    pub fn begin_turn(&self, now: Instant) {
        self.member.begin_turn(now);
    }

    /// Leaves before blocking: no grace period waits for an offline reader.
    pub fn offline(&mut self) {
        if self.seen == Seen::OFFLINE {
            return;
        }
        self.member.answer(Clock::now);
        self.member.progress().offline();
        self.seen = Seen::OFFLINE;
        ONLINE.set(ONLINE.get() - 1);
    }

    /// Comes back. Contains a full barrier, so everything published before is seen.
    pub fn online(&mut self) {
        if self.seen != Seen::OFFLINE {
            return;
        }
        if self.member.tells_turns() {
            self.member.begin_turn(Clock::now());
        }
        self.seen = self.member.progress().online(self.epoch);
        ONLINE.set(ONLINE.get() + 1);
    }

    /// Hands this reference to the control thread, which drops it after a grace period: see [`Retirer::retire`].
    pub fn retire<T: Send + Sync + 'static>(&mut self, object: Arc<T>, bytes: usize) -> Result<(), Arc<T>> {
        self.retirer.retire(object, bytes, Clock::now())
    }

    /// Once a turn: see [`Retirer::nudge`].
    #[inline]
    pub fn nudge(&self) {
        self.retirer.nudge();
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.offline();
        self.member.release();
    }
}

/// A short read section for threads that are not cores (views, handles).
pub struct Pin {
    member: &'static Member,
    _not_send: PhantomData<NotSend>,
}

/// Begins a short read section, or joins the one that this thread is in. Costs about 20 ns; holding it long delays every grace period.
pub fn pin() -> Pin {
    let member = PLACE.get().unwrap_or_else(|| {
        let thread = thread::current();
        let member = DOMAIN.members.claim(format!("thread {}", thread.name().unwrap_or("without a name")));
        PLACE.set(Some(member));
        // If this thread's values are being dropped already, the last pin gives the place back.
        let _ = LEAVE.try_with(|_| ());
        member
    });
    let pins = PINS.get();
    PINS.set(pins + 1);
    if pins == 0 {
        member.progress().online(&DOMAIN.epoch);
    }
    Pin { member, _not_send: PhantomData }
}

impl Pin {
    /// Permission to read while the pin lives.
    pub fn guard(&self) -> ReadGuard<'_> {
        ReadGuard::new()
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let pins = PINS.get() - 1;
        PINS.set(pins);
        if pins == 0 {
            self.member.answer(Clock::now);
            self.member.progress().offline();
            if LEAVE.try_with(|_| ()).is_err() {
                give_up_place();
            }
        }
    }
}

/// Gives the thread's place back at its end, unless a pin outlives it in another thread-local value: then that pin does.
struct Leave;

impl Drop for Leave {
    fn drop(&mut self) {
        if PINS.get() == 0 {
            give_up_place();
        }
    }
}

fn give_up_place() {
    if let Some(member) = PLACE.take() {
        member.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quiescent_state_stores_only_when_a_grace_period_waits_for_it() {
        let mut reader = Reader::register("one store");
        // An epoch of its own: nobody else moves it.
        reader.epoch = Box::leak(Box::new(Epoch::new()));
        reader.follow();
        let progress = reader.member.progress();
        // Behind the reader's back: a store would undo it.
        progress.offline();
        reader.quiescent();
        assert!(!progress.is_online(), "a store although nobody waits");
        let target = reader.epoch.advance();
        reader.quiescent();
        assert!(progress.is_online() && progress.has_passed(target), "no store although somebody waits");
    }
}
