//! The forwarder of one core: what comes in on a client's call goes out on a backend's, and the reply comes back.
//!
//! Plain logic over an [`Endpoint`]: no engine, no clock, no thread. Each client call is paired with one backend call, for
//! life; the pair is freed when both were released, in one place ([`Forwarder::remove`]).
//!
//! **Flow control end to end.** A buffer is taken from one side only when the other has room for it, so that what a slow
//! reader does not read stays in the windows of the two calls; besides them a pair holds at most one buffer each way.
//!
//! **What a client is told.** A backend's abort code, as it is. Otherwise one of two codes of Rx, both negative, which
//! make OpenAFS's ubik clients try the next server:
//! - `RX_RESTARTING` (-100): nothing was given to a backend's service; the call may safely be made again. No backend alive,
//!   all busy, a limit reached, shutting down, the backend itself said BUSY, or it did not take the gateway's own proof.
//! - `RX_CALL_DEAD` (-1): the call was in progress, and may or may not have been carried out: the backend's host said
//!   that nobody listens, or it fell silent; or the time to drain was up. `RX_CALL_TIMEOUT` (-3): `call_ms` was up.
//!
//! - `RXKADNOAUTH`: the client has proved who it is, and the listener admits others.
//!
//! **On whose behalf.** A call of a client that has proved who it is goes on with the gateway's own proof, if the pool has one, at the level
//! of the pool: backends see the gateway, which has judged the client already. A call of anybody else goes on without any, so
//! that nobody is given what the gateway may do.
//!
//! A call is never sent to a second backend: it may not be idempotent, and only the client knows.

use std::net::SocketAddr;
use std::sync::Arc;

use pmd::{Instant, Mbuf, Pool};
use rxrpc::security::rxkad_code;
use rxrpc::{
    CallError, CallId, CallOptions, Completion, Credentials, Endpoint, Event, Identity, LocalId, Target,
    Timeout, code,
};

use crate::balance::{Balancer, NoBackend, Outcome};
use crate::config::{Config, User};
use crate::counter::Counter;
use crate::figures::{CoreFigures, Shared};
use crate::pairs::{Flow, Pair, Pairs, Side};
use crate::secrets::Secrets;

/// Channels of an Rx connection.
pub(crate) const CALLS_PER_CONNECTION: usize = 4;

/// What the forwarder works with while it is called.
pub struct Io<'a> {
    /// The time of this turn.
    pub now: Instant,
    /// The core's buffers.
    pub pool: &'a mut Pool,
    /// The core's endpoint.
    pub endpoint: &'a mut Endpoint,
}

/// One core's part of the gateway. See the module's head.
pub struct Forwarder {
    shared: Arc<Shared>,
    core: usize,
    balancer: Balancer,
    /// Which pool serves what was called. A handful.
    routes: Vec<Route>,
    /// By backend: the local address to call it from.
    sources: Vec<Option<LocalId>>,
    /// By pool.
    options: Vec<CallOptions>,
    /// By pool: what goes with calls of clients who have proved who they are.
    proofs: Vec<Option<Credentials>>,
    pairs: Pairs,
    draining: bool,
}

struct Route {
    local: LocalId,
    service: u16,
    pool: usize,
    /// Whose calls are taken, of those who have proved who they are.
    users: Vec<User>,
}

/// Where a new call goes.
struct Choice {
    pool: usize,
    backend: usize,
    source: LocalId,
    /// The client has proved who it is.
    proven: bool,
}

impl Forwarder {
    /// For the core with index `core`; `seed` decides its random choices.
    pub fn new(
        config: &Config,
        secrets: &Secrets,
        shared: Arc<Shared>,
        core: usize,
        seed: u64,
        now: Instant,
    ) -> Self {
        let options = config.pools.iter().map(|pool| CallOptions {
            hard_timeout: pool.timeouts.call,
            dead_timeout: Some(pool.timeouts.silence),
            bundle_conns_max: Some(pool.calls.div_ceil(CALLS_PER_CONNECTION)),
            ..CallOptions::default()
        });
        Self {
            balancer: Balancer::new(&shared.backends, core, shared.cores.len(), seed, now),
            sources: vec![None; shared.backends.len()],
            options: options.collect(),
            proofs: (0..config.pools.len()).map(|pool| secrets.pool(pool)).collect(),
            pairs: Pairs::with_capacity(config.limits.calls),
            routes: Vec::new(),
            draining: false,
            shared,
            core,
        }
    }

    /// Calls to `service` at `local` go to `pool` from now on; those of clients who have proved who they are, if they are one of
    /// `users`.
    pub fn add_route(&mut self, local: LocalId, service: u16, pool: usize, users: &[User]) {
        self.routes.push(Route { local, service, pool, users: users.to_vec() });
    }

    /// What goes with calls of clients who have proved who they are is another from now on.
    pub fn set_proof(&mut self, pool: usize, proof: Credentials) {
        self.proofs[pool] = Some(proof);
    }

    /// Chooses anew from which local address each backend is called; `choose` is told the backend's address.
    pub fn choose_sources(&mut self, mut choose: impl FnMut(SocketAddr) -> Option<LocalId>) {
        for (source, backend) in self.sources.iter_mut().zip(self.shared.backends.iter()) {
            *source = choose(backend.address);
        }
    }

    /// Takes what the endpoint has to say.
    pub fn event(&mut self, io: &mut Io<'_>, event: Event) {
        match event {
            Event::Incoming { call, local, service, .. } => self.incoming(io, call, local, service),
            Event::Readable { call } => match self.pairs.find(io.endpoint.user(call)) {
                Some((index, Side::Client)) => self.pump_request(io, index),
                Some((index, Side::Backend)) => self.pump_reply(io, index),
                None => {}
            },
            Event::Writable { call } => match self.pairs.find(io.endpoint.user(call)) {
                Some((index, Side::Client)) => self.pump_reply(io, index),
                Some((index, Side::Backend)) => self.pump_request(io, index),
                None => {}
            },
            Event::Complete { call, completion } => match self.pairs.find(io.endpoint.user(call)) {
                Some((index, Side::Client)) => self.client_complete(io, index, completion),
                Some((index, Side::Backend)) => self.backend_complete(io, index, completion),
                None => drop(io.endpoint.release(io.now, call)),
            },
            Event::Version { peer, .. } => self.balancer.answered(&self.shared.backends, peer),
            Event::Debug { .. } => {}
        }
    }

    /// The balancer, for what is relayed.
    pub fn balancer(&mut self) -> &mut Balancer {
        &mut self.balancer
    }

    /// Sends the probes that are due.
    pub fn expire(&mut self, io: &mut Io<'_>) {
        let Self { balancer, shared, sources, .. } = self;
        balancer.probe(io.now, &shared.backends, |index, address| {
            if let Some(local) = sources[index] {
                io.endpoint.probe_version(io.now, local, address);
            }
        });
    }

    /// When `expire` next has something to do.
    pub fn next_timeout(&self) -> Instant {
        self.balancer.next_probe()
    }

    /// From now on new calls are refused.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// Whether new calls are refused.
    pub fn is_draining(&self) -> bool {
        self.draining
    }

    /// Ends every call in progress: with an ABORT, unless the whole reply was sent and only the client's last word is missing.
    pub fn abort_all(&mut self, io: &mut Io<'_>) {
        for index in self.pairs.indices() {
            self.end_backend(io, index, code::CALL_DEAD, Outcome::Cancelled);
            if self.reply_was_sent(io, index) {
                let client = self.pairs.get_mut(index).client;
                io.endpoint.give_up(io.now, client);
                self.remove(io, index, |figures| &figures.client_left);
            } else {
                self.abort_client(io, index, code::CALL_DEAD, |figures| &figures.drained);
            }
        }
    }

    /// Calls in progress.
    pub fn in_progress(&self) -> usize {
        self.pairs.len()
    }

    fn figures(&self) -> &CoreFigures {
        &self.shared.cores[self.core]
    }

    // The beginning.

    fn incoming(&mut self, io: &mut Io<'_>, client: CallId, local: LocalId, service: u16) {
        self.figures().accepted.add(1);
        let identity = io.endpoint.identity(client).map(|identity| &**identity);
        match self.choose(io.now, local, service, identity) {
            Ok(choice) => self.begin(io, client, service, choice),
            Err((code, refusal)) => {
                refusal(self.figures()).add(1);
                io.endpoint.reject(io.now, client, code);
            }
        }
    }

    /// Where a new call goes, or the code that its client is told and the figure that counts it.
    fn choose(
        &mut self,
        now: Instant,
        local: LocalId,
        service: u16,
        identity: Option<&Identity>,
    ) -> Result<Choice, (i32, Figure)> {
        if self.draining {
            return Err((code::RESTARTING, |figures| &figures.refused_draining));
        }
        if self.pairs.is_full() {
            return Err((code::RESTARTING, |figures| &figures.refused_limit));
        }
        let route = self.routes.iter().find(|route| route.local == local && route.service == service);
        let Some(route) = route else {
            return Err((code::RESTARTING, |figures| &figures.refused_limit));
        };
        if identity.is_some_and(|identity| !route.users.iter().any(|user| user.is(identity))) {
            return Err((rxkad_code::NO_AUTH, |figures| &figures.refused_user));
        }
        let pool = route.pool;
        let backend = match self.balancer.pick(now, &self.shared.backends, pool) {
            Ok(backend) => backend,
            Err(NoBackend::AllDead) => return Err((code::RESTARTING, |figures| &figures.refused_dead)),
            Err(NoBackend::AllBusy) => return Err((code::RESTARTING, |figures| &figures.refused_busy)),
        };
        match self.sources[backend] {
            Some(source) => Ok(Choice { pool, backend, source, proven: identity.is_some() }),
            None => Err((code::RESTARTING, |figures| &figures.refused_dead)),
        }
    }

    fn begin(&mut self, io: &mut Io<'_>, client: CallId, service: u16, choice: Choice) {
        let Choice { pool, backend, source, proven } = choice;
        let address = self.shared.backends.address(backend);
        let index = self.pairs.vacant();
        let credentials = self.proofs[pool].clone().filter(|_| proven);
        let (user, proven) = (Pairs::user(index, Side::Backend), credentials.is_some());
        let options = CallOptions { user, credentials, ..self.options[pool].clone() };
        let Ok(call) = io.endpoint.begin(io.now, source, Target::new(address, service), options) else {
            // Nothing was sent yet: a limit of the endpoint's.
            self.figures().refused_limit.add(1);
            return io.endpoint.reject(io.now, client, code::RESTARTING);
        };
        io.endpoint.set_user(client, Pairs::user(index, Side::Client));
        self.pairs.insert(index, Pair::new(client, call, backend, proven));
        self.balancer.begun(&self.shared.backends, backend);
        self.figures().in_progress.add(1);
        self.pump_request(io, index);
    }

    // The middle.

    /// Moves what can be moved from the client to the backend.
    fn pump_request(&mut self, io: &mut Io<'_>, index: usize) {
        let pair = self.pairs.get_mut(index);
        let Some(call) = pair.call else { return };
        let moved = if pair.request.ended {
            discard(io, pair.client)
        } else {
            pump(io, pair.client, call, &mut pair.request)
        };
        if pair.request.ended && pair.request_ended_at.is_none() {
            pair.request_ended_at = Some(io.now);
        }
        self.figures().request_bytes.add(moved);
    }

    /// Moves what can be moved from the backend to the client.
    fn pump_reply(&mut self, io: &mut Io<'_>, index: usize) {
        let pair = self.pairs.get_mut(index);
        let source = pair.call;
        let moved = match source {
            Some(call) => pump(io, call, pair.client, &mut pair.reply),
            None => flush(io, pair.client, &mut pair.reply),
        };
        let taken = pair.reply.taken;
        let first = taken && !std::mem::replace(&mut pair.responded, true);
        if let (true, Some(asked)) = (first, pair.request_ended_at) {
            let latency = io.now.saturating_duration_since(asked);
            self.balancer.responded(io.now, &self.shared.backends, pair.backend, latency);
        }
        let all_taken = pair.reply.all_taken;
        self.figures().reply_bytes.add(moved);
        if all_taken && source.is_some() {
            self.end_backend(io, index, code::USER_ABORT, Outcome::Succeeded);
        }
    }

    // The end.

    fn client_complete(&mut self, io: &mut Io<'_>, index: usize, completion: Completion) {
        let figure: Figure = match completion {
            Completion::Succeeded => |figures| &figures.succeeded,
            Completion::RemoteAbort(_) => |figures| &figures.client_aborted,
            _ if self.reply_was_sent(io, index) => |figures| &figures.client_left,
            _ => |figures| &figures.client_lost,
        };
        self.end_backend(io, index, completion.abort_code(), Outcome::Cancelled);
        self.remove(io, index, figure);
    }

    /// Whether every byte of the reply went to the client, and its end.
    fn reply_was_sent(&mut self, io: &mut Io<'_>, index: usize) -> bool {
        let pair = self.pairs.get_mut(index);
        let sent = io.endpoint.call(pair.client).map(|call| call.bytes_sent);
        pair.reply.ended && sent == Some(pair.reply.given)
    }

    fn backend_complete(&mut self, io: &mut Io<'_>, index: usize, completion: Completion) {
        let pair = self.pairs.get_mut(index);
        let unproven = pair.proven && !pair.responded && refuses_proof(completion.abort_code());
        let (code, outcome, figure): (i32, Outcome, Figure) = match completion {
            // What has not been read yet is still there; the backend's call is released with its end.
            Completion::Succeeded => return self.pump_reply(io, index),
            // The code speaks of our ticket, and would have the client throw its own away.
            _ if unproven => (code::RESTARTING, Outcome::Failed, |figures| &figures.proof_refused),
            Completion::RemoteAbort(code) => (code, Outcome::Aborted, |figures| &figures.backend_aborted),
            Completion::Busy => (code::RESTARTING, Outcome::Aborted, |figures| &figures.backend_aborted),
            Completion::TimedOut(Timeout::Hard | Timeout::Idle) => {
                (completion.abort_code(), Outcome::TimedOut, |figures| &figures.backend_failed)
            }
            lost => (lost.abort_code(), Outcome::Failed, |figures| &figures.backend_failed),
        };
        self.end_backend(io, index, code, outcome);
        self.abort_client(io, index, code, figure);
    }

    /// Releases the backend's call, if it is still there; one in progress is aborted with `code`.
    fn end_backend(&mut self, io: &mut Io<'_>, index: usize, code: i32, outcome: Outcome) {
        let pair = self.pairs.get_mut(index);
        let Some(call) = pair.call.take() else { return };
        pair.request.held = None;
        let backend = pair.backend;
        if outcome != Outcome::Succeeded {
            io.endpoint.abort(io.now, call, code);
        }
        io.endpoint.release(io.now, call);
        self.balancer.ended(&self.shared.backends, backend, outcome);
    }

    fn abort_client(&mut self, io: &mut Io<'_>, index: usize, code: i32, figure: Figure) {
        let client = self.pairs.get_mut(index).client;
        io.endpoint.abort(io.now, client, code);
        self.remove(io, index, figure);
    }

    /// The one place where a pair ends.
    fn remove(&mut self, io: &mut Io<'_>, index: usize, figure: Figure) {
        let pair = self.pairs.remove(index);
        debug_assert!(pair.call.is_none(), "the backend's call is released first");
        io.endpoint.release(io.now, pair.client);
        self.figures().in_progress.decrement();
        figure(self.figures()).add(1);
    }
}

/// Whether rxkad says with this code that it did not take a client's proof, and so none of its calls.
fn refuses_proof(code: i32) -> bool {
    use rxkad_code::{BAD_KEY, BAD_TICKET, EXPIRED, INCONSISTENCY, LEVEL_FAIL, TICKET_LEN, UNKNOWN_KEY};
    [INCONSISTENCY, LEVEL_FAIL, TICKET_LEN, BAD_KEY, BAD_TICKET, UNKNOWN_KEY, EXPIRED].contains(&code)
}

type Figure = fn(&CoreFigures) -> &Counter;

/// Takes from one call as long as the other has room, and asks to be told when it has room again. Returns the bytes moved.
fn pump(io: &mut Io<'_>, from: CallId, to: CallId, flow: &mut Flow) -> u64 {
    let mut moved = flush(io, to, flow);
    while flow.held.is_none() && !flow.ended {
        if io.endpoint.send_room(to) == 0 {
            io.endpoint.want_room(io.now, to);
            break;
        }
        // An error says that the call has ended: its Complete is on the way.
        let Ok(Some((data, more))) = io.endpoint.recv_mbuf(io.now, from) else { break };
        flow.taken = true;
        flow.all_taken = !more;
        moved += offer(io, to, flow, data, more);
    }
    moved
}

/// Offers what found no room before. Returns the bytes moved.
fn flush(io: &mut Io<'_>, to: CallId, flow: &mut Flow) -> u64 {
    match flow.held.take() {
        Some((data, more)) => offer(io, to, flow, data, more),
        None => 0,
    }
}

/// Sends a buffer; what finds no room is held. Returns the bytes sent.
fn offer(io: &mut Io<'_>, to: CallId, flow: &mut Flow, data: Mbuf, more: bool) -> u64 {
    let offered = data.len() as u64;
    match io.endpoint.send_mbuf(io.now, io.pool, to, data, more) {
        Ok(None) => {
            flow.ended = !more;
            flow.given += offered;
            offered
        }
        Ok(Some(rest)) => {
            let taken = offered - rest.len() as u64;
            flow.held = Some((rest, more));
            flow.given += taken;
            taken
        }
        Err(CallError::ReplyBegun) => {
            // The backend answers before it has read everything: the rest of the request is not wanted.
            flow.ended = true;
            0
        }
        // The call has ended: its Complete is on the way.
        Err(_) => 0,
    }
}

/// Takes what nobody wants, so that the sender's window does not close.
fn discard(io: &mut Io<'_>, from: CallId) -> u64 {
    while let Ok(Some(_)) = io.endpoint.recv_mbuf(io.now, from) {}
    0
}

#[cfg(test)]
#[path = "forward_tests.rs"]
mod tests;
