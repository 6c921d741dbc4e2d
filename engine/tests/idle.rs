//! An idle engine sleeps, and wakes for whatever comes. A process of its own: cores of other tests would keep the thread awake.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use engine::{Engine, Idle, Outcome};

#[test]
fn an_idle_engine_sleeps_and_wakes_for_a_send() {
    let addr = |text: &str| text.parse::<SocketAddr>().unwrap();
    let start = |host| {
        let builder = Engine::builder().port("memory:idle").address(format!("192.0.2.{host}/24"));
        builder.idle(Idle::Sleep { spins: 10, yields: 10 }).start().unwrap()
    };
    let (server, client) = (start(1), start(2));
    let _service = server.udp().serve(addr("192.0.2.1:7"), |cx, _, datagram| {
        match cx.send(datagram.local, datagram.peer, datagram.payload) {
            Ok(()) => Outcome::Delivered,
            Err(reason) => Outcome::Dropped(reason),
        }
    });
    let socket = client.udp().bind(addr("192.0.2.2:0")).unwrap();
    for round in 0..5 {
        let before = client.stats().cores[0].clone();
        thread::sleep(Duration::from_millis(50));
        let after = client.stats().cores[0].clone();
        assert!(
            after.sleeps > before.sleeps,
            "round {round}: it did not sleep in 50 ms without anything to do"
        );
        assert!(
            after.turns - before.turns < 50_000,
            "round {round}: {} turns are no sleep",
            after.turns - before.turns
        );
        socket.send_to(b"up!", addr("192.0.2.1:7")).unwrap();
        socket.recv_timeout(Duration::from_secs(10), &mut [0; 8]).unwrap();
    }
}
