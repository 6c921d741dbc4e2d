//! A client, a gateway and servers on one thread, in virtual time, over a seeded wire. For tests.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pmd::{Instant, Pool, PoolConfig, PoolHandle};
use rxrpc::{
    CallId, CallOptions, Completion, Endpoint, EndpointConfig, Event, LocalId, NetError, ServiceConfig,
    Target,
};

use crate::config::{Config, RECEIVE_RESERVE, SEND_RESERVE};
use crate::figures::Shared;
use crate::forward::{Forwarder, Io};
use crate::secrets::Secrets;

pub const SERVICE: u16 = 147;
pub const CLIENT: usize = 0;
pub const GATEWAY: usize = 1;
pub const GATEWAY_BUFFERS: usize = 32_768;

/// First byte of a request; then, big-endian, four bytes of argument; then the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Reply with so many bytes, made of the payload's.
    Reply = 0,
    /// Abort with this code once the request has been read.
    Abort = 1,
    /// Abort with this code at the first byte.
    AbortEarly = 2,
    /// Never reply.
    Silence = 3,
    /// Reply with so many bytes at once, without reading the request.
    ReplyEarly = 4,
}

pub fn request(op: Op, argument: u32, payload: usize, seed: u8) -> Vec<u8> {
    let mut bytes = vec![op as u8];
    bytes.extend(argument.to_be_bytes());
    bytes.extend((0..payload).map(|at| (at as u8).wrapping_mul(31) ^ (at >> 8) as u8 ^ seed));
    bytes
}

/// What a server answers; depends on every byte of the request and on its order.
pub fn reply_to(request: &[u8], length: usize) -> Vec<u8> {
    let mut state = request.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mut step = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..length).map(|_| step()).collect()
}

/// What the wire does to a datagram.
#[derive(Clone, Copy)]
pub struct Wire {
    pub loss: f64,
    pub duplicate: f64,
    pub reorder: f64,
    pub delay: Duration,
}

impl Wire {
    pub const CLEAN: Self =
        Self { loss: 0.0, duplicate: 0.0, reorder: 0.0, delay: Duration::from_micros(200) };
    pub const LOSSY: Self =
        Self { loss: 0.02, duplicate: 0.01, reorder: 0.05, delay: Duration::from_micros(200) };
}

pub struct Node {
    pub endpoint: Endpoint,
    pub pool: Pool,
    pub address: SocketAddr,
    pub local: LocalId,
    /// Neither hears nor speaks.
    pub down: bool,
    /// The host is there and says that nobody listens.
    pub refuses: bool,
}

/// One call as the client sees it.
pub struct ClientCall {
    pub request: Vec<u8>,
    sent: usize,
    /// The request was sent to its end.
    asked: bool,
    pub reply: Vec<u8>,
    pub ended: bool,
    pub reads: bool,
    pub completion: Option<Completion>,
    pub began: Instant,
    pub took: Duration,
}

struct ServerCall {
    request: Vec<u8>,
    answer: Option<(Vec<u8>, usize)>,
    answered: bool,
    due: Option<Instant>,
}

/// When it arrives, its number, the node, the sender, the bytes.
type Flight = (Instant, u64, usize, SocketAddr, Vec<u8>);

pub struct Bed {
    pub now: Instant,
    pub seed: u64,
    random: fastrand::Rng,
    pub nodes: Vec<Node>,
    pub wire: Wire,
    /// Damaged copies of each packet to the gateway, sent along with it from an address of nobody's.
    pub noise: usize,
    pub noise_sent: u64,
    gateway_pool: PoolHandle,
    flying: BinaryHeap<Reverse<Flight>>,
    sequence: u64,
    pub forwarder: Forwarder,
    pub shared: Arc<Shared>,
    pub calls: HashMap<CallId, ClientCall>,
    /// In the order of their beginning.
    pub order: Vec<CallId>,
    served: Vec<HashMap<CallId, ServerCall>>,
    /// By server: how long it takes to answer, and calls it has taken.
    pub service_time: Vec<Duration>,
    pub taken: Vec<usize>,
    /// How the servers' calls ended, those that did not succeed.
    pub server_completions: Vec<Completion>,
}

pub fn config(servers: usize, pool: &str) -> Config {
    let backends: Vec<String> = (0..servers).map(|n| format!("\"10.0.0.{}:7009\"", n + 1)).collect();
    let text = format!(
        "[limits]\ncalls = 2048\n[[port]]\nurl = \"null:\"\naddresses = [\"10.0.0.100/24\"]\n\
         [[pool]]\nname = \"p\"\nbackends = [{}]\n{pool}\n\
         [[listener]]\naddress = \"10.0.0.100:7009\"\n[[listener.service]]\nids = [{SERVICE}]\npool = \"p\"\n",
        backends.join(",")
    );
    Config::parse("test", &text).unwrap_or_else(|error| panic!("{error}"))
}

impl Bed {
    pub fn new(seed: u64, servers: usize, pool: &str, wire: Wire) -> Self {
        let config = config(servers, pool);
        let now = Instant::from_nanos(1_000_000_000);
        let (gateway, gateway_pool) = node("10.0.0.100:7009", 2, seed, GATEWAY_BUFFERS);
        let mut nodes = vec![node("10.0.0.200:7001", 1, seed, 32_768).0, gateway];
        for server in 0..servers {
            let address = format!("10.0.0.{}:7009", server + 1);
            nodes.push(node(&address, 3 + server as u64, seed, 16_384).0);
        }
        for node in &mut nodes[GATEWAY..] {
            node.endpoint.listen(node.local, ServiceConfig::new(SERVICE)).expect("listens");
        }
        let shared = Shared::new(&config, 1);
        let secrets = Secrets::load(&config).expect("no files");
        let mut forwarder = Forwarder::new(&config, &secrets, shared.clone(), 0, seed, now);
        let local = nodes[GATEWAY].local;
        forwarder.add_route(local, SERVICE, 0, &[]);
        forwarder.choose_sources(|_| Some(local));
        Self {
            now,
            seed,
            random: fastrand::Rng::with_seed(seed),
            nodes,
            wire,
            noise: 0,
            noise_sent: 0,
            gateway_pool,
            flying: BinaryHeap::new(),
            sequence: 0,
            forwarder,
            shared,
            calls: HashMap::new(),
            order: Vec::new(),
            served: (0..servers).map(|_| HashMap::new()).collect(),
            service_time: vec![Duration::ZERO; servers],
            taken: vec![0; servers],
            server_completions: Vec::new(),
        }
    }

    // The client.

    pub fn call(&mut self, request: Vec<u8>) -> CallId {
        let node = &mut self.nodes[CLIENT];
        let options = CallOptions { bundle_conns_max: Some(512), ..CallOptions::default() };
        let target = Target::new("10.0.0.100:7009".parse().expect("address"), SERVICE);
        let id = node.endpoint.begin(self.now, node.local, target, options).expect("begins");
        let call = ClientCall {
            request,
            sent: 0,
            asked: false,
            reply: Vec::new(),
            ended: false,
            reads: true,
            completion: None,
            began: self.now,
            took: Duration::ZERO,
        };
        self.calls.insert(id, call);
        self.order.push(id);
        self.client_moves(id);
        id
    }

    pub fn call_many(&mut self, count: impl Iterator<Item = usize>, request: impl Fn(u8) -> Vec<u8>) {
        for n in count {
            self.call(request(n as u8));
        }
    }

    pub fn client_moves(&mut self, id: CallId) {
        let node = &mut self.nodes[CLIENT];
        let call = self.calls.get_mut(&id).expect("ours");
        while !call.asked {
            let rest = &call.request[call.sent..];
            let Ok(taken) = node.endpoint.send(self.now, &mut node.pool, id, rest, false) else { break };
            call.asked = taken == rest.len();
            call.sent += taken;
            if taken == 0 {
                break;
            }
        }
        while call.reads && !call.ended {
            let Ok(Some((data, more))) = node.endpoint.recv_mbuf(self.now, id) else { break };
            data.segments().for_each(|segment| call.reply.extend_from_slice(segment));
            call.ended = !more;
        }
    }

    fn client_event(&mut self, event: Event) {
        match event {
            Event::Readable { call } | Event::Writable { call } => self.client_moves(call),
            Event::Complete { call, completion } => {
                self.client_moves(call);
                let state = self.calls.get_mut(&call).expect("ours");
                assert!(state.completion.replace(completion).is_none(), "completed twice");
                state.took = self.now.saturating_duration_since(state.began);
                let node = &mut self.nodes[CLIENT];
                node.endpoint.release(self.now, call);
            }
            _ => {}
        }
    }

    // The servers.

    fn server_event(&mut self, server: usize, event: Event) {
        match event {
            Event::Incoming { call, .. } => {
                self.taken[server] += 1;
                let state = ServerCall { request: Vec::new(), answer: None, answered: false, due: None };
                self.served[server].insert(call, state);
                self.server_reads(server, call);
            }
            Event::Readable { call } => self.server_reads(server, call),
            Event::Writable { call } => self.server_writes(server, call),
            Event::Complete { call, completion } => {
                self.served[server].remove(&call);
                if completion != Completion::Succeeded {
                    self.server_completions.push(completion);
                }
                self.nodes[GATEWAY + 1 + server].endpoint.release(self.now, call);
            }
            _ => {}
        }
    }

    fn server_reads(&mut self, server: usize, id: CallId) {
        let node = &mut self.nodes[GATEWAY + 1 + server];
        let Some(call) = self.served[server].get_mut(&id) else { return };
        while let Ok(Some((data, more))) = node.endpoint.recv_mbuf(self.now, id) {
            data.segments().for_each(|segment| call.request.extend_from_slice(segment));
            let early = [Op::AbortEarly as u8, Op::ReplyEarly as u8];
            let is_early = call.request.len() >= 5 && early.contains(&call.request[0]);
            if (!more || is_early) && call.due.is_none() && call.answer.is_none() {
                call.due = Some(self.now + self.service_time[server]);
            }
        }
    }

    fn server_acts(&mut self, server: usize) {
        let now = self.now;
        let due =
            |(id, call): (&CallId, &ServerCall)| (call.due.is_some_and(|due| due <= now)).then_some(*id);
        let mut ids: Vec<CallId> = self.served[server].iter().filter_map(due).collect();
        ids.sort();
        for id in ids {
            let node = &mut self.nodes[GATEWAY + 1 + server];
            let call = self.served[server].get_mut(&id).expect("served");
            call.due = None;
            let Some(argument) = call.request.get(1..5) else {
                node.endpoint.abort(now, id, -1);
                continue;
            };
            // Noise may ask for anything.
            let argument = u32::from_be_bytes(argument.try_into().expect("four bytes"));
            let length = argument.min(16 << 20) as usize;
            match call.request[0] {
                0 => call.answer = Some((reply_to(&call.request, length), 0)),
                4 => call.answer = Some((reply_to(&call.request[..5], length), 0)),
                1 | 2 => node.endpoint.abort(now, id, argument as i32),
                _ => {}
            }
            self.server_writes(server, id);
        }
    }

    fn server_writes(&mut self, server: usize, id: CallId) {
        let node = &mut self.nodes[GATEWAY + 1 + server];
        let call = self.served[server].get_mut(&id);
        let Some(ServerCall { answer: Some((answer, sent)), answered, .. }) = call else { return };
        while !*answered {
            let rest = &answer[*sent..];
            let Ok(taken) = node.endpoint.send(self.now, &mut node.pool, id, rest, false) else { return };
            *answered = taken == rest.len();
            *sent += taken;
            if taken == 0 {
                return;
            }
        }
    }

    // Time and the wire.

    /// Lets every node do what it has to do now. False: nobody had anything.
    fn turn(&mut self) -> bool {
        let mut busy = false;
        for index in 0..self.nodes.len() {
            if self.nodes[index].down {
                continue;
            }
            self.nodes[index].endpoint.expire(self.now);
            while let Some(event) = self.nodes[index].endpoint.poll_event() {
                busy = true;
                self.event(index, event);
            }
            match index {
                CLIENT => {}
                GATEWAY => self.gateway(|forwarder, io| forwarder.expire(io)),
                _ => self.server_acts(index - GATEWAY - 1),
            }
            busy |= self.transmit(index);
        }
        busy
    }

    fn event(&mut self, index: usize, event: Event) {
        match index {
            CLIENT => self.client_event(event),
            GATEWAY => self.gateway(|forwarder, io| forwarder.event(io, event)),
            _ => self.server_event(index - GATEWAY - 1, event),
        }
    }

    pub fn gateway(&mut self, act: impl FnOnce(&mut Forwarder, &mut Io<'_>)) {
        let Node { endpoint, pool, .. } = &mut self.nodes[GATEWAY];
        act(&mut self.forwarder, &mut Io { now: self.now, pool, endpoint });
    }

    fn transmit(&mut self, index: usize) -> bool {
        let mut sent = Vec::new();
        let Node { endpoint, pool, .. } = &mut self.nodes[index];
        endpoint.transmit(self.now, pool, &mut |_, from, to, packet| {
            sent.push((from, to, packet.segments().flatten().copied().collect::<Vec<u8>>()));
            true
        });
        let any = !sent.is_empty();
        for (from, to, bytes) in sent {
            let Some(target) = self.nodes.iter().position(|node| node.address == to) else {
                assert_eq!(to, stranger(), "SEED={}: a packet to an unknown address", self.seed);
                continue;
            };
            if target == GATEWAY {
                self.add_noise(&bytes);
            }
            if self.random.f64() < self.wire.loss {
                continue;
            }
            let copies = 1 + usize::from(self.random.f64() < self.wire.duplicate);
            for _ in 0..copies {
                let late = if self.random.f64() < self.wire.reorder { 5 } else { 1 };
                self.sequence += 1;
                let at = self.now + self.wire.delay * late;
                self.flying.push(Reverse((at, self.sequence, target, from, bytes.clone())));
            }
        }
        any
    }

    fn add_noise(&mut self, bytes: &[u8]) {
        for _ in 0..self.noise {
            let damaged = damage(&mut self.random, bytes);
            let at = self.now + self.wire.delay * self.random.u32(0..4);
            self.sequence += 1;
            self.noise_sent += 1;
            self.flying.push(Reverse((at, self.sequence, GATEWAY, stranger(), damaged)));
        }
    }

    fn deliver(&mut self) {
        while let Some(Reverse((at, ..))) = self.flying.peek() {
            if *at > self.now {
                break;
            }
            let Some(Reverse((_, _, target, from, bytes))) = self.flying.pop() else { break };
            let node = &mut self.nodes[target];
            if node.refuses {
                let address = node.address;
                if let Some(sender) = self.nodes.iter_mut().find(|node| node.address == from) {
                    sender.endpoint.unreachable(self.now, sender.local, address, NetError::PortUnreachable);
                }
            } else if !node.down {
                let packet = node.pool.copy_from(&bytes).expect("the test's pools are large enough");
                let _ = node.endpoint.input(self.now, &mut node.pool, node.local, from, packet);
            }
        }
    }

    /// When something happens next.
    fn next(&self) -> Instant {
        let mut next = self.flying.peek().map_or(Instant::FAR_FUTURE, |Reverse((at, ..))| *at);
        for node in self.nodes.iter().filter(|node| !node.down) {
            next = next.min(node.endpoint.next_timeout().unwrap_or(Instant::FAR_FUTURE));
        }
        let due = self.served.iter().flat_map(HashMap::values).filter_map(|call| call.due);
        next.min(self.forwarder.next_timeout()).min(due.min().unwrap_or(Instant::FAR_FUTURE))
    }

    /// Runs until `done` says so, or for `limit` of virtual time. False: the time was up.
    pub fn run(&mut self, limit: Duration, mut done: impl FnMut(&Self) -> bool) -> bool {
        let end = self.now + limit;
        loop {
            self.deliver();
            let mut turns = 0;
            while self.turn() {
                turns += 1;
                assert!(turns < 10_000, "SEED={}: it never rests", self.seed);
            }
            if done(self) {
                return true;
            }
            let next = self.next().max(self.now + Duration::from_micros(1));
            if next > end {
                self.now = end;
                return false;
            }
            self.now = next;
        }
    }

    /// Lets so much time pass.
    pub fn pass(&mut self, time: Duration) {
        self.run(time, |_| false);
    }

    /// Runs until every call of the client has ended.
    pub fn run_calls(&mut self, limit: Duration) {
        let ended = self.run(limit, |bed| bed.calls.values().all(|call| call.completion.is_some()));
        assert!(ended, "SEED={}: calls are still open: {:?}", self.seed, self.shared.calls());
    }

    /// Buffers that the gateway holds.
    pub fn gateway_holds(&self) -> usize {
        self.gateway_pool.in_use()
    }

    /// A server begins anew, knowing nothing.
    pub fn restart(&mut self, server: usize) {
        let index = GATEWAY + 1 + server;
        let address = self.nodes[index].address.to_string();
        self.sequence += 1;
        self.nodes[index] = node(&address, 1000 + self.sequence, self.seed, 16_384).0;
        let node = &mut self.nodes[index];
        node.endpoint.listen(node.local, ServiceConfig::new(SERVICE)).expect("listens");
        self.served[server].clear();
    }

    /// The client's calls in the order of their beginning.
    pub fn in_order(&self) -> impl Iterator<Item = &ClientCall> {
        self.order.iter().map(|id| &self.calls[id])
    }

    /// Nothing of any call is left at the gateway: every list is empty, every buffer at home, and the figures close.
    pub fn assert_clean(&mut self) {
        // Acknowledgements that are still owed, and their timers; what strangers began and never went on with.
        self.noise = 0;
        self.pass(Duration::from_secs(60));
        let seed = self.seed;
        assert_eq!(self.forwarder.in_progress(), 0, "SEED={seed}");
        let figures = self.shared.calls();
        assert!(figures.closes() && figures.in_progress == 0, "SEED={seed}: {figures:?}");
        assert!(self.shared.backends.iter().all(|backend| backend.outstanding() == 0), "SEED={seed}");
        let gateway = &mut self.nodes[GATEWAY];
        assert_eq!(gateway.endpoint.calls().count(), 0, "SEED={seed}");
        assert_eq!(gateway.pool.available(), gateway.pool.capacity(), "SEED={seed}: buffers are missing");
        let stats = gateway.endpoint.stats();
        assert_eq!(
            stats.datagrams,
            stats.consumed + stats.drops.iter().sum::<u64>(),
            "SEED={seed}: the ledger"
        );
    }
}

/// Who sends what nobody should send.
fn stranger() -> SocketAddr {
    "10.0.0.250:6666".parse().expect("address")
}

/// A packet with up to four damages: bits, bytes and words of its headers or its body, its length, or all of it.
fn damage(random: &mut fastrand::Rng, bytes: &[u8]) -> Vec<u8> {
    let mut damaged = bytes.to_vec();
    for _ in 0..random.usize(0..5) {
        let end = if random.bool() { damaged.len().min(60) } else { damaged.len() };
        let at = random.usize(..end.max(1));
        match random.u8(0..8) {
            _ if damaged.is_empty() => damaged.push(random.u8(..)),
            0 | 1 => damaged[at] ^= 1 << random.u8(0..8),
            2 => damaged[at] = random.u8(..),
            3 => damaged[at] = [0, 1, 0x7f, 0x80, 0xff][random.usize(..5)],
            4 => damaged.truncate(at),
            5 => damaged.extend((0..random.usize(1..64)).map(|n| n as u8)),
            // The packet type, another valid one.
            6 if damaged.len() > 20 => damaged[20] = random.u8(1..14),
            _ => damaged[at..end].iter_mut().take(4).for_each(|byte| *byte = random.u8(..)),
        }
    }
    damaged
}

pub fn node(address: &str, number: u64, seed: u64, buffers: usize) -> (Node, PoolHandle) {
    let address: SocketAddr = address.parse().expect("address");
    let config = EndpointConfig {
        bundle_conns_max: 512,
        receive_reserve: RECEIVE_RESERVE,
        send_reserve: SEND_RESERVE,
        ..EndpointConfig::for_pool(8192)
    };
    let mut endpoint = Endpoint::new(config, seed.wrapping_mul(1000) + number);
    let local = endpoint.add_local(address).expect("local");
    let pool = PoolConfig::new(format!("node{number}"), buffers).build().expect("memory");
    let stats = pool.handle();
    (Node { endpoint, pool: pool.claim(), address, local, down: false, refuses: false }, stats)
}
