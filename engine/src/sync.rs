//! The one place where the crate chooses between the system's synchronisation and loom's.
//!
//! Whatever takes part in a protocol that a model checks comes from here: under `--cfg loom` it is loom's, which runs a model through
//! every interleaving and every value that a relaxed load may see (`models`). Counters that order nothing stay with `std`, so that
//! they do not multiply the states. Deliberately absent: shared ownership (`Arc`); its own ordering is std's business.

#[cfg(not(loom))]
pub(crate) use std::sync::atomic::*;
#[cfg(not(loom))]
pub(crate) use std::sync::{Mutex, MutexGuard};

#[cfg(loom)]
pub(crate) use loom::cell::UnsafeCell;
#[cfg(loom)]
pub(crate) use loom::sync::atomic::*;
#[cfg(loom)]
pub(crate) use loom::sync::{Mutex, MutexGuard};

/// `std`'s cell with the interface of loom's, which sees every access and finds those that race.
#[cfg(not(loom))]
#[derive(Default)]
#[repr(transparent)]
pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

#[cfg(not(loom))]
impl<T> UnsafeCell<T> {
    #[inline(always)]
    pub const fn new(value: T) -> Self {
        UnsafeCell(std::cell::UnsafeCell::new(value))
    }

    /// For an access that writes.
    #[inline(always)]
    pub fn with_mut<R>(&self, access: impl FnOnce(*mut T) -> R) -> R {
        access(self.0.get())
    }
}

/// A number that threads sleep on until it changes.
#[derive(Default)]
pub(crate) struct Futex {
    value: AtomicU32,
    #[cfg(loom)]
    sleepers: model::Sleepers,
}

impl Futex {
    /// What [`wait`](Self::wait) is to sleep on. Acquire: pairs with the release in [`advance`](Self::advance).
    pub fn value(&self) -> u32 {
        self.value.load(Ordering::Acquire)
    }

    /// Changes the number and wakes every sleeper. Release: a thread that sees the new number sees what came before it.
    pub fn advance(&self) {
        self.value.fetch_add(1, Ordering::Release);
        #[cfg(not(loom))]
        let _ =
            rustix::thread::futex::wake(&self.value, rustix::thread::futex::Flags::PRIVATE, i32::MAX as u32);
        #[cfg(loom)]
        self.sleepers.wake();
    }

    /// Sleeps unless the number differs from `value` already. May return early: look at the condition again.
    pub fn wait(&self, value: u32, timeout: Option<std::time::Duration>) {
        #[cfg(not(loom))]
        {
            use rustix::thread::futex;
            let timeout = timeout.map(|left| rustix::time::Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            });
            // Every outcome (woken, changed, interrupted, timed out) leads to another look at the condition.
            let _ = futex::wait(&self.value, futex::Flags::PRIVATE, value, timeout.as_ref());
        }
        #[cfg(loom)]
        {
            assert!(timeout.is_none(), "a model has no clock");
            self.sleepers.wait(|| self.value.load(Ordering::Relaxed) == value);
        }
    }
}

#[cfg(loom)]
mod model {
    use loom::sync::{Condvar, Mutex};

    /// What the kernel does for a futex: it compares and queues in one step, under the lock that a wake-up takes as well. That lock orders
    /// what wakers did before against the comparison, here as in the kernel.
    #[derive(Default)]
    pub struct Sleepers {
        bucket: Mutex<()>,
        queue: Condvar,
    }

    impl Sleepers {
        pub fn wait(&self, unchanged: impl FnOnce() -> bool) {
            let bucket = self.bucket.lock().unwrap();
            if unchanged() {
                drop(self.queue.wait(bucket).unwrap());
            }
        }

        pub fn wake(&self) {
            let _bucket = self.bucket.lock().unwrap();
            self.queue.notify_all();
        }
    }
}

/// A value made when it is first needed. In models it is there from the beginning: loom does not see the ordering of std's cell.
#[derive(Default)]
pub(crate) struct Later<T> {
    #[cfg(not(loom))]
    value: std::sync::OnceLock<Box<T>>,
    #[cfg(loom)]
    value: T,
}

impl<T: Default> Later<T> {
    /// The value, if it was made.
    pub fn get(&self) -> Option<&T> {
        #[cfg(not(loom))]
        return self.value.get().map(|value| &**value);
        #[cfg(loom)]
        Some(&self.value)
    }

    pub fn get_or_make(&self) -> &T {
        #[cfg(not(loom))]
        return self.value.get_or_init(Box::default);
        #[cfg(loom)]
        &self.value
    }
}
