//! The ring that frames are received into.
//!
//! ```text
//!        next                        next + posted
//! ... |   | buffers that the device fills |   free, wait for buffers | ...
//! ```
//!
//! A descriptor is given to the device as the address of a buffer, and comes back as
//!
//! | bits | first word | second word |
//! |---|---|---|
//! | 0..32 | what was hashed (0..4) | status and errors |
//! | 32..48 | hash (32..64) | bytes in the buffer |
//! | 48..64 | | 802.1Q tag |
//!
//! (82576 datasheet 7.1.5, 82599 7.1.6, 82574 7.1.5: the same in these fields.) A frame may take several buffers; the last has EOP.

use super::chip::Chip;
use super::ring::{self, Descriptors, Seen};
use crate::counters::Counters;
use crate::mbuf::{BURST, Burst, Checksum, Mbuf};
use crate::pool::Pool;

const DONE: u32 = 1 << 0;
const END_OF_PACKET: u32 = 1 << 1;
const VLAN_STRIPPED: u32 = 1 << 3;
const UDP_CHECKED: u32 = 1 << 4;
const L4_CHECKED: u32 = 1 << 5;

/// Free descriptors that are worth a refill.
const REFILL: usize = BURST;

/// Which of a queue's counters a frame that the device described wrongly goes to.
pub(crate) const DROP_BAD_LENGTH: usize = 3;

pub(crate) struct RxRing {
    ring: Descriptors,
    buffers: Box<[Option<Mbuf>]>,
    /// The next that the device finishes.
    next: usize,
    /// Buffers that it has.
    posted: usize,
    /// Buffers that it shall have.
    target: usize,
    /// Bytes that it writes into each.
    buffer_len: usize,
    frame_max: usize,
    /// Segments of a frame whose end has not come yet.
    partial: Option<Mbuf>,
    /// The frame coming in is dropped, up to its end.
    skipping: bool,
    memory: Seen,
    queue: u16,
}

/// The numbers of a receiving ring.
pub(crate) struct RxConfig {
    pub queue: usize,
    /// Bytes that the device writes into each buffer.
    pub buffer_len: usize,
    pub frame_max: usize,
    /// Buffers in the pool that feeds it.
    pub pool_capacity: usize,
    /// That pool's memory.
    pub memory: Seen,
}

impl RxRing {
    pub(crate) fn new(ring: Descriptors, config: RxConfig) -> RxRing {
        // One descriptor stays free, for a ring whose head is its tail is empty; and half of a small pool is left to send from.
        let target = (ring.size() - 1).min(config.pool_capacity.div_ceil(2));
        RxRing {
            buffers: (0..ring.size()).map(|_| None).collect(),
            ring,
            next: 0,
            posted: 0,
            target,
            buffer_len: config.buffer_len,
            frame_max: config.frame_max,
            partial: None,
            skipping: false,
            memory: config.memory,
            queue: config.queue as u16,
        }
    }

    /// Whether something has come.
    #[inline]
    pub(crate) fn waits(&self) -> bool {
        self.posted > 0 && self.ring.read(self.next, 1) as u32 & DONE != 0
    }

    /// Moves what has come to `burst`; returns the bytes.
    #[inline]
    pub(crate) fn receive<C: Chip>(&mut self, burst: &mut Burst, counters: &Counters) -> usize {
        let mut bytes = 0;
        while self.posted > 0 && !burst.is_full() {
            let status_word = self.ring.read(self.next, 1);
            let status = status_word as u32;
            if status & DONE == 0 {
                break;
            }
            ring::done();
            let info = self.ring.read(self.next, 0);
            let buffer = self.buffers[self.next].take();
            self.next = self.ring.wrap(self.next + 1);
            self.posted -= 1;
            let len = usize::from((status_word >> 32) as u16);
            let Some(mut frame) = buffer.and_then(|buffer| self.gather(buffer, len, status, counters)) else {
                continue;
            };
            let meta = frame.meta_mut();
            meta.queue = self.queue;
            meta.rss_hash = if info & 0xf != 0 { (info >> 32) as u32 } else { 0 };
            meta.vlan = (status & VLAN_STRIPPED != 0).then_some((status_word >> 48) as u16);
            meta.checksum = checksum::<C>(status);
            bytes += frame.len();
            burst.push(frame);
        }
        bytes
    }

    /// Adds a filled buffer to the frame coming in; returns that when it is whole. The device's length is checked here.
    #[inline]
    fn gather(&mut self, mut buffer: Mbuf, len: usize, status: u32, counters: &Counters) -> Option<Mbuf> {
        let last = status & END_OF_PACKET != 0;
        let room = self.buffer_len.min(buffer.tailroom());
        if last && self.partial.is_none() && !self.skipping && len > 0 && len <= room {
            buffer.append(len)?;
            return Some(buffer);
        }
        self.gather_segment(buffer, (len <= room).then_some(len), last, counters)
    }

    #[cold]
    fn gather_segment(
        &mut self,
        mut buffer: Mbuf,
        len: Option<usize>,
        last: bool,
        counters: &Counters,
    ) -> Option<Mbuf> {
        let so_far = self.partial.as_ref().map_or(0, Mbuf::len);
        match len {
            Some(len) if !self.skipping && so_far + len <= self.frame_max => {
                buffer.append(len)?;
                match &mut self.partial {
                    Some(partial) => partial.chain(buffer),
                    None => self.partial = Some(buffer),
                }
            }
            _ => {
                self.skipping = true;
                self.partial = None;
            }
        }
        if !last {
            return None;
        }
        let bad = std::mem::take(&mut self.skipping);
        let frame = self.partial.take().filter(|frame| !frame.is_empty() && !bad);
        if frame.is_none() {
            counters.dropped(DROP_BAD_LENGTH, 1);
        }
        frame
    }

    /// Whether it lacks enough buffers to look for some.
    #[inline]
    pub(crate) fn hungry(&self) -> bool {
        let missing = self.target - self.posted;
        missing >= REFILL || (missing > 0 && self.posted < REFILL)
    }

    /// Gives the device buffers of `pool`; returns the new tail when there were any.
    pub(crate) fn refill(&mut self, pool: &mut Pool) -> Option<u32> {
        let before = self.posted;
        let mut fresh = Burst::new();
        while self.posted < self.target {
            let got = pool.alloc_burst(&mut fresh, (self.target - self.posted).min(BURST));
            for buffer in fresh.drain(..) {
                let at = self.ring.wrap(self.next + self.posted);
                let iova = self.memory.locate(buffer.data().as_ptr(), buffer.tailroom());
                let iova = iova.expect("a queue is polled with the pool that it was opened with");
                // The second word clears the "done" bit of the round before.
                self.ring.write(at, [iova, 0]);
                self.buffers[at] = Some(buffer);
                self.posted += 1;
            }
            if got < BURST {
                break;
            }
        }
        (self.posted > before).then(|| self.ring.wrap(self.next + self.posted) as u32)
    }
}

#[inline]
fn checksum<C: Chip>(status: u32) -> Checksum {
    if status & L4_CHECKED == 0 && status & UDP_CHECKED == 0 {
        return Checksum::Unknown;
    }
    // A wrong IPv4 header checksum is for the stack to find and count: it looks at that itself.
    if status & C::RX_L4_BAD != 0 { Checksum::Bad } else { Checksum::Good }
}
