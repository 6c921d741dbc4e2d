//! Tests: the other process does whatever it can, with the shared memory, and over the control socket.
//!
//! Whatever happens, nothing panics or reaches beyond the memory, no buffer is lost, and an honest peer is served afterwards.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant as Wall};

use super::bell::eventfd;
use super::handshake::{ClientSide, Connection, Progress, ServerSide, hello};
use super::interface::{Claim, Config, Interface, Link};
use super::memory::{Mapping, Memory};
use super::message::{AddRing, Direction, Init, MESSAGE_LEN, Message, VERSION};
use super::receive::Broken;
use super::ring::{DESC_NEXT, Desc, Ring, ring_len};
use super::socket::{self, Address, Received};
use super::{DROPS, Lost};
use crate::counters::Counters;
use crate::mbuf::Burst;
use crate::pool::{Pool, PoolConfig};
use crate::port::{LinkState, OpenOptions, Port, Queue};
use crate::time::Clock;

const BUFFERS: usize = 256;
const LOG2_SLOTS: u8 = 4;

fn pool() -> Pool {
    PoolConfig::new("hostile", BUFFERS).build().unwrap().claim()
}

fn interface(server: bool) -> Arc<Interface> {
    let address = Address::new("@never-opened").unwrap();
    let config = Config { address, server, id: 0, log2_slots: LOG2_SLOTS, buffer_len: 256, secret: [0; 24] };
    let interface = Arc::new(Interface::new(config));
    interface.open_queues(1).unwrap();
    interface
}

/// A client and a server that shook hands, and the memory as either may write it.
fn connected() -> (Connection, Connection, Attacker) {
    let Message::Hello(hello) = hello() else { unreachable!() };
    let shaking = ClientSide::Expecting(interface(false)).input(Message::Hello(hello));
    let Ok((Some(mut client), Progress::Say((Message::Init(init), None)))) = shaking else {
        panic!("no INIT")
    };
    let mut server = ServerSide::new(Claim::new(&interface(true)).unwrap(), &init).unwrap();
    let mut memory = None;
    loop {
        let Ok((Some(next), Progress::Say((message, fd)))) = client.input(Message::Ack) else {
            panic!("no end")
        };
        client = next;
        match message {
            Message::Connect { .. } => break,
            Message::AddRegion { size, .. } => {
                memory = Some(Attacker::new(fd.as_ref().unwrap().try_clone().unwrap(), size));
                server.add(message, fd).unwrap();
            }
            other => server.add(other, fd).unwrap(),
        }
    }
    let (_, server) = server.connect().unwrap();
    let connected = client.input(Message::Connected { interface: "x".into() });
    let Ok((None, Progress::Connected(_, client))) = connected else { panic!("not connected") };
    client.links.iter().chain(&server.links).for_each(Link::start);
    (client, server, memory.unwrap())
}

/// What the other process can reach: everything.
struct Attacker {
    memory: Arc<Memory>,
}

impl Attacker {
    fn new(fd: OwnedFd, size: u64) -> Attacker {
        let mut memory = Memory::default();
        memory.add(0, Mapping::of_peer(fd, size).unwrap()).unwrap();
        Attacker { memory: Arc::new(memory) }
    }

    fn ring(&self, direction: Direction) -> Ring {
        let offset = direction as usize * ring_len(LOG2_SLOTS);
        Ring::new(&self.memory, 0, offset as u32, LOG2_SLOTS).unwrap()
    }

    /// Writes anything at any 64-bit word.
    fn scribble(&self, random: &mut fastrand::Rng) {
        let words = self.memory.regions()[0].len() / 8;
        // Half of the time where the rings are.
        let words = if random.bool() { words } else { 2 * ring_len(LOG2_SLOTS) / 8 };
        let word = random.usize(..words);
        let at = self.memory.range(0, word as u32 * 8, 8).unwrap().cast();
        // SAFETY: eight aligned bytes within the mapping, written atomically.
        unsafe { AtomicU64::from_ptr(at.as_ptr()) }.store(random.u64(..), Ordering::Relaxed);
    }
}

/// One end under attack.
struct Victim {
    link: Link,
    counters: Arc<Counters>,
    pool: Pool,
}

impl Victim {
    fn new(link: Link) -> Victim {
        Victim { link, counters: Counters::new(DROPS), pool: pool() }
    }

    fn receive(&mut self) -> Result<Burst, Broken> {
        let mut burst = Burst::new();
        let (pool, counters) = (&mut self.pool, &self.counters);
        let received = match &mut self.link {
            Link::Client(receiver, _) => receiver.burst(pool, &mut burst, counters, 0)?,
            Link::Server(receiver, _) => receiver.burst(pool, &mut burst, counters, 0)?,
        };
        assert_eq!(received, burst.len());
        assert!(burst.iter().all(|mbuf| (14..=65_557).contains(&mbuf.len())));
        Ok(burst)
    }

    fn send(&mut self, lens: &[usize]) -> Result<usize, Broken> {
        let mut burst: Burst = lens.iter().filter_map(|len| self.pool.copy_from(&vec![7; *len])).collect();
        match &mut self.link {
            Link::Client(_, sender) => sender.burst(&mut burst, &self.counters),
            Link::Server(_, sender) => sender.burst(&mut burst, &self.counters),
        }
    }

    fn dropped(&self, why: Lost) -> u64 {
        self.counters.snapshot().drops.get(DROPS[why as usize])
    }
}

fn victims() -> [(Victim, Attacker); 2] {
    let (mut client, _server, of_client) = connected();
    let (_client, mut server, of_server) = connected();
    let victim = |connection: &mut Connection| Victim::new(connection.links.pop().unwrap());
    [(victim(&mut client), of_client), (victim(&mut server), of_server)]
}

#[test]
fn anything_in_shared_memory_is_survived() {
    let seed =
        std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("SEED={seed} cargo test -p pmd hostile");
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..100 {
        for (mut victim, attacker) in victims() {
            for _ in 0..200 {
                (0..random.usize(..8)).for_each(|_| attacker.scribble(&mut random));
                if random.bool() {
                    // A plausible index: otherwise nearly all are out of range.
                    let ring = attacker.ring(if random.bool() { Direction::C2s } else { Direction::S2c });
                    let index = if random.bool() { ring.head() } else { ring.tail() };
                    index.fetch_add(random.u16(..20), Ordering::Relaxed);
                }
                // What is found broken is let go of; a connection would end here.
                if victim.receive().is_err() | victim.send(&[60, 500, 4000, 60]).is_err() {
                    break;
                }
            }
            assert_eq!(victim.pool.available(), BUFFERS, "every buffer is home");
        }
    }
}

#[test]
fn memory_that_changes_while_it_is_read_is_survived() {
    for (mut victim, attacker) in victims() {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut random = fastrand::Rng::new();
                while !stop.load(Ordering::Relaxed) {
                    (0..100).for_each(|_| attacker.scribble(&mut random));
                    for direction in [Direction::C2s, Direction::S2c] {
                        let ring = attacker.ring(direction);
                        ring.head().store(random.u16(..), Ordering::Relaxed);
                        ring.tail().store(random.u16(..), Ordering::Relaxed);
                    }
                }
            });
            let begun = Wall::now();
            while begun.elapsed() < Duration::from_millis(200) {
                // Goes on where a queue would hang up, to meet as much as possible.
                let _ = victim.receive();
                let _ = victim.send(&[60, 500, 4000, 60]);
            }
            stop.store(true, Ordering::Relaxed);
        });
        assert_eq!(victim.pool.available(), BUFFERS, "every buffer is home");
    }
}

/// Publishes one descriptor towards a server.
fn tell_server(attacker: &Attacker, descs: &[Desc]) {
    let ring = attacker.ring(Direction::C2s);
    for desc in descs {
        let head = ring.head().load(Ordering::Relaxed);
        ring.lay_desc(head, *desc);
        ring.head().store(head.wrapping_add(1), Ordering::Release);
    }
}

#[test]
fn descriptors_that_lie_cost_a_frame_each_and_are_counted() {
    let [_, (mut server, attacker)] = victims();
    let len = attacker.memory.regions()[0].len() as u32;
    let good = Desc { length: 100, ..Desc::default() };
    for bad in [
        Desc { region: 1, ..good },
        Desc { region: u16::MAX, ..good },
        Desc { offset: len - 99, ..good },
        Desc { offset: u32::MAX, ..good },
        Desc { length: u32::MAX, ..good },
        Desc { length: len + 1, ..good },
    ] {
        let before = server.dropped(Lost::BadDescriptor);
        tell_server(&attacker, &[bad, good]);
        let received = server.receive().unwrap();
        assert_eq!(received.iter().map(|mbuf| mbuf.len()).collect::<Vec<_>>(), [100], "{bad:?}");
        assert_eq!(server.dropped(Lost::BadDescriptor) - before, 1, "{bad:?}");
    }
    tell_server(&attacker, &[Desc { length: 13, ..good }, good]);
    assert_eq!(server.receive().unwrap().len(), 1);
    assert_eq!(server.dropped(Lost::Runt), 1);
    assert_eq!(server.pool.available(), BUFFERS);
}

#[test]
fn a_frame_without_an_end_is_dropped_whole() {
    let [_, (mut server, attacker)] = victims();
    let next = Desc { flags: DESC_NEXT, length: 100, ..Desc::default() };
    tell_server(&attacker, &[next; 16]);
    assert_eq!(server.receive().unwrap().len(), 0);
    assert_eq!(server.dropped(Lost::BadDescriptor), 1);
    tell_server(&attacker, &[Desc { flags: 0, ..next }]);
    assert_eq!(server.receive().unwrap().len(), 1, "and it works on");
    let long = Desc { length: 8000, ..next };
    tell_server(
        &attacker,
        &[long, long, long, long, long, long, long, long, long, Desc { flags: 0, ..long }],
    );
    assert_eq!(server.receive().unwrap().len(), 0);
    assert_eq!(server.dropped(Lost::Oversize), 1);
    assert_eq!(server.pool.available(), BUFFERS);
}

#[test]
fn an_index_that_cannot_be_ends_the_connection() {
    let [(mut client, of_client), (mut server, of_server)] = victims();
    of_server.ring(Direction::C2s).head().store(17, Ordering::Relaxed);
    assert_eq!(server.receive().err(), Some(Broken));
    of_server.ring(Direction::S2c).head().store(17, Ordering::Relaxed);
    assert_eq!(server.send(&[60]), Err(Broken));
    of_client.ring(Direction::S2c).tail().store(17, Ordering::Relaxed);
    assert_eq!(client.receive().err(), Some(Broken));
    of_client.ring(Direction::C2s).tail().store(1, Ordering::Relaxed);
    assert_eq!(client.send(&[60]), Err(Broken));
}

fn open(url: &str, pool: &Pool) -> (Box<dyn Port>, Box<dyn Queue>) {
    let mut port = crate::open(url, &OpenOptions::default()).unwrap();
    let queue = port.open_queues(&[pool.handle()]).unwrap().remove(0);
    (port, queue)
}

fn wait(done: impl FnMut() -> bool) -> bool {
    let mut done = done;
    let begun = Wall::now();
    while begun.elapsed() < Duration::from_secs(5) {
        if done() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    false
}

/// Any file descriptor, or none.
fn any_fd(random: &mut fastrand::Rng) -> Option<OwnedFd> {
    let file = |path| Some(std::fs::File::open(path).unwrap().into());
    match random.u8(..6) {
        0 => None,
        1 => Some(eventfd().unwrap()),
        2 => Some(Mapping::create(8192).unwrap().1),
        3 => file("/dev/zero"),
        4 => file("/proc/self/exe"),
        _ => {
            // SAFETY: a memfd that is not sealed, and is ours.
            let fd = unsafe { OwnedFd::from_raw_fd(libc::memfd_create(c"x".as_ptr(), libc::MFD_CLOEXEC)) };
            Some(fd)
        }
    }
}

fn any_message(random: &mut fastrand::Rng) -> Message {
    let direction = if random.bool() { Direction::C2s } else { Direction::S2c };
    let index = random.u16(..3);
    match random.u8(..12) {
        0..3 => {
            let secret = [0; 24];
            Message::Init(Init {
                version: VERSION,
                id: random.u32(..2),
                mode: 0,
                secret,
                name: "evil".into(),
            })
        }
        3..5 => Message::AddRegion { index, size: if random.bool() { 8192 } else { random.u64(..) } },
        5..9 => {
            let (offset, log2_ring_size) = (random.u32(..200) * 64, random.u8(..18));
            Message::AddRing(AddRing {
                direction,
                index: index / 2,
                region: index / 2,
                offset,
                log2_ring_size,
            })
        }
        9 => Message::Connect { interface: "evil".into() },
        10 => Message::Disconnect { reason: "evil".into() },
        _ => hello(),
    }
}

#[test]
fn any_control_messages_leave_the_server_serving() {
    let name = format!("@rxline-hostile-{}", std::process::id());
    let address = Address::new(&name).unwrap();
    let mut pool = pool();
    let (server, mut server_queue) = open(&format!("memif:{name},role=server"), &pool);
    let mut random = fastrand::Rng::new();
    for _ in 0..300 {
        let Ok(socket) = socket::connect(&address) else { continue };
        for _ in 0..random.usize(1..12) {
            let fd = any_fd(&mut random);
            if random.u8(..8) == 0 {
                let bytes: Vec<u8> = (0..random.usize(1..2 * MESSAGE_LEN)).map(|_| random.u8(..)).collect();
                // SAFETY: as many bytes are sent as the vector has.
                unsafe {
                    libc::send(socket.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), libc::MSG_NOSIGNAL)
                };
            } else {
                let fd = fd.as_ref().map(AsRawFd::as_raw_fd);
                socket::send(&socket, &any_message(&mut random), fd);
            }
        }
        let mut burst = Burst::new();
        server_queue.rx_burst(Clock::now(), &mut pool, &mut burst);
    }
    let (client, mut client_queue) = open(&format!("memif:{name}"), &pool);
    assert!(
        wait(|| client.link() == LinkState::Up && server.link() == LinkState::Up),
        "an honest client is served"
    );
    let mut burst: Burst = pool.copy_from(&[2; 60]).into_iter().collect();
    client_queue.tx_burst(Clock::now(), &mut burst);
    assert_eq!(server_queue.rx_burst(Clock::now(), &mut pool, &mut burst), 1);
}

#[test]
fn a_server_that_talks_nonsense_is_called_again() {
    let name = format!("@rxline-nonsense-{}", std::process::id());
    let listener = socket::listen(&Address::new(&name).unwrap()).unwrap();
    let pool = pool();
    let (client, _queue) = open(&format!("memif:{name}"), &pool);
    let mut random = fastrand::Rng::new();
    let mut calls = 0;
    let called_often = wait(|| {
        if let Some(peer) = socket::accept(&listener) {
            calls += 1;
            if calls % 2 == 0 {
                socket::send(&peer, &hello(), None);
            }
            socket::send(&peer, &any_message(&mut random), None);
            while let Received::Message(..) = socket::receive(&peer) {}
        }
        calls == 8
    });
    assert!(called_often, "called {calls} times");
    assert_eq!(client.link(), LinkState::Down);
}

#[test]
fn a_port_says_what_is_wrong_with_its_url() {
    let error = |url: &str| crate::open(url, &OpenOptions::default()).err().unwrap().to_string();
    assert!(error("memif:").contains("PATH is missing"));
    assert!(error("memif:@x,role=king").contains("role=server or role=client"));
    assert!(error("memif:@x,ring=1000").contains("write a power of two, as 1024"));
    assert!(error("memif:@x,secret=").contains("1 to 23 bytes"));
    assert!(error("memif:@x,queues=200,ring=16384,buffer=2048").contains("4 GiB"));
    assert!(error(&format!("memif:{}", "x".repeat(108))).contains("1 to 107 bytes"));
    assert!(error("memif:/nowhere/at/all,role=server").contains("listening at \"/nowhere/at/all\""));
    let name = format!("memif:@rxline-twice-{},role=server", std::process::id());
    let _first = crate::open(&name, &OpenOptions::default()).unwrap();
    assert!(error(&name).contains("write another id="));
    let _second = crate::open(&format!("{name},id=1"), &OpenOptions::default()).unwrap();
}
