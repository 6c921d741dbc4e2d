//! What several measurements of one thing come to.

use serde::Serialize;

/// The middle of several figures, with the lowest and the highest.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// The middle one; of an even number, halfway between the two in the middle.
    pub median: f64,
    /// The lowest.
    pub min: f64,
    /// The highest.
    pub max: f64,
}

impl Spread {
    /// None: there are no figures, or one of them is no finite number.
    pub fn of(figures: &[f64]) -> Option<Spread> {
        if figures.is_empty() || !figures.iter().all(|figure| figure.is_finite()) {
            return None;
        }
        let mut sorted = figures.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (below, above) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
        Some(Spread { median: (below + above) / 2.0, min: sorted[0], max: sorted[sorted.len() - 1] })
    }
}

/// Fewer figures are given no interval: with five, that all lie on the wrong side by chance is one in 32, with four already one in 16.
pub const FIGURES_LEAST: usize = 5;
/// How often the figures are drawn anew.
const RESAMPLES: usize = 4000;

/// Where the median would lie if everything were measured again: 95 %, by bootstrap.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Interval {
    /// 2.5 % of the medians lie below.
    pub low: f64,
    /// 2.5 % lie above.
    pub high: f64,
}

impl Interval {
    /// Draws as many of the figures as there are, with replacement, again and again; the medians' percentiles are the interval. The seed determines it.
    /// None: too few figures ([`FIGURES_LEAST`]), or one of them is no finite number.
    pub fn of(figures: &[f64], seed: u64) -> Option<Interval> {
        Spread::of(figures).filter(|_| figures.len() >= FIGURES_LEAST)?;
        let mut random = fastrand::Rng::with_seed(seed);
        let mut drawn = vec![0.0; figures.len()];
        let mut medians: Vec<f64> = (0..RESAMPLES)
            .map(|_| {
                drawn.fill_with(|| figures[random.usize(..figures.len())]);
                Spread::of(&drawn).expect("all are finite").median
            })
            .collect();
        medians.sort_by(f64::total_cmp);
        let tail = RESAMPLES / 40;
        Some(Interval { low: medians[tail], high: medians[RESAMPLES - 1 - tail] })
    }
}

/// Ours to the anchor's, pair by pair: what was measured side by side is compared, and only that.
pub fn ratios(ours: &[f64], anchor: &[f64]) -> Vec<f64> {
    ours.iter().zip(anchor).map(|(ours, anchor)| ours / anchor).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_of_an_odd_number_is_one_of_them() {
        let spread = Spread::of(&[9.0, 1.0, 4.0]).unwrap();
        assert_eq!(spread, Spread { median: 4.0, min: 1.0, max: 9.0 });
    }

    #[test]
    fn median_of_an_even_number_is_between_the_two_in_the_middle() {
        assert_eq!(Spread::of(&[10.0, 1.0, 2.0, 4.0]).unwrap().median, 3.0);
    }

    #[test]
    fn one_figure_is_its_own_spread() {
        assert_eq!(Spread::of(&[7.0]).unwrap(), Spread { median: 7.0, min: 7.0, max: 7.0 });
    }

    #[test]
    fn nothing_and_what_is_no_number_have_no_spread() {
        assert_eq!(Spread::of(&[]), None);
        assert_eq!(Spread::of(&[1.0, f64::NAN]), None);
        assert_eq!(Spread::of(&ratios(&[1.0], &[0.0])), None);
    }

    #[test]
    fn of_five_figures_the_interval_is_from_the_lowest_to_the_highest() {
        // A median of five drawn ones is the lowest of them in 5.8 % of all draws.
        let interval = Interval::of(&[3.0, 1.0, 2.0, 5.0, 4.0], 7).unwrap();
        assert_eq!(interval, Interval { low: 1.0, high: 5.0 });
    }

    #[test]
    fn of_many_figures_the_interval_is_narrow_and_covers_the_median_as_often_as_it_says() {
        let mut random = fastrand::Rng::with_seed(7);
        // Evenly spread over 0..1: the median is 0.5.
        let mut covered = 0;
        for seed in 0..200 {
            let figures: Vec<f64> = (0..25).map(|_| random.f64()).collect();
            let Interval { low, high } = Interval::of(&figures, seed).unwrap();
            assert!(high - low < 0.7, "{low}..{high} of {figures:?}");
            covered += usize::from((low..=high).contains(&0.5));
        }
        assert!((180..200).contains(&covered), "{covered} of 200");
    }

    #[test]
    fn the_seed_determines_the_interval_and_few_figures_have_none() {
        let figures: Vec<f64> = (0..20).map(|n| f64::from(n * n)).collect();
        assert_eq!(Interval::of(&figures, 3), Interval::of(&figures, 3));
        assert_eq!(Interval::of(&[1.0; 4], 3), None);
        assert_eq!(Interval::of(&[1.0, 1.0, 1.0, 1.0, f64::NAN], 3), None);
        assert_eq!(Interval::of(&[2.0; 5], 3), Some(Interval { low: 2.0, high: 2.0 }));
    }

    #[test]
    fn ratios_pair_by_pair_do_not_see_drift_that_both_arms_share() {
        // The machine slows down threefold meanwhile; each pair still says 2.
        let (ours, anchor) = ([20.0, 40.0, 60.0], [10.0, 20.0, 30.0]);
        assert_eq!(ratios(&ours, &anchor), [2.0, 2.0, 2.0]);
    }
}
