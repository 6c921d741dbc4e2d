//! Cores and sockets on top of `pmd`: the packet loop, the network stack and socket tables. Knows no RPC.

pub mod stack;
pub mod stats;

pub use stack::{Datagram, NetError, Stack};
pub use stats::{Drop, DropCounts};
