//! Raw handlers: frames pass untouched, and every one is accounted for.

use std::time::{Duration, Instant};

use engine::pmd::{self, Burst, Clock, OpenOptions, PoolConfig};
use engine::{Cx, Datagram, Engine, Handler, Outcome, Socket};

/// By a frame's last byte: 0 is forwarded to the other port, 1 is taken and thrown away, 2 is left.
struct Sorter;

impl Handler for Sorter {
    type Command = ();
    const RAW: bool = true;

    fn raw(&mut self, cx: &mut Cx<'_>, port: usize, burst: &mut Burst) {
        let mut left = Burst::new();
        for frame in burst.drain(..) {
            match frame.data().last() {
                Some(0) => cx.send_frame(1 - port, frame),
                Some(1) => drop(frame),
                _ => left.push(frame),
            }
        }
        *burst = left;
    }

    fn input(&mut self, _: &mut Cx<'_>, _: &Socket, _: Datagram) -> Outcome {
        unreachable!("a raw handler is given no datagrams")
    }

    fn command(&mut self, _: &mut Cx<'_>, (): ()) {}
}

#[test]
fn every_raw_frame_is_accounted_for() {
    let engine = Engine::builder().port("memory:raw-a").port("memory:raw-b").start_with(|_| Sorter).unwrap();
    let mut pool = PoolConfig::new("raw test", 1024).build().unwrap().claim();
    let mut a = pmd::open("memory:raw-a", &OpenOptions::default())
        .unwrap()
        .open_queues(&[pool.handle()])
        .unwrap()
        .remove(0);
    let mut b = pmd::open("memory:raw-b", &OpenOptions::default())
        .unwrap()
        .open_queues(&[pool.handle()])
        .unwrap()
        .remove(0);
    let (mut out, mut back) = (Burst::new(), Burst::new());
    let (mut sent, mut arrived) = (0u32, 0u32);
    let deadline = Instant::now() + Duration::from_secs(20);
    while arrived < 3000 && Instant::now() < deadline {
        while !out.is_full() && sent < 9000 {
            let mut frame = [0; 64];
            frame[20..24].copy_from_slice(&(sent / 3).to_be_bytes());
            frame[63] = (sent % 3) as u8;
            let Some(frame) = pool.copy_from(&frame) else { break };
            out.push(frame);
            sent += 1;
        }
        a.tx_burst(Clock::now(), &mut out);
        b.rx_burst(Clock::now(), &mut pool, &mut back);
        for frame in back.drain(..) {
            assert_eq!(frame.data()[20..24], arrived.to_be_bytes(), "forwarded in order");
            arrived += 1;
        }
    }
    assert_eq!(arrived, 3000);
    let report = engine.shutdown();
    let ledger = report.stats.ledger();
    assert_eq!((ledger.received, ledger.delivered, ledger.consumed), (9000, 3000, 3000), "{ledger}");
    assert_eq!(ledger.drops.get(engine::Drop::RawUnclaimed), 3000, "{ledger}");
    assert_eq!(report.leaks(), Vec::<String>::new());
}
