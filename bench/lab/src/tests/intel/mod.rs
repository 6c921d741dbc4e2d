//! Intel NICs, emulated, in guests: our own drivers, DPDK's, and for comparison the kernel's.

mod checks;
mod control;
mod forward;
mod native;

pub use control::control;
pub use native::{e1000e, igb};
