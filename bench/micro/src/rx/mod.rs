//! The arms of `cargo lab bench rx`: the product's own Rx, inline on a core, bare on a UDP socket, and beside a million idle connections.

pub mod idle;
pub mod serve;
pub mod udp;
