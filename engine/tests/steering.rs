//! Where ports spread flows by a hash that the engine knows, everything arrives at its owner and nothing is handed over; where they do
//! not, the counters of the hand-over account for every datagram.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use engine::{BindError, Drop, Engine, Ledger, Outcome, UdpService, UdpSocket};

const CORES: usize = 3;
/// Sockets of each core and family.
const SOCKETS: usize = 4;
const ROUNDS: usize = 25;

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn engine(port: &str, host: u8) -> Engine {
    let builder = Engine::builder().port(port).address(format!("192.0.2.{host}/24"));
    builder.address(format!("2001:db8::{host}/64")).core_count(CORES).start().unwrap()
}

fn echo(engine: &Engine) -> [UdpService; 2] {
    let echo = |cx: &mut engine::Cx<'_>, _: &engine::Socket, datagram: engine::Datagram| match cx.send(
        datagram.local,
        datagram.peer,
        datagram.payload,
    ) {
        Ok(()) => Outcome::Delivered,
        Err(reason) => Outcome::Dropped(reason),
    };
    ["0.0.0.0:7", "[::]:7"].map(|local| engine.udp().serve(addr(local), echo).unwrap())
}

/// Sockets for each core, in order: their replies are to come there.
fn clients(client: &Engine) -> Vec<(usize, UdpSocket, SocketAddr)> {
    let families = [("192.0.2.2:0", "192.0.2.1:7"), ("[2001:db8::2]:0", "[2001:db8::1]:7")]
        .map(|(a, b)| (addr(a), addr(b)));
    let mut sockets = Vec::new();
    for core in 0..CORES {
        for (local, server) in families {
            for _ in 0..SOCKETS {
                let socket = client.udp().connect_on(core, local, server).unwrap();
                assert_eq!(
                    client.owner(socket.local_addr(), server),
                    core,
                    "the port was chosen for its core"
                );
                sockets.push((core, socket, server));
            }
        }
    }
    sockets
}

/// Everything is sent, echoed and received, in order.
fn talk(sockets: &[(usize, UdpSocket, SocketAddr)]) {
    for round in 0..ROUNDS {
        for (_, socket, server) in sockets {
            socket.send_to(&[round as u8; 40], *server).unwrap();
        }
        for (core, socket, _) in sockets {
            let mut buffer = [0; 40];
            let received = socket.recv_timeout(Duration::from_secs(20), &mut buffer);
            received.unwrap_or_else(|error| panic!("round {round}, core {core}: {error}"));
            assert_eq!(buffer, [round as u8; 40]);
        }
    }
}

/// Ends both and returns their ledgers by core, all of which close.
fn end(engines: [Engine; 2]) -> [Vec<Ledger>; 2] {
    let reports = engines.map(Engine::shutdown);
    for report in &reports {
        assert_eq!(report.leaks(), Vec::<String>::new());
    }
    reports.map(|report| report.stats.cores.into_iter().map(|core| core.ledger).collect())
}

#[test]
fn replies_arrive_at_their_owners_where_the_port_steers() {
    let server = engine(&format!("memory:steered,rss,queues={CORES}"), 1);
    let client = engine("memory:steered", 2);
    assert!(server.stats().steered && client.stats().steered);
    let (service, sockets) = (echo(&server), clients(&client));
    let tried = client.stats().ports_tried as usize;
    assert!(
        tried > sockets.len(),
        "{tried} looks for {} ports is no choice among {CORES} cores",
        sockets.len()
    );
    talk(&sockets);
    drop((service, sockets));

    let [server, client] = end([server, client]);
    let each = (2 * SOCKETS * ROUNDS) as u64;
    for (core, ledger) in client.iter().enumerate() {
        assert_eq!((ledger.at_owner, ledger.delivered), (each, each), "core {core}: {ledger}");
    }
    for ledger in client.iter().chain(&server) {
        assert_eq!((ledger.handed_out, ledger.handed_in), (0, 0), "{ledger}");
    }
    assert_eq!(server.iter().map(|ledger| ledger.at_owner).sum::<u64>(), CORES as u64 * each);
}

/// The same without a hash in the port: queue n of one end talks with queue n of the other, so that most flows come in somewhere else.
#[test]
fn the_hand_over_accounts_for_every_datagram_where_the_port_does_not_steer() {
    let server = engine(&format!("memory:unsteered,queues={CORES}"), 1);
    let client = engine("memory:unsteered", 2);
    assert!(!server.stats().steered && !client.stats().steered);
    let (service, sockets) = (echo(&server), clients(&client));
    talk(&sockets);
    drop((service, sockets));

    let all = (2 * SOCKETS * ROUNDS * CORES) as u64;
    for cores in end([server, client]) {
        let mut sum = Ledger::default();
        cores.iter().for_each(|ledger| sum.merge(ledger));
        assert!(sum.handed_out > 0, "{sum}");
        assert_eq!(sum.handed_in, sum.handed_out, "{sum}");
        assert_eq!(sum.at_owner + sum.handed_in, all, "{sum}");
        assert_eq!(sum.drops.get(Drop::HandOverFull), 0, "{sum}");
        assert_eq!(sum.delivered, all, "{sum}");
    }
}

/// A flood that the owner cannot keep up with: what finds the ring full is dropped by name, and the three counters are all there is.
#[test]
fn a_full_hand_over_ring_is_a_drop_by_name() {
    const FLOOD: u64 = 20_000;
    let server = Engine::builder()
        .port("memory:flood,queues=2")
        .address("192.0.2.1/24")
        .core_count(2)
        .start()
        .unwrap();
    let client = Engine::builder().port("memory:flood").address("192.0.2.2/24").start().unwrap();
    let slow = |cx: &mut engine::Cx<'_>, _: &engine::Socket, _: engine::Datagram| {
        if cx.core() == 1 {
            std::thread::sleep(Duration::from_micros(20));
        }
        Outcome::Delivered
    };
    let service = server.udp().serve(addr("192.0.2.1:7"), slow).unwrap();
    // The client has one queue, which core 0 of the server polls; core 1 owns the flow.
    let mut socket = client.udp().bind(addr("192.0.2.2:0")).unwrap();
    while server.owner(addr("192.0.2.1:7"), socket.local_addr()) != 1 {
        socket = client.udp().bind(addr("192.0.2.2:0")).unwrap();
    }
    for _ in 0..FLOOD {
        socket.send_to(b"flood", addr("192.0.2.1:7")).unwrap();
    }
    let deadline = Instant::now() + Duration::from_secs(30);
    let arrived = |sum: &Ledger| sum.at_owner + sum.handed_out + sum.drops.get(Drop::HandOverFull);
    while arrived(&server.stats().ledger()) < FLOOD && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    drop((service, socket));
    let [server, _client] = end([server, client]);
    let mut sum = Ledger::default();
    server.iter().for_each(|ledger| sum.merge(ledger));
    assert_eq!(arrived(&sum), FLOOD, "{sum}");
    assert_eq!(sum.at_owner, 0, "{sum}");
    assert!(sum.drops.get(Drop::HandOverFull) > 0, "the ring never was full: {sum}");
    assert_eq!(sum.handed_in, sum.handed_out, "{sum}");
}

#[test]
fn of_two_ports_of_which_one_steers_neither_owns_the_flows() {
    let both = Engine::builder()
        .port("memory:both-a,rss,queues=2")
        .port("memory:both-b,queues=2")
        .core_count(2)
        .start()
        .unwrap();
    assert!(!both.stats().steered);
    let alike = Engine::builder()
        .port("memory:alike-a,rss,queues=2")
        .port("memory:alike-b,rss,queues=2")
        .core_count(2)
        .start()
        .unwrap();
    assert!(alike.stats().steered, "the engine gave both one key");
}

#[test]
fn a_port_is_chosen_only_where_there_is_a_choice() {
    let engine = engine("memory:choice,rss,queues=3", 1);
    let connect = |core, local: &str| engine.udp().connect_on(core, addr(local), addr("192.0.2.2:9")).err();
    assert!(matches!(connect(0, "0.0.0.0:0"), Some(BindError::PortGiven { .. })));
    assert!(matches!(connect(0, "192.0.2.1:99"), Some(BindError::PortGiven { .. })));
    assert!(matches!(connect(3, "192.0.2.1:0"), Some(BindError::NoSuchCore { core: 3, cores: 3 })));
    assert!(matches!(connect(0, "192.0.2.77:0"), Some(BindError::NotOurs { .. })));
    assert_eq!(connect(2, "192.0.2.1:0"), None);
}
