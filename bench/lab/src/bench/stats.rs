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
    fn ratios_pair_by_pair_do_not_see_drift_that_both_arms_share() {
        // The machine slows down threefold meanwhile; each pair still says 2.
        let (ours, anchor) = ([20.0, 40.0, 60.0], [10.0, 20.0, 30.0]);
        assert_eq!(ratios(&ours, &anchor), [2.0, 2.0, 2.0]);
    }
}
