//! Clients, a relay and servers on one thread, in virtual time, over a seeded wire. For tests.
//!
//! Every party both serves and calls, because servers call clients too.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pmd::Instant;
use rxrpc::wire::{HEADER_LEN, Header, PacketType};
use rxrpc::{CallId, CallOptions, Completion, Event, LocalId, ServiceConfig, Target};

use crate::config::Config;
use crate::figures::Shared;
use crate::forward::{Forwarder, Io};
use crate::relay::{Refusal, Relay, Step};
use crate::secrets::Secrets;
use crate::testbed::{Node, SERVICE, Wire, node, reply_to};

/// Where clients find the gateway.
pub const LISTENER: &str = "10.0.0.100:7009";
/// Our ports towards servers begin here.
const FIRST_PORT: u16 = 50_000;

pub fn address(text: &str) -> SocketAddr {
    text.parse().expect("address")
}

pub fn server_address(index: usize) -> SocketAddr {
    address(&format!("10.0.0.{}:7009", index + 1))
}

pub fn client_address(index: usize) -> SocketAddr {
    address(&format!("10.0.1.{}:7001", index + 1))
}

/// One call as its caller sees it.
pub struct Call {
    party: usize,
    request: Vec<u8>,
    sent: usize,
    asked: bool,
    reply: Vec<u8>,
    pub completion: Option<Completion>,
    pub began: Instant,
    pub took: Duration,
}

impl Call {
    /// It succeeded, and the reply is the right one.
    pub fn is_right(&self) -> bool {
        let length = u32::from_be_bytes(self.request[1..5].try_into().expect("four bytes"));
        self.completion == Some(Completion::Succeeded)
            && self.reply == reply_to(&self.request, length as usize)
    }
}

struct Served {
    request: Vec<u8>,
    answer: Option<(Vec<u8>, usize)>,
}

/// A client or a server.
pub struct Party {
    pub node: Node,
    served: HashMap<CallId, Served>,
    /// Whom it was called by.
    pub callers: BTreeSet<SocketAddr>,
    /// Calls it was asked.
    pub taken: usize,
    /// Who answered its VERSION requests.
    pub versions: Vec<SocketAddr>,
}

/// When it arrives, its number, from, to, the bytes.
type Flight = (Instant, u64, SocketAddr, SocketAddr, Vec<u8>);

pub struct Bed {
    pub now: Instant,
    pub seed: u64,
    random: fastrand::Rng,
    pub wire: Wire,
    /// Clients first, then servers.
    pub parties: Vec<Party>,
    clients: usize,
    gateway: Node,
    /// What the gateway probes from.
    prober: LocalId,
    pub forwarder: Forwarder,
    pub relay: Relay,
    pub shared: Arc<Shared>,
    ports: Arc<[SocketAddr]>,
    flying: BinaryHeap<Reverse<Flight>>,
    sequence: u64,
    pub calls: Vec<Call>,
    ids: HashMap<(usize, CallId), usize>,
    pub refusals: HashMap<Refusal, u64>,
    /// Packets from servers that crossed, with their senders.
    pub came_from_servers: u64,
}

pub fn config(servers: usize, more: &str) -> Config {
    let backends: Vec<String> = (0..servers).map(|n| format!("\"{}\"", server_address(n))).collect();
    let text = format!(
        "{more}\n[[port]]\nurl = \"null:\"\naddresses = [\"10.0.0.100/16\"]\n\
         [[pool]]\nname = \"p\"\nbackends = [{}]\n\
         [[listener]]\naddress = \"{LISTENER}\"\nmode = \"relay\"\n\
         [[listener.service]]\nids = [{SERVICE}]\npool = \"p\"\n",
        backends.join(",")
    );
    Config::parse("test", &text).unwrap_or_else(|error| panic!("{error}"))
}

fn party(address: SocketAddr, number: u64, seed: u64) -> Party {
    let (mut node, _) = node(&address.to_string(), number, seed, 16_384);
    node.endpoint.listen(node.local, ServiceConfig::new(SERVICE)).expect("listens");
    Party { node, served: HashMap::new(), callers: BTreeSet::new(), taken: 0, versions: Vec::new() }
}

impl Bed {
    pub fn new(seed: u64, (clients, servers): (usize, usize), more: &str, wire: Wire) -> Self {
        let config = config(servers, more);
        let now = Instant::from_nanos(1_000_000_000);
        let (mut gateway, _) = node(LISTENER, 1, seed, 16_384);
        let prober = gateway.endpoint.add_local(address("10.0.0.100:7100")).expect("local");
        let shared = Shared::new(&config, 1);
        let secrets = Secrets::load(&config).expect("no files");
        let mut forwarder = Forwarder::new(&config, &secrets, shared.clone(), 0, seed, now);
        forwarder.choose_sources(|_| Some(prober));
        let mut relay = Relay::new(&config, shared.clone(), 0, seed);
        let ports = (0..config.relay.ports as u16).map(|n| ([10, 0, 0, 100], FIRST_PORT + n).into());
        let ports: Arc<[SocketAddr]> = ports.collect();
        relay.open(ports.clone(), |_, _| true);
        relay.listen(gateway.local, gateway.address);
        let clients_at = (0..clients).map(client_address);
        let parties = clients_at.chain((0..servers).map(server_address)).enumerate();
        Self {
            now,
            seed,
            random: fastrand::Rng::with_seed(seed),
            wire,
            parties: parties.map(|(n, address)| party(address, 10 + n as u64, seed)).collect(),
            clients,
            gateway,
            prober,
            forwarder,
            relay,
            shared,
            ports,
            flying: BinaryHeap::new(),
            sequence: 0,
            calls: Vec::new(),
            ids: HashMap::new(),
            refusals: HashMap::new(),
            came_from_servers: 0,
        }
    }

    pub fn server(&mut self, index: usize) -> &mut Party {
        let at = self.clients + index;
        &mut self.parties[at]
    }

    /// The index of a server as a party.
    pub fn server_party(&self, index: usize) -> usize {
        self.clients + index
    }

    // Calls.

    /// Client `party` calls the gateway.
    pub fn call(&mut self, party: usize, request: Vec<u8>) -> usize {
        self.call_to(party, address(LISTENER), request)
    }

    pub fn call_to(&mut self, party: usize, to: SocketAddr, request: Vec<u8>) -> usize {
        let node = &mut self.parties[party].node;
        let target = Target::new(to, SERVICE);
        let id = node.endpoint.begin(self.now, node.local, target, CallOptions::default()).expect("begins");
        let index = self.calls.len();
        self.ids.insert((party, id), index);
        self.calls.push(Call {
            party,
            request,
            sent: 0,
            asked: false,
            reply: Vec::new(),
            completion: None,
            began: self.now,
            took: Duration::ZERO,
        });
        self.caller_moves(party, id);
        index
    }

    fn caller_moves(&mut self, party: usize, id: CallId) {
        let Some(&index) = self.ids.get(&(party, id)) else { return };
        let (call, node) = (&mut self.calls[index], &mut self.parties[party].node);
        while !call.asked {
            let rest = &call.request[call.sent..];
            let Ok(taken) = node.endpoint.send(self.now, &mut node.pool, id, rest, false) else { break };
            call.asked = taken == rest.len();
            call.sent += taken;
            if taken == 0 {
                break;
            }
        }
        while let Ok(Some((data, _))) = node.endpoint.recv_mbuf(self.now, id) {
            data.segments().for_each(|segment| call.reply.extend_from_slice(segment));
        }
    }

    fn server_moves(&mut self, party: usize, id: CallId) {
        let Party { node, served, .. } = &mut self.parties[party];
        let Some(call) = served.get_mut(&id) else { return };
        while let Ok(Some((data, more))) = node.endpoint.recv_mbuf(self.now, id) {
            data.segments().for_each(|segment| call.request.extend_from_slice(segment));
            if !more {
                let length =
                    call.request.get(1..5).map_or(0, |n| u32::from_be_bytes(n.try_into().expect("four")));
                call.answer = Some((reply_to(&call.request, length.min(1 << 20) as usize), 0));
            }
        }
        let Some((answer, sent)) = &mut call.answer else { return };
        while let Ok(taken) = node.endpoint.send(self.now, &mut node.pool, id, &answer[*sent..], false) {
            *sent += taken;
            if taken == 0 || *sent == answer.len() {
                return;
            }
        }
    }

    fn event(&mut self, party: usize, event: Event) {
        match event {
            Event::Incoming { call, peer, .. } => {
                let state = &mut self.parties[party];
                state.taken += 1;
                state.callers.insert(peer);
                state.served.insert(call, Served { request: Vec::new(), answer: None });
                self.server_moves(party, call);
            }
            Event::Readable { call } | Event::Writable { call } => {
                self.caller_moves(party, call);
                self.server_moves(party, call);
            }
            Event::Complete { call, completion } => {
                self.caller_moves(party, call);
                if let Some(index) = self.ids.remove(&(party, call)) {
                    let state = &mut self.calls[index];
                    state.completion = Some(completion);
                    state.took = self.now.saturating_duration_since(state.began);
                }
                let state = &mut self.parties[party];
                state.served.remove(&call);
                state.node.endpoint.release(self.now, call);
            }
            Event::Version { peer, .. } => self.parties[party].versions.push(peer),
            Event::Debug { .. } => {}
        }
    }

    // The wire.

    pub fn fly(&mut self, from: SocketAddr, to: SocketAddr, bytes: Vec<u8>) {
        if self.random.f64() < self.wire.loss {
            return;
        }
        let copies = 1 + usize::from(self.random.f64() < self.wire.duplicate);
        for _ in 0..copies {
            let late = if self.random.f64() < self.wire.reorder { 5 } else { 1 };
            self.sequence += 1;
            let at = self.now + self.wire.delay * late;
            self.flying.push(Reverse((at, self.sequence, from, to, bytes.clone())));
        }
    }

    fn deliver(&mut self) {
        while self.flying.peek().is_some_and(|Reverse((at, ..))| *at <= self.now) {
            let Some(Reverse((_, _, from, to, bytes))) = self.flying.pop() else { break };
            if to.ip() == self.gateway.address.ip() {
                self.arrive(from, to, bytes);
                continue;
            }
            let port = self.port_of(from);
            let Some(party) = self.parties.iter_mut().find(|party| party.node.address == to) else {
                continue;
            };
            let node = &mut party.node;
            if node.refuses {
                match port {
                    Some(port) => {
                        self.relay.server_unreachable(self.now, self.forwarder.balancer(), port, to)
                    }
                    None => self.relay.client_unreachable(self.now, 0, to),
                }
            } else if !node.down {
                let packet = node.pool.copy_from(&bytes).expect("the test's pools are large enough");
                let _ = node.endpoint.input(self.now, &mut node.pool, node.local, from, packet);
            }
        }
    }

    fn port_of(&self, address: SocketAddr) -> Option<u32> {
        self.ports.iter().position(|port| *port == address).map(|port| port as u32)
    }

    /// What the app does with a datagram to the gateway.
    pub fn arrive(&mut self, from: SocketAddr, to: SocketAddr, bytes: Vec<u8>) {
        let Ok((header, _)) = Header::parse(&bytes) else { return };
        let (now, port) = (self.now, self.port_of(to));
        let balancer = self.forwarder.balancer();
        if let Some(port) = port {
            match self.relay.from_server(now, balancer, port, from, &header) {
                Ok(way) => {
                    self.came_from_servers += 1;
                    self.fly(way.from, way.to, bytes);
                }
                Err(refusal) => *self.refusals.entry(refusal).or_default() += 1,
            }
            return;
        }
        let step = match self.relay.listener(self.gateway.local) {
            Some(listener) if to == self.gateway.address => {
                self.relay.from_client(now, balancer, listener, from, &header)
            }
            _ => Ok(Step::Ours),
        };
        match step {
            Ok(Step::Pass(way)) => self.fly(way.from, way.to, bytes),
            Ok(Step::Ours) => {
                let local = if to == self.gateway.address { self.gateway.local } else { self.prober };
                let packet = self.gateway.pool.copy_from(&bytes).expect("a buffer");
                let Node { endpoint, pool, .. } = &mut self.gateway;
                let _ = endpoint.input(now, pool, local, from, packet);
            }
            Err(refusal) => {
                *self.refusals.entry(refusal).or_default() += 1;
                if let Some(answer) = refusal.answer(&header) {
                    self.fly(to, from, answer.to_vec());
                }
            }
        }
    }

    /// Lets everyone do what there is to do now. False: nobody had anything.
    fn turn(&mut self) -> bool {
        let mut sent = Vec::new();
        let now = self.now;
        for party in 0..self.parties.len() {
            if self.parties[party].node.down {
                continue;
            }
            self.parties[party].node.endpoint.expire(now);
            while let Some(event) = self.parties[party].node.endpoint.poll_event() {
                self.event(party, event);
            }
            transmit(now, &mut self.parties[party].node, &mut sent);
        }
        self.gateway.endpoint.expire(now);
        let Node { endpoint, pool, .. } = &mut self.gateway;
        while let Some(event) = endpoint.poll_event() {
            self.forwarder.event(&mut Io { now, pool, endpoint }, event);
        }
        self.forwarder.expire(&mut Io { now, pool, endpoint });
        if now >= self.relay.next_timeout() {
            self.relay.expire(now, self.forwarder.balancer());
        }
        transmit(now, &mut self.gateway, &mut sent);
        let busy = !sent.is_empty();
        for (from, to, bytes) in sent {
            self.fly(from, to, bytes);
        }
        busy
    }

    fn next(&self) -> Instant {
        let mut next = self.flying.peek().map_or(Instant::FAR_FUTURE, |Reverse((at, ..))| *at);
        for party in self.parties.iter().filter(|party| !party.node.down) {
            next = next.min(party.node.endpoint.next_timeout().unwrap_or(Instant::FAR_FUTURE));
        }
        next = next.min(self.gateway.endpoint.next_timeout().unwrap_or(Instant::FAR_FUTURE));
        next.min(self.forwarder.next_timeout()).min(self.relay.next_timeout())
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

    pub fn pass(&mut self, time: Duration) {
        self.run(time, |_| false);
    }

    /// Runs until every call has ended.
    pub fn run_calls(&mut self, limit: Duration) {
        let ended = self.run(limit, |bed| bed.calls.iter().all(|call| call.completion.is_some()));
        let open = self.calls.iter().filter(|call| call.completion.is_none());
        let open: Vec<usize> = open.map(|call| call.party).collect();
        assert!(ended, "SEED={}: calls of {open:?} are open: {:?}", self.seed, self.shared.relay());
    }

    /// After the time to forget: nothing is left, and the figures close.
    pub fn assert_forgotten(&mut self) {
        self.pass(Duration::from_secs(4000));
        let (figures, seed) = (self.shared.relay(), self.seed);
        assert!(figures.closes(), "SEED={seed}: {figures:?}");
        assert_eq!((figures.connections, figures.clients), (0, 0), "SEED={seed}: {figures:?}");
        assert!(self.shared.backends.iter().all(|backend| backend.outstanding() == 0), "SEED={seed}");
        let (left, all) = (self.gateway.pool.available(), self.gateway.pool.capacity());
        assert_eq!(left, all, "SEED={seed}: buffers are missing");
    }
}

fn transmit(now: Instant, node: &mut Node, sent: &mut Vec<(SocketAddr, SocketAddr, Vec<u8>)>) {
    let Node { endpoint, pool, .. } = node;
    endpoint.transmit(now, pool, &mut |_, from, to, packet| {
        sent.push((from, to, packet.segments().flatten().copied().collect()));
        true
    });
}

/// A packet as a client (or, without the flag, a server) may send it.
pub fn packet(
    packet_type: PacketType,
    by_client: bool,
    epoch: u32,
    cid: u32,
    call: u32,
    seq: u32,
) -> Vec<u8> {
    let flags = rxrpc::wire::Flags(u8::from(by_client));
    let header = Header {
        epoch,
        cid: rxrpc::wire::Cid(cid),
        call,
        seq,
        serial: 1,
        flags,
        service: SERVICE,
        ..Header::new(packet_type)
    };
    let mut bytes = header.to_bytes().to_vec();
    bytes.resize(HEADER_LEN + 4, 7);
    bytes
}
