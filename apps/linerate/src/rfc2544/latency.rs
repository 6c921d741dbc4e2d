//! Latency (26.2): how long frames take at the throughput found.
//!
//! The RFC's figure is the mean over the trials of one tagged frame each, sent in the middle. Beside it stand percentiles over all frames of all
//! trials. A time stamp is taken when the burst with the frame is given to the device, and read when the burst with it comes back: what both
//! ports and the bursts add is part of it.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::throughput::Tried;
use super::{Options, Tester, Trial};
use crate::figures::LatencyFigures;

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub struct Latency {
    /// The rate that was offered.
    pub frames_per_second: f64,
    /// The same as a part of the throughput.
    pub load_percent: f64,
    /// Trials.
    pub trials: u32,
    /// Mean over the trials' tagged frames: RFC 2544's figure. None if none of them arrived.
    pub tagged_mean_ns: Option<f64>,
    /// Of all frames; zeros if none arrived.
    #[serde(flatten)]
    pub all: LatencyFigures,
    /// Lost in these trials, of all frames sent.
    pub loss_percent: f64,
}

/// Measures at `throughput` frames a second, times the load asked for; each trial takes twice the trial time.
pub(super) fn measure<T: Tester>(
    tester: &mut T,
    frame: usize,
    options: &Options,
    throughput: f64,
    log: &mut Vec<Tried>,
) -> Result<Latency, T::Error> {
    let rate = throughput * options.latency_load;
    let trials = options.latency_trials.max(1);
    let mut all = Histogram::<u64>::new(3).expect("three digits");
    let (mut tagged, mut sent, mut received) = (Vec::<Duration>::new(), 0, 0);
    for _ in 0..trials {
        let trial = Trial::lasting(frame, rate, options.trial * 2);
        let figures = tester.trial(&trial)?;
        all.add(&figures.latency).expect("an automatic histogram grows");
        tagged.extend(figures.tagged);
        sent += figures.marked.sent;
        received += figures.marked.received;
        log.push((trial, figures));
    }
    let mean = |of: &[Duration]| of.iter().map(|d| d.as_nanos() as f64).sum::<f64>() / of.len() as f64;
    Ok(Latency {
        frames_per_second: rate,
        load_percent: options.latency_load * 100.0,
        trials,
        tagged_mean_ns: (!tagged.is_empty()).then(|| mean(&tagged)),
        all: LatencyFigures::of(&all).unwrap_or_default(),
        loss_percent: if sent == 0 { 0.0 } else { (sent - received) as f64 * 100.0 / sent as f64 },
    })
}

#[cfg(test)]
mod tests {
    use super::super::model::Model;
    use super::*;

    #[test]
    fn the_mean_is_over_the_tagged_frames_and_the_percentiles_over_all() {
        let mut model = Model::carrying(1e6);
        let options = Options { latency_trials: 5, latency_load: 0.5, ..Options::new(10_000_000_000) };
        let found = measure(&mut model, 64, &options, 800e3, &mut Vec::new()).unwrap();
        assert_eq!(found.tagged_mean_ns, Some(100_000.0));
        assert!((found.all.p50_ns as f64 - 100_000.0).abs() < 100.0 && found.all.p50_ns == found.all.max_ns);
        assert_eq!((found.trials, found.frames_per_second), (5, 400e3));
        // Five trials of 120 s.
        assert_eq!((found.all.frames, model.trials.len()), (5 * 400_000 * 120, 5));
    }

    #[test]
    fn where_nothing_arrives_the_names_stand_beside_zeros() {
        let mut model = Model { loss: 1.0, ..Model::carrying(1e6) };
        let options = Options { latency_trials: 2, latency_load: 0.5, ..Options::new(10_000_000_000) };
        let found = measure(&mut model, 64, &options, 800e3, &mut Vec::new()).unwrap();
        let names = r#"{"frames_per_second":400000.0,"load_percent":50.0,"trials":2,"tagged_mean_ns":null,"frames":0,"min_ns":0,"mean_ns":0.0,"p50_ns":0,"p99_ns":0,"p99_9_ns":0,"max_ns":0,"loss_percent":100.0}"#;
        assert_eq!(serde_json::to_string(&found).unwrap(), names);
    }
}
