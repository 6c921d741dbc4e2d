//! [`Tap`]: the core's end of a capture. It is there only while somebody captures: without it the loop pays one test a
//! burst, and the paths on which frames are lost one test a frame.
//!
//! A frame is copied when its burst is worked off, and put on the ring when its fate is known, so that it appears once. A ring
//! without room counts the frame as missed; the core never waits.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use arrayvec::ArrayVec;
use pmd::{BURST, Burst, Instant, Mbuf, Queue};

use super::CaptureConfig;
use super::record::{Kind, Record};
use crate::handler::Outcome;
use crate::ledger::Counter;
use crate::stack::{Datagram, Tally};
use crate::stats::Drop;

/// What the core tells besides frames. It is the only writer.
pub(crate) struct TapCounters {
    /// By port: frames for which the ring had no room.
    pub missed: Box<[Counter]>,
    /// Drops without a frame to show: what the stack gave up after it had taken the frame apart.
    pub frameless: Counter,
}

/// See the module.
pub(crate) struct Tap {
    config: CaptureConfig,
    ring: rtrb::Producer<u8>,
    counters: Arc<TapCounters>,
    /// The frame on its way in, as a record; empty between frames.
    current: Vec<u8>,
    /// A burst on its way out, as records, and where each ends.
    leaving: Vec<u8>,
    ends: ArrayVec<usize, BURST>,
}

impl Tap {
    /// Allocates everything, so that the core does not.
    pub fn new(config: CaptureConfig, ring: rtrb::Producer<u8>, counters: Arc<TapCounters>) -> Self {
        let record = Record::BYTES + config.snaplen;
        Tap {
            config,
            ring,
            counters,
            current: Vec::with_capacity(record),
            leaving: Vec::with_capacity(record * BURST),
            ends: ArrayVec::new(),
        }
    }

    fn wants_port(&self, port: usize) -> bool {
        self.config.port.is_none_or(|wanted| wanted == port)
    }

    /// Copies a frame that is about to be worked off.
    pub fn begin(&mut self, now: Instant, port: usize, frame: &Mbuf) {
        self.current.clear();
        if self.wants_port(port) && (self.config.received || self.config.drops) {
            append(&mut self.current, now, port, Kind::Received, frame, self.config.snaplen);
        }
    }

    /// The same for a datagram whose frame is no more at hand: another core's, or our own. Shown only if it is dropped.
    pub fn begin_datagram(&mut self, now: Instant, datagram: &Datagram) {
        self.current.clear();
        if self.config.drops {
            let Datagram { local, peer, payload } = datagram;
            self.rebuild(now, Kind::Received, (*peer, *local), Some(payload));
        }
    }

    /// What became of it.
    pub fn end(&mut self, outcome: Outcome) {
        let (kind, reason) = match outcome {
            Outcome::Delivered | Outcome::Consumed => (Kind::Received, 0),
            Outcome::Dropped(reason) => (Kind::Dropped, reason as u8),
            Outcome::Refused(which) => (Kind::Refused, which),
        };
        let wanted = if kind == Kind::Received { self.config.received } else { self.config.drops };
        if wanted && !self.current.is_empty() {
            self.current[Record::FATE..Record::FATE + 2].copy_from_slice(&[kind as u8, reason]);
            self.push_current();
        }
        self.current.clear();
    }

    /// The same for a datagram.
    pub fn end_datagram(&mut self, outcome: Outcome) {
        if matches!(outcome, Outcome::Delivered | Outcome::Consumed) {
            self.current.clear();
        }
        self.end(outcome);
    }

    /// A burst that a raw handler is about to get.
    pub fn received(&mut self, now: Instant, port: usize, burst: &Burst) {
        if self.config.received {
            self.show_all(now, port, burst, Kind::Received, 0);
        }
    }

    /// What a raw handler left.
    pub fn unclaimed(&mut self, now: Instant, port: usize, burst: &Burst) {
        if self.config.drops {
            self.show_all(now, port, burst, Kind::Dropped, Drop::RawUnclaimed as u8);
        }
    }

    fn show_all(&mut self, now: Instant, port: usize, burst: &Burst, kind: Kind, reason: u8) {
        if !self.wants_port(port) {
            return;
        }
        for frame in burst.iter() {
            self.current.clear();
            append(&mut self.current, now, port, kind, frame, self.config.snaplen);
            self.current[Record::FATE + 1] = reason;
            self.push_current();
        }
        self.current.clear();
    }

    /// Sends a burst, and shows as many frames as the device took.
    pub fn tx_burst(&mut self, queue: &mut dyn Queue, port: usize, now: Instant, burst: &mut Burst) -> usize {
        self.leaving.clear();
        self.ends.clear();
        if self.config.sent && self.wants_port(port) {
            for frame in burst.iter() {
                append(&mut self.leaving, now, port, Kind::Sent, frame, self.config.snaplen);
                self.ends.push(self.leaving.len());
            }
        }
        let sent = queue.tx_burst(now, burst);
        let mut from = 0;
        for &end in self.ends.iter().take(sent) {
            push(&mut self.ring, &self.counters, &self.leaving[from..end]);
            from = end;
        }
        sent
    }

    /// A datagram that the stack would not send. Its payload is gone; whose it was is what there is to see.
    #[cold]
    pub fn not_sent(&mut self, now: Instant, from: SocketAddr, to: SocketAddr, reason: Drop) {
        if self.config.drops {
            self.current.clear();
            self.rebuild(now, Kind::NotSent, (from, to), None);
            self.current[Record::FATE + 1] = reason as u8;
            self.push_current();
            self.current.clear();
        }
    }

    /// A frame that the device's ring had no room for.
    #[cold]
    pub fn frame_not_sent(&mut self, now: Instant, port: usize, frame: &Mbuf, reason: Drop) {
        if self.config.drops && self.wants_port(port) {
            self.current.clear();
            append(&mut self.current, now, port, Kind::NotSent, frame, self.config.snaplen);
            self.current[Record::FATE + 1] = reason as u8;
            self.push_current();
            self.current.clear();
        }
    }

    /// Drops of frames that were taken apart long ago.
    pub fn settled(&mut self, tally: &Tally) {
        self.counters.frameless.add(tally.rx.total() + tally.tx.total());
    }

    fn push_current(&mut self) {
        push(&mut self.ring, &self.counters, &self.current);
    }

    /// A frame as it may have been: no MAC addresses and no checksums. Port 0 stands for whichever it was.
    fn rebuild(
        &mut self,
        now: Instant,
        kind: Kind,
        (from, to): (SocketAddr, SocketAddr),
        payload: Option<&Mbuf>,
    ) {
        let len = payload.map_or(0, Mbuf::len);
        let headers = headers(from, to, len);
        let room = self.config.snaplen.saturating_sub(headers.len());
        let record = Record {
            when: now,
            len: (headers.len() + len) as u32,
            captured: (headers.len() + len.min(room)) as u32,
            port: self.config.port.unwrap_or(0) as u8,
            kind,
            reason: 0,
            rebuilt: true,
        };
        self.current.extend_from_slice(&record.encode());
        self.current.extend_from_slice(&headers);
        if let Some(payload) = payload {
            copy(&mut self.current, payload, len.min(room));
        }
    }
}

/// Appends a record of `frame`.
fn append(to: &mut Vec<u8>, now: Instant, port: usize, kind: Kind, frame: &Mbuf, snaplen: usize) {
    let captured = frame.len().min(snaplen);
    let record = Record {
        when: now,
        len: frame.len() as u32,
        captured: captured as u32,
        port: port as u8,
        kind,
        reason: 0,
        rebuilt: false,
    };
    to.extend_from_slice(&record.encode());
    copy(to, frame, captured);
}

fn copy(to: &mut Vec<u8>, from: &Mbuf, len: usize) {
    let at = to.len();
    to.resize(at + len, 0);
    from.copy_to(0, &mut to[at..]);
}

fn push(ring: &mut rtrb::Producer<u8>, counters: &TapCounters, record: &[u8]) {
    if ring.push_entire_slice(record).is_err() {
        let port = usize::from(record[Record::FATE - 1]);
        if let Some(missed) = counters.missed.get(port) {
            missed.add(1);
        }
    }
}

/// Ethernet, IP and UDP around a payload of `len` bytes.
fn headers(from: SocketAddr, to: SocketAddr, len: usize) -> ArrayVec<u8, 62> {
    const UDP: u8 = 17;
    const TTL: u8 = 64;
    let udp_len = (8 + len).min(usize::from(u16::MAX)) as u16;
    let mut bytes = ArrayVec::new();
    let mut put = |part: &[u8]| part.iter().for_each(|byte| bytes.push(*byte));
    put(&[0; 12]);
    match (from.ip(), to.ip()) {
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            put(&[0x86, 0xdd, 0x60, 0, 0, 0]);
            put(&udp_len.to_be_bytes());
            put(&[UDP, TTL]);
            put(&from.octets());
            put(&to.octets());
        }
        (from, to) => {
            let v4 = |ip| match ip {
                IpAddr::V4(ip) => ip.octets(),
                IpAddr::V6(_) => [0; 4],
            };
            put(&[0x08, 0, 0x45, 0]);
            put(&udp_len.saturating_add(20).to_be_bytes());
            put(&[0, 0, 0, 0, TTL, UDP, 0, 0]);
            put(&v4(from));
            put(&v4(to));
        }
    }
    put(&from.port().to_be_bytes());
    put(&to.port().to_be_bytes());
    put(&udp_len.to_be_bytes());
    put(&[0, 0]);
    bytes
}
