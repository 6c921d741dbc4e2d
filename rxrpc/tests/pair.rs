//! Two endpoints on a bad wire: every byte of every call arrives once and in order, or the call ends with a named error.

mod common;

use common::{Faults, Net, Rerun, pattern, seeds, stretch};
use rxrpc::{CallError, CallId, CallOptions, Completion, EndpointConfig, Event, ServiceConfig, Target, code};
use std::collections::HashMap;
use std::time::Duration;

const CLIENT: usize = 0;
const SERVER: usize = 1;
const SERVICE: u16 = 147;

/// How a call is meant to go.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    /// Request, then reply.
    Plain,
    /// The client gives up after so many bytes sent or received.
    ClientAbort(usize),
    /// The server gives up after so many bytes received or sent.
    ServerAbort(usize),
    /// The server replies after so many bytes of the request, without waiting for the rest.
    EarlyReply(usize),
}

#[derive(Clone, Copy, Debug)]
struct Plan {
    kind: Kind,
    request: usize,
    reply: usize,
    /// The readers take at most so many bytes in one step, and only in some steps.
    slow: bool,
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

struct Run {
    net: Net,
    plans: Vec<Plan>,
    next_plan: usize,
    concurrent: usize,
    client: HashMap<CallId, Side>,
    server: HashMap<CallId, Side>,
    outcomes: Vec<Option<Completion>>,
}

impl Run {
    fn new(seed: u64, faults: Faults, plans: Vec<Plan>, concurrent: usize, config: EndpointConfig) -> Self {
        let mut net = Net::new(seed, faults, vec![config.clone(), config], 4_096);
        let server = &mut net.nodes[SERVER];
        server.rx.listen(server.local, ServiceConfig { backlog: 64, ..ServiceConfig::new(SERVICE) }).unwrap();
        let outcomes = vec![None; plans.len()];
        let (client, server) = (HashMap::new(), HashMap::new());
        Self { net, plans, next_plan: 0, concurrent, client, server, outcomes }
    }

    fn run(&mut self) {
        let mut idle = 0;
        for _ in 0..2_000_000 {
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

    fn hang(&self) -> String {
        let views = |at: usize| self.net.nodes[at].rx.calls().collect::<Vec<_>>();
        format!("calls hang: {:#?} {:#?} {:?}", views(CLIENT), views(SERVER), self.plans)
    }

    fn begin_calls(&mut self) {
        while self.next_plan < self.plans.len() && self.client.len() < self.concurrent {
            let target = Target::new(self.net.nodes[SERVER].addr, SERVICE);
            let node = &mut self.net.nodes[CLIENT];
            let call = node.rx.begin(self.net.now, node.local, target, CallOptions::default()).unwrap();
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
                    assert!(self.side(at, call).is_some(), "an event of a call that was released");
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

    /// Every call ended as planned.
    fn check(&self) {
        for (index, (plan, outcome)) in self.plans.iter().zip(&self.outcomes).enumerate() {
            let outcome = outcome.unwrap_or_else(|| panic!("call {index} has no end"));
            let expected = match plan.kind {
                Kind::Plain | Kind::EarlyReply(_) => Completion::Succeeded,
                Kind::ClientAbort(_) => Completion::LocalAbort(CLIENT_CODE),
                Kind::ServerAbort(_) => Completion::RemoteAbort(SERVER_CODE),
            };
            assert_eq!(outcome, expected, "call {index}: {plan:?}");
        }
    }
}

/// A random call. Most are small.
fn plan(random: &mut fastrand::Rng, large: usize) -> Plan {
    let mut size = || match random.u8(..100) {
        0..10 => 0,
        10..60 => random.usize(..200),
        60..85 => random.usize(..6_000),
        85..97 => random.usize(..40_000),
        _ => random.usize(..large),
    };
    let (request, reply) = (size(), size());
    let kind = match random.u8(..100) {
        0..5 => Kind::ClientAbort(random.usize(..=request)),
        5..10 => Kind::ServerAbort(random.usize(..=request)),
        10..15 => Kind::EarlyReply(random.usize(..=request)),
        _ => Kind::Plain,
    };
    Plan { kind, request, reply, slow: random.u8(..) < 20 }
}

fn faults(random: &mut fastrand::Rng) -> Faults {
    let level = [0.0, 0.01, 0.05, 0.2][random.usize(..4)];
    Faults {
        loss: level * random.f64(),
        duplication: level * random.f64(),
        reorder: level * random.f64() * 2.0,
        corruption: level * random.f64() * 0.2,
        delay: Duration::from_micros([5, 200, 2_000, 20_000][random.usize(..4)]),
        jitter: Duration::from_micros([0, 20, 3_000][random.usize(..3)]),
    }
}

fn random_mix(seed: u64) {
    let _rerun = Rerun { test: "pair", seed };
    let mut random = fastrand::Rng::with_seed(seed ^ 0x5eed);
    let faults = faults(&mut random);
    let calls = random.usize(1..12);
    let plans = (0..calls).map(|_| plan(&mut random, 100_000)).collect();
    let concurrent = random.usize(1..=calls);
    let jumbo_max = random.u32(1..6);
    let config = EndpointConfig { jumbo_max, calls_max: 100, conns_max: 100, ..EndpointConfig::default() };
    let mut run = Run::new(seed, faults, plans, concurrent, config);
    run.run();
    if seed.is_multiple_of(16) {
        run.net.assert_reaped();
    }
}

#[test]
fn random_mixes_a() {
    seeds(0..500).for_each(random_mix);
}

#[test]
fn random_mixes_b() {
    seeds(500..1_000).for_each(random_mix);
}

#[test]
fn megabytes_each_way() {
    for seed in seeds(0..8) {
        let _rerun = Rerun { test: "pair", seed };
        let faults = Faults { loss: 0.01, reorder: 0.02, duplication: 0.005, ..Faults::none(500) };
        let plan = |request, reply| Plan { kind: Kind::Plain, request, reply, slow: false };
        let plans = vec![plan(3_000_000, 10), plan(10, 3_000_000), plan(1_000_000, 1_000_000)];
        Run::new(seed, faults, plans, 3, EndpointConfig::default()).run();
    }
}

#[test]
fn more_calls_than_places_wait_their_turn() {
    let plans = vec![Plan { kind: Kind::Plain, request: 100, reply: 100, slow: false }; 200];
    let mut run = Run::new(1, Faults::none(100), plans, 100, EndpointConfig::default());
    run.run();
    assert!(run.net.nodes[CLIENT].rx.stats().calls_waited > 0);
    assert_eq!(run.net.nodes[CLIENT].rx.stats().client_conns, 4, "the default bundle has four connections");
}
