//! What calls can ask for besides data: time limits that change, connections of their own, another service, an exact end;
//! and what keeps NATs awake.

mod common;

use common::solo::{SERVICE, Sent, Solo, ack_body};
use common::{Faults, Net, Node};
use rxrpc::wire::{AckReason, AckTrailer, Cid, Flags, Header, PacketType};
use rxrpc::{
    CallError, CallId, CallOptions, CallTimeouts, Completion, EndpointConfig, RxDrop, ServiceConfig, Target,
    Timeout,
};
use std::time::Duration;

const NEW_SERVICE: u16 = 2147;
const LAST: Flags = Flags::LAST;
const NONE: Flags = Flags::NONE;

fn solo() -> Solo {
    Solo::new(EndpointConfig::default())
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn begin(t: &mut Solo, options: CallOptions) -> CallId {
    let Node { rx, pool, local, .. } = &mut t.node;
    let call = rx.begin(t.now, *local, Target::new(t.peer, SERVICE), options).unwrap();
    rx.send(t.now, pool, call, b"request", false).unwrap();
    call
}

fn call(t: &mut Solo, options: CallOptions) -> (CallId, Sent) {
    let call = begin(t, options);
    (call, t.sent_one())
}

/// A server's packet for a request, from this service.
fn answer(t: &mut Solo, request: &Sent, service: u16, kind: PacketType, body: &[u8]) -> Result<(), RxDrop> {
    let seq = u32::from(kind == PacketType::Data);
    let serial = t.header(kind, 1, seq).serial;
    let flags = if kind == PacketType::Data { LAST } else { NONE };
    let header = Header { packet_type: kind, seq, serial, flags, service, user_status: 0, ..request.header };
    t.input(&header, body)
}

fn reply(t: &mut Solo, request: &Sent) {
    answer(t, request, request.header.service, PacketType::Data, b"reply").unwrap();
}

/// Keeps a call alive without moving a byte of it.
fn still_there(t: &mut Solo, request: &Sent) {
    let body = ack_body(AckReason::PingResponse, 2, &[], 0, AckTrailer::default());
    answer(t, request, SERVICE, PacketType::Ack, &body).unwrap();
}

// Time limits.

#[test]
fn each_time_limit_can_be_set_while_the_call_is_in_progress() {
    let limit = Some(ms(2_000));
    for (timeouts, pongs, ends) in [
        (CallTimeouts { hard: limit, ..CallTimeouts::default() }, true, Some(Timeout::Hard)),
        (CallTimeouts { idle: limit, ..CallTimeouts::default() }, true, Some(Timeout::Idle)),
        (CallTimeouts { normal: limit, ..CallTimeouts::default() }, false, Some(Timeout::Dead)),
        (CallTimeouts { normal: limit, ..CallTimeouts::default() }, true, None),
    ] {
        let mut t = solo();
        let (id, request) = call(&mut t, CallOptions::default());
        t.wait(ms(1_000));
        still_there(&mut t, &request);
        assert!(t.node.rx.set_timeouts(t.now, id, &timeouts));
        // Idle counts from the last byte that moved: the request, or its repetition a second ago.
        let sooner = if timeouts.idle.is_some() { 1_000 } else { 0 };
        for _ in 0..(1_900 - sooner) / 100 {
            t.wait(ms(100));
            if pongs {
                still_there(&mut t, &request);
            }
            assert_eq!(t.node.rx.completion(id), None, "{timeouts:?}");
        }
        t.wait(ms(150));
        assert_eq!(t.node.rx.completion(id), ends.map(Completion::TimedOut), "{timeouts:?}");
        let none = CallTimeouts::default();
        assert_eq!(t.node.rx.set_timeouts(t.now, id, &none), ends.is_none(), "an ended call has none");
    }
}

#[test]
fn a_time_limit_can_be_lifted() {
    let mut t = solo();
    let options = CallOptions { hard_timeout: Some(ms(1_000)), ..CallOptions::default() };
    let (id, request) = call(&mut t, options);
    assert!(t.node.rx.set_timeouts(t.now, id, &CallTimeouts::default()));
    t.wait(ms(5_000));
    reply(&mut t, &request);
    assert_eq!(t.node.rx.completion(id), Some(Completion::Succeeded));
}

#[test]
fn a_service_limits_its_calls_too() {
    let mut t = solo();
    t.data(1, 1, LAST, b"x").unwrap();
    let id = t.incoming();
    let timeouts = CallTimeouts { hard: Some(ms(500)), ..CallTimeouts::default() };
    assert!(t.node.rx.set_timeouts(t.now, id, &timeouts));
    t.wait(ms(502));
    assert_eq!(t.node.rx.completion(id), Some(Completion::TimedOut(Timeout::Hard)));
}

// NATs.

fn keep_alives(sent: &[(pmd::Instant, Sent)]) -> Vec<pmd::Instant> {
    sent.iter().filter(|(_, sent)| sent.is(PacketType::Version)).map(|(at, _)| *at).collect()
}

#[test]
fn nats_are_kept_awake_while_a_client_connection_is_open() {
    let mut t = solo();
    let (id, request) = call(&mut t, CallOptions::default());
    reply(&mut t, &request);
    t.node.rx.release(t.now, id);
    let begun = t.now;
    let sent = t.wait(Duration::from_secs(300));
    let at: Vec<_> = keep_alives(&sent).iter().map(|at| (*at - begun).as_secs()).collect();
    assert_eq!(
        at,
        [20, 40, 60, 80, 100, 120],
        "until the connection went, two minutes after its last packet"
    );
    let (_, packet) = sent.iter().find(|(_, sent)| sent.is(PacketType::Version)).unwrap();
    assert_eq!((packet.to, packet.header.call, packet.header.flags), (t.peer, 0, LAST), "nobody answers it");
    assert_eq!((t.node.rx.conns().count(), t.node.rx.peers().count()), (0, 0));
    assert_eq!(t.node.rx.next_timeout(), None);
}

#[test]
fn packets_of_calls_make_keep_alives_needless() {
    let mut t = solo();
    let (_, request) = call(&mut t, CallOptions::default());
    let mut sent = Vec::new();
    for _ in 0..12 {
        still_there(&mut t, &request);
        sent.extend(t.wait(Duration::from_secs(5)));
    }
    assert!(sent.len() >= 12 && keep_alives(&sent).is_empty(), "the pings do: {sent:?}");
}

#[test]
fn one_keep_alive_serves_all_connections_to_a_peer_and_none_those_of_others() {
    let mut t = solo();
    t.data(1, 1, LAST, b"x").unwrap();
    let served = t.incoming();
    t.node.rx.release(t.now, served);
    assert_eq!(keep_alives(&t.wait(Duration::from_secs(100))), [], "who calls us keeps his own awake");
    for group in 0..5 {
        let target = Target { group, ..Target::new(t.peer, SERVICE) };
        let id = t.node.rx.begin(t.now, t.node.local, target, CallOptions::default()).unwrap();
        t.node.rx.release(t.now, id);
    }
    assert_eq!(t.node.rx.conns().count(), 6);
    assert_eq!(keep_alives(&t.wait(Duration::from_secs(50))).len(), 2);
}

#[test]
fn keep_alives_can_be_had_otherwise_and_not_at_all() {
    for (every, expected) in [(None, 0), (Some(Duration::from_secs(50)), 1), (Some(Duration::ZERO), 59)] {
        let mut t = Solo::new(EndpointConfig { nat_keep_alive: every, ..EndpointConfig::default() });
        let id = t.node.rx.begin(t.now, t.node.local, Target::new(t.peer, SERVICE), CallOptions::default());
        t.node.rx.release(t.now, id.unwrap());
        assert_eq!(keep_alives(&t.wait(Duration::from_secs(60))).len(), expected, "{every:?}");
    }
}

#[test]
fn a_keep_alive_is_not_answered() {
    let mut t = solo();
    let header = Header { flags: LAST, ..Header::new(PacketType::Version) };
    assert_eq!(t.input(&header, &[0]), Ok(()));
    assert_eq!((t.sent().len(), t.events()), (0, vec![]));
}

// Connections of one's own.

#[test]
fn an_exclusive_call_shares_its_connection_with_nobody() {
    let mut t = solo();
    let exclusive = || CallOptions { exclusive: true, ..CallOptions::default() };
    let (first, one) = call(&mut t, exclusive());
    let (second, two) = call(&mut t, exclusive());
    let (third, three) = call(&mut t, CallOptions::default());
    let mut cids = [&one, &two, &three].map(|sent| sent.header.cid.connection().0);
    cids.sort_unstable();
    assert!(cids[0] < cids[1] && cids[1] < cids[2], "{cids:x?}");
    for (id, request) in [(first, one), (second, two), (third, three)] {
        reply(&mut t, &request);
        assert_eq!(t.node.rx.completion(id), Some(Completion::Succeeded));
        t.node.rx.release(t.now, id);
    }
    let (_, fourth) = call(&mut t, exclusive());
    assert!(!cids.contains(&fourth.header.cid.connection().0), "nor with a later call");
    let acks = t.wait(ms(100)).iter().filter(|(_, sent)| sent.is(PacketType::Ack)).count();
    assert_eq!(acks, 3, "each server hears that the reply is here");
    t.wait(ms(2_500));
    assert_eq!(t.node.rx.conns().count(), 2, "what was for one call goes soon; what is shared stays");
}

#[test]
fn exclusive_calls_leave_nothing_behind() {
    let config = EndpointConfig { conns_max: 8, bundles_max: 8, peers_max: 1, ..EndpointConfig::default() };
    let mut t = Solo::new(config);
    for _ in 0..100 {
        let exclusive = CallOptions { exclusive: true, ..CallOptions::default() };
        let (id, request) = call(&mut t, exclusive);
        reply(&mut t, &request);
        t.node.rx.release(t.now, id);
        t.wait(ms(400));
    }
    t.wait(Duration::from_secs(3));
    assert_eq!((t.node.rx.conns().count(), t.node.rx.peers().count()), (0, 0));
    assert_eq!(t.node.rx.next_timeout(), None);
}

// Service upgrade.

fn upgrade() -> CallOptions {
    CallOptions { upgrade: true, ..CallOptions::default() }
}

#[test]
fn one_call_asks_for_an_upgrade_and_the_others_follow_its_answer() {
    let mut t = solo();
    let ids: Vec<_> = (0..6).map(|_| begin(&mut t, upgrade())).collect();
    let probe = t.sent_one();
    assert_eq!((probe.header.service, probe.header.user_status), (SERVICE, 1), "one goes ahead");
    answer(&mut t, &probe, NEW_SERVICE, PacketType::Data, b"reply").unwrap();
    assert_eq!(t.node.rx.service(ids[0]), Some(NEW_SERVICE));
    assert_eq!(t.node.rx.completion(ids[0]), Some(Completion::Succeeded));
    let sent = t.sent();
    assert_eq!(sent.iter().filter(|sent| sent.is(PacketType::Data)).count(), 5);
    for sent in sent {
        assert_eq!((sent.header.service, sent.header.user_status), (NEW_SERVICE, 0), "{sent:?}");
    }
    assert_eq!(t.node.rx.conns().count(), 2, "also on the next connection");
    assert!(ids.iter().all(|id| t.node.rx.service(*id) == Some(NEW_SERVICE)));
}

#[test]
fn a_server_without_an_upgrade_answers_as_ever() {
    let mut t = solo();
    let ids: Vec<_> = (0..2).map(|_| begin(&mut t, upgrade())).collect();
    let probe = t.sent_one();
    // The ACK of the request says it as well as the reply.
    still_there(&mut t, &probe);
    let second = t.sent_one();
    assert_eq!((second.header.service, second.header.user_status), (SERVICE, 0));
    assert!(ids.iter().all(|id| t.node.rx.service(*id) == Some(SERVICE)));
    let plain = begin(&mut t, CallOptions::default());
    assert_ne!(t.sent_one().header.cid.connection(), probe.header.cid.connection(), "another bundle");
    assert_eq!(t.node.rx.service(plain), Some(SERVICE));
}

#[test]
fn an_abort_answers_no_question_for_an_upgrade() {
    let mut t = solo();
    let ids: Vec<_> = (0..2).map(|_| begin(&mut t, upgrade())).collect();
    let probe = t.sent_one();
    // As OpenAFS sends it: without a service.
    answer(&mut t, &probe, 0, PacketType::Abort, &5_i32.to_be_bytes()).unwrap();
    assert_eq!(t.node.rx.completion(ids[0]), Some(Completion::RemoteAbort(5)));
    let next = t.sent_one();
    assert_eq!((next.header.service, next.header.user_status), (SERVICE, 1), "the next in line asks");
}

#[test]
fn a_service_upgrades_who_asks_and_no_one_else() {
    let mut t = solo();
    let (local, rx) = (t.node.local, &mut t.node.rx);
    rx.listen(local, ServiceConfig::new(NEW_SERVICE)).unwrap();
    rx.set_upgrade(local, SERVICE, Some(NEW_SERVICE)).unwrap();
    let first = |t: &mut Solo, cid, user_status| {
        let mut header = t.header(PacketType::Data, 1, 1);
        (header.cid, header.user_status) = (Cid(cid), user_status);
        header.flags = header.flags | LAST;
        t.events();
        t.input(&header, b"x").unwrap();
        let call = t.incoming();
        t.reply(call, b"reply");
        (t.node.rx.service(call).unwrap(), t.sent_one().header.service)
    };
    assert_eq!(first(&mut t, 0x100, 0), (SERVICE, SERVICE));
    assert_eq!(first(&mut t, 0x200, 1), (NEW_SERVICE, NEW_SERVICE));
    assert_eq!(first(&mut t, 0x300, 2), (SERVICE, SERVICE), "user status is 1 or it means something else");
    // A later call of the connection, by the service's new name or its old one.
    t.events();
    for (number, service) in [(2, NEW_SERVICE), (3, SERVICE)] {
        let mut header = t.header(PacketType::Data, number, 1);
        (header.cid, header.service) = (Cid(0x200), service);
        header.flags = header.flags | LAST;
        t.input(&header, b"x").unwrap();
        let events = t.events();
        let came = |event: &rxrpc::Event| match event {
            rxrpc::Event::Incoming { service, .. } => Some(*service),
            _ => None,
        };
        assert_eq!(events.iter().find_map(came), Some(NEW_SERVICE), "{events:?}");
    }
    let mut header = t.header(PacketType::Data, 4, 1);
    (header.cid, header.service) = (Cid(0x200), 9);
    assert_eq!(t.input(&header, b"x"), Err(RxDrop::ConnMismatch));
    // Nobody offers the other service any more.
    t.node.rx.unlisten(local, NEW_SERVICE).unwrap();
    assert_eq!(first(&mut t, 0x400, 1), (SERVICE, SERVICE));
}

/// Both sides together, on a wire that loses: a thousand calls, and every one goes to the new service.
#[test]
fn upgrades_survive_loss() {
    for seed in common::seeds(0..20) {
        let _rerun = common::Rerun { test: "protocol", seed };
        let faults = Faults { loss: 0.1, ..Faults::none(5_000) };
        let mut net = Net::new(seed, faults, vec![EndpointConfig::default(); 2], 4_096);
        let (server, local) = (net.nodes[1].addr, net.nodes[1].local);
        net.nodes[1].listen(ServiceConfig::new(NEW_SERVICE));
        net.nodes[1].listen(ServiceConfig { upgrade_to: Some(NEW_SERVICE), ..ServiceConfig::new(SERVICE) });
        let now = net.now;
        let mut calls = Vec::new();
        for _ in 0..50 {
            let Node { rx, pool, local, .. } = &mut net.nodes[0];
            let id = rx.begin(now, *local, Target::new(server, SERVICE), upgrade()).unwrap();
            rx.send(now, pool, id, b"request", false).unwrap();
            calls.push(id);
        }
        for _ in 0..100_000 {
            let now = net.now;
            let Node { rx, pool, .. } = &mut net.nodes[1];
            while let Some(event) = rx.poll_event() {
                match event {
                    rxrpc::Event::Incoming { call, service, local: at, .. } => {
                        assert_eq!((service, at), (NEW_SERVICE, local));
                        rx.send(now, pool, call, b"reply", false).unwrap();
                    }
                    rxrpc::Event::Complete { call, .. } => assert!(rx.release(now, call)),
                    _ => {}
                }
            }
            let client = &net.nodes[0].rx;
            if calls.iter().all(|id| client.completion(*id) == Some(Completion::Succeeded)) {
                break;
            }
            assert!(net.step(), "a hang");
        }
        let client = &mut net.nodes[0].rx;
        for id in calls {
            assert_eq!(client.completion(id), Some(Completion::Succeeded));
            assert_eq!(client.service(id), Some(NEW_SERVICE));
            client.release(net.now, id);
        }
    }
}

// Declared lengths.

#[test]
fn a_declared_length_marks_the_last_packet_exactly() {
    let mut t = solo();
    let options = CallOptions { tx_length: Some(3_000), ..CallOptions::default() };
    let Node { rx, pool, local, .. } = &mut t.node;
    let id = rx.begin(t.now, *local, Target::new(t.peer, SERVICE), options).unwrap();
    let too_long = Err(CallError::TooLong { left: 3_000, bytes: 3_001 });
    assert_eq!(rx.send(t.now, pool, id, &[1; 3_001], true), too_long);
    let too_short = Err(CallError::TooShort { left: 3_000, bytes: 2_999 });
    assert_eq!(rx.send(t.now, pool, id, &[1; 2_999], false), too_short);
    assert_eq!(rx.send(t.now, pool, id, &[1; 2_000], true), Ok(2_000), "neither took anything");
    let buffer = pool.copy_from(&[2; 1_000]).unwrap();
    assert!(matches!(rx.send_mbuf(t.now, pool, id, buffer, true), Ok(None)));
    assert_eq!(rx.send(t.now, pool, id, b"", true), Err(CallError::SendEnded), "it ended by itself");
    let sent = t.sent();
    let ends: Vec<_> = sent.iter().map(|sent| sent.header.flags.contains(LAST)).collect();
    assert_eq!(ends, [false, false, true]);
    assert_eq!(sent.iter().map(|sent| sent.body.len()).sum::<usize>(), 3_000);
}

#[test]
fn a_service_can_declare_its_reply() {
    let mut t = solo();
    t.data(1, 1, LAST, b"x").unwrap();
    let id = t.incoming();
    assert!(t.node.rx.set_tx_length(id, Some(5)));
    let Node { rx, pool, .. } = &mut t.node;
    assert_eq!(rx.send(t.now, pool, id, b"reply", true), Ok(5));
    assert!(t.sent_one().header.flags.contains(LAST));
    assert!(!t.node.rx.set_tx_length(id, None), "it has ended");
}
