//! What ports of each kind can do, beside DPDK, C and the kernel on the same wire: a bench for each kind, in a file of its own, and a line
//! `drivers/KIND` in the table of benches. Ours is pmd's example `forward`, the same program on every kind of port.

mod af_xdp;
mod dpdk;
mod memif;

pub use af_xdp::af_xdp;
pub use dpdk::dpdk;
pub use memif::memif;
