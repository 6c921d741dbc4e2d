//! [`Idle`]: what a core does when there is nothing to do, from the lowest latency to the least CPU time.
//!
//! A turn that finds nothing takes some 100 ns, so a policy counts turns and reads no clock. Deliberately absent: umwait and its kin, which
//! few machines have and fewer guests may use; and frequency governors, which the system owns.

use std::fmt;
use std::str::FromStr;
use std::thread;

/// Idle turns before a policy that is not to spin begins to pause.
const SPINS: u32 = 500;
/// Idle turns with a pause in between before a core sleeps.
const PAUSES: u32 = 100;
/// The longest pause, as a power of two of the CPU's own pause instructions: 64 of them, some 0.3 to 3 us.
const LONGEST_PAUSE: u32 = 6;

/// What a core does when there is nothing to do. Where cores share a polling thread, the most wakeful one decides. `rxline demo --idle all`
/// shows what each costs on a machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Idle {
    /// Polls on. Lowest latency; takes the CPU whole.
    Spin,
    /// Polls on, and after a while pauses between turns: a few CPU pause instructions first, up to some microseconds, in which other
    /// threads may have the CPU. Takes what nobody else wants of it.
    Pause,
    /// Polls for `spins` idle turns, pauses for `pauses` more, then blocks on the devices' file descriptors, its inbox and its timers, with its
    /// RCU reader offline. Waking up costs some 10-50 us of latency.
    Sleep {
        /// Idle turns of plain polling.
        spins: u32,
        /// Idle turns with a pause in between after that.
        pauses: u32,
    },
}

impl Idle {
    /// Sleeping, after half a hundred microseconds or so.
    pub const DEFAULT: Idle = Idle::Sleep { spins: SPINS, pauses: PAUSES };
}

impl Default for Idle {
    fn default() -> Self {
        Idle::DEFAULT
    }
}

/// What comes after an idle turn.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Step {
    Poll,
    /// The longer, the more pauses there were.
    Pause(u32),
    Sleep,
}

impl Idle {
    /// After `turns` idle turns in a row: poll on, pause, or sleep?
    pub(crate) fn step(self, turns: u32) -> Step {
        let (spins, pauses) = match self {
            Idle::Spin => return Step::Poll,
            Idle::Pause => (SPINS, None),
            Idle::Sleep { spins, pauses } => (spins, Some(pauses)),
        };
        match turns.checked_sub(spins.saturating_add(1)) {
            None => Step::Poll,
            Some(paused) if pauses.is_some_and(|pauses| paused >= pauses) => Step::Sleep,
            Some(paused) => Step::Pause(paused),
        }
    }
}

/// A pause after `paused` others: twice as long as the one before, then as long as they get, and other threads may run.
pub(crate) fn pause(paused: u32) {
    for _ in 0..1 << paused.min(LONGEST_PAUSE) {
        std::hint::spin_loop();
    }
    if paused >= LONGEST_PAUSE {
        thread::yield_now();
    }
}

/// Not the name of a policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no idle policy: write spin, pause, sleep, or sleep:SPINS with the idle turns to spin for")]
pub struct BadIdle(String);

impl FromStr for Idle {
    type Err = BadIdle;

    fn from_str(text: &str) -> Result<Idle, BadIdle> {
        match text.split_once(':') {
            None if text == "spin" => Ok(Idle::Spin),
            None if text == "pause" => Ok(Idle::Pause),
            None if text == "sleep" => Ok(Idle::default()),
            Some(("sleep", spins)) => match spins.parse() {
                Ok(spins) => Ok(Idle::Sleep { spins, pauses: PAUSES }),
                Err(_) => Err(BadIdle(text.into())),
            },
            _ => Err(BadIdle(text.into())),
        }
    }
}

impl fmt::Display for Idle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Idle::Spin => f.write_str("spin"),
            Idle::Pause => f.write_str("pause"),
            Idle::Sleep { spins: SPINS, .. } => f.write_str("sleep"),
            Idle::Sleep { spins, .. } => write!(f, "sleep:{spins}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_goes_from_polling_to_pausing_to_sleeping() {
        let steps = |idle: Idle| [1, 500, 501, 510, 600, 601, u32::MAX].map(|turns| idle.step(turns));
        assert_eq!(steps(Idle::Spin), [Step::Poll; 7]);
        // Of 500 spins, then 100 pauses.
        let pauses = [Step::Poll, Step::Poll, Step::Pause(0), Step::Pause(9), Step::Pause(99)];
        assert_eq!(steps(Idle::Pause)[..5], pauses);
        assert_eq!(steps(Idle::Pause)[5..], [Step::Pause(100), Step::Pause(u32::MAX - 501)]);
        assert_eq!(steps(Idle::default())[..5], pauses);
        assert_eq!(steps(Idle::default())[5..], [Step::Sleep; 2]);
        assert_eq!(Idle::Sleep { spins: 0, pauses: 0 }.step(1), Step::Sleep);
        assert_eq!(Idle::Sleep { spins: u32::MAX, pauses: 1 }.step(u32::MAX - 1), Step::Poll);
    }

    #[test]
    fn the_most_wakeful_step_is_the_least() {
        assert!(
            Step::Poll < Step::Pause(0) && Step::Pause(0) < Step::Pause(1) && Step::Pause(9) < Step::Sleep
        );
    }

    #[test]
    fn policies_are_read_as_they_are_written() {
        for text in ["spin", "pause", "sleep", "sleep:0", "sleep:20000"] {
            assert_eq!(text.parse::<Idle>().unwrap().to_string(), text);
        }
        assert_eq!("sleep:7".parse(), Ok(Idle::Sleep { spins: 7, pauses: PAUSES }));
        for text in ["", "yield", "Spin", "spin:1", "sleep:", "sleep:-1", "sleep:4294967296", "sleep:1:2"] {
            let error = text.parse::<Idle>().unwrap_err().to_string();
            assert!(error.contains("write spin, pause"), "{error}");
        }
    }
}
