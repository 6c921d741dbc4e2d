//! Packets: one owner, one pointer wide, a chain of segments from a pool.
//!
//! An [`Mbuf`] is the head of its segments, linked by `next`. Dropping it sends each segment home to its own pool, from
//! any thread ([`crate::home`]). There is no reference count and no sharing: what two need, one copies. Bytes of a
//! segment that were never written hold what an earlier packet left there.
//!
//! No segment but the first is empty.

use std::fmt;
use std::ptr::NonNull;

use arrayvec::ArrayVec;

use crate::header::{BUFFER_LEN, DATA_ROOM, HEADROOM, Header};
use crate::home;
use crate::pool::{NoBuffers, Pool};

pub use crate::header::{Checksum, Meta};

/// Packets that a driver takes or gives at once.
pub const BURST: usize = 32;
/// A burst of packets.
pub type Burst = ArrayVec<Mbuf, BURST>;

/// A packet.
///
/// It has one owner, so that freeing it twice does not compile:
/// ```compile_fail,E0382
/// # let mut pool = pmd::PoolConfig::new("doc", 1).build().unwrap().claim();
/// let mbuf = pool.alloc().unwrap();
/// drop(mbuf);
/// drop(mbuf);
/// ```
#[repr(transparent)]
pub struct Mbuf(NonNull<Header>);

// SAFETY: an Mbuf owns its buffers alone, and the ways home are made for any thread.
unsafe impl Send for Mbuf {}
// SAFETY: through `&Mbuf` everything is read only.
unsafe impl Sync for Mbuf {}

impl Mbuf {
    /// An empty packet in a buffer just taken from its pool.
    ///
    /// # Safety
    /// The caller owns the buffer and forgets it.
    #[inline]
    pub(crate) unsafe fn fresh(header: NonNull<Header>) -> Mbuf {
        // SAFETY: the buffer is the caller's.
        let first = unsafe { &mut *header.as_ptr() };
        debug_assert!(first.refcnt == 0 && first.next.is_null(), "a free buffer");
        first.data_off = HEADROOM as u16;
        first.refcnt = 1;
        first.segments = 1;
        first.port = 0;
        first.meta = Meta::default();
        first.pkt_len = 0;
        first.data_len = 0;
        Mbuf(header)
    }

    /// A packet of one segment that a device wrote: `len` bytes, beginning `data_off` behind the start of the headroom.
    ///
    /// # Safety
    /// As for `fresh`; and the bytes lie inside the buffer: `data_off + len <= BUFFER_LEN`.
    #[inline]
    pub(crate) unsafe fn received(header: NonNull<Header>, data_off: u16, len: u16) -> Mbuf {
        debug_assert!(usize::from(data_off) + usize::from(len) <= BUFFER_LEN);
        // SAFETY: the caller's promise.
        let mut mbuf = unsafe { Mbuf::fresh(header) };
        let first = mbuf.first_mut();
        first.data_off = data_off;
        first.data_len = len;
        first.pkt_len = u32::from(len);
        mbuf
    }

    /// The pool that the first segment belongs to.
    #[inline]
    pub(crate) fn home(&self) -> *const home::Home {
        self.first().home
    }

    /// The pool of each segment in turn.
    pub(crate) fn segment_homes(&self) -> impl Iterator<Item = *const home::Home> {
        // SAFETY: the segments are ours and nobody changes them while `self` is borrowed.
        Headers::of(self).map(|header| unsafe { header.as_ref() }.home)
    }

    #[inline]
    fn first(&self) -> &Header {
        // SAFETY: we own the buffer; `&self` keeps others from changing it.
        unsafe { self.0.as_ref() }
    }

    #[inline]
    fn first_mut(&mut self) -> &mut Header {
        // SAFETY: we own the buffer, and `&mut self` makes this the only reference to its header.
        unsafe { self.0.as_mut() }
    }

    /// The last segment.
    #[inline]
    fn last(&self) -> NonNull<Header> {
        let first = self.first();
        if first.segments == 1 {
            self.0
        } else {
            // SAFETY: `last` is set whenever there is more than one segment.
            unsafe { NonNull::new_unchecked(first.last) }
        }
    }

    /// Bytes over all segments.
    #[inline]
    pub fn len(&self) -> usize {
        self.first().pkt_len as usize
    }

    /// True when it holds no byte.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes of the first segment.
    #[inline]
    pub fn data(&self) -> &[u8] {
        self.first().bytes()
    }

    /// The bytes of the first segment.
    #[inline]
    pub fn data_mut(&mut self) -> &mut [u8] {
        self.first_mut().bytes_mut()
    }

    /// The bytes of each segment in turn. Only the first can be empty.
    pub fn segments(&self) -> impl Iterator<Item = &[u8]> {
        // SAFETY: the segments are ours and nobody changes them while `self` is borrowed.
        Headers::of(self).map(|header| unsafe { header.as_ref() }.bytes())
    }

    /// The bytes of each segment in turn, to be changed.
    pub fn segments_mut(&mut self) -> impl Iterator<Item = &mut [u8]> {
        // SAFETY: the segments are ours, borrowed mutably, and each is visited once.
        Headers::of(self).map(|mut header| unsafe { header.as_mut() }.bytes_mut())
    }

    /// How many buffers this packet occupies.
    #[inline]
    pub fn segment_count(&self) -> usize {
        usize::from(self.first().segments)
    }

    /// Bytes that [`Mbuf::prepend`] can add.
    #[inline]
    pub fn headroom(&self) -> usize {
        usize::from(self.first().data_off)
    }

    /// Bytes that [`Mbuf::append`] can add to the last segment.
    #[inline]
    pub fn tailroom(&self) -> usize {
        // SAFETY: the last segment is ours.
        unsafe { self.last().as_ref() }.tailroom()
    }

    /// What the device said about the frame.
    #[inline]
    pub fn meta(&self) -> &Meta {
        &self.first().meta
    }

    /// What the device said about the frame.
    #[inline]
    pub fn meta_mut(&mut self) -> &mut Meta {
        &mut self.first_mut().meta
    }

    /// Grows the first segment to the front and returns the new bytes; `None` without enough headroom.
    #[inline]
    pub fn prepend(&mut self, n: usize) -> Option<&mut [u8]> {
        let first = self.first_mut();
        if n > usize::from(first.data_off) {
            return None;
        }
        first.data_off -= n as u16;
        first.data_len += n as u16;
        first.pkt_len += n as u32;
        Some(&mut first.bytes_mut()[..n])
    }

    /// Grows the last segment and returns the new bytes; `None` without enough tailroom.
    #[inline]
    pub fn append(&mut self, n: usize) -> Option<&mut [u8]> {
        let mut last = self.last();
        // SAFETY: the last segment is ours, borrowed mutably; the borrow ends before `first_mut` below.
        let at = unsafe {
            let last = last.as_mut();
            if n > last.tailroom() {
                return None;
            }
            last.data_len += n as u16;
            usize::from(last.data_len) - n
        };
        self.first_mut().pkt_len += n as u32;
        // SAFETY: as above.
        Some(unsafe { &mut last.as_mut().bytes_mut()[at..] })
    }

    /// Makes a packet that is just allocated `len` bytes long, at most [`DATA_ROOM`], and returns where they begin: for drivers that
    /// write them by pointer.
    #[inline]
    pub(crate) fn set_fresh_len(&mut self, len: usize) -> *mut u8 {
        let first = self.first_mut();
        debug_assert!(first.segments == 1 && first.data_len == 0 && usize::from(first.data_off) == HEADROOM);
        debug_assert!(len <= DATA_ROOM);
        first.data_len = len as u16;
        first.pkt_len = len as u32;
        // SAFETY: the headroom ends within the buffer.
        unsafe { first.buf_addr.add(HEADROOM) }
    }

    /// Drops `n` bytes (at most all) from the front. Emptied segments go home; the last one stays.
    #[inline]
    pub fn advance(&mut self, n: usize) {
        let first = self.first_mut();
        if n < usize::from(first.data_len) || first.segments == 1 {
            let n = n.min(usize::from(first.data_len));
            first.data_off += n as u16;
            first.data_len -= n as u16;
            first.pkt_len -= n as u32;
        } else {
            self.advance_segments(n);
        }
    }

    fn advance_segments(&mut self, n: usize) {
        let mut n = n.min(self.len());
        while n >= usize::from(self.first().data_len) && self.segment_count() > 1 {
            n -= usize::from(self.first().data_len);
            drop(self.take_first());
        }
        // Less than the first segment, or all of the only one: this does not recurse.
        self.advance(n);
    }

    /// Cuts the first segment off, which becomes a packet of its own. There are at least two.
    fn take_first(&mut self) -> Mbuf {
        let head = self.0;
        let first = self.first_mut();
        debug_assert!(first.segments > 1);
        // SAFETY: there is a second segment, and its header is ours and distinct from `first`.
        unsafe {
            let mut second = NonNull::new_unchecked(first.next);
            let new = second.as_mut();
            new.meta = first.meta;
            new.segments = first.segments - 1;
            new.pkt_len = first.pkt_len - u32::from(first.data_len);
            new.last = first.last;
            first.next = std::ptr::null_mut();
            first.segments = 1;
            first.pkt_len = u32::from(first.data_len);
            self.0 = second;
        }
        Mbuf(head)
    }

    /// Keeps the first `len` bytes. Segments behind them go home.
    #[inline]
    pub fn truncate(&mut self, len: usize) {
        if len < self.len() {
            self.truncate_segments(len);
        }
    }

    /// The same, of fewer bytes than there are.
    fn truncate_segments(&mut self, len: usize) {
        let (mut kept, mut left, mut at) = (1, len, self.0);
        // SAFETY: the segments are ours, borrowed mutably; `at` is the only pointer in use and stays within the chain
        // because `left` is less than the bytes that remain.
        let rest = unsafe {
            while left > usize::from(at.as_ref().data_len) {
                left -= usize::from(at.as_ref().data_len);
                at = NonNull::new_unchecked(at.as_ref().next);
                kept += 1;
            }
            at.as_mut().data_len = left as u16;
            if self.segment_count() == 1 { None } else { NonNull::new(at.as_mut().take_next()) }
        };
        let segments = self.first().segments - kept;
        let first = self.first_mut();
        first.pkt_len = len as u32;
        first.segments = kept;
        first.last = at.as_ptr();
        if let Some(mut rest) = rest {
            // SAFETY: `rest` and what follows it are segments just unlinked from us.
            unsafe {
                rest.as_mut().segments = segments;
                drop(Mbuf(rest));
            }
        }
    }

    /// Adds the segments of `tail` behind ours. Its own metadata is lost.
    ///
    /// # Panics
    /// When the packet would have more than 65,535 segments.
    pub fn chain(&mut self, mut tail: Mbuf) {
        if tail.is_empty() {
            return;
        }
        // The rule that only the first segment may be empty.
        while tail.data().is_empty() {
            drop(tail.take_first());
        }
        let segments = self.first().segments.checked_add(tail.first().segments);
        let segments = segments.expect("a packet has at most 65,535 segments");
        let (tail_first, tail_last, bytes) = (tail.0, tail.last(), tail.first().pkt_len);
        std::mem::forget(tail);
        let mut last = self.last();
        // SAFETY: both chains are ours now, and distinct.
        unsafe {
            (*tail_first.as_ptr()).segments = 1;
            last.as_mut().next = tail_first.as_ptr();
        }
        let first = self.first_mut();
        first.segments = segments;
        first.last = tail_last.as_ptr();
        first.pkt_len += bytes;
    }

    /// Adds `bytes` at the end, in new segments where the last one is full. Without enough buffers nothing changes.
    pub fn extend_from_slice(&mut self, bytes: &[u8], pool: &mut Pool) -> Result<(), NoBuffers> {
        let (now, behind) = bytes.split_at(bytes.len().min(self.tailroom()));
        if !behind.is_empty() {
            let more = pool.copy_from(behind).ok_or(NoBuffers)?;
            self.fill_last(now);
            self.chain(more);
        } else {
            self.fill_last(now);
        }
        Ok(())
    }

    fn fill_last(&mut self, bytes: &[u8]) {
        self.append(bytes.len()).expect("cut to the tailroom").copy_from_slice(bytes);
    }

    /// Splits the first `n` bytes off (at most all) and returns them; the rest stays. Both keep the metadata. Segments move
    /// whole; only bytes of a segment that both sides need are copied. Without a buffer nothing changes.
    pub fn split_to(&mut self, n: usize, pool: &mut Pool) -> Result<Mbuf, NoBuffers> {
        let n = n.min(self.len());
        let mut spare = pool.alloc().ok_or(NoBuffers)?;
        let meta = *self.meta();
        let mut front: Option<Mbuf> = None;
        let mut left = n;
        while self.segment_count() > 1 && left >= usize::from(self.first().data_len) {
            left -= usize::from(self.first().data_len);
            let segment = self.take_first();
            match &mut front {
                Some(front) => front.chain(segment),
                None => front = Some(segment),
            }
        }
        // What is left of `n` lies in our first segment.
        let only_part = left < self.data().len() || left == 0;
        let shared = if only_part {
            self.copy_front(left, &mut spare);
            spare
        } else {
            // All of our only segment: it goes, and the spare stays as the empty rest.
            *spare.meta_mut() = meta;
            std::mem::replace(self, spare)
        };
        let mut front = match front {
            Some(mut front) => {
                front.chain(shared);
                front
            }
            None => shared,
        };
        *front.meta_mut() = meta;
        debug_assert_eq!(front.len(), n);
        Ok(front)
    }

    /// Moves the first `n` bytes of our first segment to the end of `to`, which has room for less than a whole
    /// segment's headroom and data only when the segment was grown to the front: then its headroom is used too.
    fn copy_front(&mut self, n: usize, to: &mut Mbuf) {
        debug_assert!(to.is_empty() && n <= self.data().len());
        if n > to.tailroom() {
            to.first_mut().data_off = (BUFFER_LEN - n) as u16;
        }
        to.append(n).expect("a buffer holds what a segment held").copy_from_slice(&self.data()[..n]);
        self.advance(n);
    }

    /// Makes the first `n` bytes contiguous in [`Mbuf::data`]. False, and nothing changed, when the packet is shorter,
    /// a buffer cannot hold them (1,792 bytes), or the pool is empty.
    pub fn pull_up(&mut self, n: usize, pool: &mut Pool) -> bool {
        if n <= self.data().len() {
            return true;
        }
        if n > self.len() {
            return false;
        }
        let Some(mut head) = pool.alloc() else { return false };
        let Some(room) = head.append(n) else { return false };
        self.copy_to(0, room);
        *head.meta_mut() = *self.meta();
        self.advance(n);
        let rest = std::mem::replace(self, head);
        self.chain(rest);
        true
    }

    /// Copies from byte `offset` on into `out`; returns how many bytes there were to copy.
    #[inline]
    pub fn copy_to(&self, offset: usize, out: &mut [u8]) -> usize {
        if self.segment_count() > 1 {
            return self.copy_segments_to(offset, out);
        }
        let from = self.data().get(offset..).unwrap_or_default();
        let n = from.len().min(out.len());
        out[..n].copy_from_slice(&from[..n]);
        n
    }

    fn copy_segments_to(&self, mut offset: usize, out: &mut [u8]) -> usize {
        let mut done = 0;
        for segment in self.segments() {
            if offset >= segment.len() {
                offset -= segment.len();
                continue;
            }
            let from = &segment[offset..];
            let n = from.len().min(out.len() - done);
            out[done..done + n].copy_from_slice(&from[..n]);
            done += n;
            offset = 0;
            if done == out.len() {
                break;
            }
        }
        done
    }

    /// Asks the cache for the header and the first line of data, for a packet that will be worked on soon: as its only owner, since who takes
    /// headers off or puts them on writes both, and a line that another core has written would otherwise cross over twice.
    #[inline]
    pub fn prefetch(&self) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a prefetch is a hint, and both lines lie inside our buffer. The compiler's own intrinsic makes a PREFETCHW only where
        // it is told that the processor has it; one that has not takes it for no operation.
        unsafe {
            std::arch::asm!("prefetchw [{0}]", "prefetchw [{0} + 256]", in(reg) self.0.as_ptr(),
                options(nostack, preserves_flags, readonly));
        }
    }

    /// For the intrusive list: the header, which is the caller's from now on.
    #[inline]
    pub(crate) fn into_header(self) -> NonNull<Header> {
        let header = self.0;
        std::mem::forget(self);
        header
    }

    /// # Safety
    /// `header` came from [`Mbuf::into_header`] and is used once.
    #[inline]
    pub(crate) unsafe fn from_header(header: NonNull<Header>) -> Mbuf {
        Mbuf(header)
    }

    #[cold]
    fn drop_segments(&mut self) {
        let mut next = Some(self.0);
        while let Some(mut header) = next {
            // SAFETY: the chain is ours; each segment is unlinked before it goes home, and not looked at after.
            unsafe {
                let segment = header.as_mut();
                next = NonNull::new(segment.take_next());
                segment.segments = 1;
                home::give_back(header);
            }
        }
    }
}

impl Drop for Mbuf {
    #[inline]
    fn drop(&mut self) {
        debug_assert_eq!(self.first().refcnt, 1, "an owned buffer");
        if self.first().segments == 1 {
            // SAFETY: a single segment of ours (its `next` is null), not used after this.
            unsafe { home::give_back(self.0) };
        } else {
            self.drop_segments();
        }
    }
}

impl fmt::Debug for Mbuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mbuf")
            .field("len", &self.len())
            .field("segments", &self.segment_count())
            .field("meta", self.meta())
            .finish()
    }
}

impl Header {
    #[inline]
    fn bytes(&self) -> &[u8] {
        // SAFETY: data_off + data_len <= BUFFER_LEN, which `prepend`, `append` and `advance` keep; the bytes are
        // initialised (a region starts as zeroes) and belong to the owner of this header.
        unsafe {
            std::slice::from_raw_parts(
                self.buf_addr.add(usize::from(self.data_off)),
                usize::from(self.data_len),
            )
        }
    }

    #[inline]
    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `bytes`; `&mut self` makes it the only access.
        unsafe {
            std::slice::from_raw_parts_mut(
                self.buf_addr.add(usize::from(self.data_off)),
                usize::from(self.data_len),
            )
        }
    }

    #[inline]
    fn tailroom(&self) -> usize {
        BUFFER_LEN - usize::from(self.data_off) - usize::from(self.data_len)
    }

    #[inline]
    fn take_next(&mut self) -> *mut Header {
        std::mem::replace(&mut self.next, std::ptr::null_mut())
    }
}

/// The headers of a packet's segments, in order.
struct Headers {
    next: Option<NonNull<Header>>,
    left: u16,
}

impl Headers {
    #[inline]
    fn of(mbuf: &Mbuf) -> Headers {
        Headers { next: Some(mbuf.0), left: mbuf.first().segments }
    }
}

impl Iterator for Headers {
    type Item = NonNull<Header>;
    #[inline]
    fn next(&mut self) -> Option<NonNull<Header>> {
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        let header = self.next?;
        if self.left > 0 {
            // SAFETY: the segment belongs to the packet that the iterator was made of, which its user borrows. The raw
            // read does not disturb the slice handed out for this segment's data.
            self.next = NonNull::new(unsafe { (*header.as_ptr()).next });
        }
        Some(header)
    }
}
