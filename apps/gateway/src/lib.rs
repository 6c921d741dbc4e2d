//! The gateway: Rx calls of clients, forwarded as they stream to pools of equal servers.
#![forbid(unsafe_code)]

pub mod balance;
pub mod cli;
pub mod config;
mod counter;
pub mod figures;

pub use counter::Counter;
