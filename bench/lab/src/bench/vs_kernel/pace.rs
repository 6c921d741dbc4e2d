//! How long what is left will take, told from what was done.

use std::time::Duration;

/// Turns that are done and turns that are left.
pub struct Pace {
    turns: usize,
    done: usize,
    took: Duration,
}

impl Pace {
    /// So many turns in all.
    pub fn new(turns: usize) -> Pace {
        Pace { turns, done: 0, took: Duration::ZERO }
    }

    /// One more is done, and took so long.
    pub fn step(&mut self, took: Duration) {
        self.done += 1;
        self.took += took;
    }

    /// As many as are left, at the mean of those that are done. Each round has every arm, so the mean is fair after the first round.
    pub fn left(&self) -> Duration {
        let left = self.turns.saturating_sub(self.done) as u32;
        if self.done == 0 { Duration::ZERO } else { self.took * left / self.done as u32 }
    }

    /// `14 of 55, 11 min left`.
    pub fn words(&self) -> String {
        let left = self.left().as_secs();
        let left = if left < 100 { format!("{left} s") } else { format!("{} min", (left + 30) / 60) };
        format!("{} of {}, {left} left", self.done, self.turns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_takes_as_long_as_what_was_done() {
        let mut pace = Pace::new(10);
        assert_eq!(pace.left(), Duration::ZERO);
        pace.step(Duration::from_secs(10));
        pace.step(Duration::from_secs(30));
        assert_eq!(pace.left(), Duration::from_secs(160));
        assert_eq!(pace.words(), "2 of 10, 3 min left");
        (0..8).for_each(|_| pace.step(Duration::from_secs(20)));
        assert_eq!(pace.words(), "10 of 10, 0 s left");
    }
}
