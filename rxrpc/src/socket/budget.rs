//! How many received bytes a core's calls may have lying unread in their readers' rings.
//!
//! Half of the budget is shared: a call may hold an eighth of what is free of it just then (a dynamic threshold, after
//! Choudhury and Hahne 1998), so that a few greedy calls get far and many get less each. The other half belongs to the
//! calls one by one, [`OWN`] bytes each, whatever the others do; it also says how many calls there may be. So the
//! budget holds by construction, and calls that nobody reads cannot stop those that somebody does. What has no place
//! here stays in the endpoint, whose window closes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crossbeam_utils::CachePadded;

/// Divides the free part of the shared half; the result is a call's threshold.
const SHARE: u64 = 8;
/// Bytes that each call may hold in any case: five packets.
const OWN: usize = 8 << 10;

/// One core's account with its readers: what it gave them and what they have read, ever.
pub(crate) struct ReadAccount {
    /// How many calls there may be: each needs [`OWN`] bytes of the budget.
    calls_max: usize,
    /// Written by the core alone.
    given: CachePadded<AtomicU64>,
    /// Readers add to it.
    read: CachePadded<AtomicU64>,
    /// Calls that may be given something.
    calls: AtomicUsize,
}

impl ReadAccount {
    /// An account within a budget of so many bytes.
    pub(crate) fn new(budget: usize) -> Self {
        ReadAccount {
            calls_max: (budget / 2 / OWN).max(1),
            given: CachePadded::default(),
            read: CachePadded::default(),
            calls: AtomicUsize::new(0),
        }
    }

    /// The most calls there may be.
    pub(crate) fn calls_max(&self) -> usize {
        self.calls_max
    }

    /// A reader has read so many bytes.
    pub(crate) fn add_read(&self, bytes: u64) {
        self.read.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes that lie unread.
    pub(crate) fn unread(&self) -> u64 {
        self.given.load(Ordering::Relaxed).saturating_sub(self.read.load(Ordering::Relaxed))
    }

    /// Counts one more call, unless the budget has no [`OWN`] bytes left for it; then the limit is the error.
    pub(crate) fn begin_call(&self) -> Result<(), usize> {
        if self.calls.fetch_add(1, Ordering::AcqRel) >= self.calls_max {
            self.end_call();
            return Err(self.calls_max);
        }
        Ok(())
    }

    pub(crate) fn end_call(&self) {
        self.calls.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The core's side of its account.
pub(crate) struct ReadBudget {
    shared: u64,
    account: Arc<ReadAccount>,
}

impl ReadBudget {
    pub(crate) fn new(limit: usize, account: Arc<ReadAccount>) -> Self {
        ReadBudget { shared: limit as u64 / 2, account }
    }

    /// How many more bytes a call may be given that has `unread` of them already.
    pub(crate) fn allowance(&self, unread: usize) -> usize {
        let free = self.shared.saturating_sub(self.account.unread());
        ((free / SHARE) as usize).max(OWN).saturating_sub(unread)
    }

    /// So many bytes were given to a reader.
    pub(crate) fn give(&mut self, bytes: usize) {
        let given = self.account.given.load(Ordering::Relaxed) + bytes as u64;
        self.account.given.store(given, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_that_nobody_reads_stay_within_the_budget_and_leave_room_for_the_next() {
        const BUDGET: usize = 24 << 20;
        let account = Arc::new(ReadAccount::new(BUDGET));
        let mut budget = ReadBudget::new(BUDGET, account.clone());
        let mut calls = 0;
        while account.begin_call().is_ok() {
            calls += 1;
            let mut unread = 0;
            loop {
                let more = budget.allowance(unread).min(1_412);
                if more == 0 || unread >= 64 << 10 {
                    break;
                }
                budget.give(more);
                unread += more;
            }
            assert!(unread >= OWN, "call {calls} got {unread} bytes");
        }
        assert_eq!(calls, BUDGET / 2 / OWN);
        let unread = account.unread();
        assert!(unread <= BUDGET as u64, "{unread} bytes unread");
        account.add_read(unread);
        assert_eq!(budget.allowance(0), BUDGET / 16);
    }
}
