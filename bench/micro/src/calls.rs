//! Rx calls between two engines joined by `memory:`, to one serving socket that all cores share.
//!
//! Each CPU runs one core of the client and one of the server, on one polling thread. A client core keeps 16 calls in flight, 64 bytes
//! there and 64 back, and checks the length of each reply. Its flow belongs to the same core on either side, so that nothing is shared
//! between the CPUs but the server's socket and the object behind it, which every packet that the server receives holds in one of three
//! ways while the endpoint takes it.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use engine::rcu::RcuCell;
use engine::{BURST, Cx, Datagram, Engine, Handler, Idle, Mbuf, Outcome, Socket};
use rustix::time::ClockId;
use rxrpc::{
    CallId, CallOptions, Completion, Endpoint, EndpointConfig, Event, LocalId, ServiceConfig, Target,
};
use serde::Serialize;

use crate::hold::{Held, Hold, Object};
use crate::measure::{cpu_time, median};

const SERVER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 7001);
const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const SERVICE: u16 = 1;
const IN_FLIGHT: usize = 16;
const PAYLOAD: [u8; 64] = [7; 64];
const WARM_UP: Duration = Duration::from_millis(200);
const BATCH: Duration = Duration::from_millis(100);
const BATCHES: usize = 7;

/// What a run comes to: the median batch.
#[derive(Serialize)]
pub struct Called {
    /// Calls of all cores that ended well, a second.
    calls_per_second: f64,
    /// us of CPU time for each call, client and server.
    us: f64,
}

/// Calls between engines that have a core each on every CPU.
pub fn calls(held: Held, cpus: &[usize]) -> Called {
    match held {
        Held::Rcu => run::<RcuCell<Object>>(cpus),
        Held::Arc => run::<Arc<Object>>(cpus),
        Held::Rwlock => run::<RwLock<Object>>(cpus),
    }
}

/// A core of either side: an endpoint, and what it is used for.
struct CallCore<H> {
    endpoint: Endpoint,
    role: Option<(LocalId, Role)>,
    /// The object of each socket, by cookie.
    objects: Arc<[H]>,
    packets: u64,
    staged: Vec<(SocketAddr, SocketAddr, Mbuf)>,
    buffer: Vec<u8>,
}

/// What a core does, once it is told.
enum Role {
    Serve,
    Call { in_flight: usize, done: Arc<AtomicU64> },
}

struct Begin {
    addr: SocketAddr,
    role: Role,
}

impl<H: Hold> Handler for CallCore<H> {
    type Command = Begin;

    #[inline]
    fn input(&mut self, cx: &mut Cx<'_>, socket: &Socket, datagram: Datagram) -> Outcome {
        let Some((local, role)) = &self.role else { return Outcome::Refused(0) };
        let Datagram { peer, payload, .. } = datagram;
        let taken = match role {
            Role::Call { .. } => self.endpoint.input(cx.now, cx.pool, *local, peer, payload),
            Role::Serve => self.objects[socket.cookie() as usize].with(cx.guard(), |object| {
                self.packets += object.one;
                cx.notify(socket);
                self.endpoint.input(cx.now, cx.pool, *local, peer, payload)
            }),
        };
        if taken.is_ok() { Outcome::Consumed } else { Outcome::Refused(0) }
    }

    const REFUSALS: &'static [&'static str] = &["refused"];

    fn command(&mut self, _: &mut Cx<'_>, Begin { addr, role }: Begin) {
        let local = self.endpoint.add_local(addr).expect("an endpoint without addresses");
        if let Role::Serve = role {
            let service = ServiceConfig { backlog: 64, ..ServiceConfig::new(SERVICE) };
            self.endpoint.listen(local, service).expect("a new service");
        }
        self.role = Some((local, role));
    }

    fn expire(&mut self, cx: &mut Cx<'_>) {
        self.endpoint.expire(cx.now);
        let CallCore { endpoint, role, buffer, .. } = self;
        match role {
            Some((_, Role::Serve)) => serve(endpoint, cx, buffer),
            Some((local, Role::Call { in_flight, done })) => {
                let ended = end_calls(endpoint, cx, buffer);
                *in_flight -= ended;
                done.store(done.load(Ordering::Relaxed) + ended as u64, Ordering::Relaxed);
                while *in_flight < IN_FLIGHT {
                    let target = Target::new(SERVER.into(), SERVICE);
                    let call =
                        endpoint.begin(cx.now, *local, target, CallOptions::default()).expect("a place");
                    endpoint.send(cx.now, cx.pool, call, &PAYLOAD, false).expect("a new call");
                    *in_flight += 1;
                }
            }
            None => {}
        }
    }

    fn transmit(&mut self, cx: &mut Cx<'_>) {
        while self.endpoint.wants_transmit() {
            let staged = &mut self.staged;
            self.endpoint.transmit(cx.now, cx.pool, &mut |_, from, to, payload| {
                staged.push((from, to, payload));
                staged.len() < BURST
            });
            let full = self.staged.len() == BURST;
            for (from, to, payload) in self.staged.drain(..) {
                let _ = cx.send(from, to, payload);
            }
            if !full {
                return;
            }
        }
    }
}

fn serve(endpoint: &mut Endpoint, cx: &mut Cx<'_>, buffer: &mut [u8]) {
    while let Some(event) = endpoint.poll_event() {
        match event {
            Event::Readable { call } => reply(endpoint, cx, call, buffer),
            Event::Complete { call, .. } => {
                endpoint.release(cx.now, call);
            }
            _ => {}
        }
    }
}

/// Replies, once the whole request is read.
fn reply(endpoint: &mut Endpoint, cx: &mut Cx<'_>, call: CallId, buffer: &mut [u8]) {
    if endpoint.recv(cx.now, call, buffer).is_ok_and(|got| !got.more) {
        endpoint.send(cx.now, cx.pool, call, &PAYLOAD, false).expect("a call");
    }
}

/// Reads and releases what has ended; how many.
fn end_calls(endpoint: &mut Endpoint, cx: &mut Cx<'_>, buffer: &mut [u8]) -> usize {
    let mut ended = 0;
    while let Some(event) = endpoint.poll_event() {
        if let Event::Complete { call, completion } = event {
            assert_eq!(completion, Completion::Succeeded);
            let got = endpoint.recv(cx.now, call, buffer).expect("a reply");
            assert!(!got.more && got.bytes == PAYLOAD.len());
            endpoint.release(cx.now, call);
            ended += 1;
        }
    }
    ended
}

fn start<H: Hold>(address: Ipv4Addr, cpus: &[usize]) -> Engine<CallCore<H>> {
    let objects: Arc<[H]> = [H::new(Object { one: 1 })].into();
    Engine::builder()
        .name(address.to_string())
        .port(format!("memory:calls,queues={}", cpus.len()))
        .address(format!("{address}/24"))
        .cores(cpus.iter().copied())
        .idle(Idle::Spin)
        .start_with(move |core| CallCore {
            endpoint: Endpoint::new(EndpointConfig::for_pool(core.buffers), core.seed),
            role: None,
            objects: objects.clone(),
            packets: 0,
            staged: Vec::with_capacity(BURST),
            buffer: vec![0; 1500],
        })
        .expect("an engine")
}

fn run<H: Hold>(cpus: &[usize]) -> Called {
    let (server, client) = (start::<H>(*SERVER.ip(), cpus), start::<H>(CLIENT, cpus));
    let tell = |engine: &Engine<CallCore<H>>, core, addr, role| {
        assert!(engine.commands(core).send(Begin { addr, role }).is_ok(), "core {core} has stopped");
    };
    let mut sockets = vec![server.bind(SERVER.into(), 0).expect("a free port")];
    (0..cpus.len()).for_each(|core| tell(&server, core, SERVER.into(), Role::Serve));
    let mut counts = Vec::new();
    for core in 0..cpus.len() {
        let mut ports = (1024..=u16::MAX).map(|port| SocketAddr::from((CLIENT, port)));
        let stays = |addr: &SocketAddr| {
            client.owner(*addr, SERVER.into()) == core && server.owner(SERVER.into(), *addr) == core
        };
        let addr = ports.find(stays).expect("one of 64,000 flows");
        sockets.push(client.bind(addr, 0).expect("a free port"));
        let done = Arc::<AtomicU64>::default();
        counts.push(done.clone());
        tell(&client, core, addr, Role::Call { in_flight: 0, done });
    }
    thread::sleep(WARM_UP);
    let batches: Vec<Called> = (0..BATCHES).map(|_| batch(&counts)).collect();
    drop(sockets);
    for report in [client.shutdown(), server.shutdown()] {
        assert_eq!(report.panics, [], "a call failed");
    }
    Called {
        calls_per_second: median(batches.iter().map(|batch| batch.calls_per_second)),
        us: median(batches.iter().map(|batch| batch.us)),
    }
}

/// The polling threads spin, and no other thread of the process does anything: its CPU time is theirs.
fn batch(counts: &[Arc<AtomicU64>]) -> Called {
    let done = || counts.iter().map(|count| count.load(Ordering::Relaxed)).sum::<u64>();
    let state = || (done(), cpu_time(ClockId::ProcessCPUTime), Instant::now());
    let (before, cpu, begun) = state();
    thread::sleep(BATCH);
    let (after, cpu_now, now) = state();
    assert!(after > before, "no call ended");
    let calls = (after - before) as f64;
    Called {
        calls_per_second: calls / (now - begun).as_secs_f64(),
        us: (cpu_now - cpu).as_secs_f64() * 1e6 / calls,
    }
}
