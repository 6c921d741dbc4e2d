//! rxperf: the Rx stack's own load and its server (UDP 7009, service 147).
#![forbid(unsafe_code)]

pub mod cli;
