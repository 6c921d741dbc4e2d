//! Back-to-back frames (26.4): the longest burst at line rate of which nothing is lost, as a mean over many searches.
//!
//! With the throughput it tells how much the device buffers: while a burst comes in at line rate, the part that it forwards meanwhile needs no
//! room (RFC 9004, section 6.5).

use serde::Serialize;

use super::throughput::Tried;
use super::{Limit, Options, Tester, Trial, Verdict};

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub struct BackToBack {
    /// Mean of the longest bursts, in frames. None if the generator cannot send at line rate.
    pub frames: Option<f64>,
    /// The shortest of them.
    pub frames_min: Option<u64>,
    /// The longest of them.
    pub frames_max: Option<u64>,
    /// Searches.
    pub searches: u32,
    /// Trials of all searches.
    pub trials: u32,
    /// What is in the way of more: line rate, where the longest burst that is tried passed.
    pub limit: Limit,
    /// Frames that the device buffers, as the burst and the throughput imply (RFC 9004). Where the throughput is known and below line rate.
    pub buffer_frames: Option<f64>,
    /// How long these take at line rate: RFC 9004's corrected buffer time.
    pub buffer_seconds: Option<f64>,
}

/// Measures it. `throughput`: the frames a second that pass without loss, if known.
pub(super) fn measure<T: Tester>(
    tester: &mut T,
    frame: usize,
    options: &Options,
    throughput: Option<f64>,
    log: &mut Vec<Tried>,
) -> Result<BackToBack, T::Error> {
    let before = log.len();
    let mut found: Vec<u64> = Vec::new();
    let mut limit = Limit::LineRate;
    for _ in 0..options.back_to_back_trials.max(1) {
        match longest(tester, frame, options, found.last().copied(), log)? {
            Found::All(frames) => found.push(frames),
            Found::Longest(frames) => {
                limit = Limit::Device;
                found.push(frames);
            }
            Found::NotOffered => {
                found.clear();
                limit = Limit::Generator;
                break;
            }
        }
    }
    let mean = (!found.is_empty()).then(|| found.iter().sum::<u64>() as f64 / found.len() as f64);
    let line_rate = options.line_rate(frame);
    let kept = throughput.map(|rate| 1.0 - rate / line_rate).filter(|kept| *kept > options.resolution);
    let buffer = if limit == Limit::Device { mean.zip(kept).map(|(mean, kept)| mean * kept) } else { None };
    Ok(BackToBack {
        frames: mean,
        frames_min: found.iter().min().copied(),
        frames_max: found.iter().max().copied(),
        searches: found.len() as u32,
        trials: (log.len() - before) as u32,
        limit,
        buffer_frames: buffer,
        buffer_seconds: buffer.map(|frames| frames / line_rate),
    })
}

enum Found {
    /// The longest burst that is tried passed.
    All(u64),
    /// So many frames pass; a few more do not.
    Longest(u64),
    /// The generator cannot send bursts at line rate.
    NotOffered,
}

/// One search. It begins with the last one's result, if there is one, and doubles its steps until the answer lies between two of them.
fn longest<T: Tester>(
    tester: &mut T,
    frame: usize,
    options: &Options,
    last: Option<u64>,
    log: &mut Vec<Tried>,
) -> Result<Found, T::Error> {
    let rate = options.line_rate(frame);
    let max = Trial::lasting(frame, rate, options.burst_max).frames;
    let close = |frames: u64| ((frames as f64 * options.resolution) as u64).max(1);
    let (mut next, mut step) = (last.unwrap_or(max).max(1), last.map_or(max / 2, close).max(1));
    let (mut passed, mut lost) = (0, max + 1);
    while lost - passed > if lost > max { 0 } else { close(lost) } {
        let trial = Trial { frame, rate, frames: next };
        let figures = tester.trial(&trial)?;
        let verdict = figures.verdict(&trial, 0.0);
        log.push((trial, figures));
        match verdict {
            Verdict::Passed if next == max => return Ok(Found::All(max)),
            Verdict::Passed => passed = next,
            Verdict::Lost => lost = next,
            Verdict::NotOffered => return Ok(Found::NotOffered),
        }
        next = match (passed, lost) {
            (_, lost) if lost > max => (passed + step).min(max),
            (0, lost) => lost.saturating_sub(step).max(1),
            _ => passed + (lost - passed) / 2,
        };
        step *= 2;
    }
    Ok(Found::Longest(passed))
}

#[cfg(test)]
mod tests {
    use super::super::model::Model;
    use super::*;

    const LINE_RATE: f64 = 14_880_952.0;

    fn options() -> Options {
        Options { resolution: 1e-9, back_to_back_trials: 5, ..Options::new(10_000_000_000) }
    }

    fn find(model: &mut Model, options: &Options) -> BackToBack {
        measure(model, 64, options, Some(model.capacity), &mut Vec::new()).unwrap()
    }

    #[test]
    fn the_burst_is_what_queue_and_capacity_imply_and_the_buffer_is_the_queue() {
        let mut model = Model { queue: 1000, ..Model::carrying(LINE_RATE * 0.75) };
        let found = find(&mut model, &options());
        // A quarter of the burst has to wait.
        let frames = found.frames.unwrap();
        assert!((frames - 4000.0).abs() <= 4.0, "{frames}");
        assert!((found.buffer_frames.unwrap() - 1000.0).abs() <= 1.0);
        assert!((found.buffer_seconds.unwrap() - 1000.0 / LINE_RATE).abs() < 1e-7);
        assert_eq!((found.searches, found.frames_min), (5, found.frames_max));
        // The first search halves 30 million; the others begin where it ended.
        assert!(found.trials < 60, "{}", found.trials);
    }

    #[test]
    fn any_length_is_found_exactly() {
        for queue in [1, 2, 3, 31, 100, 4097] {
            // Half of each burst has to wait.
            let mut model = Model { queue, ..Model::carrying(LINE_RATE / 2.0) };
            let found = find(&mut model, &Options { back_to_back_trials: 2, ..options() });
            let expected = (2 * queue) as f64;
            assert!((found.frames.unwrap() - expected).abs() <= 1.0, "{queue}: {:?}", found.frames);
        }
    }

    #[test]
    fn a_device_at_line_rate_passes_the_longest_burst() {
        let found = find(&mut Model::carrying(1e9), &options());
        assert_eq!((found.limit, found.trials), (Limit::LineRate, 5));
        assert_eq!(found.frames, Some(29_761_905.0));
        assert_eq!(found.buffer_frames, None);
    }

    #[test]
    fn a_device_that_passes_nothing_has_no_burst() {
        let mut model = Model { loss: 1.0, ..Model::carrying(1e9) };
        let found = find(&mut model, &options());
        assert_eq!((found.frames, found.limit), (Some(0.0), Limit::Device));
    }

    #[test]
    fn a_generator_below_line_rate_cannot_tell() {
        let mut model = Model { generator: LINE_RATE / 2.0, ..Model::carrying(1e9) };
        let found = find(&mut model, &options());
        assert_eq!((found.frames, found.limit, found.trials), (None, Limit::Generator, 1));
    }

    /// Chance moves the result from search to search; each begins with the last one's and finds its way all the same.
    #[test]
    fn noise_moves_it_but_does_not_derail_it() {
        for seed in 0..20 {
            let queue = 1000;
            let mut model = Model { queue, mishap: 0.05, seed, ..Model::carrying(LINE_RATE / 2.0) };
            let found = find(&mut model, &Options { back_to_back_trials: 20, resolution: 0.01, ..options() });
            let most = found.frames_max.unwrap();
            assert!((1900..=2010).contains(&most), "seed {seed}: {most}");
        }
    }
}
