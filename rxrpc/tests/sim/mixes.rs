//! Ten thousand random mixes of calls, aborts, closes and timeouts on random wires, each from its seed.

use crate::calls::{CLIENT, Kind, Plan, Run, SERVER, Trouble};
use crate::common::{Bottleneck, Faults, Rerun, seeds};
use fastrand::Rng;
use rxrpc::{CongestionAlgorithm, EndpointConfig};
use std::time::Duration;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A random call. Most are small.
fn plan(random: &mut Rng) -> Plan {
    let mut size = || match random.u8(..100) {
        0..10 => 0,
        10..60 => random.usize(..200),
        60..85 => random.usize(..6_000),
        85..97 => random.usize(..40_000),
        _ => random.usize(..100_000),
    };
    let (request, reply) = (size(), size());
    let kind = match random.u8(..100) {
        0..5 => Kind::ClientAbort(random.usize(..=request)),
        5..10 => Kind::ServerAbort(random.usize(..=request)),
        10..15 => Kind::EarlyReply(random.usize(..=request)),
        15..20 => Kind::HardLimit(ms(random.u64(1..2_000))),
        _ => Kind::Plain,
    };
    Plan { kind, request, reply, slow: random.u8(..) < 20 }
}

fn faults(random: &mut Rng) -> Faults {
    let level = [0.0, 0.01, 0.05, 0.2][random.usize(..4)];
    Faults {
        loss: level * random.f64(),
        duplication: level * random.f64(),
        reorder: level * random.f64() * 2.0,
        corruption: level * random.f64() * 0.2,
        delay: Duration::from_micros([5, 200, 2_000, 20_000][random.usize(..4)]),
        jitter: Duration::from_micros([0, 20, 3_000][random.usize(..3)]),
    }
}

/// From a slow line to one that is never full.
fn bottleneck(random: &mut Rng) -> Option<Bottleneck> {
    let bytes_per_second = [200_000, 2_000_000, 100_000_000][random.usize(..3)];
    let queue_max = [8_000, 50_000, 400_000][random.usize(..3)];
    random.bool().then_some(Bottleneck { bytes_per_second, queue_max })
}

fn config(random: &mut Rng) -> EndpointConfig {
    let window = |random: &mut Rng| if random.bool() { 255 } else { random.u32(1..=255) };
    EndpointConfig {
        jumbo_max: random.u32(0..6),
        mtu: [1_444, 65_535][random.usize(..2)],
        receive_window: window(random),
        transmit_window: window(random),
        congestion: if random.bool() { CongestionAlgorithm::Cubic } else { CongestionAlgorithm::Bbr },
        calls_max: 100,
        conns_max: 100,
        peers_max: 16,
        unread_buffers_max: 1_024,
        send_buffers_max: 512,
        ..EndpointConfig::default()
    }
}

/// In three of ten seeds something befalls one end, once or twice.
fn troubles(random: &mut Rng) -> Vec<(Duration, Trouble)> {
    let count = if random.u8(..10) < 3 { random.usize(1..=2) } else { 0 };
    let mut troubles: Vec<_> = (0..count)
        .map(|_| {
            let at = if random.bool() { CLIENT } else { SERVER };
            let trouble = match random.bool() {
                true => Trouble::Close(at),
                false => Trouble::Silence(at, ms(random.u64(1..30_000))),
            };
            (ms(random.u64(..300)), trouble)
        })
        .collect();
    troubles.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
    troubles
}

fn random_mix(seed: u64) {
    let _rerun = Rerun { test: "sim mixes", seed };
    let mut random = Rng::with_seed(seed ^ 0x5eed);
    let faults = faults(&mut random);
    let calls = random.usize(1..12);
    let plans = (0..calls).map(|_| plan(&mut random)).collect();
    let concurrent = random.usize(1..=calls);
    let config = config(&mut random);
    let mut run = Run::new(seed, faults, plans, concurrent, config);
    run.net.bottleneck = bottleneck(&mut random);
    run.net.mtu = [1_472, 4_000, 8_972][random.usize(..3)];
    let began = run.net.now;
    run.troubles = troubles(&mut random).into_iter().map(|(at, trouble)| (began + at, trouble)).collect();
    run.run();
    if seed.is_multiple_of(16) {
        run.net.assert_reaped();
    }
}

#[test]
fn mixes_a() {
    seeds(0..2_500).for_each(random_mix);
}

#[test]
fn mixes_b() {
    seeds(2_500..5_000).for_each(random_mix);
}

#[test]
fn mixes_c() {
    seeds(5_000..7_500).for_each(random_mix);
}

#[test]
fn mixes_d() {
    seeds(7_500..10_000).for_each(random_mix);
}

#[test]
fn megabytes_each_way() {
    for seed in seeds(0..8) {
        let _rerun = Rerun { test: "sim megabytes", seed };
        let faults = Faults { loss: 0.01, reorder: 0.02, duplication: 0.005, ..Faults::none(500) };
        let plans =
            vec![Plan::plain(3_000_000, 10), Plan::plain(10, 3_000_000), Plan::plain(1_000_000, 1_000_000)];
        Run::new(seed, faults, plans, 3, EndpointConfig::default()).run();
    }
}

#[test]
fn more_calls_than_places_wait_their_turn() {
    let mut run =
        Run::new(1, Faults::none(100), vec![Plan::plain(100, 100); 200], 100, EndpointConfig::default());
    run.run();
    assert!(run.net.nodes[CLIENT].rx.stats().calls_waited > 0);
    assert_eq!(run.net.nodes[CLIENT].rx.stats().client_conns, 4, "the default bundle has four connections");
}
