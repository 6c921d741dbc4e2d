//! Quiescent-state RCU.
//!
//! Each core owns a [`Reader`] and declares a quiescent state once a turn. A read costs a plain load; a quiescent state one relaxed
//! check, and one release store when a grace period waits for it. `guard(&self)` borrows the reader and `quiescent(&mut self)` needs it
//! whole, so that keeping anything read under the guard across a quiescent state does not compile:
//!
//! ```compile_fail,E0502
//! use engine::rcu::{RcuCell, Reader};
//! let cell = RcuCell::new(std::sync::Arc::new(7));
//! let mut reader = Reader::register("core-0");
//! let seven = cell.load(reader.guard());
//! reader.quiescent();          // error: `reader` is borrowed by `seven`
//! assert_eq!(seven, Some(&7));
//! ```
//!
//! There is one domain per process, so a guard protects every [`RcuCell`] there is. Writers (any thread but a core) replace what
//! a cell holds; the old value is freed after a grace period, by the control thread. A core that must retire something hands it to that
//! thread over a ring ([`Retirer`]); a core never frees and never waits. Threads outside the cores read under an ordinary short [`pin`].
//!
//! Retired memory is bounded: at the cap writers wait for a grace period; a core is refused. [`stats`] has the figures, and names the
//! readers that hold up a grace period. The protocol itself is in `grace.rs`.
//!
//! Why not crossbeam-epoch: every 128th pin collects, so that cores that go offline to sleep run other threads' destructors;
//! `ARCHITECTURE.md` has what was measured.

use std::any::Any;
use std::sync::{Arc, mpsc};
use std::time::Duration;

mod cell;
mod domain;
mod grace;
mod histogram;
mod member;
mod reader;
mod reclaim;
mod stall;

/// What `grace` is made of. A model has a domain of its own, of loom's; the process's own domain is never loom's, so that models may
/// read under it.
mod atomics {
    pub(super) use std::sync::atomic::{AtomicU64, Ordering, fence};
}

use domain::DOMAIN;

pub use cell::RcuCell;
pub use domain::Stats;
pub use histogram::Latency;
pub use reader::{Pin, ReadGuard, Reader, pin};
pub use reclaim::Retirer;
pub use stall::{PastStalls, Stall};

/// Frees `object` after a grace period. For writers; waits while the writers' share of the cap on retired memory is exceeded, unless the
/// thread is in a read section itself: then its next call outside of one waits. `bytes` is what the object counts for.
pub fn retire<T: Send + 'static>(object: T, bytes: usize) {
    DOMAIN.reclaim.retire_owned(Box::new(object), bytes);
    wait_for_room();
}

/// As [`retire`], for one reference to an object that others may hold too. Allocates nothing of its own.
#[cfg(not(all(test, loom)))]
pub fn retire_shared<T: Any + Send + Sync>(object: Arc<T>, bytes: usize) {
    DOMAIN.reclaim.retire_shared(object, bytes);
    wait_for_room();
}

/// What a model retires is kept by its own domain.
#[cfg(all(test, loom))]
pub use crate::models::domain::retire_shared;

fn wait_for_room() {
    if !(reader::polls() || reader::is_pinned() || DOMAIN.reclaim.is_control_thread()) {
        DOMAIN.reclaim.wait_for_room();
    }
}

/// Waits for a grace period: when it returns, every read section that began before has ended. What was retired may not be freed
/// yet: see [`barrier`].
///
/// # Panics
/// On a thread with an online [`Reader`] or a [`Pin`], which would wait for itself.
pub fn synchronize() {
    assert_outside();
    DOMAIN.synchronized.record(DOMAIN.grace_period());
}

/// Waits until everything retired before has been freed.
///
/// # Panics
/// Where [`synchronize`] does, and on the control thread, in a destructor that it runs.
pub fn barrier() {
    assert_outside();
    assert!(!DOMAIN.reclaim.is_control_thread(), "a destructor waited for the thread that runs it");
    let (freed, hear) = mpsc::channel::<()>();
    DOMAIN.reclaim.retire_owned(Box::new(freed), 0);
    DOMAIN.reclaim.hurry();
    // It is dropped last of what is retired so far, and never sent on.
    let _ = hear.recv();
}

fn assert_outside() {
    assert!(
        !reader::polls(),
        "a polling thread waited for a grace period, that is for itself: do this from another thread"
    );
    assert!(
        !reader::is_pinned(),
        "a pinned thread waited for a grace period, that is for itself: drop the pin first"
    );
}

/// Whether this thread runs cores: it must not wait for what a core does.
pub fn is_core() -> bool {
    reader::polls()
}

/// Bytes retired and not yet freed.
pub fn retired_bytes() -> usize {
    DOMAIN.reclaim.retired_bytes()
}

/// Sets the cap on retired bytes, for the process: half for the writers together, half divided among the cores.
pub fn set_retired_cap(bytes: usize) {
    DOMAIN.reclaim.set_cap(bytes);
}

/// From how long on a reader that holds up a grace period is said to stall (10 ms at first).
pub fn set_stall_threshold(threshold: Duration) {
    DOMAIN.watch.set_threshold(threshold);
}

/// What is known of grace periods, retired memory and stalls. For views: takes locks that cores never see.
pub fn stats() -> Stats {
    DOMAIN.stats()
}

#[cfg(test)]
mod tests;
