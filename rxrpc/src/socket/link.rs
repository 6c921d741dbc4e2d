//! [`Link`]: "queued already", between one side that notifies and one that looks, without a locked instruction.
//!
//! | notifier                                   | looker                                    |
//! |--------------------------------------------|-------------------------------------------|
//! | publish something                          | take the entry off the queue              |
//! | [`set`](Link::set): if clear, set it, queue | [`clear`](Link::clear)                    |
//! | if it was set: full barrier, `set` again   | full barrier                              |
//! |                                            | look                                      |
//!
//! The flag changes hands with the entry: only the notifier sets it, when it finds it clear; only the looker clears it, with the
//! entry in its hand. So plain loads and stores do, and the flag *is* the reference that a queue entry stands for: set and queued
//! are one thing. A flag found clear is clear. One found set may just be cleared by a looker that has seen nothing yet of what was
//! published, therefore the second `set` behind a barrier: either it finds the flag clear, or the looker's barrier came after
//! ours and it sees what we published.
//!
//! A core is the notifier of receive queues and the looker of its own work. On both sides its barrier is the one that it has
//! anyway at the end of a burst; a thread has its own.

use crate::sync::{AtomicBool, Ordering, fence};

/// See the module.
#[derive(Default)]
pub(crate) struct Link(AtomicBool);

impl Link {
    /// The notifier's: sets a clear flag. True: the caller queues the entry now.
    #[inline]
    pub(crate) fn set(&self) -> bool {
        // Acquire: pairs with the release in `clear`; the looker is done with the entry before.
        let clear = !self.0.load(Ordering::Acquire);
        if clear {
            self.0.store(true, Ordering::Relaxed);
        }
        clear
    }

    /// The looker's, with the entry in its hand and before it looks. A full barrier must follow before the last look: a core's
    /// is that of its burst.
    #[inline]
    pub(crate) fn clear(&self) {
        debug_assert!(self.is_set(), "an entry is taken off the queue once");
        self.0.store(false, Ordering::Release);
    }

    /// [`clear`](Self::clear), with a thread's barrier.
    pub(crate) fn clear_and_look(&self) {
        self.clear();
        // Pairs with the barrier between the notifier's two `set`s.
        fence(Ordering::SeqCst);
    }

    /// Whether there is an entry.
    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}
