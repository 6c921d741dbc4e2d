//! `rxline doctor`: what this machine gives to rxline's ports, and the command that mends what is missing.
//!
//! Files are read below a root, which is `/` but in tests, and what files do not tell about interfaces is asked of the
//! kernel over netlink ([`net`]). Doctor writes, loads, mounts
//! and switches on nothing.
//!
//! What changes something is `rxline bind`, apart in [`bind`].
//!
//! Deliberately absent: trying things out. Whether a socket opens is the driver's to say; doctor looks at what it will need.
#![forbid(unsafe_code)]

pub mod bind;
mod checks;
pub mod cli;
#[cfg(test)]
mod fixture;
mod machine;
pub mod net;
mod netlink;
mod pci;
mod report;
mod route;
mod targets;

pub use machine::Machine;
pub use pci::Address;
pub use report::{Finding, Report, State};
pub use targets::{Target, TargetError};
