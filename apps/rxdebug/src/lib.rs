//! rxdebug: asks any Rx instance for its version, counters, connections and peers.
//!
//! An operator's tool: it asks over an ordinary UDP socket of the kernel, one question at a time, and needs neither the
//! engine nor any privilege. It reads what OpenAFS's servers and this project's own answer.
//!
//! Deliberately absent: the record layout from before OpenAFS, and filters; `--json` goes well with `jq`.
#![forbid(unsafe_code)]

pub mod cli;
mod json;
mod probe;
mod text;

pub use probe::{LIST_MAX, Patience, Probe, ProbeError};
