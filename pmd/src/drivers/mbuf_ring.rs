//! A bounded SPSC ring that moves packets by the burst: rtrb with pointers, copied as slices.

use std::ptr::NonNull;

use rtrb::{Consumer, Producer, RingBuffer};

use crate::header::Header;
use crate::mbuf::{Burst, Mbuf};

/// A packet on its way: the same bits as an [`Mbuf`], which the ring owns between push and pop.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Packet(NonNull<Header>);

const _: () = assert!(size_of::<Packet>() == size_of::<Mbuf>() && align_of::<Packet>() == align_of::<Mbuf>());

// SAFETY: it stands for an Mbuf, which is Send.
unsafe impl Send for Packet {}

/// The sending end.
pub(crate) struct MbufSender(Producer<Packet>);

/// The receiving end. Dropping it drops what is in the ring, so it must outlive the last push.
pub(crate) struct MbufReceiver(Consumer<Packet>);

/// A ring for `capacity` packets.
pub(crate) fn mbuf_ring(capacity: usize) -> (MbufSender, MbufReceiver) {
    let (sender, receiver) = RingBuffer::new(capacity);
    (MbufSender(sender), MbufReceiver(receiver))
}

impl MbufSender {
    /// Moves packets from the front of `burst` as far as there is room; returns how many.
    #[inline]
    pub(crate) fn push_burst(&mut self, burst: &mut Burst) -> usize {
        let len = burst.len();
        // SAFETY: an Mbuf is one pointer to its header (repr(transparent)), as a Packet is.
        let packets = unsafe { std::slice::from_raw_parts(burst.as_ptr().cast::<Packet>(), len) };
        let (pushed, left) = self.0.push_partial_slice(packets);
        let (pushed, left) = (pushed.len(), left.len());
        // SAFETY: the first `pushed` packets belong to the ring now, and the `left` others move to the front.
        unsafe {
            burst.set_len(0);
            std::ptr::copy(burst.as_ptr().add(pushed), burst.as_mut_ptr(), left);
            burst.set_len(left);
        }
        pushed
    }
}

impl MbufSender {
    /// Moves one packet, or gives it back.
    #[inline]
    pub(crate) fn push(&mut self, mbuf: Mbuf) -> Result<(), Mbuf> {
        if self.0.is_full() {
            return Err(mbuf);
        }
        let pushed = self.0.push(Packet(mbuf.into_header()));
        debug_assert!(pushed.is_ok(), "there was room, and nobody else pushes");
        Ok(())
    }
}

impl MbufReceiver {
    /// Appends packets to `burst` as far as it has room; returns how many.
    #[inline]
    pub(crate) fn pop_burst(&mut self, burst: &mut Burst) -> usize {
        let (len, room) = (burst.len(), burst.remaining_capacity());
        // SAFETY: the spare room of the burst; MaybeUninit may be anything, and a Packet has the size of an Mbuf.
        let spare = unsafe {
            let start = burst.as_mut_ptr().add(len).cast::<std::mem::MaybeUninit<Packet>>();
            std::slice::from_raw_parts_mut(start, room)
        };
        let popped = self.0.pop_partial_slice_uninit(spare).0.len();
        // SAFETY: the ring gave up these packets, which stand behind the `len` others.
        unsafe { burst.set_len(len + popped) };
        popped
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Drops all that is in the ring.
    pub(crate) fn clear(&mut self) {
        let mut burst = Burst::new();
        while self.pop_burst(&mut burst) > 0 {
            burst.clear();
        }
    }
}

impl Drop for MbufReceiver {
    fn drop(&mut self) {
        self.clear();
    }
}
