//! `rxline linerate`: an app that tells the truth about a NIC.
#![forbid(unsafe_code)]

pub mod figures;
pub mod line_rate;
