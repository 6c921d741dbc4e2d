//! The ring that frames are sent from.
//!
//! ```text
//!        clean                       head
//! ... |   | the device reads, or has read |   free | ...
//! ```
//!
//! The device is asked to report once a burst, at its last descriptor; frames go home when the report of their burst is there.
//! Memory that the device does not see, frames in very many pieces and those too short for the device to pad are copied, into a
//! piece of the queue's own memory that belongs to the descriptor.

use std::sync::Arc;

use arrayvec::ArrayVec;

use super::chip::{Chip, TX_DONE, TX_REPORT, TxChecksum, TxOffload, TxPiece};
use super::ring::{self, Descriptors, Seen};
use super::vfio::Mapping;
use crate::checksum;
use crate::counters::Counters;
use crate::mbuf::{BURST, Burst, Checksum, Mbuf};

/// Bytes that can be copied for each descriptor.
pub(crate) const COPY: usize = 2048;
/// Pieces of a frame that the device is given as they lie.
const PIECES: usize = 16;
/// The chips pad short frames to 60 bytes, but want at least this many to begin with.
const PADDABLE: usize = 17;
/// In place of the number of a descriptor: the frame was copied.
const COPIED: u16 = u16::MAX;

pub(crate) struct TxRing {
    ring: Descriptors,
    /// A frame at its first descriptor, until that is done.
    frames: Box<[Option<Mbuf>]>,
    /// At the first descriptor of a burst: its last one, which reports.
    ends: Box<[u16]>,
    head: usize,
    clean: usize,
    used: usize,
    /// What the device knows of the frames before.
    context: Option<[u64; 2]>,
    /// Memory that it sees.
    memory: Box<[Seen]>,
    copies: Arc<Mapping>,
}

// SAFETY: `copies` is memory that only this ring and the device use; the ring has one owner at a time.
unsafe impl Send for TxRing {}

/// Where the pieces of a frame are, for the device.
type Pieces = ArrayVec<(u64, usize), PIECES>;

impl TxRing {
    /// A ring whose frames lie in `memory`; `copies` has [`COPY`] bytes for each descriptor.
    pub(crate) fn new(ring: Descriptors, memory: Vec<Seen>, copies: Arc<Mapping>) -> TxRing {
        assert!(copies.len() >= ring.size() * COPY && ring.size() < usize::from(COPIED));
        TxRing {
            frames: (0..ring.size()).map(|_| None).collect(),
            ends: vec![0; ring.size()].into(),
            ring,
            head: 0,
            clean: 0,
            used: 0,
            context: None,
            memory: memory.into(),
            copies,
        }
    }

    /// Sends home what the device is through with.
    #[inline]
    pub(crate) fn reclaim(&mut self) {
        while self.used > 0 {
            let end = usize::from(self.ends[self.clean]);
            if self.ring.read(end, 1) & TX_DONE == 0 {
                break;
            }
            ring::done();
            let done = self.ring.wrap(end + self.ring.size() + 1 - self.clean);
            for _ in 0..done {
                drop(self.frames[self.clean].take());
                self.clean = self.ring.wrap(self.clean + 1);
            }
            self.used -= done;
        }
    }

    /// Takes frames from the front of `burst` while there is room; returns the new tail when it took any.
    #[inline]
    pub(crate) fn send<C: Chip>(&mut self, burst: &mut Burst, counters: &Counters) -> Option<u32> {
        let first = self.head;
        let mut places: ArrayVec<u16, BURST> = ArrayVec::new();
        let mut last = [0, 0];
        for frame in burst.iter_mut() {
            let Some(place) = self.put::<C>(frame, counters, &mut last) else { break };
            places.push(place);
        }
        if self.head == first && places.is_empty() {
            return None;
        }
        for (frame, place) in burst.drain(..places.len()).zip(&places) {
            if *place != COPIED {
                self.frames[usize::from(*place)] = Some(frame);
            }
        }
        let end = self.ring.wrap(self.head + self.ring.size() - 1);
        self.ring.write(end, [last[0], last[1] | TX_REPORT]);
        self.ends[first] = end as u16;
        Some(self.head as u32)
    }

    /// Writes the descriptors of one frame; returns its place, or `None` without room. The last descriptor is in `last` then.
    #[inline]
    fn put<C: Chip>(&mut self, frame: &mut Mbuf, counters: &Counters, last: &mut [u64; 2]) -> Option<u16> {
        let offload = offload(frame);
        let context = match offload {
            TxOffload { checksum: None, vlan: None } => None,
            offload => C::tx_context(offload).filter(|context| self.context != Some(*context)),
        };
        let mut pieces = Pieces::new();
        let located = self.locate(frame, &mut pieces);
        let needed = if located { pieces.len() } else { frame.len().div_ceil(COPY) };
        // One stays free, for a ring whose head is its tail is empty.
        if self.used + needed + usize::from(context.is_some()) >= self.ring.size() {
            return None;
        }
        if let Some(context) = context {
            self.context = Some(context);
            self.push(context);
        }
        let (place, frame_len) = (self.head, frame.len());
        if !located {
            *last = self.copy::<C>(frame, offload, counters);
            return Some(COPIED);
        }
        for (index, &(iova, len)) in pieces.iter().enumerate() {
            let piece = TxPiece { iova, len, frame_len, last: index + 1 == needed };
            *last = C::tx_data(piece, offload);
            self.push(*last);
        }
        Some(place as u16)
    }

    #[inline]
    fn push(&mut self, descriptor: [u64; 2]) {
        self.ring.write(self.head, descriptor);
        self.head = self.ring.wrap(self.head + 1);
        self.used += 1;
    }

    /// Finds the pieces of the frame as the device sees them; false when it has to be copied.
    #[inline]
    fn locate(&self, frame: &Mbuf, pieces: &mut Pieces) -> bool {
        frame.len() >= PADDABLE
            && frame.segments().filter(|segment| !segment.is_empty()).all(|segment| {
                let seen = |seen: &Seen| seen.locate(segment.as_ptr(), segment.len());
                let iova = self.memory.iter().find_map(seen);
                iova.is_some_and(|iova| pieces.try_push((iova, segment.len())).is_ok())
            })
    }

    /// Copies a frame for which there is room; returns its last descriptor.
    #[cold]
    fn copy<C: Chip>(&mut self, frame: &Mbuf, offload: TxOffload, counters: &Counters) -> [u64; 2] {
        let (len, padded) = (frame.len(), frame.len().max(PADDABLE));
        if len == padded {
            counters.tx_copied.add(1);
        }
        let mut at = 0;
        loop {
            let offset = self.head * COPY;
            let piece_len = (padded - at).min(COPY);
            // SAFETY: the piece of the descriptor at `head`, inside the mapping; the device is through with it, since
            // that descriptor is free.
            let room =
                unsafe { std::slice::from_raw_parts_mut(self.copies.base().as_ptr().add(offset), piece_len) };
            let copied = frame.copy_to(at, room);
            room[copied..].fill(0);
            at += piece_len;
            let piece = TxPiece {
                iova: self.copies.iova() + offset as u64,
                len: piece_len,
                frame_len: padded,
                last: at == padded,
            };
            let descriptor = C::tx_data(piece, offload);
            self.push(descriptor);
            if at == padded {
                return descriptor;
            }
        }
    }
}

/// What the device shall do to this frame. Where it cannot finish a checksum, we do.
#[inline]
fn offload(frame: &mut Mbuf) -> TxOffload {
    let vlan = frame.meta().vlan;
    let checksum = match frame.meta().checksum {
        Checksum::Partial => partial(frame),
        _ => None,
    };
    TxOffload { checksum, vlan }
}

#[cold]
fn partial(frame: &mut Mbuf) -> Option<TxChecksum> {
    let plan = headers(frame.data());
    if plan.is_none() {
        checksum::complete(frame);
    }
    plan
}

/// Where the headers of a whole TCP or UDP packet are, with nothing between IP and them but IPv4 options.
fn headers(head: &[u8]) -> Option<TxChecksum> {
    let be16 = |at: usize| Some(u16::from_be_bytes([*head.get(at)?, *head.get(at + 1)?]));
    let tags = (0..2).take_while(|tag| matches!(be16(12 + 4 * tag), Some(0x8100 | 0x88a8))).count();
    let l2 = 14 + 4 * tags;
    let (l3, protocol, ipv4) = match be16(l2 - 2)? {
        // A fragment holds only part of what is summed.
        0x0800 if be16(l2 + 6)? & 0x3fff == 0 => {
            (usize::from(head.get(l2)? & 15) * 4, *head.get(l2 + 9)?, true)
        }
        0x86dd => (40, *head.get(l2 + 6)?, false),
        _ => return None,
    };
    let (tcp, header) = match protocol {
        6 => (true, 20),
        17 => (false, 8),
        _ => return None,
    };
    (l3 >= 20 && head.len() >= l2 + l3 + header).then_some(TxChecksum { l2, l3, ipv4, tcp })
}
