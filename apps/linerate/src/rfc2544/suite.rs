//! All tests that were asked for, of all sizes, in the order of the RFC.

use serde::Serialize;

use super::plan::{Plan, Progress};
use super::throughput::{self, Tried};
use super::{
    BackToBack, Latency, LossPoint, Options, Test, Tester, Throughput, Trial, TrialFigures, TrialRecord,
    back_to_back, latency, loss,
};

/// What a suite found.
#[derive(Clone, Debug, Serialize)]
pub struct Results {
    /// What was asked for.
    pub options: Options,
    /// By size, in the order asked for.
    pub sizes: Vec<SizeResults>,
}

/// What was found for a size.
#[derive(Clone, Debug, Serialize)]
pub struct SizeResults {
    /// Bytes, FCS included.
    pub frame_bytes: usize,
    /// The most that the link carries.
    pub line_rate_frames_per_second: f64,
    /// By tolerance, rising.
    pub throughput: Vec<Throughput>,
    /// At the first of these that was found. None where there was none, or nobody asked.
    pub latency: Option<Latency>,
    /// From line rate down.
    pub loss_curve: Vec<LossPoint>,
    /// If asked for.
    pub back_to_back: Option<BackToBack>,
    /// Every trial that was run, in order.
    pub trials: Vec<TrialRecord>,
}

impl Results {
    /// Whether all that was asked for was found: each size has a throughput at each tolerance, and no latency trial lost
    /// more than the largest one.
    pub fn held(&self) -> bool {
        let most = self.options.tolerances.iter().copied().fold(0.0, f64::max) * 100.0;
        self.sizes.iter().all(|size| {
            size.throughput.iter().all(|throughput| throughput.frames_per_second.is_some())
                && size.latency.as_ref().is_none_or(|latency| latency.loss_percent <= most)
        })
    }
}

/// A tester that tells of each trial before it begins.
struct Told<'a, T> {
    tester: &'a mut T,
    options: &'a Options,
    plan: Plan,
    progress: &'a mut dyn FnMut(&Progress),
}

impl<T: Tester> Tester for Told<'_, T> {
    type Error = T::Error;

    fn trial(&mut self, trial: &Trial) -> Result<TrialFigures, T::Error> {
        (self.progress)(&self.plan.trial(trial, self.options));
        self.tester.trial(trial)
    }
}

/// Runs all of it; `progress` is told of each trial before it begins. What was found before an error is found all the same.
pub fn run<T: Tester>(
    tester: &mut T,
    options: &Options,
    progress: &mut dyn FnMut(&Progress),
) -> (Results, Result<(), T::Error>) {
    let mut told = Told { tester, options, plan: Plan::new(options), progress };
    let mut results = Results { options: options.clone(), sizes: Vec::new() };
    for &frame in &options.frame_bytes {
        let mut size = SizeResults::new(frame, options);
        let ended = told.size(&mut size);
        if ended.is_ok() || !size.trials.is_empty() {
            results.sizes.push(size);
        }
        if ended.is_err() {
            return (results, ended);
        }
    }
    (results, Ok(()))
}

impl<T: Tester> Told<'_, T> {
    fn size(&mut self, results: &mut SizeResults) -> Result<(), T::Error> {
        let (options, frame) = (self.options, results.frame_bytes);
        if options.wants(Test::Throughput) {
            let mut log = self.begin(frame, Test::Throughput);
            for &tolerance in &options.tolerances {
                results.throughput.push(throughput::search(self, frame, options, tolerance, &mut log)?);
            }
            results.record(Test::Throughput, &log);
        }
        let first = results.throughput.iter().find_map(|throughput| throughput.frames_per_second);
        if let Some(rate) = first.filter(|_| options.wants(Test::Latency)) {
            let mut log = self.begin(frame, Test::Latency);
            results.latency = Some(latency::measure(self, frame, options, rate, &mut log)?);
            results.record(Test::Latency, &log);
        }
        if options.wants(Test::LossRate) {
            let mut log = self.begin(frame, Test::LossRate);
            results.loss_curve = loss::curve(self, frame, options, &mut log)?;
            results.record(Test::LossRate, &log);
        }
        if options.wants(Test::BackToBack) {
            let mut log = self.begin(frame, Test::BackToBack);
            let found = back_to_back::measure(self, frame, options, first, &mut log)?;
            results.back_to_back = Some(found);
            results.record(Test::BackToBack, &log);
        }
        Ok(())
    }

    fn begin(&mut self, frame: usize, test: Test) -> Vec<Tried> {
        self.plan.begin(frame, test);
        Vec::new()
    }
}

impl SizeResults {
    fn new(frame: usize, options: &Options) -> SizeResults {
        SizeResults {
            frame_bytes: frame,
            line_rate_frames_per_second: options.line_rate(frame),
            throughput: Vec::new(),
            latency: None,
            loss_curve: Vec::new(),
            back_to_back: None,
            trials: Vec::new(),
        }
    }

    fn record(&mut self, test: Test, log: &[Tried]) {
        self.trials.extend(log.iter().map(|(trial, figures)| TrialRecord::new(test, trial, figures)));
    }
}

#[cfg(test)]
mod tests {
    use super::super::model::Model;
    use super::super::{Limit, Verdict};
    use super::*;

    fn options() -> Options {
        Options {
            frame_bytes: vec![64, 1518],
            latency_trials: 2,
            back_to_back_trials: 2,
            ..Options::new(10_000_000_000)
        }
    }

    #[test]
    fn a_suite_has_every_test_of_every_size_and_each_trial_in_its_record() {
        let mut model = Model { queue: 100, ..Model::carrying(500e3) };
        let mut told = Vec::new();
        let (results, ended) = run(&mut model, &options(), &mut |progress| told.push(progress.test));
        assert!(ended.is_ok());
        assert_eq!(results.sizes.len(), 2);
        for size in &results.sizes {
            assert!((size.throughput[0].frames_per_second.unwrap() - 500e3).abs() < 600.0);
            assert!(size.latency.is_some() && size.back_to_back.is_some() && size.loss_curve.len() > 2);
        }
        let recorded: usize = results.sizes.iter().map(|size| size.trials.len()).sum();
        assert_eq!((recorded, told.len()), (model.trials.len(), model.trials.len()));
        assert_eq!(told[0], Test::Throughput);
        assert_eq!(told.last(), Some(&Test::BackToBack));
        assert!(results.held());
    }

    #[test]
    fn without_a_throughput_there_is_no_latency_and_it_did_not_hold() {
        let mut model = Model { loss: 0.1, ..Model::carrying(1e9) };
        let (results, _) = run(&mut model, &options(), &mut |_| {});
        let size = &results.sizes[0];
        assert!(size.throughput.iter().all(|throughput| throughput.limit == Limit::Device));
        assert!(size.latency.is_none() && !results.held());
        let search = size.trials.iter().filter(|trial| trial.test == Test::Throughput);
        assert!(search.count() > 5 && size.trials[0].verdict == Verdict::Lost);
    }

    /// A device that goes away in the middle of the second size.
    struct Mortal(Model, usize);

    impl Tester for Mortal {
        type Error = &'static str;

        fn trial(&mut self, trial: &Trial) -> Result<TrialFigures, &'static str> {
            self.1 = self.1.checked_sub(1).ok_or("gone")?;
            self.0.trial(trial).map_err(|never| match never {})
        }
    }

    #[test]
    fn what_was_found_before_an_error_is_kept() {
        let mut model = Model { queue: 100, ..Model::carrying(500e3) };
        let (all, _) = run(&mut model, &options(), &mut |_| {});
        let of_first = all.sizes[0].trials.len();
        let of_second = all.sizes[1].trials.iter().filter(|trial| trial.test == Test::Throughput).count();
        let model = Model { queue: 100, ..Model::carrying(500e3) };
        let mut mortal = Mortal(model, of_first + of_second + 1);
        let (results, ended) = run(&mut mortal, &options(), &mut |_| {});
        assert_eq!(ended, Err("gone"));
        assert_eq!((results.sizes.len(), results.sizes[1].trials.len()), (2, of_second));
        assert!(results.sizes[0].back_to_back.is_some());
        assert!(results.sizes[1].throughput.len() == 2 && results.sizes[1].latency.is_none());
    }

    #[test]
    fn names_in_json_are_stable_and_have_their_units() {
        let (results, _) = run(&mut Model::carrying(500e3), &options(), &mut |_| {});
        let json = serde_json::to_value(&results).unwrap();
        let throughput = &json["sizes"][0]["throughput"][0];
        assert!(throughput["frames_per_second"].is_f64() && throughput["limit"] == "device");
        assert_eq!(json["options"]["trial_seconds"], 60.0);
        assert_eq!(json["sizes"][1]["trials"][0]["test"], "throughput");
        assert!(json["sizes"][0]["latency"]["p99_9_ns"].is_u64());
    }
}
