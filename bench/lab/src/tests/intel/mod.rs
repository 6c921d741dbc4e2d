//! Intel NICs, emulated, in guests: our own drivers, DPDK's, and for comparison the kernel's.

mod checks;
mod control;
mod forward;
mod native;
mod suite;

pub use control::control;
pub use native::{e1000e, igb};
pub use suite::suite;
