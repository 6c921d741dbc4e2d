//! One long transfer between two endpoints in one thread, without an engine: what a full DATA packet costs the protocol core.
//!
//! `cargo run --release -p rxrpc --example bulk_in_memory [MEGABYTES] [none|clear|auth|encrypt]` prints megabytes per second. One
//! thread does both sides, so a core that serves one side only does more.

use pmd::{Clock, Hugepages, Instant, Mbuf, Pool, PoolConfig};
use rxrpc::security::DesKey;
use rxrpc::{
    CallOptions, Credentials, Endpoint, EndpointConfig, Event, Level, LocalId, Security, ServerKeys,
    ServiceConfig, Target,
};
use std::error::Error;
use std::net::SocketAddr;

const SERVICE: u16 = 1;

struct Side {
    rx: Endpoint,
    pool: Pool,
    local: LocalId,
    addr: SocketAddr,
    inbox: Vec<Mbuf>,
}

impl Side {
    fn new(index: u8) -> Result<Self, Box<dyn Error>> {
        let pool = PoolConfig { hugepages: Hugepages::Try, ..PoolConfig::new(format!("side{index}"), 4_096) };
        let config = EndpointConfig { jumbo_send_max: 1, ..EndpointConfig::default() };
        let mut rx = Endpoint::new(config, u64::from(index));
        let addr = SocketAddr::from(([10, 0, 0, index], 7000));
        let local = rx.add_local(addr)?;
        Ok(Self { rx, pool: pool.build()?.claim(), local, addr, inbox: Vec::with_capacity(1_024) })
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

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let megabytes: usize = args.next().as_deref().unwrap_or("1000").parse()?;
    let level =
        args.next().filter(|level| level != "none").map(|level| level.parse::<Level>()).transpose()?;
    let keys = ServerKeys::new().with_des(1, DesKey::random()?);
    let security = level.map_or_else(Security::none, |_| Security::rxkad(keys.clone()));
    let credentials = level.map(|level| Credentials::local(&keys, level)).transpose()?;

    let (mut client, mut server) = (Side::new(1)?, Side::new(2)?);
    server.rx.listen(server.local, ServiceConfig { security, ..ServiceConfig::new(SERVICE) })?;
    let (data, mut buffer) = (vec![1; 64 << 10], vec![0; 64 << 10]);
    let start = Clock::now();
    let target = Target::new(server.addr, SERVICE);
    let options = CallOptions { credentials, ..CallOptions::default() };
    let call = client.rx.begin(start, client.local, target, options)?;
    let (total, mut sent, mut received) = (megabytes * 1_000_000, 0, 0);
    while received < total {
        let now = Clock::now();
        if sent < total {
            let len = data.len().min(total - sent);
            sent += client.rx.send(now, &mut client.pool, call, &data[..len], len < total - sent)?;
        }
        client.transmit(now, &mut server.inbox);
        server.receive(now, client.addr);
        while let Some(event) = server.rx.poll_event() {
            match event {
                Event::Readable { call } => {
                    while let Ok(got) = server.rx.recv(now, call, &mut buffer)
                        && got.bytes > 0
                    {
                        received += got.bytes;
                    }
                }
                Event::Complete { completion, .. } => return Err(completion.to_string().into()),
                _ => {}
            }
        }
        server.transmit(now, &mut client.inbox);
        client.receive(now, server.addr);
        while let Some(event) = client.rx.poll_event() {
            if let Event::Complete { completion, .. } = event {
                return Err(completion.to_string().into());
            }
        }
    }
    let seconds = (Clock::now() - start).as_secs_f64();
    let packets = client.rx.stats().data_sent as f64;
    println!(
        "{:.0} MB/s, {:.0} ns a packet, {:.3} ACKs a packet, {} sent again",
        total as f64 / 1e6 / seconds,
        seconds * 1e9 / packets,
        server.rx.stats().sent[2] as f64 / packets,
        client.rx.stats().data_resent
    );
    Ok(())
}
