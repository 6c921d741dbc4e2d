//! Rx beside OpenAFS's Rx, beside what the protocol and RFC 9438 allow, and beside itself with a million idle connections.
//!
//! Ours is always the product: `rxline rxperf`, or its protocol core driven by `micro` (bench/micro) or, on kernel
//! sockets, by `vs_kernel` (bench/vs_kernel). OpenAFS's side is
//! bench/arms/afs_rxperf.c. Deliberately absent: figures from before; what the simulation says is computed anew.

mod idle;
mod memory;
mod path;
mod peers;
mod shared;
mod simulation;
mod veth;

pub use idle::idle;
pub use memory::memory;
pub use path::path;
pub use shared::shared;
pub use veth::veth;

use super::compare::{Bar, Comparison, Side};
use super::rounds::Orders;

/// What is the same for several lines of the table.
#[derive(Clone, Copy)]
struct Head {
    what: &'static str,
    unit: &'static str,
    boundary: &'static str,
}

impl Head {
    /// A line of the table whose bar, if any, is of a ratio.
    fn line(self, ours: Side, anchor: Side, bar: Option<Bar>, orders: &Orders) -> Comparison {
        let Head { what, unit, boundary } = self;
        Comparison { what, unit, boundary, ours, anchor, bar, cycles: Vec::new(), orders: orders.clone() }
    }
}

/// A side that is the same in every round: a limit, or what a computation says.
fn constant(name: &'static str, figure: f64, rounds: usize) -> Side {
    Side { name, figures: vec![figure; rounds] }
}
