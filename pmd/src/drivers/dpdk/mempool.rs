//! Our pools as DPDK's mempools, without a copy of anything: the objects are our buffers where they are, and the operations of the
//! mempool are those of [`Home`].
//!
//! A buffer is in one of two states. Ours: `home` points to its Home, and Meta is what the driver said. DPDK's: `home` is rte_mbuf's
//! `pool`, Meta is `ol_flags` and `packet_type`, and `refcnt` is 1. It becomes DPDK's in [`dequeue`] and in tx_burst, and ours
//! in [`enqueue`] and in rx_burst.
//!
//! The mempool is never populated in the ordinary way, which would write a header of its own before each object, where our buffers
//! have the end of the one before. It only knows the memory (drivers that register it, as AF_XDP and mlx5, walk the chunks), and its
//! object size is such that DPDK, too, counts [`STRIDE`] from one to the next. Nor has it caches per lcore: the home's free list is as near
//! (measured, see ARCHITECTURE.md), and no buffer waits in one where its owner does not see it.

use std::ffi::{CString, c_char, c_int, c_uint, c_void};
use std::ptr::NonNull;
use std::sync::Arc;

use dpdk_sys::{rte_iova_t, rte_mempool, rte_mempool_ops};

use super::eal::Eal;
use super::log;
use crate::header::{BUFFER_LEN, Header, STRIDE};
use crate::home::{self, Home};
use crate::pool::PoolHandle;
use crate::port::PortError;

/// What DPDK adds to the size of an object for the header that we leave out (RTE_MEMPOOL_ALIGN).
const OBJECT_HEADER: usize = 64;

/// A pool that DPDK knows.
pub(super) struct Mempool {
    /// The home of `handle`.
    home: *const Home,
    /// Keeps the memory mapped.
    handle: PoolHandle,
    raw: NonNull<rte_mempool>,
    iova: Iova,
}

// SAFETY: the mempool is used by any thread: its operations are `enqueue` and `dequeue` below. The rest does not change.
unsafe impl Send for Mempool {}
// SAFETY: as for Send.
unsafe impl Sync for Mempool {}

/// How a device addresses the pool's memory.
enum Iova {
    /// As we do.
    Virtual,
    /// By the bus address of each page.
    Pages { base: usize, shift: u32, pages: Box<[u64]> },
}

impl Mempool {
    pub(super) fn home(&self) -> *const Home {
        self.home
    }

    pub(super) fn raw(&self) -> *mut rte_mempool {
        self.raw.as_ptr()
    }

    pub(super) fn handle(&self) -> &PoolHandle {
        &self.handle
    }

    /// Makes a buffer DPDK's.
    ///
    /// # Safety
    /// It is a buffer of this pool that the caller owns.
    #[inline(always)]
    pub(super) unsafe fn lend(&self, header: *mut Header) {
        // SAFETY: the buffer is the caller's.
        let header = unsafe { &mut *header };
        header.home = self.raw.as_ptr().cast_const().cast();
        header.iova = match &self.iova {
            Iova::Virtual => header.buf_addr as u64,
            Iova::Pages { base, shift, pages } => {
                let offset = header.buf_addr as usize - base;
                pages[offset >> shift] + (offset as u64 & ((1 << shift) - 1))
            }
        };
        header.refcnt = 1;
        super::frame::clear_flags(header);
    }
}

impl Drop for Mempool {
    fn drop(&mut self) {
        let region = self.handle.region();
        // SAFETY: nobody uses it any more (`sweep`), and the memory is the region that was registered.
        unsafe {
            dpdk_sys::rte_mempool_free(self.raw.as_ptr());
            dpdk_sys::rte_extmem_unregister(region.base().as_ptr().cast(), region.len());
        }
    }
}

impl Eal {
    /// The mempool of a pool; made now if this is the first port that is opened with it.
    pub(super) fn mempool(&mut self, url: &str, handle: &PoolHandle) -> Result<Arc<Mempool>, PortError> {
        self.sweep();
        if let Some(known) = self.pools.iter().find(|pool| std::ptr::eq(pool.home(), handle.home())) {
            return Ok(known.clone());
        }
        let pool = Arc::new(self.make(url, handle)?);
        // SAFETY: the mempool is ours, and nobody was told of it yet. `pools` keeps what it points to alive until it is freed.
        unsafe { (*pool.raw()).__bindgen_anon_1.pool_data = Arc::as_ptr(&pool).cast_mut().cast() };
        self.pools.push(pool.clone());
        Ok(pool)
    }

    fn make(&mut self, url: &str, handle: &PoolHandle) -> Result<Mempool, PortError> {
        let refused = |what: &str| {
            // SAFETY: it reads a variable of this thread.
            log::refused(url, format!("{what} pool {:?}", handle.name()), unsafe { dpdk_sys::rxl_errno() })
        };
        let region = handle.region();
        let (base, len, page) = (region.base().as_ptr(), region.len(), region.page_size());
        let iova = self.iova(handle).ok_or_else(|| refused("finding the bus addresses of"))?;
        // SAFETY: the region is mapped and aligned to its pages, and stays so as long as the handle.
        if unsafe { dpdk_sys::rte_extmem_register(base.cast(), len, std::ptr::null_mut(), 0, page) } != 0 {
            return Err(refused("registering the memory of"));
        }
        self.pools_made += 1;
        let name = CString::new(format!("rxline{}", self.pools_made)).expect("no zero bytes");
        // SAFETY: plain values and a name that lives. The sizes are set right below, before anybody else sees it.
        let raw = unsafe {
            dpdk_sys::rte_mempool_create_empty(
                name.as_ptr(),
                handle.capacity() as c_uint,
                (STRIDE - OBJECT_HEADER) as c_uint,
                0,
                size_of::<dpdk_sys::rte_pktmbuf_pool_private>() as c_uint,
                -1,
                0,
            )
        };
        let Some(raw) = NonNull::new(raw) else {
            // SAFETY: it was registered above.
            unsafe { dpdk_sys::rte_extmem_unregister(base.cast(), len) };
            return Err(refused("making a mempool of"));
        };
        let pool = Mempool { home: handle.home(), handle: handle.clone(), raw, iova };
        // SAFETY: the mempool was just made. Its private area has the size asked for.
        let populated = unsafe {
            (*raw.as_ptr()).header_size = 0;
            (*raw.as_ptr()).trailer_size = OBJECT_HEADER as u32;
            let private: *mut dpdk_sys::rte_pktmbuf_pool_private =
                dpdk_sys::rxl_mempool_priv(raw.as_ptr()).cast();
            *private = Default::default();
            (*private).mbuf_data_room_size = BUFFER_LEN as u16;
            match dpdk_sys::rte_mempool_set_ops_byname(raw.as_ptr(), OPS.as_ptr(), std::ptr::null_mut()) {
                0 => dpdk_sys::rte_mempool_populate_iova(
                    raw.as_ptr(),
                    base.cast(),
                    pool.first_iova(),
                    len,
                    None,
                    std::ptr::null_mut(),
                ),
                error => error,
            }
        };
        // Dropped, it is freed and its memory unregistered.
        if populated <= 0 { Err(refused("filling the mempool of")) } else { Ok(pool) }
    }

    fn iova(&self, handle: &PoolHandle) -> Option<Iova> {
        // SAFETY: EAL is set up.
        if unsafe { dpdk_sys::rte_eal_iova_mode() } == dpdk_sys::rte_iova_mode_RTE_IOVA_VA {
            return Some(Iova::Virtual);
        }
        let region = handle.region();
        let (base, page) = (region.base().as_ptr() as usize, region.page_size());
        let address = |at: usize| {
            // SAFETY: it looks the page up, and touches it at most by reading; the region is mapped.
            let iova = unsafe { dpdk_sys::rte_mem_virt2iova(std::ptr::with_exposed_provenance(base + at)) };
            (iova != u64::MAX).then_some(iova)
        };
        let pages: Option<Box<[u64]>> = (0..region.len()).step_by(page).map(address).collect();
        Some(Iova::Pages { base, shift: page.trailing_zeros(), pages: pages? })
    }

    /// Frees the mempools that no port uses and none of whose buffers can be in a device.
    pub(super) fn sweep(&mut self) {
        let idle = self.devices == 0;
        self.pools.retain(|pool| Arc::strong_count(pool) > 1 || !(idle || pool.handle.in_use() == 0));
    }
}

impl Mempool {
    pub(super) fn first_iova(&self) -> rte_iova_t {
        match &self.iova {
            Iova::Virtual => self.handle.region().base().as_ptr() as u64,
            Iova::Pages { pages, .. } => pages[0],
        }
    }
}

const OPS: &std::ffi::CStr = c"rxline";

/// Tells DPDK of our kind of mempool: once in a process.
pub(super) fn register_ops() -> Result<(), i32> {
    let mut ops = rte_mempool_ops {
        alloc: Some(alloc),
        free: Some(free),
        enqueue: Some(enqueue),
        dequeue: Some(dequeue),
        get_count: Some(get_count),
        populate: Some(populate),
        ..Default::default()
    };
    for (to, from) in ops.name.iter_mut().zip(OPS.to_bytes()) {
        *to = *from as c_char;
    }
    // SAFETY: the description is whole, and copied.
    match unsafe { dpdk_sys::rte_mempool_register_ops(&ops) } {
        index if index >= 0 => Ok(()),
        error => Err(error),
    }
}

/// There is nothing to allocate: the home is there.
unsafe extern "C" fn alloc(_pool: *mut rte_mempool) -> c_int {
    0
}

unsafe extern "C" fn free(_pool: *mut rte_mempool) {}

/// Counts the objects and writes nothing; see the top.
unsafe extern "C" fn populate(
    pool: *mut rte_mempool,
    objects: c_uint,
    _memory: *mut c_void,
    _iova: rte_iova_t,
    _len: usize,
    _object: dpdk_sys::rte_mempool_populate_obj_cb_t,
    _argument: *mut c_void,
) -> c_int {
    // SAFETY: called by rte_mempool_populate_iova on the mempool that is being made.
    unsafe { (*pool).populated_size += objects };
    objects as c_int
}

/// # Safety
/// `pool` is one that [`Eal::mempool`] made.
#[inline]
unsafe fn ours<'a>(pool: *const rte_mempool) -> &'a Mempool {
    // SAFETY: `pool_data` was set when it was made, and lives longer than the mempool.
    unsafe { &*(*pool).__bindgen_anon_1.pool_data.cast::<Mempool>() }
}

unsafe extern "C" fn get_count(pool: *const rte_mempool) -> c_uint {
    // SAFETY: DPDK calls it with our mempools.
    let home = unsafe { &*ours(pool).home() };
    (home.capacity() - home.in_use()) as c_uint
}

/// DPDK gives buffers back, on any thread. It left them as free ones are: of one segment, without a next one.
unsafe extern "C" fn enqueue(pool: *mut rte_mempool, table: *const *mut c_void, n: c_uint) -> c_int {
    // SAFETY: DPDK calls it with our mempools and `n` buffers of theirs, which it forgets.
    unsafe {
        let home = ours(pool).home();
        for &object in std::slice::from_raw_parts(table.cast::<NonNull<Header>>(), n as usize) {
            (*object.as_ptr()).home = home;
            debug_assert!((*object.as_ptr()).next.is_null() && (*object.as_ptr()).segments == 1);
            home::give_back_to(home, object);
        }
    }
    0
}

/// DPDK takes buffers: all `n` or none. Only the pool's owner can, or anybody while it has none: a ring is filled when the port is opened.
unsafe extern "C" fn dequeue(pool: *mut rte_mempool, table: *mut *mut c_void, n: c_uint) -> c_int {
    let n = n as usize;
    // SAFETY: DPDK calls it with our mempools and room for `n` objects.
    let (pool, table) = unsafe { (ours(pool), std::slice::from_raw_parts_mut(table, n)) };
    // SAFETY: the mempool keeps its home.
    let home = unsafe { &*pool.home() };
    let taken = home.as_consumer(|free| {
        if free.len() < n {
            // SAFETY: we are the consumer.
            unsafe { home.collect() };
            if free.len() < n {
                return false;
            }
        }
        let mut slots = table.iter_mut();
        free.pop_burst(n, |header| {
            // SAFETY: the buffer is ours now; `pop_burst` yields at most `n`.
            unsafe { pool.lend(header.as_ptr()) };
            if let Some(slot) = slots.next() {
                *slot = header.as_ptr().cast();
            }
        });
        true
    });
    if taken == Some(true) { 0 } else { -libc::ENOBUFS }
}
