//! Replies that nobody reads. In a file of its own, because it measures a rate.

mod support;

use std::thread;
use std::time::{Duration, Instant};

use rxrpc::{Client, SocketConfig};

use support::{LONG, Pair, SERVICE, ask, server};

/// How many whole calls a second a client makes.
///
/// The best of several rounds: other work on the machine takes its time from some of them.
fn rate(client: &Client) -> f64 {
    const CALLS: usize = 50;
    let round = |_| {
        let begun = Instant::now();
        for _ in 0..CALLS {
            assert_eq!(ask(client, b"small").unwrap(), b"small");
        }
        CALLS as f64 / begun.elapsed().as_secs_f64()
    };
    (0..10).map(round).fold(0.0, f64::max)
}

#[test]
fn a_thousand_unread_replies_harm_nobody_else() {
    const UNREAD: usize = 1_000;
    const BUDGET: usize = 24 << 20;
    let mut config = SocketConfig { unread_budget: BUDGET, ..SocketConfig::default() };
    config.endpoint.bundle_conns_max = 300;
    let pair = Pair::with("unread", 1, config);
    let serving = pair.service().serve(|call| match call.request() {
        b"large" => call.answer(|_| vec![7; 64 << 10]),
        _ => call.answer(<[u8]>::to_vec),
    });
    let (lazy, other) = (pair.client(), pair.client());
    let before = rate(&other);
    let calls: Vec<_> = (0..UNREAD)
        .map(|_| {
            let mut call = lazy.call(server(), SERVICE).unwrap();
            call.send(b"large").unwrap();
            call.finish().unwrap();
            call
        })
        .collect();
    let mut peak = 0;
    for _ in 0..20 {
        thread::sleep(Duration::from_millis(20));
        peak = peak.max(pair.client.rx().unread_bytes());
    }
    let meanwhile = rate(&other);
    peak = peak.max(pair.client.rx().unread_bytes());
    assert!(peak > 1 << 20, "the replies came: {peak} bytes unread");
    assert!(peak <= BUDGET as u64, "{peak} bytes unread");
    let used = pair.client.stats().cores[0].buffers_in_use;
    assert!(used < 16_384, "the pool has buffers left: {used} in use");
    println!("{meanwhile:.0} calls/s with the unread, {before:.0} without");
    assert!(meanwhile > before / 3.0, "{meanwhile:.0} calls/s with the unread, {before:.0} without");
    // Whoever reads after all gets everything.
    let mut calls = calls.into_iter();
    for mut call in calls.by_ref().take(20) {
        call.set_timeout(Some(LONG));
        assert!(call.read_all().unwrap() == vec![7; 64 << 10]);
    }
    drop((calls, serving, lazy, other));
    pair.end();
}
