//! How far a suite is, and about how long it will still take.
//!
//! How many trials a search needs is known only at its end. What is said beforehand is what it takes on a device that carries a good part of line rate, and
//! is corrected as parts end: an estimate, and called so.

use std::time::Duration;

use super::{Options, Test, Trial, loss};

/// What is about to be tried.
#[derive(Clone, Debug)]
pub struct Progress {
    /// What it is for.
    pub test: Test,
    /// The trial.
    pub trial: Trial,
    /// Its place among all, from 1.
    pub number: u32,
    /// Of this size, from 1, and of how many sizes.
    pub size: (usize, usize),
    /// What all that is left takes, about.
    pub left: Duration,
}

impl Progress {
    /// As one line.
    pub fn line(&self) -> String {
        let Progress { test, trial, number, size: (size, sizes), left } = self;
        format!(
            "{} bytes ({size} of {sizes}), {}: trial {number}, {} at {} for {}; about {} left",
            trial.frame,
            test.name(),
            count(trial.frames),
            crate::units::pps(trial.rate),
            crate::units::seconds(trial.duration()),
            crate::units::seconds(*left)
        )
    }
}

fn count(frames: u64) -> String {
    if frames == 1 { "1 frame".into() } else { format!("{frames} frames") }
}

/// A test of a size.
struct Part {
    frame: usize,
    test: Test,
    seconds: f64,
}

/// All parts in their order.
pub(super) struct Plan {
    parts: Vec<Part>,
    at: usize,
    /// Seconds that the current part took so far.
    spent: f64,
    trials: u32,
    overhead: f64,
}

impl Plan {
    pub fn new(options: &Options) -> Plan {
        let overhead = (options.settle + options.drain).as_secs_f64();
        let part = |frame, test| Part { frame, test, seconds: estimate(options, test, overhead) };
        let tests = |frame| options.tests.iter().map(move |test| part(frame, *test));
        let parts = options.frame_bytes.iter().flat_map(|frame| tests(*frame)).collect();
        Plan { parts, at: 0, spent: 0.0, trials: 0, overhead }
    }

    /// This part is next.
    pub fn begin(&mut self, frame: usize, test: Test) {
        let at = self.parts.iter().position(|part| (part.frame, part.test) == (frame, test));
        self.at = at.expect("a suite does what was planned");
        self.spent = 0.0;
    }

    /// This trial is next.
    pub fn trial(&mut self, trial: &Trial, options: &Options) -> Progress {
        self.trials += 1;
        let part = &self.parts[self.at];
        let seconds = trial.duration().as_secs_f64() + self.overhead;
        let here = (part.seconds - self.spent).max(seconds);
        let later: f64 = self.parts[self.at + 1..].iter().map(|part| part.seconds).sum();
        self.spent += seconds;
        let size = options.frame_bytes.iter().position(|frame| *frame == part.frame).unwrap_or(0);
        Progress {
            test: part.test,
            trial: *trial,
            number: self.trials,
            size: (size + 1, options.frame_bytes.len()),
            left: Duration::from_secs_f64(here + later),
        }
    }
}

/// Seconds that a test of one size takes, about.
fn estimate(options: &Options, test: Test, overhead: f64) -> f64 {
    let trial = options.trial.as_secs_f64();
    let halvings = (1.0 / options.resolution).log2().ceil();
    let (trials, each) = match test {
        // A second tolerance finds most of its way in the first one's trials.
        Test::Throughput => (1.0 + halvings * (1.0 + options.tolerances.len() as f64) / 2.0, trial),
        Test::Latency => (f64::from(options.latency_trials), 2.0 * trial),
        Test::LossRate => (f64::from(loss::steps(options.loss_step)), trial),
        Test::BackToBack => {
            let searches = f64::from(options.back_to_back_trials);
            (2.0 * halvings + 4.0 * (searches - 1.0).max(0.0), options.burst_max.as_secs_f64() / 8.0)
        }
    };
    trials * (each + overhead)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> Options {
        let second = Duration::from_secs(1);
        Options {
            frame_bytes: vec![64, 128],
            tests: vec![Test::LossRate, Test::Latency],
            trial: second,
            settle: second,
            drain: second,
            latency_trials: 2,
            ..Options::new(10_000_000_000)
        }
    }

    #[test]
    fn time_left_falls_and_ends_with_the_last_trial() {
        let options = options();
        let mut plan = Plan::new(&options);
        let trial = Trial::lasting(64, 1e6, options.trial);
        plan.begin(64, Test::LossRate);
        // Ten trials of 3 s and two of 4 s, for each of two sizes.
        assert_eq!(plan.trial(&trial, &options).left, Duration::from_secs(76));
        assert_eq!(plan.trial(&trial, &options).left, Duration::from_secs(73));
        // That part ended early: what it did not need is not waited for.
        plan.begin(64, Test::Latency);
        assert_eq!(plan.trial(&trial, &options).left, Duration::from_secs(46));
        plan.begin(128, Test::Latency);
        let long = Trial::lasting(128, 1e6, 2 * options.trial);
        assert_eq!(plan.trial(&long, &options).left, Duration::from_secs(8));
        let last = plan.trial(&long, &options);
        assert_eq!((last.left, last.size, last.number), (Duration::from_secs(4), (2, 2), 5));
        // One more than was thought: there is never less left than the trial itself.
        assert_eq!(plan.trial(&long, &options).left, Duration::from_secs(4));
    }

    #[test]
    fn a_line_says_what_is_done_and_what_is_left() {
        let options = options();
        let mut plan = Plan::new(&options);
        plan.begin(128, Test::LossRate);
        let line = plan.trial(&Trial { frame: 128, rate: 8.5e6, frames: 8_500_000 }, &options).line();
        assert_eq!(
            line,
            "128 bytes (2 of 2), frame loss rate: trial 1, 8500000 frames at 8.50 Mpps for 1.0 s; about 38 s left"
        );
    }
}
