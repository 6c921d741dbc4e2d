//! The neighbour cache: which MAC address answers for an on-link IP address.
//!
//! One table for ARP and neighbour discovery, with the states of RFC 4861 section 7.3 (and RFC 1122 section 2.3.2 for
//! ARP). It builds no packets: it says what to solicit and which frames to send or give up. An address is learnt only
//! from answers to questions of our own and from stations that ask for us; the latter never push anything out.
//!
//! Each core has its own. Answers reach one core; it passes the [`Claim`] on, and every core judges it for itself.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use pmd::{Instant, MacAddr, Mbuf, MbufList};

use super::config::Limits;
use super::small::Keyed;
use crate::stats::Drop;

/// What a station said about itself in ARP or neighbour discovery; it passed the syntactic checks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Claim {
    /// The port it was heard on.
    pub port: u16,
    /// The address it speaks for.
    pub address: IpAddr,
    /// Where it says the address is; an advertisement may leave it out.
    pub mac: Option<MacAddr>,
    /// In what words.
    pub kind: ClaimKind,
}

/// How a [`Claim`] was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClaimKind {
    /// It asked for one of our addresses.
    Asked,
    /// It answered a question, or announced itself.
    Answered {
        /// Sent to us in answer: proves that our packets reach it.
        solicited: bool,
        /// Replaces what was known.
        overrides: bool,
    },
}

/// RFC 4861 section 10.
const REACHABLE_TIME: Duration = Duration::from_secs(30);
const DELAY_FIRST_PROBE: Duration = Duration::from_secs(5);
const RETRANS_TIMER: Duration = Duration::from_secs(1);
const SOLICITATIONS_MAX: u8 = 3;
/// How long a neighbour that did not answer is taken for dead without asking again.
const FAILED_TIME: Duration = Duration::from_secs(1);
/// A neighbour that was confirmed and used within this time is not pushed out by strangers.
const PROTECTED_TIME: Duration = Duration::from_secs(60);
/// Timers are looked at no more often than this.
const GRANULARITY: Duration = Duration::from_millis(10);
/// Entries looked at to find one to push out.
const EVICTION_SEARCH: usize = 64;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Free,
    /// Asked, no answer yet; frames wait.
    Incomplete,
    /// Confirmed within the reachable time before `due`.
    Reachable,
    /// Not confirmed lately; the next use starts the check.
    Stale,
    /// Used while stale; asked again from `due` on.
    Delay,
    /// Being asked directly.
    Probe,
    /// Did not answer; refused until `due`.
    Failed,
}

impl State {
    /// `due` means something to the timers.
    fn is_timed(self) -> bool {
        matches!(self, State::Incomplete | State::Delay | State::Probe | State::Failed)
    }
}

struct Entry {
    port: u16,
    address: IpAddr,
    /// Our address that asks.
    source: IpAddr,
    mac: MacAddr,
    state: State,
    due: Instant,
    tries: u8,
    /// It has answered us at least once.
    confirmed: bool,
    used: Instant,
    waiting: MbufList,
}

/// What a lookup found.
#[derive(Debug, PartialEq, Eq)]
pub enum Lookup {
    /// Send to this MAC address.
    Known(MacAddr),
    /// Park the frame under this entry; if `solicit`, ask.
    Unresolved { slot: usize, solicit: bool },
    /// It does not answer.
    Failed,
    /// No entry can be freed for it.
    Full,
}

/// What a timer or an eviction demands.
pub enum Action {
    /// Ask for `address`: all stations, or the one at `mac`.
    Solicit { port: usize, address: IpAddr, source: IpAddr, mac: Option<MacAddr> },
    /// Give these frames up.
    GiveUp { port: usize, frames: MbufList, reason: Drop },
}

pub struct Neighbours {
    entries: Vec<Entry>,
    index: HashMap<(u16, IpAddr), u16, Keyed>,
    /// The entry looked up last: datagrams to one neighbour come in bursts.
    last: usize,
    free: Vec<u16>,
    incomplete: usize,
    waiting: usize,
    /// Where the search for something to push out goes on.
    hand: usize,
    /// No timer is due before this.
    next: Instant,
    /// How far the run over the timers has come.
    scan: usize,
    waiting_max: usize,
    waiting_per_neighbour: usize,
}

impl Neighbours {
    pub fn new(limits: &Limits, keyed: Keyed) -> Self {
        let n = limits.neighbours;
        let none = IpAddr::from([0, 0, 0, 0]);
        let free = || Entry {
            port: 0,
            address: none,
            source: none,
            mac: MacAddr::default(),
            state: State::Free,
            due: Instant::FAR_FUTURE,
            tries: 0,
            confirmed: false,
            used: Instant::ZERO,
            waiting: MbufList::new(),
        };
        Neighbours {
            entries: (0..n).map(|_| free()).collect(),
            // Twice the room, so that the map clears out deleted entries in place and never allocates again.
            index: HashMap::with_capacity_and_hasher(2 * n, keyed),
            last: 0,
            free: (0..n as u16).rev().collect(),
            incomplete: 0,
            waiting: 0,
            hand: 0,
            next: Instant::FAR_FUTURE,
            scan: 0,
            waiting_max: limits.waiting,
            waiting_per_neighbour: limits.waiting_per_neighbour,
        }
    }

    /// When a timer is due.
    pub fn next_timeout(&self) -> Option<Instant> {
        (self.next != Instant::FAR_FUTURE).then_some(self.next)
    }

    /// Finds the neighbour for a frame that is about to be sent. `source` is the address of ours to ask from.
    /// An entry that had to be pushed out goes to `act`.
    #[inline]
    pub fn lookup(
        &mut self,
        now: Instant,
        (port, address): (u16, IpAddr),
        source: IpAddr,
        act: &mut dyn FnMut(Action),
    ) -> Lookup {
        let Some(slot) = self.find((port, address)) else {
            let Some(slot) = self.allocate(now, act) else { return Lookup::Full };
            self.install(slot, now, (port, address), source);
            self.ask(slot, now);
            return Lookup::Unresolved { slot, solicit: true };
        };
        let entry = &mut self.entries[slot];
        entry.used = now;
        entry.source = source;
        match entry.state {
            State::Reachable if now < entry.due => Lookup::Known(entry.mac),
            State::Reachable | State::Stale => {
                entry.state = State::Delay;
                let mac = entry.mac;
                self.schedule(slot, now, DELAY_FIRST_PROBE);
                Lookup::Known(mac)
            }
            State::Delay | State::Probe => Lookup::Known(entry.mac),
            State::Incomplete => Lookup::Unresolved { slot, solicit: false },
            State::Failed if now < entry.due => Lookup::Failed,
            State::Failed | State::Free => {
                self.ask(slot, now);
                Lookup::Unresolved { slot, solicit: true }
            }
        }
    }

    /// The entry of an address.
    #[inline]
    fn find(&mut self, key: (u16, IpAddr)) -> Option<usize> {
        let last = self.entries.get(self.last)?;
        if (last.port, last.address) != key || last.state == State::Free {
            self.last = usize::from(*self.index.get(&key)?);
        }
        Some(self.last)
    }

    /// Keeps a frame until its neighbour answers.
    pub fn park(&mut self, slot: usize, frame: Mbuf) -> Result<(), Drop> {
        let entry = &mut self.entries[slot];
        debug_assert!(entry.state == State::Incomplete);
        if self.waiting >= self.waiting_max || entry.waiting.len() >= self.waiting_per_neighbour {
            return Err(Drop::NeighbourQueueFull);
        }
        entry.waiting.push_back(frame);
        self.waiting += 1;
        Ok(())
    }

    /// Applies what a station said (RFC 4861 sections 7.2.3 and 7.2.5). Returns the frames that waited for it and
    /// where to send them; `None` if it is nobody that we deal with.
    pub fn learn(&mut self, now: Instant, claim: &Claim) -> Option<(MacAddr, MbufList)> {
        let Some(&slot) = self.index.get(&(claim.port, claim.address)) else {
            return self.learn_new(now, claim).map(|mac| (mac, MbufList::new()));
        };
        let slot = usize::from(slot);
        let entry = &mut self.entries[slot];
        let unknown = matches!(entry.state, State::Incomplete | State::Failed);
        let (solicited, overrides) = match claim.kind {
            ClaimKind::Asked => (false, true),
            ClaimKind::Answered { solicited, overrides } => (solicited, overrides),
        };
        let moved = claim.mac.filter(|&mac| unknown || mac != entry.mac);
        if unknown && moved.is_none() {
            return None;
        }
        if moved.is_some() && !overrides && !unknown {
            // Someone else says it is elsewhere, without insisting: believe neither for certain.
            if entry.state == State::Reachable {
                entry.state = State::Stale;
            }
            return Some((entry.mac, MbufList::new()));
        }
        let was_incomplete = entry.state == State::Incomplete;
        entry.mac = moved.unwrap_or(entry.mac);
        entry.confirmed |= solicited;
        if solicited {
            entry.state = State::Reachable;
            entry.due = now + REACHABLE_TIME;
        } else if moved.is_some() {
            entry.state = State::Stale;
            entry.due = Instant::FAR_FUTURE;
        }
        let flushed = std::mem::take(&mut entry.waiting);
        let mac = entry.mac;
        self.waiting -= flushed.len();
        self.incomplete -= usize::from(was_incomplete);
        Some((mac, flushed))
    }

    /// A station that asked for us is remembered while there is plenty of room.
    fn learn_new(&mut self, now: Instant, claim: &Claim) -> Option<MacAddr> {
        let mac = claim.mac?;
        if claim.kind != ClaimKind::Asked || self.free.len() <= self.entries.len() / 2 {
            return None;
        }
        let slot = usize::from(self.free.pop()?);
        self.install(slot, now, (claim.port, claim.address), claim.address);
        let entry = &mut self.entries[slot];
        entry.mac = mac;
        entry.state = State::Stale;
        Some(mac)
    }

    /// Runs the next timer that is due, if it demands something. Call until there is none.
    pub fn expire(&mut self, now: Instant) -> Option<Action> {
        if self.scan == 0 {
            if now < self.next {
                return None;
            }
            self.next = Instant::FAR_FUTURE;
        }
        while self.scan < self.entries.len() {
            let slot = self.scan;
            self.scan += 1;
            let due = self.entries[slot].state.is_timed() && now >= self.entries[slot].due;
            let action = if due { self.expire_entry(slot, now) } else { None };
            if self.entries[slot].state.is_timed() {
                self.next = self.next.min(self.entries[slot].due);
            }
            if action.is_some() {
                return action;
            }
        }
        self.scan = 0;
        if self.next != Instant::FAR_FUTURE {
            self.next = self.next.max(now + GRANULARITY);
        }
        None
    }

    fn expire_entry(&mut self, slot: usize, now: Instant) -> Option<Action> {
        let entry = &mut self.entries[slot];
        match entry.state {
            State::Failed => {
                self.remove(slot);
                None
            }
            State::Incomplete | State::Probe if entry.tries >= SOLICITATIONS_MAX => {
                self.incomplete -= usize::from(entry.state == State::Incomplete);
                entry.state = State::Failed;
                self.schedule(slot, now, FAILED_TIME);
                self.take_waiting(slot, Drop::NeighbourUnreachable)
            }
            State::Incomplete | State::Probe | State::Delay => {
                if entry.state == State::Delay {
                    entry.state = State::Probe;
                    entry.tries = 0;
                }
                entry.tries += 1;
                let mac = (entry.state == State::Probe).then_some(entry.mac);
                let (port, address, source) = (usize::from(entry.port), entry.address, entry.source);
                self.schedule(slot, now, RETRANS_TIMER);
                Some(Action::Solicit { port, address, source, mac })
            }
            State::Free | State::Reachable | State::Stale => None,
        }
    }

    /// Gives up every waiting frame and forgets every neighbour.
    pub fn clear(&mut self, act: &mut dyn FnMut(Action)) {
        for slot in 0..self.entries.len() {
            if self.entries[slot].state != State::Free {
                self.incomplete -= usize::from(self.entries[slot].state == State::Incomplete);
                self.take_waiting(slot, Drop::NeighbourUnreachable).map(&mut *act);
                self.remove(slot);
            }
        }
        self.next = Instant::FAR_FUTURE;
    }

    fn schedule(&mut self, slot: usize, now: Instant, after: Duration) {
        self.entries[slot].due = now + after;
        self.next = self.next.min(now + after);
    }

    /// Starts the search for an address: the caller sends the first question.
    fn ask(&mut self, slot: usize, now: Instant) {
        self.entries[slot].state = State::Incomplete;
        self.entries[slot].tries = 1;
        self.incomplete += 1;
        self.schedule(slot, now, RETRANS_TIMER);
    }

    fn install(&mut self, slot: usize, now: Instant, (port, address): (u16, IpAddr), source: IpAddr) {
        self.index.insert((port, address), slot as u16);
        let entry = &mut self.entries[slot];
        debug_assert!(entry.state == State::Free && entry.waiting.is_empty());
        entry.port = port;
        entry.address = address;
        entry.source = source;
        entry.due = Instant::FAR_FUTURE;
        entry.tries = 0;
        entry.confirmed = false;
        entry.used = now;
    }

    fn remove(&mut self, slot: usize) {
        let entry = &mut self.entries[slot];
        debug_assert!(entry.waiting.is_empty());
        self.index.remove(&(entry.port, entry.address));
        entry.state = State::Free;
        entry.due = Instant::FAR_FUTURE;
        self.free.push(slot as u16);
    }

    fn take_waiting(&mut self, slot: usize, reason: Drop) -> Option<Action> {
        let frames = std::mem::take(&mut self.entries[slot].waiting);
        self.waiting -= frames.len();
        let port = usize::from(self.entries[slot].port);
        (!frames.is_empty()).then_some(Action::GiveUp { port, frames, reason })
    }

    /// A free entry, or one pushed out. Unanswered questions, which strangers can make us ask, never hold more than a
    /// quarter of the table: beyond that they push out only each other.
    fn allocate(&mut self, now: Instant, act: &mut dyn FnMut(Action)) -> Option<usize> {
        let crowded = self.incomplete >= self.entries.len() / 4;
        if !crowded && let Some(slot) = self.free.pop() {
            return Some(usize::from(slot));
        }
        let n = self.entries.len();
        // How far an entry is from being worth keeping: lower goes first.
        let worth = |entry: &Entry| match entry.state {
            State::Incomplete => Some((1, entry.used)),
            _ if crowded => None,
            State::Free => None,
            State::Failed => Some((0, entry.used)),
            _ if !entry.confirmed => Some((2, entry.used)),
            _ if entry.used + PROTECTED_TIME < now => Some((3, entry.used)),
            _ => None,
        };
        let candidates = (0..n.min(EVICTION_SEARCH)).map(|i| (self.hand + i) % n);
        let victim = candidates.filter_map(|slot| Some((worth(&self.entries[slot])?, slot))).min();
        self.hand = (self.hand + EVICTION_SEARCH) % n;
        let (_, slot) = victim?;
        self.incomplete -= usize::from(self.entries[slot].state == State::Incomplete);
        self.take_waiting(slot, Drop::NeighbourTableFull).map(act);
        self.remove(slot);
        self.free.pop().map(usize::from)
    }
}
