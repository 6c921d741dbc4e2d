//! `sim:OPTIONS@INNER`: a seeded wire around another port.
//!
//! Options, each for both directions, or for one as `rx.loss=` or `tx.loss=`:
//! `loss= dup= reorder= corrupt=` probabilities a frame; `delay= jitter=` times (jitter adds up to that much and keeps the order);
//! `hold=` how much longer a reordered frame waits (1ms); `rate=` bits a second; `limit=` frames on the wire (1024).
//! `seed=` is for the whole port.
//!
//! Everything follows from the seed, the frames in their order, and `now`: nothing here reads a clock. Frames on the wire sit in a
//! bounded heap by due time; what does not fit is dropped by name. Copies for `dup` come from the pool
//! given to `rx_burst`, a few ahead. Partial checksums are completed before a frame is corrupted, so that the damage shows.

use std::collections::BinaryHeap;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use super::{DROP_OVERSIZE, DROP_RUNT, FRAME_MIN, FRAME_OVERHEAD, admit};
use crate::checksum;
use crate::counters::{Counters, QueueStats};
use crate::mbuf::{BURST, Burst, Checksum, Mbuf};
use crate::pool::{Pool, PoolHandle};
use crate::port::{LinkState, OpenOptions, Port, PortError, PortInfo, PortStats, Queue, QueuesOnce};
use crate::region::Region;
use crate::rss::Rss;
use crate::time::Instant;
use crate::url::Url;

const RX_LOST: usize = 2;
const TX_LOST: usize = 3;
const RX_QUEUE_FULL: usize = 4;
const TX_QUEUE_FULL: usize = 5;
const DROPS: &[&str] =
    &[DROP_RUNT.1, DROP_OVERSIZE.1, "sim_rx_lost", "sim_tx_lost", "sim_rx_queue_full", "sim_tx_queue_full"];

pub(crate) fn open(url: Url<'_>, options: &OpenOptions) -> Result<Box<dyn Port>, PortError> {
    let Some((own, inner)) = url.rest().split_once('@') else {
        let mend = "write sim:OPTIONS@URL, as in sim:seed=7,loss=0.02@memory:a".to_owned();
        return Err(url.bad("the port to wrap is missing".to_owned(), mend));
    };
    let options_url = url.narrowed(own);
    let seed = options_url.number("seed", 0..=u64::MAX)?.unwrap_or(1);
    let both = Wire::parse(&options_url, "", Wire::default())?;
    let wires = [Wire::parse(&options_url, "rx.", both)?, Wire::parse(&options_url, "tx.", both)?];
    options_url.finish()?;
    let inner = crate::port::open(inner, options)?;
    let once = QueuesOnce::new(&url, inner.info().queues_max);
    Ok(Box::new(SimPort { url: url.text().to_owned(), seed, wires, inner, once, counters: Vec::new() }))
}

/// What one direction does to its frames.
#[derive(Clone, Copy, Debug)]
struct Wire {
    loss: f64,
    dup: f64,
    reorder: f64,
    corrupt: f64,
    delay: Duration,
    jitter: Duration,
    hold: Duration,
    bits_per_second: Option<f64>,
    limit: usize,
}

impl Default for Wire {
    fn default() -> Self {
        let (delay, jitter, hold) = (Duration::ZERO, Duration::ZERO, Duration::from_millis(1));
        let (loss, dup, reorder, corrupt) = (0.0, 0.0, 0.0, 0.0);
        Wire { loss, dup, reorder, corrupt, delay, jitter, hold, bits_per_second: None, limit: 1024 }
    }
}

impl Wire {
    fn parse(url: &Url<'_>, prefix: &str, base: Wire) -> Result<Wire, PortError> {
        let key = |name: &str| format!("{prefix}{name}");
        Ok(Wire {
            loss: url.probability(&key("loss"))?.unwrap_or(base.loss),
            dup: url.probability(&key("dup"))?.unwrap_or(base.dup),
            reorder: url.probability(&key("reorder"))?.unwrap_or(base.reorder),
            corrupt: url.probability(&key("corrupt"))?.unwrap_or(base.corrupt),
            delay: url.duration(&key("delay"))?.unwrap_or(base.delay),
            jitter: url.duration(&key("jitter"))?.unwrap_or(base.jitter),
            hold: url.duration(&key("hold"))?.unwrap_or(base.hold),
            bits_per_second: url.rate(&key("rate"))?.or(base.bits_per_second),
            limit: url.number(&key("limit"), 1..=1 << 20)?.map_or(base.limit, |n| n as usize),
        })
    }
}

struct SimPort {
    url: String,
    seed: u64,
    wires: [Wire; 2],
    inner: Box<dyn Port>,
    once: QueuesOnce,
    counters: Vec<Arc<Counters>>,
}

impl Port for SimPort {
    fn info(&self) -> PortInfo {
        PortInfo { url: self.url.clone(), driver: "sim", ..self.inner.info() }
    }

    fn open_queues(&mut self, pools: &[PoolHandle]) -> Result<Vec<Box<dyn Queue>>, PortError> {
        self.once.check(pools.len())?;
        let inner = self.inner.open_queues(pools)?;
        self.once.done();
        let frame_max = self.inner.info().mtu + FRAME_OVERHEAD;
        let queue = |(index, inner)| {
            let counters = Counters::new(DROPS);
            self.counters.push(counters.clone());
            let seed = self.seed.wrapping_add((index as u64) << 32);
            Box::new(SimQueue {
                inner,
                rx: Direction::new(self.wires[0], seed, RX_LOST, RX_QUEUE_FULL),
                tx: Direction::new(self.wires[1], !seed, TX_LOST, TX_QUEUE_FULL),
                due: Burst::new(),
                spares: Burst::new(),
                frame_max,
                counters,
            }) as Box<dyn Queue>
        };
        Ok(inner.into_iter().enumerate().map(queue).collect())
    }

    fn rss(&self) -> Option<Rss> {
        self.inner.rss()
    }

    fn memory(&mut self) -> Vec<Region> {
        self.inner.memory()
    }

    fn link(&self) -> LinkState {
        self.inner.link()
    }

    /// Frames as the core saw them, and the drops of both this wire and the port inside.
    fn stats(&self) -> PortStats {
        let mut stats = super::sum(&self.counters);
        let inner = self.inner.stats();
        stats.rx_no_buffer += inner.rx_no_buffer;
        stats.drops.merge(&inner.drops);
        stats
    }
}

struct SimQueue {
    inner: Box<dyn Queue>,
    rx: Direction,
    tx: Direction,
    /// Frames that are due, but found no room in the inner port.
    due: Burst,
    /// Buffers for copies.
    spares: Burst,
    frame_max: usize,
    counters: Arc<Counters>,
}

impl SimQueue {
    /// Passes what is due on to the inner port, as far as it has room.
    fn push_due(&mut self, now: Instant) {
        loop {
            self.tx.pop_due(now, &mut self.due);
            if self.due.is_empty() || self.inner.tx_burst(now, &mut self.due) == 0 {
                return;
            }
        }
    }
}

impl Queue for SimQueue {
    fn rx_burst(&mut self, now: Instant, pool: &mut Pool, burst: &mut Burst) -> usize {
        if self.rx.wire.dup + self.tx.wire.dup > 0.0 {
            let missing = BURST - self.spares.len();
            pool.alloc_burst(&mut self.spares, missing);
        }
        self.push_due(now);
        let mut arrived = Burst::new();
        self.inner.rx_burst(now, pool, &mut arrived);
        for frame in arrived {
            self.rx.carry(now, frame, &mut self.spares, &self.counters);
        }
        let before = burst.len();
        self.rx.pop_due(now, burst);
        let new = &burst[before..];
        self.counters.rx(new.len(), new.iter().map(Mbuf::len).sum());
        new.len()
    }

    /// Takes all: a wire has no ring. `tx_frames` counts what was put on it, whatever became of it there.
    fn tx_burst(&mut self, now: Instant, burst: &mut Burst) -> usize {
        let given = burst.len();
        let bytes = admit(burst, self.frame_max, &self.counters);
        self.counters.tx(burst.len(), bytes);
        for frame in burst.drain(..) {
            self.tx.carry(now, frame, &mut self.spares, &self.counters);
        }
        self.push_due(now);
        given
    }

    fn next_event(&self) -> Option<Instant> {
        if !self.due.is_empty() {
            // The port inside was full: try again at once.
            return Some(Instant::ZERO);
        }
        let mine = self.rx.next_due().into_iter().chain(self.tx.next_due());
        mine.chain(self.inner.next_event()).min()
    }

    fn arm(&mut self) -> bool {
        self.inner.arm()
    }

    fn disarm(&mut self) {
        self.inner.disarm();
    }

    fn wait_fd(&self) -> Option<BorrowedFd<'_>> {
        self.inner.wait_fd()
    }

    fn stats(&self) -> QueueStats {
        let mut stats = self.counters.snapshot();
        let inner = self.inner.stats();
        stats.rx_no_buffer += inner.rx_no_buffer;
        stats.drops.merge(&inner.drops);
        stats
    }
}

/// One direction of one queue: its randomness, and the frames on it.
struct Direction {
    wire: Wire,
    rng: fastrand::Rng,
    held: BinaryHeap<Held>,
    /// Order of arrival, which decides between frames due at the same time.
    arrivals: u64,
    /// When the last bit of the last frame leaves.
    free_at: Instant,
    /// Due time of the last frame that keeps its place.
    last_due: Instant,
    lost: usize,
    full: usize,
}

impl Direction {
    fn new(wire: Wire, seed: u64, lost: usize, full: usize) -> Direction {
        Direction {
            wire,
            rng: fastrand::Rng::with_seed(seed),
            held: BinaryHeap::with_capacity(wire.limit),
            arrivals: 0,
            free_at: Instant::ZERO,
            last_due: Instant::ZERO,
            lost,
            full,
        }
    }

    /// Puts a frame on the wire. Each frame draws the same numbers, so that one option does not shift the others.
    fn carry(&mut self, now: Instant, mut frame: Mbuf, spares: &mut Burst, counters: &Counters) {
        let mut draw = || self.rng.f64();
        let [loss, dup, reorder, corrupt, jitter, bit] = std::array::from_fn(|_| draw());
        if loss < self.wire.loss {
            counters.dropped(self.lost, 1);
            return;
        }
        if self.held.len() >= self.wire.limit {
            counters.dropped(self.full, 1);
            return;
        }
        if corrupt < self.wire.corrupt {
            flip_a_bit(&mut frame, bit);
        }
        let copy = if dup < self.wire.dup { copy(&frame, spares) } else { None };
        let due = self.due(now, frame.len(), jitter);
        if reorder < self.wire.reorder {
            self.hold(due + self.wire.hold, frame);
        } else {
            self.last_due = due;
            self.hold(due, frame);
        }
        if let Some(copy) = copy.filter(|_| self.held.len() < self.wire.limit) {
            self.hold(due, copy);
        }
    }

    /// When the frame arrives: serialised at the rate, then delayed, not before the one ahead of it.
    fn due(&mut self, now: Instant, len: usize, jitter: f64) -> Instant {
        let mut sent = now;
        if let Some(rate) = self.wire.bits_per_second {
            self.free_at = self.free_at.max(now) + Duration::from_secs_f64(len as f64 * 8.0 / rate);
            sent = self.free_at;
        }
        (sent + self.wire.delay + self.wire.jitter.mul_f64(jitter)).max(self.last_due)
    }

    fn hold(&mut self, due: Instant, frame: Mbuf) {
        self.held.push(Held { due, arrival: self.arrivals, frame });
        self.arrivals += 1;
    }

    fn pop_due(&mut self, now: Instant, out: &mut Burst) {
        while !out.is_full() && self.next_due().is_some_and(|due| due <= now) {
            out.extend(self.held.pop().map(|held| held.frame));
        }
    }

    fn next_due(&self) -> Option<Instant> {
        self.held.peek().map(|held| held.due)
    }
}

/// Flips one bit behind the Ethernet header, which keeps the frame on its way to somebody who notices.
fn flip_a_bit(frame: &mut Mbuf, place: f64) {
    checksum::complete(frame);
    frame.meta_mut().checksum = Checksum::Unknown;
    let bits = frame.len().saturating_sub(FRAME_MIN) * 8;
    let bit = FRAME_MIN * 8 + (place * bits as f64) as usize;
    let mut at = bit / 8;
    for segment in frame.segments_mut() {
        if let Some(byte) = segment.get_mut(at) {
            *byte ^= 1 << (bit % 8);
            return;
        }
        at -= segment.len();
    }
}

/// A copy in spare buffers; `None` when there are too few, and then the frame is not duplicated.
fn copy(frame: &Mbuf, spares: &mut Burst) -> Option<Mbuf> {
    let (mut copy, mut done): (Option<Mbuf>, usize) = (None, 0);
    while copy.is_none() || done < frame.len() {
        let mut segment = spares.pop()?;
        let n = segment.tailroom().min(frame.len() - done);
        done += frame.copy_to(done, segment.append(n)?);
        match &mut copy {
            Some(copy) => copy.chain(segment),
            None => copy = Some(segment),
        }
    }
    *copy.as_mut()?.meta_mut() = *frame.meta();
    copy
}

/// A frame on the wire; the heap's greatest is the one due first.
struct Held {
    due: Instant,
    arrival: u64,
    frame: Mbuf,
}

impl Ord for Held {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.due, other.arrival).cmp(&(self.due, self.arrival))
    }
}

impl PartialOrd for Held {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Held {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Held {}
