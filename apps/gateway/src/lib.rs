//! The gateway: Rx calls of clients, forwarded as they stream to pools of equal servers.
#![forbid(unsafe_code)]

pub mod cli;
