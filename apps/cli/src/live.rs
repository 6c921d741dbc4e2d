//! Live figures: one line that keeps changing on a terminal, a line per report in a pipe.

use std::io::{self, IsTerminal, Write};

/// Where live figures go: stderr, so that stdout carries results alone.
pub struct Live {
    terminal: bool,
    quiet: bool,
    /// Characters of the line now on the terminal.
    shown: usize,
}

impl Live {
    /// Live figures, or none if `quiet`.
    pub fn new(quiet: bool) -> Self {
        Self { terminal: io::stderr().is_terminal(), quiet, shown: 0 }
    }

    /// Shows a line; on a terminal it takes the place of the last one.
    pub fn show(&mut self, line: &str) {
        if self.quiet {
            return;
        }
        let mut err = io::stderr().lock();
        // A closed stderr is no reason to stop working.
        let _ = if self.terminal {
            write!(err, "\r{line:<width$}", width = self.shown).and_then(|()| err.flush())
        } else {
            writeln!(err, "{line}")
        };
        self.shown = line.chars().count();
    }
}

impl Drop for Live {
    /// Leaves the last figures standing.
    fn drop(&mut self) {
        if self.terminal && self.shown > 0 {
            eprintln!();
        }
    }
}
