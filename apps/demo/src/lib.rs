//! `rxline demo`: a gateway, two services and their load in one process.
#![forbid(unsafe_code)]

pub mod cli;
