//! Grace periods (rows C1 and C3): the very file that the engine runs, with loom's atomics. A cell leads to one of two objects; the writer
//! unpublishes the old one, waits as [`Domain::grace_period`](crate::rcu) does, and marks it freed. No reader may see that.

use std::sync::Arc;

use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;

use super::check;

mod atomics {
    pub(super) use loom::sync::atomic::{AtomicU64, Ordering, fence};
}

#[allow(dead_code)]
#[path = "../rcu/grace.rs"]
pub mod grace;

use grace::{Epoch, Progress, Seen};

struct Shared {
    epoch: Epoch,
    progress: Progress,
    /// The object that is published.
    cell: AtomicUsize,
    /// A free is a plain write that races with a reader's read unless the grace period orders them: loom sees the race.
    objects: [loom::cell::UnsafeCell<bool>; 2],
}

// SAFETY: that the accesses do not race is what loom checks.
unsafe impl Sync for Shared {}

impl Shared {
    fn new() -> Arc<Self> {
        Arc::new(Shared {
            epoch: Epoch::new(),
            progress: Progress::new(),
            cell: AtomicUsize::new(0),
            objects: std::array::from_fn(|_| loom::cell::UnsafeCell::new(true)),
        })
    }

    fn read(&self) {
        let at = self.cell.load(Ordering::Acquire);
        // SAFETY: the object is not freed while this reader is in its section; loom checks it.
        self.objects[at].with(|alive| assert!(unsafe { *alive }, "read after it was freed"));
    }

    fn replace_and_free(&self) {
        self.cell.store(1, Ordering::Release);
        let target = self.epoch.advance();
        while !self.progress.has_passed(target) {
            thread::yield_now();
        }
        // SAFETY: a grace period has passed; loom checks it.
        self.objects[0].with_mut(|alive| unsafe { *alive = false });
    }
}

#[test]
fn a_quiescent_state_ends_what_was_read_before() {
    check("rcu::a_quiescent_state_ends_what_was_read_before", None, || {
        let shared = Shared::new();
        let mut seen = shared.progress.online(&shared.epoch);
        let theirs = shared.clone();
        let writer = thread::spawn(move || theirs.replace_and_free());
        for _ in 0..2 {
            shared.read();
            if Progress::is_behind(&shared.epoch, seen) {
                seen = shared.progress.follow(&shared.epoch);
            }
        }
        shared.read();
        assert!(seen != Seen::OFFLINE);
        shared.progress.offline();
        writer.join().unwrap();
    });
}

/// A core that sleeps is not waited for; when it comes back, either the writer sees it or it sees what the writer did.
#[test]
fn a_reader_that_comes_online_is_seen_or_sees() {
    check("rcu::a_reader_that_comes_online_is_seen_or_sees", None, || {
        let shared = Shared::new();
        let theirs = shared.clone();
        let writer = thread::spawn(move || theirs.replace_and_free());
        for _ in 0..2 {
            shared.progress.online(&shared.epoch);
            shared.read();
            shared.progress.offline();
        }
        writer.join().unwrap();
    });
}
