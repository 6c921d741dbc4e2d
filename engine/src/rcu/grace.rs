//! The protocol of grace periods: one number that writers advance, and one number per reader that says how far it has followed.
//!
//! | writer                                   | reader                                            |
//! |------------------------------------------|---------------------------------------------------|
//! | unpublish the object                     | read under the guard                              |
//! | [`Epoch::advance`] to `target`, fence    | [`Progress::quiescent`]: if the epoch moved, follow |
//! | wait until each reader [`has_passed`](Progress::has_passed) `target` | offline → online: follow, fence |
//! | free the object                          |                                                   |
//!
//! A reader that follows to `target` has ended every read that began before (release, acquired by the writer), and reads what was
//! unpublished before `target` was begun (the epoch's release, acquired by the reader). A reader that comes online cannot know of a writer
//! that counts the readers at the same moment: there both sides need a full barrier, and one of them sees the other.

// From the module above: the system's, or loom's where `models` includes this file.
use super::atomics::{AtomicU64, Ordering, fence};

/// What an offline reader's progress says. No epoch has this number.
const OFFLINE: u64 = 0;

/// The number of the grace period that began last.
pub(crate) struct Epoch(AtomicU64);

impl Epoch {
    pub fn new() -> Self {
        Epoch(AtomicU64::new(OFFLINE + 1))
    }

    /// Begins a grace period; it is over once every reader has passed the number returned. 2^64 of them last for 500 years of
    /// one each nanosecond.
    pub fn advance(&self) -> u64 {
        // Release: pairs with the acquire in `follow` and `online`: who sees the new number sees what was unpublished before.
        let target = self.0.fetch_add(1, Ordering::Release) + 1;
        // Pairs with the fence in `online`: either that reader sees what was unpublished, or it is seen and waited for.
        fence(Ordering::SeqCst);
        target
    }
}

/// How far one reader has followed. Written by the reader alone.
pub(crate) struct Progress(AtomicU64);

/// The reader's own copy of its progress.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen(u64);

impl Seen {
    pub const OFFLINE: Seen = Seen(OFFLINE);
}

impl Progress {
    pub fn new() -> Self {
        Progress(AtomicU64::new(OFFLINE))
    }

    /// The reader will read from here on.
    pub fn online(&self, epoch: &Epoch) -> Seen {
        // Acquire: pairs with the release in `advance`.
        let seen = epoch.0.load(Ordering::Acquire);
        // Release: the reads of the session before this one have ended for whoever sees this number; pairs with `has_passed`.
        self.0.store(seen, Ordering::Release);
        // Pairs with the fence in `advance`.
        fence(Ordering::SeqCst);
        Seen(seen)
    }

    /// The reader has stopped reading.
    pub fn offline(&self) {
        // Release: pairs with the acquire in `has_passed`.
        self.0.store(OFFLINE, Ordering::Release);
    }

    /// Whether a grace period began since `seen`: the check of every quiescent state.
    #[inline]
    pub fn is_behind(epoch: &Epoch, seen: Seen) -> bool {
        // Relaxed: a number seen late delays that grace period and nothing else; `follow` has the ordering.
        epoch.0.load(Ordering::Relaxed) != seen.0
    }

    /// The online reader holds nothing that it read before.
    pub fn follow(&self, epoch: &Epoch) -> Seen {
        // Acquire: pairs with the release in `advance`: later reads do not find what was unpublished.
        let seen = epoch.0.load(Ordering::Acquire);
        // Release: pairs with the acquire in `has_passed`: earlier reads have ended.
        self.0.store(seen, Ordering::Release);
        Seen(seen)
    }

    /// Whether the grace period `target` need not wait for this reader (any more).
    pub fn has_passed(&self, target: u64) -> bool {
        // Acquire: pairs with the releases in `follow`, `offline` and `online`: the reader's reads come before the free.
        let passed = self.0.load(Ordering::Acquire);
        passed == OFFLINE || passed >= target
    }

    pub fn is_online(&self) -> bool {
        self.0.load(Ordering::Relaxed) != OFFLINE
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_grace_period_waits_for_those_online_when_it_began() {
        let (epoch, early, late, away) = (Epoch::new(), Progress::new(), Progress::new(), Progress::new());
        early.online(&epoch);
        let target = epoch.advance();
        late.online(&epoch);
        assert!(!early.has_passed(target), "it may still read");
        assert!(late.has_passed(target), "it came after");
        assert!(away.has_passed(target), "it reads nothing");
        early.follow(&epoch);
        assert!(early.has_passed(target));
        let next = epoch.advance();
        assert!(!early.has_passed(next) && !late.has_passed(next));
        late.offline();
        assert!(late.has_passed(next));
    }
}
