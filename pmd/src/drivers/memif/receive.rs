//! Receiving: frames out of the ring into buffers of our own, one copy.

use std::sync::atomic::{AtomicU16, Ordering, fence};

use super::Lost::{self, BadDescriptor, Oversize, Runt};
use super::copy::{copy, prefetch};
use super::ring::{DESC_NEXT, Desc, FLAG_MASK_INT, Ring};
use super::slots::Slots;
use crate::counters::Counters;
use crate::drivers::{FRAME_MIN, FRAME_OVERHEAD};
use crate::header::DATA_ROOM;
use crate::mbuf::{BURST, Burst, Mbuf};
use crate::pool::Pool;
use crate::port::MTU_MAX;

/// Longest frame that is put together.
const FRAME_MAX: usize = MTU_MAX + FRAME_OVERHEAD;

/// The index of a ring is out of its range: the peer is broken, and nothing it writes can be believed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Broken;

/// The ring that we receive from.
pub(super) struct Receiver<S> {
    ring: Ring,
    slots: S,
    /// The slot to read next. The peer cannot change it.
    next: u16,
}

impl<S: Slots> Receiver<S> {
    /// Receives from the ring's beginning.
    pub(super) fn new(ring: Ring, slots: S) -> Receiver<S> {
        Receiver { ring, slots, next: 0 }
    }

    /// Once the peer has connected: lends it all buffers, where they are ours. Not before, for DPDK's server clears the indexes
    /// when it does.
    pub(super) fn start(&self) {
        self.disarm();
        self.publish();
    }

    /// Gives back all slots before `next`.
    #[inline]
    fn publish(&self) {
        let (own, _) = self.slots.indexes(&self.ring);
        // Release: pairs with the Acquire load with which the peer sends; it fills the slots after we have read them.
        own.store(self.next.wrapping_add(self.slots.lead(&self.ring)), Ordering::Release);
    }

    #[inline]
    fn peer(&self) -> &AtomicU16 {
        self.slots.indexes(&self.ring).1
    }

    /// Slots that wait.
    #[inline]
    fn waiting(&self) -> Result<u16, Broken> {
        // Acquire: pairs with the Release store with which the peer publishes descriptors and frames.
        let waiting = self.peer().load(Ordering::Acquire).wrapping_sub(self.next);
        if waiting > self.ring.slots() { Err(Broken) } else { Ok(waiting) }
    }

    /// Whether something waits, after a full barrier; with the peer told to tell us from now on.
    pub(super) fn arm(&self) -> bool {
        self.ring.flags().store(0, Ordering::Relaxed);
        // Pairs with the fence in `Sender::publish`: either we see what it published, or it sees that we want to be told.
        fence(Ordering::SeqCst);
        self.waiting() == Ok(0)
    }

    pub(super) fn disarm(&self) {
        self.ring.flags().store(FLAG_MASK_INT, Ordering::Relaxed);
    }

    /// Appends frames to `burst`, as received on `queue`. A frame that finds no buffer waits, unless it needs several.
    #[inline]
    pub(super) fn burst(
        &mut self,
        pool: &mut Pool,
        burst: &mut Burst,
        counters: &Counters,
        queue: u16,
    ) -> Result<usize, Broken> {
        let waiting = self.waiting()?;
        let before = burst.len();
        if waiting == 0 {
            return Ok(0);
        }
        // No frame has less than a slot.
        let room = pool.alloc_burst(burst, usize::from(waiting).min(BURST - before));
        let end = self.next.wrapping_add(waiting);
        let descs = self.read_descs(room);
        let (mut good, mut bytes, mut at) = (before, 0, 0);
        while at < room {
            let desc = descs[at];
            let slot = self.ring.slot(self.next);
            let len = desc.length as usize;
            at += 1;
            match self.slots.source(slot, desc) {
                Some(from) if desc.flags & DESC_NEXT == 0 && (FRAME_MIN..=DATA_ROOM).contains(&len) => {
                    // SAFETY: `source` found `len` bytes; a fresh buffer has room for DATA_ROOM, and is not in shared memory.
                    unsafe { copy(from.as_ptr(), burst[good].set_fresh_len(len), len) };
                    burst[good].meta_mut().queue = queue;
                    self.take(desc);
                    (good, bytes) = (good + 1, bytes + len);
                }
                _ => {
                    let first = self.next;
                    match self.join(desc, end, &mut burst[good], pool) {
                        Ok(len) => {
                            burst[good].meta_mut().queue = queue;
                            (good, bytes) = (good + 1, bytes + len);
                        }
                        Err(why) => {
                            burst[good].truncate(0);
                            drop_one(counters, why);
                        }
                    }
                    // The slots behind the first that the frame had.
                    at += usize::from(self.next.wrapping_sub(first)) - 1;
                }
            }
        }
        self.publish();
        burst.truncate(good);
        counters.rx(good - before, bytes);
        Ok(good - before)
    }

    /// Reads the next `n` descriptors, each once, and asks the cache for what they speak of.
    #[inline]
    fn read_descs(&self, n: usize) -> [Desc; BURST] {
        let mut descs = [Desc::default(); BURST];
        for (i, desc) in descs.iter_mut().enumerate().take(n) {
            let number = self.next.wrapping_add(i as u16);
            *desc = self.ring.desc(number);
            if let Some(at) = self.slots.source(self.ring.slot(number), *desc) {
                prefetch(at);
            }
        }
        descs
    }

    /// The next slot, of which this is the descriptor, is read.
    #[inline]
    fn take(&mut self, desc: Desc) {
        self.slots.renew(&self.ring, self.next, desc);
        self.next = self.next.wrapping_add(1);
    }

    /// Puts a frame of several descriptors, or a long one, together in `mbuf`, which is fresh. Takes all its slots either way. `end` is
    /// behind the last slot that the peer published.
    #[cold]
    fn join(&mut self, first: Desc, end: u16, mbuf: &mut Mbuf, pool: &mut Pool) -> Result<usize, Lost> {
        let (mut desc, mut outcome) = (first, Ok(()));
        loop {
            let slot = self.ring.slot(self.next);
            if outcome.is_ok() {
                outcome = self.append(slot, desc, mbuf, pool);
            }
            self.take(desc);
            if desc.flags & DESC_NEXT == 0 {
                break;
            }
            if self.next == end {
                // A frame is published whole or not at all.
                outcome = Err(BadDescriptor);
                break;
            }
            desc = self.ring.desc(self.next);
        }
        outcome?;
        if mbuf.len() < FRAME_MIN { Err(Runt) } else { Ok(mbuf.len()) }
    }

    fn append(&self, slot: u16, desc: Desc, mbuf: &mut Mbuf, pool: &mut Pool) -> Result<(), Lost> {
        let from = self.slots.source(slot, desc).ok_or(BadDescriptor)?;
        let len = desc.length as usize;
        if mbuf.len() + len > FRAME_MAX {
            return Err(Oversize);
        }
        let mut done = 0;
        while done < len {
            if mbuf.tailroom() == 0 {
                let mut more = pool.alloc().ok_or(Lost::NoBuffer)?;
                let part = (len - done).min(DATA_ROOM);
                // SAFETY: `source` found `len` bytes, of which `done` are copied; a fresh buffer has room for DATA_ROOM.
                unsafe { copy(from.as_ptr().add(done), more.set_fresh_len(part), part) };
                mbuf.chain(more);
                done += part;
            } else {
                let part = (len - done).min(mbuf.tailroom());
                let to = mbuf.append(part).expect("cut to the tailroom").as_mut_ptr();
                // SAFETY: as above; `append` made room for `part`.
                unsafe { copy(from.as_ptr().add(done), to, part) };
                done += part;
            }
        }
        Ok(())
    }
}

#[cold]
fn drop_one(counters: &Counters, why: Lost) {
    match why {
        Lost::NoBuffer => counters.rx_no_buffer.add(1),
        why => counters.dropped(why as usize, 1),
    }
}
