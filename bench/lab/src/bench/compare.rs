//! One line of the table: ours beside its anchor, and the bar.

use std::fmt;

use serde::Serialize;

use super::rounds::Orders;
use super::stats::{Spread, ratios};

/// What the absolute bars assume the C buffer cycle to take. ns.
pub const REFERENCE_CYCLE: f64 = 17.0;

/// What the median of the rounds has to be. The first two are of the ratio of ours to the anchor. The others are in the line's unit, and
/// stretch with the buffer cycle in C of the same round (times by it, rates against it), so that they ask the same of a slow machine as of
/// a fast one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bar {
    /// Times: this much of the anchor's, or less.
    AtMost(f64),
    /// Rates: this much of the anchor's, or more.
    AtLeast(f64),
    /// Ours: this or less.
    Within(f64),
    /// Ours: this or less above the anchor.
    WithinOver(f64),
    /// Ours, a rate: this or more.
    Reaches(f64),
}

impl Bar {
    fn met_by(self, judged: f64) -> bool {
        match self {
            Bar::AtMost(most) | Bar::Within(most) | Bar::WithinOver(most) => judged <= most,
            Bar::AtLeast(least) | Bar::Reaches(least) => judged >= least,
        }
    }

    /// Whether it stretches with the machine.
    pub fn is_absolute(self) -> bool {
        matches!(self, Bar::Within(_) | Bar::WithinOver(_) | Bar::Reaches(_))
    }
}

impl fmt::Display for Bar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bar::AtMost(most) => write!(f, "<= {most:.1}x"),
            Bar::AtLeast(least) => write!(f, ">= {least:.1}x"),
            Bar::Within(most) => write!(f, "<= {most:.1}"),
            Bar::WithinOver(most) => write!(f, "<= anchor + {most:.1}"),
            Bar::Reaches(least) => write!(f, ">= {least:.0}"),
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
    /// The buffer cycle in C in the same rounds, ns of CPU time, where the bar is absolute; else nothing.
    pub cycles: Vec<f64>,
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

    /// What the bar judges, round by round.
    fn judged(&self, bar: Bar) -> Vec<f64> {
        let stretched = |figures: &mut dyn Iterator<Item = f64>| -> Vec<f64> {
            figures.zip(&self.cycles).map(|(figure, cycle)| figure / (cycle / REFERENCE_CYCLE)).collect()
        };
        let (ours, anchor) = (self.ours.figures.iter(), &self.anchor.figures);
        match bar {
            Bar::AtMost(_) | Bar::AtLeast(_) => self.ratios(),
            Bar::Within(_) => stretched(&mut ours.copied()),
            Bar::WithinOver(_) => stretched(&mut ours.zip(anchor).map(|(ours, anchor)| ours - anchor)),
            Bar::Reaches(_) => {
                ours.zip(&self.cycles).map(|(rate, cycle)| rate * (cycle / REFERENCE_CYCLE)).collect()
            }
        }
    }

    /// The median of what the bar judges; an absolute one as on a machine that does not stretch it.
    pub fn judgement(&self) -> Option<f64> {
        Some(Spread::of(&self.judged(self.bar?))?.median)
    }

    /// Whether that median meets the bar.
    pub fn verdict(&self) -> Verdict {
        let Some(bar) = self.bar else { return Verdict::NoBar };
        match self.judgement() {
            Some(judged) if bar.met_by(judged) => Verdict::Met,
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
            cycles: Vec::new(),
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
    fn an_absolute_bar_stretches_with_the_cycle_of_the_same_round() {
        // The machine is half as fast in the second round, and so is everything else.
        let verdict = |ours: [f64; 2], bar| {
            let cycles = vec![17.0, 34.0];
            Comparison { cycles, ..comparison(&ours, &[0.5, 1.0], Some(bar)) }.verdict()
        };
        assert_eq!(verdict([1.5, 3.0], Bar::Within(1.5)), Verdict::Met);
        assert_eq!(verdict([1.6, 3.2], Bar::Within(1.5)), Verdict::Missed);
        assert_eq!(verdict([1.5, 3.0], Bar::WithinOver(1.0)), Verdict::Met);
        assert_eq!(verdict([1.6, 3.2], Bar::WithinOver(1.0)), Verdict::Missed);
        // A rate of half as much on a machine that is half as fast.
        assert_eq!(verdict([8.0, 4.0], Bar::Reaches(8.0)), Verdict::Met);
        assert_eq!(verdict([7.9, 3.9], Bar::Reaches(8.0)), Verdict::Missed);
    }

    #[test]
    fn an_absolute_bar_without_a_cycle_is_missed() {
        assert_eq!(comparison(&[1.0], &[1.0], Some(Bar::Within(9.0))).verdict(), Verdict::Missed);
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
