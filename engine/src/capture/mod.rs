//! [`Capture`]: copies of a running engine's frames, with what became of each.
//!
//! Whoever captures gives each core one end of a bounded ring and keeps the other; the core copies the first bytes of
//! each frame into it, and counts what does not fit. One capture at a time per engine. Dropping the [`Capture`] takes the cores' ends
//! back, so that the cores neither allocate nor free.
//!
//! Deliberately absent: filters (the reader's, [`pmd`] knows no protocols and cores have better things to do), and frames that a NIC
//! dropped before anybody saw them.

mod record;
mod tap;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak, mpsc};
use std::time::Duration;

use pmd::Instant;

use self::record::{Kind, Record};
pub(crate) use self::tap::{Tap, TapCounters};
use crate::control::Op;
use crate::figures::Figures;
use crate::ledger::Counter;
use crate::ring::SendError;
use crate::stats::Drop;

/// How long a core may take to take its end, or to give it back. Its turn takes microseconds.
const PATIENCE: Duration = Duration::from_secs(1);
/// Fewer bytes of a frame would not reach through its headers.
pub const SNAPLEN_MIN: usize = 96;
/// No frame is longer.
pub const SNAPLEN_MAX: usize = 65_535;
/// Bytes of a core's ring.
const RING_BYTES: usize = 4 << 20;

/// Which frames, and how much of each.
#[derive(Clone, Copy, Debug)]
pub struct CaptureConfig {
    /// The port's number; all ports if not given.
    pub port: Option<usize>,
    /// Frames that were received and not dropped.
    pub received: bool,
    /// Frames that a device took to send.
    pub sent: bool,
    /// Frames dropped on the way in, and datagrams not sent, with the reason.
    pub drops: bool,
    /// Bytes kept of a frame, [`SNAPLEN_MIN`] to [`SNAPLEN_MAX`].
    pub snaplen: usize,
}

/// Why nothing is captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CaptureError {
    /// The engine has stopped.
    #[error("the engine has stopped")]
    Stopped,
    /// Somebody else captures.
    #[error("somebody captures on this engine already: one at a time")]
    Busy,
    /// A core does not turn.
    #[error("core {core} did not answer within {} s: its thread is starved, or its handler does not return", PATIENCE.as_secs())]
    Silent {
        /// Which.
        core: usize,
    },
    /// There is no such port.
    #[error("there is no port {port}, only {ports}")]
    NoPort {
        /// Asked for.
        port: usize,
        /// That there are.
        ports: usize,
    },
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It was received, and somebody has it.
    Received,
    /// A device took it.
    Sent,
    /// It was received, and thrown away for this reason.
    Dropped(&'static str),
    /// It was to be sent, and thrown away for this reason.
    NotSent(&'static str),
}

/// A copy of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CapturedFrame {
    /// The core that had it.
    pub core: usize,
    /// The port; of rebuilt frames, one of them.
    pub port: usize,
    /// The time of its burst.
    pub when: Instant,
    /// What became of it.
    pub fate: Fate,
    /// Its headers are made up: the engine had only the datagram.
    pub rebuilt: bool,
    /// Bytes that it had.
    pub len: usize,
    /// The first of them.
    pub bytes: Vec<u8>,
}

/// See the module.
pub struct Capture {
    figures: Weak<Figures>,
    cores: Vec<Side>,
    held: Held,
}

/// The reader's end of a core's ring.
struct Side {
    ring: rtrb::Consumer<u8>,
    counters: Arc<TapCounters>,
    refusals: &'static [&'static str],
    /// Read and not yet asked for.
    next: Option<Record>,
}

/// The engine's only capture. Free again when this goes.
struct Held(Arc<AtomicBool>);

impl std::ops::Drop for Held {
    fn drop(&mut self) {
        // Release: pairs with the Acquire of whoever captures next.
        self.0.store(false, Ordering::Release);
    }
}

impl Capture {
    pub(crate) fn start(figures: &Arc<Figures>, mut config: CaptureConfig) -> Result<Self, CaptureError> {
        let ports = figures.ports().len();
        if let Some(port) = config.port.filter(|port| *port >= ports) {
            return Err(CaptureError::NoPort { port, ports });
        }
        config.snaplen = config.snaplen.clamp(SNAPLEN_MIN, SNAPLEN_MAX);
        let taken = figures.captured.clone();
        if taken.swap(true, Ordering::Acquire) {
            return Err(CaptureError::Busy);
        }
        let mut capture = Capture { figures: Arc::downgrade(figures), cores: Vec::new(), held: Held(taken) };
        for (core, view) in figures.cores.iter().enumerate() {
            let (producer, ring) = rtrb::RingBuffer::new(RING_BYTES);
            let missed = (0..ports).map(|_| Counter::default()).collect();
            let counters = Arc::new(TapCounters { missed, frameless: Counter::default() });
            let tap = Tap::new(config, producer, counters.clone());
            swap(figures, core, Some(Box::new(tap)))?;
            let refusals = view.counters.refusal_names;
            capture.cores.push(Side { ring, counters, refusals, next: None });
        }
        Ok(capture)
    }

    /// The oldest frame that is there; `None`: none yet.
    pub fn next_frame(&mut self) -> Option<CapturedFrame> {
        let heads =
            self.cores.iter_mut().enumerate().filter_map(|(core, side)| Some((side.head()?.when, core)));
        let (_, core) = heads.min()?;
        self.cores[core].take(core)
    }

    /// Frames of a port that did not fit into a core's ring.
    pub fn missed(&self, core: usize, port: usize) -> u64 {
        self.cores.get(core).and_then(|side| side.counters.missed.get(port)).map_or(0, Counter::get)
    }

    /// Drops that no frame is shown of, because it had been taken apart before: fragments that nobody completed, datagrams that
    /// waited in vain for their neighbour.
    pub fn frameless(&self) -> u64 {
        self.cores.iter().map(|side| side.counters.frameless.get()).sum()
    }

    /// Whether the engine has ended and everything was read.
    pub fn is_over(&self) -> bool {
        self.cores.iter().all(|side| side.ring.is_abandoned() && side.next.is_none() && side.ring.is_empty())
    }
}

impl Side {
    fn head(&mut self) -> Option<Record> {
        if self.next.is_none() {
            let mut header = [0; Record::BYTES];
            self.ring.pop_entire_slice(&mut header).ok()?;
            self.next = Some(Record::decode(&header));
        }
        self.next
    }

    fn take(&mut self, core: usize) -> Option<CapturedFrame> {
        let record = self.next.take()?;
        let mut bytes = vec![0; record.captured as usize];
        // A record enters the ring as a whole, so the rest is there.
        self.ring.pop_entire_slice(&mut bytes).ok()?;
        let reason =
            |names: &[&'static str]| names.get(usize::from(record.reason)).copied().unwrap_or("unnamed");
        let drop = || Drop::ALL.get(usize::from(record.reason)).map_or("unnamed", |reason| reason.name());
        let fate = match record.kind {
            Kind::Received => Fate::Received,
            Kind::Sent => Fate::Sent,
            Kind::Dropped => Fate::Dropped(drop()),
            Kind::Refused => Fate::Dropped(reason(self.refusals)),
            Kind::NotSent => Fate::NotSent(drop()),
        };
        Some(CapturedFrame {
            core,
            port: usize::from(record.port),
            when: record.when,
            fate,
            rebuilt: record.rebuilt,
            len: record.len as usize,
            bytes,
        })
    }
}

/// Gives a core its end, or takes it back; what the core had is freed here and not there.
fn swap(figures: &Figures, core: usize, tap: Option<Box<Tap>>) -> Result<(), CaptureError> {
    let until = std::time::Instant::now() + PATIENCE;
    let (reply, replied) = mpsc::sync_channel(1);
    let op = Op::Capture { tap, reply };
    figures.sockets.cores[core].ops.send(op, Some(until)).map_err(|error| match error {
        SendError::Full(_) => CaptureError::Silent { core },
        SendError::Stopped(_) => CaptureError::Stopped,
    })?;
    let left = until.saturating_duration_since(std::time::Instant::now());
    match replied.recv_timeout(left) {
        Ok(before) => {
            drop(before);
            Ok(())
        }
        Err(mpsc::RecvTimeoutError::Timeout) => Err(CaptureError::Silent { core }),
        Err(mpsc::RecvTimeoutError::Disconnected) => Err(CaptureError::Stopped),
    }
}

impl std::ops::Drop for Capture {
    /// Takes the cores' ends back. A core that does not answer frees its own when it turns again.
    fn drop(&mut self) {
        if let Some(figures) = self.figures.upgrade() {
            for core in 0..self.cores.len() {
                let _ = swap(&figures, core, None);
            }
        }
        debug_assert!(self.held.0.load(Ordering::Relaxed), "held until now");
    }
}
