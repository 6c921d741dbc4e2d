//! The pool of a queue as the socket's memory (UMEM): which buffers the kernel holds, and how they come back.
//!
//! A UMEM chunk is a buffer's whole stride. The kernel writes received frames XDP_PACKET_HEADROOM (256) bytes into it, which is where
//! our data begins; our header lies in the first 128 bytes, which neither copying (net/xdp/xsk.c) nor a driver's own metadata
//! (right before the data) reaches. Frames to send may lie anywhere in a chunk.
//!
//! Each buffer is ours, or in the kernel's hands for receiving or for sending. What the kernel says is checked against that, so that
//! at the end exactly what it still holds is taken back.

use std::ptr::NonNull;

use super::ring::Ring;
use crate::header::{HEADER, HEADROOM, Header, STRIDE};
use crate::home::{self, Home};
use crate::mbuf::Mbuf;
use crate::pool::PoolHandle;

/// Who has a buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
enum Holder {
    Us,
    /// The kernel, to receive into.
    Filled,
    /// The kernel, to send from.
    Sending,
}

pub(crate) struct Umem {
    pool: PoolHandle,
    holders: Box<[Holder]>,
    filled: u32,
    sending: u32,
}

impl Umem {
    /// The buffers of this pool, none of them in the kernel's hands.
    pub(crate) fn new(pool: PoolHandle) -> Umem {
        let holders = vec![Holder::Us; pool.capacity()].into();
        Umem { pool, holders, filled: 0, sending: 0 }
    }

    pub(crate) fn home(&self) -> &Home {
        self.pool.home()
    }

    fn base(&self) -> usize {
        self.home().region.base().as_ptr() as usize
    }

    /// Whether the buffer belongs to this pool, and so may be sent from.
    #[inline]
    pub(crate) fn knows(&self, mbuf: &Mbuf) -> bool {
        std::ptr::eq(mbuf.home(), self.home())
    }

    /// Buffers that the kernel has to receive into, those in unread frames included.
    #[inline]
    pub(crate) fn filled(&self) -> u32 {
        self.filled
    }

    /// Buffers that the kernel has to send from.
    #[inline]
    pub(crate) fn sending(&self) -> u32 {
        self.sending
    }

    /// Gives the kernel up to `n` free buffers to receive into; how many there were. None on a thread that does not own the pool.
    #[inline]
    pub(crate) fn fill(&mut self, ring: &mut Ring<u64>, n: u32) -> u32 {
        let n = n.min(ring.room(n));
        let (base, mut at) = (self.base(), 0);
        let Umem { pool, holders, .. } = self;
        pool.home().take(n as usize, |header| {
            let offset = header.as_ptr() as usize - base;
            holders[offset / STRIDE] = Holder::Filled;
            ring.write(at, offset as u64);
            at += 1;
        });
        self.filled += at;
        if at > 0 {
            ring.submit(at);
        }
        at
    }

    /// The buffer that the kernel received into. `None` for what it was not given, or bytes outside of it.
    #[inline]
    pub(crate) fn received(&mut self, descriptor: &libc::xdp_desc) -> Option<Mbuf> {
        let (index, offset) = (descriptor.addr as usize / STRIDE, descriptor.addr as usize % STRIDE);
        let len = descriptor.len as usize;
        if self.holders.get(index) != Some(&Holder::Filled) {
            return None;
        }
        self.holders[index] = Holder::Us;
        self.filled -= 1;
        let header = self.home().buffer(index);
        if offset < HEADER || offset + len > STRIDE {
            // SAFETY: it left the free list in `fill`, unchanged, and the kernel gave it back.
            unsafe { home::give_back(header) };
            return None;
        }
        // SAFETY: as above; the bytes lie behind the header and inside the stride.
        Some(unsafe { Mbuf::received(header, (offset - HEADER) as u16, len as u16) })
    }

    /// Hands the segments of a packet of this pool to the kernel, to be sent; calls `segment` with the descriptor of each. At most
    /// the first may be empty; it comes home at once.
    #[inline]
    pub(crate) fn send(&mut self, mbuf: Mbuf, mut segment: impl FnMut(libc::xdp_desc)) {
        let base = self.base();
        let mut next = Some(mbuf.into_header());
        while let Some(mut header) = next {
            // SAFETY: the packet was ours, whole, and each of its segments is visited once.
            let buffer = unsafe { header.as_mut() };
            next = NonNull::new(std::mem::replace(&mut buffer.next, std::ptr::null_mut()));
            buffer.segments = 1;
            let len = u32::from(buffer.data_len);
            if len == 0 {
                // SAFETY: unlinked just now, and forgotten here.
                unsafe { home::give_back(header) };
                continue;
            }
            let offset = header.as_ptr() as usize - base;
            let addr = (offset + HEADER) as u64 + u64::from(buffer.data_off);
            self.holders[offset / STRIDE] = Holder::Sending;
            self.sending += 1;
            let options = if next.is_some() { libc::XDP_PKT_CONTD } else { 0 };
            segment(libc::xdp_desc { addr, len, options });
        }
    }

    /// Takes the buffer back that was sent from, or was not sent after all; false for what the kernel was not given.
    #[inline]
    pub(crate) fn sent(&mut self, addr: u64) -> bool {
        let index = addr as usize / STRIDE;
        let known = self.holders.get(index) == Some(&Holder::Sending);
        if known {
            self.holders[index] = Holder::Us;
            self.sending -= 1;
            // SAFETY: `send` unlinked it, and the kernel gave it back.
            unsafe { home::give_back(self.home().buffer(index)) };
        }
        known
    }

    /// A copy of `bytes` bytes of `from` in a buffer of this pool.
    pub(crate) fn copy(&mut self, from: &Mbuf, offset: usize, bytes: usize) -> Option<Mbuf> {
        let mut copy = None;
        self.home().take(1, |header: NonNull<Header>| {
            // SAFETY: the buffer was just taken from the free list.
            copy = Some(unsafe { Mbuf::received(header, HEADROOM as u16, bytes as u16) });
        });
        let mut copy = copy?;
        from.copy_to(offset, copy.data_mut());
        Some(copy)
    }

    /// Takes back what the kernel still holds.
    ///
    /// # Safety
    /// It has let go of the memory: the socket is closed for good.
    pub(crate) unsafe fn reclaim(&mut self) {
        for index in 0..self.holders.len() {
            if std::mem::replace(&mut self.holders[index], Holder::Us) != Holder::Us {
                // SAFETY: neither `fill` nor `send` left anything linked to it, and the kernel has it no more.
                unsafe { home::give_back(self.home().buffer(index)) };
            }
        }
        (self.filled, self.sending) = (0, 0);
    }
}
