//! The receive path of an engine, from `rx_burst` to the wake-up, into one socket that all cores share.
//!
//! A source fills bursts of 32 frames of 64 bytes; the stack parses them, the core's table finds the socket, and the handler, holding the
//! socket's object in one of three ways, queues the datagram for that core's reader and notifies the socket, which is woken once a burst.
//! The reader is inline: at the end of the turn it reads a byte of each datagram and frees it. Nobody sleeps on the socket, as on any
//! server with work to do.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::{Arc, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use engine::rcu::RcuCell;
use engine::{Cx, Datagram, Engine, Handler, Idle, MbufList, Outcome, Socket};
use pmd::MacAddr;
use rustix::time::ClockId;
use serde::Serialize;

use crate::hold::{Held, Hold, Object};
use crate::measure::{cpu_time, median};
use crate::source::{Frames, Source, frame};

const LOCAL: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 7001);
const PEER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const COOKIE: u64 = 0;
const WARM_UP: Duration = Duration::from_millis(100);
const BATCH: Duration = Duration::from_millis(50);
const BATCHES: usize = 9;

/// What a run comes to: the median batch.
#[derive(Serialize)]
pub struct Dispatched {
    /// ns of CPU time for each packet.
    ns: f64,
    /// Packets of all cores, millions a second of the clock's.
    mpps: f64,
}

/// Packets through an engine with a core on each CPU.
pub fn dispatch(held: Held, cpus: &[usize]) -> Dispatched {
    match held {
        Held::Rcu => run::<RcuCell<Object>>(cpus),
        Held::Arc => run::<Arc<Object>>(cpus),
        Held::Rwlock => run::<RwLock<Object>>(cpus),
    }
}

/// One core's handler. The objects are shared by all of them, by cookie.
struct Dispatch<H> {
    objects: Arc<[H]>,
    queue: MbufList,
    woken: u64,
    read: u64,
}

impl<H: Hold> Handler for Dispatch<H> {
    type Command = ();

    #[inline]
    fn input(&mut self, cx: &mut Cx<'_>, socket: &Socket, datagram: Datagram) -> Outcome {
        self.objects[socket.cookie() as usize].with(cx.guard(), |object| {
            self.queue.push_back(datagram.payload);
            self.woken += object.one;
            cx.notify(socket);
        });
        Outcome::Delivered
    }

    fn command(&mut self, _: &mut Cx<'_>, (): ()) {}

    fn transmit(&mut self, _: &mut Cx<'_>) {
        while let Some(payload) = self.queue.pop_front() {
            self.read += u64::from(payload.data()[0]);
        }
    }
}

fn run<H: Hold>(cpus: &[usize]) -> Dispatched {
    let objects: Arc<[H]> = [H::new(Object { one: 1 })].into();
    let (frames, mac) = (Frames::default(), MacAddr::local_from("micro"));
    let engine = Engine::builder()
        .open_port(Box::new(Source { frames: frames.clone(), mac }))
        .address(format!("{}/24", LOCAL.ip()))
        .cores(cpus.iter().copied())
        .idle(Idle::Spin)
        .start_with(move |_| Dispatch {
            objects: objects.clone(),
            queue: MbufList::default(),
            woken: 0,
            read: 0,
        })
        .expect("an engine");
    let _socket = engine.bind(LOCAL.into(), COOKIE).expect("a free port");
    let flow = |core| {
        let peers = (1024..=u16::MAX).map(|port| SocketAddrV4::new(PEER, port));
        let mut of_core = peers.filter(|peer| engine.owner(LOCAL.into(), (*peer).into()) == core);
        frame(mac, of_core.next().expect("one of 64,000 flows"), LOCAL)
    };
    frames.set((0..cpus.len()).map(flow).collect()).expect("set once");
    thread::sleep(WARM_UP);
    let batches: Vec<Dispatched> = (0..BATCHES).map(|_| batch(&engine)).collect();
    let report = engine.shutdown();
    assert_eq!(report.leaks(), Vec::<String>::new());
    Dispatched {
        ns: median(batches.iter().map(|batch| batch.ns)),
        mpps: median(batches.iter().map(|batch| batch.mpps)),
    }
}

/// The polling threads spin, and no other thread of the process does anything: its CPU time is theirs.
fn batch<H: Hold>(engine: &Engine<Dispatch<H>>) -> Dispatched {
    let state = || (engine.stats().ledger().delivered, cpu_time(ClockId::ProcessCPUTime), Instant::now());
    let (before, cpu, begun) = state();
    thread::sleep(BATCH);
    let (after, cpu_now, now) = state();
    assert!(after > before, "no packet was delivered: {}", engine.stats().ledger());
    let packets = (after - before) as f64;
    Dispatched {
        ns: (cpu_now - cpu).as_secs_f64() * 1e9 / packets,
        mpps: packets / (now - begun).as_secs_f64() / 1e6,
    }
}
