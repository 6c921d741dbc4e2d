//! The tester on real ports: one thread, one queue that sends and one that receives, or one that does both.
//!
//! The queues take `now`, so the same loop runs by the machine's clock and, over ports that run in this process, in virtual time ([`Time`]).
//! A trial offers its rate by a token bucket that makes up for 200 us of absence and no more: what it is late with after that is not sent, because
//! frames in a bunch are another load than frames at that rate. What still comes from an earlier trial counts as foreign.
//!
//! Deliberately absent: several queues and ports. What one core cannot offer is said by name ([`Verdict::NotOffered`](super::Verdict)).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use pmd::{
    Burst, Clock, Drops, Instant, LinkState, MacAddr, OpenOptions, Pool, PoolConfig, PoolError, Port,
    PortError, PortInfo, Queue,
};

use super::watch::Watch;
use super::{Options, Tester, Trial, TrialFigures};
use crate::counters::{MarkCounters, QueueCounters, histogram};
use crate::figures::{MarkedFigures, PortFigures};
use crate::rate::Rate;
use crate::run::{LINK_UP, wait};
use crate::template::{FCS, Frames, Sizes, Template, TemplateError};
use crate::traffic::{Receiver, Sender};

/// How long an absence is made up for.
const CATCH_UP: Duration = Duration::from_micros(200);
/// In virtual time, how long a full device is left alone.
const RETRY: Duration = Duration::from_micros(1);
/// Buffers of a port's pool: the deepest rings, and what is on its way.
const BUFFERS: usize = 16_384;

/// Why a trial was not run to its end.
#[derive(Debug, thiserror::Error)]
pub enum TestError {
    /// A port cannot be opened.
    #[error(transparent)]
    Port(#[from] PortError),
    /// There is no memory for buffers.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// Such frames cannot be made.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The port does not take frames of that size.
    #[error(
        "{url:?} takes frames of {most} bytes at most (FCS included), not {frame}; raise its MTU to {mtu}, or leave that size out"
    )]
    TooLarge {
        /// The port.
        url: String,
        /// The size.
        frame: usize,
        /// What it takes.
        most: usize,
        /// What would do.
        mtu: usize,
    },
    /// The link went down.
    #[error("the link of {url:?} is down; is its other end connected and up?")]
    LinkDown {
        /// The port.
        url: String,
    },
    /// Somebody asked to stop.
    #[error("stopped before its end")]
    Stopped,
}

/// Where the time comes from.
pub trait Time {
    /// The time.
    fn now(&mut self) -> Instant;
    /// There is nothing to do before `next`. `resting`: and nothing depends on waking in time.
    fn pass(&mut self, next: Instant, resting: bool);
}

/// The machine's clock: polls, and sleeps only while it rests.
#[derive(Debug, Default)]
pub struct MachineTime;

impl Time for MachineTime {
    fn now(&mut self) -> Instant {
        Clock::now()
    }

    fn pass(&mut self, _: Instant, resting: bool) {
        if resting {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Virtual time, which goes on to the next event at once.
#[derive(Debug, Default)]
pub struct VirtualTime(Instant);

impl Time for VirtualTime {
    fn now(&mut self) -> Instant {
        self.0
    }

    fn pass(&mut self, next: Instant, _: bool) {
        self.0 = next.max(self.0 + Duration::from_nanos(1));
    }
}

/// A port with its one queue.
pub struct TestPort {
    port: Box<dyn Port>,
    queue: Box<dyn Queue>,
    pool: Pool,
}

impl TestPort {
    /// Opens it, for the thread that calls.
    pub fn open(url: &str) -> Result<TestPort, TestError> {
        let mut port = pmd::open(url, &OpenOptions { queues: 1, ..OpenOptions::default() })?;
        let config = PoolConfig::new(format!("rfc2544 {url}"), BUFFERS);
        let seed = match port.memory().into_iter().next() {
            Some(region) => config.build_on(region)?,
            None => config.build()?,
        };
        let pool = seed.claim();
        let queue = port.open_queues(&[pool.handle()])?.remove(0);
        Ok(TestPort { port, queue, pool })
    }

    /// Waits for its link: some NICs negotiate for seconds. Trials say it if it stays down.
    pub fn await_link(&self) {
        wait(LINK_UP, || self.port.link() == LinkState::Up);
    }

    /// What it is, as figures without any queue's.
    pub fn figures(&self) -> PortFigures {
        let PortInfo { url, driver, speed_mbps, notes, .. } = self.port.info();
        let bits_per_second = speed_mbps.map(|speed| u64::from(speed) * 1_000_000);
        PortFigures { url, driver, bits_per_second, notes, queues: Vec::new(), drops: Drops::default() }
    }

    /// The address that frames to it carry.
    pub fn mac(&self) -> MacAddr {
        self.port.info().mac
    }

    fn check(&self, frame: usize) -> Result<(), TestError> {
        let info = self.port.info();
        // What an Ethernet header, a tag and the FCS take.
        let most = info.mtu + 14 + 4 + 4;
        if frame > most {
            return Err(TestError::TooLarge { url: info.url, frame, most, mtu: frame - 18 });
        }
        match self.port.link() {
            LinkState::Up => Ok(()),
            LinkState::Down => Err(TestError::LinkDown { url: info.url }),
        }
    }
}

/// The tester.
pub struct PortTester<T> {
    time: T,
    /// The one that sends, and the one that receives unless that is the same.
    ports: Vec<TestPort>,
    template: Template,
    settle: Duration,
    drain: Duration,
    watch: Arc<Watch>,
    /// Number of the next frame.
    next: u64,
}

/// A trial that is being run.
struct Run {
    sender: Sender,
    receiver: Receiver,
    /// By port.
    queues: Vec<Arc<QueueCounters>>,
    marks: Arc<MarkCounters>,
    /// Bytes of a frame in its buffer.
    len: usize,
    last_sent: Instant,
}

impl<T: Time> PortTester<T> {
    /// Sends on `tx` what the template says, sizes apart, and receives on `rx`, or on `tx` if that is the only port.
    pub fn new(
        time: T,
        tx: TestPort,
        rx: Option<TestPort>,
        template: Template,
        options: &Options,
        watch: Arc<Watch>,
    ) -> Self {
        let ports = std::iter::once(tx).chain(rx).collect();
        PortTester { time, ports, template, settle: options.settle, drain: options.drain, watch, next: 0 }
    }

    /// A trial that begins now.
    fn begin(&mut self, trial: &Trial) -> Result<Run, TestError> {
        let sizes = Sizes::List(vec![trial.frame]);
        let frames = Frames::new(&Template { sizes, ..self.template.clone() }, 1, 0)?;
        let now = self.time.now();
        let queues: Vec<Arc<QueueCounters>> = self.ports.iter().map(|_| Arc::default()).collect();
        let marks = Arc::<MarkCounters>::default();
        let receiver = Receiver::new(frames.mark_offset(), &[self.next], marks.clone());
        let receiver = receiver.tag(self.next + trial.frames / 2);
        let rate = Rate::Frames(trial.rate);
        let sender = Sender::new(frames, rate, 0, self.next, queues[0].clone(), now);
        let sender = sender.limit(trial.frames).catch_up(rate, CATCH_UP, now);
        self.watch.begin(now, &queues, &marks);
        Ok(Run { sender, receiver, queues, marks, len: trial.frame - FCS, last_sent: now })
    }

    /// What all ports dropped so far.
    fn drops(&self) -> Drops {
        let mut drops = Drops::default();
        for port in &self.ports {
            let stats = port.queue.stats();
            drops.merge(&stats.drops);
            drops.add("rx_no_buffer", stats.rx_no_buffer);
        }
        drops
    }

    /// When one of the ports may have something.
    fn next_event(&self) -> Instant {
        let events = self.ports.iter().filter_map(|port| port.queue.next_event());
        events.min().unwrap_or(Instant::FAR_FUTURE)
    }

    /// Receives what there is; true if there was anything.
    fn receive(&mut self, now: Instant, run: &mut Run) -> bool {
        let mut any = false;
        for (port, counters) in self.ports.iter_mut().zip(&run.queues) {
            let mut burst = Burst::new();
            let frames = port.queue.rx_burst(now, &mut port.pool, &mut burst);
            if frames == 0 {
                counters.received_nothing();
                continue;
            }
            counters.received(frames, burst.iter().map(|frame| frame.len()).sum());
            run.receiver.take(now, &mut burst);
            any = true;
        }
        any
    }

    /// Sends what is due.
    fn send(&mut self, now: Instant, run: &mut Run) {
        let TestPort { queue, pool, .. } = &mut self.ports[0];
        let mut burst = Burst::new();
        run.sender.fill(now, pool, &mut burst);
        if !burst.is_empty() {
            let taken = queue.tx_burst(now, &mut burst);
            run.queues[0].sent(taken, taken * run.len);
            if taken > 0 {
                run.last_sent = now;
            }
        }
        run.sender.settle(&mut burst);
    }

    /// Sends until all is sent, or the trial's time is over.
    fn offer(&mut self, trial: &Trial, began: Instant, run: &mut Run) -> Result<(), TestError> {
        let end = began + trial.duration() + CATCH_UP;
        while !run.sender.is_over() {
            let now = self.time.now();
            if now > end {
                break;
            }
            self.check_stop()?;
            self.send(now, run);
            // Sending took time, which belongs to the latency of what comes back.
            let now = self.time.now();
            self.receive(now, run);
            // A device that is full, or a pool that is empty, may have room any time.
            let due = run.sender.next_due().unwrap_or(end);
            let due = if due <= now { now + RETRY } else { due };
            self.time.pass(due.min(self.next_event()).min(end), false);
        }
        Ok(())
    }

    /// Keeps receiving for so long, or until nothing more can come if `sent` frames are waited for.
    fn listen(&mut self, time: Duration, sent: Option<u64>, run: &mut Run) -> Result<(), TestError> {
        let end = self.time.now() + time;
        loop {
            let now = self.time.now();
            self.check_stop()?;
            let any = self.receive(now, run);
            if now >= end || sent.is_some_and(|sent| run.arrived() >= sent) {
                return Ok(());
            }
            self.time.pass(self.next_event().min(end), !any && sent.is_none());
        }
    }

    fn check_stop(&self) -> Result<(), TestError> {
        // Relaxed: a wish, which may be seen a turn later.
        if self.watch.stop().load(Ordering::Relaxed) { Err(TestError::Stopped) } else { Ok(()) }
    }
}

impl<T: Time> Tester for PortTester<T> {
    type Error = TestError;

    fn trial(&mut self, trial: &Trial) -> Result<TrialFigures, TestError> {
        self.ports.iter().try_for_each(|port| port.check(trial.frame))?;
        // All that comes while the device settles is from before.
        let mut before = self.begin(trial)?;
        self.listen(self.settle, None, &mut before)?;
        let dropped = self.drops();
        let mut run = self.begin(trial)?;
        let began = run.last_sent;
        self.offer(trial, began, &mut run)?;
        let sent = run.queues[0].read(0).tx_frames;
        self.listen(self.drain, Some(sent), &mut run)?;
        self.next = run.sender.next_number();
        let mut latency = histogram();
        let mut marked = MarkedFigures { sent, ..MarkedFigures::default() };
        run.marks.read(&mut marked, &mut latency);
        marked.missing = sent.saturating_sub(marked.received + marked.corrupted);
        // A gap behind the last frame belongs to it.
        let gap = Duration::from_secs_f64(1.0 / trial.rate);
        Ok(TrialFigures {
            unsent: trial.frames - sent,
            marked,
            sending: if sent > 0 { run.last_sent - began + gap } else { Duration::ZERO },
            latency,
            tagged: run.receiver.tagged(),
            drops: since(&dropped, &self.drops()),
        })
    }
}

impl Run {
    /// Frames that need not be waited for any more.
    fn arrived(&self) -> u64 {
        let MarkCounters { received, corrupted, late, .. } = &*self.marks;
        received.get() + corrupted.get() + late.get()
    }
}

/// What was dropped since.
fn since(before: &Drops, now: &Drops) -> Drops {
    let mut drops = Drops::default();
    now.iter().for_each(|(name, n)| drops.add(name, n - before.get(name)));
    drops
}

#[cfg(test)]
#[path = "tester_tests.rs"]
mod tests;
