//! Two endpoints and their users: calls that go as planned, or that are cut short by one side, by time, or by an end
//! that closes its address or falls silent for a while.
//!
//! What must hold, whatever the wire does: every call ends, once, as its plan allows; every byte of it is the right one
//! at the right place; events come in order and name only calls that live; and in the end nothing is left over.

use crate::common::{Faults, Net, pattern, stretch};
use pmd::Instant;
use rxrpc::{
    CallError, CallId, CallOptions, Completion, EndpointConfig, Event, LocalId, ServiceConfig, Target,
    Timeout, code,
};
use std::collections::HashMap;
use std::time::Duration;

pub const CLIENT: usize = 0;
pub const SERVER: usize = 1;
const SERVICE: u16 = 147;

/// How a call is meant to go.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Request, then reply.
    Plain,
    /// The client gives up after so many bytes sent or received.
    ClientAbort(usize),
    /// The server gives up after so many bytes received or sent.
    ServerAbort(usize),
    /// The server replies after so many bytes of the request, without waiting for the rest.
    EarlyReply(usize),
    /// The call may take so long and no longer.
    HardLimit(Duration),
}

/// One call.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub kind: Kind,
    pub request: usize,
    pub reply: usize,
    /// The readers take at most so many bytes in one step, and only in some steps.
    pub slow: bool,
}

impl Plan {
    /// A request and a reply of so many bytes.
    pub fn plain(request: usize, reply: usize) -> Self {
        Self { kind: Kind::Plain, request, reply, slow: false }
    }
}

/// What befalls one end as a whole.
#[derive(Clone, Copy, Debug)]
pub enum Trouble {
    /// It closes its address, all calls included, and opens it again.
    Close(usize),
    /// It hears nothing for so long.
    Silence(usize, Duration),
}

const CLIENT_CODE: i32 = 111;
const SERVER_CODE: i32 = 222;

/// One side of a call under way.
struct Side {
    plan: usize,
    sent: usize,
    received: usize,
    send_ended: bool,
    recv_ended: bool,
    completion: Option<Completion>,
}

impl Side {
    fn new(plan: usize) -> Self {
        Self { plan, sent: 0, received: 0, send_ended: false, recv_ended: false, completion: None }
    }
}

/// All calls of one seed.
pub struct Run {
    pub net: Net,
    /// Trouble to come, the next last, with its time.
    pub troubles: Vec<(Instant, Trouble)>,
    /// An end to its silence.
    hears_at: Option<Instant>,
    troubled: bool,
    plans: Vec<Plan>,
    next_plan: usize,
    concurrent: usize,
    client: HashMap<CallId, Side>,
    server: HashMap<CallId, Side>,
    outcomes: Vec<Option<Completion>>,
}

impl Run {
    pub fn new(
        seed: u64,
        faults: Faults,
        plans: Vec<Plan>,
        concurrent: usize,
        config: EndpointConfig,
    ) -> Self {
        let mut net = Net::new(seed, faults, vec![config.clone(), config], BUFFERS);
        net.nodes[SERVER].listen(service());
        let outcomes = vec![None; plans.len()];
        Self {
            net,
            troubles: Vec::new(),
            hears_at: None,
            troubled: false,
            plans,
            next_plan: 0,
            concurrent,
            client: HashMap::new(),
            server: HashMap::new(),
            outcomes,
        }
    }

    pub fn run(&mut self) {
        let mut idle = 0;
        for _ in 0..2_000_000 {
            self.trouble();
            self.begin_calls();
            self.events(CLIENT);
            self.events(SERVER);
            self.work(CLIENT);
            self.work(SERVER);
            let over = self.next_plan == self.plans.len() && self.client.is_empty() && self.server.is_empty();
            if over {
                break;
            }
            // Users who dawdle come back soon, whatever the network does.
            let dawdling = self.net.now + Duration::from_millis(10);
            if !self.net.step_until(dawdling) {
                idle += 1;
                assert!(idle < 100_000, "{}", self.hang());
            }
        }
        assert!(self.client.is_empty() && self.server.is_empty(), "{}", self.hang());
        self.check();
        self.net.run_for(Duration::from_secs(5));
        self.events(CLIENT);
        self.events(SERVER);
        self.net.assert_clean();
    }

    /// What befalls the ends now.
    fn trouble(&mut self) {
        let now = self.net.now;
        if self.hears_at.is_some_and(|at| at <= now) {
            self.hears_at = None;
            self.net.nodes.iter_mut().for_each(|node| node.deaf = false);
        }
        let Some((_, trouble)) = self.troubles.pop_if(|(at, _)| *at <= now) else { return };
        self.troubled = true;
        match trouble {
            Trouble::Silence(at, duration) => {
                self.net.nodes[at].deaf = true;
                self.hears_at = Some(now + duration);
            }
            Trouble::Close(at) => self.close(at),
        }
    }

    /// No event follows for the calls of an address that is closed.
    fn close(&mut self, at: usize) {
        let node = &mut self.net.nodes[at];
        let old: LocalId = node.local;
        node.rx.remove_local(self.net.now, old);
        node.local = node.rx.add_local(node.addr).unwrap();
        if at == SERVER {
            node.listen(service());
            self.server.clear();
            return;
        }
        for (_, side) in self.client.drain() {
            self.outcomes[side.plan] = Some(Completion::LocalAbort(code::USER_ABORT));
        }
    }

    fn hang(&self) -> String {
        let views = |at: usize| self.net.nodes[at].rx.calls().collect::<Vec<_>>();
        let refused = |at: usize| &self.net.nodes[at].results;
        let (client, server) = ((views(CLIENT), refused(CLIENT)), (views(SERVER), refused(SERVER)));
        format!("calls hang: client {client:?}, server {server:?}, {:?}", self.plans)
    }

    fn begin_calls(&mut self) {
        while self.next_plan < self.plans.len() && self.client.len() < self.concurrent {
            let target = Target::new(self.net.nodes[SERVER].addr, SERVICE);
            let node = &mut self.net.nodes[CLIENT];
            let hard_timeout = match self.plans[self.next_plan].kind {
                Kind::HardLimit(limit) => Some(limit),
                _ => None,
            };
            let options = CallOptions { hard_timeout, ..CallOptions::default() };
            let call = node.rx.begin(self.net.now, node.local, target, options).unwrap();
            self.client.insert(call, Side::new(self.next_plan));
            self.next_plan += 1;
        }
    }

    fn events(&mut self, at: usize) {
        while let Some(event) = self.net.nodes[at].rx.poll_event() {
            match event {
                Event::Incoming { call, service, .. } => {
                    assert_eq!((at, service), (SERVER, SERVICE));
                    self.incoming(call);
                }
                Event::Complete { call, completion } => {
                    let side = self.side(at, call).expect("an event of a call that was released");
                    assert!(side.completion.is_none(), "completed twice");
                    side.completion = Some(completion);
                }
                Event::Readable { call } | Event::Writable { call } => {
                    let side = self.side(at, call).expect("an event of a call that was released");
                    assert!(side.completion.is_none(), "an event after the end");
                }
                Event::Version { .. } | Event::Debug { .. } => panic!("nobody asked"),
            }
        }
    }

    fn side(&mut self, at: usize, call: CallId) -> Option<&mut Side> {
        if at == CLIENT { self.client.get_mut(&call) } else { self.server.get_mut(&call) }
    }

    /// Finds the client's call for one that came in, to know its plan; the client may have given it up already.
    fn incoming(&mut self, call: CallId) {
        let view = self.net.nodes[SERVER].rx.call(call).unwrap();
        let same = |(id, _): &(&CallId, &Side)| {
            let theirs = self.net.nodes[CLIENT].rx.call(**id).unwrap();
            (theirs.epoch, theirs.cid, theirs.number) == (view.epoch, view.cid, view.number)
        };
        match self.client.iter().find(same).map(|(_, side)| side.plan) {
            Some(plan) => {
                self.server.insert(call, Side::new(plan));
            }
            None => self.net.nodes[SERVER].rx.reject(self.net.now, call, code::USER_ABORT),
        }
    }

    fn work(&mut self, at: usize) {
        let mut calls: Vec<CallId> =
            if at == CLIENT { self.client.keys() } else { self.server.keys() }.copied().collect();
        calls.sort();
        for call in calls {
            let sides = if at == CLIENT { &mut self.client } else { &mut self.server };
            let mut side = sides.remove(&call).unwrap();
            let over = if at == CLIENT {
                self.client_work(call, &mut side)
            } else {
                self.server_work(call, &mut side)
            };
            if over {
                assert!(self.net.nodes[at].rx.release(self.net.now, call));
                assert!(!self.net.nodes[at].rx.release(self.net.now, call), "released twice");
            } else {
                let sides = if at == CLIENT { &mut self.client } else { &mut self.server };
                sides.insert(call, side);
            }
        }
    }

    /// Moves a client call on. True: it is over.
    fn client_work(&mut self, call: CallId, side: &mut Side) -> bool {
        let plan = self.plans[side.plan];
        let stream = side.plan as u64 * 2;
        if let Kind::ClientAbort(after) = plan.kind
            && side.sent + side.received >= after
        {
            self.outcomes[side.plan] = Some(Completion::LocalAbort(CLIENT_CODE));
            self.net.nodes[CLIENT].rx.abort(self.net.now, call, CLIENT_CODE);
            return true;
        }
        self.send(CLIENT, call, side, stream, plan.request);
        self.receive(CLIENT, call, side, stream + 1, plan);
        match side.completion {
            Some(Completion::Succeeded) if !side.recv_ended => false,
            Some(completion) => {
                if completion == Completion::Succeeded {
                    assert_eq!(side.received, plan.reply, "a reply of another length");
                }
                self.outcomes[side.plan] = Some(completion);
                true
            }
            None => false,
        }
    }

    fn server_work(&mut self, call: CallId, side: &mut Side) -> bool {
        let plan = self.plans[side.plan];
        let stream = side.plan as u64 * 2;
        if let Kind::ServerAbort(after) = plan.kind
            && side.sent + side.received >= after
        {
            self.net.nodes[SERVER].rx.abort(self.net.now, call, SERVER_CODE);
            return true;
        }
        let early = matches!(plan.kind, Kind::EarlyReply(after) if side.received >= after);
        if side.recv_ended || early {
            self.send(SERVER, call, side, stream + 1, plan.reply);
        } else {
            self.receive(SERVER, call, side, stream, plan);
            if side.recv_ended {
                assert_eq!(side.received, plan.request, "a request of another length");
            }
        }
        side.completion.is_some()
    }

    /// Sends the next part of a stream, through either of the two calls.
    fn send(&mut self, at: usize, call: CallId, side: &mut Side, stream: u64, total: usize) {
        let node = &mut self.net.nodes[at];
        while !side.send_ended && side.completion.is_none() {
            let len = (total - side.sent).min(self.net.random.usize(1..=20_000));
            let (bytes, more) = (stretch(stream, side.sent, len), side.sent + len < total);
            let taken = if self.net.random.bool() {
                node.rx.send(self.net.now, &mut node.pool, call, &bytes, more)
            } else {
                let Some(data) = node.pool.copy_from(&bytes) else { return };
                let left = node.rx.send_mbuf(self.net.now, &mut node.pool, call, data, more);
                left.map(|left| len - left.map_or(0, |left| left.len()))
            };
            match taken {
                Ok(taken) => {
                    side.sent += taken;
                    side.send_ended = taken == len && !more;
                    if taken < len {
                        return;
                    }
                }
                Err(CallError::ReplyBegun) => side.send_ended = true,
                // Completion is on its way as an event.
                Err(CallError::Ended(_)) => return,
                Err(error) => panic!("send: {error}"),
            }
            if self.net.random.u8(..) < 64 {
                return;
            }
        }
    }

    /// Reads what there is and compares every byte.
    fn receive(&mut self, at: usize, call: CallId, side: &mut Side, stream: u64, plan: Plan) {
        if plan.slow && self.net.random.u8(..) < 200 {
            return;
        }
        let node = &mut self.net.nodes[at];
        let mut out = vec![0; if plan.slow { 700 } else { 30_000 }];
        while !side.recv_ended {
            let (len, more) = if self.net.random.bool() {
                match node.rx.recv(self.net.now, call, &mut out) {
                    Ok(recv) if recv.bytes == 0 && recv.more => return,
                    Ok(recv) => (recv.bytes, recv.more),
                    Err(CallError::Ended(_)) => return,
                    Err(error) => panic!("recv: {error}"),
                }
            } else {
                match node.rx.recv_mbuf(self.net.now, call) {
                    Ok(None) => return,
                    Ok(Some((data, more))) => {
                        out.resize(out.len().max(data.len()), 0);
                        (data.copy_to(0, &mut out), more)
                    }
                    Err(CallError::Ended(_)) => return,
                    Err(error) => panic!("recv_mbuf: {error}"),
                }
            };
            for (index, &byte) in out[..len].iter().enumerate() {
                assert_eq!(byte, pattern(stream, side.received + index), "at byte {}", side.received + index);
            }
            side.received += len;
            side.recv_ended = !more;
            if plan.slow {
                return;
            }
        }
    }

    /// Every call ended as planned, or as trouble explains.
    fn check(&self) {
        // An ABORT is sent once, and again for each ping, of which there are five until the server counts as dead: where
        // packets are lost by the dozen, all that may be lost.
        let hopeless = self.net.faults.loss > 0.1;
        for (index, (plan, outcome)) in self.plans.iter().zip(&self.outcomes).enumerate() {
            let outcome = outcome.unwrap_or_else(|| panic!("call {index} has no end"));
            let planned = match plan.kind {
                Kind::Plain | Kind::EarlyReply(_) => outcome == Completion::Succeeded,
                Kind::ClientAbort(_) => outcome == Completion::LocalAbort(CLIENT_CODE),
                Kind::ServerAbort(_) => {
                    outcome == Completion::RemoteAbort(SERVER_CODE)
                        || hopeless && outcome == Completion::TimedOut(Timeout::Dead)
                }
                Kind::HardLimit(_) => {
                    matches!(outcome, Completion::Succeeded | Completion::TimedOut(Timeout::Hard))
                }
            };
            let explained = match outcome {
                Completion::LocalAbort(code::USER_ABORT) | Completion::TimedOut(Timeout::Dead) => true,
                Completion::RemoteAbort(code) => code != CLIENT_CODE && code != SERVER_CODE,
                _ => false,
            };
            assert!(planned || self.troubled && explained, "call {index}: {plan:?} ended as {outcome:?}");
        }
    }
}

/// Buffers of each end.
const BUFFERS: usize = 2_048;

fn service() -> ServiceConfig {
    ServiceConfig { backlog: 64, ..ServiceConfig::new(SERVICE) }
}
