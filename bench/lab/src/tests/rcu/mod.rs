//! RCU sockets, proved on what really runs: the instructions, the memory, the compiler's refusals.

pub mod callgrind;
pub mod churn;
mod core_costs;
mod hot_functions;
pub mod instructions;
pub mod rows;
pub mod tests;
