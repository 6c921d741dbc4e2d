//! What the demo says about idle policies. A process of its own: demos of other tests would keep its threads awake.

use demo::{DemoConfig, Price};
use engine::Idle;
use std::time::Duration;

/// The price of sleeping is latency, and that of spinning is the CPU.
#[test]
fn each_policy_has_its_price() {
    let cpu = core_affinity::get_core_ids().expect("the system says")[0].id;
    let config = DemoConfig {
        cpus: vec![cpu],
        idle: Idle::default(),
        in_flight: 1,
        gap: Duration::ZERO,
        connections: 1,
        request_bytes: 64,
        reply_bytes: 64,
    };
    let price = |idle| {
        let price = Price::of(idle, &config, Duration::from_millis(600)).expect("it needs nothing");
        assert!(price.holds(), "{price:?}");
        price
    };
    let [spin, sleep] = [Idle::Spin, Idle::Sleep { spins: 0, pauses: 0 }].map(price);
    assert_eq!(spin.sleeps_per_call, 0.0, "{spin:?}");
    assert!(sleep.sleeps_per_call >= 1.0, "{sleep:?}");
    assert!(sleep.cpu_percent < spin.cpu_percent, "{sleep:?} {spin:?}");
}
