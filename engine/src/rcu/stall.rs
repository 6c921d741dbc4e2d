//! The stall watch: names the readers that hold up a grace period for too long, and says for how long they really did.
//!
//! Whoever waits for a grace period looks; no thread is kept for it. How often it looks does not matter for the length: the stall began
//! with the turn that the core is in (which it noted) and ends when the core passes, which it stamps because the watch asked.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use pmd::{Clock, Instant};

use super::member::{Member, Members};

/// From how long on a reader that is waited for is said to stall, unless set otherwise.
const THRESHOLD: Duration = Duration::from_millis(10);
/// Readers whose past stalls are remembered; the one that stalled longest ago makes room.
const REMEMBERED: usize = 64;

/// A reader that holds up a grace period right now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stall {
    /// The core or thread.
    pub reader: String,
    /// Its last quiescent state, as far as it notes its turns; else the beginning of the grace period.
    pub since: Instant,
    /// From `since` to now.
    pub length: Duration,
}

/// The stalls of one reader that are over.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PastStalls {
    /// The core or thread.
    pub reader: String,
    /// How many.
    pub count: u64,
    /// The last one.
    pub last: Duration,
    /// The longest.
    pub longest: Duration,
    /// All together.
    pub total: Duration,
}

pub(crate) struct Watch {
    threshold_ns: AtomicU64,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    current: Vec<Current>,
    /// The latest at the back.
    past: VecDeque<PastStalls>,
}

struct Current {
    member: &'static Member,
    reader: String,
    target: u64,
    since: Instant,
}

impl Watch {
    pub fn new() -> Self {
        Watch { threshold_ns: AtomicU64::new(THRESHOLD.as_nanos() as u64), seen: Mutex::default() }
    }

    pub fn set_threshold(&self, threshold: Duration) {
        let nanos = u64::try_from(threshold.as_nanos()).unwrap_or(u64::MAX);
        self.threshold_ns.store(nanos, Ordering::Relaxed);
    }

    /// One look, by a thread that has waited for `target` since `began`, and once more when its wait is over.
    pub fn look(&self, members: &Members, target: u64, began: Instant) {
        let now = Clock::now();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.end_stalls(now);
        if (now - began).as_nanos() < self.threshold_ns.load(Ordering::Relaxed).into() {
            return;
        }
        for member in members.iter().filter(|member| !member.progress().has_passed(target)) {
            if seen.current.iter().any(|stall| std::ptr::eq(stall.member, member)) {
                continue;
            }
            let since = member.reading_since(began);
            member.ask();
            seen.current.push(Current { member, reader: member.name(), target, since });
        }
    }

    pub fn current(&self) -> Vec<Stall> {
        let now = Clock::now();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.end_stalls(now);
        let stall = |stall: &Current| Stall {
            reader: stall.reader.clone(),
            since: stall.since,
            length: now - stall.since,
        };
        seen.current.iter().map(stall).collect()
    }

    pub fn past(&self) -> Vec<PastStalls> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).past.iter().cloned().collect()
    }
}

impl Seen {
    fn end_stalls(&mut self, now: Instant) {
        let Seen { current, past } = self;
        current.retain(|stall| {
            let over = stall.member.progress().has_passed(stall.target);
            if over {
                // No answer: the reader passed while it was being asked.
                let ended = stall.member.answered().unwrap_or(now);
                remember(past, &stall.reader, ended - stall.since);
            }
            !over
        });
    }
}

fn remember(past: &mut VecDeque<PastStalls>, reader: &str, length: Duration) {
    let known = past.iter().position(|stalls| stalls.reader == reader);
    let mut stalls = known.and_then(|at| past.remove(at)).unwrap_or_else(|| PastStalls {
        reader: reader.into(),
        count: 0,
        last: Duration::ZERO,
        longest: Duration::ZERO,
        total: Duration::ZERO,
    });
    stalls.count += 1;
    stalls.last = length;
    stalls.longest = stalls.longest.max(length);
    stalls.total += length;
    if past.len() == REMEMBERED {
        past.pop_front();
    }
    past.push_back(stalls);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_bounded_and_the_oldest_goes() {
        let mut past = VecDeque::new();
        for n in 0..2 * REMEMBERED {
            remember(&mut past, "always", Duration::from_millis(n as u64));
            remember(&mut past, &n.to_string(), Duration::from_millis(1));
        }
        assert_eq!(past.len(), REMEMBERED);
        let always = past.iter().find(|stalls| stalls.reader == "always").unwrap();
        assert_eq!(
            (always.count, always.longest.as_millis()),
            (2 * REMEMBERED as u64, 2 * REMEMBERED as u128 - 1)
        );
        assert!(!past.iter().any(|stalls| stalls.reader == "0"));
    }
}
