//! The readers of the domain: one place each, in a list that only grows.
//!
//! Places are reused and never freed, so whoever counts the readers walks the list without a lock, and a thread that joins never
//! waits for one that counts. There are as many places as there ever were readers at once.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use crossbeam_utils::CachePadded;
use pmd::Instant;

use super::grace::Progress;

/// One reader's place.
pub(crate) struct Member {
    /// On a line of its own, together with `asked`: writers look at it while the reader runs.
    line: CachePadded<Line>,
    /// When the turn began that the reader is in; 0: it does not say. Written every turn, so apart from what writers look at.
    turn_began: CachePadded<AtomicU64>,
    name: Mutex<String>,
    /// Somebody's place.
    taken: AtomicBool,
    next: OnceLock<&'static Member>,
}

struct Line {
    progress: Progress,
    /// The stall watch asks when the reader passes next.
    asked: AtomicBool,
    /// The answer, 0 until there is one.
    passed_at: AtomicU64,
}

impl Member {
    fn new(name: String) -> Self {
        let line =
            Line { progress: Progress::new(), asked: AtomicBool::new(false), passed_at: AtomicU64::new(0) };
        Member {
            line: CachePadded::new(line),
            turn_began: CachePadded::new(AtomicU64::new(0)),
            name: Mutex::new(name),
            taken: AtomicBool::new(true),
            next: OnceLock::new(),
        }
    }

    #[inline]
    pub fn progress(&self) -> &Progress {
        &self.line.progress
    }

    pub fn name(&self) -> String {
        self.name.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Gives the place back. The reader is offline.
    pub fn release(&self) {
        self.turn_began.store(0, Ordering::Relaxed);
        // Release: pairs with the acquire in `claim`.
        self.taken.store(false, Ordering::Release);
    }

    // ---- the reader tells the time ----

    /// When the current turn began.
    #[inline]
    pub fn begin_turn(&self, now: Instant) {
        self.turn_began.store(now.as_nanos(), Ordering::Relaxed);
    }

    pub fn tells_turns(&self) -> bool {
        self.turn_began.load(Ordering::Relaxed) != 0
    }

    /// Since when a reader has read that holds up a grace period begun at `began`.
    pub fn reading_since(&self, began: Instant) -> Instant {
        match self.turn_began.load(Ordering::Relaxed) {
            0 => began,
            turn => Instant::from_nanos(turn).min(began),
        }
    }

    /// Before the reader passes or leaves: stamps the time if the watch asked for it.
    pub fn answer(&self, clock: impl FnOnce() -> Instant) {
        if self.line.asked.load(Ordering::Relaxed) {
            // The release in the progress that follows publishes it.
            self.line.passed_at.store(clock().as_nanos(), Ordering::Relaxed);
            self.line.asked.store(false, Ordering::Relaxed);
        }
    }

    /// Asks for the time of the next quiescent state.
    pub fn ask(&self) {
        self.line.passed_at.store(0, Ordering::Relaxed);
        self.line.asked.store(true, Ordering::Relaxed);
    }

    /// The answer, if the reader saw the question in time. After `has_passed`.
    pub fn answered(&self) -> Option<Instant> {
        self.line.asked.store(false, Ordering::Relaxed);
        match self.line.passed_at.load(Ordering::Relaxed) {
            0 => None,
            nanos => Some(Instant::from_nanos(nanos)),
        }
    }
}

/// All places.
#[derive(Default)]
pub(crate) struct Members {
    first: OnceLock<&'static Member>,
}

impl Members {
    /// A place for a new reader, offline.
    pub fn claim(&self, name: String) -> &'static Member {
        let mut place = &self.first;
        while let Some(member) = place.get() {
            // Acquire: pairs with the release in `release`.
            if !member.taken.swap(true, Ordering::Acquire) {
                *member.name.lock().unwrap_or_else(PoisonError::into_inner) = name;
                return member;
            }
            place = &member.next;
        }
        let new: &'static Member = Box::leak(Box::new(Member::new(name)));
        while place.set(new).is_err() {
            place = &place.get().expect("it was set by somebody else").next;
        }
        new
    }

    pub fn iter(&self) -> impl Iterator<Item = &'static Member> {
        std::iter::successors(self.first.get().copied(), |member| member.next.get().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;
    use std::thread;

    #[test]
    fn places_are_reused_and_never_shared() {
        let members = Members::default();
        let held: Vec<_> = (0..3).map(|n| members.claim(n.to_string())).collect();
        held[1].release();
        let again = members.claim("again".into());
        assert!(std::ptr::eq(again, held[1]) && again.name() == "again");
        let start = Barrier::new(4);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    start.wait();
                    for _ in 0..1000 {
                        let mine = members.claim("mine".into());
                        mine.begin_turn(Instant::from_nanos(1));
                        assert!(mine.tells_turns(), "somebody else has the same place");
                        mine.release();
                    }
                });
            }
        });
        assert!(members.iter().count() <= 7, "as many places as readers at once");
    }
}
