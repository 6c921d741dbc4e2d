//! Small calls between two endpoints in one thread, without an engine: what the protocol core alone costs.
//!
//! `cargo run --release -p rxrpc --example calls_in_memory [CALLS] [BYTES]` prints calls per second; each call is 64 bytes
//! (or BYTES) each way, 16 at a time. One thread does both sides, so a core that serves one side only does more.

use pmd::{Clock, Hugepages, Instant, Mbuf, Pool, PoolConfig};
use rxrpc::{CallOptions, Endpoint, EndpointConfig, Event, LocalId, ServiceConfig, Target};
use std::net::SocketAddr;

struct Side {
    rx: Endpoint,
    pool: Pool,
    local: LocalId,
    addr: SocketAddr,
    inbox: Vec<Mbuf>,
}

impl Side {
    fn new(index: u8) -> Self {
        let pool = PoolConfig { hugepages: Hugepages::Try, ..PoolConfig::new(format!("side{index}"), 4_096) };
        let mut rx = Endpoint::new(EndpointConfig::default(), u64::from(index));
        let addr = SocketAddr::from(([10, 0, 0, index], 7000));
        let local = rx.add_local(addr).expect("a free address");
        let pool = pool.build().expect("memory").claim();
        Self { rx, pool, local, addr, inbox: Vec::with_capacity(1_024) }
    }

    fn transmit(&mut self, now: Instant, to: &mut Vec<Mbuf>) {
        self.rx.transmit(now, &mut self.pool, &mut |_, _, _, packet| {
            to.push(packet);
            to.len() < 512
        });
    }

    fn receive(&mut self, now: Instant, from: SocketAddr) {
        for packet in self.inbox.drain(..) {
            let _ = self.rx.input(now, &mut self.pool, self.local, from, packet);
        }
        self.rx.expire(now);
    }
}

fn main() {
    let mut args = std::env::args().skip(1).map(|arg| arg.parse().expect("a number"));
    let (calls, bytes) = (args.next().unwrap_or(2_000_000_usize), args.next().unwrap_or(64_usize));
    let (mut client, mut server) = (Side::new(1), Side::new(2));
    server
        .rx
        .listen(server.local, ServiceConfig { backlog: 64, ..ServiceConfig::new(1) })
        .expect("a new service");
    let (request, mut buffer) = (vec![1; bytes], vec![0; bytes.max(1_500)]);
    let (mut begun, mut done) = (0, 0);
    let start = Clock::now();
    while done < calls {
        let now = Clock::now();
        while begun < calls && begun - done < 16 {
            let target = Target::new(server.addr, 1);
            let call = client.rx.begin(now, client.local, target, CallOptions::default()).expect("a place");
            client.rx.send(now, &mut client.pool, call, &request, false).expect("a new call");
            begun += 1;
        }
        client.transmit(now, &mut server.inbox);
        server.receive(now, client.addr);
        while let Some(event) = server.rx.poll_event() {
            match event {
                Event::Readable { call } => {
                    let got = server.rx.recv(now, call, &mut buffer).expect("a call");
                    if !got.more {
                        server.rx.send(now, &mut server.pool, call, &request, false).expect("a call");
                    }
                }
                Event::Complete { call, .. } => {
                    server.rx.release(now, call);
                }
                _ => {}
            }
        }
        server.transmit(now, &mut client.inbox);
        client.receive(now, server.addr);
        while let Some(event) = client.rx.poll_event() {
            if let Event::Complete { call, completion } = event {
                let got = client.rx.recv(now, call, &mut buffer).expect("a reply");
                assert!(!got.more && got.bytes == bytes, "{completion}");
                client.rx.release(now, call);
                done += 1;
            }
        }
    }
    let seconds = (Clock::now() - start).as_secs_f64();
    println!("{:.0} calls/s, {:.0} ns a call", calls as f64 / seconds, seconds * 1e9 / calls as f64);
}
