//! The control thread ("rcu"): takes what was retired, waits for a grace period, and frees it.
//!
//! Writers retire through a queue under a mutex, cores through a ring each, with plain stores and no wake-up: a core never frees, never
//! waits, never allocates. Half of the cap is the writers', who wait when it is used up; the other half is divided among the cores,
//! each of which is refused when its share is. So what is retired never exceeds the cap by more than one object per writer.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};
use std::time::Duration;

use crossbeam_utils::CachePadded;
use pmd::{Clock, Instant};

use super::domain::Domain;
use super::histogram::{Histogram, Latency};

/// Objects that a core may have on their way to the control thread.
const RING: usize = 4096;
/// Retired bytes unless [`set_retired_cap`](super::set_retired_cap) says otherwise.
const CAP_BYTES: usize = 64 << 20;
/// Between two grace periods: each costs every core a cache miss, and what is retired meanwhile shares the next.
const PACE: Duration = Duration::from_micros(100);
/// How long the control thread sleeps when there is nothing to do. Cores wake it without a barrier, so a wake-up may be missed.
const DOZE: Duration = Duration::from_millis(50);

pub(super) struct Reclaim {
    thread: Thread,
    /// The control thread sleeps, or is about to.
    asleep: CachePadded<AtomicBool>,
    /// Somebody waits for what it does next.
    urgent: AtomicBool,
    queue: Mutex<Vec<Retired>>,
    rings: Mutex<Vec<Ring>>,
    /// Of the writers' objects: retired and not yet freed.
    writers_bytes: AtomicUsize,
    /// What the writers may have retired, and what each core may.
    writers_share: AtomicUsize,
    core_share: AtomicUsize,
    cap_bytes: AtomicUsize,
    /// Where writers wait at the cap.
    room: Condvar,
    room_lock: Mutex<()>,
    taken: AtomicU64,
    freed: AtomicU64,
    latency: Histogram,
    /// The most bytes that were retired at once.
    most_bytes: AtomicUsize,
}

struct Retired {
    object: Object,
    bytes: usize,
    at: Instant,
    /// Whose account it is on; `None`: the writers'.
    core: Option<Arc<Account>>,
}

/// Dropping it is what the grace period was for.
enum Object {
    Owned(#[expect(dead_code, reason = "held to be dropped")] Box<dyn Send>),
    Shared(#[expect(dead_code, reason = "held to be dropped")] Shared),
}

type Shared = Arc<dyn Any + Send + Sync>;

/// A core's side of the ring that leads to the control thread.
struct Ring {
    consumer: rtrb::Consumer<(Shared, usize, Instant)>,
    account: Arc<Account>,
}

/// Bytes that a core ever retired (written by the core) and that were freed (written by the control thread).
#[derive(Default)]
struct Account {
    retired: CachePadded<AtomicUsize>,
    freed: CachePadded<AtomicUsize>,
}

impl Account {
    fn outstanding(&self) -> usize {
        let freed = self.freed.load(Ordering::Relaxed);
        self.retired.load(Ordering::Relaxed).saturating_sub(freed)
    }
}

/// A core's way to retire what only it unpublishes. Plain loads and stores, no allocation; never waits, never frees.
pub struct Retirer {
    ring: rtrb::Producer<(Shared, usize, Instant)>,
    account: Arc<Account>,
    reclaim: &'static Reclaim,
}

impl Retirer {
    pub(super) fn new(reclaim: &'static Reclaim) -> Self {
        let (ring, consumer) = rtrb::RingBuffer::new(RING);
        let account = Arc::new(Account::default());
        lock(&reclaim.rings).push(Ring { consumer, account: account.clone() });
        reclaim.share_out();
        Retirer { ring, account, reclaim }
    }

    /// Whether [`retire`](Self::retire) would take `bytes` now. Ask before you begin what must be retired one day, and refuse by name.
    #[inline]
    pub fn has_room(&self, bytes: usize) -> bool {
        !self.ring.is_full()
            && self.account.outstanding() + bytes <= self.reclaim.core_share.load(Ordering::Relaxed)
    }

    /// Hands this reference to the control thread, which drops it after a grace period. Gives it back when the ring or this core's share
    /// of the cap is used up. `bytes` is what it counts for, `now` the time of this turn.
    #[inline]
    pub fn retire<T: Any + Send + Sync>(
        &mut self,
        object: Arc<T>,
        bytes: usize,
        now: Instant,
    ) -> Result<(), Arc<T>> {
        if !self.has_room(bytes) {
            return Err(object);
        }
        let retired = self.account.retired.load(Ordering::Relaxed);
        self.account.retired.store(retired.wrapping_add(bytes), Ordering::Relaxed);
        assert!(self.ring.push((object, bytes, now)).is_ok(), "it has room and one producer");
        Ok(())
    }

    /// Once a turn: wakes the control thread if it sleeps on what was retired. A plain load unless it does.
    #[inline]
    pub fn nudge(&self) {
        if self.reclaim.asleep.load(Ordering::Relaxed) && self.ring.slots() < RING {
            self.reclaim.wake();
        }
    }
}

impl Reclaim {
    pub fn new(thread: Thread) -> Self {
        Reclaim {
            thread,
            asleep: CachePadded::new(AtomicBool::new(false)),
            urgent: AtomicBool::new(false),
            queue: Mutex::default(),
            rings: Mutex::default(),
            writers_bytes: AtomicUsize::new(0),
            writers_share: AtomicUsize::new(CAP_BYTES),
            core_share: AtomicUsize::new(0),
            cap_bytes: AtomicUsize::new(CAP_BYTES),
            room: Condvar::new(),
            room_lock: Mutex::default(),
            taken: AtomicU64::new(0),
            freed: AtomicU64::new(0),
            latency: Histogram::new(),
            most_bytes: AtomicUsize::new(0),
        }
    }

    // ---- writers ----

    pub fn retire_owned(&self, object: Box<dyn Send>, bytes: usize) {
        self.retire(Object::Owned(object), bytes);
    }

    #[cfg_attr(loom, allow(dead_code, reason = "models keep what they retire"))]
    pub fn retire_shared(&self, object: Shared, bytes: usize) {
        self.retire(Object::Shared(object), bytes);
    }

    fn retire(&self, object: Object, bytes: usize) {
        self.writers_bytes.fetch_add(bytes, Ordering::Relaxed);
        lock(&self.queue).push(Retired { object, bytes, at: Clock::now(), core: None });
        self.most_bytes.fetch_max(self.retired_bytes(), Ordering::Relaxed);
        // Pairs with the fence in `doze`.
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed) {
            self.wake();
        }
    }

    /// Waits until the writers are within their share. Not for cores, pinned threads and the control thread.
    pub fn wait_for_room(&self) {
        let over = || self.writers_bytes.load(Ordering::Relaxed) > self.writers_share.load(Ordering::Relaxed);
        if !over() {
            return;
        }
        let mut held = lock(&self.room_lock);
        while over() {
            self.hurry();
            held = self.room.wait(held).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The next grace period is to begin at once.
    pub fn hurry(&self) {
        self.urgent.store(true, Ordering::Relaxed);
        self.wake();
    }

    fn wake(&self) {
        self.thread.unpark();
    }

    // ---- the cap ----

    pub fn set_cap(&self, bytes: usize) {
        self.cap_bytes.store(bytes, Ordering::Relaxed);
        self.share_out();
        let _held = lock(&self.room_lock);
        self.room.notify_all();
    }

    fn share_out(&self) {
        let cap = self.cap_bytes();
        let cores = lock(&self.rings).len();
        let for_cores = if cores == 0 { 0 } else { cap / 2 };
        self.writers_share.store(cap - for_cores, Ordering::Relaxed);
        self.core_share.store(for_cores / cores.max(1), Ordering::Relaxed);
    }

    // ---- what is known ----

    pub fn retired_bytes(&self) -> usize {
        let cores: usize = lock(&self.rings).iter().map(|ring| ring.account.outstanding()).sum();
        self.writers_bytes.load(Ordering::Relaxed) + cores
    }

    pub fn most_bytes(&self) -> usize {
        self.most_bytes.load(Ordering::Relaxed)
    }

    pub fn cap_bytes(&self) -> usize {
        self.cap_bytes.load(Ordering::Relaxed)
    }

    pub fn waiting(&self) -> u64 {
        let freed = self.freed();
        lock(&self.queue).len() as u64 + self.taken.load(Ordering::Relaxed).saturating_sub(freed)
    }

    pub fn freed(&self) -> u64 {
        self.freed.load(Ordering::Relaxed)
    }

    pub fn latency(&self) -> Latency {
        self.latency.latency()
    }

    // ---- the control thread ----

    pub fn is_control_thread(&self) -> bool {
        thread::current().id() == self.thread.id()
    }

    pub fn run(&self, domain: &Domain) {
        let mut batch = Vec::new();
        loop {
            self.urgent.store(false, Ordering::Relaxed);
            self.take(&mut batch);
            if batch.is_empty() {
                self.doze();
                continue;
            }
            domain.grace_period();
            self.free(&mut batch);
            if !self.urgent.load(Ordering::Relaxed) {
                thread::park_timeout(PACE);
            }
        }
    }

    /// The queue first, and freed last: what a core retired before a writer retired something is freed before it.
    fn take(&self, batch: &mut Vec<Retired>) {
        let mut queue = std::mem::take(&mut *lock(&self.queue));
        let mut rings = lock(&self.rings);
        let cores = rings.len();
        rings.retain_mut(|Ring { consumer, account }| {
            let gone = consumer.is_abandoned();
            while let Ok((object, bytes, at)) = consumer.pop() {
                batch.push(Retired {
                    object: Object::Shared(object),
                    bytes,
                    at,
                    core: Some(account.clone()),
                });
            }
            !gone || account.outstanding() > 0
        });
        let gone = rings.len() < cores;
        drop(rings);
        self.most_bytes.fetch_max(self.retired_bytes(), Ordering::Relaxed);
        if gone {
            self.share_out();
        }
        batch.append(&mut queue);
        self.taken.fetch_add(batch.len() as u64, Ordering::Relaxed);
    }

    fn free(&self, batch: &mut Vec<Retired>) {
        for Retired { object, bytes, at, core } in batch.drain(..) {
            // Somebody else's Drop: should it panic, the control thread lives for the others.
            let _ = catch_unwind(AssertUnwindSafe(|| drop(object)));
            self.latency.record(Clock::now() - at);
            self.freed.fetch_add(1, Ordering::Relaxed);
            match core {
                None => {
                    self.writers_bytes.fetch_sub(bytes, Ordering::Relaxed);
                }
                Some(account) => {
                    let freed = account.freed.load(Ordering::Relaxed);
                    account.freed.store(freed.wrapping_add(bytes), Ordering::Relaxed);
                }
            }
        }
        let _held = lock(&self.room_lock);
        self.room.notify_all();
    }

    /// Sleeps while nothing is retired.
    fn doze(&self) {
        self.asleep.store(true, Ordering::Relaxed);
        // Pairs with the fence in `retire`.
        fence(Ordering::SeqCst);
        let idle =
            lock(&self.queue).is_empty() && lock(&self.rings).iter().all(|ring| ring.consumer.is_empty());
        if idle {
            thread::park_timeout(DOZE);
        }
        self.asleep.store(false, Ordering::Relaxed);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
