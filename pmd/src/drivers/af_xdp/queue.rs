//! The data side: one queue, its rings, and the pool that its buffers come from.
//!
//! Every burst, in either direction, first takes home what was sent and fills what was received into, so that a core that only sends
//! receives all the same, and one that only receives gets its sent buffers back.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::socket::{self, Rings};
use super::umem::Umem;
use crate::checksum;
use crate::counters::{Counters, QueueStats};
use crate::drivers::{DROP_OVERSIZE, DROP_RUNT, admit};
use crate::header::DATA_ROOM;
use crate::mbuf::{BURST, Burst, Mbuf};
use crate::pool::{Pool, PoolHandle};
use crate::port::Queue;
use crate::time::Instant;

/// Most segments of a frame: what the kernel copies together (MAX_SKB_FRAGS).
pub(crate) const SEGMENTS_MAX: usize = 17;

const DROP_LINK_DOWN: usize = 2;
const DROP_TX_ERROR: usize = 3;
const DROP_NO_BUFFER: usize = 4;
const DROP_BAD_DESCRIPTOR: usize = 5;
const DROPS: &[&str] =
    &[DROP_RUNT.1, DROP_OVERSIZE.1, "tx_link_down", "tx_error", "tx_no_buffer", "bad_descriptor"];
/// The kernel counts these: no room in the receive ring; nothing in the fill ring, or a frame too long; a descriptor that it refused.
const RING_FULL: &str = "rx_ring_full";
const FILL_EMPTY: &str = "rx_fill_empty";
const TX_INVALID: &str = "tx_invalid";

/// What the port reads of a queue.
pub(crate) struct Shared {
    counters: Arc<Counters>,
    kernel: Mutex<Kernel>,
}

/// The socket while it is open, and what the kernel had counted when it was closed.
struct Kernel {
    socket: Option<OwnedFd>,
    last: Option<libc::xdp_statistics>,
}

impl Shared {
    fn kernel(&self) -> MutexGuard<'_, Kernel> {
        self.kernel.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn stats(&self) -> QueueStats {
        let mut stats = self.counters.snapshot();
        let kernel = self.kernel();
        let now = kernel.socket.as_ref().and_then(|socket| socket::statistics(socket).ok());
        if let Some(counted) = now.or(kernel.last) {
            stats.drops.add(RING_FULL, counted.rx_ring_full);
            stats.drops.add(FILL_EMPTY, counted.rx_dropped);
            stats.drops.add(TX_INVALID, counted.tx_invalid_descs);
        }
        stats
    }

    /// The NAPI context that frames come from, once some came.
    pub(crate) fn napi(&self) -> Option<u32> {
        self.kernel().socket.as_ref().and_then(socket::napi)
    }

    fn close(&self) {
        let mut kernel = self.kernel();
        kernel.last = kernel.socket.as_ref().and_then(|socket| socket::statistics(socket).ok());
        kernel.socket = None;
    }
}

/// A bound socket and what there is to know of it.
pub(crate) struct Bound {
    /// The socket.
    pub socket: OwnedFd,
    /// Entries of each ring.
    pub entries: u32,
    /// Index of its interface.
    pub interface: i32,
    /// Its queue of the interface.
    pub queue: u32,
    /// The driver uses the buffers themselves.
    pub zero_copy: bool,
    /// Frames may have several segments.
    pub segments: bool,
    /// Longest frame.
    pub frame_max: usize,
    /// Receiving drives the device.
    pub busy_poll: bool,
}

pub(crate) struct XdpQueue<A> {
    umem: Umem,
    rings: Option<Rings>,
    shared: Arc<Shared>,
    fd: RawFd,
    bound: Parameters,
    /// Buffers that the kernel is to have for receiving.
    target: u32,
    /// The beginning of a frame whose rest is not there yet.
    partial: Option<Mbuf>,
    /// Entries that the kernel may not have taken from the transmit ring.
    unsent: bool,
    /// Keeps the program attached.
    _attachment: A,
}

/// `Bound` without its socket.
#[derive(Clone, Copy)]
struct Parameters {
    interface: i32,
    queue: u32,
    zero_copy: bool,
    segments: bool,
    frame_max: usize,
    busy_poll: bool,
}

impl<A: Send> XdpQueue<A> {
    /// Maps the rings. A pool gives up to a quarter of its buffers for receiving, so that two ports on it leave half.
    pub(crate) fn new(bound: Bound, pool: &PoolHandle, attachment: A) -> std::io::Result<XdpQueue<A>> {
        let Bound { socket, entries, interface, queue, zero_copy, segments, frame_max, busy_poll } = bound;
        let rings = socket::map(&socket, entries)?;
        let fd = socket.as_raw_fd();
        let kernel = Mutex::new(Kernel { socket: Some(socket), last: None });
        let mut made = XdpQueue {
            umem: Umem::new(pool.clone()),
            rings: Some(rings),
            shared: Arc::new(Shared { counters: Counters::new(DROPS), kernel }),
            fd,
            bound: Parameters { interface, queue, zero_copy, segments, frame_max, busy_poll },
            target: entries.min((pool.capacity() / 4).max(1) as u32),
            partial: None,
            unsent: false,
            _attachment: attachment,
        };
        // On the thread that polls it; elsewhere the first burst does it.
        made.refill();
        Ok(made)
    }

    pub(crate) fn shared(&self) -> Arc<Shared> {
        self.shared.clone()
    }
}

impl<A> XdpQueue<A> {
    #[inline]
    fn rings(&mut self) -> &mut Rings {
        self.rings.as_mut().expect("until it is dropped")
    }

    /// Keeps the fill ring full.
    #[inline]
    fn refill(&mut self) {
        let missing = self.target - self.umem.filled();
        let rings = self.rings.as_mut().expect("until it is dropped");
        if missing > 0 {
            self.umem.fill(&mut rings.fill, missing);
        }
        if rings.fill.needs_wakeup() {
            socket::kick_rx(self.fd);
        }
    }

    /// Takes home what was sent.
    #[inline]
    fn reap(&mut self) {
        if self.umem.sending() == 0 {
            return;
        }
        let rings = self.rings.as_mut().expect("until it is dropped");
        let done = rings.completion.ready(u32::MAX);
        for at in 0..done {
            if !self.umem.sent(rings.completion.read(at)) {
                self.shared.counters.dropped(DROP_BAD_DESCRIPTOR, 1);
            }
        }
        if done > 0 {
            rings.completion.release(done);
        }
    }

    /// Adds the next segment of a frame; the frame, once it is whole.
    #[inline]
    fn join(&mut self, segment: Option<Mbuf>, more: bool) -> Option<Mbuf> {
        if self.partial.is_none() && !more {
            return segment;
        }
        self.join_segments(segment, more)
    }

    #[cold]
    fn join_segments(&mut self, segment: Option<Mbuf>, more: bool) -> Option<Mbuf> {
        match (&mut self.partial, segment) {
            (Some(frame), Some(segment)) => frame.chain(segment),
            (partial @ None, segment) => *partial = segment,
            (Some(_), None) => {}
        }
        if more { None } else { self.partial.take() }
    }

    /// Entries that a frame may need in the transmit ring.
    #[inline]
    fn entries_of(mbuf: &Mbuf) -> u32 {
        mbuf.segment_count().max(mbuf.len().div_ceil(DATA_ROOM)) as u32
    }

    /// Writes frames into the transmit ring from the front of `burst`, as many as fit. Frames, bytes and entries.
    fn enqueue(&mut self, burst: &mut Burst) -> (usize, usize, u32) {
        let wanted: u32 = burst.iter().map(Self::entries_of).sum();
        let mut room = self.rings().tx.room(wanted);
        let fits = |mbuf: &&Mbuf| room.checked_sub(Self::entries_of(mbuf)).map(|left| room = left).is_some();
        let taken = burst.iter().take_while(fits).count();
        let (mut frames, mut bytes, mut at) = (0, 0, 0);
        for mbuf in burst.drain(..taken) {
            let len = mbuf.len();
            if self.put(mbuf, &mut at) {
                (frames, bytes) = (frames + 1, bytes + len);
            } else {
                self.shared.counters.dropped(DROP_NO_BUFFER, 1);
            }
        }
        self.rings().tx.submit(at);
        (frames, bytes, at)
    }

    /// Writes one frame behind the `at` entries written so far.
    #[inline]
    fn put(&mut self, mbuf: Mbuf, at: &mut u32) -> bool {
        let single = mbuf.segment_count() == 1;
        let mbuf = if single && self.umem.knows(&mbuf) {
            mbuf
        } else {
            match self.make_sendable(mbuf) {
                Some(mbuf) => mbuf,
                None => return false,
            }
        };
        let ring = &mut self.rings.as_mut().expect("until it is dropped").tx;
        self.umem.send(mbuf, |descriptor| {
            ring.write(*at, descriptor);
            *at += 1;
        });
        true
    }

    /// The packet, if the kernel can send it as it is; or a copy.
    #[cold]
    fn make_sendable(&mut self, mbuf: Mbuf) -> Option<Mbuf> {
        let segments = if self.bound.segments { SEGMENTS_MAX } else { 1 };
        if mbuf.segment_count() <= segments
            && mbuf.segment_homes().all(|home| std::ptr::eq(home, self.umem.home()))
        {
            return Some(mbuf);
        }
        let mut copy = self.umem.copy(&mbuf, 0, mbuf.len().min(DATA_ROOM))?;
        for offset in (DATA_ROOM..mbuf.len()).step_by(DATA_ROOM) {
            copy.chain(self.umem.copy(&mbuf, offset, DATA_ROOM.min(mbuf.len() - offset))?);
        }
        self.shared.counters.tx_copied.add(1);
        Some(copy)
    }

    /// Has the kernel send what is in the ring; false when the link is down and it did not look at the ring.
    fn flush(&mut self) -> bool {
        let (fd, zero_copy) = (self.fd, self.bound.zero_copy);
        let mut pending = self.rings().tx.pending();
        let mut first = true;
        while pending > 0 && self.rings().tx.needs_wakeup() {
            let error = socket::kick_tx(fd);
            let left = self.rings().tx.pending();
            match error {
                0 | libc::EAGAIN | libc::EINTR => {}
                // The device took one from the ring and dropped it: no carrier, or its queue is full.
                libc::EBUSY => self.shared.counters.dropped(DROP_TX_ERROR, 1),
                libc::ENETDOWN | libc::ENXIO | libc::ENODEV if first && !zero_copy => {
                    self.unsent = left > 0;
                    return false;
                }
                _ => {}
            }
            // A driver takes them when it comes to it; so does a kernel that is out of memory for now.
            let stuck = left == pending || zero_copy;
            (pending, first) = (left, false);
            if stuck {
                break;
            }
        }
        self.unsent = pending > 0;
        true
    }

    /// Takes the `entries` last submitted back, which the kernel has not looked at: it reads the ring only in our system calls, unless
    /// the driver does. Drops their frames by name.
    #[cold]
    fn retract(&mut self, entries: u32) {
        self.rings().tx.retract(entries);
        for at in 0..entries {
            let rings = self.rings.as_mut().expect("until it is dropped");
            let descriptor = rings.tx.written(at);
            self.umem.sent(descriptor.addr);
            if descriptor.options & libc::XDP_PKT_CONTD == 0 {
                self.shared.counters.dropped(DROP_LINK_DOWN, 1);
            }
        }
        self.unsent = self.rings().tx.pending() > 0;
    }
}

impl<A: Send> Queue for XdpQueue<A> {
    /// The buffers come from the pool that the queue was opened with, whichever it is polled with.
    fn rx_burst(&mut self, _now: Instant, _pool: &mut Pool, burst: &mut Burst) -> usize {
        let before = burst.len();
        let ready = self.rings().rx.ready(BURST as u32);
        let (mut read, mut bytes) = (0, 0);
        while read < ready && !burst.is_full() {
            let descriptor = self.rings().rx.read(read);
            read += 1;
            let segment = self.umem.received(&descriptor);
            if segment.is_none() {
                self.shared.counters.dropped(DROP_BAD_DESCRIPTOR, 1);
            }
            let more = descriptor.options & libc::XDP_PKT_CONTD != 0;
            if let Some(mut mbuf) = self.join(segment, more) {
                mbuf.meta_mut().queue = self.bound.queue as u16;
                bytes += mbuf.len();
                burst.push(mbuf);
            }
        }
        if read > 0 {
            self.rings().rx.release(read);
            self.shared.counters.rx(burst.len() - before, bytes);
        } else if self.bound.busy_poll {
            socket::kick_rx(self.fd);
        }
        self.reap();
        self.refill();
        if self.unsent {
            self.flush();
        }
        burst.len() - before
    }

    fn tx_burst(&mut self, _now: Instant, burst: &mut Burst) -> usize {
        let given = burst.len();
        admit(burst, self.bound.frame_max, &self.shared.counters);
        burst.iter_mut().for_each(checksum::complete);
        self.reap();
        self.refill();
        if burst.is_empty() && !self.unsent {
            return given;
        }
        let (frames, bytes, entries) = self.enqueue(burst);
        if !self.flush() {
            self.retract(entries);
        } else {
            self.shared.counters.tx(frames, bytes);
        }
        if !burst.is_empty() {
            self.shared.counters.tx_full.add(1);
        }
        given - burst.len()
    }

    fn wait_fd(&self) -> Option<BorrowedFd<'_>> {
        // SAFETY: the socket is closed when this queue is dropped, and not before.
        Some(unsafe { BorrowedFd::borrow_raw(self.fd) })
    }

    fn stats(&self) -> QueueStats {
        self.shared.stats()
    }
}

impl<A> Drop for XdpQueue<A> {
    fn drop(&mut self) {
        self.partial = None;
        // Mappings keep the socket open too.
        self.rings = None;
        self.shared.close();
        // Closing ends copying at once, unless a child that was just being started has the fd a moment longer; a driver lets go of
        // the memory on a thread of the kernel's. Another socket on the queue shows that both are over.
        let released = socket::wait_released(self.bound.interface, self.bound.queue);
        if released || !self.bound.zero_copy {
            // SAFETY: the socket is closed and, where a device writes by itself, unbound.
            unsafe { self.umem.reclaim() };
        }
    }
}
