//! The test bed: endpoints in virtual time on a seeded wire that loses, duplicates, reorders, delays and corrupts.
//!
//! Time jumps from one event to the next, so that a test of hours takes milliseconds and the same seed always gives the
//! same run. A failure prints the seed.
#![allow(dead_code)]

pub mod solo;

use pmd::{Hugepages, Instant, Pool, PoolConfig};
use rxrpc::{Endpoint, EndpointConfig, LocalId, RxDrop};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::SocketAddr;
use std::time::Duration;

/// What the wire does to datagrams. Probabilities from 0 to 1.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    pub loss: f64,
    pub duplication: f64,
    /// Datagrams that take up to four delays longer.
    pub reorder: f64,
    /// Flips a bit; the wire's checksum catches that, as UDP's does.
    pub corruption: f64,
    pub delay: Duration,
    pub jitter: Duration,
}

impl Faults {
    /// A wire of so many microseconds without faults.
    pub fn none(delay_us: u64) -> Self {
        Self { delay: Duration::from_micros(delay_us), ..Self::default() }
    }
}

/// The narrowest link on the way to a node, with the queue in front of it. What finds the queue full is lost.
#[derive(Clone, Copy, Debug)]
pub struct Bottleneck {
    pub bytes_per_second: u64,
    /// Bytes that may wait in front of the link.
    pub queue_max: u64,
}

impl Bottleneck {
    /// What so many bytes take to pass.
    pub fn nanos(&self, bytes: u64) -> u64 {
        bytes * 1_000_000_000 / self.bytes_per_second
    }

    /// When a packet that comes now has passed the link. `None`: the queue is full. `free_at` is when the link has
    /// passed everything before it.
    fn pass(&self, now: u64, free_at: &mut u64, bytes: usize) -> Option<u64> {
        let begins = now.max(*free_at);
        if begins - now > self.nanos(self.queue_max) {
            return None;
        }
        // What UDP, IPv4 and Ethernet add.
        *free_at = begins + self.nanos(bytes as u64 + 46);
        Some(*free_at)
    }
}

/// One endpoint with its address and pool.
pub struct Node {
    pub rx: Endpoint,
    pub pool: Pool,
    pub addr: SocketAddr,
    pub local: LocalId,
    /// Datagrams given to the wire, and what `input` said of those received.
    pub sent: u64,
    pub results: Vec<(RxDrop, u64)>,
    /// Closed: what arrives is thrown away unseen.
    pub deaf: bool,
    /// When the bottleneck in front of it has passed everything.
    link_free_at: u64,
}

impl Node {
    pub fn new(index: usize, config: EndpointConfig, seed: u64, buffers: usize) -> Self {
        let pool =
            PoolConfig { hugepages: Hugepages::Never, ..PoolConfig::new(format!("node{index}"), buffers) };
        let mut rx = Endpoint::new(config, seed);
        let addr = SocketAddr::from(([10, 0, 0, index as u8 + 1], 7000 + index as u16));
        let local = rx.add_local(addr).unwrap();
        let pool = pool.build().unwrap().claim();
        Self { rx, pool, addr, local, sent: 0, results: Vec::new(), deaf: false, link_free_at: 0 }
    }
}

impl Node {
    /// Offers a service.
    pub fn listen(&mut self, service: rxrpc::ServiceConfig) {
        self.rx.listen(self.local, service).unwrap();
    }
}

type Flight = (Reverse<(u64, u64)>, usize, SocketAddr, Vec<u8>);

/// Takes the sending node and the datagram.
pub type Tap = Box<dyn FnMut(usize, &[u8]) -> bool>;

/// The nodes and the wire between them.
pub struct Net {
    pub now: Instant,
    pub nodes: Vec<Node>,
    pub faults: Faults,
    /// Larger datagrams vanish without a word.
    pub mtu: usize,
    /// One for each node: what is sent to it shares the link, whoever sent it.
    pub bottleneck: Option<Bottleneck>,
    pub random: fastrand::Rng,
    flights: BinaryHeap<Flight>,
    order: u64,
    scratch: Vec<u8>,
    /// Sees every datagram before the faults do; false drops it.
    pub tap: Option<Tap>,
}

impl Net {
    pub fn new(seed: u64, faults: Faults, configs: Vec<EndpointConfig>, buffers: usize) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let nodes = configs
            .into_iter()
            .enumerate()
            .map(|(index, config)| Node::new(index, config, random.u64(..), buffers))
            .collect();
        let now = Instant::from_nanos(1_000_000_000);
        let (flights, scratch) = (BinaryHeap::new(), vec![0; 65_536]);
        Self {
            now,
            nodes,
            faults,
            mtu: usize::MAX,
            bottleneck: None,
            random,
            flights,
            order: 0,
            scratch,
            tap: None,
        }
    }

    /// Takes what all nodes have to send onto the wire.
    pub fn transmit(&mut self) {
        let nodes = self.nodes.len();
        // All wheels tick together; nobody shall always be the first at the bottleneck.
        let first = if self.bottleneck.is_some() { self.random.usize(..nodes) } else { 0 };
        for index in (first..nodes).chain(0..first) {
            let mut out = Vec::new();
            let node = &mut self.nodes[index];
            let data = &mut self.scratch;
            node.rx.transmit(self.now, &mut node.pool, &mut |_, _, to, packet| {
                let len = packet.copy_to(0, data);
                out.push((to, data[..len].to_vec()));
                true
            });
            node.sent += out.len() as u64;
            let from = node.addr;
            for (to, bytes) in out {
                self.fly(index, from, to, bytes);
            }
        }
    }

    fn chance(&mut self, p: f64) -> bool {
        p > 0.0 && self.random.f64() < p
    }

    /// Puts one datagram onto the wire.
    pub fn fly(&mut self, index: usize, from: SocketAddr, to: SocketAddr, bytes: Vec<u8>) {
        if let Some(tap) = &mut self.tap
            && !tap(index, &bytes)
        {
            return;
        }
        let Some(target) = self.nodes.iter().position(|node| node.addr == to) else { return };
        if bytes.len() > self.mtu {
            return;
        }
        let Faults { loss, duplication, reorder, corruption, delay, jitter } = self.faults;
        let copies = 1 + usize::from(self.chance(duplication));
        for _ in 0..copies {
            if self.chance(loss) || self.chance(corruption) {
                continue;
            }
            let mut after = delay + jitter.mul_f64(self.random.f64());
            if self.chance(reorder) {
                after += (delay + jitter).mul_f64(4.0 * self.random.f64());
            }
            let now = self.now.as_nanos();
            let free_at = &mut self.nodes[target].link_free_at;
            let passed = self.bottleneck.map_or(Some(now), |link| link.pass(now, free_at, bytes.len()));
            let Some(passed) = passed else { continue };
            self.order += 1;
            let at = passed + after.as_nanos() as u64;
            self.flights.push((Reverse((at, self.order)), target, from, bytes.clone()));
        }
    }

    /// When something happens next.
    pub fn next(&self) -> Option<Instant> {
        let arrival = self.flights.peek().map(|flight| Instant::from_nanos(flight.0.0.0));
        self.nodes.iter().filter_map(|node| node.rx.next_timeout()).chain(arrival).min()
    }

    /// Sends what there is to send, moves on to the next event, delivers and expires. False: nothing will ever happen.
    pub fn step(&mut self) -> bool {
        self.transmit();
        let Some(next) = self.next() else { return false };
        self.now = self.now.max(next);
        self.deliver();
        for node in &mut self.nodes {
            node.rx.expire(self.now);
        }
        true
    }

    /// The same, but no further than `limit`. False: nothing happens before then.
    pub fn step_until(&mut self, limit: Instant) -> bool {
        self.transmit();
        if self.next().is_some_and(|next| next <= limit) {
            return self.step();
        }
        self.now = self.now.max(limit);
        false
    }

    fn deliver(&mut self) {
        while self.flights.peek().is_some_and(|flight| flight.0.0.0 <= self.now.as_nanos()) {
            let (_, target, from, bytes) = self.flights.pop().unwrap();
            let node = &mut self.nodes[target];
            if node.deaf {
                continue;
            }
            let Some(packet) = node.pool.copy_from(&bytes) else { continue };
            if let Err(reason) = node.rx.input(self.now, &mut node.pool, node.local, from, packet) {
                match node.results.iter_mut().find(|(seen, _)| *seen == reason) {
                    Some((_, count)) => *count += 1,
                    None => node.results.push((reason, 1)),
                }
            }
        }
    }

    /// Runs for so long, with nobody at the users' side.
    pub fn run_for(&mut self, duration: Duration) {
        let end = self.now + duration;
        for _ in 0..1_000_000 {
            self.transmit();
            match self.next() {
                Some(next) if next <= end => {
                    self.step();
                }
                _ => {
                    self.now = end;
                    return;
                }
            }
        }
        panic!("a million events and no end");
    }

    /// Asserts that nothing is left: no call, no buffer, no packet unaccounted for.
    pub fn assert_clean(&mut self) {
        self.transmit();
        for (index, node) in self.nodes.iter_mut().enumerate() {
            assert!(node.rx.is_idle(), "node {index} is not idle: {:?}", node.rx.calls().collect::<Vec<_>>());
            assert_eq!(node.pool.available(), node.pool.capacity(), "node {index} leaks buffers");
            assert!(node.rx.stats().ledger_closes(), "node {index}: {:?}", node.rx.stats());
        }
    }

    /// Lets all connections grow old, and asserts that they went.
    pub fn assert_reaped(&mut self) {
        self.run_for(Duration::from_secs(1_300));
        for node in &self.nodes {
            assert_eq!(node.rx.conns().count(), 0);
            assert_eq!(node.rx.peers().count(), 0);
            assert_eq!(node.rx.next_timeout(), None, "a timer is left");
        }
    }
}

/// Prints how to run a failing seed again. `test` is the test's target and, where that has several, its filter.
pub struct Rerun {
    pub test: &'static str,
    pub seed: u64,
}

impl Drop for Rerun {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("rerun: RXLINE_SEED={} cargo test -p rxrpc --test {}", self.seed, self.test);
        }
    }
}

/// The seeds to run: the one asked for, or this range.
pub fn seeds(range: std::ops::Range<u64>) -> std::ops::Range<u64> {
    match std::env::var("RXLINE_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => seed..seed + 1,
        None => range,
    }
}

/// The byte at an offset of a stream: every stream and every offset has its own.
pub fn pattern(stream: u64, offset: usize) -> u8 {
    let word = (stream << 40 ^ (offset as u64 >> 3)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (word >> (8 * (offset & 7)) ^ word >> 29) as u8
}

/// A stretch of a stream.
pub fn stretch(stream: u64, from: usize, len: usize) -> Vec<u8> {
    (from..from + len).map(|offset| pattern(stream, offset)).collect()
}
