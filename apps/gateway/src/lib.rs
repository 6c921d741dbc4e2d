//! The gateway: Rx calls of clients, forwarded as they stream to pools of equal servers.
#![forbid(unsafe_code)]

pub mod app;
pub mod balance;
pub mod cli;
pub mod config;
mod counter;
pub mod figures;
pub mod forward;
mod gateway;
mod pairs;
pub mod relay;
#[cfg(test)]
mod relay_bed;
pub mod secrets;
mod stats;
#[cfg(test)]
mod testbed;

pub use counter::Counter;
pub use gateway::{Gateway, GatewayHandle, Report, StartError};
pub use stats::{BackendStats, GatewayStats, Ledger, PoolLevel, Rates};
