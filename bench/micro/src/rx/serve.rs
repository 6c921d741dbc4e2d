//! Rx calls on one serving core: a service that answers on its core, and on another CPU the client that keeps it busy. Two engines joined
//! by `memory:`, each as any program has them: [`RxHandler`] with an [`App`] inline.
//!
//! Deliberately absent: threads, wake-ups and payload worth looking at; each reply's bytes are compared all the same.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use engine::{Engine, Idle};
use rxrpc::{
    App, CallId, CallOptions, Completion, EndpointConfig, Event, LocalId, Rx, RxControl, RxHandler,
    ServiceConfig, Target,
};
use serde::Serialize;

use crate::measure::median;

const SERVER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 7001);
const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const SERVICE: u16 = 1;
const PAYLOAD: [u8; 64] = [7; 64];
/// Calls that the client keeps in flight, four to a connection: several bursts, so that neither core waits for the other.
const IN_FLIGHT: usize = 128;
const WARM_UP: Duration = Duration::from_millis(300);
const BATCH: Duration = Duration::from_millis(100);
const BATCHES: usize = 9;

/// What a run comes to: the median batch.
#[derive(Serialize)]
pub struct Served {
    /// Calls that ended well, a second.
    calls_per_second: f64,
}

/// Serves calls on one CPU, and makes them on another.
pub fn serve(server_cpu: usize, client_cpu: usize) -> Served {
    let server = engine(*SERVER.ip(), server_cpu, || Echo { buffer: Box::new([0; 1500]) });
    let done = Arc::<AtomicU64>::default();
    let of_core = done.clone();
    let client =
        engine(CLIENT, client_cpu, move || Caller { done: of_core.clone(), buffer: Box::new([0; 1500]) });
    let listener = server.open(SERVER.into()).expect("a free port");
    let ports = client.open_clients().expect("a free port");
    assert!(client.tell(0, ()).is_ok(), "the client has stopped");
    thread::sleep(WARM_UP);
    let calls_per_second = median((0..BATCHES).map(|_| batch(&done)));
    // The client first: what it still asks of a port that is closed fails.
    drop(ports);
    let client = client.shutdown();
    drop(listener);
    for report in [client, server.shutdown()] {
        assert_eq!(report.panics, [], "a call failed");
    }
    Served { calls_per_second }
}

fn batch(done: &AtomicU64) -> f64 {
    let (before, begun) = (done.load(Ordering::Relaxed), Instant::now());
    thread::sleep(BATCH);
    let (after, took) = (done.load(Ordering::Relaxed), begun.elapsed());
    assert!(after > before, "no call ended");
    (after - before) as f64 / took.as_secs_f64()
}

fn engine<A: App + Send>(
    address: Ipv4Addr,
    cpu: usize,
    make: impl Fn() -> A + Send + Sync + 'static,
) -> Engine<RxHandler<A>> {
    Engine::builder()
        .name(address.to_string())
        .port("memory:serve")
        .address(format!("{address}/24"))
        .cores([cpu])
        .idle(Idle::Spin)
        .start_with(move |core| {
            let config = EndpointConfig::for_pool(core.buffers);
            RxHandler::new(config, core.seed, make())
        })
        .expect("an engine")
}

/// The service: answers each request with 64 bytes once it has read it.
struct Echo {
    buffer: Box<[u8; 1500]>,
}

impl App for Echo {
    type Command = ();

    fn opened(&mut self, rx: &mut Rx<'_>, local: LocalId, _: SocketAddr) {
        let service = ServiceConfig { backlog: 4 * IN_FLIGHT, ..ServiceConfig::new(SERVICE) };
        rx.listen(local, service).expect("a new service");
    }

    fn event(&mut self, rx: &mut Rx<'_>, event: Event) {
        match event {
            Event::Readable { call } => self.answer(rx, call),
            Event::Complete { call, .. } => {
                rx.release(call);
            }
            _ => {}
        }
    }

    fn command(&mut self, _: &mut Rx<'_>, (): ()) {}
}

impl Echo {
    fn answer(&mut self, rx: &mut Rx<'_>, call: CallId) {
        if rx.recv(call, &mut *self.buffer).is_ok_and(|got| !got.more) {
            rx.send(call, &PAYLOAD, false).expect("a call");
        }
    }
}

/// The client: as soon as one call ends, the next begins.
struct Caller {
    done: Arc<AtomicU64>,
    buffer: Box<[u8; 1500]>,
}

impl Caller {
    fn begin(rx: &mut Rx<'_>) {
        let local = rx.client_local(SERVER.into()).expect("a port to call from");
        let options = CallOptions { bundle_conns_max: Some(IN_FLIGHT.div_ceil(4)), ..CallOptions::default() };
        let call = rx.begin(local, Target::new(SERVER.into(), SERVICE), options).expect("a place");
        rx.send(call, &PAYLOAD, false).expect("a new call");
    }

    fn end(&mut self, rx: &mut Rx<'_>, call: CallId, completion: Completion) {
        // When the client's ports are closed, its calls vanish without an event.
        assert_eq!(completion, Completion::Succeeded);
        let got = rx.recv(call, &mut *self.buffer).expect("a reply");
        assert!(!got.more && self.buffer[..got.bytes] == PAYLOAD, "a wrong reply");
        rx.release(call);
        self.done.store(self.done.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }
}

impl App for Caller {
    type Command = ();

    fn event(&mut self, rx: &mut Rx<'_>, event: Event) {
        // A reply is read when its call is complete.
        if let Event::Complete { call, completion } = event {
            self.end(rx, call, completion);
            Caller::begin(rx);
        }
    }

    fn command(&mut self, rx: &mut Rx<'_>, (): ()) {
        (0..IN_FLIGHT).for_each(|_| Caller::begin(rx));
    }
}
