//! How much a core sends between two looks at what came in.

use std::net::SocketAddr;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use rxrpc::engine::{BURST, Engine};
use rxrpc::{
    App, BURSTS_PER_TURN, CallOptions, EndpointConfig, Event, LocalId, Rx, RxControl, RxHandler,
    ServiceConfig, Target,
};

const SERVICES: u16 = 8;
/// What a bundle has room for: none of them waits in line.
const CALLS_EACH: usize = 16;
const REQUEST: usize = 20_000;
const BUFFERS: usize = 16_384;

/// Begins all its calls in one turn, and tells how many packets it had sent whenever that is another number.
struct Flood {
    sent: u64,
    told: Sender<u64>,
}

impl App for Flood {
    type Command = SocketAddr;

    fn event(&mut self, rx: &mut Rx<'_>, event: Event) {
        if let Event::Complete { call, .. } = event {
            rx.endpoint.release(rx.now, call);
        }
    }

    fn command(&mut self, rx: &mut Rx<'_>, server: SocketAddr) {
        let local = rx.client_local(server).unwrap();
        for service in 1..=SERVICES {
            for _ in 0..CALLS_EACH {
                let target = Target::new(server, service);
                let call = rx.endpoint.begin(rx.now, local, target, CallOptions::default()).unwrap();
                assert_eq!(rx.endpoint.send(rx.now, rx.pool, call, &[7; REQUEST], false), Ok(REQUEST));
            }
        }
    }

    fn expire(&mut self, rx: &mut Rx<'_>) {
        let sent = rx.endpoint.stats().sent.iter().sum();
        if sent != self.sent {
            self.sent = sent;
            let _ = self.told.send(sent);
        }
    }
}

/// Takes every request and answers none.
struct Sink;

impl App for Sink {
    type Command = ();

    fn opened(&mut self, rx: &mut Rx<'_>, local: LocalId, _: SocketAddr) {
        for service in 1..=SERVICES {
            let config = ServiceConfig { backlog: 32, ..ServiceConfig::new(service) };
            rx.endpoint.listen(local, config).unwrap();
        }
    }

    fn event(&mut self, rx: &mut Rx<'_>, event: Event) {
        let (Event::Incoming { call, .. } | Event::Readable { call }) = event else { return };
        while let Ok(Some(_)) = rx.endpoint.recv_mbuf(rx.now, call) {}
    }

    fn command(&mut self, _: &mut Rx<'_>, (): ()) {}
}

#[test]
fn a_core_that_could_send_thousands_looks_at_what_came_in_meanwhile() {
    let server: SocketAddr = "192.0.2.10:7009".parse().unwrap();
    let engine = |address: &str| {
        Engine::builder().port("memory:turns").address(address).core_count(1).pool_buffers(BUFFERS)
    };
    let sink = engine("192.0.2.10/24")
        .start_with(|core| RxHandler::new(EndpointConfig::for_pool(BUFFERS), core.seed, Sink))
        .unwrap();
    let _open = sink.open(server).unwrap();
    let (told, sent) = channel();
    let flood = engine("192.0.2.20/24")
        .start_with(move |core| {
            RxHandler::new(
                EndpointConfig::for_pool(BUFFERS),
                core.seed,
                Flood { sent: 0, told: told.clone() },
            )
        })
        .unwrap();
    let _ports = flood.open_clients().unwrap();
    assert!(flood.tell(0, server).is_ok());
    // The windows that calls begin with let more than this out at once.
    let at_once = 2 * BURSTS_PER_TURN * BURST;
    let mut before = 0;
    while before < at_once as u64 {
        let now = sent.recv_timeout(Duration::from_secs(20)).expect("it sends");
        assert!(now - before <= (BURSTS_PER_TURN * BURST) as u64, "{} packets in one turn", now - before);
        before = now;
    }
}
