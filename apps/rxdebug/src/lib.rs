//! rxdebug: asks any Rx instance for its version, counters, connections and peers.
#![forbid(unsafe_code)]

pub mod cli;
