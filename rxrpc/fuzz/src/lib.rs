//! What strangers may send to Rx: each target takes any bytes, and holds what comes of them against what must be true.
//!
//! `cargo lab fuzz` runs the targets under libFuzzer with AddressSanitizer; `cargo test -p fuzz` replays `corpus/`, which holds
//! what it found worth keeping, minimised, and every input that ever broke something. A target is a function, so that both
//! run the same code and a failure can be looked at in a debugger like that of any test.
//!
//! Deliberately absent: targets for Ethernet, IP and UDP, whose parsers have property tests of their own in `engine`.

mod ack;
mod bytes;
mod datagrams;
mod packet;
mod security;
mod ticket;
mod user;
mod world;

pub use ack::ack;
pub use datagrams::datagrams;
pub use packet::packet;
pub use security::security;
pub use ticket::ticket;

/// A target: its name, which is its corpus's folder, and what it does with an input.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: &[Target] =
    &[("packet", packet), ("ack", ack), ("security", security), ("ticket", ticket), ("datagrams", datagrams)];
