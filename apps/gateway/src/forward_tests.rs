use std::time::Duration;

use rxrpc::{Completion, code};

use crate::config::BUFFERS_PER_CALL;
use crate::testbed::{Bed, CLIENT, GATEWAY, Op, Wire, reply_to, request};

const MINUTE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);

fn server(index: usize) -> usize {
    GATEWAY + 1 + index
}

#[test]
fn every_byte_arrives_in_both_directions_over_a_bad_wire() {
    for seed in 1..=20 {
        let mut bed = Bed::new(seed, 2, "", Wire::LOSSY);
        for n in 0..24 {
            let (payload, reply) =
                ([0, 100, 1400, 5_000, 60_000, 300_000][n % 6], [0, 4, 1412, 200_000][n % 4]);
            bed.call(request(Op::Reply, reply, payload, n as u8));
        }
        bed.run_calls(10 * MINUTE);
        for call in bed.in_order() {
            assert_eq!(call.completion, Some(Completion::Succeeded), "SEED={seed}");
            let length = u32::from_be_bytes(call.request[1..5].try_into().unwrap());
            assert!(call.reply == reply_to(&call.request, length as usize), "SEED={seed}: other bytes");
        }
        assert!(bed.taken.iter().all(|taken| *taken > 0), "SEED={seed}: one backend got nothing");
        bed.assert_clean();
        let figures = bed.shared.calls();
        assert_eq!(figures.succeeded, 24, "SEED={seed}");
        let asked: usize = bed.in_order().map(|call| call.request.len()).sum();
        let answered: usize = bed.in_order().map(|call| call.reply.len()).sum();
        assert_eq!(
            (figures.request_bytes, figures.reply_bytes),
            (asked as u64, answered as u64),
            "SEED={seed}"
        );
    }
}

#[test]
fn a_call_streams_it_is_not_stored() {
    let mut bed = Bed::new(1, 1, "", Wire::CLEAN);
    bed.call(request(Op::Reply, 4, 8_000_000, 1));
    let mut most = 0;
    bed.run(MINUTE, |bed| {
        most = most.max(bed.gateway_holds());
        bed.calls.values().all(|call| call.completion.is_some())
    });
    assert!(most < 1500, "{most} buffers held of a call of 5,700 packets");
    bed.assert_clean();
    assert_eq!(bed.shared.calls().succeeded, 1);
}

#[test]
fn a_backends_abort_reaches_the_client_with_its_code() {
    for op in [Op::Abort, Op::AbortEarly] {
        for (aborted, wire) in [(5377, Wire::CLEAN), (-1765328, Wire::LOSSY), (i32::MIN, Wire::LOSSY)] {
            let mut bed = Bed::new(3, 1, "", wire);
            bed.call(request(op, aborted as u32, 200_000, 1));
            bed.run_calls(MINUTE);
            let completion = bed.in_order().next().unwrap().completion;
            assert_eq!(completion, Some(Completion::RemoteAbort(aborted)), "{op:?}");
            assert_eq!(bed.shared.calls().backend_aborted, 1);
            bed.assert_clean();
        }
    }
}

#[test]
fn a_clients_abort_reaches_the_backend_with_its_code() {
    let mut bed = Bed::new(4, 1, "", Wire::CLEAN);
    let call = bed.call(request(Op::Silence, 0, 1000, 1));
    assert!(bed.run(SECOND, |bed| bed.taken[0] == 1));
    bed.pass(SECOND);
    let now = bed.now;
    bed.nodes[crate::testbed::CLIENT].endpoint.abort(now, call, 4242);
    bed.pass(SECOND);
    assert_eq!(bed.server_completions, [Completion::RemoteAbort(4242)]);
    assert_eq!(bed.shared.calls().client_aborted, 1);
    bed.assert_clean();
}

#[test]
fn a_reply_may_begin_before_the_request_has_ended() {
    for seed in 1..=5 {
        let mut bed = Bed::new(seed, 1, "", Wire::LOSSY);
        let call = bed.call(request(Op::ReplyEarly, 100_000, 2_000_000, 1));
        bed.run_calls(MINUTE);
        let call = &bed.calls[&call];
        assert_eq!(call.completion, Some(Completion::Succeeded), "SEED={seed}");
        assert!(call.reply == reply_to(&call.request[..5], 100_000), "SEED={seed}: other bytes");
        bed.assert_clean();
    }
}

#[test]
fn none_alive_is_an_abort_at_once() {
    let mut bed = Bed::new(5, 2, "", Wire::CLEAN);
    bed.nodes[server(0)].down = true;
    bed.nodes[server(1)].down = true;
    bed.pass(5 * SECOND);
    bed.call(request(Op::Reply, 4, 1000, 1));
    bed.run_calls(MINUTE);
    let call = bed.in_order().next().unwrap();
    assert_eq!(call.completion, Some(Completion::RemoteAbort(code::RESTARTING)));
    assert!(call.took < Duration::from_millis(10), "{:?}", call.took);
    assert_eq!(bed.shared.calls().refused_dead, 1);
    bed.assert_clean();
}

#[test]
fn a_full_pool_is_an_abort_at_once() {
    let mut bed = Bed::new(6, 1, "calls = 3", Wire::CLEAN);
    bed.call_many(0..4, |n| request(Op::Silence, 0, 10, n));
    bed.pass(SECOND);
    let refused =
        bed.in_order().filter(|call| call.completion == Some(Completion::RemoteAbort(code::RESTARTING)));
    assert_eq!(refused.count(), 1);
    assert_eq!(bed.shared.calls().refused_busy, 1);
}

/// Kills a server among calls in progress; returns the bed once all calls have ended.
fn kill(refuses: bool) -> Bed {
    let mut bed = Bed::new(7, 2, "timeouts = { silence_ms = 5000 }", Wire::CLEAN);
    bed.service_time = vec![Duration::from_millis(300); 2];
    bed.call_many(0..20, |n| request(Op::Reply, 5000, 5000, n));
    bed.pass(Duration::from_millis(100));
    bed.nodes[server(0)].down = true;
    bed.nodes[server(0)].refuses = refuses;
    bed.run_calls(MINUTE);
    bed
}

#[test]
fn when_a_backend_dies_its_calls_end_clearly_and_later_ones_go_to_the_other() {
    for (refuses, longest) in [(true, 2 * SECOND), (false, 6 * SECOND)] {
        let mut bed = kill(refuses);
        let (mut lost, mut won) = (0, 0);
        for call in bed.in_order() {
            match call.completion {
                Some(Completion::Succeeded) => won += 1,
                Some(Completion::RemoteAbort(code::CALL_DEAD)) => lost += 1,
                other => panic!("{other:?}"),
            }
            assert!(call.took < longest, "refuses {refuses}: {:?}", call.took);
        }
        assert_eq!(lost as u64, bed.shared.calls().backend_failed);
        assert!(lost >= 5 && won >= 5, "{lost} lost, {won} won");
        let before = bed.taken[0];
        bed.call_many(0..20, |n| request(Op::Reply, 10, 10, n));
        bed.run_calls(MINUTE);
        assert!(bed.in_order().skip(20).all(|call| call.completion == Some(Completion::Succeeded)));
        assert_eq!(bed.taken[0], before, "the dead one was called");
    }
}

#[test]
fn a_call_that_takes_too_long_ends_with_a_code_of_its_own() {
    let mut bed = Bed::new(13, 1, "timeouts = { call_ms = 700 }", Wire::CLEAN);
    bed.call_many(0..5, |n| request(Op::Silence, 0, 10, n));
    bed.run_calls(SECOND);
    assert!(bed.in_order().all(|call| call.completion == Some(Completion::RemoteAbort(code::CALL_TIMEOUT))));
    assert!(bed.shared.backends.iter().all(|backend| backend.is_alive()), "it answers probes");
    bed.assert_clean();
}

#[test]
fn a_backend_that_comes_back_is_used_again() {
    let mut bed = kill(true);
    bed.nodes[server(0)].refuses = false;
    bed.restart(0);
    bed.pass(4 * SECOND);
    let before = bed.taken[0];
    bed.call_many(0..20, |n| request(Op::Reply, 10, 10, n));
    bed.run_calls(MINUTE);
    assert!(bed.in_order().skip(20).all(|call| call.completion == Some(Completion::Succeeded)));
    assert!(bed.taken[0] > before);
    bed.assert_clean();
}

#[test]
fn a_backend_ten_times_slower_gets_less_than_a_fifth() {
    for concurrency in [1, 4, 16] {
        let mut bed = Bed::new(8, 2, "", Wire::CLEAN);
        bed.service_time = vec![Duration::from_millis(3), Duration::from_millis(30)];
        let mut begun = 0;
        while begun < 400 {
            let open = bed.calls.values().filter(|call| call.completion.is_none()).count();
            bed.call_many(open..concurrency, |_| request(Op::Reply, 10, 10, 1));
            begun += concurrency - open;
            bed.run(SECOND, |bed| {
                bed.calls.values().filter(|call| call.completion.is_none()).count() < concurrency
            });
        }
        bed.run_calls(MINUTE);
        let share = bed.taken[1] as f64 / bed.shared.calls().accepted as f64;
        assert!(share < 0.2, "{concurrency} at a time: {:?}", bed.taken);
        assert!(bed.taken[1] > 0);
        bed.assert_clean();
    }
}

#[test]
fn a_reader_that_does_not_read_holds_no_more_than_the_windows() {
    let mut bed = Bed::new(9, 1, "", Wire::CLEAN);
    let slow = bed.call(request(Op::Reply, 8_000_000, 10, 1));
    bed.calls.get_mut(&slow).unwrap().reads = false;
    bed.pass(10 * SECOND);
    let held = bed.gateway_holds();
    assert!((100..1500).contains(&held), "{held} buffers held");
    bed.calls.get_mut(&slow).unwrap().reads = true;
    bed.client_moves(slow);
    bed.run_calls(MINUTE);
    assert!(bed.calls[&slow].reply == reply_to(&bed.calls[&slow].request, 8_000_000));
    bed.assert_clean();
}

#[test]
fn a_thousand_calls_that_nobody_reads_do_not_stop_the_others() {
    let mut bed = Bed::new(10, 2, "", Wire::CLEAN);
    for n in 0..1000 {
        let call = bed.call(request(Op::Reply, 1_000_000, 10, n as u8));
        bed.calls.get_mut(&call).unwrap().reads = false;
        if n % 50 == 0 {
            bed.pass(Duration::from_millis(20));
        }
    }
    bed.pass(5 * SECOND);
    let held = bed.gateway_holds();
    // What 1,000 pairs may hold each way, and the budgets that all calls share.
    assert!(held < 1000 * BUFFERS_PER_CALL + 4096 + 2048, "{held} buffers held");
    for n in 0..50 {
        let call = bed.call(request(Op::Reply, 20_000, 20_000, n));
        let ended = bed.run(SECOND, |bed| bed.calls[&call].completion.is_some());
        assert!(
            ended && bed.calls[&call].completion == Some(Completion::Succeeded),
            "call {n} does not get through"
        );
        assert!(
            bed.calls[&call].took < Duration::from_millis(100),
            "call {n} took {:?}",
            bed.calls[&call].took
        );
    }
    bed.gateway(|forwarder, io| forwarder.abort_all(io));
    bed.assert_clean();
}

#[test]
fn noise_from_strangers_neither_harms_calls_nor_stays() {
    let mut sent = 0;
    for seed in 1..=8 {
        let mut bed = Bed::new(seed, 2, "", Wire::CLEAN);
        bed.noise = 8;
        for round in 0..40 {
            bed.call_many(0..4, |n| request(Op::Reply, 20_000, [0, 5000, 50_000][round % 3], n));
            bed.run_calls(MINUTE);
        }
        for call in bed.in_order() {
            assert_eq!(call.completion, Some(Completion::Succeeded), "SEED={seed}");
            assert!(call.reply == reply_to(&call.request, 20_000), "SEED={seed}: other bytes");
        }
        sent += bed.noise_sent;
        bed.assert_clean();
    }
    assert!(sent > 50_000, "only {sent} damaged packets");
}

#[test]
fn draining_refuses_new_calls_and_lets_those_in_progress_end() {
    let mut bed = Bed::new(11, 1, "", Wire::CLEAN);
    bed.service_time = vec![SECOND];
    bed.call_many(0..5, |n| request(Op::Reply, 5000, 10, n));
    bed.pass(Duration::from_millis(100));
    bed.forwarder.drain();
    bed.call(request(Op::Reply, 5000, 10, 9));
    bed.run_calls(MINUTE);
    bed.assert_clean();
    let figures = bed.shared.calls();
    assert_eq!((figures.succeeded, figures.refused_draining), (5, 1));
}

#[test]
fn a_client_that_left_with_its_answer_is_not_aborted() {
    let mut bed = Bed::new(13, 1, "", Wire::CLEAN);
    bed.call(request(Op::Reply, 1000, 10, 1));
    // The request went to the server, and the reply is on its way to the client.
    let sent = bed.run(SECOND, |bed| bed.nodes[GATEWAY].endpoint.stats().sent[1] == 2);
    assert!(sent, "no reply was sent");
    bed.nodes[CLIENT].down = true;
    bed.pass(5 * SECOND);
    assert_eq!(bed.forwarder.in_progress(), 1, "nothing says that the client is gone");
    bed.forwarder.drain();
    bed.gateway(|forwarder, io| forwarder.abort_all(io));
    bed.pass(SECOND);
    let figures = bed.shared.calls();
    assert_eq!((figures.client_left, figures.drained), (1, 0));
    assert_eq!(bed.nodes[GATEWAY].endpoint.stats().sent[4], 0, "an ABORT was sent to it");
}

#[test]
fn what_does_not_end_in_time_is_aborted() {
    let mut bed = Bed::new(12, 1, "", Wire::CLEAN);
    bed.call_many(0..5, |n| request(Op::Silence, 0, 10, n));
    bed.pass(Duration::from_millis(100));
    bed.forwarder.drain();
    bed.gateway(|forwarder, io| forwarder.abort_all(io));
    bed.run_calls(SECOND);
    assert!(bed.in_order().all(|call| call.completion == Some(Completion::RemoteAbort(code::CALL_DEAD))));
    assert_eq!(bed.server_completions, [Completion::RemoteAbort(code::CALL_DEAD); 5]);
    assert_eq!(bed.shared.calls().drained, 5);
    bed.assert_clean();
}
