//! Which backend takes a call: power of two choices on outstanding calls, weighed by latency, among those alive.
//!
//! One [`Backends`] is shared by all cores. Each of its cells has one writer: a [`Column`] belongs to the core it is named
//! after, a backend's `status` to its home core (the one that probes it). A core reads the columns of all cores when it
//! picks, so outstanding calls are counted over the whole gateway; a figure that is late by some nanoseconds does no harm.
//!
//! **Cost.** `(outstanding + 1) x latency`, where latency is a moving average of the time from the last byte of the
//! request to the first byte of the reply, as this core saw it: it holds the network and the server's work, not the size
//! of what was transferred. Outstanding calls alone tell a slow server under load; latency tells one when calls come one
//! at a time. Two latencies within a factor of two count as equal, and so do all below [`LATENCY_FLOOR`], so that equals
//! share evenly. A server that was thought slow is found out again: its latency halves with every [`HALF_LIFE`] that
//! passes without a sample, and one call in [`EXPLORE`] is given without a look at latency.
//!
//! **Health.** A backend is dead after so many failures in a row, of probes or (as any one core saw them) of calls, and
//! alive again after so many answered probes. Each change of mind starts a new epoch, and a core's count of failures
//! holds within its epoch only: the home core can forget what other cores wrote without writing to it.
//!
//! Deliberately absent: weights, zones, stickiness, retries. A call is never sent twice: it may not be idempotent.

use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use pmd::Instant;

use crate::config::{Config, Probe};
use crate::counter::Counter;

/// In this time without a sample, a remembered latency counts half.
pub const HALF_LIFE: Duration = Duration::from_secs(2);

/// Latencies below it count as equal: it is the noise of a shared machine.
pub const LATENCY_FLOOR: Duration = Duration::from_micros(500);

/// Of so many calls one goes where fewest are outstanding, whatever the latency.
pub const EXPLORE: usize = 16;

/// Every backend of every pool, and what all cores know of it.
#[derive(Debug)]
pub struct Backends {
    backends: Vec<Backend>,
    /// By pool: its backends.
    pools: Vec<Range<usize>>,
}

/// One server.
#[derive(Debug)]
pub struct Backend {
    /// Where it is called and probed.
    pub address: SocketAddr,
    /// Index of its pool in the configuration.
    pub pool: usize,
    /// Calls in flight at most.
    calls_max: u64,
    probe: Probe,
    /// Epoch x 2 + (1 if dead). Written by the home core.
    status: Counter,
    /// By core.
    columns: Vec<Column>,
}

/// What one core knows of one backend. On a cache line of its own: another core's writes do not slow this one's.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct Column {
    /// Calls begun and not ended.
    pub outstanding: Counter,
    /// Calls that ended with the whole reply.
    pub succeeded: Counter,
    /// Calls that the backend aborted.
    pub aborted: Counter,
    /// Calls lost to the network, to silence, or to a limit of ours.
    pub failed: Counter,
    /// Calls that the client gave up.
    pub cancelled: Counter,
    /// Moving average from the end of the request to the first byte of the reply; 0: not known.
    pub latency_ns: Counter,
    /// Epoch x 2^32 + failures in a row.
    failures: Counter,
}

impl Backends {
    /// All of them alive until shown otherwise.
    pub fn new(config: &Config, cores: usize) -> Self {
        let (mut backends, mut pools) = (Vec::new(), Vec::new());
        for (index, pool) in config.pools.iter().enumerate() {
            let first = backends.len();
            backends.extend(pool.backends.iter().map(|address| Backend {
                address: *address,
                pool: index,
                calls_max: pool.calls as u64,
                probe: pool.probe,
                status: Counter::default(),
                columns: (0..cores).map(|_| Column::default()).collect(),
            }));
            pools.push(first..backends.len());
        }
        Self { backends, pools }
    }

    /// In the order of the configuration.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Backend> {
        self.backends.iter()
    }

    /// Where a backend is called.
    pub fn address(&self, index: usize) -> SocketAddr {
        self.backends[index].address
    }

    /// Whether a backend is given calls.
    pub fn is_alive(&self, index: usize) -> bool {
        self.backends[index].is_alive()
    }

    /// How many backends there are.
    pub fn len(&self) -> usize {
        self.backends.len()
    }

    /// Never: a sound configuration has a backend.
    pub fn is_empty(&self) -> bool {
        self.backends.is_empty()
    }
}

impl Backend {
    /// Whether it is given calls.
    pub fn is_alive(&self) -> bool {
        let status = self.status.get();
        status & 1 == 0 && self.failures_in_a_row(status >> 1) < u64::from(self.probe.failures)
    }

    /// The worst that any core has seen in this epoch.
    fn failures_in_a_row(&self, epoch: u64) -> u64 {
        let in_epoch = |word: &u64| word >> 32 == epoch & u64::from(u32::MAX);
        let counts = self.columns.iter().map(|column| column.failures.get()).filter(in_epoch);
        counts.map(|word| word & u64::from(u32::MAX)).max().unwrap_or(0)
    }

    /// Calls in flight, over all cores.
    pub fn outstanding(&self) -> u64 {
        self.sum(|column| &column.outstanding)
    }

    /// One of a column's figures, over all cores.
    pub fn sum(&self, figure: impl Fn(&Column) -> &Counter) -> u64 {
        self.columns.iter().map(|column| figure(column).get()).sum()
    }

    /// The slowest core's view of its latency; zero: not known.
    pub fn latency(&self) -> Duration {
        let latencies = self.columns.iter().map(|column| column.latency_ns.get());
        Duration::from_nanos(latencies.max().unwrap_or(0))
    }

    /// The home core's: a new epoch.
    fn set_alive(&self, alive: bool) {
        let epoch = (self.status.get() >> 1) + 1;
        self.status.set(epoch << 1 | u64::from(!alive));
    }
}

/// Why no backend takes a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoBackend {
    /// Every backend of the pool is dead.
    #[error("no backend of the pool is alive")]
    AllDead,
    /// Those alive have as many calls in flight as the configuration lets them have.
    #[error("every backend of the pool has as many calls in flight as it may")]
    AllBusy,
}

/// How a call to a backend ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The whole reply came.
    Succeeded,
    /// The backend aborted it: it is alive, and said so.
    Aborted,
    /// The network or silence.
    Failed,
    /// It took longer than `call_ms`; says nothing of whether the backend is alive.
    TimedOut,
    /// The client gave it up; says nothing of the backend.
    Cancelled,
}

/// One core's hand on the backends: picks, counts and probes.
#[derive(Debug)]
pub struct Balancer {
    core: usize,
    cores: usize,
    random: u64,
    /// By backend.
    latencies: Vec<Latency>,
    /// By backend; only those at home on this core are used.
    probes: Vec<ProbeState>,
    next_probe: Instant,
}

#[derive(Clone, Copy, Debug, Default)]
struct Latency {
    average_ns: f64,
    at: Instant,
}

#[derive(Clone, Copy, Debug)]
struct ProbeState {
    next: Instant,
    /// One is under way, and fails then.
    deadline: Option<Instant>,
    failures: u32,
    answers: u32,
}

impl Balancer {
    /// For the core with index `core` of `cores`.
    pub fn new(backends: &Backends, core: usize, cores: usize, seed: u64, now: Instant) -> Self {
        let probe = ProbeState { next: now, deadline: None, failures: 0, answers: 0 };
        Self {
            core,
            cores,
            random: seed | 1,
            latencies: vec![Latency::default(); backends.len()],
            probes: vec![probe; backends.len()],
            next_probe: now,
        }
    }

    /// The backend of `pool` for a call that comes now.
    pub fn pick(&mut self, now: Instant, backends: &Backends, pool: usize) -> Result<usize, NoBackend> {
        let range = backends.pools[pool].clone();
        let usable = |index: &usize| {
            let backend = &backends.backends[*index];
            backend.is_alive() && backend.outstanding() < backend.calls_max
        };
        let count = range.clone().filter(usable).count();
        if count == 0 {
            let any_alive = backends.backends[range].iter().any(Backend::is_alive);
            return Err(if any_alive { NoBackend::AllBusy } else { NoBackend::AllDead });
        }
        let first = self.below(count);
        let second = if count == 1 { first } else { (first + 1 + self.below(count - 1)) % count };
        let nth = |n| range.clone().filter(usable).nth(n).ok_or(NoBackend::AllBusy);
        let (first, second) = (nth(first)?, nth(second)?);
        Ok(self.cheaper(now, backends, first, second))
    }

    fn cheaper(&mut self, now: Instant, backends: &Backends, first: usize, second: usize) -> usize {
        let (mut a, mut b) = (self.latency_ns(now, first), self.latency_ns(now, second));
        if a.max(b) <= 2.0 * a.min(b) || self.below(EXPLORE) == 0 {
            (a, b) = (1.0, 1.0);
        }
        let load = |index: usize| (backends.backends[index].outstanding() + 1) as f64;
        if load(second) * b < load(first) * a { second } else { first }
    }

    /// What is remembered, fading; at least the floor.
    fn latency_ns(&self, now: Instant, index: usize) -> f64 {
        let Latency { average_ns, at } = self.latencies[index];
        let age = now.saturating_duration_since(at).as_secs_f64();
        let faded = average_ns * (-age / HALF_LIFE.as_secs_f64()).exp2();
        faded.max(LATENCY_FLOOR.as_nanos() as f64)
    }

    /// xorshift64*; uniform enough for a choice between a few servers.
    fn below(&mut self, bound: usize) -> usize {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        let high = self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        ((high * bound as u64) >> 32) as usize
    }

    /// A call to `index` begins.
    pub fn begun(&mut self, backends: &Backends, index: usize) {
        backends.backends[index].columns[self.core].outstanding.add(1);
    }

    /// The reply's first byte came so long after the request's last.
    pub fn responded(&mut self, now: Instant, backends: &Backends, index: usize, latency: Duration) {
        let floor = LATENCY_FLOOR.as_nanos() as f64;
        let remembered = &mut self.latencies[index];
        let (sample, old) = (latency.as_nanos() as f64, remembered.average_ns.max(floor));
        // A quarter of a worse sample, half of a better one: a lost packet or a first call do not make a server slow.
        let gain = if sample > old { 0.25 } else { 0.5 };
        remembered.average_ns = old + (sample - old) * gain;
        remembered.at = now;
        backends.backends[index].columns[self.core].latency_ns.set(remembered.average_ns as u64);
    }

    /// A call to `index` has ended.
    pub fn ended(&mut self, backends: &Backends, index: usize, outcome: Outcome) {
        let backend = &backends.backends[index];
        let column = &backend.columns[self.core];
        column.outstanding.decrement();
        let (figure, failed) = match outcome {
            Outcome::Succeeded => (&column.succeeded, Some(false)),
            Outcome::Aborted => (&column.aborted, Some(false)),
            Outcome::Failed => (&column.failed, Some(true)),
            Outcome::TimedOut => (&column.failed, None),
            Outcome::Cancelled => (&column.cancelled, None),
        };
        figure.add(1);
        if let Some(failed) = failed {
            self.count(backend, failed);
        }
    }

    /// The network says that `index` does not hear us.
    pub fn failed(&mut self, backends: &Backends, index: usize) {
        self.count(&backends.backends[index], true);
    }

    /// A packet came from `index`: it has not failed in a row any more.
    pub fn heard(&mut self, backends: &Backends, index: usize) {
        let backend = &backends.backends[index];
        if backend.columns[self.core].failures.get() & u64::from(u32::MAX) > 0 {
            self.count(backend, false);
        }
    }

    /// Counts failures in a row, within the backend's epoch.
    fn count(&self, backend: &Backend, failed: bool) {
        let column = &backend.columns[self.core];
        let epoch = backend.status.get() >> 1 & u64::from(u32::MAX);
        let word = column.failures.get();
        let so_far = if word >> 32 == epoch { word & u64::from(u32::MAX) } else { 0 };
        let failures = if failed { (so_far + 1).min(u64::from(u32::MAX)) } else { 0 };
        column.failures.set(epoch << 32 | failures);
    }

    // Probes of the backends at home on this core.

    fn is_home(&self, index: usize) -> bool {
        index % self.cores == self.core
    }

    /// When [`Balancer::probe`] next has something to do.
    pub fn next_probe(&self) -> Instant {
        self.next_probe
    }

    /// Judges probes that went unanswered and says, through `send`, which backends to probe now.
    pub fn probe(&mut self, now: Instant, backends: &Backends, mut send: impl FnMut(usize, SocketAddr)) {
        if now < self.next_probe {
            return;
        }
        self.next_probe = Instant::FAR_FUTURE;
        for (index, backend) in backends.backends.iter().enumerate() {
            if !self.is_home(index) {
                continue;
            }
            let state = &mut self.probes[index];
            state.judge(now, backend);
            if now >= state.next {
                state.next = now + backend.probe.interval;
                state.deadline = Some(now + backend.probe.timeout);
                send(index, backend.address);
            }
            let wake = state.deadline.map_or(state.next, |deadline| deadline.min(state.next));
            self.next_probe = self.next_probe.min(wake);
        }
    }

    /// An answer to a probe came from `peer`.
    pub fn answered(&mut self, backends: &Backends, peer: SocketAddr) {
        for (index, backend) in backends.backends.iter().enumerate() {
            if backend.address == peer && self.is_home(index) {
                self.probes[index].answer(backend);
            }
        }
    }
}

impl ProbeState {
    /// Counts an unanswered probe, and makes the backend dead if it or the calls of some core failed too often.
    fn judge(&mut self, now: Instant, backend: &Backend) {
        if self.deadline.is_some_and(|deadline| now >= deadline) {
            self.deadline = None;
            self.failures += 1;
            self.answers = 0;
        }
        let status = backend.status.get();
        let failed_calls = backend.failures_in_a_row(status >> 1);
        let limit = backend.probe.failures;
        if status & 1 == 0 && (self.failures >= limit || failed_calls >= u64::from(limit)) {
            self.answers = 0;
            backend.set_alive(false);
        }
    }

    /// An answer that nobody asked for, or that is late, counts for nothing.
    fn answer(&mut self, backend: &Backend) {
        if self.deadline.take().is_none() {
            return;
        }
        self.failures = 0;
        self.answers += 1;
        if backend.status.get() & 1 == 1 && self.answers >= backend.probe.answers {
            backend.set_alive(true);
        }
    }
}

#[cfg(test)]
#[path = "balance_tests.rs"]
mod tests;
