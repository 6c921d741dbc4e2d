//! What a run knows of itself at one moment, as plain values: what the views and the report are made from.

use std::time::Duration;

use hdrhistogram::Histogram;
use pmd::{BURST, Drops};
use serde::Serialize;

/// A run at one moment. All counts are since the run began.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Since the run began, by the polling cores' clock.
    pub elapsed: Duration,
    /// Each port, in the order in which they were given.
    pub ports: Vec<PortFigures>,
    /// What became of the marked frames; without a generator there are none.
    pub marked: MarkedFigures,
    /// Nanoseconds from a frame's time stamp to its arrival; empty where no frame is marked.
    pub latency: Histogram<u64>,
}

/// A port.
#[derive(Clone, Debug)]
pub struct PortFigures {
    /// As it was opened.
    pub url: String,
    /// The driver's name.
    pub driver: &'static str,
    /// Line rate, where the port has one.
    pub bits_per_second: Option<u64>,
    /// What an operator should know of how it runs.
    pub notes: Vec<String>,
    /// Each queue.
    pub queues: Vec<QueueFigures>,
    /// What its driver and the core dropped, by name.
    pub drops: Drops,
}

/// A queue, and the core that polls it.
#[derive(Clone, Debug)]
pub struct QueueFigures {
    /// The core's CPU.
    pub cpu: usize,
    /// Frames received.
    pub rx_frames: u64,
    /// Their bytes, from the destination address on, without FCS.
    pub rx_bytes: u64,
    /// Frames that the device took.
    pub tx_frames: u64,
    /// Their bytes, as above.
    pub tx_bytes: u64,
    /// Frames that were due and that the device did not take: never sent, so not lost either.
    pub unsent: u64,
    /// Frames that were due and that the core came too late to make, or had no buffers for: its own fault, not the device's.
    pub behind: u64,
    /// Received bursts by size; index 0 counts polls that found nothing.
    pub rx_bursts: [u64; BURST + 1],
    /// Sent bursts by size; index 0 counts bursts of which the device took nothing.
    pub tx_bursts: [u64; BURST + 1],
    /// Time stamp counter ticks spent in turns that received or sent something.
    pub busy_cycles: u64,
}

impl QueueFigures {
    /// All of them together; its `cpu` means nothing.
    pub fn sum(queues: &[QueueFigures]) -> QueueFigures {
        Self::each(0, |count| queues.iter().map(count).sum())
    }

    /// What was added since.
    pub fn since(&self, was: &QueueFigures) -> QueueFigures {
        Self::each(self.cpu, |count| count(self).saturating_sub(count(was)))
    }

    /// Every count, as `of` makes it.
    fn each(cpu: usize, of: impl Fn(&dyn Fn(&QueueFigures) -> u64) -> u64) -> QueueFigures {
        QueueFigures {
            cpu,
            rx_frames: of(&|queue| queue.rx_frames),
            rx_bytes: of(&|queue| queue.rx_bytes),
            tx_frames: of(&|queue| queue.tx_frames),
            tx_bytes: of(&|queue| queue.tx_bytes),
            unsent: of(&|queue| queue.unsent),
            behind: of(&|queue| queue.behind),
            rx_bursts: std::array::from_fn(|size| of(&|queue| queue.rx_bursts[size])),
            tx_bursts: std::array::from_fn(|size| of(&|queue| queue.tx_bursts[size])),
            busy_cycles: of(&|queue| queue.busy_cycles),
        }
    }
}

/// What became of marked frames: counted by the sequence number and the checksum in each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MarkedFigures {
    /// Given to the device and taken by it.
    pub sent: u64,
    /// Arrived whole, each sequence number once.
    pub received: u64,
    /// Sent and not arrived, as of now: includes what is still under way.
    pub missing: u64,
    /// Arrived again.
    pub duplicates: u64,
    /// Arrived after a later one.
    pub reordered: u64,
    /// Arrived so long after later ones that nobody can say any more whether for the first time: not in `received`, so in `missing`.
    pub late: u64,
    /// Arrived with a wrong checksum. Not in `missing`.
    pub corrupted: u64,
    /// Arrived without our mark.
    pub foreign: u64,
}

/// A distribution of latencies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct LatencyFigures {
    /// Of how many frames.
    pub frames: u64,
    /// The fastest.
    pub min_ns: u64,
    /// The mean.
    pub mean_ns: f64,
    /// Half took less.
    pub p50_ns: u64,
    /// One in a hundred took longer.
    pub p99_ns: u64,
    /// One in a thousand.
    pub p99_9_ns: u64,
    /// The slowest.
    pub max_ns: u64,
}

impl LatencyFigures {
    /// Of a histogram; `None` if it is empty.
    pub fn of(histogram: &Histogram<u64>) -> Option<LatencyFigures> {
        (!histogram.is_empty()).then(|| LatencyFigures {
            frames: histogram.len(),
            min_ns: histogram.min(),
            mean_ns: histogram.mean(),
            p50_ns: histogram.value_at_quantile(0.5),
            p99_ns: histogram.value_at_quantile(0.99),
            p99_9_ns: histogram.value_at_quantile(0.999),
            max_ns: histogram.max(),
        })
    }
}
