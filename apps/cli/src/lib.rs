//! What the command lines of the apps share: exit codes, a place for live figures, and where keys come from.
//!
//! Deliberately absent: a logger and colours. What an app has to say is its report on stdout; why it stopped is one
//! line on stderr.
#![forbid(unsafe_code)]

mod idle;
mod live;
mod security;

pub use idle::IdleArgs;
pub use live::Live;
pub use security::{KeyFiles, SecurityArgs, SecurityError, TicketArgs};

use std::fmt::Display;
use std::io::Write;
use std::process::ExitCode;

/// Writes to stdout. A reader that has gone away (`| head -1`) is no reason to stop, nor to panic.
pub fn say(text: impl Display) {
    let _ = std::io::stdout().lock().write_fmt(format_args!("{text}"));
}

/// Says on stderr how the ports of `command` run: what was probed, and what is missing and why.
pub fn port_notes(command: &str, stats: &engine::EngineStats) {
    for port in &stats.ports {
        port.notes.iter().for_each(|note| eprintln!("rxline {command}: {}: {note}", port.url));
    }
}

/// How a command ended. Every `rxline` subcommand uses these numbers and no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// It did what was asked, and all of it held.
    Ok = 0,
    /// It ran, and the result is bad: a call failed, a host did not answer, figures did not match.
    Failed = 1,
    /// It was asked wrongly: arguments or a configuration file that cannot be meant. clap's own code.
    Usage = 2,
    /// The machine does not give what is needed: no such interface, no permission, no memory.
    Environment = 3,
}

/// The table of exit codes for the end of a `--help`.
pub const EXIT_CODES: &str = "\
Exit codes:
  0  done, and everything held
  1  it ran, and the result is bad (a failed call, no answer)
  2  wrong arguments or configuration
  3  the machine lacks something (interface, permission, memory); the message says what and the mend";

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

impl Exit {
    /// Says on stderr why `command` ends, and how.
    pub fn because(self, command: &str, reason: impl Display) -> ExitCode {
        eprintln!("rxline {command}: {reason}");
        self.into()
    }
}
