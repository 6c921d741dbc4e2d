//! Cores and sockets on top of `pmd`: the packet loop, the network stack and socket tables. Knows no RPC.

pub mod stats;

pub use stats::{Drop, DropCounts};
