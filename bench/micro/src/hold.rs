//! How a packet holds on to the object of its socket while it is dispatched: the one thing in which the arms of `dispatch` and `calls`
//! differ.
//!
//! The object stands for what a waker touches. The core finds it by the socket's cookie and works with it between finding and waking.

use std::sync::{Arc, RwLock};

use clap::ValueEnum;
use engine::rcu::{RcuCell, ReadGuard};

/// Who keeps the object alive meanwhile.
#[derive(Clone, Copy, ValueEnum)]
pub enum Held {
    /// RCU: a load under the core's guard. As the engine does it
    Rcu,
    /// A reference count: up and down again for each packet, as before calls lost their socket references
    Arc,
    /// A rwlock around the wake-up: two atomic operations for each packet, as before wait queues went under RCU
    Rwlock,
}

/// What a packet works with. Nobody writes it while packets flow.
pub struct Object {
    /// Added to what the core counts, so that no arm can do without the object.
    pub one: u64,
}

/// Keeps the object alive while a packet works with it.
pub trait Hold: Send + Sync + 'static {
    fn new(object: Object) -> Self;
    fn with<R>(&self, guard: ReadGuard<'_>, work: impl FnOnce(&Object) -> R) -> R;
}

impl Hold for RcuCell<Object> {
    fn new(object: Object) -> Self {
        RcuCell::new(Arc::new(object))
    }

    #[inline]
    fn with<R>(&self, guard: ReadGuard<'_>, work: impl FnOnce(&Object) -> R) -> R {
        work(self.load(guard).expect("nobody takes it away"))
    }
}

impl Hold for Arc<Object> {
    fn new(object: Object) -> Self {
        Arc::new(object)
    }

    #[inline]
    fn with<R>(&self, _: ReadGuard<'_>, work: impl FnOnce(&Object) -> R) -> R {
        let held = self.clone();
        work(&held)
    }
}

impl Hold for RwLock<Object> {
    fn new(object: Object) -> Self {
        RwLock::new(object)
    }

    #[inline]
    fn with<R>(&self, _: ReadGuard<'_>, work: impl FnOnce(&Object) -> R) -> R {
        work(&self.read().expect("nobody panics"))
    }
}
