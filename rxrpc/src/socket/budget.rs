//! How many received bytes a core's calls may have lying unread in their readers' rings.
//!
//! One call may hold an eighth of what is free just then (dynamic thresholds, Choudhury and Hahne 1998). However many
//! calls nobody reads, the budget never runs out: each more of them lowers the threshold for all, and a call that is
//! read always finds an eighth of what is left. Beyond its threshold a call's bytes stay in the endpoint, whose window
//! closes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_utils::CachePadded;

/// Divides the free budget; the part is a call's threshold.
const SHARE: u64 = 8;
/// A call whose ring is empty may take so much in any case (one packet), so that a reader always gets on.
const LEAST: usize = 1_500;

/// Bytes that readers have read, of all that a core gave them. Readers add, their core subtracts.
pub(crate) type BytesRead = Arc<CachePadded<AtomicU64>>;

/// One core's account.
pub(crate) struct ReadBudget {
    limit: u64,
    given: u64,
    read: BytesRead,
}

impl ReadBudget {
    pub(crate) fn new(limit: usize, read: BytesRead) -> Self {
        ReadBudget { limit: limit as u64, given: 0, read }
    }

    /// Bytes that lie unread.
    pub(crate) fn unread(&self) -> u64 {
        self.given.saturating_sub(self.read.load(Ordering::Relaxed))
    }

    /// How many more bytes a call may be given that has `unread` of them already.
    pub(crate) fn allowance(&self, unread: usize) -> usize {
        let threshold = (self.limit.saturating_sub(self.unread()) / SHARE) as usize;
        let least = if unread == 0 { LEAST } else { 0 };
        threshold.saturating_sub(unread).max(least)
    }

    /// So many bytes were given to a reader.
    pub(crate) fn give(&mut self, bytes: usize) {
        self.given += bytes as u64;
    }

    /// A call was released with so many bytes unread: nobody will read them.
    pub(crate) fn forget(&mut self, unread: u64) {
        self.given -= unread;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thousand_unread_calls_leave_room_for_the_next() {
        let read = BytesRead::default();
        let mut budget = ReadBudget::new(8 << 20, read.clone());
        for _ in 0..1_000 {
            let mut unread = 0;
            loop {
                let more = budget.allowance(unread).min(1_412);
                if more == 0 || unread >= 64 << 10 {
                    break;
                }
                budget.give(more);
                unread += more;
            }
        }
        assert!(budget.unread() < 8 << 20, "{} bytes unread", budget.unread());
        assert!(budget.allowance(0) >= LEAST);
        let unread = budget.unread();
        read.fetch_add(unread, Ordering::Relaxed);
        assert_eq!(budget.unread(), 0);
        assert_eq!(budget.allowance(0), 1 << 20);
    }
}
