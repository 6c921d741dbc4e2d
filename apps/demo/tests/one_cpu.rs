//! The demo as a program uses it: every call verified, both services used, nothing left behind.

use demo::{Demo, DemoConfig};
use engine::Idle;
use std::thread::sleep;
use std::time::Duration;

fn config(request_bytes: u32, reply_bytes: u32) -> DemoConfig {
    // One polling thread for all four engines.
    let cpu = core_affinity::get_core_ids().expect("the system says")[0].id;
    let (idle, gap) = (Idle::default(), Duration::ZERO);
    DemoConfig { cpus: vec![cpu], idle, in_flight: 16, gap, connections: 4, request_bytes, reply_bytes }
}

fn play(config: DemoConfig) {
    let mut demo = Demo::start(&config).expect("it needs nothing");
    demo.begin();
    sleep(Duration::from_millis(1500));
    let ending = demo.finish();
    assert!(ending.holds(), "{}\n{:?}", ending.summary, ending.leaks);
    assert!(ending.summary.verified > 100, "{}", ending.summary);
    assert!(ending.served.iter().all(|&calls| calls > 0), "{:?}", ending.served);
    assert_eq!(ending.served.iter().sum::<u64>(), ending.summary.calls);
}

#[test]
fn small_calls_on_one_cpu() {
    play(config(64, 64));
}

#[test]
fn long_calls_on_one_cpu() {
    play(config(20_000, 50_000));
}
