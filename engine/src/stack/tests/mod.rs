//! Tests of the stack through its public face: two stacks on a wire in virtual time, frames built by hand, noise.

mod build;
mod fragments;
mod frames;
mod neighbours;
mod noise;
mod pair;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;
use pmd::{Instant, MacAddr, Mbuf, Pool, PoolConfig};

use super::*;
use crate::stats::{Drop, DropCounts};

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn mac(n: u8) -> MacAddr {
    MacAddr([2, 0, 0, 0, 0, n])
}

fn ms(n: u64) -> Instant {
    Instant::from_nanos(n * 1_000_000)
}

fn pool(buffers: usize) -> Pool {
    PoolConfig::new("test", buffers).build().unwrap().claim()
}

fn bytes_of(mbuf: &Mbuf) -> Vec<u8> {
    mbuf.segments().flatten().copied().collect()
}

/// Bytes that differ from their neighbours and from other seeds'.
fn pattern(len: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|i| (i as u8).wrapping_mul(31) ^ (i >> 8) as u8 ^ seed).collect()
}

/// Host number `n` of a small network with both IP versions.
fn host_config(n: u8, mtu: usize) -> StackConfig {
    let addresses = vec![net(&format!("192.0.2.{n}/24")), net(&format!("2001:db8::{n}/64"))];
    StackConfig { seed: u64::from(n), ..StackConfig::new(vec![PortConfig::new(mac(n), mtu, addresses)]) }
}

/// One host: a stack, its pool, and everything that came out of it.
struct Host {
    stack: Stack,
    pool: Pool,
    out: Outbox,
    now: Instant,
    datagrams: Vec<(SocketAddr, SocketAddr, Vec<u8>)>,
    unreachable: Vec<Unreachable>,
    received: u64,
    delivered: u64,
    consumed: u64,
    drops: DropCounts,
    tx_drops: DropCounts,
}

impl Host {
    fn new(config: StackConfig) -> Host {
        let ports = config.ports.len();
        Host {
            stack: Stack::new(config).unwrap(),
            pool: pool(4096),
            out: Outbox::new(ports, 4096),
            now: Instant::ZERO,
            datagrams: Vec::new(),
            unreachable: Vec::new(),
            received: 0,
            delivered: 0,
            consumed: 0,
            drops: DropCounts::default(),
            tx_drops: DropCounts::default(),
        }
    }

    fn send(&mut self, from: &str, to: &str, payload: &[u8]) -> Result<(), Drop> {
        let payload = self.pool.copy_from(payload).expect("the pool has room");
        self.stack.send(self.now, addr(from), addr(to), payload, &mut self.pool, &mut self.out)
    }

    /// Receives a frame and returns the name of its verdict.
    fn receive(&mut self, frame: &[u8]) -> &'static str {
        let frame = self.pool.copy_from(frame).expect("the pool has room");
        self.receive_mbuf(frame)
    }

    /// Receives a frame whose verdict does not matter.
    fn take(&mut self, frame: &[u8]) {
        self.receive(frame);
    }

    fn receive_mbuf(&mut self, frame: Mbuf) -> &'static str {
        self.received += 1;
        let verdict = match self.stack.demux(self.now, 0, frame, &mut self.pool, &mut self.out) {
            Verdict::Datagram(datagram) => {
                self.delivered += 1;
                self.datagrams.push((datagram.local, datagram.peer, bytes_of(&datagram.payload)));
                "datagram"
            }
            Verdict::Consumed => {
                self.consumed += 1;
                "consumed"
            }
            Verdict::Held => "held",
            Verdict::Unreachable(notice) => {
                self.consumed += 1;
                self.unreachable.push(notice);
                "unreachable"
            }
            Verdict::Drop(reason, frame) => {
                drop(frame);
                self.drops.add(reason, 1);
                reason.name()
            }
        };
        self.collect();
        verdict
    }

    fn collect(&mut self) {
        if let Some(tally) = self.out.take_tally() {
            self.consumed += tally.consumed;
            self.drops.merge(&tally.rx);
            self.tx_drops.merge(&tally.tx);
        }
        while let Some(notice) = self.out.pop_unreachable() {
            self.unreachable.push(notice);
        }
        while let Some(datagram) = self.out.pop_loopback() {
            self.datagrams.push((datagram.local, datagram.peer, bytes_of(&datagram.payload)));
        }
    }

    fn expire(&mut self, now: Instant) {
        self.now = now;
        self.stack.expire(now, &mut self.pool, &mut self.out);
        self.collect();
    }

    /// The frames that wait for the device, and no more.
    fn frames(&mut self) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        while let Some(frame) = self.out.frames(0).pop_front() {
            frames.push(bytes_of(&frame));
        }
        frames
    }

    #[track_caller]
    fn assert_ledger_closes(&self) {
        let settled = self.delivered + self.consumed + self.drops.total() + self.stack.held() as u64;
        assert_eq!(self.received, settled, "drops: {:?}", self.drops.iter().collect::<Vec<_>>());
    }

    /// Shuts down: every buffer must come back and the ledger close without anything held.
    #[track_caller]
    fn finish(mut self) {
        self.stack.clear(&mut self.out);
        self.collect();
        assert_eq!(self.stack.held(), 0);
        self.assert_ledger_closes();
        drop(self.out);
        assert_eq!(self.pool.available(), self.pool.capacity(), "buffers leaked");
    }
}

/// Two hosts, 192.0.2.1 and 192.0.2.2, on one wire.
struct Pair {
    a: Host,
    b: Host,
}

impl Pair {
    fn new(mtu: usize) -> Pair {
        Pair { a: Host::new(host_config(1, mtu)), b: Host::new(host_config(2, mtu)) }
    }

    /// Carries frames both ways until the wire is quiet; `pass` says which are not lost.
    fn settle(&mut self, pass: &mut dyn FnMut(&[u8]) -> bool) {
        for _ in 0..1000 {
            let (from_a, from_b) = (self.a.frames(), self.b.frames());
            if from_a.is_empty() && from_b.is_empty() {
                return;
            }
            from_a.iter().filter(|frame| pass(frame)).for_each(|frame| self.b.take(frame));
            from_b.iter().filter(|frame| pass(frame)).for_each(|frame| self.a.take(frame));
        }
        panic!("the wire does not become quiet");
    }

    /// Lets time pass, with the timers at both ends.
    fn run(&mut self, time: Duration, pass: &mut dyn FnMut(&[u8]) -> bool) {
        let end = self.a.now + time;
        self.settle(pass);
        while let Some(next) = [&self.a, &self.b].iter().filter_map(|h| h.stack.next_timeout()).min() {
            if next > end {
                break;
            }
            let next = next.max(self.a.now);
            self.a.expire(next);
            self.b.expire(next);
            self.settle(pass);
        }
        (self.a.now, self.b.now) = (end, end);
    }
}
