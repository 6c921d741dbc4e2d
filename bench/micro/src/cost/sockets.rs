//! UDP echoes between two engines over `memory:`, through sockets drawn at random among many.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use engine::{Cx, Datagram, Engine, Handler, Idle, Outcome, Socket, SocketHandle};

use super::{Cost, count_one, resident, watch};

/// Datagrams in flight: several bursts, so that neither core waits for the other.
const IN_FLIGHT: usize = 256;
const PAYLOAD: usize = 64;
const CLIENT: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 1, 0, 1), 40_000);
/// The server's addresses: 64 of them have ports for four million sockets.
const LOCALS: u32 = 64;

/// Where the `n`th socket is bound.
fn address(n: u32) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, (n % LOCALS) as u8 + 1], (n / LOCALS) as u16 + 1))
}

/// Binds so many and measures echoes through them.
pub fn sockets(count: u32, server_cpu: usize, client_cpu: usize, seconds: f64) -> Cost {
    let mut builder = Engine::builder().port("memory:cost-sockets").sockets_max(count as usize + 1024);
    for n in 0..LOCALS {
        builder = builder.address(format!("10.0.0.{}/8", n + 1));
    }
    let server = builder.cores([server_cpu]).idle(Idle::Spin).start_with(|_| Echo).expect("an engine");
    let before_bytes = resident();
    let bound: Vec<SocketHandle> =
        (0..count).map(|n| server.bind(address(n), 0).expect("a free address")).collect();
    let done = Arc::<AtomicU64>::default();
    let of_core = done.clone();
    let client = Engine::builder()
        .port("memory:cost-sockets")
        .address(format!("{}/8", CLIENT.ip()))
        .cores([client_cpu])
        .idle(Idle::Spin)
        .start_with(move |_| Asker {
            sockets: count,
            done: of_core.clone(),
            asked: 0,
            in_flight: 0,
            running: false,
            random: fastrand::Rng::with_seed(7),
        })
        .expect("an engine");
    let port = client.bind(CLIENT.into(), 0).expect("a free port");
    assert!(client.commands(0).send(true).is_ok(), "the client has stopped");
    let cost = watch(|| done.load(Ordering::Relaxed), seconds, before_bytes);
    assert!(client.commands(0).send(false).is_ok(), "the client has stopped");
    drop(port);
    for report in [client.shutdown().panics, server.shutdown().panics] {
        assert_eq!(report, [], "a wrong echo");
    }
    drop(bound);
    cost
}

/// Sends every datagram back.
struct Echo;

impl Handler for Echo {
    type Command = ();

    fn input(&mut self, cx: &mut Cx<'_>, _: &Socket, datagram: Datagram) -> Outcome {
        match cx.send(datagram.local, datagram.peer, datagram.payload) {
            Ok(()) => Outcome::Delivered,
            Err(reason) => Outcome::Dropped(reason),
        }
    }

    fn command(&mut self, _: &mut Cx<'_>, (): ()) {}
}

/// Keeps so many in flight. Each carries the number of the socket that it is for.
struct Asker {
    sockets: u32,
    done: Arc<AtomicU64>,
    /// Datagrams so far. The first go one at a time, one to each address: what waits for a neighbour's answer is little, and none is lost.
    asked: u32,
    in_flight: usize,
    running: bool,
    random: fastrand::Rng,
}

impl Handler for Asker {
    /// Whether to ask.
    type Command = bool;

    fn input(&mut self, _: &mut Cx<'_>, _: &Socket, datagram: Datagram) -> Outcome {
        let data = datagram.payload.data();
        let number = data.first_chunk().map(|bytes| u32::from_le_bytes(*bytes));
        assert_eq!(number.map(address), Some(datagram.peer), "an echo from another socket");
        assert!(data.len() == PAYLOAD && data[4..].iter().all(|byte| *byte == 7), "a wrong echo");
        self.in_flight = self.in_flight.saturating_sub(1);
        count_one(&self.done);
        Outcome::Delivered
    }

    fn command(&mut self, _: &mut Cx<'_>, running: bool) {
        self.running = running;
    }

    fn transmit(&mut self, cx: &mut Cx<'_>) {
        let mut payload = [7; PAYLOAD];
        let first = self.asked < LOCALS.min(self.sockets);
        let most = if first { 1 } else { IN_FLIGHT };
        while self.running && self.in_flight < most {
            let number = if first { self.asked } else { self.random.u32(..self.sockets) };
            payload[..4].copy_from_slice(&number.to_le_bytes());
            let Some(mbuf) = cx.pool.copy_from(&payload) else { return };
            if cx.send(CLIENT.into(), address(number), mbuf).is_err() {
                return;
            }
            self.asked = self.asked.saturating_add(1);
            self.in_flight += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_echo_is_from_the_socket_that_was_asked() {
        let cpu = core_affinity::get_core_ids().unwrap()[0].id;
        let cost = sockets(5000, cpu, cpu, 0.1);
        assert!(cost.per_second > 0.0);
    }
}
