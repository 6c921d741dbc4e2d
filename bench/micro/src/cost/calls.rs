//! Rx calls between two engines over `memory:`, with a service inline on its cores: so many connections, in flight, so many bytes back.
//!
//! Each connection is a bundle of its own, and each call goes to one drawn at random, so that the tables are used wherever they are. Before
//! anything is measured every connection has carried a call.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use engine::{Engine, Idle};
use rxrpc::{
    App, CallId, CallOptions, Completion, EndpointConfig, Event, LocalId, Rx, RxControl, RxHandler,
    ServiceConfig, Target,
};

use super::{Cost, count_one, resident, wait_until, watch};

const SERVER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 7001);
const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const SERVICE: u16 = 1;
const REQUEST: [u8; 64] = [7; 64];
/// Bytes given to the endpoint at a time.
const PIECE: usize = 16 * 1024;
/// Longer than any run.
const LONG: Duration = Duration::from_secs(24 * 3600);

/// One point of a curve.
#[derive(Clone, Debug, clap::Args)]
pub struct Load {
    /// Connections, each used by calls at random
    #[arg(long, default_value_t = 32)]
    pub connections: u32,
    /// Calls at once, of all cores together
    #[arg(long, default_value_t = 128)]
    pub in_flight: usize,
    /// Bytes of each reply; a request has 64
    #[arg(long, default_value_t = 64)]
    pub reply_bytes: usize,
    /// CPUs of the server, a core on each
    #[arg(long, value_delimiter = ',', required = true)]
    pub server_cpus: Vec<usize>,
    /// CPUs of the client, as many
    #[arg(long, value_delimiter = ',', required = true)]
    pub client_cpus: Vec<usize>,
    /// For so long it is measured
    #[arg(long, default_value_t = 1.0)]
    pub seconds: f64,
}

/// Measures it.
pub fn calls(load: &Load) -> Cost {
    let cores = load.client_cpus.len();
    assert_eq!(load.server_cpus.len(), cores, "as many CPUs of the server as of the client");
    let reply: Arc<[u8]> = (0..load.reply_bytes).map(|n| (n % 251) as u8).collect();
    let of_server = reply.clone();
    let backlog = 2 * load.in_flight + 64;
    let server = engine(*SERVER.ip(), &load.server_cpus, load, move || Service {
        reply: of_server.clone(),
        backlog,
        buffer: vec![0; PIECE],
    });
    let counters: Arc<[AtomicU64]> = (0..cores).map(|_| AtomicU64::new(0)).collect();
    let share = |all: usize| all.div_ceil(cores);
    let (connections, in_flight) = (share(load.connections as usize) as u32, share(load.in_flight));
    let client = {
        let counters = counters.clone();
        engine(CLIENT, &load.client_cpus, load, move || Caller {
            counters: counters.clone(),
            reply: reply.clone(),
            connections,
            begun: 0,
            random: fastrand::Rng::with_seed(7),
        })
    };
    let before_bytes = resident();
    let listener = server.open(SERVER.into()).expect("a free port");
    let ports = client.open_clients().expect("free ports");
    for core in 0..cores {
        assert!(client.tell(core, in_flight).is_ok(), "core {core} of the client has stopped");
    }
    let done = || counters.iter().map(|counter| counter.load(Ordering::Relaxed)).sum::<u64>();
    wait_until(done, u64::from(connections) * cores as u64);
    let cost = watch(done, load.seconds, before_bytes);
    // The client first: what it still asks of a port that is closed fails.
    drop(ports);
    let client = client.shutdown();
    drop(listener);
    for report in [client, server.shutdown()] {
        assert_eq!(report.panics, [], "a call failed");
    }
    cost
}

fn engine<A: App + Send>(
    address: Ipv4Addr,
    cpus: &[usize],
    load: &Load,
    make: impl Fn() -> A + Send + Sync + 'static,
) -> Engine<RxHandler<A>> {
    let packets = load.in_flight * load.reply_bytes.div_ceil(1400).clamp(1, 300);
    let buffers = (4 * packets).next_power_of_two().clamp(8192, 65_536);
    // As many frames as can be on their way at once, so that none is lost for want of a place.
    let ring = (2 * load.in_flight).next_power_of_two().clamp(1024, 65_536);
    let most = load.connections as usize + 1024;
    // With several queues frames are spread by their hash, as a NIC does.
    let spread = if cpus.len() > 1 { ",rss" } else { "" };
    Engine::builder()
        .name(address.to_string())
        .port(format!("memory:cost,queues={},ring={ring}{spread}", cpus.len()))
        .address(format!("{address}/24"))
        .cores(cpus.iter().copied())
        .pool_buffers(buffers)
        .idle(Idle::Spin)
        .start_with(move |core| {
            let defaults = EndpointConfig::for_pool(core.buffers);
            let config = EndpointConfig {
                conns_max: most.max(defaults.conns_max),
                bundles_max: most.max(defaults.bundles_max),
                bundle_waiting_max: 65_536,
                client_conn_idle: LONG,
                service_conn_idle: LONG,
                ..defaults
            };
            RxHandler::new(config, core.seed, make())
        })
        .expect("an engine")
}

/// Answers each request, once it is read, with the same bytes.
struct Service {
    reply: Arc<[u8]>,
    backlog: usize,
    buffer: Vec<u8>,
}

impl App for Service {
    type Command = ();

    fn opened(&mut self, rx: &mut Rx<'_>, local: LocalId, _: SocketAddr) {
        let service = ServiceConfig { backlog: self.backlog, ..ServiceConfig::new(SERVICE) };
        rx.listen(local, service).expect("a new service");
    }

    fn event(&mut self, rx: &mut Rx<'_>, event: Event) {
        match event {
            Event::Readable { call } => self.read(rx, call),
            Event::Writable { call } => self.answer(rx, call),
            Event::Complete { call, .. } => {
                rx.release(call);
            }
            _ => {}
        }
    }

    fn command(&mut self, _: &mut Rx<'_>, (): ()) {}
}

impl Service {
    fn read(&mut self, rx: &mut Rx<'_>, call: CallId) {
        if rx.recv(call, &mut self.buffer).is_ok_and(|got| !got.more) {
            self.answer(rx, call);
        }
    }

    /// Gives as much of the reply as there is room for; the call remembers how much that was.
    fn answer(&mut self, rx: &mut Rx<'_>, call: CallId) {
        let mut given = rx.endpoint.user(call) as usize;
        loop {
            let piece = &self.reply[given..self.reply.len().min(given + PIECE)];
            let more = given + piece.len() < self.reply.len();
            // An error means that the call has ended; its Complete follows.
            let Ok(taken) = rx.send(call, piece, more) else { return };
            given += taken;
            rx.endpoint.set_user(call, given as u64);
            if taken < piece.len() || !more {
                return;
            }
        }
    }
}

/// As soon as one call ends, the next begins.
struct Caller {
    counters: Arc<[AtomicU64]>,
    reply: Arc<[u8]>,
    connections: u32,
    /// Calls so far, up to the number of connections: each is opened by one.
    begun: u32,
    random: fastrand::Rng,
}

impl Caller {
    fn begin(&mut self, rx: &mut Rx<'_>) {
        let group = if self.begun < self.connections {
            self.begun += 1;
            self.begun - 1
        } else {
            self.random.u32(..self.connections)
        };
        let local = rx.client_local(SERVER.into()).expect("a port to call from");
        let options = CallOptions { bundle_conns_max: Some(1), ..CallOptions::default() };
        let target = Target { group, ..Target::new(SERVER.into(), SERVICE) };
        let call = rx.begin(local, target, options).expect("a place");
        rx.send(call, &REQUEST, false).expect("a new call");
    }

    /// Takes what has come of a reply; the call remembers how much that was.
    fn read(&mut self, rx: &mut Rx<'_>, call: CallId) {
        let mut read = rx.endpoint.user(call) as usize;
        while let Ok(Some((data, more))) = rx.recv_mbuf(call) {
            for bytes in data.segments() {
                assert!(self.reply[read..].starts_with(bytes), "a wrong reply at byte {read}");
                read += bytes.len();
            }
            if !more {
                break;
            }
        }
        rx.endpoint.set_user(call, read as u64);
    }
}

impl App for Caller {
    /// How many calls to keep in flight.
    type Command = usize;

    fn event(&mut self, rx: &mut Rx<'_>, event: Event) {
        match event {
            Event::Readable { call } => self.read(rx, call),
            Event::Complete { call, completion } => {
                // When the client's ports are closed, its calls vanish without an event.
                assert_eq!(completion, Completion::Succeeded);
                self.read(rx, call);
                assert_eq!(rx.endpoint.user(call) as usize, self.reply.len(), "a reply that is not whole");
                rx.release(call);
                count_one(&self.counters[rx.core()]);
                self.begin(rx);
            }
            _ => {}
        }
    }

    fn command(&mut self, rx: &mut Rx<'_>, in_flight: usize) {
        (0..in_flight).for_each(|_| self.begin(rx));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cost(connections: u32, in_flight: usize, reply_bytes: usize) -> Cost {
        let cpus: Vec<usize> =
            core_affinity::get_core_ids().unwrap().iter().map(|cpu| cpu.id).take(1).collect();
        let (server_cpus, client_cpus) = (cpus.clone(), cpus);
        calls(&Load { connections, in_flight, reply_bytes, server_cpus, client_cpus, seconds: 0.1 })
    }

    #[test]
    fn many_connections_and_large_replies_are_verified() {
        // One after the other: both are called `memory:cost`.
        for (connections, in_flight, reply_bytes) in [(3000, 64, 64), (2, 4, 100_000), (1, 1, 1)] {
            let cost = cost(connections, in_flight, reply_bytes);
            assert!(cost.per_second > 0.0);
        }
    }
}
