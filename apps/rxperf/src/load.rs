//! The load: calls in a closed loop, so many at once, each verified, on a polling core.
//!
//! One [`Load`] runs on each core. The control side tells it to start and to stop, and from time to time trades an empty
//! [`Tally`] for the one that the core has filled, so that the core neither locks nor allocates to report.

use crate::figures::Counter;
use crate::{ClientCall, SERVICE, Verify, Work, WrongReply};
use arrayvec::ArrayVec;
use hdrhistogram::Histogram;
use pmd::Instant;
use rxrpc::{
    App, BeginError, CallId, CallOptions, Completion, CongestionAlgorithm, Credentials, Event, Rx, Target,
};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

/// The longest latency that is told from longer ones.
const LATENCY_MAX: Duration = Duration::from_secs(100);
/// Kinds of failures that are told apart; further ones are counted under the last.
const FAILURES_MAX: usize = 16;
/// Services that are told apart: the one that is called, and the one that it was upgraded to. Further ones are counted under the last.
const SERVICES_MAX: usize = 2;
/// Request bytes copied at a time.
const SCRATCH_LEN: usize = 16 * 1024;

/// What a core's load is to do.
#[derive(Clone, Copy, Debug)]
pub struct LoadConfig {
    /// Whom to call.
    pub server: SocketAddr,
    /// What each call does.
    pub work: Work,
    /// What replies must be.
    pub verify: Verify,
    /// Ask for an upgrade of the service.
    pub upgrade: bool,
    /// Calls at once.
    pub in_flight: usize,
    /// So long after a call has ended the next one begins in its place; zero: at once.
    pub gap: Duration,
    /// Connections; each carries four calls at once.
    pub connections: usize,
    /// Stop after so many calls.
    pub calls_max: Option<u64>,
    /// Give a call up after so long.
    pub call_timeout: Duration,
    /// Decides the payload of requests.
    pub seed: u64,
    /// What decides how much a call may have in flight.
    pub congestion: CongestionAlgorithm,
}

impl LoadConfig {
    /// The share of core `core` of `cores`: together the shares are the whole, and every core has a connection.
    pub(crate) fn share(self, core: usize, cores: usize) -> Self {
        let part = |whole: usize| whole / cores + usize::from(core < whole % cores);
        Self {
            in_flight: part(self.in_flight),
            connections: part(self.connections).max(1),
            calls_max: self
                .calls_max
                .map(|calls| calls / cores as u64 + u64::from((core as u64) < calls % cores as u64)),
            seed: self.seed.wrapping_add(core as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15),
            ..self
        }
    }
}

/// Why a call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// It ended other than well.
    #[error("{0}")]
    Ended(Completion),
    /// Its reply was wrong.
    #[error("{0}")]
    Wrong(WrongReply),
    /// It could not begin.
    #[error("cannot begin a call: {0}")]
    Begin(BeginError),
    /// The engine has no address from which the server can be called.
    #[error("no address of ours can call {0}: is --address in the server's address family?")]
    NoLocal(SocketAddr),
}

/// What happened since the last tally.
#[derive(Clone, Debug)]
pub struct Tally {
    /// Latencies of verified calls, from their beginning to their end, in nanoseconds.
    pub latency_ns: Histogram<u64>,
    /// Failures by kind.
    pub failures: ArrayVec<(Failure, u64), FAILURES_MAX>,
    /// Calls that were cut short because the time was up; neither verified nor failed.
    pub cut: u64,
    /// Verified calls by the service that answered.
    pub services: ArrayVec<(u16, u64), SERVICES_MAX>,
}

impl Default for Tally {
    fn default() -> Self {
        let latency_ns = Histogram::new_with_bounds(1, LATENCY_MAX.as_nanos() as u64, 3);
        Self {
            latency_ns: latency_ns.expect("sound bounds"),
            failures: ArrayVec::new(),
            services: ArrayVec::new(),
            cut: 0,
        }
    }
}

impl Tally {
    /// Adds what another one counted.
    pub fn add(&mut self, other: &Self) {
        self.latency_ns.add(&other.latency_ns).expect("all tallies have the same bounds");
        other.failures.iter().for_each(|&(failure, count)| self.fail(failure, count));
        self.cut += other.cut;
        other.services.iter().for_each(|&(service, count)| count_under(&mut self.services, service, count));
    }

    /// Calls that failed.
    pub fn failed(&self) -> u64 {
        self.failures.iter().map(|(_, count)| count).sum()
    }

    /// Calls that were verified.
    pub fn verified(&self) -> u64 {
        self.latency_ns.len()
    }

    fn verify(&mut self, latency: Duration, service: u16) {
        self.latency_ns.saturating_record(latency.as_nanos() as u64);
        count_under(&mut self.services, service, 1);
    }

    fn fail(&mut self, failure: Failure, count: u64) {
        count_under(&mut self.failures, failure, count);
    }

    fn clear(&mut self) {
        self.latency_ns.reset();
        self.failures.clear();
        self.cut = 0;
        self.services.clear();
    }
}

/// Adds to the count of `kind`; to the last one's if there is no room for another kind.
fn count_under<K: PartialEq, const MAX: usize>(counts: &mut ArrayVec<(K, u64), MAX>, kind: K, count: u64) {
    if let Some((_, known)) = counts.iter_mut().find(|(known, _)| *known == kind) {
        *known += count;
    } else if let Err(full) = counts.try_push((kind, count)) {
        let (_, count) = full.element();
        counts[MAX - 1].1 += count;
    }
}

/// What a load on one core is doing, for live figures.
#[derive(Debug, Default)]
pub struct LoadFigures {
    /// Calls begun.
    pub begun: Counter,
    /// Calls that ended, well or not.
    pub ended: Counter,
    /// Request bytes handed to the endpoint.
    pub sent: Counter,
    /// Reply bytes taken and verified.
    pub received: Counter,
    /// 1 once no further call will begin.
    pub stopped: Counter,
}

impl LoadFigures {
    /// Whether the load has begun its last call and that has ended.
    pub fn is_over(&self) -> bool {
        self.stopped.get() > 0 && self.begun.get() == self.ended.get()
    }
}

/// What the control side tells a load.
pub enum LoadCommand {
    /// Begin.
    Start,
    /// Begin no further call.
    Stop,
    /// Begin no further call, and abort those in progress.
    Cut,
    /// Fill this tally from now on, and send the filled one back. The channel must have room.
    Trade(Box<Tally>, SyncSender<Box<Tally>>),
}

/// The load on one core.
pub struct Load {
    config: LoadConfig,
    credentials: Option<Credentials>,
    slots: Vec<Slot>,
    /// Slots whose next call waits for its time, the first one first.
    waiting: VecDeque<(Instant, usize)>,
    scratch: Box<[u8; SCRATCH_LEN]>,
    begun: u64,
    stopping: bool,
    cutting: bool,
    tally: Box<Tally>,
    figures: Arc<LoadFigures>,
}

/// A place for one call at a time.
struct Slot {
    call: ClientCall,
    since: Instant,
    /// The whole request has been handed to the endpoint.
    sent: bool,
    /// The reply's end has been read.
    received: bool,
    wrong: Option<WrongReply>,
}

impl Load {
    /// A load that waits for [`LoadCommand::Start`].
    pub fn new(config: LoadConfig, credentials: Option<Credentials>, figures: Arc<LoadFigures>) -> Self {
        Self {
            config,
            credentials,
            slots: Vec::with_capacity(config.in_flight),
            waiting: VecDeque::with_capacity(config.in_flight),
            scratch: Box::new([0; SCRATCH_LEN]),
            begun: 0,
            stopping: false,
            cutting: false,
            tally: Box::default(),
            figures,
        }
    }

    fn stop(&mut self) {
        if !std::mem::replace(&mut self.stopping, true) {
            self.figures.stopped.add(1);
        }
    }

    /// Ends at once what is in progress: all calls of this endpoint are the load's.
    fn cut(&mut self, rx: &mut Rx<'_>) {
        self.stop();
        self.cutting = true;
        let calls: Vec<CallId> = rx.endpoint.calls().map(|call| call.id).collect();
        calls.into_iter().for_each(|call| rx.abort(call, rxrpc::code::USER_ABORT));
    }

    /// Begins the next call in a slot, if there is to be one.
    fn begin(&mut self, rx: &mut Rx<'_>, index: usize) {
        if self.config.calls_max.is_some_and(|max| self.begun >= max) {
            self.stop();
        }
        if self.stopping {
            return;
        }
        match self.try_begin(rx, index) {
            Ok(call) => self.write(rx, call),
            Err(failure) => {
                self.tally.fail(failure, 1);
                self.figures.ended.add(1);
                // What keeps one call from beginning keeps the next one too: a loop would only spin.
                self.stop();
            }
        }
    }

    fn try_begin(&mut self, rx: &mut Rx<'_>, index: usize) -> Result<CallId, Failure> {
        let LoadConfig { server, work, verify, upgrade, connections, call_timeout, seed, .. } = self.config;
        // Each call has a seed of its own, so that no two requests are alike.
        let call = ClientCall::new(work, verify, seed.wrapping_add(self.begun.wrapping_mul(0x9e37_79b9)));
        let slot = Slot { call, since: rx.now, sent: false, received: false, wrong: None };
        match self.slots.get_mut(index) {
            Some(old) => *old = slot,
            None => self.slots.push(slot),
        }
        self.begun += 1;
        self.figures.begun.add(1);
        let local = rx.client_local(server).ok_or(Failure::NoLocal(server))?;
        let options = CallOptions {
            hard_timeout: Some(call_timeout),
            bundle_conns_max: Some(connections),
            user: index as u64,
            upgrade,
            credentials: self.credentials.clone(),
            ..CallOptions::default()
        };
        rx.begin(local, Target::new(server, SERVICE), options).map_err(Failure::Begin)
    }

    /// Gives as much of the request as there is room for.
    fn write(&mut self, rx: &mut Rx<'_>, call: CallId) {
        let slot = &mut self.slots[rx.endpoint.user(call) as usize];
        while !slot.sent {
            // Without room it is tried all the same: only then a Writable follows.
            let room = rx.endpoint.send_room(call).clamp(1, SCRATCH_LEN);
            let left = slot.call.request_left();
            let len = slot.call.peek(&mut self.scratch[..room]);
            let more = (len as u64) < left;
            // An error means that the call has ended; its Complete follows.
            let Ok(taken) = rx.send(call, &self.scratch[..len], more) else { return };
            slot.call.advance(&self.scratch[..taken]);
            self.figures.sent.add(taken as u64);
            slot.sent = !more && taken == len;
            if taken < len {
                return;
            }
        }
    }

    /// Takes and verifies what has come of a reply.
    fn read(&mut self, rx: &mut Rx<'_>, call: CallId) {
        let slot = &mut self.slots[rx.endpoint.user(call) as usize];
        if slot.received || slot.wrong.is_some() {
            return;
        }
        // An error means that the call has ended; its Complete follows.
        while let Ok(Some((data, more))) = rx.recv_mbuf(call) {
            self.figures.received.add(data.len() as u64);
            let fed = data.segments().try_for_each(|bytes| slot.call.feed(bytes));
            let fed = if more { fed } else { fed.and_then(|()| slot.call.finish()) };
            match fed {
                Ok(()) => slot.received = !more,
                Err(wrong) => {
                    slot.wrong = Some(wrong);
                    rx.abort(call, rxrpc::code::PROTOCOL_ERROR);
                    return;
                }
            }
            if !more {
                return;
            }
        }
    }

    fn end(&mut self, rx: &mut Rx<'_>, call: CallId, completion: Completion) {
        // What came with the end has not been read yet.
        self.read(rx, call);
        let index = rx.endpoint.user(call) as usize;
        let slot = &self.slots[index];
        match (slot.wrong, completion) {
            (Some(wrong), _) => self.tally.fail(Failure::Wrong(wrong), 1),
            (None, Completion::Succeeded) => match slot.call.finish() {
                Ok(()) => {
                    let service = rx.endpoint.service(call).unwrap_or_default();
                    self.tally.verify(rx.now.saturating_duration_since(slot.since), service);
                }
                Err(short) => self.tally.fail(Failure::Wrong(short), 1),
            },
            (None, Completion::LocalAbort(_)) if self.cutting => self.tally.cut += 1,
            (None, other) => self.tally.fail(Failure::Ended(other), 1),
        }
        self.figures.ended.add(1);
        rx.release(call);
        if self.config.gap.is_zero() {
            self.begin(rx, index);
        } else {
            self.waiting.push_back((rx.now + self.config.gap, index));
        }
    }
}

impl App for Load {
    type Command = LoadCommand;

    fn event(&mut self, rx: &mut Rx<'_>, event: Event) {
        match event {
            Event::Readable { call } => self.read(rx, call),
            Event::Writable { call } => self.write(rx, call),
            Event::Complete { call, completion } => self.end(rx, call, completion),
            // It offers no service and asks nothing.
            Event::Incoming { call, .. } => rx.reject(call, rxrpc::code::INVALID_OPERATION),
            Event::Version { .. } | Event::Debug { .. } => {}
        }
    }

    fn expire(&mut self, rx: &mut Rx<'_>) {
        while let Some((_, index)) = self.waiting.front().copied().filter(|(at, _)| *at <= rx.now) {
            self.waiting.pop_front();
            self.begin(rx, index);
        }
    }

    fn next_timeout(&self) -> Option<Instant> {
        self.waiting.front().map(|(at, _)| *at)
    }

    fn command(&mut self, rx: &mut Rx<'_>, command: LoadCommand) {
        match command {
            LoadCommand::Start => {
                (0..self.config.in_flight).for_each(|index| self.begin(rx, index));
                if self.config.in_flight == 0 {
                    self.stop();
                }
            }
            LoadCommand::Stop => self.stop(),
            LoadCommand::Cut => self.cut(rx),
            LoadCommand::Trade(mut tally, back) => {
                tally.clear();
                let filled = std::mem::replace(&mut self.tally, tally);
                // Nobody to take it: the control side has given up.
                let _ = back.try_send(filled);
            }
        }
    }
}
