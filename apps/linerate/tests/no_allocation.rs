//! A counting allocator proves it: making, sending, receiving, judging, forwarding and answering allocate and free nothing.

#[path = "../../../engine/tests/counting/mod.rs"]
mod counting;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use counting::{counts, operations};
use engine::{Cx, Datagram, Engine, Handler, Outcome, Socket};
use linerate::forward::Rewrite;
use linerate::run::{Load, Run, RunConfig};
use linerate::template::Template;

/// Lives on the polling thread of the runs, and makes it count. Allocates once when it is asked to.
struct Witness;

static ALLOCATED: AtomicBool = AtomicBool::new(false);

impl Handler for Witness {
    type Command = ();
    const RAW: bool = true;

    fn input(&mut self, _: &mut Cx<'_>, _: &Socket, _: Datagram) -> Outcome {
        unreachable!("a raw handler is given no datagrams")
    }

    fn command(&mut self, _: &mut Cx<'_>, (): ()) {
        drop(std::hint::black_box(Box::new(1)));
        ALLOCATED.store(true, Ordering::Relaxed);
    }
}

#[test]
fn steady_traffic_allocates_nothing_on_the_cores() {
    let cpu = core_affinity::get_core_ids().unwrap()[0].id;
    let config = |ports: &[&str]| RunConfig {
        ports: ports.iter().map(|&port| port.to_owned()).collect(),
        cpus: vec![cpu],
        buffers: 4096,
        mtu: None,
        idle: Default::default(),
        seed: 7,
    };
    // The device under test is a run as well: what is sent on the first wire comes back by the second.
    let device = Run::start(&config(&["memory:steady-a", "memory:steady-b"])).unwrap();
    device.forward(Rewrite::FiveTuple).unwrap();
    let mut tester = Run::start(&config(&["memory:steady-a", "memory:steady-b"])).unwrap();
    let template = Template {
        source: "random:198.18.0.0/16".parse().unwrap(),
        source_ports: "1024-2047".parse().unwrap(),
        sizes: "64-1518".parse().unwrap(),
        ..Template::default()
    };
    let rate = "30kpps".parse().unwrap();
    tester
        .generate(&Load { template, peer: None, rate, duration: None, frames: None, one_way: false })
        .unwrap();
    let witness = Engine::builder()
        .port("null:")
        .cores([cpu])
        .start_with(|_| {
            counts(true);
            Witness
        })
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    let after = |frames: u64| {
        while tester.snapshot().marked.received < frames {
            assert!(Instant::now() < deadline, "{:?}", tester.snapshot().marked);
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    after(2000);
    let before = operations();
    witness.commands(0).send(()).unwrap();
    while !ALLOCATED.load(Ordering::Relaxed) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(operations() >= before + 2, "the counter must see what the witness allocates");
    after(4000);
    let before = operations();
    after(20_000);
    assert_eq!(operations() - before, 0, "allocations and frees on the polling thread");
    tester.stop();
    assert!(tester.wait_over(Duration::from_secs(10)) && tester.wait_arrived(Duration::from_secs(10)));
    let marked = tester.snapshot().marked;
    assert_eq!((marked.missing, marked.corrupted, marked.foreign), (0, 0, 0), "{marked:?}");
    for report in [tester.shutdown(), device.shutdown()] {
        assert_eq!(report.leaks(), Vec::<String>::new());
    }
}
