//! The rest of AF_RXRPC's vocabulary on sockets of threads: declared lengths, time limits, upgrades, exclusive connections.

mod support;

use std::time::Duration;

use rxrpc::socket::{CallEnd, CallFailed, Message};
use rxrpc::{CallOptions, CallTimeouts, Completion, RxControl, RxSocket, ServiceId, Target, Timeout, code};

use support::{LONG, Pair, SERVICE, pattern, server};

const NEW_SERVICE: ServiceId = ServiceId(2147);

fn target() -> Target {
    Target::new(server(), SERVICE.0)
}

fn options() -> CallOptions {
    CallOptions { hard_timeout: Some(LONG), ..CallOptions::default() }
}

/// All data of a call, and the message that was next.
fn whole(socket: &RxSocket) -> (Vec<u8>, Message) {
    let (mut all, mut part) = (Vec::new(), [0; 4_096]);
    loop {
        match socket.recv_timeout(LONG, &mut part).unwrap() {
            Message::Data { bytes, .. } => all.extend_from_slice(&part[..bytes]),
            other => return (all, other),
        }
    }
}

#[test]
fn a_declared_length_ends_the_data_by_itself() {
    let pair = Pair::new("tx-length");
    let service = pair.server.rx().listen(server(), SERVICE, 2).unwrap();
    let client = pair.client.rx().socket().unwrap();
    let request = pattern(100_000);
    for (charge, number) in [(7, 1), (8, 2)] {
        service.charge(charge).unwrap();
        let length = request.len() as u64;
        client.call(number, target(), CallOptions { tx_length: Some(length), ..options() }).unwrap();
        client.send(number, &request[..60_000], true).unwrap();
        let beyond = CallFailed::BeyondTxLength { length, bytes: 110_000 };
        assert_eq!(client.try_send(number, &request[..50_000], true), Err(beyond));
        let short = CallFailed::ShortOfTxLength { length, bytes: 60_000 };
        assert_eq!(client.send(number, &[], false), Err(short));
        assert_eq!(client.set_tx_length(number, 5), Err(CallFailed::SendBegun { bytes: 60_000 }));
        // More to come, says the sender; but that was all of it.
        client.send(number, &request[60_000..], true).unwrap();
        assert_eq!(client.try_send(number, b"x", true), Err(CallFailed::SendFinished));

        let new = service.recv_timeout(LONG, &mut []).unwrap();
        assert!(matches!(new, Message::NewCall { user_id, .. } if user_id == charge), "{new:?}");
        let mut got = 0;
        let mut part = vec![0; 70_000];
        loop {
            let Message::Data { bytes, end, .. } = service.recv_timeout(LONG, &mut part).unwrap() else {
                panic!()
            };
            assert_eq!(part[..bytes], request[got..got + bytes]);
            got += bytes;
            if end {
                break;
            }
        }
        assert_eq!(got, request.len());
        service.set_tx_length(charge, 5).unwrap();
        service.send(charge, b"reply", true).unwrap();
        assert_eq!(whole(&client), (b"reply".to_vec(), Message::Ack { user_id: number }));
        assert_eq!(service.recv_timeout(LONG, &mut part).unwrap(), Message::Ack { user_id: charge });
    }
    drop((service, client));
    pair.end();
}

#[test]
fn a_handle_declares_its_length_too_and_lets_go_of_a_reply_that_ended_so() {
    let pair = Pair::new("tx-length-handle");
    let (service, client) = (pair.service(), pair.client());
    let mut call = client.call_with(target(), CallOptions { tx_length: Some(7), ..options() }).unwrap();
    call.send(b"request").unwrap();
    let mut theirs = service.accept_timeout(LONG).unwrap();
    assert_eq!(theirs.read_all().unwrap(), b"request");
    theirs.set_tx_length(9).unwrap();
    theirs.send(b"reply").unwrap();
    assert_eq!(theirs.finish(), Err(CallFailed::ShortOfTxLength { length: 9, bytes: 5 }));
    theirs.send(b", all").unwrap_err();
    theirs.send(b" all").unwrap();
    drop(theirs);
    assert_eq!(call.read_all().unwrap(), b"reply all");
    // Nothing at all can be declared as well.
    let mut empty = client.call_with(target(), CallOptions { tx_length: Some(0), ..options() }).unwrap();
    let mut theirs = service.accept_timeout(LONG).unwrap();
    assert_eq!(theirs.read_all().unwrap(), b"");
    theirs.reply(b"reply").unwrap();
    assert_eq!(empty.read_all().unwrap(), b"reply");
    drop((call, empty, service, client));
    pair.end();
}

#[test]
fn time_limits_are_set_on_calls_in_progress() {
    let pair = Pair::new("timeouts");
    let service = pair.server.rx().listen(server(), SERVICE, 4).unwrap();
    let client = pair.client.rx().socket().unwrap();
    let soon = Some(Duration::from_millis(100));
    for (charge, timeouts, which) in [
        (7, CallTimeouts { hard: soon, ..CallTimeouts::default() }, Timeout::Hard),
        (8, CallTimeouts { idle: soon, ..CallTimeouts::default() }, Timeout::Idle),
    ] {
        service.charge(charge).unwrap();
        client.call(1, target(), options()).unwrap();
        client.send(1, b"request", false).unwrap();
        let new = service.recv_timeout(LONG, &mut []).unwrap();
        assert!(matches!(new, Message::NewCall { .. }), "{new:?}");
        client.set_call_timeouts(1, timeouts).unwrap();
        let end = CallEnd::Protocol(Completion::TimedOut(which));
        assert_eq!(whole(&client), (vec![], Message::LocalError { user_id: 1, end }));
        let abort = Message::Abort { user_id: charge, code: code::CALL_TIMEOUT, remote: true };
        assert_eq!(whole(&service).1, abort);
        assert_eq!(client.set_call_timeouts(1, timeouts), Err(CallFailed::UnknownUserId(1)));
    }
    // By handle, and lifted again.
    service.charge(9).unwrap();
    let caller = pair.client();
    let hard = Some(Duration::from_millis(300));
    let mut call = caller.call_with(target(), CallOptions { hard_timeout: hard, ..options() }).unwrap();
    call.set_call_timeouts(CallTimeouts::default());
    call.send(b"request").unwrap();
    call.finish().unwrap();
    std::thread::sleep(Duration::from_millis(500));
    let new = service.recv_timeout(LONG, &mut []).unwrap();
    assert!(matches!(new, Message::NewCall { user_id: 9, .. }), "{new:?}");
    service.send(9, b"reply", false).unwrap();
    assert_eq!(call.read_all().unwrap(), b"reply");
    drop((call, caller, service, client));
    pair.end();
}

#[test]
fn clients_that_ask_are_upgraded() {
    let pair = Pair::new("upgrade");
    let old = pair.server.rx().listen(server(), SERVICE, 8).unwrap();
    let new = pair.server.rx().listen(server(), NEW_SERVICE, 8).unwrap();
    old.set_upgrade(Some(NEW_SERVICE)).unwrap();
    let client = pair.client.rx().socket().unwrap();
    assert!(client.set_upgrade(Some(NEW_SERVICE)).is_err(), "it serves nothing");
    for number in [10, 11] {
        old.charge(number).unwrap();
        new.charge(number + 10).unwrap();
    }
    for (number, upgrade) in [(1, true), (2, false), (3, true)] {
        client.call(number, target(), CallOptions { upgrade, ..options() }).unwrap();
        client.send(number, b"request", false).unwrap();
        let socket = if upgrade { &new } else { &old };
        let service = if upgrade { NEW_SERVICE } else { SERVICE };
        let Message::NewCall { user_id, peer } = socket.recv_timeout(LONG, &mut []).unwrap() else {
            panic!()
        };
        assert_eq!(peer.service, service.0);
        socket.send(user_id, b"reply", false).unwrap();
        let message = client.recv_timeout(LONG, &mut [0; 64]).unwrap();
        assert_eq!(message, Message::Data { user_id: number, bytes: 5, end: true });
        assert_eq!(client.upgraded(number), Ok(upgrade.then_some(NEW_SERVICE)));
        assert_eq!(whole(&client).1, Message::Ack { user_id: number });
        assert_eq!(whole(socket), (b"request".to_vec(), Message::Ack { user_id }));
    }
    // By handle.
    let caller = pair.client();
    let mut call = caller.call_with(target(), CallOptions { upgrade: true, ..options() }).unwrap();
    assert_eq!(call.service(), SERVICE.0, "so far");
    new.charge(30).unwrap();
    call.finish().unwrap();
    let Message::NewCall { user_id, .. } = new.recv_timeout(LONG, &mut []).unwrap() else { panic!() };
    new.send(user_id, b"reply", false).unwrap();
    assert_eq!(call.read_all().unwrap(), b"reply");
    assert_eq!(call.service(), NEW_SERVICE.0);
    drop((call, caller, old, new, client));
    pair.end();
}

#[test]
fn exclusive_calls_have_connections_of_their_own() {
    let pair = Pair::new("exclusive");
    let service = pair.service();
    let client = pair.client.rx().socket().unwrap();
    let cids = |expected: usize| {
        let cids = pair.client.inspect(0, |endpoint| {
            endpoint.conns().map(|conn| conn.cid).collect::<std::collections::HashSet<_>>().len()
        });
        assert_eq!(cids, Some(expected));
    };
    let round = |number, options| {
        client.call(number, target(), options).unwrap();
        client.send(number, b"request", false).unwrap();
        service.accept_timeout(LONG).unwrap().reply(b"reply").unwrap();
        assert_eq!(whole(&client), (b"reply".to_vec(), Message::Ack { user_id: number }));
    };
    round(1, options());
    round(2, options());
    cids(1);
    round(3, CallOptions { exclusive: true, ..options() });
    cids(2);
    client.set_exclusive(true);
    round(4, options());
    cids(3);
    client.set_exclusive(false);
    round(5, options());
    cids(3);
    drop((service, client));
    pair.end();
}
