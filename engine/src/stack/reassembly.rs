//! Putting fragments together again (RFC 791 section 3.2, RFC 8200 section 4.5), for both IP versions.
//!
//! Fragments keep the buffers they came in; a whole datagram is their chain, nothing is copied. They may come in any
//! order. A fragment that was here already is dropped; any other overlap condemns the whole datagram (RFC 5722, which
//! IPv4 gets as well: honest senders do not overlap). Everything is bounded: datagrams, datagrams of one source,
//! fragments of one datagram, buffers; what is oldest gives way.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use arrayvec::ArrayVec;
use pmd::{Instant, Mbuf};

use super::config::Limits;
use super::small::Keyed;
use super::wire::{IP_PAYLOAD_MAX, Part};
use crate::stats::Drop;

/// Fragments of one datagram: 64 KB cut for the least IPv4 MTU of 576 bytes.
const PARTS_MAX: usize = 128;

/// Which datagram a fragment is of.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Key {
    pub port: u16,
    pub src: IpAddr,
    pub dst: IpAddr,
    pub id: u32,
    /// IPv4: part of the identity. IPv6: 0, the first fragment's counts (RFC 8200 section 4.5).
    pub protocol: u8,
}

struct Held {
    offset: u32,
    len: u32,
    data: Mbuf,
}

struct Entry {
    key: Option<Key>,
    deadline: Instant,
    /// In order, not overlapping.
    parts: ArrayVec<Held, PARTS_MAX>,
    /// Bytes in `parts`.
    bytes: usize,
    /// Buffers in `parts`.
    buffers: usize,
    /// Length of the whole, once the last fragment has said it.
    total: Option<usize>,
    /// What the first fragment says follows it.
    protocol: u8,
}

/// What became of a fragment.
pub enum Outcome {
    /// It waits for others.
    Held,
    /// It was the last one missing: the payload of the whole, the protocol in it, and how many fragments it was.
    Whole { payload: Mbuf, protocol: u8, parts: usize },
    /// It is refused. If it condemned its datagram, the others are given up.
    Refused(Drop, Mbuf),
}

pub struct Reassembly {
    entries: Vec<Entry>,
    index: HashMap<Key, u16, Keyed>,
    free: Vec<u16>,
    held: usize,
    buffers: usize,
    next: Instant,
    per_source_max: usize,
    buffers_max: usize,
    timeout: Duration,
}

impl Reassembly {
    pub fn new(limits: &Limits, keyed: Keyed) -> Self {
        let n = limits.reassemblies;
        let free = || Entry {
            key: None,
            deadline: Instant::FAR_FUTURE,
            parts: ArrayVec::new(),
            bytes: 0,
            buffers: 0,
            total: None,
            protocol: 0,
        };
        Reassembly {
            entries: (0..n).map(|_| free()).collect(),
            // Twice the room, so that the map clears out deleted entries in place and never allocates again.
            index: HashMap::with_capacity_and_hasher(2 * n, keyed),
            free: (0..n as u16).rev().collect(),
            held: 0,
            buffers: 0,
            next: Instant::FAR_FUTURE,
            per_source_max: limits.reassemblies_per_source,
            buffers_max: limits.reassembly_buffers,
            timeout: limits.reassembly_timeout,
        }
    }

    /// Fragments held now.
    pub fn held(&self) -> usize {
        self.held
    }

    pub fn next_timeout(&self) -> Option<Instant> {
        (self.next != Instant::FAR_FUTURE).then_some(self.next)
    }

    /// Takes a fragment's data. `given_up` hears of fragments held before that are dropped for it.
    pub fn insert(
        &mut self,
        now: Instant,
        key: Key,
        part: Part,
        protocol: u8,
        data: Mbuf,
        given_up: &mut dyn FnMut(Drop, usize),
    ) -> Outcome {
        let (len, end) = (data.len(), part.offset + data.len());
        if len == 0 || (part.more && len % 8 != 0) || end > IP_PAYLOAD_MAX {
            return Outcome::Refused(Drop::BadFragment, data);
        }
        let slot = match self.index.get(&key) {
            Some(&slot) => usize::from(slot),
            None => self.start(now, key, given_up),
        };
        let place = match self.entries[slot].place(part, len) {
            Ok(place) => place,
            Err(Drop::DuplicateFragment) => return Outcome::Refused(Drop::DuplicateFragment, data),
            Err(reason) => {
                self.give_up(slot, reason, given_up);
                return Outcome::Refused(reason, data);
            }
        };
        if !self.make_room(slot, data.segment_count(), given_up) {
            self.give_up(slot, Drop::ReassemblyLimit, given_up);
            return Outcome::Refused(Drop::ReassemblyLimit, data);
        }
        self.hold(slot, place, part, protocol, data);
        let entry = &self.entries[slot];
        if entry.total == Some(entry.bytes) { self.finish(slot) } else { Outcome::Held }
    }

    fn hold(&mut self, slot: usize, place: usize, part: Part, protocol: u8, data: Mbuf) {
        let entry = &mut self.entries[slot];
        let len = data.len();
        if !part.more {
            entry.total = Some(part.offset + len);
        }
        if part.offset == 0 {
            entry.protocol = protocol;
        }
        entry.bytes += len;
        entry.buffers += data.segment_count();
        self.buffers += data.segment_count();
        self.held += 1;
        entry.parts.insert(place, Held { offset: part.offset as u32, len: len as u32, data });
    }

    /// Chains the parts of a whole datagram.
    fn finish(&mut self, slot: usize) -> Outcome {
        let entry = &mut self.entries[slot];
        let (parts, protocol) = (entry.parts.len(), entry.protocol);
        let whole = entry.parts.drain(..).map(|held| held.data).reduce(|mut whole, next| {
            whole.chain(next);
            whole
        });
        self.held -= parts;
        self.release(slot);
        Outcome::Whole { payload: whole.expect("a whole has parts"), protocol, parts }
    }

    /// Gives up what did not become whole in time.
    pub fn expire(&mut self, now: Instant, given_up: &mut dyn FnMut(Drop, usize)) {
        if now < self.next {
            return;
        }
        self.next = Instant::FAR_FUTURE;
        for slot in 0..self.entries.len() {
            if self.entries[slot].key.is_some() && now >= self.entries[slot].deadline {
                self.give_up(slot, Drop::ReassemblyTimeout, given_up);
            }
            if self.entries[slot].key.is_some() {
                self.next = self.next.min(self.entries[slot].deadline);
            }
        }
    }

    /// Gives everything up.
    pub fn clear(&mut self, given_up: &mut dyn FnMut(Drop, usize)) {
        for slot in 0..self.entries.len() {
            if self.entries[slot].key.is_some() {
                self.give_up(slot, Drop::ReassemblyTimeout, given_up);
            }
        }
        self.next = Instant::FAR_FUTURE;
    }

    /// Sets up an entry; the source's oldest, or the oldest of all, goes if there are too many.
    fn start(&mut self, now: Instant, key: Key, given_up: &mut dyn FnMut(Drop, usize)) -> usize {
        let of_source = |entry: &&Entry| entry.key.is_some_and(|k| k.src == key.src);
        // Nobody can have too many while there are few in all.
        let active = self.entries.len() - self.free.len();
        if active >= self.per_source_max
            && self.entries.iter().filter(of_source).count() >= self.per_source_max
        {
            let oldest = self.oldest(|k| k.src == key.src).expect("the source has some");
            self.give_up(oldest, Drop::ReassemblyLimit, given_up);
        } else if self.free.is_empty() {
            let oldest = self.oldest(|_| true).expect("all are in use");
            self.give_up(oldest, Drop::ReassemblyLimit, given_up);
        }
        let slot = self.free.pop().expect("one was freed");
        self.index.insert(key, slot);
        let entry = &mut self.entries[usize::from(slot)];
        entry.key = Some(key);
        entry.deadline = now + self.timeout;
        self.next = self.next.min(entry.deadline);
        usize::from(slot)
    }

    /// Sees to it that `more` buffers may be held for `slot`, at the cost of the oldest others.
    fn make_room(&mut self, slot: usize, more: usize, given_up: &mut dyn FnMut(Drop, usize)) -> bool {
        let own = self.entries[slot].key;
        while self.buffers + more > self.buffers_max {
            let Some(oldest) = self.oldest(|k| Some(*k) != own) else { return false };
            self.give_up(oldest, Drop::ReassemblyLimit, given_up);
        }
        true
    }

    fn oldest(&self, which: impl Fn(&Key) -> bool) -> Option<usize> {
        let of = |entry: &Entry| entry.key.as_ref().is_some_and(&which);
        (0..self.entries.len()).filter(|&s| of(&self.entries[s])).min_by_key(|&s| self.entries[s].deadline)
    }

    fn give_up(&mut self, slot: usize, reason: Drop, given_up: &mut dyn FnMut(Drop, usize)) {
        let parts = self.entries[slot].parts.len();
        self.entries[slot].parts.clear();
        self.held -= parts;
        self.release(slot);
        if parts > 0 {
            given_up(reason, parts);
        }
    }

    fn release(&mut self, slot: usize) {
        let entry = &mut self.entries[slot];
        debug_assert!(entry.parts.is_empty());
        if let Some(key) = entry.key.take() {
            self.index.remove(&key);
        }
        self.buffers -= entry.buffers;
        entry.deadline = Instant::FAR_FUTURE;
        (entry.bytes, entry.buffers, entry.total) = (0, 0, None);
        self.free.push(slot as u16);
    }
}

impl Entry {
    /// Where in `parts` a new part belongs, or what is wrong with it.
    fn place(&self, part: Part, len: usize) -> Result<usize, Drop> {
        let end = part.offset + len;
        let place = self.parts.partition_point(|held| (held.offset as usize) < part.offset);
        if let Some(next) = self.parts.get(place) {
            let same = next.offset as usize == part.offset && next.len as usize == len;
            let same_end = part.more != (self.total == Some(end));
            if same && same_end {
                return Err(Drop::DuplicateFragment);
            }
            if (next.offset as usize) < end {
                return Err(Drop::FragmentOverlap);
            }
        }
        let before = place.checked_sub(1).map(|i| &self.parts[i]);
        if before.is_some_and(|held| (held.offset + held.len) as usize > part.offset) {
            return Err(Drop::FragmentOverlap);
        }
        let furthest = self.parts.last().map_or(0, |held| (held.offset + held.len) as usize);
        let contradicts = match self.total {
            Some(total) => end > total || !part.more,
            None => !part.more && furthest > end,
        };
        if contradicts {
            return Err(Drop::FragmentOverlap);
        }
        if self.parts.is_full() { Err(Drop::ReassemblyLimit) } else { Ok(place) }
    }
}
