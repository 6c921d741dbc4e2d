//! `rxline demo`: a gateway, two services and their load in one process, over `memory:` ports.
//!
//! Nothing in it is special: the gateway, the services and the load are those of `rxline gateway` and `rxline rxperf`,
//! on four engines that share as many polling threads as there are CPUs to use.
//!
//! ```text
//!                                     198.51.100.1 --- 198.51.100.11 service "a"
//! load 192.0.2.2 --- 192.0.2.1 gateway
//!                                     203.0.113.1  --- 203.0.113.11  service "b"
//! ```
#![forbid(unsafe_code)]

pub mod cli;
mod price;
mod stage;

pub use price::{POLICIES, Price, Table};
pub use stage::{Demo, DemoConfig, DemoError, Ending};
