//! Devices whose answers are known exactly, for the tests of the searches.

use std::convert::Infallible;
use std::time::Duration;

use hdrhistogram::Histogram;
use pmd::Drops;

use super::{Tester, Trial, TrialFigures};
use crate::figures::MarkedFigures;

/// A device with a capacity and a queue, and a generator with a limit.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    /// Frames a second that it carries.
    pub capacity: f64,
    /// The same for the next trial after one with too much; as much as ever, if it is infinite.
    pub tired: f64,
    /// Frames that it holds.
    pub queue: u64,
    /// A part of all frames that it loses at any rate.
    pub loss: f64,
    /// The probability that it loses one frame of a trial.
    pub mishap: f64,
    /// Of that.
    pub seed: u64,
    /// Frames a second that the generator can send.
    pub generator: f64,
    /// How long each frame takes.
    pub delay: Duration,
    /// Whether the last trial was too much.
    pub exhausted: bool,
    /// What was tried.
    pub trials: Vec<Trial>,
}

impl Model {
    pub fn carrying(capacity: f64) -> Model {
        Model {
            capacity,
            tired: f64::INFINITY,
            queue: 0,
            loss: 0.0,
            mishap: 0.0,
            seed: 1,
            generator: f64::INFINITY,
            delay: Duration::from_micros(100),
            exhausted: false,
            trials: Vec::new(),
        }
    }

    /// How many of `sent` frames at `rate` arrive.
    fn carried(&mut self, sent: u64, rate: f64) -> u64 {
        let capacity = if self.exhausted { self.capacity.min(self.tired) } else { self.capacity };
        self.exhausted = rate > capacity;
        let at_once = (sent as f64 * (capacity / rate).min(1.0)).floor() as u64;
        let mut received = (at_once + self.queue).min(sent);
        received -= (received as f64 * self.loss).round() as u64;
        let chance = fastrand::Rng::with_seed(self.seed ^ ((self.trials.len() as u64) << 32)).f64();
        if chance < self.mishap { received.saturating_sub(1) } else { received }
    }
}

impl Tester for Model {
    type Error = Infallible;

    fn trial(&mut self, trial: &Trial) -> Result<TrialFigures, Infallible> {
        self.trials.push(*trial);
        let rate = trial.rate.min(self.generator);
        let sent = (trial.frames as f64 * rate / trial.rate).round() as u64;
        let received = self.carried(sent, rate);
        let mut latency = Histogram::new(3).unwrap();
        latency.record_n(self.delay.as_nanos() as u64, received).unwrap();
        Ok(TrialFigures {
            unsent: trial.frames - sent,
            marked: MarkedFigures { sent, received, missing: sent - received, ..Default::default() },
            sending: Duration::from_secs_f64(sent as f64 / rate),
            latency,
            tagged: (received > 0).then_some(self.delay),
            drops: Drops::default(),
        })
    }
}
