//! What calls cost with more of everything: sockets, connections, calls in flight, bytes, cores. Over `memory:`, where nothing but ours is
//! measured; the program is bench/micro (`src/cost`).
//!
//! A table, a picture, and where a cost grows faster than linearly why it does. Deliberately absent: an anchor; a cost curve is beside itself.

mod axis;
mod draw;
mod explain;
mod growth;

use std::time::Instant;

use serde::Serialize;

use self::axis::{Axis, Cost, POINTS, Point};
use self::explain::{Tools, explain};
use self::growth::{Of, Step, count};
use super::Found;
use super::arms::{cpus, micro};
use super::machine::Machine;
use super::rounds::{Arm, Orders, Rounds};
use super::stats::{Interval, Spread};
use super::vs_kernel::{Pace, align, human};
use crate::fault::{Fault, Result, ensure};
use crate::step::Cx;

/// For so long each point is measured.
const SECONDS: f64 = 0.7;

/// One point over all rounds.
#[derive(Serialize)]
pub struct Measured {
    pub axis: Axis,
    pub n: u64,
    pub rounds: Vec<Cost>,
}

/// A step that is faster than linear, and what explains it.
#[derive(Serialize)]
struct Explained {
    #[serde(flatten)]
    step: Step,
    words: String,
    why: Vec<String>,
}

/// The file of figures.
#[derive(Serialize)]
struct File<'f> {
    machine: &'f Machine,
    seed: u64,
    pairs: usize,
    points: &'f [Measured],
    steps: &'f [Step],
    faster_than_linear: &'f [Explained],
    orders: &'f Orders,
}

/// All curves.
pub fn cost_curve(cx: &Cx<'_>, rounds: &mut Rounds) -> Result<Found> {
    let (machine, micro, cpus) = (Machine::describe(), micro(cx)?, cpus()?);
    ensure!(cpus[0] != cpus[1], "client and server need a CPU each, and this process may use one only");
    let tools = Tools { cx, micro: &micro, cpus };
    let (points, orders) = measure(&tools, rounds)?;
    let steps = steps(&points, rounds.seed);
    let mut explained = Vec::new();
    for step in steps.iter().filter(|step| step.is_faster_than_linear()) {
        let why = explain(&tools, step, |point| median(&points, point))?;
        explained.push(Explained { step: step.clone(), words: step.words(), why });
    }
    print!("\n{}", table(&points, &steps));
    if explained.is_empty() {
        println!("\nnothing grows faster than linearly");
    }
    for Explained { words, why, .. } in &explained {
        println!("\nfaster than linear: {words}");
        why.iter().for_each(|line| println!("  {line}"));
    }
    let file = File {
        machine: &machine,
        seed: rounds.seed,
        pairs: rounds.count,
        points: &points,
        steps: &steps,
        faster_than_linear: &explained,
        orders: &orders,
    };
    let json = serde_json::to_string_pretty(&file).expect("numbers and text") + "\n";
    let svg = draw::curves(&points, &machine, rounds.seed)?;
    Ok(Found { files: vec![("cost-curve.json", json), ("cost-curve.svg", svg)], ..Found::default() })
}

fn measure(tools: &Tools<'_>, rounds: &mut Rounds) -> Result<(Vec<Measured>, Orders)> {
    let pace = std::cell::RefCell::new(Pace::new(rounds.count * POINTS.len()));
    let mut arms: Vec<Arm<'_, Cost>> = POINTS
        .iter()
        .map(|point| {
            let pace = &pace;
            Arm::new(point.name, move || {
                let begun = Instant::now();
                let told = point.command(tools.micro, tools.cpus, SECONDS).ok(tools.cx)?.stdout;
                let last = told.lines().last().unwrap_or_default();
                let cost: Cost = serde_json::from_str(last)
                    .map_err(|error| Fault::Check(format!("the last line {last:?}: {error}")))?;
                pace.borrow_mut().step(begun.elapsed());
                let (rate, words) = (human(cost.per_second), pace.borrow().words());
                println!("  {:<18} {rate:>8} {} ({words})", point.name, point.axis.unit());
                Ok(cost)
            })
        })
        .collect();
    let (costs, orders) = rounds.run(tools.cx, &mut arms)?;
    let points =
        POINTS.iter().zip(costs).map(|(point, rounds)| Measured { axis: point.axis, n: point.n, rounds });
    Ok((points.collect(), orders))
}

/// From each point of an axis to the next, time and memory.
fn steps(points: &[Measured], seed: u64) -> Vec<Step> {
    let along = points.iter().zip(points.iter().skip(1)).filter(|(less, more)| less.axis == more.axis);
    let point = |measured: &Measured| Point { axis: measured.axis, n: measured.n, name: "" };
    along
        .flat_map(|(less, more)| {
            [Of::Time, Of::Memory]
                .map(|of| Step::of(of, (point(less), &less.rounds), (point(more), &more.rounds), seed))
        })
        .flatten()
        .collect()
}

impl Measured {
    fn spread(&self, figure: fn(&Cost) -> f64) -> Option<Spread> {
        Spread::of(&self.rounds.iter().map(figure).collect::<Vec<_>>())
    }
}

fn median(points: &[Measured], point: Point) -> Option<Cost> {
    let measured = points.iter().find(|measured| measured.axis == point.axis && measured.n == point.n)?;
    let of = |figure| Some(measured.spread(figure)?.median);
    Some(Cost {
        per_second: of(|cost| cost.per_second)?,
        resident_bytes: of(|cost| cost.resident_bytes)?,
        before_bytes: of(|cost| cost.before_bytes)?,
    })
}

/// A line for each point: the rate with its interval, the time of each, memory, and the powers with which both grew.
fn table(points: &[Measured], steps: &[Step]) -> String {
    let heads =
        ["", "n", "a second", "95 %", "ns each", "memory MB", "grown by, B each", "time ~ n^", "memory ~ n^"];
    let mut rows = vec![heads.map(String::from).to_vec()];
    for point in points {
        let rates: Vec<f64> = point.rounds.iter().map(|cost| cost.per_second).collect();
        let interval = Interval::of(&rates, 0);
        let of = |figure| point.spread(figure).map_or(f64::NAN, |spread| spread.median);
        let (rate, memory) = (of(|cost| cost.per_second), of(|cost| cost.resident_bytes));
        let grown = (memory - of(|cost| cost.before_bytes)) / point.n as f64;
        let each = matches!(point.axis, Axis::Sockets | Axis::Connections);
        let power = |of: Of| {
            let step = steps.iter().find(|step| (step.axis, step.of, step.to) == (point.axis, of, point.n));
            step.map_or(String::new(), |step| format!("{:.2}", step.exponent))
        };
        rows.push(vec![
            format!("{} [{}]", point.axis.title(), point.axis.unit()),
            count(point.n),
            human(rate),
            interval
                .map_or("-".into(), |Interval { low, high }| format!("{} to {}", human(low), human(high))),
            human(1e9 / rate),
            human(memory / 1e6),
            if each { human(grown) } else { String::new() },
            power(Of::Time),
            power(Of::Memory),
        ]);
    }
    align(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(axis: Axis, n: u64, rate: f64) -> Measured {
        let cost = Cost { per_second: rate, resident_bytes: 1000.0 * n as f64, before_bytes: 0.0 };
        Measured { axis, n, rounds: vec![cost; 5] }
    }

    #[test]
    fn steps_stay_within_their_axis() {
        let points = [
            measured(Axis::Sockets, 1_000, 100.0),
            measured(Axis::Sockets, 10_000, 50.0),
            measured(Axis::Connections, 1_000, 70.0),
        ];
        let steps = steps(&points, 7);
        let told: Vec<_> =
            steps.iter().map(|step| (step.of, step.to, step.is_faster_than_linear())).collect();
        assert_eq!(told, [(Of::Time, 10_000, true), (Of::Memory, 10_000, false)]);
    }

    #[test]
    fn the_table_has_a_line_for_each_point() {
        let points = [measured(Axis::Sockets, 1_000, 2e6), measured(Axis::Sockets, 10_000, 1e6)];
        let text = table(&points, &steps(&points, 7));
        let last = text.lines().last().unwrap();
        for part in ["sockets [echoes/s]", "10 k", "1.00 M to 1.00 M", "1000", "10.0", "1.30"] {
            assert!(last.contains(part), "no {part:?} in {last:?}");
        }
    }
}
