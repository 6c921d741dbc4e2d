//! Several cores: every datagram reaches the owner of its flow, whichever queue it came in by; sleeping cores are woken.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use engine::{Engine, Idle, Outcome};

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// Flows of one client over two queues to three cores.. of which each must see the flows that it owns and no other.
fn flows_reach_their_owners(wire: &str, cores: usize, idle: Idle) {
    let port = format!("memory:{wire},queues={cores}");
    let server =
        Engine::builder().port(&port).address("192.0.2.1/24").core_count(cores).idle(idle).start().unwrap();
    // The client has one queue only, so that everything arrives at the server's first.
    let client =
        Engine::builder().port(format!("memory:{wire}")).address("192.0.2.2/24").idle(idle).start().unwrap();
    let seen: Arc<Mutex<HashMap<SocketAddr, (usize, u32)>>> = Arc::default();
    let record = seen.clone();
    let service = server.udp().serve(addr("192.0.2.1:7"), move |cx, _, datagram| {
        let mut seen = record.lock().unwrap();
        let entry = seen.entry(datagram.peer).or_insert((cx.core(), 0));
        assert_eq!(entry.0, cx.core(), "a flow moved");
        assert_eq!(datagram.payload.data(), entry.1.to_be_bytes(), "a flow lost its order");
        entry.1 += 1;
        drop(seen);
        let _ = datagram;
        Outcome::Delivered
    });
    let service = service.unwrap();
    const FLOWS: usize = 60;
    const EACH: u32 = 20;
    let sockets: Vec<_> = (0..FLOWS).map(|_| client.udp().bind(addr("192.0.2.2:0")).unwrap()).collect();
    for i in 0..EACH {
        for socket in &sockets {
            socket.send_to(&i.to_be_bytes(), addr("192.0.2.1:7")).unwrap();
        }
    }
    let deadline = Instant::now() + Duration::from_secs(20);
    while seen.lock().unwrap().values().map(|(_, n)| *n).sum::<u32>() < FLOWS as u32 * EACH {
        assert!(
            Instant::now() < deadline,
            "not everything arrived: {} {:?}",
            server.stats().ledger(),
            seen.lock().unwrap()
        );
        std::thread::sleep(Duration::from_millis(1));
    }
    let seen = seen.lock().unwrap();
    for (peer, (core, _)) in seen.iter() {
        assert_eq!(*core, server.owner(addr("192.0.2.1:7"), *peer));
    }
    for core in 0..cores {
        assert!(seen.values().any(|(owner, _)| *owner == core), "core {core} owns none of {FLOWS} flows");
    }
    drop(seen);
    drop((service, sockets));
    let reports = [client.shutdown(), server.shutdown()];
    let ledger = reports[1].stats.ledger();
    assert!(ledger.handed_out > 0 && ledger.handed_out == ledger.handed_in, "{ledger:?}");
    for report in &reports {
        assert_eq!(report.leaks(), Vec::<String>::new());
    }
}

#[test]
fn two_cores_that_never_sleep() {
    flows_reach_their_owners("two", 2, Idle::Pause);
}

#[test]
fn five_cores_that_share_threads_and_sleep_at_once() {
    flows_reach_their_owners("five", 5, Idle::Sleep { spins: 0, pauses: 0 });
}

#[test]
fn one_socket_collects_from_every_core() {
    let server = Engine::builder()
        .port("memory:collect,queues=3")
        .address("192.0.2.1/24")
        .core_count(3)
        .start()
        .unwrap();
    let client = Engine::builder().port("memory:collect").address("192.0.2.2/24").start().unwrap();
    let collector = server.udp().bind(addr("0.0.0.0:7")).unwrap();
    let sockets: Vec<_> = (0..20).map(|_| client.udp().bind(addr("192.0.2.2:0")).unwrap()).collect();
    let mut next: HashMap<SocketAddr, u32> = HashMap::new();
    for i in 0..100u32 {
        for socket in &sockets {
            socket.send_to(&i.to_be_bytes(), addr("192.0.2.1:7")).unwrap();
        }
        for _ in &sockets {
            let mut buffer = [0; 4];
            let (_, peer) =
                collector.recv_timeout(Duration::from_secs(10), &mut buffer).expect("every datagram arrives");
            let expected = next.entry(peer).or_insert(0);
            assert_eq!(u32::from_be_bytes(buffer), *expected);
            *expected += 1;
        }
    }
    drop((collector, sockets));
    let reports = [client.shutdown(), server.shutdown()];
    for report in &reports {
        assert_eq!(report.leaks(), Vec::<String>::new());
    }
}
