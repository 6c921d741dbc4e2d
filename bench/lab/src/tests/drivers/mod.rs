//! Drivers beside real peers, and on interfaces that take privileges: a step `drivers/NAME` each.

mod dpdk;
mod instructions;
mod memif;

pub use dpdk::{dpdk, processes as dpdk_processes};
pub use instructions::instructions;
pub use memif::memif;

use super::workspace::run_privileged;
use crate::fault::Result;
use crate::step::Cx;

/// pmd's own tests of `af_xdp:`, on veth pairs in a namespace that holds nothing else.
pub fn af_xdp(cx: &Cx<'_>) -> Result {
    run_privileged(cx, |name| name == "af_xdp")
}
