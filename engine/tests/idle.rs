//! An idle engine sleeps, and wakes for whatever comes. A process of its own: cores of other tests would keep the thread awake.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use engine::{Engine, Idle, Outcome};

/// Of all threads of this process.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[test]
fn an_idle_engine_sleeps_and_wakes_for_a_send() {
    let addr = |text: &str| text.parse::<SocketAddr>().unwrap();
    let start = |host| {
        let builder = Engine::builder().port("memory:idle").address(format!("192.0.2.{host}/24"));
        builder.idle(Idle::Sleep { spins: 10, pauses: 10 }).start().unwrap()
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
        let (before, cpu) = (client.stats().cores[0].clone(), cpu_time());
        thread::sleep(Duration::from_millis(200));
        let (after, cpu) = (client.stats().cores[0].clone(), cpu_time() - cpu);
        let turns = after.turns - before.turns;
        assert!(turns < 1000, "round {round}: {turns} turns are no sleep");
        assert!(cpu < Duration::from_millis(10), "round {round}: {cpu:?} of CPU time in 200 ms of sleep");
        socket.send_to(b"up!", addr("192.0.2.1:7")).unwrap();
        socket.recv_timeout(Duration::from_secs(10), &mut [0; 8]).unwrap();
        assert!(client.stats().cores[0].sleeps > before.sleeps, "round {round}: it did not sleep");
    }
}
