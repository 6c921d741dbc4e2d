//! The data side: one call into DPDK a burst, and the headers translated in place.

use std::ptr::NonNull;
use std::sync::Arc;

use dpdk_sys as sys;

use super::super::{DROP_OVERSIZE, DROP_RUNT, FRAME_OVERHEAD, admit};
use super::device::{Abilities, Device, Running};
use super::eal;
use super::frame;
use super::mempool::Mempool;
use crate::counters::{Counters, QueueStats};
use crate::header::{DATA_ROOM, Header};
use crate::home::Home;
use crate::mbuf::{BURST, Burst, Checksum, Mbuf, Meta};
use crate::pool::Pool;
use crate::port::Queue;
use crate::time::Instant;

const DROP_GONE: usize = 2;
const DROP_SEGMENTS: usize = 3;
const DROP_NO_BUFFER: usize = 4;
const DROP_FOREIGN: usize = 5;
pub(super) const DROPS: &[&str] =
    &[DROP_RUNT.1, DROP_OVERSIZE.1, "tx_device_gone", "tx_segments", "tx_no_buffer", "rx_foreign_memory"];

/// One receive and one transmit queue of the device.
pub(super) struct DpdkQueue {
    device: Arc<Device>,
    /// Dropped after `device` was last used here.
    _running: Arc<Running>,
    counters: Arc<Counters>,
    /// The pool that it is polled with.
    pool: Arc<Mempool>,
    /// The pool of the frame sent last: nearly always that of the next. One of the device's.
    last: *const Mempool,
    port: u16,
    index: u16,
    frame_max: usize,
    abilities: Abilities,
}

// SAFETY: `last` is a pool that `device` holds.
unsafe impl Send for DpdkQueue {}

impl DpdkQueue {
    pub(super) fn new(
        running: Arc<Running>,
        counters: Arc<Counters>,
        index: u16,
        abilities: Abilities,
    ) -> DpdkQueue {
        let device = running.0.clone();
        let pool = device.pools[usize::from(index)].clone();
        let (last, port, frame_max) = (Arc::as_ptr(&pool), device.port, device.mtu + FRAME_OVERHEAD);
        DpdkQueue { device, _running: running, counters, pool, last, port, index, frame_max, abilities }
    }

    /// Makes a received frame ours. `None`: it is dropped, and counted.
    #[inline]
    fn take_over(&self, mut header: NonNull<Header>, pool: &mut Pool) -> Option<Mbuf> {
        // SAFETY: DPDK gave us the frame; nobody else has it.
        let first = unsafe { header.as_mut() };
        let flags = frame::flags(first);
        if first.home.cast() != self.pool.raw().cast_const()
            || first.segments != 1
            || flags & frame::ELSEWHERE != 0
        {
            return self.take_over_slowly(header, pool);
        }
        first.home = self.pool.home();
        first.meta = frame::meta(first, flags, self.index);
        // SAFETY: a whole frame of one segment, now with its home.
        Some(unsafe { Mbuf::from_header(header) })
    }

    /// A frame of several segments, or of another pool than ours, or of memory of the driver's own; the last is copied.
    #[cold]
    fn take_over_slowly(&self, mut header: NonNull<Header>, pool: &mut Pool) -> Option<Mbuf> {
        // SAFETY: as in `take_over`, for each segment in turn.
        unsafe {
            let segments = header.as_ref().segments;
            if !raw_segments(header).all(|segment| self.is_ordinary(segment, segment == header)) {
                return self.copy_foreign(header, pool);
            }
            let mut last = header;
            for mut segment in raw_segments(header) {
                let home = self.home_of(segment.as_ref()).expect("looked up above");
                segment.as_mut().home = home;
                segment.as_mut().segments = 1;
                last = segment;
            }
            let first = header.as_mut();
            first.segments = segments;
            first.last = last.as_ptr();
            first.meta = frame::meta(first, frame::flags(first), self.index);
            Some(Mbuf::from_header(header))
        }
    }

    /// Whether a segment is a buffer of a pool of ours, and not empty behind the first.
    ///
    /// # Safety
    /// It is a segment of a frame that DPDK gave us.
    unsafe fn is_ordinary(&self, segment: NonNull<Header>, first: bool) -> bool {
        // SAFETY: the caller's frame.
        let segment = unsafe { segment.as_ref() };
        frame::flags(segment) & frame::ELSEWHERE == 0
            && (first || segment.data_len > 0)
            && self.home_of(segment).is_some()
    }

    /// The home of a buffer that is DPDK's, if its mempool is one of ours.
    fn home_of(&self, segment: &Header) -> Option<*const Home> {
        let known = |pool: &&Arc<Mempool>| pool.raw().cast_const() == segment.home.cast();
        if let Some(pool) = self.device.pools.iter().find(known) {
            return Some(pool.home());
        }
        // Another port's: a ring of DPDK's joins them. Rare, so that a lock may be taken.
        eal::lock().pools.iter().find(known).map(|pool| pool.home())
    }

    /// # Safety
    /// `header` is a frame that DPDK gave us; it is given back.
    unsafe fn copy_foreign(&self, header: NonNull<Header>, pool: &mut Pool) -> Option<Mbuf> {
        // SAFETY: the caller's frame, read segment by segment and then freed as DPDK frees it.
        let mut copy = unsafe {
            let first = header.as_ref();
            let copy = pool.alloc_len(first.pkt_len as usize).map(|mut copy| {
                let bytes = raw_segments(header).flat_map(|segment| raw_bytes(segment).iter());
                for (to, from) in copy.segments_mut().flatten().zip(bytes) {
                    *to = *from;
                }
                *copy.meta_mut() = frame::meta(first, frame::flags(first), self.index);
                copy
            });
            sys::rte_pktmbuf_free_bulk([header.as_ptr().cast()].as_mut_ptr(), 1);
            copy
        };
        if copy.is_none() {
            self.counters.dropped(DROP_FOREIGN, 1);
        }
        copy.take()
    }

    /// Makes a frame DPDK's. `None`: it is dropped, and counted.
    #[inline]
    fn lend(&mut self, mbuf: Mbuf) -> Option<NonNull<Header>> {
        // SAFETY: `last` is held by the device.
        let pool = unsafe { &*self.last };
        let header = mbuf.into_header();
        // SAFETY: the frame is ours.
        unsafe {
            let first = header.as_ref();
            if first.home != pool.home() || first.segments != 1 || first.meta.checksum == Checksum::Partial {
                return self.lend_slowly(Mbuf::from_header(header));
            }
            pool.lend(header.as_ptr());
        }
        Some(header)
    }

    #[cold]
    fn lend_slowly(&mut self, mut mbuf: Mbuf) -> Option<NonNull<Header>> {
        let mut request = None;
        if mbuf.meta().checksum == Checksum::Partial {
            request = frame::finish_checksum(&mut mbuf, self.abilities.checksums);
        }
        let too_many = mbuf.segment_count() > 1 && !self.abilities.several_segments;
        if too_many && mbuf.len() > DATA_ROOM {
            self.counters.dropped(DROP_SEGMENTS, 1);
            return None;
        }
        let header = mbuf.into_header();
        // SAFETY: the frame is ours, whole.
        let known = unsafe { raw_segments(header).all(|segment| self.pool_of(segment.as_ref()).is_some()) };
        // SAFETY: it was taken apart above.
        let mbuf = unsafe { Mbuf::from_header(header) };
        let mbuf = if known && !too_many { mbuf } else { self.copy(&mbuf)? };
        let mut header = mbuf.into_header();
        // SAFETY: the frame is ours, and each of its buffers of a pool of the device's.
        unsafe {
            for segment in raw_segments(header) {
                let pool = self.pool_of(segment.as_ref()).expect("looked up above, or of our own pool");
                pool.lend(segment.as_ptr());
                self.last = Arc::as_ptr(pool);
            }
            if let Some(request) = request {
                frame::ask(header.as_mut(), request);
            }
        }
        Some(header)
    }

    /// The mempool of a buffer that is ours, if the device knows it.
    fn pool_of(&self, segment: &Header) -> Option<&Arc<Mempool>> {
        self.device.pools.iter().find(|pool| pool.home() == segment.home)
    }

    /// The same frame in buffers of our own pool.
    fn copy(&self, frame: &Mbuf) -> Option<Mbuf> {
        // SAFETY: the device holds the pool.
        let home = unsafe { &*self.pool.home() };
        let fresh = || {
            let header = home.as_consumer(|free| {
                free.pop().or_else(|| {
                    // SAFETY: we are the consumer.
                    unsafe { home.collect() };
                    free.pop()
                })
            });
            // SAFETY: the buffer was just taken from its home.
            header.flatten().map(|header| unsafe { Mbuf::fresh(header) })
        };
        let copied = copy_into(frame, fresh);
        match &copied {
            Some(_) => self.counters.tx_copied.add(1),
            None => self.counters.dropped(DROP_NO_BUFFER, 1),
        }
        copied
    }

    /// Makes a frame ours again that the device had no room for. What had been said of it is lost, but for a checksum that is still
    /// to be filled in.
    #[cold]
    fn take_back(&self, mut header: NonNull<Header>) -> Mbuf {
        // SAFETY: the device left the frame to us. Each buffer is of a pool of the device's, as `lend` saw to it.
        unsafe {
            let asked = frame::is_asked(frame::flags(header.as_ref()));
            for mut segment in raw_segments(header) {
                segment.as_mut().home = self.home_of(segment.as_ref()).expect("a pool of the device's");
            }
            let checksum = if asked { Checksum::Partial } else { Checksum::Unknown };
            header.as_mut().meta = Meta { checksum, ..Meta::default() };
            Mbuf::from_header(header)
        }
    }

    #[cold]
    fn drop_all(&self, burst: &mut Burst) {
        self.counters.dropped(DROP_GONE, burst.len() as u64);
        burst.clear();
    }
}

impl Queue for DpdkQueue {
    fn rx_burst(&mut self, _now: Instant, pool: &mut Pool, burst: &mut Burst) -> usize {
        eal::register_thread();
        if self.device.is_gone() {
            return 0;
        }
        let mut frames = [NonNull::<Header>::dangling(); BURST];
        let room = burst.remaining_capacity() as u16;
        // SAFETY: places for as many frames as are asked for. The device is started, and this queue polled by nobody else.
        let n = unsafe { sys::rxl_rx_burst(self.port, self.index, frames.as_mut_ptr().cast(), room) };
        let (before, mut bytes) = (burst.len(), 0);
        for header in &frames[..usize::from(n)] {
            if let Some(mbuf) = self.take_over(*header, pool) {
                bytes += mbuf.len();
                // SAFETY: there are at most as many as there was room for.
                unsafe { burst.push_unchecked(mbuf) };
            }
        }
        self.counters.rx(burst.len() - before, bytes);
        burst.len() - before
    }

    fn tx_burst(&mut self, _now: Instant, burst: &mut Burst) -> usize {
        eal::register_thread();
        let given = burst.len();
        if self.device.is_gone() {
            self.drop_all(burst);
            return given;
        }
        admit(burst, self.frame_max, &self.counters);
        let mut frames = [NonNull::<Header>::dangling(); BURST];
        let (mut n, mut bytes) = (0, 0);
        for mbuf in burst.drain(..) {
            let len = mbuf.len();
            if let Some(header) = self.lend(mbuf) {
                frames[n] = header;
                n += 1;
                bytes += len;
            }
        }
        // SAFETY: `n` frames, DPDK's now, of pools that the device knows; what it does not take is ours again.
        let taken = unsafe { sys::rxl_tx_burst(self.port, self.index, frames.as_mut_ptr().cast(), n as u16) };
        let taken = usize::from(taken);
        if taken < n {
            for header in &frames[taken..n] {
                let mbuf = self.take_back(*header);
                bytes -= mbuf.len();
                burst.push(mbuf);
            }
            self.counters.tx_full.add(1);
        }
        self.counters.tx(taken, bytes);
        given - burst.len()
    }

    fn stats(&self) -> QueueStats {
        self.counters.snapshot()
    }
}

/// The segments of a frame by its headers, whoever's they are.
///
/// # Safety
/// The frame is the caller's, and stays so while this is used; a segment may be changed once it was yielded, but for its `next`.
unsafe fn raw_segments(first: NonNull<Header>) -> impl Iterator<Item = NonNull<Header>> {
    // SAFETY: the caller's frame.
    let mut left = unsafe { first.as_ref() }.segments;
    let mut next = Some(first);
    std::iter::from_fn(move || {
        left = left.checked_sub(1)?;
        let segment = next?;
        // SAFETY: a segment of the caller's frame.
        next = NonNull::new(unsafe { segment.as_ref() }.next);
        Some(segment)
    })
}

/// # Safety
/// It is a segment of a frame that DPDK gave us, which lives for `'a`.
unsafe fn raw_bytes<'a>(segment: NonNull<Header>) -> &'a [u8] {
    // SAFETY: `data_off` and `data_len` describe bytes of the buffer, wherever it lies.
    unsafe {
        let segment = segment.as_ref();
        let data = segment.buf_addr.add(usize::from(segment.data_off));
        std::slice::from_raw_parts(data, usize::from(segment.data_len))
    }
}

/// A copy of `frame` in buffers that `fresh` yields.
fn copy_into(frame: &Mbuf, fresh: impl Fn() -> Option<Mbuf>) -> Option<Mbuf> {
    let (mut whole, mut tail) = (None::<Mbuf>, fresh()?);
    for mut rest in frame.segments() {
        while !rest.is_empty() {
            if tail.tailroom() == 0 {
                let full = std::mem::replace(&mut tail, fresh()?);
                whole = Some(join(whole, full));
            }
            let (now, later) = rest.split_at(rest.len().min(tail.tailroom()));
            tail.append(now.len())?.copy_from_slice(now);
            rest = later;
        }
    }
    let mut whole = join(whole, tail);
    *whole.meta_mut() = *frame.meta();
    Some(whole)
}

fn join(front: Option<Mbuf>, back: Mbuf) -> Mbuf {
    match front {
        Some(mut front) => {
            front.chain(back);
            front
        }
        None => back,
    }
}
