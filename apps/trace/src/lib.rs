//! Event logs of Rx endpoints: written as JSON lines while calls run, read and drawn afterwards.
//!
//! [`TraceLog`] owns the file and the thread that writes it; each core's endpoint is given a sink of its own. [`Trace`] is a file that was
//! read. A log's lines are described in [`line`](mod@line); within a core they are in the order in which things happened.
//!
//! Deliberately absent: rotation, filters and compression. A log is for minutes of a test, not for months of a service.
#![forbid(unsafe_code)]

pub mod cli;
pub mod line;
mod log;
mod plot;
mod read;
mod summary;

pub use log::{LogError, TraceArgs, TraceLog, TraceSinks, Written};
pub use plot::{PlotError, plot};
pub use read::{CallName, ReadError, Trace, TracedCallLog};
pub use summary::Summary;
