//! One line of the table: ours beside its anchor, and the bar.

use std::fmt;

use serde::Serialize;

use super::rounds::Orders;
use super::stats::{Spread, ratios};

/// What the median ratio of ours to the anchor has to be.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bar {
    /// Times: this much of the anchor's, or less.
    AtMost(f64),
    /// Rates: this much of the anchor's, or more.
    AtLeast(f64),
}

impl Bar {
    fn met_by(self, ratio: f64) -> bool {
        match self {
            Bar::AtMost(most) => ratio <= most,
            Bar::AtLeast(least) => ratio >= least,
        }
    }
}

impl fmt::Display for Bar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bar::AtMost(most) => write!(f, "<= {most:.1}x"),
            Bar::AtLeast(least) => write!(f, ">= {least:.1}x"),
        }
    }
}

/// Who was measured, and its figures round by round.
#[derive(Clone, Debug, Serialize)]
pub struct Side {
    /// Who.
    pub name: &'static str,
    /// One figure a round.
    pub figures: Vec<f64>,
}

/// Two arms measured in the same rounds.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// What was measured: `buffer-cycle`.
    pub what: &'static str,
    /// Of every figure: `ns/packet`.
    pub unit: &'static str,
    /// What exactly was counted, and where.
    pub boundary: &'static str,
    /// Ours.
    pub ours: Side,
    /// What it is compared with.
    pub anchor: Side,
    /// None: this comparison tells, and does not judge.
    pub bar: Option<Bar>,
    /// In which order they were measured.
    pub orders: Orders,
}

/// What became of a bar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// There is none.
    NoBar,
    /// The median ratio is within it.
    Met,
    /// It is not, or no ratio could be had.
    Missed,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Verdict::NoBar => "",
            Verdict::Met => "met",
            Verdict::Missed => "MISSED",
        })
    }
}

impl Comparison {
    /// Ours to the anchor's, pair by pair.
    pub fn ratios(&self) -> Vec<f64> {
        ratios(&self.ours.figures, &self.anchor.figures)
    }

    /// Whether the median of the ratios meets the bar.
    pub fn verdict(&self) -> Verdict {
        let Some(bar) = self.bar else { return Verdict::NoBar };
        match Spread::of(&self.ratios()) {
            Some(ratio) if bar.met_by(ratio.median) => Verdict::Met,
            _ => Verdict::Missed,
        }
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn comparison(ours: &[f64], anchor: &[f64], bar: Option<Bar>) -> Comparison {
        let side = |name, figures: &[f64]| Side { name, figures: figures.to_vec() };
        Comparison {
            what: "thing",
            unit: "ns",
            boundary: "a test",
            ours: side("ours", ours),
            anchor: side("theirs", anchor),
            bar,
            orders: Orders::default(),
        }
    }

    #[test]
    fn a_bar_judges_the_median_and_is_met_at_its_edge() {
        let verdict = |ours: &[f64], bar| comparison(ours, &[10.0, 10.0, 10.0], Some(bar)).verdict();
        assert_eq!(verdict(&[12.0, 1.0, 99.0], Bar::AtMost(1.2)), Verdict::Met);
        assert_eq!(verdict(&[12.1, 1.0, 99.0], Bar::AtMost(1.2)), Verdict::Missed);
        assert_eq!(verdict(&[7.0, 1.0, 99.0], Bar::AtLeast(0.7)), Verdict::Met);
        assert_eq!(verdict(&[6.9, 1.0, 99.0], Bar::AtLeast(0.7)), Verdict::Missed);
    }

    #[test]
    fn without_a_ratio_a_bar_is_missed() {
        assert_eq!(comparison(&[], &[], Some(Bar::AtMost(1.2))).verdict(), Verdict::Missed);
        assert_eq!(comparison(&[0.0], &[0.0], Some(Bar::AtMost(1.2))).verdict(), Verdict::Missed);
    }

    #[test]
    fn without_a_bar_nothing_is_judged() {
        assert_eq!(comparison(&[9.0], &[1.0], None).verdict(), Verdict::NoBar);
    }
}
