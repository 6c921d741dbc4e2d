//! When requests are due, which are in flight, and what became of them. Knows neither clock nor wire: its user passes the time down and carries
//! requests out, one thread's alone.
//!
//! A run goes through phases: one request at a time until a first answer (`Connecting`), `WarmUp`, `Measuring`, and `Draining` until
//! everything that was due in the measured time has its answer or is lost. In an open loop the times of requests are drawn beforehand and do not
//! depend on answers; one that cannot be made in time is made later and its latency counts from when it was due. Thus nothing is omitted
//! because the server was slow, and what has no answer in the end is counted with the time it had waited by then.

mod schedule;
#[cfg(test)]
mod tests;

use std::time::Duration;

use hdrhistogram::Histogram;
use pmd::Instant;

use schedule::Poisson;

/// The longest latency that is told from longer ones.
const LATENCY_MAX: Duration = Duration::from_secs(100);
/// While nobody has answered yet, a datagram is sent anew so often.
const ASK_AGAIN: Duration = Duration::from_millis(50);
/// Requests in flight whose age is looked at in one turn.
const LOOKED_AT: usize = 8;

/// How requests follow each other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mode {
    /// At random times, so many a second on average.
    Open {
        /// Requests a second.
        rate: f64,
    },
    /// The next when one has ended.
    Closed,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plan {
    /// How requests follow each other.
    pub mode: Mode,
    /// The most of them at once.
    pub in_flight: usize,
    /// For so long the load runs before anything counts.
    pub warm_up: Duration,
    /// For so long it counts.
    pub measure: Duration,
    /// After so long a request is lost; `None`: its user will say.
    pub patience: Option<Duration>,
    /// For so long a first answer is waited for.
    pub connect: Duration,
    /// What times are drawn from.
    pub seed: u64,
}

/// Names a request: its place, and in the upper half how many were there before. Never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket(pub u64);

impl Ticket {
    /// Its place: below [`Plan::in_flight`].
    pub fn slot(self) -> usize {
        self.0 as u32 as usize
    }

    fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Nobody has answered yet.
    Connecting,
    /// Nothing counts yet.
    WarmUp,
    /// It counts.
    Measuring,
    /// Nothing more is asked; answers are awaited.
    Draining,
    /// The end.
    Over,
}

/// What a run came to.
#[derive(Clone, Debug)]
pub struct Tally {
    /// Verified answers that came in the measured time.
    pub calls: u64,
    /// Bytes of these.
    pub bytes: u64,
    /// Requests due in the measured time that were not made.
    pub unsent: u64,
    /// Requests due in the measured time without an answer in time.
    pub lost: u64,
    /// What should not be, of the whole run.
    pub errors: u64,
    /// The first of these.
    pub first_error: Option<String>,
    /// From when each request of the measured time was due, in nanoseconds.
    pub latency_ns: Histogram<u64>,
    /// When the first answer came.
    pub first_answer: Option<Instant>,
}

/// One request's place.
#[derive(Clone, Copy, Default)]
struct Slot {
    generation: u32,
    busy: bool,
    due: Instant,
    /// Later than `due` where it had to wait for a place.
    made: Instant,
    /// Of the last 64 requests here, the last one in the lowest bit: whether it was answered.
    answered: u64,
}

/// See the module's head.
pub struct Generator {
    plan: Plan,
    phase: Phase,
    begun: Instant,
    /// The measured time.
    window: (Instant, Instant),
    poisson: Option<Poisson>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Requests in flight that were due in the measured time.
    awaited: usize,
    looked: usize,
    tally: Tally,
}

impl Generator {
    /// A run that begins now.
    pub fn new(plan: Plan, now: Instant) -> Generator {
        let latency_ns =
            Histogram::new_with_bounds(1, LATENCY_MAX.as_nanos() as u64, 3).expect("sound bounds");
        let tally = Tally {
            calls: 0,
            bytes: 0,
            unsent: 0,
            lost: 0,
            errors: 0,
            first_error: None,
            latency_ns,
            first_answer: None,
        };
        Generator {
            plan,
            phase: Phase::Connecting,
            begun: now,
            window: (Instant::FAR_FUTURE, Instant::FAR_FUTURE),
            poisson: None,
            slots: vec![Slot::default(); plan.in_flight],
            free: (0..plan.in_flight as u32).rev().collect(),
            awaited: 0,
            looked: 0,
            tally,
        }
    }

    /// How far it is.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// When the measured time begins and ends, once that is known.
    pub fn window(&self) -> Option<(Instant, Instant)> {
        (self.phase > Phase::Connecting).then_some(self.window)
    }

    /// Once a turn, after what came was told: the time goes on.
    pub fn turn(&mut self, now: Instant) {
        self.look_for_lost(now);
        self.phase = match self.phase {
            Phase::Connecting if now - self.begun > self.plan.connect => {
                self.error(|| "nobody answered".into());
                Phase::Over
            }
            Phase::WarmUp if now >= self.window.0 => Phase::Measuring,
            Phase::Measuring if now >= self.window.1 => {
                self.count_unsent();
                Phase::Draining
            }
            Phase::Draining if self.awaited == 0 => Phase::Over,
            phase => phase,
        };
    }

    /// A request to be made now, if one is due and there is a place for it.
    pub fn next(&mut self, now: Instant) -> Option<Ticket> {
        if self.phase == Phase::Draining || self.phase == Phase::Over || now >= self.window.1 {
            return None;
        }
        let asking = self.phase == Phase::Connecting;
        if asking && self.free.len() < self.slots.len() {
            return None;
        }
        let due = match &mut self.poisson {
            Some(poisson) => poisson.due().filter(|due| *due <= now)?,
            None => now,
        };
        let place = self.free.pop()?;
        if let Some(poisson) = &mut self.poisson {
            poisson.advance();
        }
        self.awaited += usize::from(self.measured(due));
        let slot = &mut self.slots[place as usize];
        slot.generation = slot.generation.wrapping_add(1).max(1);
        (slot.busy, slot.due, slot.made) = (true, due, now);
        Some(Ticket(u64::from(slot.generation) << 32 | u64::from(place)))
    }

    /// A verified answer of so many bytes has come.
    pub fn answered(&mut self, now: Instant, ticket: Ticket, bytes: usize) {
        let Some(due) = self.end(ticket, true) else { return self.unexpected(ticket) };
        if self.phase == Phase::Connecting {
            return self.connected(now);
        }
        if (self.window.0..self.window.1).contains(&now) {
            self.tally.calls += 1;
            self.tally.bytes += bytes as u64;
        }
        self.record(due, now);
    }

    /// A request has failed: its call ended other than well, or its reply was wrong.
    pub fn failed(&mut self, now: Instant, ticket: Ticket, why: impl FnOnce() -> String) {
        match self.end(ticket, false) {
            // It is asked again until somebody does.
            Some(_) if self.phase == Phase::Connecting => return,
            Some(due) => self.record(due, now),
            None => {}
        }
        self.error(why);
    }

    /// Something came that should not have.
    pub fn error(&mut self, why: impl FnOnce() -> String) {
        self.tally.errors += 1;
        self.tally.first_error.get_or_insert_with(why);
    }

    /// What it came to.
    pub fn into_tally(self) -> Tally {
        self.tally
    }

    fn connected(&mut self, now: Instant) {
        let from = now + self.plan.warm_up;
        self.window = (from, from + self.plan.measure);
        self.tally.first_answer = Some(now);
        self.phase = Phase::WarmUp;
        if let Mode::Open { rate } = self.plan.mode {
            self.poisson = Some(Poisson::new(now, rate, self.plan.seed));
        }
    }

    fn measured(&self, due: Instant) -> bool {
        (self.window.0..self.window.1).contains(&due)
    }

    /// Frees the request's place; when it was due. `None`: no such request is in flight.
    fn end(&mut self, ticket: Ticket, answered: bool) -> Option<Instant> {
        let slot = self.slots.get_mut(ticket.slot())?;
        if !slot.busy || slot.generation != ticket.generation() {
            return None;
        }
        slot.busy = false;
        slot.answered = slot.answered << 1 | u64::from(answered);
        let due = slot.due;
        self.free.push(ticket.slot() as u32);
        self.awaited -= usize::from(self.measured(due));
        Some(due)
    }

    fn record(&mut self, due: Instant, now: Instant) {
        if self.measured(due) {
            self.tally.latency_ns.saturating_record((now - due).as_nanos() as u64);
        }
    }

    /// An answer that nobody waits for is late, or it is an error: nobody ever asked, or it came before.
    fn unexpected(&mut self, ticket: Ticket) {
        let late = self.slots.get(ticket.slot()).is_some_and(|slot| {
            // The one that is in flight is not in the history yet.
            let ago = slot.generation.wrapping_sub(ticket.generation()).wrapping_sub(u32::from(slot.busy));
            ago < u64::BITS && ticket.generation() != 0 && slot.answered >> ago & 1 == 0
        });
        if !late {
            self.error(|| format!("request {:#x} was answered twice, or never made", ticket.0));
        }
    }

    fn look_for_lost(&mut self, now: Instant) {
        let Some(patience) = self.plan.patience else { return };
        let connecting = self.phase == Phase::Connecting;
        let patience = if connecting { patience.min(ASK_AGAIN) } else { patience };
        for _ in 0..LOOKED_AT.min(self.slots.len()) {
            self.looked = (self.looked + 1) % self.slots.len();
            let Slot { generation, busy, due, made, .. } = self.slots[self.looked];
            if !busy || now - made <= patience {
                continue;
            }
            self.end(Ticket(u64::from(generation) << 32 | self.looked as u64), false);
            if self.measured(due) {
                self.tally.lost += 1;
                self.record(due, now);
            }
        }
    }

    /// What was due by the end and not made.
    fn count_unsent(&mut self) {
        let (from, end) = self.window;
        let Some(mut poisson) = self.poisson.take() else { return };
        while let Some(due) = poisson.due().filter(|due| *due < end) {
            if due >= from {
                self.tally.unsent += 1;
                self.record(due, end);
            }
            poisson.advance();
        }
    }
}
