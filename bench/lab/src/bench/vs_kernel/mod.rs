//! UDP echo and Rx calls on the kernel's sockets at their best, and on our ports: who wins, where, and by how much.
//!
//! The program is bench/vs_kernel. What is compared is the server; loads are one program that polls, the same for every server that
//! understands it. Each round measures every arm once, in an order drawn anew: its rate at saturation, round trips, bulk, latency against
//! offered load, CPU time, and how soon it answers. Ratios are of figures of the same round.
//!
//! ```text
//! arms      who is measured           program   the program's words and figures       stage     where, and one turn of one arm
//! measure   kinds of figures          curve     latency against load, the knee        results   all turns; what is missing
//! verdict   who wins, in words        table     figures as text                       draw, page   the report
//! ```
//!
//! Deliberately absent: one number for all of it, and figures of another run.

mod arms;
mod curve;
mod draw;
mod measure;
mod openafs;
mod pace;
mod page;
mod program;
mod results;
mod stage;
mod table;
mod verdict;

pub use draw::{KERNEL_COLOUR, OUR_COLOUR};
pub use measure::human;
pub use openafs::openafs;
pub use pace::Pace;
pub use table::align;

use std::time::Instant;

use self::arms::{AF_XDP, ARMS, MEMORY, MMSG, SPINNING};
use self::measure::{Measure, Turn};
use self::results::{ArmResults, Results};
use self::stage::Stage;
use super::Found;
use super::arms::{buffer_cycle, number};
use super::compare::{Bar, Comparison, Side};
use super::machine::Machine;
use super::rounds::{Arm, Orders, Rounds};
use super::stats::FIGURES_LEAST;
use crate::fault::{Fault, Result};
use crate::proc::Cmd;
use crate::step::Cx;

/// What a round yields of one arm, or of the buffer cycle.
enum Yield {
    Turn(Turn),
    Cycle(f64),
}

/// The whole comparison.
pub fn vs_kernel(cx: &Cx<'_>, rounds: &mut Rounds) -> Result<Found> {
    let machine = Machine::describe();
    let stage = Stage::build(cx, rounds.seed)?;
    println!("  seed {}, load on CPU {}, servers on CPU {}", rounds.seed, stage.cpus[0], stage.cpus[1]);
    let (results, orders) = measure(cx, rounds, &stage)?;
    let claims = verdict::claims(&results);
    let mut sections = verdict::sections(&claims);
    sections.extend(verdict::one_sided(&results));
    print!("\n{}", table::table(&results));
    for section in &sections {
        println!("\n{section}");
    }
    let missed = results.missing(FIGURES_LEAST);
    let comparisons = bars(&results, &orders);
    let report = page::Report {
        machine: &machine,
        cpus: stage.cpus,
        results: &results,
        claims: &claims,
        sections: &sections,
        missed: &missed,
    };
    let files = vec![
        ("vs-kernel.html", report.html(&comparisons)?),
        ("vs-kernel.json", report.json(&orders)),
        ("vs-kernel.svg", draw::overview(&results, &machine)?),
    ];
    Ok(Found { comparisons, missed, files })
}

/// Every arm in every round, and the buffer cycle, which absolute bars stretch with.
fn measure(cx: &Cx<'_>, rounds: &mut Rounds, stage: &Stage<'_>) -> Result<(Results, Orders)> {
    let cycle = Cmd::new(buffer_cycle(cx)?).arg(format!("0@{}", stage.cpus[0]));
    let pace = std::cell::RefCell::new(Pace::new(rounds.count * ARMS.len()));
    let mut arms: Vec<Arm<'_, Yield>> = ARMS
        .iter()
        .map(|spec| {
            let (pace, mut round) = (&pace, 0);
            Arm::new(spec.name, move || {
                let begun = Instant::now();
                let turn = stage.turn(spec, round)?;
                round += 1;
                pace.borrow_mut().step(begun.elapsed());
                tell(cx, spec.name, round, &turn, &pace.borrow());
                Ok(Yield::Turn(turn))
            })
        })
        .collect();
    arms.push(Arm::new("buffer cycle in C", || {
        Ok(Yield::Cycle(number(&cycle.ok(cx)?.stdout, "cpu_ns_per_packet")?))
    }));
    let (yields, orders) = rounds.run(cx, &mut arms)?;
    let mut results =
        Results { pairs: rounds.count, seed: rounds.seed, arms: Vec::new(), cycles: Vec::new() };
    for (at, yields) in yields.into_iter().enumerate() {
        let mut turns = Vec::new();
        for each in yields {
            match each {
                Yield::Turn(turn) => turns.push(turn),
                Yield::Cycle(ns) => results.cycles.push(ns),
            }
        }
        results.arms.extend(ARMS.get(at).map(|spec| ArmResults { spec, turns }));
    }
    if results.arms.iter().all(|arm| arm.turns.iter().all(|turn| turn.figures.is_empty())) {
        let faults = results.arms.iter().flat_map(|arm| &arm.turns).flat_map(|turn| &turn.faults);
        return Err(Fault::Check(format!(
            "no arm has any figure; first: {:?}",
            faults.take(1).collect::<Vec<_>>()
        )));
    }
    Ok((results, orders))
}

/// A line on the way, and what went wrong in the log.
fn tell(cx: &Cx<'_>, name: &str, round: usize, turn: &Turn, pace: &Pace) {
    let figure = |measure| turn.figures.get(&measure).map_or("-".into(), |figure| human(*figure));
    let faults =
        if turn.faults.is_empty() { String::new() } else { format!(", {} FAULTS", turn.faults.len()) };
    println!(
        "  round {round}: {name:<36} {} echoes/s, {} calls/s, {} us{faults} ({})",
        figure(Measure::Echo),
        figure(Measure::Calls),
        figure(Measure::RoundTrip),
        pace.words()
    );
    turn.faults.iter().for_each(|fault| cx.log.line(format!("{name}: {fault}")));
}

/// The lines of the table that have a bar. Where a side has no figure in some round, neither has the line in that round.
fn bars(results: &Results, orders: &Orders) -> Vec<Comparison> {
    let line = |what, measure: Measure, ours: &'static str, anchor: &'static str, bar| {
        let sides = (results.arm(ours), results.arm(anchor));
        let (ours_figures, anchor_figures) = if let (Some(ours), Some(anchor)) = sides {
            results.pairs(ours, anchor, measure)
        } else {
            Default::default()
        };
        let kind = measure.kind();
        Comparison {
            what,
            unit: kind.unit,
            boundary: kind.boundary,
            ours: Side { name: ours, figures: ours_figures },
            anchor: Side { name: anchor, figures: anchor_figures },
            bar: Some(bar),
            cycles: Vec::new(),
            orders: orders.clone(),
        }
    };
    let reaches = |what, measure: Measure, rate: f64| {
        let by_round = results.arm(MEMORY).map(|arm| arm.by_round(measure)).unwrap_or_default();
        let cycles = by_round.keys().filter_map(|round| results.cycles.get(*round).copied()).collect();
        let anchor = Side { name: "the bar", figures: vec![rate; by_round.len()] };
        let ours = Side { name: MEMORY, figures: by_round.into_values().collect() };
        Comparison { ours, anchor, cycles, ..line(what, measure, MEMORY, MEMORY, Bar::Reaches(rate)) }
    };
    let spinning = fastest_spinning(results);
    vec![
        line("vs-kernel, UDP echo", Measure::Echo, MEMORY, MMSG, Bar::AtLeast(20.0)),
        reaches("vs-kernel, UDP echo", Measure::Echo, 10e6),
        reaches("vs-kernel, Rx calls on a core", Measure::Calls, 2e6),
        line("vs-kernel, UDP round trip, spinning", Measure::RoundTrip, AF_XDP, spinning, Bar::AtMost(0.7)),
    ]
}

/// The kernel's way to spin with the shorter round trip.
fn fastest_spinning(results: &Results) -> &'static str {
    let median = |name: &str| {
        results.arm(name).and_then(|arm| arm.median(Measure::RoundTrip)).unwrap_or(f64::INFINITY)
    };
    if median(SPINNING[1]) < median(SPINNING[0]) { SPINNING[1] } else { SPINNING[0] }
}

#[cfg(test)]
mod tests {
    use super::super::compare::Verdict;
    use super::*;

    /// Every arm with the same figures in each round, but for those of `special`.
    fn results(special: &[(&str, Measure, f64)]) -> Results {
        let arm = |spec: &'static arms::Spec| {
            let figure = |measure: Measure| {
                let special = special.iter().find(|(name, of, _)| *name == spec.name && *of == measure);
                (measure, special.map_or(100.0, |(_, _, figure)| *figure))
            };
            let turn = Turn {
                figures: spec.measures.iter().map(|measure| figure(*measure)).collect(),
                ..Turn::default()
            };
            ArmResults { spec, turns: vec![turn; 5] }
        };
        Results { pairs: 5, seed: 7, arms: ARMS.iter().map(arm).collect(), cycles: vec![34.0; 5] }
    }

    fn verdicts(results: &Results) -> Vec<Verdict> {
        bars(results, &Orders::default()).iter().map(Comparison::verdict).collect()
    }

    #[test]
    fn the_bars_stretch_with_the_machine_and_judge_at_their_edge() {
        // The machine is half as fast as the reference.
        let good = [
            (MEMORY, Measure::Echo, 5e6),
            (MMSG, Measure::Echo, 0.25e6),
            (MEMORY, Measure::Calls, 1e6),
            (AF_XDP, Measure::RoundTrip, 70.0),
        ];
        assert_eq!(verdicts(&results(&good)), [Verdict::Met; 4]);
        for at in 0..4 {
            let mut bad = good;
            bad[at].2 *= if at == 0 || at == 2 { 0.99 } else { 1.01 };
            assert!(verdicts(&results(&bad)).contains(&Verdict::Missed), "{bad:?}");
        }
    }

    #[test]
    fn the_round_trip_is_held_against_the_kernels_faster_way_to_spin() {
        let faster = [(AF_XDP, Measure::RoundTrip, 70.0), (SPINNING[1], Measure::RoundTrip, 90.0)];
        assert_eq!(verdicts(&results(&faster))[3], Verdict::Missed);
    }

    #[test]
    fn a_bar_whose_arm_is_missing_is_missed() {
        let mut results = results(&[(MEMORY, Measure::Echo, 1e9)]);
        results.arms.retain(|arm| arm.spec.name != MMSG);
        assert_eq!(verdicts(&results)[0], Verdict::Missed);
    }
}
