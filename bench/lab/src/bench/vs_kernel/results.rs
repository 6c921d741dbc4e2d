//! What a run came to: every arm's turns, what was missing, and pairs of figures from the same round.

use std::collections::BTreeMap;

use serde::Serialize;

use super::arms::{Spec, Whose};
use super::curve::{self, Point};
use super::measure::{Better, Measure, Turn, Work};
use crate::bench::stats::{Interval, Spread};

/// One arm over all rounds.
#[derive(Serialize)]
pub struct ArmResults {
    /// Who.
    #[serde(flatten)]
    pub spec: &'static Spec,
    /// Round by round.
    pub turns: Vec<Turn>,
}

/// All arms, in the order of the table.
#[derive(Serialize)]
pub struct Results {
    /// Rounds.
    pub pairs: usize,
    /// What orders and intervals were drawn from.
    pub seed: u64,
    /// Arms.
    pub arms: Vec<ArmResults>,
    /// The buffer cycle in C of each round, ns.
    pub cycles: Vec<f64>,
}

/// What one arm's figures come to.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// Median, lowest, highest.
    pub spread: Spread,
    /// Of the median, where there are rounds enough.
    pub interval: Option<Interval>,
}

impl ArmResults {
    /// The figures of a measure by round.
    pub fn by_round(&self, measure: Measure) -> BTreeMap<usize, f64> {
        let figure = |(round, turn): (usize, &Turn)| Some((round, *turn.figures.get(&measure)?));
        self.turns.iter().enumerate().filter_map(figure).collect()
    }

    /// What they come to.
    pub fn summary(&self, measure: Measure, seed: u64) -> Option<Summary> {
        let figures: Vec<f64> = self.by_round(measure).into_values().collect();
        Some(Summary { spread: Spread::of(&figures)?, interval: Interval::of(&figures, seed) })
    }

    /// The median.
    pub fn median(&self, measure: Measure) -> Option<f64> {
        let figures: Vec<f64> = self.by_round(measure).into_values().collect();
        Some(Spread::of(&figures)?.median)
    }

    /// The median curve.
    pub fn curve(&self, work: Work) -> Vec<Point> {
        let curves: Vec<&[Point]> =
            self.turns.iter().filter_map(|turn| turn.curves.get(&work)).map(Vec::as_slice).collect();
        curve::median(&curves)
    }
}

impl Results {
    /// Arms of one side.
    pub fn of(&self, whose: Whose) -> impl Iterator<Item = &ArmResults> {
        self.arms.iter().filter(move |arm| arm.spec.whose == whose)
    }

    /// The arm called so.
    pub fn arm(&self, name: &str) -> Option<&ArmResults> {
        self.arms.iter().find(|arm| arm.spec.name == name)
    }

    /// The kernel's way with the best median of a measure: that it is chosen by the figures of this run favours the kernel.
    pub fn kernels_best(&self, measure: Measure) -> Option<&ArmResults> {
        let medians = self.of(Whose::Kernel).filter_map(|arm| Some((arm.median(measure)?, arm)));
        let best = match measure.kind().better {
            Better::More => medians.max_by(|(a, _), (b, _)| a.total_cmp(b)),
            Better::Less => medians.min_by(|(a, _), (b, _)| a.total_cmp(b)),
        };
        best.map(|(_, arm)| arm)
    }

    /// One arm's figures beside another's, from the rounds in which both have one.
    pub fn pairs(&self, ours: &ArmResults, anchor: &ArmResults, measure: Measure) -> (Vec<f64>, Vec<f64>) {
        let (ours, anchor) = (ours.by_round(measure), anchor.by_round(measure));
        ours.into_iter().filter_map(|(round, figure)| Some((figure, *anchor.get(&round)?))).unzip()
    }

    /// Arms and figures that are not there although they should be, by name, and too few rounds.
    pub fn missing(&self, least: usize) -> Vec<String> {
        let mut missing = Vec::new();
        if self.pairs < least {
            let rounds = if self.pairs == 1 { "pair" } else { "pairs" };
            missing.push(format!("vs-kernel: {} {rounds}, the bar is >= {least}", self.pairs));
        }
        for arm in &self.arms {
            let name = arm.spec.name;
            for measure in arm.spec.measures {
                let figures = arm.by_round(*measure).len();
                if figures < self.pairs {
                    let title = measure.kind().title;
                    missing.push(format!(
                        "vs-kernel: {name}, {title}: figures of {figures} of {} rounds",
                        self.pairs
                    ));
                }
            }
            let faults = arm.turns.iter().flat_map(|turn| &turn.faults);
            missing.extend(faults.map(|fault| format!("vs-kernel: {name}: {fault}")));
        }
        missing
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    static KERNEL: Spec = Spec { measures: &[Measure::Echo], ..Spec::kernel("mmsg", "kernel: mmsg") };
    static SLOWER: Spec = Spec { measures: &[Measure::Echo], ..Spec::kernel("blocking", "kernel: blocking") };
    static OURS: Spec = Spec { measures: &[Measure::Echo], ..Spec::ours("", "", "memory:") };

    fn arm(spec: &'static Spec, measure: Measure, figures: &[Option<f64>]) -> ArmResults {
        let turn = |figure: &Option<f64>| Turn {
            figures: figure.iter().map(|figure| (measure, *figure)).collect(),
            ..Turn::default()
        };
        ArmResults { spec, turns: figures.iter().map(turn).collect() }
    }

    /// Ours beside two ways of the kernel's, with the same figure in each.
    pub fn results(measure: Measure, ours: &[f64], kernel: &[f64], slower: &[f64]) -> Results {
        let some = |figures: &[f64]| figures.iter().copied().map(Some).collect::<Vec<_>>();
        let arms = vec![
            arm(&SLOWER, measure, &some(slower)),
            arm(&KERNEL, measure, &some(kernel)),
            arm(&OURS, measure, &some(ours)),
        ];
        Results { pairs: ours.len(), seed: 7, arms, cycles: vec![17.0; ours.len()] }
    }

    #[test]
    fn the_kernels_best_depends_on_which_way_is_better() {
        let best =
            |measure| results(measure, &[1.0], &[20.0], &[10.0]).kernels_best(measure).unwrap().spec.name;
        assert_eq!(best(Measure::Echo), "kernel: mmsg");
        assert_eq!(best(Measure::RoundTrip), "kernel: blocking");
    }

    #[test]
    fn only_figures_of_the_same_round_are_paired() {
        let ours = arm(&OURS, Measure::Echo, &[Some(1.0), None, Some(3.0)]);
        let kernel = arm(&KERNEL, Measure::Echo, &[None, Some(20.0), Some(30.0)]);
        let results = Results { pairs: 3, seed: 7, arms: vec![ours, kernel], cycles: Vec::new() };
        let pairs = results.pairs(&results.arms[0], &results.arms[1], Measure::Echo);
        assert_eq!(pairs, (vec![3.0], vec![30.0]));
    }

    #[test]
    fn what_is_missing_is_named() {
        let mut results = results(Measure::Echo, &[1.0; 5], &[1.0; 5], &[1.0; 5]);
        assert_eq!(results.missing(5), Vec::<String>::new());
        assert_eq!(results.missing(6), ["vs-kernel: 5 pairs, the bar is >= 6"]);
        results.arms[2].turns[1] = Turn { faults: vec!["a payload was wrong".into()], ..Turn::default() };
        let told = results.missing(5);
        assert_eq!(told[0], "vs-kernel: memory:, UDP echo at saturation: figures of 4 of 5 rounds");
        assert_eq!(told[1], "vs-kernel: memory:: a payload was wrong");
    }
}
