//! What the hot functions execute, each by itself: the program that `cargo lab test rcu/instructions` counts the instructions of.
//!
//! Each function that is counted is one that is not inlined, around exactly what is to be counted; the lab finds it by its name. Counting
//! begins at [`steady_from_here`]: what is new to anybody has happened before.

use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use arrayvec::ArrayVec;
use engine::bench::Lookups;
use engine::rcu::{ReadGuard, Reader};
use engine::stack::{Outbox, PortConfig, Stack, StackConfig, Verdict};
use engine::{Engine, Idle};
use pmd::{BURST, Burst, Hugepages, Instant, MacAddr, Mbuf, OpenOptions, Pool, PoolConfig, Queue};
use rxrpc::{CallId, CallOptions, Endpoint, EndpointConfig, Event, LocalId, ServiceConfig, Target};
use serde::Serialize;

use crate::source::frame;

const LOCAL: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 7001);
const PEER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 2), 7001);
/// More sockets than are looked up one by one.
const SOCKETS: u16 = 4096;
/// What is thrown at everything before counting begins.
const WARM_UP: usize = 64;

/// What is counted.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum What {
    /// A plain UDP datagram from its frame: `demux_burst`
    Demux,
    /// The socket of a datagram, among 4096: `lookup_burst`
    Lookup,
    /// alloc, write 64 bytes, ring, read, free: `cycle_burst`
    BufferCycle,
    /// A quiescent state that nobody waits for: `quiescent`
    Quiescent,
    /// A full DATA packet in order: `input`
    InputData,
    /// The ACK of a bulk transfer: `input`
    InputAck,
}

/// How often it was done since counting began.
#[derive(Serialize)]
pub struct Done {
    done: usize,
}

/// Does it about so often.
pub fn guard(what: What, count: usize) -> Done {
    let done = match what {
        What::Demux => demux(count),
        What::Lookup => lookup(count),
        What::BufferCycle => buffer_cycle(count),
        What::Quiescent => quiescent_states(count),
        What::InputData => transfer(count, true),
        What::InputAck => transfer(count, false),
    };
    Done { done }
}

#[inline(never)]
fn steady_from_here() {
    black_box(());
}

fn pool(name: &str) -> Pool {
    PoolConfig { hugepages: Hugepages::Never, ..PoolConfig::new(name, 4096) }.build().expect("memory").claim()
}

/// Bursts for so many, and how many that are, after some that do not count.
fn bursts(count: usize, mut burst: impl FnMut()) -> usize {
    (0..WARM_UP).for_each(|_| burst());
    steady_from_here();
    let bursts = count.div_ceil(BURST);
    (0..bursts).for_each(|_| burst());
    bursts * BURST
}

fn demux(count: usize) -> usize {
    let mac = MacAddr::local_from("guard");
    let addresses = vec![format!("{}/24", LOCAL.ip()).parse().expect("an address")];
    let mut stack =
        Stack::new(StackConfig::new(vec![PortConfig::new(mac, 1500, addresses)])).expect("a port");
    let (mut out, mut pool, now) = (Outbox::new(1, 64), pool("demux"), Instant::default());
    let (bytes, mut frames) = (frame(mac, PEER, LOCAL), Burst::new());
    bursts(count, || {
        pool.alloc_burst(&mut frames, BURST);
        for mbuf in &mut frames {
            mbuf.append(bytes.len()).expect("room").copy_from_slice(&bytes);
        }
        let datagrams = demux_burst(&mut stack, now, &mut frames, &mut pool, &mut out);
        assert_eq!(datagrams, BURST, "not all are datagrams for us");
    })
}

/// Payloads are freed as they come, which is counted too.
#[inline(never)]
fn demux_burst(
    stack: &mut Stack,
    now: Instant,
    frames: &mut Burst,
    pool: &mut Pool,
    out: &mut Outbox,
) -> usize {
    let ours =
        |verdict: &Verdict| matches!(verdict, Verdict::Datagram(datagram) if datagram.local == LOCAL.into());
    frames.drain(..).map(|frame| stack.demux(now, 0, frame, pool, out)).filter(ours).count()
}

fn lookup(count: usize) -> usize {
    let engine = Engine::builder().port("memory:guard").address(format!("{}/24", LOCAL.ip()));
    let engine = engine.idle(Idle::Sleep { spins: 2, pauses: 2 }).start().expect("an engine");
    let local = |n: u16| SocketAddr::from((*LOCAL.ip(), 1024 + n));
    let sockets: Vec<_> = (0..SOCKETS).map(|n| engine.bind(local(n), 0).expect("a free port")).collect();
    let (table, reader) = (Lookups::of(&engine), Reader::register("guard"));
    let mut n = 0;
    let done = bursts(count, || {
        let flows: [_; BURST] = std::array::from_fn(|i| (local((n + 97 * i as u16) % SOCKETS), PEER.into()));
        n += 1;
        assert_eq!(lookup_burst(&table, &flows, reader.guard()), BURST, "not all are found");
    });
    drop(sockets);
    done
}

#[inline(never)]
fn lookup_burst(table: &Lookups<'_>, flows: &[(SocketAddr, SocketAddr)], guard: ReadGuard<'_>) -> usize {
    table.lookup_burst(flows.iter().copied(), guard).iter().flatten().count()
}

fn buffer_cycle(count: usize) -> usize {
    let mut pool = pool("cycle");
    let open = || {
        let port = pmd::open("memory:guard-cycle", &OpenOptions::default());
        port.expect("a free name").open_queues(&[pool.handle()]).expect("one queue").pop().expect("one queue")
    };
    let (mut tx, mut rx) = (open(), open());
    bursts(count, || cycle_burst(&mut pool, &mut *tx, &mut *rx))
}

#[inline(never)]
fn cycle_burst(pool: &mut Pool, tx: &mut dyn Queue, rx: &mut dyn Queue) {
    let (mut out, mut back, now) = (Burst::new(), Burst::new(), Instant::default());
    pool.alloc_burst(&mut out, BURST);
    for mbuf in &mut out {
        mbuf.append(64).expect("room").copy_from_slice(&[7; 64]);
    }
    tx.tx_burst(now, &mut out);
    rx.rx_burst(now, pool, &mut back);
    assert_eq!(back.len(), BURST, "a wire in memory loses nothing");
    back.drain(..).for_each(|mbuf| _ = black_box(mbuf.data()[63]));
}

fn quiescent_states(count: usize) -> usize {
    let mut reader = Reader::register("guard");
    bursts(count, || (0..BURST).for_each(|_| quiescent(&mut reader)))
}

#[inline(never)]
fn quiescent(reader: &mut Reader) {
    reader.quiescent();
}

struct Side {
    rx: Endpoint,
    pool: Pool,
    local: LocalId,
    addr: SocketAddr,
    inbox: ArrayVec<Mbuf, 512>,
}

impl Side {
    fn new(addr: SocketAddr, seed: u64) -> Side {
        // Packets of one size, however much the peer could take.
        let config = EndpointConfig { jumbo_send_max: 1, ..EndpointConfig::default() };
        let mut rx = Endpoint::new(config, seed);
        let local = rx.add_local(addr).expect("a free address");
        Side { rx, pool: pool("transfer"), local, addr, inbox: ArrayVec::new() }
    }

    fn transmit(&mut self, now: Instant, to: &mut Side) {
        self.rx.transmit(now, &mut self.pool, &mut |_, _, _, packet| {
            to.inbox.push(packet);
            !to.inbox.is_full()
        });
    }

    /// Takes what has come, and says how much that was. What is to be counted goes through [`input`].
    fn receive(&mut self, now: Instant, from: SocketAddr, counted: bool) -> usize {
        let Side { rx, pool, local, inbox, .. } = self;
        let packets = inbox.len();
        for packet in inbox.drain(..) {
            let taken = match counted {
                true => input(rx, now, pool, *local, from, packet),
                false => rx.input(now, pool, *local, from, packet).is_ok(),
            };
            assert!(taken, "a packet of ours is refused");
        }
        rx.expire(now);
        if counted { packets } else { 0 }
    }
}

#[inline(never)]
fn input(
    rx: &mut Endpoint,
    now: Instant,
    pool: &mut Pool,
    local: LocalId,
    from: SocketAddr,
    packet: Mbuf,
) -> bool {
    rx.input(now, pool, local, from, packet).is_ok()
}

/// One long call, in virtual time: counts the DATA packets that the server takes, or the ACKs that the client takes.
fn transfer(count: usize, data: bool) -> usize {
    let (mut client, mut server) = (Side::new(PEER.into(), 1), Side::new(LOCAL.into(), 2));
    server.rx.listen(server.local, ServiceConfig::new(1)).expect("a new service");
    let (bytes, mut buffer) = (vec![7; 64 << 10], vec![0; 64 << 10]);
    let mut now = Instant::default() + Duration::from_secs(1);
    let options = CallOptions::default();
    let call: CallId =
        client.rx.begin(now, client.local, Target::new(server.addr, 1), options).expect("a place");
    let (mut done, mut steady) = (0, false);
    while done < count {
        now += Duration::from_micros(50);
        client.rx.send(now, &mut client.pool, call, &bytes, true).expect("a call in progress");
        client.transmit(now, &mut server);
        done += server.receive(now, PEER.into(), data);
        while let Some(event) = server.rx.poll_event() {
            if let Event::Readable { call } = event {
                while server.rx.recv(now, call, &mut buffer).is_ok_and(|got| got.bytes > 0) {}
            }
        }
        server.transmit(now, &mut client);
        done += client.receive(now, LOCAL.into(), !data);
        while client.rx.poll_event().is_some() {}
        if !steady && done > WARM_UP {
            (done, steady) = (0, true);
            steady_from_here();
        }
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_done_as_often_as_was_asked() {
        let all =
            [What::Demux, What::Lookup, What::BufferCycle, What::Quiescent, What::InputData, What::InputAck];
        for what in all {
            let Done { done } = guard(what, 1000);
            assert!((1000..1600).contains(&done), "{done}");
        }
    }
}
