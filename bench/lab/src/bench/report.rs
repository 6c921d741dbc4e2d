//! What a run says at its end: the table, the file of figures, the bars that were missed.

use std::fmt;

use serde::Serialize;

use super::compare::{Bar, Comparison, REFERENCE_CYCLE, Verdict};
use super::machine::Machine;
use super::stats::Spread;

/// Everything that a run found out.
#[derive(Serialize)]
pub struct Report {
    /// Where.
    pub machine: Machine,
    /// What the random orders were drawn from.
    pub seed: u64,
    /// Rounds.
    pub pairs: usize,
    /// The lines of the table.
    pub comparisons: Vec<Line>,
    /// What was missed besides bars of those lines, in words.
    pub other_missed: Vec<String>,
    /// Benches that ended without figures, and why.
    pub failed: Vec<(String, String)>,
}

/// A comparison and what it comes to.
#[derive(Serialize)]
pub struct Line {
    #[serde(flatten)]
    comparison: Comparison,
    ours_spread: Option<Spread>,
    anchor_spread: Option<Spread>,
    ratios: Vec<f64>,
    ratio: Option<Spread>,
    verdict: Verdict,
}

impl From<Comparison> for Line {
    fn from(comparison: Comparison) -> Line {
        let ratios = comparison.ratios();
        Line {
            ours_spread: Spread::of(&comparison.ours.figures),
            anchor_spread: Spread::of(&comparison.anchor.figures),
            ratio: Spread::of(&ratios),
            verdict: comparison.verdict(),
            ratios,
            comparison,
        }
    }
}

impl std::ops::Deref for Line {
    type Target = Comparison;

    fn deref(&self) -> &Comparison {
        &self.comparison
    }
}

impl Report {
    /// What was missed, in words: a bar each, and benches that failed.
    pub fn missed(&self) -> Vec<String> {
        let missed = self.comparisons.iter().filter(|line| line.verdict == Verdict::Missed).map(Line::words);
        let failed = self.failed.iter().map(|(name, why)| format!("{name}: no figures: {why}"));
        missed.chain(self.other_missed.iter().cloned()).chain(failed).collect()
    }

    /// Whether the run ends with an error: a missed bar is one only where bars are checked, a bench without figures always.
    pub fn fails(&self, check: bool) -> bool {
        !self.failed.is_empty() || (check && !self.missed().is_empty())
    }

    /// By how much absolute bars stretch on this machine: what the buffer cycle in C takes, where 17 ns is 1.
    pub fn scale(&self) -> Option<f64> {
        let mut cycles: Vec<f64> = Vec::new();
        for line in &self.comparisons {
            cycles.extend(&line.cycles);
        }
        if cycles.is_empty() {
            cycles.extend(&self.comparisons.iter().find(|line| line.what == "buffer-cycle")?.anchor.figures);
        }
        Some(Spread::of(&cycles)?.median / REFERENCE_CYCLE)
    }
}

impl Line {
    fn words(&self) -> String {
        let Comparison { what, ref anchor, bar, .. } = self.comparison;
        let judged = match (bar, self.comparison.judgement()) {
            (_, None) => "no ratio".into(),
            (Some(Bar::Reaches(_)), Some(figure)) => format!("{figure:.0} unstretched"),
            (Some(Bar::Within(_)), Some(figure)) => format!("{figure:.2} unstretched"),
            (Some(Bar::WithinOver(_)), Some(figure)) => format!("{figure:.2} over it, unstretched"),
            (_, Some(ratio)) => format!("{ratio:.2}x"),
        };
        let bar = bar.map_or(String::new(), |bar| bar.to_string());
        format!("{what} against {}: {judged}, the bar is {bar}", anchor.name)
    }

    fn cells(&self) -> [String; 6] {
        let comparison = &self.comparison;
        let side = |name, spread: Option<Spread>| {
            let figure = spread.map_or("-".into(), |spread| three_digits(spread.median));
            format!("{figure} ({name})")
        };
        [
            format!("{} [{}]", comparison.what, comparison.unit),
            side(comparison.ours.name, self.ours_spread),
            side(comparison.anchor.name, self.anchor_spread),
            self.ratio.map_or("-".into(), |r| format!("{:.2}x ({:.2}..{:.2})", r.median, r.min, r.max)),
            comparison.bar.map_or("-".into(), |bar| bar.to_string()),
            self.verdict.to_string(),
        ]
    }
}

/// A figure with three digits that mean something, and no more than two behind the point.
fn three_digits(figure: f64) -> String {
    match figure.abs() {
        size if size >= 100.0 => format!("{figure:.0}"),
        size if size >= 10.0 => format!("{figure:.1}"),
        _ => format!("{figure:.2}"),
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let titles = ["what", "ours", "anchor", "ratio (min..max)", "bar", ""].map(String::from);
        // Without comparisons there is nothing to have titles for.
        let titles = (!self.comparisons.is_empty()).then_some(titles);
        let rows: Vec<_> = titles.into_iter().chain(self.comparisons.iter().map(Line::cells)).collect();
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: [usize; 6] = std::array::from_fn(width);
        for row in &rows {
            let cells: Vec<_> =
                row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
            writeln!(f, "{}", cells.join("  ").trim_end())?;
        }
        if let Some(scale) = self.scale() {
            writeln!(
                f,
                "absolute bars (those without x), which assume that the buffer cycle in C takes 17 ns, stretch by {scale:.2}"
            )?;
        }
        write!(f, "medians of {} rounds, arms interleaved at random, seed {}", self.pairs, self.seed)
    }
}

#[cfg(test)]
mod tests {
    use super::super::compare::{Bar, tests::comparison};
    use super::*;

    fn report(comparisons: Vec<Comparison>) -> Report {
        let comparisons = comparisons.into_iter().map(Line::from).collect();
        Report {
            machine: Machine::describe(),
            seed: 7,
            pairs: 3,
            comparisons,
            other_missed: Vec::new(),
            failed: Vec::new(),
        }
    }

    #[test]
    fn the_table_has_medians_ratios_and_verdicts() {
        let (ours, anchor) = ([20.0, 40.0, 45.0], [20.0, 20.0, 20.0]);
        let table = report(vec![comparison(&ours, &anchor, Some(Bar::AtMost(1.2)))]).to_string();
        let line = table.lines().nth(1).unwrap();
        assert_eq!(line, "thing [ns]  40.0 (ours)  20.0 (theirs)  2.00x (1.00..2.25)  <= 1.2x  MISSED");
        assert!(table.ends_with("seed 7"));
    }

    #[test]
    fn only_missed_bars_and_failures_are_named() {
        let good = comparison(&[1.0], &[1.0], Some(Bar::AtMost(1.2)));
        let bad = comparison(&[2.0], &[1.0], Some(Bar::AtMost(1.2)));
        let mut report = report(vec![good, bad, comparison(&[9.0], &[1.0], None)]);
        report.failed.push(("other".into(), "it broke".into()));
        let expected = ["thing against theirs: 2.00x, the bar is <= 1.2x", "other: no figures: it broke"];
        assert_eq!(report.missed(), expected);
    }

    #[test]
    fn a_missed_bar_fails_a_check_and_a_bench_without_figures_fails_always() {
        let with = |ours| report(vec![comparison(&[ours], &[1.0], Some(Bar::AtMost(1.2)))]);
        assert_eq!(
            [with(1.0).fails(true), with(2.0).fails(true), with(2.0).fails(false)],
            [false, true, false]
        );
        let mut broken = with(1.0);
        broken.failed.push(("other".into(), "it broke".into()));
        assert!(broken.fails(false));
    }

    #[test]
    fn what_else_is_missed_fails_a_check_alone() {
        let mut report = report(vec![]);
        report.other_missed.push("vs-kernel: io_uring has no figures".into());
        assert_eq!(report.missed(), ["vs-kernel: io_uring has no figures"]);
        assert_eq!([report.fails(true), report.fails(false)], [true, false]);
    }

    #[test]
    fn the_scale_is_the_anchor_of_the_buffer_cycle() {
        let cycle = Comparison { what: "buffer-cycle", ..comparison(&[1.0], &[34.0], None) };
        assert_eq!(report(vec![comparison(&[1.0], &[1.0], None), cycle]).scale(), Some(2.0));
        assert_eq!(report(vec![]).scale(), None);
    }

    #[test]
    fn the_scale_is_known_where_a_bar_needs_it_and_a_missed_one_is_told_unstretched() {
        let line = comparison(&[4.0, 6.0], &[2.0, 2.0], Some(Bar::Within(1.5)));
        let report = report(vec![Comparison { cycles: vec![34.0, 34.0], ..line }]);
        assert_eq!(report.scale(), Some(2.0));
        assert_eq!(report.missed(), ["thing against theirs: 2.50 unstretched, the bar is <= 1.5"]);
    }

    #[test]
    fn the_file_keeps_every_figure() {
        let line = comparison(&[1.0, 3.0], &[2.0, 4.0], Some(Bar::AtLeast(0.7)));
        let json = serde_json::to_value(report(vec![line])).unwrap();
        let line = &json["comparisons"][0];
        assert_eq!(line["ours"]["figures"], serde_json::json!([1.0, 3.0]));
        assert_eq!(line["anchor"]["figures"], serde_json::json!([2.0, 4.0]));
        assert_eq!(line["ratios"], serde_json::json!([0.5, 0.75]));
        assert_eq!(line["bar"]["at_least"], 0.7);
        assert_eq!((&json["seed"], &line["verdict"]), (&7.into(), &"missed".into()));
    }
}
