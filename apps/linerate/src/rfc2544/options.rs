//! What to measure, and how finely.

use std::time::Duration;

use serde::Serialize;

use super::FRAMES;
use crate::line_rate;

/// A test of RFC 2544.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Test {
    /// 26.1: the highest rate without loss.
    Throughput,
    /// 26.2: how long frames take at that rate.
    Latency,
    /// 26.3: what is lost at rates from line rate down.
    LossRate,
    /// 26.4: the longest burst at line rate without loss.
    BackToBack,
}

impl Test {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Test::Throughput => "throughput",
            Test::Latency => "latency",
            Test::LossRate => "frame loss rate",
            Test::BackToBack => "back-to-back",
        }
    }
}

/// What to measure, and how finely. The defaults are the RFC's where it has any.
#[derive(Clone, Debug, Serialize)]
pub struct Options {
    /// Line rate of the link: the most that is ever offered.
    pub line_rate_bits_per_second: u64,
    /// Sizes, FCS included.
    pub frame_bytes: Vec<usize>,
    /// Which tests. Latency needs throughput.
    pub tests: Vec<Test>,
    /// Of each trial of throughput and loss rate; latency takes twice that, with the tagged frame in the middle.
    #[serde(rename = "trial_seconds", serialize_with = "seconds")]
    pub trial: Duration,
    /// Quiet time before each trial, for the device to come to rest.
    #[serde(rename = "settle_seconds", serialize_with = "seconds")]
    pub settle: Duration,
    /// Time after each trial for frames still under way.
    #[serde(rename = "drain_seconds", serialize_with = "seconds")]
    pub drain: Duration,
    /// A search ends when what passed and what did not are so close: a part of the latter.
    pub resolution: f64,
    /// How often a rate may fail before it has failed.
    pub attempts: u32,
    /// The loss that is tolerated, 0 to 1: a throughput for each. 0 is NDR, 0.005 usually PDR. Rising.
    pub tolerances: Vec<f64>,
    /// Trials of latency, of which the tagged frames' mean is taken.
    pub latency_trials: u32,
    /// The rate of those, as a part of the throughput found.
    pub latency_load: f64,
    /// Steps of the loss curve, as a part of line rate; the RFC allows a tenth at most.
    pub loss_step: f64,
    /// Searches for the longest burst, of which the mean is taken.
    pub back_to_back_trials: u32,
    /// The longest burst that is tried lasts so long.
    #[serde(rename = "burst_max_seconds", serialize_with = "seconds")]
    pub burst_max: Duration,
}

fn seconds<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

impl Options {
    /// The RFC's, on a link of that speed.
    pub fn new(line_rate_bits_per_second: u64) -> Options {
        Options {
            line_rate_bits_per_second,
            frame_bytes: FRAMES.into(),
            tests: vec![Test::Throughput, Test::Latency, Test::LossRate, Test::BackToBack],
            trial: Duration::from_secs(60),
            settle: Duration::from_secs(5),
            drain: Duration::from_secs(2),
            resolution: 0.001,
            attempts: 1,
            tolerances: vec![0.0, 0.005],
            latency_trials: 20,
            latency_load: 1.0,
            loss_step: 0.1,
            back_to_back_trials: 50,
            burst_max: Duration::from_secs(2),
        }
    }

    /// The most frames a second of that size.
    pub fn line_rate(&self, frame: usize) -> f64 {
        line_rate::frames_per_second(self.line_rate_bits_per_second, frame)
    }

    /// Whether this test is asked for.
    pub fn wants(&self, test: Test) -> bool {
        self.tests.contains(&test)
    }
}
