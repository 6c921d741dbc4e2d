//! Pools of buffers: one per core, claimed by the thread that allocates from it.
//!
//! A pool is built anywhere ([`PoolConfig::build`] gives a [`PoolSeed`], which is Send) and claimed once, on the
//! thread that will allocate ([`Pool`] is not Send). Buffers travel freely and come home by themselves. Dropping a pool
//! with buffers still out is safe: its memory lives until the last of them is home.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use crate::header::{DATA_ROOM, STRIDE};
use crate::home::{self, Home};
use crate::mbuf::{Burst, Mbuf};
use crate::region::{Hugepages, Region, RegionError};

/// The pool has no buffer left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no buffers left in the pool; free some, or configure a larger pool")]
pub struct NoBuffers;

/// Why a pool could not be built.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// Zero buffers, or more than an index can name.
    #[error("pool {name:?} cannot have {buffers} buffers; choose 1 to {max}")]
    Size {
        /// The pool.
        name: String,
        /// What was asked for.
        buffers: usize,
        /// The most there can be.
        max: usize,
    },
    /// No memory for it.
    #[error("pool {name:?}: {source}")]
    Region {
        /// The pool.
        name: String,
        /// Why.
        source: RegionError,
    },
}

/// What a pool should be.
#[derive(Debug, Clone)]
pub struct PoolConfig {
    /// For people and statistics.
    pub name: String,
    /// How many buffers of [`STRIDE`] bytes.
    pub buffers: usize,
    /// A memfd that other processes or the kernel can map, instead of private memory.
    pub shared: bool,
    /// Which pages.
    pub hugepages: Hugepages,
}

impl PoolConfig {
    /// Most buffers of a pool: 32 GiB.
    pub const BUFFERS_MAX: usize = 1 << 24;

    /// A private pool, on hugepages if there are any.
    pub fn new(name: impl Into<String>, buffers: usize) -> PoolConfig {
        PoolConfig { name: name.into(), buffers, shared: false, hugepages: Hugepages::Try }
    }

    /// Maps the memory and writes the headers.
    pub fn build(self) -> Result<PoolSeed, PoolError> {
        self.check(Self::BUFFERS_MAX)?;
        let len = self.buffers * STRIDE;
        let region = match self.shared {
            true => Region::shared(&self.name, len, self.hugepages),
            false => Region::private(len, self.hugepages),
        };
        match region {
            Ok(region) => self.build_on(region),
            Err(source) => Err(PoolError::Region { name: self.name, source }),
        }
    }

    /// The same on memory that is there already, as a port may demand ([`Port::memory`](crate::Port::memory)); what kind of memory this
    /// configuration asks for is then not looked at.
    pub fn build_on(self, region: Region) -> Result<PoolSeed, PoolError> {
        self.check((region.len() / STRIDE).min(Self::BUFFERS_MAX))?;
        Ok(PoolSeed { home: Home::new(self.name, region, self.buffers) })
    }

    fn check(&self, max: usize) -> Result<(), PoolError> {
        let PoolConfig { name, buffers, .. } = self;
        match (1..=max).contains(buffers) {
            true => Ok(()),
            false => Err(PoolError::Size { name: name.clone(), buffers: *buffers, max }),
        }
    }
}

/// A pool that no thread has claimed yet.
#[derive(Debug)]
pub struct PoolSeed {
    home: Arc<Home>,
}

impl PoolSeed {
    /// Makes the current thread its owner.
    pub fn claim(self) -> Pool {
        self.home.claim();
        Pool { home: self.home, _thread: PhantomData }
    }

    /// A view for other threads.
    pub fn handle(&self) -> PoolHandle {
        PoolHandle { home: self.home.clone() }
    }
}

/// A pool, on the thread that claimed it.
///
/// ```compile_fail,E0277
/// fn needs_send<T: Send>(_: T) {}
/// needs_send(pmd::PoolConfig::new("doc", 1).build().unwrap().claim());
/// ```
#[derive(Debug)]
pub struct Pool {
    home: Arc<Home>,
    /// Belongs to this thread: neither Send nor Sync.
    _thread: PhantomData<*const ()>,
}

impl Pool {
    /// An empty packet of one segment, with [`HEADROOM`](crate::HEADROOM) bytes of headroom.
    #[inline]
    pub fn alloc(&mut self) -> Option<Mbuf> {
        // SAFETY: this thread claimed the home, which makes it the consumer; the buffer popped is ours alone.
        unsafe {
            let home = &self.home;
            match home.free().pop() {
                Some(header) => Some(Mbuf::fresh(header)),
                None => self.alloc_after_collect(),
            }
        }
    }

    #[cold]
    fn alloc_after_collect(&mut self) -> Option<Mbuf> {
        // SAFETY: as for `alloc`.
        unsafe {
            self.home.collect();
            self.home.free().pop().map(|header| Mbuf::fresh(header))
        }
    }

    /// Adds up to `n` empty packets to `out`, as far as it has room and the pool has buffers; returns how many.
    #[inline]
    pub fn alloc_burst(&mut self, out: &mut Burst, n: usize) -> usize {
        let n = n.min(out.remaining_capacity());
        let home = &self.home;
        // SAFETY: as for `alloc`; `n` is within the room that `out` has.
        unsafe {
            if home.free().len() < n {
                home.collect();
            }
            home.free().pop_burst(n, |header| out.push_unchecked(Mbuf::fresh(header)))
        }
    }

    /// Buffers that can be allocated now, returned ones collected.
    pub fn available(&mut self) -> usize {
        let home = &self.home;
        // SAFETY: as for `alloc`.
        unsafe {
            home.collect();
            home.free().len()
        }
    }

    /// Buffers that it has in all.
    pub fn capacity(&self) -> usize {
        self.home.capacity()
    }

    /// A packet that holds a copy of `bytes`, of as many segments as it takes; `None` without enough buffers.
    #[inline]
    pub fn copy_from(&mut self, bytes: &[u8]) -> Option<Mbuf> {
        let mut mbuf = self.alloc_len(bytes.len())?;
        if mbuf.segment_count() == 1 {
            mbuf.data_mut().copy_from_slice(bytes);
            return Some(mbuf);
        }
        let mut left = bytes;
        for segment in mbuf.segments_mut() {
            let (now, rest) = left.split_at(segment.len());
            segment.copy_from_slice(now);
            left = rest;
        }
        Some(mbuf)
    }

    /// A packet of `len` bytes, whatever they are, of as many segments as it takes; `None` without enough buffers.
    #[inline]
    pub fn alloc_len(&mut self, len: usize) -> Option<Mbuf> {
        let mut mbuf = self.alloc()?;
        mbuf.append(len.min(DATA_ROOM))?;
        while mbuf.len() < len {
            let mut segment = self.alloc()?;
            segment.append((len - mbuf.len()).min(DATA_ROOM))?;
            mbuf.chain(segment);
        }
        Some(mbuf)
    }

    /// A view for other threads.
    pub fn handle(&self) -> PoolHandle {
        PoolHandle { home: self.home.clone() }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        home::orphan(self.home.clone());
    }
}

/// A view of a pool for any thread. It keeps the pool's memory mapped.
#[derive(Clone)]
pub struct PoolHandle {
    home: Arc<Home>,
}

impl PoolHandle {
    pub(crate) fn home(&self) -> &Home {
        &self.home
    }

    /// The memory that its buffers lie in.
    pub fn region(&self) -> &Region {
        &self.home.region
    }

    /// The name it was given.
    pub fn name(&self) -> &str {
        &self.home.name
    }

    /// Buffers in all.
    pub fn capacity(&self) -> usize {
        self.home.capacity()
    }

    /// Buffers that somebody has now. Exact when none moves meanwhile.
    pub fn in_use(&self) -> usize {
        self.home.in_use()
    }

    /// What pages it got, and how to get better ones.
    pub fn hugepages(&self) -> &str {
        self.home.region.note()
    }
}

impl fmt::Debug for PoolHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.home.fmt(f)
    }
}

impl fmt::Debug for Home {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {} of {} buffers in use", self.name, self.in_use(), self.capacity())
    }
}
