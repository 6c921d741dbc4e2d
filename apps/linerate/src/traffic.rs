//! Marked traffic: [`Sender`] makes the frames that are due, [`Receiver`] tells what became of them.
//!
//! Neither knows ports, threads or a clock: whoever has a queue calls them once a burst with the time, a core of the engine or a test in
//! virtual time.
//!
//! ```
//! use linerate::counters::{MarkCounters, QueueCounters, histogram};
//! use linerate::figures::MarkedFigures;
//! use linerate::template::{Frames, Template};
//! use linerate::traffic::{Receiver, Sender};
//! use pmd::{Burst, Instant, OpenOptions, PoolConfig};
//! use std::{sync::Arc, time::Duration};
//!
//! let mut pool = PoolConfig::new("example", 512).build()?.claim();
//! // A wire that loses a fifth of what is sent on it.
//! let mut a = pmd::open("sim:tx.loss=0.2@memory:doc", &OpenOptions::default())?.open_queues(&[pool.handle()])?.remove(0);
//! let mut b = pmd::open("memory:doc", &OpenOptions::default())?.open_queues(&[pool.handle()])?.remove(0);
//!
//! let template = Template { sizes: "imix".parse()?, ..Template::default() };
//! let (start, first) = (Instant::from_nanos(1_000_000), 1000);
//! let (sent, came) = (Arc::new(QueueCounters::default()), Arc::new(MarkCounters::default()));
//! let mut sender = Sender::new(Frames::new(&template, 1, 0)?, "100kpps".parse()?, 0, first, sent.clone(), start);
//! let mut receiver = Receiver::new(template.mark_offset(), &[first], came.clone());
//! let mut burst = Burst::new();
//! for turn in 0..1000 {
//!     let now = start + Duration::from_micros(50) * turn;
//!     sender.fill(now, &mut pool, &mut burst);
//!     let (frames, bytes) = (burst.len(), burst.iter().map(|frame| frame.len()).sum());
//!     a.tx_burst(now, &mut burst);
//!     assert!(burst.is_empty(), "a wire takes all");
//!     sent.sent(frames, bytes);
//!     sender.settle(&mut burst);
//!     b.rx_burst(now, &mut pool, &mut burst);
//!     receiver.take(now, &mut burst);
//! }
//! let mut marked = MarkedFigures { sent: sent.read(0).tx_frames, ..Default::default() };
//! came.read(&mut marked, &mut histogram());
//! assert_eq!(marked.sent, marked.received + a.stats().drops.get("sim_tx_lost"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::sync::Arc;
use std::time::Duration;

use pmd::{Burst, Instant, Mbuf, Pool};

use crate::counters::{MarkCounters, QueueCounters};
use crate::mark::{Judgement, Mark, judge};
use crate::rate::{Bucket, CATCH_UP, Rate};
use crate::template::{FCS, Frames};
use crate::track::{Arrival, Tracker};

/// Makes one stream of marked frames, for one queue.
#[derive(Debug)]
pub struct Sender {
    frames: Frames,
    bucket: Bucket,
    stream: u8,
    /// The number of the next frame.
    next: u64,
    /// Frames that may still be sent.
    left: u64,
    /// Nothing is sent before.
    start: Instant,
    /// What is due then or later is not sent.
    end: Instant,
    ended: bool,
    /// The device took less than it was offered, last time.
    refused: bool,
    counters: Arc<QueueCounters>,
}

impl Sender {
    /// Sends `frames` at `rate` from `start` on, without end. `stream` is what the receiver knows it by, `first` the first frame's number; best
    /// a random one below 2^39, so that frames of one run are not taken for another's.
    ///
    /// # Panics
    /// On a rate in per cent: [`Rate::share`] makes it bits a second.
    pub fn new(
        frames: Frames,
        rate: Rate,
        stream: u8,
        first: u64,
        counters: Arc<QueueCounters>,
        start: Instant,
    ) -> Sender {
        let bucket = Bucket::new(rate, CATCH_UP, start);
        let (left, end, ended) = (u64::MAX, Instant::FAR_FUTURE, false);
        Sender { frames, bucket, stream, next: first, left, start, end, ended, refused: false, counters }
    }

    /// Ends after so many more frames.
    pub fn limit(mut self, frames: u64) -> Sender {
        self.left = frames;
        self
    }

    /// Makes up for an absence of so long and no longer, instead of [`CATCH_UP`]; from `now` on.
    pub fn catch_up(mut self, rate: Rate, time: Duration, now: Instant) -> Sender {
        self.bucket = Bucket::new(rate, time, now);
        self
    }

    /// Ends with the last frame that is due before `end`, even if that is sent a little later.
    pub fn until(mut self, end: Instant) -> Sender {
        self.end = end;
        self
    }

    /// Whether all of its frames are sent.
    pub fn is_over(&self) -> bool {
        self.left == 0 || self.ended
    }

    /// The number that its next frame will have.
    pub fn next_number(&self) -> u64 {
        self.next
    }

    /// When its next frame is due.
    pub fn next_due(&self) -> Option<Instant> {
        (!self.is_over()).then(|| self.bucket.next_due(self.frames.next_size()).max(self.start).min(self.end))
    }

    /// Adds the frames that are due to `burst`, as far as it has room; all with the time stamp `now`.
    #[inline]
    pub fn fill(&mut self, now: Instant, pool: &mut Pool, burst: &mut Burst) {
        if now < self.start {
            return;
        }
        // What is due at the very end is not due before it.
        let before_end = Instant::from_nanos(self.end.as_nanos().saturating_sub(1));
        self.bucket.refill(now.min(before_end));
        let last_time = now >= self.end;
        while self.left > 0 && !burst.is_full() {
            let size = self.frames.next_size();
            // At the end, what was due before is sent; at full rate everything always is, so nothing more.
            if last_time && self.bucket.is_unlimited() || !self.bucket.take(size) {
                self.ended = last_time;
                break;
            }
            let mark = Mark::new(self.stream, self.next, now);
            let Some(frame) = self.frames.build(&mark, pool) else {
                self.bucket.give_back(size);
                break;
            };
            burst.push(frame);
            self.next = self.next.wrapping_add(1);
            self.left -= 1;
        }
    }

    /// Of the frames of `fill` these were not taken by the device: they are dropped here. They are still due, and their numbers are given to
    /// others; only when they cannot be made up for any more are they counted as unsent.
    #[inline]
    pub fn settle(&mut self, burst: &mut Burst) {
        self.ended &= burst.is_empty();
        for frame in burst.drain(..) {
            self.bucket.give_back(frame.len() + FCS);
            self.next = self.next.wrapping_sub(1);
            self.left = self.left.saturating_add(1);
            self.refused = true;
        }
        let forfeited = self.bucket.forfeited(self.frames.next_size());
        if forfeited > 0 {
            self.counters.forfeited(forfeited, std::mem::take(&mut self.refused));
        }
    }
}

/// Takes marked frames, of one queue.
#[derive(Debug)]
pub struct Receiver {
    mark_offset: usize,
    /// By stream.
    trackers: Box<[Tracker]>,
    counters: Arc<MarkCounters>,
    /// The number of a frame to be told of, and how long it took.
    tag: Option<u64>,
    tagged: Option<Duration>,
}

impl Receiver {
    /// Expects marks at `mark_offset` ([`Template::mark_offset`](crate::template::Template::mark_offset)), of as many streams as there are first
    /// numbers in `first`. Frames of one stream may reach several receivers, as long as those of one flow reach the same.
    pub fn new(mark_offset: usize, first: &[u64], counters: Arc<MarkCounters>) -> Receiver {
        let trackers = first.iter().map(|&first| Tracker::starting_at(first)).collect();
        Receiver { mark_offset, trackers, counters, tag: None, tagged: None }
    }

    /// Keeps how long the frame with this number takes: the one that RFC 2544 (26.2) calls tagged.
    pub fn tag(mut self, number: u64) -> Receiver {
        self.tag = Some(number);
        self
    }

    /// How long it took, if it arrived.
    pub fn tagged(&self) -> Option<Duration> {
        self.tagged
    }

    /// Judges and drops all frames of a burst that arrived at `now`.
    #[inline]
    pub fn take(&mut self, now: Instant, burst: &mut Burst) {
        for frame in burst.drain(..) {
            self.judge(now, &frame);
        }
    }

    fn judge(&mut self, now: Instant, frame: &Mbuf) {
        match judge(frame, self.mark_offset) {
            Judgement::Whole(mark) => match self.note(&mark) {
                Arrival::InOrder => self.received(now, &mark),
                Arrival::Reordered => {
                    self.received(now, &mark);
                    self.counters.reordered.add(1);
                }
                Arrival::Duplicate => self.counters.duplicates.add(1),
                Arrival::Late => self.counters.late.add(1),
                Arrival::Stale => self.counters.foreign.add(1),
            },
            // Its number came, so that a second copy of it is a duplicate.
            Judgement::Damaged(Some(mark)) => match self.note(&mark) {
                Arrival::Duplicate => self.counters.duplicates.add(1),
                _ => self.counters.corrupted.add(1),
            },
            Judgement::Damaged(None) => self.counters.corrupted.add(1),
            Judgement::Foreign => self.counters.foreign.add(1),
        }
    }

    #[inline]
    fn note(&mut self, mark: &Mark) -> Arrival {
        match self.trackers.get_mut(usize::from(mark.stream)) {
            Some(tracker) => tracker.note(mark.sequence),
            None => Arrival::Stale,
        }
    }

    #[inline]
    fn received(&mut self, now: Instant, mark: &Mark) {
        let age = mark.age(now);
        self.counters.received.add(1);
        self.counters.latency.note(age);
        if self.tag == Some(mark.sequence) {
            self.tagged = Some(age);
        }
    }
}
