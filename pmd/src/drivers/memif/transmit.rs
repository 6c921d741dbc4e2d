//! Sending: frames out of our buffers into the ring's, one copy.

use std::sync::atomic::{Ordering, fence};

use super::Lost;
use super::copy::copy;
use super::receive::Broken;
use super::ring::{DESC_NEXT, Desc, FLAG_MASK_INT, Ring};
use super::signal::Signal;
use super::slots::Slots;
use crate::counters::Counters;
use crate::mbuf::{Burst, Mbuf};

/// The ring that we send to.
pub(super) struct Sender<S> {
    ring: Ring,
    slots: S,
    /// The slot to fill next. The peer cannot change it.
    next: u16,
    /// Tells a peer that sleeps.
    interrupt: Signal,
}

impl<S: Slots> Sender<S> {
    pub(super) fn new(ring: Ring, slots: S, interrupt: Signal) -> Sender<S> {
        Sender { ring, slots, next: 0, interrupt }
    }

    /// Slots that can be filled.
    #[inline]
    fn free(&self) -> Result<u16, Broken> {
        let (_, peer) = self.slots.indexes(&self.ring);
        // Acquire: pairs with the Release store with which the peer gives slots back, having read them.
        let free =
            peer.load(Ordering::Acquire).wrapping_add(self.slots.lead(&self.ring)).wrapping_sub(self.next);
        if free > self.ring.slots() { Err(Broken) } else { Ok(free) }
    }

    /// Takes frames from the front of `burst`, as far as there is room; returns how many. They have passed `admit`.
    #[inline]
    pub(super) fn burst(&mut self, burst: &mut Burst, counters: &Counters) -> Result<usize, Broken> {
        let mut free = self.free()?;
        let (mut taken, mut sent, mut bytes) = (0, 0, 0);
        for mbuf in burst.iter() {
            let len = mbuf.len();
            if free == 0 {
                break;
            }
            let target = self.slots.target(&self.ring, self.next);
            if mbuf.segment_count() == 1 && len <= target.room as usize {
                // SAFETY: `target` has room for `len` bytes, in memory where no Mbuf lies.
                unsafe { copy(mbuf.data().as_ptr(), target.at.as_ptr(), len) };
                self.fill(self.next, target.region, len, 0);
                self.next = self.next.wrapping_add(1);
                free -= 1;
            } else {
                match self.split(mbuf, free) {
                    Some(slots) => {
                        self.next = self.next.wrapping_add(slots);
                        free -= slots;
                    }
                    // Not even an empty ring has room for it.
                    None if free == self.ring.slots() => {
                        counters.dropped(Lost::Unfit as usize, 1);
                        taken += 1;
                        continue;
                    }
                    None => break,
                }
            }
            (taken, sent, bytes) = (taken + 1, sent + 1, bytes + len);
        }
        if sent > 0 {
            self.publish();
        }
        burst.drain(..taken);
        if !burst.is_empty() {
            counters.tx_full.add(1);
        }
        counters.tx(sent, bytes);
        Ok(taken)
    }

    #[inline]
    fn fill(&self, number: u16, region: u16, len: usize, flags: u16) {
        self.ring.set_desc(number, Desc { flags, region, length: len as u32, offset: 0 });
    }

    /// Puts a frame into several slots, of which `free` can be filled; returns how many it took, or `None` when these are too few.
    #[cold]
    fn split(&self, mbuf: &Mbuf, free: u16) -> Option<u16> {
        let mut slots = 0;
        let mut target = self.slots.target(&self.ring, self.next);
        let mut filled = 0;
        for segment in mbuf.segments() {
            let mut done = 0;
            while done < segment.len() {
                if filled == target.room as usize {
                    let number = self.next.wrapping_add(slots);
                    self.fill(number, target.region, filled, DESC_NEXT);
                    slots += 1;
                    if slots == free {
                        return None;
                    }
                    (target, filled) = (self.slots.target(&self.ring, number.wrapping_add(1)), 0);
                    continue;
                }
                let part = (segment.len() - done).min(target.room as usize - filled);
                // SAFETY: the target has room for `part` bytes behind the `filled`, and the segment has them behind `done`.
                unsafe { copy(segment.as_ptr().add(done), target.at.as_ptr().add(filled), part) };
                (done, filled) = (done + part, filled + part);
            }
        }
        self.fill(self.next.wrapping_add(slots), target.region, filled, 0);
        Some(slots + 1)
    }

    #[inline]
    fn publish(&self) {
        let (own, _) = self.slots.indexes(&self.ring);
        // Release: pairs with the Acquire load with which the peer receives.
        own.store(self.next, Ordering::Release);
        // Pairs with the fence of a receiver that is about to sleep (`Receiver::arm`): it sees what we published, or we see
        // that it wants to be told.
        fence(Ordering::SeqCst);
        if self.ring.flags().load(Ordering::Relaxed) & FLAG_MASK_INT == 0 {
            self.interrupt.raise();
        }
    }
}
