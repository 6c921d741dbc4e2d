//! What models need of a domain that is loom's.
//!
//! The process's own never is: its control thread is no thread of a model. So a model has a [`Domain`] of its own, made of `rcu/grace.rs`, which
//! advances and waits as `rcu/domain.rs` does, without spinning, naps and figures; and what a model retires stays here until the model
//! has waited for a grace period. Guards are those of an ordinary pin: they permit, and order nothing.

use std::any::Any;
use std::cell::RefCell;
use std::sync::Arc;

use loom::thread;

use super::rcu::grace::{Epoch, Progress, Seen};

thread_local! {
    /// All threads of a model are one thread of the system's.
    static RETIRED: RefCell<Vec<Box<dyn Any>>> = const { RefCell::new(Vec::new()) };
}

/// Keeps what a model retires, in place of the process's domain.
pub fn retire_shared<T: Any + Send + Sync>(object: Arc<T>, _bytes: usize) {
    RETIRED.with_borrow_mut(|retired| retired.push(Box::new(object)));
}

/// Frees it. The caller has waited for a grace period since.
pub fn free_retired() {
    drop(RETIRED.take());
}

/// A domain with one reader.
pub struct Domain {
    epoch: Epoch,
    reader: Progress,
}

impl Domain {
    pub fn new() -> Self {
        Domain { epoch: Epoch::new(), reader: Progress::new() }
    }

    /// As `rcu::synchronize`.
    pub fn synchronize(&self) {
        let target = self.epoch.advance();
        while !self.reader.has_passed(target) {
            thread::yield_now();
        }
    }

    /// As `rcu::Reader::register`; there is one at a time.
    pub fn reader(&self) -> Reader<'_> {
        Reader { domain: self, seen: self.reader.online(&self.epoch) }
    }
}

/// As `rcu::Reader`, online until it is dropped.
pub struct Reader<'a> {
    domain: &'a Domain,
    seen: Seen,
}

impl Reader<'_> {
    pub fn quiescent(&mut self) {
        let Domain { epoch, reader } = self.domain;
        if Progress::is_behind(epoch, self.seen) {
            self.seen = reader.follow(epoch);
        }
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        self.domain.reader.offline();
    }
}
