//! The arms of `cargo lab bench rx`: the product's own Rx, inline on a core, and beside a million idle
//! connections. The same protocol core on kernel sockets is in bench/vs_kernel.

pub mod idle;
pub mod serve;
