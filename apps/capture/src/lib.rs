//! `rxline capture`: frames of a running rxline's ports as a pcapng file, each with what became of it.
//!
//! The running process copies and hands over (`engine::Capture`, `control::CaptureWish`); here it becomes a file.
//!
//! Deliberately absent: showing packets. `rxline capture -o - | tshark -r -` does.
#![forbid(unsafe_code)]

pub mod cli;
mod pcapng;

pub use pcapng::{Figures, PcapngFile};
