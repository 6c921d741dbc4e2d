//! What a run shows while it runs: a screen on a terminal, plain lines in a pipe.
//!
//! Owned by the thread that waits for the run's end, never by a polling core. Deliberately absent: looking at the run; who has
//! [`Snapshot`](crate::figures::Snapshot)s makes [`Rates`] of them and gives a [`Scene`].

use std::io::IsTerminal;
use std::time::Duration;

use cli::Live;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};

pub mod lines;
pub mod rates;
pub mod screen;

pub use rates::Rates;

/// What is to be shown.
#[derive(Clone, Copy, Debug)]
pub struct Scene<'a> {
    /// What the run does: forward, txonly, rfc2544.
    pub mode: &'a str,
    /// The last interval, if one is over.
    pub rates: Option<&'a Rates>,
    /// How far a search is.
    pub progress: Option<&'a str>,
    /// Since the run's beginning.
    pub elapsed: Duration,
    /// Until its end, if it has one.
    pub left: Option<Duration>,
}

/// Whether to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Nobody asked for anything.
    GoOn,
    /// The user wants it to end.
    Quit,
}

/// Where it is shown.
pub enum View {
    /// On the whole terminal, from the first scene until it is dropped: a run that is over before has no screen.
    Screen(Option<Box<DefaultTerminal>>),
    /// A line for each interval and each step of a search, on stderr.
    Lines(Live),
}

impl View {
    /// A screen where stdout is a terminal and nobody asked for plain text; else lines, or nothing if `quiet`.
    pub fn new(plain: bool, quiet: bool) -> View {
        if plain || quiet || !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
            return View::Lines(Live::new(quiet));
        }
        View::Screen(None)
    }

    /// Shows it. A terminal that cannot be drawn on has gone away: the run should end.
    pub fn show(&mut self, scene: &Scene<'_>) -> Wish {
        match self {
            View::Screen(terminal) => {
                let terminal = terminal.get_or_insert_with(|| Box::new(ratatui::init()));
                terminal.draw(|frame| screen::draw(frame, scene)).map_or(Wish::Quit, |_| Wish::GoOn)
            }
            View::Lines(live) => {
                scene.rates.iter().for_each(|rates| live.show(&lines::line(rates)));
                Wish::GoOn
            }
        }
    }

    /// A step of a search begins: a line, where there is no screen.
    pub fn step(&mut self, line: &str) {
        if let View::Lines(live) = self {
            live.show(line);
        }
    }

    /// Whether it is for the whole terminal.
    pub fn is_screen(&self) -> bool {
        matches!(self, View::Screen(_))
    }

    /// Waits, on a screen for the user.
    pub fn wait(&mut self, time: Duration) -> Wish {
        let View::Screen(Some(_)) = self else {
            std::thread::sleep(time);
            return Wish::GoOn;
        };
        match event::poll(time) {
            Ok(false) => Wish::GoOn,
            Ok(true) => event::read().map_or(Wish::Quit, |event| wish(&event)),
            Err(_) => Wish::Quit,
        }
    }
}

impl Drop for View {
    fn drop(&mut self) {
        if let View::Screen(Some(_)) = self {
            ratatui::restore();
        }
    }
}

fn wish(event: &Event) -> Wish {
    let Event::Key(key) = event else { return Wish::GoOn };
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    match key.code {
        _ if key.kind == KeyEventKind::Release => Wish::GoOn,
        KeyCode::Char('q') | KeyCode::Esc => Wish::Quit,
        KeyCode::Char('c') if control => Wish::Quit,
        _ => Wish::GoOn,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratatui::crossterm::event::KeyEvent;

    #[test]
    fn keys() {
        let pressed = |code, modifiers| wish(&Event::Key(KeyEvent::new(code, modifiers)));
        assert_eq!(pressed(KeyCode::Char('q'), KeyModifiers::NONE), Wish::Quit);
        assert_eq!(pressed(KeyCode::Char('c'), KeyModifiers::CONTROL), Wish::Quit);
        assert_eq!(pressed(KeyCode::Char('c'), KeyModifiers::NONE), Wish::GoOn);
        assert_eq!(wish(&Event::Resize(10, 10)), Wish::GoOn);
    }
}
