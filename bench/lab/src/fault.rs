//! Why a step failed, in words that say what to look at.

use std::io;
use std::time::Duration;

/// What ends a step.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// Something that should hold does not.
    #[error("{0}")]
    Check(String),
    /// The operating system refused.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What it said.
        source: io::Error,
    },
    /// A program ended otherwise than it should.
    #[error("`{command}` ended with {status}\n{tail}")]
    Status {
        /// The command line.
        command: String,
        /// `exit code 1`, `signal 9`.
        status: String,
        /// The last lines of what it printed.
        tail: String,
    },
    /// A program ran for longer than it may.
    #[error("`{command}` did not end within {} s\n{tail}", limit.as_secs_f32())]
    TimedOut {
        /// The command line.
        command: String,
        /// How long it had.
        limit: Duration,
        /// The last lines of what it printed.
        tail: String,
    },
    /// The step used up its time.
    #[error("the step did not end within its {} s", .0.as_secs())]
    StepTimedOut(Duration),
    /// Ctrl-C or SIGTERM.
    #[error("interrupted")]
    Interrupted,
}

/// What everything here returns.
pub type Result<T = ()> = std::result::Result<T, Fault>;

/// Names what was tried when the operating system refuses.
pub trait Context<T> {
    /// Turns an I/O error into a [`Fault`] that says what was tried.
    fn context(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<io::Error>> Context<T> for std::result::Result<T, E> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| Fault::Io { what: what(), source: error.into() })
    }
}

/// Ends the step with a message unless a condition holds.
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        let holds: bool = $condition;
        if !holds {
            return Err($crate::fault::Fault::Check(format!($($message)+)));
        }
    };
}
pub(crate) use ensure;

/// The last `lines` lines of a text, indented, for a report.
pub fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    let from = all.len().saturating_sub(lines);
    all[from..].iter().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}
