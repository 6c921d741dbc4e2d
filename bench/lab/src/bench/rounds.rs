//! Interleaving: every arm once a round, in an order drawn anew for each round.

use serde::Serialize;

use crate::fault::Result;
use crate::step::Cx;

/// How the rounds go.
pub struct Rounds {
    /// Rounds; each gives one figure of every arm.
    pub count: usize,
    /// What the orders are drawn from, and whatever else is random of a bench.
    pub seed: u64,
    random: fastrand::Rng,
}

/// One way of doing what is measured.
pub struct Arm<'a, T> {
    /// What the orders call it.
    pub name: &'static str,
    /// Measures once.
    pub run: Box<dyn FnMut() -> Result<T> + 'a>,
}

impl<'a, T> Arm<'a, T> {
    /// An arm that `run` measures.
    pub fn new(name: &'static str, run: impl FnMut() -> Result<T> + 'a) -> Arm<'a, T> {
        Arm { name, run: Box::new(run) }
    }
}

/// In which order the arms of each round were measured.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Orders(Vec<Vec<&'static str>>);

impl Rounds {
    /// So many rounds, in orders that the seed determines.
    pub fn new(count: usize, seed: u64) -> Rounds {
        Rounds { count, seed, random: fastrand::Rng::with_seed(seed) }
    }

    /// Measures every arm in every round. For each arm, in the order given, its figures round by round.
    pub fn run<T>(&mut self, cx: &Cx<'_>, arms: &mut [Arm<'_, T>]) -> Result<(Vec<Vec<T>>, Orders)> {
        let mut figures: Vec<Vec<T>> = arms.iter().map(|_| Vec::with_capacity(self.count)).collect();
        let mut orders = Orders::default();
        for round in 0..self.count {
            let order = self.order(arms.len());
            for &at in &order {
                cx.check()?;
                cx.log.line(format!("round {} of {}: {}", round + 1, self.count, arms[at].name));
                figures[at].push((arms[at].run)()?);
            }
            orders.0.push(order.iter().map(|&at| arms[at].name).collect());
        }
        Ok((figures, orders))
    }

    fn order(&mut self, arms: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..arms).collect();
        self.random.shuffle(&mut order);
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_determines_the_orders() {
        let orders = |seed| {
            let mut rounds = Rounds::new(20, seed);
            (0..20).map(|_| rounds.order(3)).collect::<Vec<_>>()
        };
        assert_eq!(orders(7), orders(7));
        assert_ne!(orders(7), orders(8));
    }

    #[test]
    fn every_order_has_every_arm_and_each_arm_is_first_now_and_then() {
        let mut rounds = Rounds::new(1, 7);
        let mut first = [0; 3];
        for _ in 0..300 {
            let order = rounds.order(3);
            first[order[0]] += 1;
            let mut sorted = order;
            sorted.sort();
            assert_eq!(sorted, [0, 1, 2]);
        }
        assert!(first.iter().all(|&times| times > 60), "{first:?}");
    }
}
