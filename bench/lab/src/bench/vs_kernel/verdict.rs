//! Who wins, in words, from the figures and their intervals alone.
//!
//! Each port of ours is held against the kernel's best way, figure by figure, by the median of the ratios of each round and that median's
//! interval. An interval that has 1 in it is no difference; without an interval nothing is claimed.

use std::fmt;

use serde::Serialize;

use super::arms::Whose;
use super::measure::{Better, Measure, human};
use super::results::{ArmResults, Results};
use crate::bench::stats::{Interval, Spread, ratios};

/// What the interval says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Seen {
    /// Ours is better.
    Ours,
    /// The kernel's best is better.
    Kernel,
    /// The interval has 1 in it.
    NoDifference,
    /// Too few rounds for an interval.
    TooFew,
}

/// One port of ours beside the kernel's best.
#[derive(Clone, Debug, Serialize)]
pub struct Claim {
    /// Of what.
    pub measure: Measure,
    /// The port.
    pub ours: &'static str,
    /// Its median.
    pub ours_median: f64,
    /// The kernel's best way.
    pub kernel: &'static str,
    /// Its median.
    pub kernel_median: f64,
    /// Ours to the kernel's, the median over the rounds.
    pub ratio: f64,
    /// Of that median.
    pub interval: Option<Interval>,
    /// What follows.
    pub seen: Seen,
}

impl Claim {
    /// How many times better ours is, whichever way is better.
    pub fn advantage(&self) -> f64 {
        match self.measure.kind().better {
            Better::More => self.ratio,
            Better::Less => 1.0 / self.ratio,
        }
    }

    /// Who wins, and by how much: `rxline by 1.97x`.
    pub fn in_short(&self) -> String {
        let advantage = self.advantage();
        let who = if advantage >= 1.0 { "rxline" } else { "kernel" };
        let by = times(advantage.max(1.0 / advantage), None);
        match self.seen {
            Seen::Ours | Seen::Kernel => format!("{who} by {by}"),
            Seen::NoDifference => "no difference seen".into(),
            Seen::TooFew => format!("{who} by {by}, too few rounds"),
        }
    }
}

/// What the interval of a ratio of ours to the anchor's says.
fn seen(interval: Option<Interval>, better: Better) -> Seen {
    let Some(Interval { low, high }) = interval else { return Seen::TooFew };
    match better {
        _ if low <= 1.0 && high >= 1.0 => Seen::NoDifference,
        Better::More if low > 1.0 => Seen::Ours,
        Better::Less if high < 1.0 => Seen::Ours,
        _ => Seen::Kernel,
    }
}

/// Every port of ours beside the kernel's best, by measure.
pub fn claims(results: &Results) -> Vec<Claim> {
    let mut claims = Vec::new();
    for measure in Measure::ALL {
        let Some(kernel) = results.kernels_best(measure) else { continue };
        for ours in results.of(Whose::Ours) {
            let (ours_figures, kernel_figures) = results.pairs(ours, kernel, measure);
            let ratios = ratios(&ours_figures, &kernel_figures);
            let Some(Spread { median: ratio, .. }) = Spread::of(&ratios) else { continue };
            let medians = (ours.median(measure), kernel.median(measure));
            let (Some(ours_median), Some(kernel_median)) = medians else { continue };
            let interval = Interval::of(&ratios, results.seed);
            claims.push(Claim {
                measure,
                ours: ours.spec.name,
                ours_median,
                kernel: kernel.spec.name,
                kernel_median,
                ratio,
                interval,
                seen: seen(interval, measure.kind().better),
            });
        }
    }
    claims
}

/// What a reader of the first page is told under one heading.
#[derive(Debug, PartialEq, Serialize)]
pub struct Section {
    /// The heading.
    pub title: String,
    /// A sentence for each measure.
    pub sentences: Vec<String>,
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.title)?;
        if self.sentences.is_empty() {
            return write!(f, " nowhere");
        }
        self.sentences.iter().try_for_each(|sentence| write!(f, "\n  {sentence}"))
    }
}

/// The first page: where we win, where the kernel wins, where no difference is seen. A section without sentences says so.
pub fn sections(claims: &[Claim]) -> Vec<Section> {
    let titles = [
        (Seen::Ours, "Where rxline wins"),
        (Seen::Kernel, "Where the kernel wins"),
        (Seen::NoDifference, "Where no difference is seen"),
        (Seen::TooFew, "Too few rounds to tell (ratios without an interval)"),
    ];
    let section = |(seen, title): (Seen, &str)| {
        let of_kind: Vec<&Claim> = claims.iter().filter(|claim| claim.seen == seen).collect();
        let sentences = Measure::ALL.into_iter().filter_map(|measure| sentence(&of_kind, measure)).collect();
        Section { title: title.into(), sentences }
    };
    // Nobody needs to be told that there were rounds enough.
    titles
        .into_iter()
        .map(section)
        .filter(|section| !section.title.starts_with("Too few") || !section.sentences.is_empty())
        .collect()
}

/// What only one side has a figure of. There is no ratio then, and it is told all the same. None: there is nothing of the kind.
pub fn one_sided(results: &Results) -> Option<Section> {
    let names = |arms: Vec<&ArmResults>| arms.iter().map(|arm| arm.spec.name).collect::<Vec<_>>().join(", ");
    let sentence = |measure: Measure| {
        let kind = measure.kind();
        let (have, lack): (Vec<_>, Vec<_>) =
            results.of(Whose::Ours).partition(|arm| arm.median(measure).is_some());
        match results.kernels_best(measure) {
            Some(kernel) if !lack.is_empty() => {
                let median = human(kernel.median(measure)?);
                let name = kernel.spec.name.trim_start_matches("kernel: ");
                let lack = names(lack);
                Some(format!(
                    "{} [{}]: the kernel's best is {name} with {median}; no figure of {lack}.",
                    kind.title, kind.unit
                ))
            }
            None if !have.is_empty() => {
                Some(format!("{}: none of the kernel's ways has a figure; {} have.", kind.title, names(have)))
            }
            _ => None,
        }
    };
    let sentences: Vec<String> = Measure::ALL.into_iter().filter_map(sentence).collect();
    (!sentences.is_empty()).then(|| Section { title: "Where one side has no figure".into(), sentences })
}

/// `UDP echo at saturation: memory: has 10.4 M echoes/s, 19.9x (18.1 to 21.0) what the kernel's best has (mmsg, 520 k).`
fn sentence(claims: &[&Claim], measure: Measure) -> Option<String> {
    let of_measure: Vec<&&Claim> = claims.iter().filter(|claim| claim.measure == measure).collect();
    let first = of_measure.first()?;
    let kind = measure.kind();
    let each: Vec<String> = of_measure
        .iter()
        .map(|claim| {
            format!("{} {} ({})", claim.ours, human(claim.ours_median), times(claim.ratio, claim.interval))
        })
        .collect();
    let less = if kind.better == Better::Less { ", less is better" } else { "" };
    Some(format!(
        "{} [{}{less}]: the kernel's best is {} with {}; beside it {}.",
        kind.title,
        kind.unit,
        first.kernel.trim_start_matches("kernel: "),
        human(first.kernel_median),
        each.join(", ")
    ))
}

/// `1.52x, 95 % within 1.40 to 1.61`.
pub fn times(ratio: f64, interval: Option<Interval>) -> String {
    let figure = |figure: f64| match figure {
        figure if figure >= 100.0 => format!("{figure:.0}"),
        figure if figure < 0.1 => format!("{figure:.3}"),
        figure => human(figure),
    };
    match interval {
        Some(Interval { low, high }) => format!("{}x, {} to {}", figure(ratio), figure(low), figure(high)),
        None => format!("{}x", figure(ratio)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::results::tests::results;
    use super::*;

    fn only(measure: Measure, ours: &[f64], kernel: &[f64]) -> Claim {
        let mut claims = claims(&results(measure, ours, kernel, &vec![f64::MAX.sqrt(); ours.len()]));
        // The slower one is the best where more is better.
        if measure.kind().better == Better::More {
            claims = super::claims(&results(measure, ours, kernel, &vec![0.001; ours.len()]));
        }
        assert_eq!(claims.len(), 1);
        claims.remove(0)
    }

    #[test]
    fn ratios_wholly_on_one_side_of_one_have_a_winner() {
        let (low, high) = ([10.0; 5], [21.0, 20.0, 22.0, 19.0, 20.0]);
        assert_eq!(only(Measure::Echo, &high, &low).seen, Seen::Ours);
        assert_eq!(only(Measure::Echo, &low, &high).seen, Seen::Kernel);
        assert_eq!(only(Measure::RoundTrip, &low, &high).seen, Seen::Ours);
        assert_eq!(only(Measure::RoundTrip, &high, &low).seen, Seen::Kernel);
    }

    #[test]
    fn an_interval_with_one_in_it_is_no_difference() {
        let claim = only(Measure::Echo, &[10.0, 12.0, 11.0, 9.0, 11.0], &[10.0; 5]);
        assert_eq!(claim.seen, Seen::NoDifference);
        assert_eq!((claim.ratio, claim.interval), (1.1, Some(Interval { low: 0.9, high: 1.2 })));
    }

    #[test]
    fn few_rounds_claim_nothing() {
        assert_eq!(only(Measure::Echo, &[100.0; 4], &[1.0; 4]).seen, Seen::TooFew);
    }

    #[test]
    fn the_first_page_names_winner_figures_and_intervals() {
        let claims = [
            only(Measure::Echo, &[10.4e6; 5], &[0.52e6; 5]),
            only(Measure::Bulk, &[200.0; 5], &[2000.0; 5]),
            only(Measure::RoundTrip, &[4.0; 5], &[4.0; 5]),
        ];
        let sections = sections(&claims);
        let titles: Vec<_> = sections.iter().map(|section| section.title.as_str()).collect();
        assert_eq!(titles, ["Where rxline wins", "Where the kernel wins", "Where no difference is seen"]);
        assert_eq!(
            sections[0].sentences,
            [
                "UDP echo at saturation [echoes/s]: the kernel's best is mmsg with 520 k; beside it memory: 10.4 M (20.0x, 20.0 to 20.0)."
            ]
        );
        assert!(sections[1].sentences[0].contains("(0.10x, 0.10 to 0.10)"), "{:?}", sections[1]);
        assert!(sections[2].sentences[0].contains("[us, less is better]"), "{:?}", sections[2]);
    }

    #[test]
    fn in_short_it_is_said_who_wins_whichever_way_is_better() {
        let short = |measure, ours: f64, kernel: f64, rounds| {
            only(measure, &vec![ours; rounds], &vec![kernel; rounds]).in_short()
        };
        assert_eq!(short(Measure::Echo, 20.0, 10.0, 5), "rxline by 2.00x");
        assert_eq!(short(Measure::Echo, 10.0, 25.0, 5), "kernel by 2.50x");
        assert_eq!(short(Measure::RoundTrip, 10.0, 40.0, 5), "rxline by 4.00x");
        assert_eq!(short(Measure::RoundTrip, 40.0, 10.0, 5), "kernel by 4.00x");
        assert_eq!(short(Measure::Echo, 10.0, 10.0, 5), "no difference seen");
        assert_eq!(short(Measure::Echo, 20.0, 10.0, 4), "rxline by 2.00x, too few rounds");
    }

    #[test]
    fn small_ratios_keep_their_digits() {
        assert_eq!(times(0.0123, Some(Interval { low: 0.004, high: 0.15 })), "0.012x, 0.004 to 0.15");
    }

    #[test]
    fn what_only_one_side_has_is_told() {
        let both = results(Measure::Echo, &[1.0], &[2.0], &[1.0]);
        assert!(one_sided(&both).is_none());
        let mut ours_lacks = results(Measure::EchoKnee, &[1.0], &[2e4], &[1.0]);
        ours_lacks.arms[2].turns[0].figures.clear();
        assert_eq!(
            one_sided(&ours_lacks).unwrap().sentences,
            ["UDP echo at the knee [echoes/s]: the kernel's best is mmsg with 20.0 k; no figure of memory:."]
        );
        let mut kernel_lacks = results(Measure::EchoKnee, &[1.0], &[2e4], &[1.0]);
        kernel_lacks.arms[..2].iter_mut().for_each(|arm| arm.turns[0].figures.clear());
        let told = one_sided(&kernel_lacks).unwrap().sentences;
        assert_eq!(told, ["UDP echo at the knee: none of the kernel's ways has a figure; memory: have."]);
    }

    #[test]
    fn too_few_rounds_have_a_section_of_their_own_only_when_there_are_such() {
        let few = sections(&[only(Measure::Echo, &[2.0], &[1.0])]);
        assert!(
            few[3].title.starts_with("Too few") && few[3].sentences[0].ends_with("2.00 (2.00x)."),
            "{few:?}"
        );
        assert_eq!(sections(&[]).len(), 3);
    }
}
