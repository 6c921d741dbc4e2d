//! The drop ledger: what became of every frame, per core.
//!
//! `received + handed_in = delivered + consumed + handed_out + drops + refusals + held`. The core writes with plain loads and
//! stores; anyone may read. Between two reads of a running core the sum may be off by what is in flight; at rest it closes exactly.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::handler::{Outcome, REFUSALS_MAX};
use crate::stack::Tally;
use crate::stats::{Drop, DropCounts};

/// A counter with one writer: no locked instruction.
#[derive(Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    #[inline]
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The counters of one core, shared with whoever reads them.
pub(crate) struct CoreCounters {
    pub received: Counter,
    /// Datagrams that came in by their owner's queue.
    pub at_owner: Counter,
    pub handed_in: Counter,
    pub handed_out: Counter,
    pub delivered: Counter,
    pub consumed: Counter,
    pub held: Counter,
    pub drops: [Counter; Drop::COUNT],
    pub refusals: [Counter; REFUSALS_MAX],
    pub refusal_names: &'static [&'static str],
    pub sent: Counter,
    pub tx_drops: [Counter; Drop::COUNT],
    /// Bytes of buffers ever pushed on socket queues.
    pub queued: Counter,
    /// Local ports that a client on this core looked at before it had one whose replies come here.
    pub ports_tried: Counter,
    pub turns: Counter,
    pub busy_turns: Counter,
    pub sleeps: Counter,
}

impl CoreCounters {
    pub fn new(refusal_names: &'static [&'static str]) -> Self {
        assert!(refusal_names.len() <= REFUSALS_MAX, "a handler may name at most {REFUSALS_MAX} refusals");
        CoreCounters {
            received: Default::default(),
            at_owner: Default::default(),
            handed_in: Default::default(),
            handed_out: Default::default(),
            delivered: Default::default(),
            consumed: Default::default(),
            held: Default::default(),
            drops: std::array::from_fn(|_| Counter::default()),
            refusals: std::array::from_fn(|_| Counter::default()),
            refusal_names,
            sent: Default::default(),
            tx_drops: std::array::from_fn(|_| Counter::default()),
            queued: Default::default(),
            ports_tried: Default::default(),
            turns: Default::default(),
            busy_turns: Default::default(),
            sleeps: Default::default(),
        }
    }

    #[inline]
    pub fn outcome(&self, outcome: Outcome) {
        match outcome {
            Outcome::Delivered => self.delivered.add(1),
            Outcome::Consumed => self.consumed.add(1),
            Outcome::Dropped(reason) => self.drops[reason as usize].add(1),
            Outcome::Refused(which) => self.refusals[(which as usize).min(REFUSALS_MAX - 1)].add(1),
        }
    }

    pub fn dropped(&self, reason: Drop) {
        self.drops[reason as usize].add(1);
    }

    #[inline]
    pub fn turn(&self, busy: bool) {
        self.turns.add(1);
        self.busy_turns.add(u64::from(busy));
    }

    /// Frames that the stack settled after their verdict.
    pub fn settle(&self, tally: &Tally) {
        self.consumed.add(tally.consumed);
        for (reason, n) in tally.rx.iter() {
            self.drops[reason as usize].add(n);
        }
        for (reason, n) in tally.tx.iter() {
            self.tx_drops[reason as usize].add(n);
        }
    }

    pub fn snapshot(&self) -> Ledger {
        let mut ledger = Ledger {
            // Outcomes are read before arrivals, so that a running core never seems to have accounted for more than it received.
            delivered: self.delivered.get(),
            consumed: self.consumed.get(),
            handed_out: self.handed_out.get(),
            held: self.held.get(),
            at_owner: self.at_owner.get(),
            ..Ledger::default()
        };
        for &reason in Drop::ALL {
            ledger.drops.add(reason, self.drops[reason as usize].get());
            ledger.tx_drops.add(reason, self.tx_drops[reason as usize].get());
        }
        let named = self.refusal_names.iter().zip(&self.refusals);
        ledger.refusals = named.map(|(name, count)| (*name, count.get())).filter(|(_, n)| *n > 0).collect();
        ledger.received = self.received.get();
        ledger.handed_in = self.handed_in.get();
        ledger.sent = self.sent.get();
        ledger
    }
}

/// What became of every frame: a snapshot of one core, or the sum of several.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Frames taken from the ports' queues, and datagrams sent to ourselves.
    pub received: u64,
    /// Datagrams that came in by the queue of the core that owns them: nothing was to be handed over. Not a part of the balance, which
    /// has them under what became of them.
    pub at_owner: u64,
    /// Datagrams that other cores handed over.
    pub handed_in: u64,
    /// Datagrams handed to the cores that own them.
    pub handed_out: u64,
    /// Datagrams given to a socket's user; frames forwarded by a raw handler.
    pub delivered: u64,
    /// Frames that a protocol (ARP, ICMP, the handler's own) took.
    pub consumed: u64,
    /// Fragments that wait for the rest of their datagram.
    pub held: u64,
    /// Frames thrown away by the engine, by name.
    pub drops: DropCounts,
    /// Datagrams that the handler refused, by its own names.
    pub refusals: Vec<(&'static str, u64)>,
    /// Datagrams that the stack took to send.
    pub sent: u64,
    /// Datagrams not sent, by name. Not a part of the balance above.
    pub tx_drops: DropCounts,
}

impl Ledger {
    /// Adds another core's counters.
    pub fn merge(&mut self, other: &Ledger) {
        self.received += other.received;
        self.at_owner += other.at_owner;
        self.handed_in += other.handed_in;
        self.handed_out += other.handed_out;
        self.delivered += other.delivered;
        self.consumed += other.consumed;
        self.held += other.held;
        self.drops.merge(&other.drops);
        self.sent += other.sent;
        self.tx_drops.merge(&other.tx_drops);
        for (name, n) in &other.refusals {
            match self.refusals.iter_mut().find(|mine| mine.0 == *name) {
                Some(mine) => mine.1 += n,
                None => self.refusals.push((name, *n)),
            }
        }
    }

    /// Everything thrown away on the way in, with its name.
    pub fn dropped(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.drops.iter().map(|(reason, n)| (reason.name(), n)).chain(self.refusals.iter().copied())
    }

    /// What came in less what it became: zero at rest.
    pub fn imbalance(&self) -> i64 {
        let dropped: u64 = self.dropped().map(|(_, n)| n).sum();
        let settled = self.delivered + self.consumed + self.handed_out + self.held + dropped;
        (self.received + self.handed_in) as i64 - settled as i64
    }
}

impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ledger { received, delivered, consumed, held, .. } = self;
        write!(f, "received {received} = delivered {delivered} + consumed {consumed} + held {held}")?;
        for (name, n) in self.dropped() {
            write!(f, " + {name} {n}")?;
        }
        if self.handed_in != self.handed_out {
            write!(f, " ({} handed in, {} handed out)", self.handed_in, self.handed_out)?;
        }
        Ok(())
    }
}
