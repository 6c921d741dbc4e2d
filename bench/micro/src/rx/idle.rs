//! Idle connections beside active ones, at a server's endpoint: the memory of each, and what the active ones' calls lose by them.
//!
//! Two endpoints in one thread, without an engine, so that nothing but the protocol's own tables and timers is measured. Every idle
//! connection has carried a call and comes from an address of its own: a peer is a part of its price. The active connections were
//! opened in between, so that they lie all over the tables.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use pmd::{Clock, Hugepages, Instant, Mbuf, Pool, PoolConfig};
use rxrpc::{
    CallOptions, Completion, Endpoint, EndpointConfig, Event, LocalId, RxDrop, ServiceConfig, Target,
};
use serde::Serialize;

use crate::cost::resident;
use crate::measure::{median, pin_to};

const SERVER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 7001);
const CLIENT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2)), 7001);
const SERVICE: u16 = 1;
const PAYLOAD: [u8; 64] = [7; 64];
/// Bundles of four active connections each, and what they keep in flight in all.
const BUNDLES: u32 = 16;
const IN_FLIGHT: usize = 64;
/// Idle connections that are opened at once.
const AT_ONCE: usize = 1024;
/// Longer than a client puts off its last ACK.
const STEP: Duration = Duration::from_millis(20);
/// After so long a client has forgotten a connection that was for one call alone.
const FORGOTTEN: Duration = Duration::from_secs(3);
/// In which nothing else becomes too old.
const LONG: Duration = Duration::from_secs(100 * 3600);
const WARM_UP: Duration = Duration::from_millis(300);
const BATCH: Duration = Duration::from_millis(100);
const BATCHES: usize = 9;

/// What a run comes to: the median batch, and the memory.
#[derive(Serialize)]
pub struct Beside {
    /// Idle connections at the server.
    connections: usize,
    /// Calls of the active ones that ended well, a second.
    calls_per_second: f64,
    /// What the process's resident memory grew by for each idle connection; nothing without any.
    bytes_each: f64,
}

/// Opens `idle` connections, lets them be, and calls over others.
pub fn idle(idle: usize, cpu: usize) -> Beside {
    pin_to(cpu);
    let mut net = Net::new(idle);
    let bundles = (0..BUNDLES).map(|bundle| idle * (bundle as usize + 1) / BUNDLES as usize);
    // The tables' first pages do not count.
    net.open_idle(AT_ONCE);
    let before = resident();
    let mut opened = 0;
    for (bundle, until) in bundles.enumerate() {
        while opened < until {
            let now = AT_ONCE.min(until - opened);
            net.open_idle(now);
            opened += now;
        }
        net.open_active(bundle as u32);
    }
    let grown = resident().saturating_sub(before);
    assert_eq!(
        net.server.rx.conns().count(),
        idle + AT_ONCE + 4 * BUNDLES as usize,
        "connections are missing"
    );
    net.call_for(WARM_UP);
    let calls_per_second = median((0..BATCHES).map(|_| net.call_for(BATCH)));
    let bytes_each = if idle > 0 { grown as f64 / idle as f64 } else { 0.0 };
    Beside { connections: idle + AT_ONCE, calls_per_second, bytes_each }
}

struct Side {
    rx: Endpoint,
    pool: Pool,
    local: LocalId,
    inbox: Vec<(SocketAddr, Mbuf)>,
}

impl Side {
    fn new(addr: SocketAddr, config: EndpointConfig, seed: u64) -> Side {
        let pool =
            PoolConfig { hugepages: Hugepages::Never, ..PoolConfig::new(format!("side {seed}"), 16_384) };
        let pool = pool.build().expect("memory").claim();
        let mut rx = Endpoint::new(config, seed);
        let local = rx.add_local(addr).expect("a free address");
        Side { rx, pool, local, inbox: Vec::with_capacity(4 * AT_ONCE) }
    }

    fn receive(&mut self, now: Instant) {
        for (from, packet) in self.inbox.drain(..) {
            match self.rx.input(now, &mut self.pool, self.local, from, packet) {
                // The clock is the machine's: where it takes a CPU away for long, packets are sent again.
                Ok(()) | Err(RxDrop::Duplicate | RxDrop::OldAck) => {}
                Err(reason) => panic!("a packet of ours: {reason}"),
            }
        }
        self.rx.expire(now);
    }
}

struct Net {
    client: Side,
    server: Side,
    /// What is added to the clock: idle connections are opened faster than time passes.
    ahead: Duration,
    in_flight: usize,
    next_bundle: u32,
    buffer: Box<[u8; 1500]>,
}

impl Net {
    fn new(idle: usize) -> Net {
        let conns_max = idle + 8 * AT_ONCE;
        let server = EndpointConfig {
            conns_max,
            peers_max: conns_max,
            service_conn_idle: LONG,
            ..EndpointConfig::default()
        };
        let client =
            EndpointConfig { client_conn_idle: LONG, nat_keep_alive: None, ..EndpointConfig::default() };
        let (client, mut server) = (Side::new(CLIENT, client, 1), Side::new(SERVER, server, 2));
        let service = ServiceConfig { backlog: 4 * AT_ONCE, ..ServiceConfig::new(SERVICE) };
        server.rx.listen(server.local, service).expect("a new service");
        Net {
            client,
            server,
            ahead: Duration::ZERO,
            in_flight: 0,
            next_bundle: 0,
            buffer: Box::new([0; 1500]),
        }
    }

    fn now(&self) -> Instant {
        Clock::now() + self.ahead
    }

    /// Connections that carry one call each, at once, and are forgotten by the client only.
    fn open_idle(&mut self, count: usize) {
        let now = self.now();
        for _ in 0..count {
            self.begin(now, CallOptions { exclusive: true, ..CallOptions::default() }, BUNDLES);
        }
        self.finish();
    }

    /// A bundle's four connections.
    fn open_active(&mut self, bundle: u32) {
        let now = self.now();
        (0..16).for_each(|_| self.begin(now, CallOptions::default(), bundle));
        self.finish();
    }

    /// Lets every call end, and the last ACKs of them come.
    fn finish(&mut self) {
        while self.in_flight > 0 {
            self.turn(self.now());
        }
        for time in [STEP, STEP, FORGOTTEN] {
            self.ahead += time;
            self.turn(self.now());
        }
        // A turn lets a bounded number of timers fire.
        while self.client.rx.conns().count() > 4 * BUNDLES as usize {
            self.turn(self.now());
        }
    }

    fn begin(&mut self, now: Instant, options: CallOptions, group: u32) {
        let target = Target { group, ..Target::new(SERVER, SERVICE) };
        let Side { rx, pool, local, .. } = &mut self.client;
        let call = rx.begin(now, *local, target, options).expect("a place");
        rx.send(now, pool, call, &PAYLOAD, false).expect("a new call");
        self.in_flight += 1;
    }

    /// Keeps the active connections busy for so long; calls a second.
    fn call_for(&mut self, time: Duration) -> f64 {
        let begun = self.now();
        let (mut now, mut done) = (begun, 0);
        while now - begun < time {
            while self.in_flight < IN_FLIGHT {
                self.begin(now, CallOptions::default(), self.next_bundle);
                self.next_bundle = (self.next_bundle + 1) % BUNDLES;
            }
            done += self.turn(now);
            now = self.now();
        }
        done as f64 / (now - begun).as_secs_f64()
    }

    /// Packets there, packets back, and what they bring about. How many calls ended.
    fn turn(&mut self, now: Instant) -> usize {
        let Net { client, server, .. } = self;
        client.rx.transmit(now, &mut client.pool, &mut |_, _, _, packet| {
            server.inbox.push((source(&packet), packet));
            true
        });
        server.receive(now);
        self.serve(now);
        let Net { client, server, .. } = self;
        server.rx.transmit(now, &mut server.pool, &mut |_, _, _, packet| {
            client.inbox.push((SERVER, packet));
            true
        });
        client.receive(now);
        let ended = self.end_calls(now);
        self.in_flight -= ended;
        ended
    }

    /// Answers each request once it is read.
    fn serve(&mut self, now: Instant) {
        let Net { server: Side { rx, pool, .. }, buffer, .. } = self;
        while let Some(event) = rx.poll_event() {
            if let Event::Complete { call, completion } = event {
                assert_eq!(completion, Completion::Succeeded);
                rx.release(now, call);
            } else if let Event::Readable { call } = event
                && rx.recv(now, call, &mut **buffer).is_ok_and(|got| !got.more)
            {
                rx.send(now, pool, call, &PAYLOAD, false).expect("a call");
            }
        }
    }

    fn end_calls(&mut self, now: Instant) -> usize {
        let mut ended = 0;
        let Net { client, buffer, .. } = self;
        while let Some(event) = client.rx.poll_event() {
            if let Event::Complete { call, completion } = event {
                assert_eq!(completion, Completion::Succeeded);
                let got = client.rx.recv(now, call, &mut **buffer).expect("a reply");
                assert!(!got.more && buffer[..got.bytes] == PAYLOAD, "a wrong reply");
                client.rx.release(now, call);
                ended += 1;
            }
        }
        ended
    }
}

/// Where the server sees a packet come from: each connection of the client's has an address of its own, made of its id without the
/// channel. Ids are given out in turn, so no two of 2^24 in a row share one.
fn source(packet: &Mbuf) -> SocketAddr {
    let cid = packet.data()[4..8].try_into().map(u32::from_be_bytes).expect("an Rx header");
    SocketAddr::from((Ipv4Addr::from(0x0a00_0000 | (cid >> 2) & 0x00ff_ffff), 7001))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_connections_stay_and_active_ones_still_call() {
        let cpu = core_affinity::get_core_ids().unwrap()[0].id;
        let Beside { connections, calls_per_second, bytes_each } = idle(20_000, cpu);
        assert_eq!(connections, 20_000 + AT_ONCE);
        assert!(calls_per_second > 0.0);
        // Other tests share the process and its memory, which may have shrunk meanwhile: `tests/memory.rs` asks for more.
        assert!(bytes_each < 20_000.0, "{bytes_each} bytes each");
    }
}
