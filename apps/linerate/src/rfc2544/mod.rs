//! RFC 2544: throughput, latency, frame loss rate and back-to-back frames of a device between two of our ports.
//!
//! What to try next is decided by pure functions over a [`Tester`], which runs one [`Trial`] and says what became of its frames; they know no clock and no
//! port. [`suite`] puts them in order and says how long it may take. Each verdict keeps apart what the device lost and what never left
//! the generator ([`Verdict::NotOffered`]): a rate that was not offered is no rate of the device.
//!
//! A device with a queue passes a little more than it can carry for as long as the queue fills: a trial of T seconds overstates its capacity by
//! (queue / T) frames a second. That is why the RFC's trials take a minute.
//!
//! Deliberately absent: bidirectional and multi-address streams, system recovery and reset (26.5, 26.6).

use std::time::Duration;

use hdrhistogram::Histogram;
use pmd::{BURST, Drops};
use serde::Serialize;

use crate::figures::MarkedFigures;
use crate::line_rate;

mod back_to_back;
pub mod cli;
mod latency;
mod loss;
#[cfg(test)]
pub(crate) mod model;
mod options;
mod plan;
pub mod suite;
pub mod tester;
pub mod text;
mod throughput;
pub mod watch;

pub use back_to_back::BackToBack;
pub use latency::Latency;
pub use loss::LossPoint;
pub use options::{Options, Test};
pub use plan::Progress;
pub use suite::{Results, SizeResults, run};
pub use throughput::{Limit, Throughput};

/// The frame sizes of RFC 2544 for Ethernet (section 9.1), and a jumbo frame. With FCS.
pub const FRAMES: [usize; 8] = [64, 128, 256, 512, 1024, 1280, 1518, 9000];

/// A trial in which less than this part of the offered rate was sent says nothing of the device.
pub const OFFERED_MIN: f64 = 0.995;

/// Frames sent at a rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trial {
    /// Bytes of each, FCS included.
    pub frame: usize,
    /// Frames a second.
    pub rate: f64,
    /// How many.
    pub frames: u64,
}

impl Trial {
    /// So long at that rate, and one frame at least.
    pub fn lasting(frame: usize, rate: f64, time: Duration) -> Trial {
        Trial { frame, rate, frames: ((rate * time.as_secs_f64()).round() as u64).max(1) }
    }

    /// How long sending takes.
    pub fn duration(&self) -> Duration {
        Duration::from_secs_f64(self.frames as f64 / self.rate)
    }
}

/// What became of a trial's frames.
#[derive(Clone, Debug)]
pub struct TrialFigures {
    /// Due, and not sent.
    pub unsent: u64,
    /// What became of those that were sent.
    pub marked: MarkedFigures,
    /// How long sending took, a gap behind the last frame included: `sent / sending` is the rate.
    pub sending: Duration,
    /// Nanoseconds from a frame's time stamp to its arrival.
    pub latency: Histogram<u64>,
    /// The same for the one frame in the middle of the trial, which RFC 2544 calls tagged.
    pub tagged: Option<Duration>,
    /// What our own ports dropped meanwhile, by name.
    pub drops: Drops,
}

impl TrialFigures {
    /// Frames a second that were sent.
    pub fn sent_per_second(&self) -> f64 {
        let seconds = self.sending.as_secs_f64();
        if seconds > 0.0 { self.marked.sent as f64 / seconds } else { 0.0 }
    }

    /// The part of the frames sent that did not arrive whole: 0 to 1.
    pub fn loss(&self) -> f64 {
        let MarkedFigures { sent, received, .. } = self.marked;
        if sent == 0 { 0.0 } else { sent.saturating_sub(received) as f64 / sent as f64 }
    }

    /// Whether the generator did what the trial asked for. A burst at either end is not held against it.
    pub fn was_offered(&self, trial: &Trial) -> bool {
        let slack = Duration::from_secs_f64(BURST as f64 / trial.rate);
        let in_time = self.sending.saturating_sub(slack) <= trial.duration().div_f64(OFFERED_MIN);
        self.marked.sent as f64 >= trial.frames as f64 * OFFERED_MIN && in_time
    }

    /// Whether the device passed, where so much loss is tolerated (0 to 1).
    pub fn verdict(&self, trial: &Trial, tolerance: f64) -> Verdict {
        // A device that loses frames of less than was asked for would lose them of more.
        if self.marked.sent > 0 && self.loss() > tolerance {
            Verdict::Lost
        } else if !self.was_offered(trial) {
            Verdict::NotOffered
        } else {
            Verdict::Passed
        }
    }
}

/// What a trial says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The rate was offered, and no more was lost than is tolerated.
    Passed,
    /// More was lost.
    Lost,
    /// The generator could not offer that rate: nothing is known of the device.
    NotOffered,
}

/// What runs trials: ports in real time or virtual time, or a model.
pub trait Tester {
    /// Why a trial could not be run to its end.
    type Error;

    /// Lets the device settle, sends the trial's frames, waits for stragglers.
    fn trial(&mut self, trial: &Trial) -> Result<TrialFigures, Self::Error>;
}

/// A trial that was run, as the report has it.
#[derive(Clone, Debug, Serialize)]
pub struct TrialRecord {
    /// What it was for.
    pub test: Test,
    /// Bytes, FCS included.
    pub frame_bytes: usize,
    /// Asked for.
    pub offered_frames_per_second: f64,
    /// Asked for.
    pub offered_frames: u64,
    /// Done.
    pub sent_frames_per_second: f64,
    /// Done.
    pub sent_frames: u64,
    /// Due, and never sent.
    pub unsent_frames: u64,
    /// Arrived whole, each once.
    pub received_frames: u64,
    /// Of those sent.
    pub loss_percent: f64,
    /// Arrived again.
    pub duplicate_frames: u64,
    /// Arrived after a later one.
    pub reordered_frames: u64,
    /// Arrived damaged.
    pub corrupted_frames: u64,
    /// What our own ports dropped meanwhile.
    pub port_drops: std::collections::BTreeMap<String, u64>,
    /// Without any tolerance.
    pub verdict: Verdict,
}

impl TrialRecord {
    fn new(test: Test, trial: &Trial, figures: &TrialFigures) -> TrialRecord {
        let marked = &figures.marked;
        TrialRecord {
            test,
            frame_bytes: trial.frame,
            offered_frames_per_second: trial.rate,
            offered_frames: trial.frames,
            sent_frames_per_second: figures.sent_per_second(),
            sent_frames: marked.sent,
            unsent_frames: figures.unsent,
            received_frames: marked.received,
            loss_percent: figures.loss() * 100.0,
            duplicate_frames: marked.duplicates,
            reordered_frames: marked.reordered,
            corrupted_frames: marked.corrupted,
            port_drops: named(&figures.drops),
            verdict: figures.verdict(trial, 0.0),
        }
    }
}

fn named(drops: &Drops) -> std::collections::BTreeMap<String, u64> {
    drops.iter().filter(|(_, n)| *n > 0).map(|(name, n)| (name.to_owned(), n)).collect()
}

/// Part of line rate, in per cent.
fn percent_of_line(rate: f64, bits_per_second: u64, frame: usize) -> f64 {
    100.0 * rate / line_rate::frames_per_second(bits_per_second, frame)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(sent: u64, received: u64, sending: Duration) -> TrialFigures {
        TrialFigures {
            unsent: 0,
            marked: MarkedFigures { sent, received, missing: sent - received, ..Default::default() },
            sending,
            latency: Histogram::new(3).unwrap(),
            tagged: None,
            drops: Drops::default(),
        }
    }

    #[test]
    fn unsent_is_not_lost_and_lost_is_not_unsent() {
        let trial = Trial { frame: 64, rate: 1000.0, frames: 10_000 };
        let second = Duration::from_secs(1);
        let verdict =
            |sent, received, seconds| figures(sent, received, second.mul_f64(seconds)).verdict(&trial, 0.001);
        assert_eq!(verdict(10_000, 10_000, 10.0), Verdict::Passed);
        assert_eq!(verdict(10_000, 9_990, 10.0), Verdict::Passed);
        assert_eq!(verdict(10_000, 9_989, 10.0), Verdict::Lost);
        // All that left arrived, but too little left, or too late.
        assert_eq!(verdict(9_940, 9_940, 10.0), Verdict::NotOffered);
        assert_eq!(verdict(10_000, 10_000, 10.1), Verdict::NotOffered);
        // Less than was asked for, and of that the device lost some.
        assert_eq!(verdict(5_000, 4_000, 10.0), Verdict::Lost);
        assert_eq!(verdict(0, 0, 10.0), Verdict::NotOffered);
    }

    #[test]
    fn a_trial_has_a_frame_at_least() {
        assert_eq!(Trial::lasting(64, 0.01, Duration::from_secs(1)).frames, 1);
        let trial = Trial::lasting(64, 1e6, Duration::from_secs(2));
        assert_eq!((trial.frames, trial.duration()), (2_000_000, Duration::from_secs(2)));
    }
}
