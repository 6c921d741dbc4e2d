//! What a call has received: packets in order that wait for the reader, and those that wait for one before them.
//!
//! Buffers are the ones that came off the wire, without a copy. A packet that was taken is never thrown away again, so
//! being in order is as good as being read: it is hard-acknowledged, and the window shrinks by what is unread.

use crate::slab::Recycle;
use crate::wire::{Flags, SubPacket};
use pmd::Mbuf;
use std::collections::VecDeque;

struct Held {
    data: Mbuf,
    last: bool,
    /// The packet's checksum, for what is opened later.
    checksum: u16,
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// It is readable, with those that it let through.
    InOrder,
    /// It waits for one before it.
    OutOfOrder,
    /// It was here already.
    Duplicate,
    /// It is beyond the window.
    Window,
    /// It lies behind the end, or moves the end.
    BadSequence,
}

/// The queue.
#[derive(Default)]
pub struct RecvQueue {
    ready: VecDeque<Held>,
    /// `hold[i]` has the sequence number `next() + i`; the first is always absent.
    hold: VecDeque<Option<Held>>,
    held: usize,
    /// Highest sequence number received in order.
    received: u32,
    /// Highest sequence number received at all.
    highest: u32,
    /// Sequence number of the last packet, once known.
    last: Option<u32>,
    /// Payload bytes received in order.
    bytes: u64,
    /// Bytes in `ready`.
    ready_bytes: usize,
}

impl Recycle for RecvQueue {
    fn recycle(&mut self) {
        self.discard();
        let Self { ready: _, hold: _, held, received, highest, last, bytes, ready_bytes } = self;
        (*held, *received, *highest, *last, *bytes, *ready_bytes) = (0, 0, 0, None, 0, 0);
    }
}

impl RecvQueue {
    /// The sequence number that is expected next.
    pub fn next(&self) -> u32 {
        self.received.wrapping_add(1)
    }

    /// The highest sequence number seen.
    pub fn highest(&self) -> u32 {
        self.highest
    }

    /// Packets that can be read.
    pub fn ready(&self) -> usize {
        self.ready.len()
    }

    /// Bytes that can be read.
    pub fn ready_bytes(&self) -> usize {
        self.ready_bytes
    }

    /// Packets that wait for one before them.
    pub fn out_of_order(&self) -> usize {
        self.held
    }

    /// Payload bytes received in order so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether anything ever came.
    pub fn begun(&self) -> bool {
        self.highest != 0
    }

    /// Whether everything up to the last packet is here.
    pub fn complete(&self) -> bool {
        self.last == Some(self.received)
    }

    /// Whether the reader has been given everything, the end included.
    pub fn drained(&self) -> bool {
        self.complete() && self.ready.is_empty()
    }

    /// Takes a packet in. `window`: packets that may be held, unread ones included. `data` is taken only if it is kept.
    pub fn insert(&mut self, packet: &SubPacket, data: &mut Option<Mbuf>, window: u32) -> Arrival {
        let SubPacket { seq, checksum, .. } = *packet;
        let last = packet.flags.contains(Flags::LAST);
        let ahead = seq.wrapping_sub(self.next());
        if ahead > u32::MAX / 2 {
            return Arrival::Duplicate;
        }
        let end_moves = last && (self.last.is_some_and(|end| end != seq) || seq < self.highest);
        if self.last.is_some_and(|end| seq > end) || end_moves {
            return Arrival::BadSequence;
        }
        if ahead as usize + self.ready.len() >= window as usize {
            return Arrival::Window;
        }
        if self.hold.get(ahead as usize).is_some_and(Option::is_some) {
            return Arrival::Duplicate;
        }
        let held = Held { data: data.take().expect("a packet to insert"), last, checksum };
        if last {
            self.last = Some(seq);
        }
        self.highest = self.highest.max(seq);
        if ahead == 0 {
            self.deliver(held);
            return Arrival::InOrder;
        }
        while self.hold.len() <= ahead as usize {
            self.hold.push_back(None);
        }
        self.hold[ahead as usize] = Some(held);
        self.held += 1;
        Arrival::OutOfOrder
    }

    /// Appends a packet that is in order, and what it lets through.
    fn deliver(&mut self, held: Held) {
        self.hold.pop_front();
        self.make_ready(held);
        while let Some(Some(_)) = self.hold.front() {
            let held = self.hold.pop_front().flatten().expect("looked");
            self.held -= 1;
            self.make_ready(held);
        }
    }

    fn make_ready(&mut self, held: Held) {
        self.received = self.received.wrapping_add(1);
        self.bytes += held.data.len() as u64;
        self.ready_bytes += held.data.len();
        self.ready.push_back(held);
    }

    /// The soft acknowledgements: one byte for each packet from `next()`. Returns how many were written.
    pub fn slots(&self, out: &mut [u8; 255]) -> usize {
        let n = self.hold.len().min(out.len());
        for (slot, held) in out.iter_mut().zip(&self.hold) {
            *slot = held.is_some().into();
        }
        n
    }

    /// Takes the next packet out, and whether it was the last.
    pub fn pop(&mut self) -> Option<(Mbuf, bool)> {
        let Held { data, last, .. } = self.ready.pop_front()?;
        self.ready_bytes -= data.len();
        Some((data, last))
    }

    /// Copies bytes out. Returns the bytes, the buffers freed, and whether the end was reached.
    pub fn read(&mut self, out: &mut [u8]) -> (usize, usize, bool) {
        let (mut done, mut freed) = (0, 0);
        while let Some(front) = self.ready.front_mut() {
            let n = front.data.copy_to(0, &mut out[done..]);
            done += n;
            if n < front.data.len() {
                let segments = front.data.segment_count();
                front.data.advance(n);
                freed += segments - front.data.segment_count();
                break;
            }
            freed += front.data.segment_count();
            let last = front.last;
            self.ready.pop_front();
            if last {
                self.ready_bytes -= done;
                return (done, freed, true);
            }
        }
        self.ready_bytes -= done;
        (done, freed, false)
    }

    /// Has every packet that is held opened, given its sequence number and checksum, before anything was read. Stops at the first
    /// that does not open.
    pub fn open_all<E>(
        &mut self,
        mut open: impl FnMut(u32, u16, &mut Mbuf) -> Result<(), E>,
    ) -> Result<(), E> {
        let first = self.next().wrapping_sub(self.ready.len() as u32);
        let (ready, hold) = (self.ready.iter_mut().map(Some), self.hold.iter_mut().map(Option::as_mut));
        for (seq, held) in (first..).zip(ready.chain(hold)) {
            if let Some(held) = held {
                open(seq, held.checksum, &mut held.data)?;
            }
        }
        self.ready_bytes = self.ready.iter().map(|held| held.data.len()).sum();
        self.bytes = self.ready_bytes as u64;
        Ok(())
    }

    /// Throws everything away. Returns the buffers freed.
    pub fn discard(&mut self) -> usize {
        if self.ready.is_empty() && self.hold.is_empty() {
            return 0;
        }
        let ready = self.ready.drain(..).map(|held| held.data.segment_count()).sum::<usize>();
        let hold = self.hold.drain(..).flatten().map(|held| held.data.segment_count()).sum::<usize>();
        (self.held, self.ready_bytes) = (0, 0);
        ready + hold
    }
}
