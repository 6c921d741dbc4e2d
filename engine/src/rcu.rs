//! Quiescent-state RCU on crossbeam-epoch.
//!
//! Each core owns a [`Reader`]: one long-lived epoch guard that is repinned once a turn. A read costs a plain load, a quiescent
//! state one relaxed check and at most one release store. `guard(&self)` borrows the reader and `quiescent(&mut self)` needs it
//! whole, so that keeping anything read under the guard across a quiescent state does not compile:
//!
//! ```compile_fail,E0502
//! use engine::rcu::{RcuCell, Reader};
//! let cell = RcuCell::new(std::sync::Arc::new(7));
//! let mut reader = Reader::register();
//! let seven = cell.load(reader.guard());
//! reader.quiescent();          // error: `reader` is borrowed by `seven`
//! assert_eq!(seven, Some(&7));
//! ```
//!
//! There is one domain per process, so a guard protects every [`RcuCell`] there is. Writers (any thread but a core) replace what
//! a cell holds; the old value is freed after a grace period, by the reclaimer thread. A core that must retire something hands it
//! to that thread over a ring ([`Reader::retire`]) and never reclaims itself while it polls. Threads outside the cores read under an
//! ordinary short [`pin`].
//!
//! Retired memory is bounded: at the cap writers wait for a grace period; a core is refused.

use std::cell::Cell;
use std::marker::PhantomData;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::thread::{self, Thread};
use std::time::Duration;

use crossbeam_epoch::{Collector, Guard, LocalHandle};

/// Objects a core may have on their way to the reclaimer.
const RETIRE_RING: usize = 1024;
/// Retired bytes at which writers wait, unless [`set_retired_cap`] says otherwise.
const RETIRED_CAP_BYTES: usize = 64 << 20;

static DOMAIN: LazyLock<Domain> = LazyLock::new(Domain::start);

thread_local! {
    static LOCAL: LocalHandle = DOMAIN.collector.register();
    /// Readers of this thread that are online: waiting for a grace period here would wait for ourselves.
    static ONLINE: Cell<usize> = const { Cell::new(0) };
    /// Pins of this thread: the same holds for these.
    static PINS: Cell<usize> = const { Cell::new(0) };
}

struct Domain {
    collector: Collector,
    retired_bytes: AtomicUsize,
    cap_bytes: AtomicUsize,
    rings: Mutex<Vec<rtrb::Consumer<Retired>>>,
    reclaimer: Thread,
}

struct Retired {
    object: Box<dyn Send>,
    bytes: usize,
}

impl Domain {
    fn start() -> Self {
        let reclaimer = thread::Builder::new()
            .name("rcu".into())
            .spawn(reclaim)
            .expect("the system can start one more thread");
        Domain {
            collector: Collector::new(),
            retired_bytes: AtomicUsize::new(0),
            cap_bytes: AtomicUsize::new(RETIRED_CAP_BYTES),
            rings: Mutex::new(Vec::new()),
            reclaimer: reclaimer.thread().clone(),
        }
    }
}

/// The reclaimer thread: takes what cores retired and moves the epoch on for as long as anything waits for it.
fn reclaim() {
    loop {
        let mut taken = Vec::new();
        {
            let mut rings = DOMAIN.rings.lock().unwrap_or_else(PoisonError::into_inner);
            rings.retain_mut(|ring| {
                let gone = ring.is_abandoned();
                while let Ok(retired) = ring.pop() {
                    taken.push(retired);
                }
                !gone
            });
        }
        for Retired { object, bytes } in taken {
            defer(object, bytes);
        }
        if retired_bytes() == 0 {
            thread::park();
        } else {
            LOCAL.with(|local| local.pin().flush());
            thread::park_timeout(Duration::from_micros(200));
        }
    }
}

/// Permission to read what RCU protects, until the reader's next quiescent state. A copy of a borrow: costs nothing.
#[derive(Clone, Copy)]
pub struct ReadGuard<'r> {
    _guard: PhantomData<&'r Guard>,
}

/// A core's membership in the domain. Lives on the core's thread.
pub struct Reader {
    /// `None` while offline.
    guard: Option<Guard>,
    handle: LocalHandle,
    ring: rtrb::Producer<Retired>,
}

impl Reader {
    /// Joins the domain, online.
    pub fn register() -> Self {
        let (ring, consumer) = rtrb::RingBuffer::new(RETIRE_RING);
        DOMAIN.rings.lock().unwrap_or_else(PoisonError::into_inner).push(consumer);
        let mut reader = Reader { guard: None, handle: DOMAIN.collector.register(), ring };
        reader.online();
        reader
    }

    /// Permission to read; borrows the reader. The reader must be online.
    #[inline]
    pub fn guard(&self) -> ReadGuard<'_> {
        assert!(self.guard.is_some(), "an offline reader may not read");
        ReadGuard { _guard: PhantomData }
    }

    /// Declares that nothing read before is still held. The signature proves it.
    #[inline]
    pub fn quiescent(&mut self) {
        if let Some(guard) = &mut self.guard {
            guard.repin();
        }
    }

    /// Leaves before blocking: no grace period waits for an offline reader.
    pub fn offline(&mut self) {
        if self.guard.take().is_some() {
            ONLINE.set(ONLINE.get() - 1);
        }
    }

    /// Comes back. Pinning is a full barrier, so everything published before is seen.
    pub fn online(&mut self) {
        if self.guard.is_none() {
            self.guard = Some(self.handle.pin());
            ONLINE.set(ONLINE.get() + 1);
        }
    }

    /// Hands `object` to the reclaimer, which frees it after a grace period. Gives it back when the ring or the cap is full: the
    /// core refuses by name whatever needed it.
    pub fn retire(&mut self, object: Box<dyn Send>, bytes: usize) -> Result<(), Box<dyn Send>> {
        if retired_bytes() + bytes > DOMAIN.cap_bytes.load(Ordering::Relaxed) {
            return Err(object);
        }
        let bytes = bytes.max(1);
        DOMAIN.retired_bytes.fetch_add(bytes, Ordering::Relaxed);
        if let Err(rtrb::PushError::Full(retired)) = self.ring.push(Retired { object, bytes }) {
            DOMAIN.retired_bytes.fetch_sub(bytes, Ordering::Relaxed);
            return Err(retired.object);
        }
        DOMAIN.reclaimer.unpark();
        Ok(())
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.offline();
    }
}

/// A short read section for threads that are not cores (views, handles).
pub struct Pin(Guard);

impl Pin {
    /// Permission to read while the pin lives.
    pub fn guard(&self) -> ReadGuard<'_> {
        let _ = &self.0;
        ReadGuard { _guard: PhantomData }
    }
}

/// Begins a short read section. Costs about 12 ns; holding it long delays every grace period.
pub fn pin() -> Pin {
    PINS.set(PINS.get() + 1);
    LOCAL.with(|local| Pin(local.pin()))
}

impl Drop for Pin {
    fn drop(&mut self) {
        PINS.set(PINS.get() - 1);
    }
}

/// Frees `object` after a grace period. For writers; waits for one if the cap on retired memory is reached, unless the thread is in
/// a read section itself: then its next call outside of one waits.
pub fn retire<T: Send + 'static>(object: T, bytes: usize) {
    let bytes = bytes.max(1);
    let retired = DOMAIN.retired_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
    defer(object, bytes);
    if retired > DOMAIN.cap_bytes.load(Ordering::Relaxed) && ONLINE.get() == 0 && PINS.get() == 0 {
        synchronize();
    }
    DOMAIN.reclaimer.unpark();
}

/// Queues the free; `bytes` are in the account already.
fn defer<T: Send + 'static>(object: T, bytes: usize) {
    let bytes = bytes.max(1);
    LOCAL.with(|local| {
        let guard = local.pin();
        guard.defer(move || {
            drop(object);
            DOMAIN.retired_bytes.fetch_sub(bytes, Ordering::Relaxed);
        });
        guard.flush();
    });
}

/// Waits for a grace period: when it returns, every read section that began before has ended.
///
/// # Panics
/// On a thread with an online [`Reader`] or a [`Pin`], which would wait for itself.
pub fn synchronize() {
    assert_eq!(
        ONLINE.get(),
        0,
        "a polling thread waited for a grace period, that is for itself: do this from another thread"
    );
    assert_eq!(
        PINS.get(),
        0,
        "a pinned thread waited for a grace period, that is for itself: drop the pin first"
    );
    let passed = Arc::new(AtomicBool::new(false));
    let signal = passed.clone();
    LOCAL.with(|local| {
        local.pin().defer(move || signal.store(true, Ordering::Release));
        let mut tries = 0u32;
        while !passed.load(Ordering::Acquire) {
            local.pin().flush();
            tries += 1;
            match tries {
                0..64 => std::hint::spin_loop(),
                64..256 => thread::yield_now(),
                _ => thread::sleep(Duration::from_micros(100)),
            }
        }
    });
}

/// Whether this thread runs cores: it must not wait for what a core does.
pub fn is_core() -> bool {
    ONLINE.get() > 0
}

/// Bytes retired and not yet freed.
pub fn retired_bytes() -> usize {
    DOMAIN.retired_bytes.load(Ordering::Relaxed)
}

/// Sets the cap on retired bytes, for the process.
pub fn set_retired_cap(bytes: usize) {
    DOMAIN.cap_bytes.store(bytes, Ordering::Relaxed);
}

/// A shared place for an `Arc<T>` that readers follow with a plain load and writers replace; the old value is freed after a grace
/// period.
pub struct RcuCell<T> {
    /// From `Arc::into_raw`, or null. The cell owns one strong reference.
    value: AtomicPtr<T>,
    _owns: PhantomData<Arc<T>>,
}

impl<T: Send + Sync + 'static> RcuCell<T> {
    /// A cell that holds `value`.
    pub fn new(value: Arc<T>) -> Self {
        RcuCell { value: AtomicPtr::new(Arc::into_raw(value).cast_mut()), _owns: PhantomData }
    }

    /// A cell that holds nothing.
    pub const fn empty() -> Self {
        RcuCell { value: AtomicPtr::new(ptr::null_mut()), _owns: PhantomData }
    }

    /// What the cell holds. The borrow ends with the guard, that is before the next quiescent state.
    #[inline]
    pub fn load<'g>(&'g self, _guard: ReadGuard<'g>) -> Option<&'g T> {
        // Acquire: pairs with the release half of the swap in `replace`.
        let value = self.value.load(Ordering::Acquire);
        // SAFETY: non-null values come from Arc::into_raw and lose the cell's reference only through `replace`, which defers that to
        // the end of a grace period of the one domain; the guard keeps that period from ending before 'g does.
        unsafe { value.as_ref() }
    }

    /// A strong reference to what the cell holds, for those who keep it longer than a read section (sleepers).
    pub fn load_owned(&self, guard: ReadGuard<'_>) -> Option<Arc<T>> {
        let value: *const T = self.load(guard)?;
        // SAFETY: `value` came from Arc::into_raw, and the cell's own reference outlives the guard (see `load`), so the count
        // is at least one while it is raised.
        unsafe {
            Arc::increment_strong_count(value);
            Some(Arc::from_raw(value))
        }
    }

    /// Publishes `value` (or nothing) and retires what was there. Tells whether anything was.
    pub fn replace(&self, value: Option<Arc<T>>) -> bool {
        let new = value.map_or(ptr::null_mut(), |value| Arc::into_raw(value).cast_mut());
        // Release: publishes the new value's contents to `load`. Acquire: the old value is dropped after its publication.
        let old = self.value.swap(new, Ordering::AcqRel);
        if old.is_null() {
            return false;
        }
        // SAFETY: the swap took the cell's own strong reference out, exactly once.
        let old = unsafe { Arc::from_raw(old.cast_const()) };
        retire(old, size_of::<T>());
        true
    }
}

impl<T> Drop for RcuCell<T> {
    fn drop(&mut self) {
        let value = *self.value.get_mut();
        if !value.is_null() {
            // SAFETY: `&mut self`: no borrow from `load` is alive (they borrow the cell), and the reference is the cell's own.
            drop(unsafe { Arc::from_raw(value.cast_const()) });
        }
    }
}

// SAFETY: the cell hands out &T and Arc<T> to any thread and drops T on any thread: what Arc<T> itself requires.
unsafe impl<T: Send + Sync> Send for RcuCell<T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Sync for RcuCell<T> {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    struct Flagged(Arc<AtomicBool>);
    impl Drop for Flagged {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
        for _ in 0..20_000 {
            if condition() {
                return;
            }
            thread::sleep(Duration::from_micros(200));
        }
        panic!("never came true: {what}");
    }

    #[test]
    fn a_replaced_value_outlives_the_reader_and_dies_after_it() {
        let freed = Arc::new(AtomicBool::new(false));
        let cell = Arc::new(RcuCell::new(Arc::new(Flagged(freed.clone()))));
        let (to_reader, orders) = mpsc::channel::<()>();
        let (reply, from_reader) = mpsc::channel();
        let shared = cell.clone();
        let reader = thread::spawn(move || {
            let mut reader = Reader::register();
            let seen = shared.load(reader.guard()).expect("published before");
            reply.send(()).unwrap();
            orders.recv().unwrap();
            assert!(!seen.0.load(Ordering::SeqCst), "freed under a reader");
            reader.quiescent();
            reply.send(()).unwrap();
            while orders.recv().is_ok() {
                reader.quiescent();
            }
        });
        from_reader.recv().unwrap();
        assert!(cell.replace(None));
        thread::sleep(Duration::from_millis(20));
        assert!(!freed.load(Ordering::SeqCst), "freed before the reader was quiescent");
        to_reader.send(()).unwrap();
        from_reader.recv().unwrap();
        eventually("the retired value is freed", || {
            to_reader.send(()).unwrap();
            freed.load(Ordering::SeqCst)
        });
        drop(to_reader);
        reader.join().unwrap();
    }

    #[test]
    fn an_offline_reader_delays_nobody() {
        let mut reader = Reader::register();
        reader.offline();
        synchronize();
        reader.online();
        assert!(std::panic::catch_unwind(synchronize).is_err(), "waiting for oneself must be refused");
    }

    #[test]
    fn a_core_retires_through_the_ring() {
        let freed = Arc::new(AtomicBool::new(false));
        let flag = freed.clone();
        let core = thread::spawn(move || {
            let mut reader = Reader::register();
            assert!(reader.retire(Box::new(Flagged(flag)), 8).is_ok());
        });
        core.join().unwrap();
        eventually("what the core retired is freed", || freed.load(Ordering::SeqCst));
    }

    #[test]
    fn replacing_under_load_never_shows_a_freed_value() {
        let cell = Arc::new(RcuCell::new(Arc::new(vec![0u64; 16])));
        let stop = Arc::new(AtomicBool::new(false));
        let (shared, halt) = (cell.clone(), stop.clone());
        let reader = thread::spawn(move || {
            let mut reader = Reader::register();
            let mut turns = 0u64;
            while !halt.load(Ordering::Relaxed) {
                let values = shared.load(reader.guard()).expect("never empty");
                assert!(values.iter().all(|v| *v == values[0]), "torn or freed: {values:?}");
                reader.quiescent();
                turns += 1;
            }
            turns
        });
        for i in 1..20_000u64 {
            cell.replace(Some(Arc::new(vec![i; 16])));
        }
        stop.store(true, Ordering::Relaxed);
        assert!(reader.join().unwrap() > 0);
    }
}
