//! How costs grow from one point to the next: with which power of what there is more of.

use serde::Serialize;

use super::axis::{Axis, Cost, Point};
use crate::bench::stats::{FIGURES_LEAST, Interval, Spread};

/// An exponent so much above linear is growth and no longer noise: 12 % in ten times as much.
const TOLERANCE: f64 = 0.05;
/// Where there are too few rounds for an interval the median has to be so much above.
const TOLERANCE_WITHOUT_INTERVAL: f64 = 0.15;

/// What grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Of {
    /// Time ([`Axis::cost`]).
    Time,
    /// Resident memory.
    Memory,
}

/// From one point of an axis to the next.
#[derive(Clone, Debug, Serialize)]
pub struct Step {
    pub axis: Axis,
    pub of: Of,
    /// How many there were, and are.
    pub from: u64,
    pub to: u64,
    /// The cost grows with this power of their number: 1 is linear. The median over the rounds.
    pub exponent: f64,
    /// Of that median.
    pub interval: Option<Interval>,
}

/// The power of n with which a cost grows from one pair of n and cost to another.
fn exponent((n, cost): (f64, f64), (more, costs): (f64, f64)) -> f64 {
    (costs / cost).ln() / (more / n).ln()
}

impl Step {
    /// From the rounds of two points of one axis; none without figures.
    pub fn of(
        of: Of,
        (from, before): (Point, &[Cost]),
        (to, after): (Point, &[Cost]),
        seed: u64,
    ) -> Option<Step> {
        let cost = |point: Point, cost: &Cost| match of {
            Of::Time => point.axis.cost(point.n, cost.per_second),
            Of::Memory => cost.resident_bytes,
        };
        let each = before
            .iter()
            .zip(after)
            .map(|(less, more)| exponent((from.n as f64, cost(from, less)), (to.n as f64, cost(to, more))));
        let exponents: Vec<f64> = each.collect();
        let exponent = Spread::of(&exponents)?.median;
        let interval = Interval::of(&exponents, seed);
        Some(Step { axis: from.axis, of, from: from.n, to: to.n, exponent, interval })
    }

    /// What would be linear: memory never has to be less than that.
    fn linear(&self) -> f64 {
        match self.of {
            Of::Time => self.axis.linear(),
            Of::Memory => 1.0,
        }
    }

    /// Whether it grows faster than linearly, and not by chance.
    pub fn is_faster_than_linear(&self) -> bool {
        match self.interval {
            Some(interval) => interval.low > self.linear() + TOLERANCE,
            None => self.exponent > self.linear() + TOLERANCE_WITHOUT_INTERVAL,
        }
    }

    /// `connections from 100 k to 1 M: the time for a call on each connection grows with the power 1.24 (1.20 to 1.31)`.
    pub fn words(&self) -> String {
        let what = match self.of {
            Of::Time => self.axis.cost_words(),
            Of::Memory => "memory",
        };
        let interval = match self.interval {
            Some(Interval { low, high }) => format!("{low:.2} to {high:.2}"),
            None => format!("fewer than {FIGURES_LEAST} rounds, so no interval"),
        };
        let (from, to) = (count(self.from), count(self.to));
        let title = self.axis.title();
        format!(
            "{title} from {from} to {to}: {what} grows with the power {:.2} ({interval}), linear is {}",
            self.exponent,
            self.linear()
        )
    }
}

/// `100 k`.
pub fn count(n: u64) -> String {
    match n {
        1_000_000.. if n.is_multiple_of(1_000_000) => format!("{} M", n / 1_000_000),
        1_000.. if n.is_multiple_of(1_000) => format!("{} k", n / 1_000),
        _ => n.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(axis: Axis, n: u64) -> Point {
        Point { axis, n, name: "" }
    }

    fn costs(rates: &[f64], bytes: f64) -> Vec<Cost> {
        rates
            .iter()
            .map(|rate| Cost { per_second: *rate, resident_bytes: bytes, before_bytes: 0.0 })
            .collect()
    }

    fn step(of: Of, axis: Axis, before: &[f64], after: &[f64]) -> Step {
        let (less, more) = (at(axis, 1_000), at(axis, 10_000));
        Step::of(of, (less, &costs(before, 1e6)), (more, &costs(after, 2e7)), 7).unwrap()
    }

    #[test]
    fn a_constant_time_for_each_is_linear() {
        let step = step(Of::Time, Axis::Connections, &[500.0; 5], &[500.0; 5]);
        assert!((step.exponent - 1.0).abs() < 1e-9);
        assert!(!step.is_faster_than_linear());
    }

    #[test]
    fn twice_the_time_for_each_of_ten_times_as_many_is_more_than_linear() {
        let step = step(Of::Time, Axis::Connections, &[500.0; 5], &[250.0; 5]);
        assert!((step.exponent - 1.301).abs() < 1e-3, "{}", step.exponent);
        assert!(step.is_faster_than_linear());
        assert!(step.words().starts_with("connections from 1 k to 10 k: the time for a call on each connection grows with the power 1.30 (1.30 to 1.30)"));
    }

    #[test]
    fn an_interval_that_reaches_down_to_linear_is_no_growth() {
        let step = step(Of::Time, Axis::Connections, &[500.0; 5], &[250.0, 250.0, 250.0, 500.0, 490.0]);
        assert!(step.exponent > 1.2 && !step.is_faster_than_linear());
    }

    #[test]
    fn one_round_has_to_show_more() {
        let grows = |after| step(Of::Time, Axis::Connections, &[500.0], &[after]).is_faster_than_linear();
        assert_eq!([grows(400.0), grows(250.0)], [false, true]);
    }

    #[test]
    fn memory_and_payload_grow_with_powers_of_their_own() {
        let memory = step(Of::Memory, Axis::Sockets, &[1.0; 5], &[1.0; 5]);
        assert!((memory.exponent - 1.301).abs() < 1e-3 && memory.is_faster_than_linear());
        let payload = step(Of::Time, Axis::Payload, &[100.0; 5], &[50.0; 5]);
        assert!((payload.exponent - 0.301).abs() < 1e-3 && !payload.is_faster_than_linear());
    }

    #[test]
    fn cores_that_do_no_more_together_are_not_linear() {
        let cores = |rate: f64| {
            let (one, two) = (at(Axis::Cores, 1), at(Axis::Cores, 2));
            Step::of(Of::Time, (one, &costs(&[100.0; 5], 1.0)), (two, &costs(&[rate; 5], 1.0)), 7).unwrap()
        };
        assert!(!cores(199.0).is_faster_than_linear() && cores(150.0).is_faster_than_linear());
    }

    #[test]
    fn counts_are_short() {
        assert_eq!(
            [1, 999, 1_000, 1_500, 10_000, 1_000_000].map(count),
            ["1", "999", "1 k", "1500", "10 k", "1 M"]
        );
    }
}
