//! Intel NICs, emulated, in guests: our own drivers, DPDK's, and for comparison the kernel's.

mod checks;
mod control;
mod dpdk;
mod forward;
mod gateway;
mod linerate;
mod native;
mod suite;

pub use control::control;
pub use dpdk::dpdk;
pub use gateway::gateway;
pub use linerate::linerate;
pub use native::{e1000e, igb};
pub use suite::suite;
