//! Frame loss rate (26.3): what is lost at rates from line rate down in steps, until two in a row lose nothing.

use serde::Serialize;

use super::throughput::Tried;
use super::{Options, Tester, Trial, Verdict, percent_of_line};

/// A point of the curve.
#[derive(Clone, Debug, Serialize)]
pub struct LossPoint {
    /// Asked for, of line rate.
    pub offered_percent: f64,
    /// Sent, of line rate. Less than was asked for where the generator cannot do more.
    pub sent_percent: f64,
    /// The same in frames a second.
    pub sent_frames_per_second: f64,
    /// Of those sent.
    pub loss_percent: f64,
    /// What the trial says of the device.
    pub verdict: Verdict,
}

/// Measures the curve.
pub(super) fn curve<T: Tester>(
    tester: &mut T,
    frame: usize,
    options: &Options,
    log: &mut Vec<Tried>,
) -> Result<Vec<LossPoint>, T::Error> {
    let mut points: Vec<LossPoint> = Vec::new();
    let mut clean = 0;
    for step in 0..steps(options.loss_step) {
        let part = 1.0 - f64::from(step) * options.loss_step;
        let trial = Trial::lasting(frame, options.line_rate(frame) * part, options.trial);
        let figures = tester.trial(&trial)?;
        let verdict = figures.verdict(&trial, 0.0);
        let sent = figures.sent_per_second();
        points.push(LossPoint {
            offered_percent: part * 100.0,
            sent_percent: percent_of_line(sent, options.line_rate_bits_per_second, frame),
            sent_frames_per_second: sent,
            loss_percent: figures.loss() * 100.0,
            verdict,
        });
        log.push((trial, figures));
        // What was not offered lost nothing either, and says nothing.
        clean = if verdict == Verdict::Passed { clean + 1 } else { 0 };
        if clean == 2 {
            break;
        }
    }
    Ok(points)
}

/// Points at most: the last one is above zero.
pub(super) fn steps(step: f64) -> u32 {
    (1.0 / step - 1e-9).ceil() as u32
}

#[cfg(test)]
mod tests {
    use super::super::model::Model;
    use super::*;

    fn points(mut model: Model, loss_step: f64) -> Vec<(f64, f64)> {
        let options = Options { loss_step, ..Options::new(10_000_000_000) };
        let points = curve(&mut model, 64, &options, &mut Vec::new()).unwrap();
        points.iter().map(|point| (point.offered_percent.round(), point.loss_percent)).collect()
    }

    #[test]
    fn two_trials_without_loss_end_it() {
        // 65 % of line rate.
        let capacity = 14_880_952.0 * 0.65;
        let found = points(Model::carrying(capacity), 0.1);
        let offered: Vec<f64> = found.iter().map(|point| point.0).collect();
        assert_eq!(offered, [100.0, 90.0, 80.0, 70.0, 60.0, 50.0]);
        for (offered, loss) in found {
            let expected = (100.0 * (1.0 - 65.0 / offered)).max(0.0);
            assert!((loss - expected).abs() < 0.01, "{offered} %: {loss}, not {expected}");
        }
    }

    #[test]
    fn it_ends_at_the_lowest_step_where_something_is_always_lost() {
        let found = points(Model { loss: 0.01, ..Model::carrying(1e9) }, 0.25);
        assert_eq!(found.iter().map(|point| point.0).collect::<Vec<_>>(), [100.0, 75.0, 50.0, 25.0]);
    }

    #[test]
    fn what_was_not_offered_is_no_trial_without_loss() {
        // The generator reaches a third: all above is said by name, and does not end the curve.
        let mut model = Model { generator: 14_880_952.0 / 3.0, ..Model::carrying(1e9) };
        let options = Options::new(10_000_000_000);
        let points = curve(&mut model, 64, &options, &mut Vec::new()).unwrap();
        let not_offered = points.iter().filter(|point| point.verdict == Verdict::NotOffered).count();
        assert_eq!((points.len(), not_offered), (9, 7));
        assert!((points[0].sent_percent - 33.333).abs() < 0.01);
    }
}
