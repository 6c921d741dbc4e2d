//! Where buffers live when nobody has them, and the ways back there.
//!
//! A [`Home`] is the control block of one pool. Its free list belongs to the thread that claimed the pool. A
//! buffer dropped elsewhere comes back
//! - from a thread with a core slot: through that slot's SPSC ring of indexes. It has room for every buffer of the
//!   pool, so it is never full and the producer never looks at the consumer's side;
//! - from any other thread: on the list of strays, pushed with a compare-and-swap that the owner never waits for.
//!
//! The owner collects both when its free list runs low. When a pool is dropped with buffers still out, its home becomes
//! an *orphan*: the registry below keeps it, and sweeps it whenever one of its buffers comes back (and whenever a pool
//! or slot comes or goes), until all are home and the region can be unmapped.
//!
//! Ordering: rings and strays publish with Release and are collected with Acquire. The owner's token is compared
//! with Relaxed loads: only the owner itself can read its own token there, and it reads what it wrote.

use std::cell::Cell;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, Weak};

use crossbeam_utils::CachePadded;

use crate::core_slot::{self, CORE_SLOTS};
use crate::header::{HEADER, Header, STRIDE};
use crate::region::Region;

/// Owner of a pool that no thread has claimed yet.
const UNCLAIMED: u64 = u64::MAX;
/// Owner of a pool that was dropped.
const ORPHANED: u64 = u64::MAX - 1;

pub(crate) struct Home {
    pub name: String,
    pub region: Region,
    capacity: usize,
    owner: AtomicU64,
    rings: Box<[OnceLock<ReturnRing>]>,
    /// Bit per slot whose ring exists.
    rings_made: AtomicU64,
    strays: AtomicPtr<Header>,
    stray_count: AtomicUsize,
    free: CachePadded<FreeList>,
}

// SAFETY: the raw pointers inside point into `region`, which Home owns. `free` is touched only by the consumer: the
// thread whose token is `owner`, or, for an orphan, whoever holds the registry's lock. All else is atomic.
unsafe impl Send for Home {}
// SAFETY: as for Send.
unsafe impl Sync for Home {}

impl Home {
    /// A home with all its buffers in.
    pub(crate) fn new(name: String, region: Region, capacity: usize) -> Arc<Home> {
        assert!(capacity > 0 && capacity * STRIDE <= region.len());
        assert!(u32::try_from(capacity).is_ok_and(|capacity| capacity <= 1 << 31));
        let home = Arc::new(Home {
            name,
            capacity,
            owner: AtomicU64::new(UNCLAIMED),
            rings: (0..CORE_SLOTS).map(|_| OnceLock::new()).collect(),
            rings_made: AtomicU64::new(0),
            strays: AtomicPtr::new(std::ptr::null_mut()),
            stray_count: AtomicUsize::new(0),
            free: CachePadded::new(FreeList::new(capacity)),
            region,
        });
        // Backwards, so that the first buffer of the region is the first to leave.
        for index in (0..capacity).rev() {
            let header = home.header(index);
            // SAFETY: buffer `index` lies inside the region and is aligned to its stride; nobody else has it yet. The
            // headroom's pointer is derived from the region's, so that it may reach all of the buffer.
            unsafe {
                let buf_addr = header.as_ptr().cast::<u8>().add(HEADER);
                header.write(Header::free(buf_addr, index as u32, Arc::as_ptr(&home)));
            }
            home.free.push(header);
        }
        let mut registry = registry();
        registry.sweep();
        for slot in (0..CORE_SLOTS).filter(|slot| registry.slots >> slot & 1 == 1) {
            home.make_ring(slot);
        }
        registry.homes.push(Arc::downgrade(&home));
        home
    }

    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Makes the current thread the owner: once per home (a seed is used up by it). Waits for the end of an [`as_consumer`](Self::as_consumer).
    pub(crate) fn claim(&self) {
        let mine = core_slot::token_or_new();
        // AcqRel: pairs with the Release by which `as_consumer` puts UNCLAIMED back.
        while self.owner.compare_exchange_weak(UNCLAIMED, mine, Ordering::AcqRel, Ordering::Relaxed).is_err()
        {
            std::thread::yield_now();
        }
    }

    /// Runs `f` on the free list if this thread may: as the owner, or, while nobody has claimed the pool, in its place (a device's
    /// rings are filled before the cores start). `None` otherwise.
    #[cfg(feature = "dpdk")]
    #[inline]
    pub(crate) fn as_consumer<T>(&self, f: impl FnOnce(&FreeList) -> T) -> Option<T> {
        if self.owner.load(Ordering::Relaxed) == core_slot::token() {
            return Some(f(&self.free));
        }
        let mine = core_slot::token_or_new();
        // Acquire: pairs with the Release below, of whoever was in this place before.
        self.owner.compare_exchange(UNCLAIMED, mine, Ordering::Acquire, Ordering::Relaxed).ok()?;
        let result = f(&self.free);
        // Release: pairs with the Acquire above and in `claim`.
        self.owner.store(UNCLAIMED, Ordering::Release);
        Some(result)
    }

    /// The free list.
    ///
    /// # Safety
    /// The caller is the consumer of this home (see `impl Send`).
    #[inline]
    pub(crate) unsafe fn free(&self) -> &FreeList {
        &self.free
    }

    /// Buffers that somebody has. Exact when nothing moves meanwhile.
    pub(crate) fn in_use(&self) -> usize {
        let returning: usize = self.rings.iter().filter_map(OnceLock::get).map(ReturnRing::len).sum();
        let home = self.free.len() + returning + self.stray_count.load(Ordering::Relaxed);
        self.capacity.saturating_sub(home)
    }

    /// Moves what came back onto the free list.
    ///
    /// # Safety
    /// The caller is the consumer of this home (see `impl Send`).
    pub(crate) unsafe fn collect(&self) {
        let mut made = self.rings_made.load(Ordering::Acquire);
        while made != 0 {
            let slot = made.trailing_zeros() as usize;
            made &= made - 1;
            if let Some(ring) = self.rings[slot].get() {
                ring.drain(|index| self.free.push(self.header(index as usize)));
            }
        }
        if !self.strays.load(Ordering::Relaxed).is_null() {
            self.collect_strays();
        }
    }

    #[cold]
    fn collect_strays(&self) {
        // Acquire: pairs with the Release of `push_stray`.
        let mut next = self.strays.swap(std::ptr::null_mut(), Ordering::Acquire);
        while let Some(header) = NonNull::new(next) {
            // SAFETY: the swap took the whole list, so that its buffers are ours alone.
            unsafe {
                next = (*header.as_ptr()).next;
                (*header.as_ptr()).next = std::ptr::null_mut();
            }
            self.free.push(header);
            self.stray_count.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Takes up to `n` free buffers if the current thread is the owner, and none otherwise; how many.
    #[inline]
    pub(crate) fn take(&self, n: usize, take: impl FnMut(NonNull<Header>)) -> usize {
        if self.owner.load(Ordering::Relaxed) != core_slot::token() {
            return 0;
        }
        // SAFETY: the owner is the consumer; no thread has the token of another.
        unsafe {
            if self.free.len() < n {
                self.collect();
            }
            self.free.pop_burst(n, take)
        }
    }

    /// Buffer `index`, whoever has it.
    #[inline]
    pub(crate) fn buffer(&self, index: usize) -> NonNull<Header> {
        assert!(index < self.capacity);
        self.header(index)
    }

    #[inline]
    fn header(&self, index: usize) -> NonNull<Header> {
        debug_assert!(index < self.capacity);
        // SAFETY: indexes come from this home's own buffers, all of which lie inside the region.
        unsafe { self.region.base().add(index * STRIDE).cast() }
    }

    fn make_ring(&self, slot: usize) {
        self.rings[slot].get_or_init(|| ReturnRing::new(self.capacity));
        self.rings_made.fetch_or(1 << slot, Ordering::Release);
    }

    #[cold]
    fn push_stray(&self, header: NonNull<Header>) {
        // Counted first: after the push `self` may be gone.
        self.stray_count.fetch_add(1, Ordering::Relaxed);
        let mut head = self.strays.load(Ordering::Relaxed);
        loop {
            // SAFETY: the caller owns this buffer until the exchange below succeeds.
            unsafe { (*header.as_ptr()).next = head };
            // Release: pairs with the Acquire of `collect_strays`. Nobody pops single entries, so that there is no ABA.
            match self.strays.compare_exchange_weak(
                head,
                header.as_ptr(),
                Ordering::Release,
                Ordering::Relaxed,
            ) {
                Ok(_) => return,
                Err(now) => head = now,
            }
        }
    }
}

/// Sends one segment home.
///
/// # Safety
/// `header` is a buffer of a live home that the caller owns, with `next` null and `segments` 1; the caller forgets it.
#[inline]
pub(crate) unsafe fn give_back(header: NonNull<Header>) {
    // SAFETY: the buffer is the caller's.
    unsafe { give_back_to((*header.as_ptr()).home, header) };
}

/// The same for whoever knows the home already.
///
/// # Safety
/// As for `give_back`, and `home` is what the header says.
#[inline]
pub(crate) unsafe fn give_back_to(home: *const Home, header: NonNull<Header>) {
    // SAFETY: a home outlives its buffers, and this buffer is not home yet.
    let home = unsafe { &*home };
    let owner = home.owner.load(Ordering::Relaxed);
    if owner == core_slot::token() {
        home.free.push(header);
    } else {
        // SAFETY: handed on.
        unsafe { give_back_remote(home, owner, header) };
    }
}

/// # Safety
/// As for `give_back`. Takes a pointer, for the home may be freed by another thread as soon as the buffer is in.
#[inline(never)]
unsafe fn give_back_remote(home: *const Home, owner: u64, header: NonNull<Header>) {
    {
        // SAFETY: the home lives while `header` is not home, that is until the push below takes effect.
        let home = unsafe { &*home };
        match core_slot::slot().and_then(|slot| home.rings[slot].get()) {
            // SAFETY: the buffer is ours.
            Some(ring) => ring.push(unsafe { (*header.as_ptr()).index }),
            None => home.push_stray(header),
        }
    }
    if owner == ORPHANED {
        registry().sweep();
    }
}

/// A stack of free buffers. Atomic in name only: one thread writes, others read the length for statistics.
pub(crate) struct FreeList {
    len: AtomicUsize,
    slots: Box<[Cell<*mut Header>]>,
}

impl FreeList {
    fn new(capacity: usize) -> FreeList {
        FreeList { len: AtomicUsize::new(0), slots: vec![Cell::new(std::ptr::null_mut()); capacity].into() }
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    #[inline]
    fn push(&self, header: NonNull<Header>) {
        let len = self.len();
        debug_assert!(len < self.slots.len());
        #[cfg(debug_assertions)]
        // SAFETY: the buffer was given to this list; nobody else has it.
        unsafe {
            (*header.as_ptr()).refcnt = 0;
        }
        // SAFETY: there are as many slots as buffers, and each buffer is in at most one place: `len` is in range.
        unsafe { self.slots.get_unchecked(len) }.set(header.as_ptr());
        self.len.store(len + 1, Ordering::Relaxed);
    }

    /// Takes up to `n` buffers at once.
    #[inline]
    pub(crate) fn pop_burst(&self, n: usize, mut take: impl FnMut(NonNull<Header>)) -> usize {
        let len = self.len();
        let n = n.min(len);
        self.len.store(len - n, Ordering::Relaxed);
        // SAFETY: the range ends at the length just read, which `push` keeps in range.
        for slot in unsafe { self.slots.get_unchecked(len - n..len) }.iter().rev() {
            // SAFETY: slots below the length hold buffers.
            take(unsafe { NonNull::new_unchecked(slot.get()) });
        }
        n
    }

    #[inline]
    pub(crate) fn pop(&self) -> Option<NonNull<Header>> {
        let len = self.len().checked_sub(1)?;
        self.len.store(len, Ordering::Relaxed);
        // SAFETY: `len` is below the length just read, which `push` keeps in range; slots below it hold buffers.
        Some(unsafe { NonNull::new_unchecked(self.slots.get_unchecked(len).get()) })
    }
}

/// The way home from one core: an SPSC ring of buffer indexes. The thread that holds the slot pushes, the home's
/// consumer drains.
///
/// Never full, because it has an entry for each buffer and a buffer is in one place at a time. Nor is an entry
/// overwritten before it was read: between the pushes at `tail - capacity` and `tail` some buffer was pushed twice, so
/// the consumer had read the earlier of the two (and with it, in order, everything before) before that buffer could
/// reach the producer again.
struct ReturnRing {
    tail: CachePadded<AtomicU32>,
    head: CachePadded<AtomicU32>,
    /// Relaxed accesses to these are plain moves; `tail` publishes them.
    entries: Box<[AtomicU32]>,
}

impl ReturnRing {
    fn new(capacity: usize) -> ReturnRing {
        let entries = (0..capacity.next_power_of_two()).map(|_| AtomicU32::new(0)).collect();
        let zero = || CachePadded::new(AtomicU32::new(0));
        ReturnRing { tail: zero(), head: zero(), entries }
    }

    fn len(&self) -> usize {
        let head = self.head.load(Ordering::Relaxed);
        self.tail.load(Ordering::Relaxed).wrapping_sub(head) as usize
    }

    #[inline]
    fn push(&self, index: u32) {
        let tail = self.tail.load(Ordering::Relaxed);
        let mask = self.entries.len() - 1;
        self.entries[tail as usize & mask].store(index, Ordering::Relaxed);
        // Release: pairs with the Acquire in `drain`. It is the last access to the home.
        self.tail.store(tail.wrapping_add(1), Ordering::Release);
    }

    fn drain(&self, mut take: impl FnMut(u32)) {
        // Acquire: pairs with the Release in `push`, so that the buffer's contents are ours too.
        let tail = self.tail.load(Ordering::Acquire);
        let mut head = self.head.load(Ordering::Relaxed);
        let mask = self.entries.len() - 1;
        while head != tail {
            take(self.entries[head as usize & mask].load(Ordering::Relaxed));
            head = head.wrapping_add(1);
        }
        self.head.store(head, Ordering::Relaxed);
    }
}

/// What the control path knows: which slots are taken, which homes live, which are orphans.
struct Registry {
    slots: u64,
    homes: Vec<Weak<Home>>,
    orphans: Vec<Arc<Home>>,
}

fn registry() -> MutexGuard<'static, Registry> {
    static REGISTRY: Mutex<Registry> =
        Mutex::new(Registry { slots: 0, homes: Vec::new(), orphans: Vec::new() });
    REGISTRY.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Registry {
    /// Lets go of each orphan whose buffers are all home.
    fn sweep(&mut self) {
        self.orphans.retain(|home| {
            // SAFETY: an orphan has no owner thread; the lock on the registry makes us its consumer.
            unsafe { home.collect() };
            home.free.len() < home.capacity
        });
        self.homes.retain(|home| home.strong_count() > 0);
    }
}

/// The pool of `home` is dropped, on its owner's thread.
pub(crate) fn orphan(home: Arc<Home>) {
    let mut registry = registry();
    debug_assert_eq!(home.owner.load(Ordering::Relaxed), core_slot::token());
    home.owner.store(ORPHANED, Ordering::Release);
    registry.orphans.push(home);
    registry.sweep();
}

/// Takes a free core slot and makes its ring in every home.
pub(crate) fn take_slot() -> Option<usize> {
    let mut registry = registry();
    registry.sweep();
    let slot = (!registry.slots).trailing_zeros() as usize;
    if slot >= CORE_SLOTS {
        return None;
    }
    registry.slots |= 1 << slot;
    for home in registry.homes.iter().filter_map(Weak::upgrade).chain(registry.orphans.iter().cloned()) {
        home.make_ring(slot);
    }
    Some(slot)
}

/// Gives a slot back; its rings stay, for the next thread that takes it.
pub(crate) fn free_slot(slot: usize) {
    let mut registry = registry();
    registry.slots &= !(1 << slot);
    registry.sweep();
}

#[cfg(test)]
pub(crate) fn orphans_named(name: &str) -> usize {
    let mut registry = registry();
    registry.sweep();
    registry.orphans.iter().filter(|home| home.name == name).count()
}

#[cfg(test)]
mod tests {
    use crate::PoolConfig;

    #[test]
    fn an_orphan_is_let_go_when_its_last_buffer_is_home() {
        let mut pool = PoolConfig::new("orphan-under-test", 4).build().unwrap().claim();
        let (first, second) = (pool.alloc(), pool.alloc());
        drop(pool);
        assert_eq!(super::orphans_named("orphan-under-test"), 1);
        drop(first);
        assert_eq!(super::orphans_named("orphan-under-test"), 1);
        drop(second);
        assert_eq!(super::orphans_named("orphan-under-test"), 0);
    }
}
