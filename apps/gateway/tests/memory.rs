//! The gateway on real engines, over `memory:` wires.

mod common;

use std::time::{Duration, Instant};

use common::{Net, gateway_address, reply_to, request, server_address};
use rxrpc::code;

#[test]
fn calls_cross_it_whole_and_nothing_is_left_afterwards() {
    let net = Net::start("whole");
    for n in 0..200 {
        let (reply, payload) = ([0, 4, 1412, 100_000][n % 4], [0, 100, 5_000, 200_000, 1_400][n % 5]);
        let request = request(reply, 0, payload);
        assert!(net.call(&request).expect("a reply") == reply_to(&request), "call {n}: other bytes");
    }
    net.wait_for("all calls end", |stats| stats.calls.in_progress == 0);
    let stats = net.gateway.stats();
    assert_eq!((stats.calls.accepted, stats.calls.succeeded), (200, 200));
    for backend in &stats.backends {
        assert!(backend.alive && backend.succeeded >= 20, "{}", stats.backend_table());
    }
    let report = net.finish();
    assert_eq!(report.stats.ledger.imbalance, 0);
}

#[test]
fn every_byte_crosses_a_bad_wire() {
    let net = Net::start_with("bad", "sim:seed=7,loss=0.02,dup=0.01,reorder=0.05@", "");
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let client = &net.client;
            scope.spawn(move || {
                for n in 0..10 {
                    let request = request([4, 60_000][n % 2], 0, 30_000 + thread);
                    let reply =
                        client.request(gateway_address(), common::SERVICE, &request).expect("a reply");
                    assert!(reply == reply_to(&request), "other bytes");
                }
            });
        }
    });
    net.finish();
}

#[test]
fn aborts_pass_with_their_codes() {
    let net = Net::start("aborts");
    for code in [5377, -1, i32::MIN] {
        let failed = net.call(&request(0, code, 3000)).expect_err("it is aborted");
        assert_eq!(failed.abort_code(), Some(code), "{failed}");
    }
    net.finish();
}

#[test]
fn a_dead_backend_is_left_out_and_used_again_when_it_answers() {
    let mut net = Net::start("dead");
    net.serving[0] = None;
    // Nobody is bound there now: the host says so by ICMP, to calls and to probes.
    for _ in 0..20 {
        match net.call(&request(4, 0, 10)) {
            Ok(_) => {}
            Err(failed) => assert_eq!(failed.abort_code(), Some(code::CALL_DEAD), "{failed}"),
        }
    }
    net.wait_for("it is dead", |stats| !stats.backends[0].alive);
    for _ in 0..20 {
        net.call(&request(4, 0, 10)).expect("the other one answers");
    }
    net.serve(0);
    net.wait_for("it is alive", |stats| stats.backends[0].alive);
    let before = net.gateway.stats().backends[0].succeeded;
    for _ in 0..20 {
        net.call(&request(4, 0, 10)).expect("either answers");
    }
    assert!(net.gateway.stats().backends[0].succeeded > before, "{}", server_address(0));
    net.finish();
}

#[test]
fn none_alive_is_an_abort_at_once() {
    let mut net = Net::start("none");
    net.serving = vec![None, None];
    net.wait_for("both are dead", |stats| stats.backends.iter().all(|backend| !backend.alive));
    let begun = Instant::now();
    let failed = net.call(&request(4, 0, 10)).expect_err("nobody is there");
    assert_eq!(failed.abort_code(), Some(code::RESTARTING), "{failed}");
    assert!(begun.elapsed() < Duration::from_millis(500), "{:?}", begun.elapsed());
    net.finish();
}

#[test]
fn draining_lets_calls_in_progress_end_and_refuses_new_ones() {
    let net = Net::start("drain");
    // The request is not over yet, so the call is in progress for as long as we like.
    let mut open = net.client.call(gateway_address(), common::SERVICE).expect("begins");
    let whole = request(50_000, 0, 10_000);
    open.send(&whole[..5000]).expect("sent");
    net.wait_for("it is in progress", |stats| stats.calls.in_progress == 1);
    let Net { gateway, client_engine, client, servers, serving, .. } = net;
    let drain = std::thread::spawn(move || gateway.drain(Duration::from_secs(10), |_| true));
    std::thread::sleep(Duration::from_millis(300));
    let refused = client.request(gateway_address(), common::SERVICE, &whole).expect_err("refused");
    assert_eq!(refused.abort_code(), Some(code::RESTARTING), "{refused}");
    open.send(&whole[5000..]).expect("sent");
    open.finish().expect("finished");
    assert!(open.read_all().expect("a reply") == reply_to(&whole), "other bytes");
    let report = drain.join().expect("drained");
    drop((open, client, serving));
    let ends = [client_engine.shutdown(), servers.shutdown()];
    let leaks = report.leaks();
    assert_eq!(leaks, [""; 0], "{}", report.text(&leaks));
    assert!(ends.iter().all(|end| end.leaks().is_empty()));
    assert_eq!((report.stats.calls.succeeded, report.stats.calls.refused_draining), (1, 1));
}

#[test]
fn several_cores_share_the_work_and_the_view_of_the_backends() {
    let mut net = Net::start_with("cores", "", "cores = 2");
    // A client's flow belongs to one core, whichever that is. Of two dozen clients each core gets one, but for once in
    // eight million runs.
    for host in 100..124 {
        net.replace_client(host);
        for _ in 0..10 {
            let request = request(20_000, 0, 5_000 + host);
            assert!(net.call(&request).expect("a reply") == reply_to(&request), "other bytes");
        }
        if net.gateway.engine_stats().cores.iter().all(|core| core.ledger.consumed > 100) {
            break;
        }
    }
    let engine = net.gateway.engine_stats();
    assert!(engine.cores.iter().all(|core| core.ledger.consumed > 100), "a core did nothing: {engine:?}");
    net.serving[1] = None;
    net.wait_for("it is dead", |stats| !stats.backends[1].alive);
    for host in 100..108 {
        net.replace_client(host);
        net.call(&request(4, 0, 10)).expect("the other one answers, to calls of either core");
    }
    net.wait_for("all calls end", |stats| stats.calls.in_progress == 0);
    let report = net.finish();
    assert!(report.stats.calls.closes(), "{:?}", report.stats.calls);
}
