//! A counting allocator proves it: receiving, echoing and delivering datagrams allocates and frees nothing.
//!
//! `STEADY_SECONDS=10 cargo test -p engine --test no_allocation` goes on for so long.

mod counting;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use counting::{counts, operations};
use engine::{Engine, Idle, Outcome};

#[test]
fn steady_traffic_allocates_nothing_on_the_cores() {
    let addr = |text: &str| text.parse::<SocketAddr>().unwrap();
    let start = |host| {
        let builder = Engine::builder().port("memory:steady").address(format!("192.0.2.{host}/24"));
        builder.idle(Idle::Sleep { spins: 50, pauses: 50 }).start().unwrap()
    };
    let (server, client) = (start(1), start(2));
    let _service = server.udp().serve(addr("192.0.2.1:7"), |cx, _, datagram| {
        // The service runs on the polling thread that both engines share.
        counts(true);
        if datagram.payload.len() == 1 {
            drop(std::hint::black_box(Box::new(1)));
        }
        match cx.send(datagram.local, datagram.peer, datagram.payload) {
            Ok(()) => Outcome::Delivered,
            Err(reason) => Outcome::Dropped(reason),
        }
    });
    let socket = client.udp().bind(addr("192.0.2.2:0")).unwrap();
    // Small ones, and some that travel as fragments.
    let round = |size: usize| {
        let mut buffer = [0; 4096];
        socket.send_to(&buffer[..size], addr("192.0.2.1:7")).unwrap();
        assert_eq!(socket.recv_timeout(Duration::from_secs(10), &mut buffer).unwrap().0, size);
    };
    let rounds = |n: usize| (0..n).for_each(|i| round(if i % 10 == 0 { 4000 } else { 100 }));
    rounds(200);
    round(1);
    assert!(operations() >= 2, "the counter must see what the service allocates for one byte");
    let before = operations();
    let seconds = std::env::var("STEADY_SECONDS").map_or(0, |text| text.parse().expect("seconds"));
    let end = Instant::now() + Duration::from_secs(seconds);
    rounds(2000);
    while Instant::now() < end {
        rounds(100);
    }
    std::thread::sleep(Duration::from_millis(20));
    rounds(100);
    assert_eq!(operations() - before, 0, "allocations and frees on polling threads");
}
