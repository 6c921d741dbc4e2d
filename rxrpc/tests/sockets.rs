//! The socket API end to end: two engines in one process, joined by a `memory:` port.

mod support;

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use rxrpc::socket::{AcceptFailed, CallEnd, CallFailed, Message};
use rxrpc::{CallOptions, Client, Completion, Service, SocketConfig, Target, code};

use support::{LONG, Pair, SERVICE, ask, engine, pattern, server};

/// Answers calls with their requests until the service is closed or its engine shut down.
fn echo(service: &Service) {
    for mut call in service.incoming() {
        // A client may give up at any time.
        let _ = call.read_all().and_then(|request| call.reply(&request));
    }
}

/// Runs a future on this thread: all that async needs of a runtime.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    let deadline = Instant::now() + LONG;
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        assert!(Instant::now() < deadline, "the future was not woken in time");
        thread::park_timeout(deadline.saturating_duration_since(Instant::now()));
    }
}

#[test]
fn blocking_threads_pass_requests_and_replies_of_any_length() {
    let pair = Pair::new("blocking");
    let (service, client) = (pair.service(), pair.client());
    thread::scope(|scope| {
        scope.spawn(|| echo(&service));
        for len in [0, 1, 1_412, 1_413, 65_536, 1 << 20] {
            let request = pattern(len);
            let reply = client.request(server(), SERVICE, &request).unwrap();
            assert!(reply == request, "{len} bytes came back as {} or changed", reply.len());
        }
        service.close();
    });
    drop((service, client));
    pair.end();
}

#[test]
fn tasks_need_no_runtime() {
    let pair = Pair::new("tasks");
    let (service, client) = (pair.service(), pair.client());
    thread::scope(|scope| {
        scope.spawn(|| {
            block_on(async {
                while let Ok(mut call) = service.accept_async().await {
                    let request = call.read_all_async().await.unwrap();
                    call.reply_async(&request).await.unwrap();
                }
            });
        });
        for len in [0, 5, 300_000] {
            let request = pattern(len);
            let reply = block_on(client.request_async(server(), SERVICE, &request)).unwrap();
            assert!(reply == request, "{len} bytes came back as {} or changed", reply.len());
        }
        service.close();
    });
    drop((service, client));
    pair.end();
}

#[test]
fn an_inline_service_answers_on_its_core() {
    let pair = Pair::new("inline");
    let serving = pair
        .service()
        .serve(|call| match call.request() {
            b"fail" => call.abort(77),
            _ => call.answer(|request| request.iter().rev().copied().collect()),
        })
        .unwrap();
    let client = pair.client();
    for len in [0, 3, 200_000] {
        let request = pattern(len);
        let reply = ask(&client, &request).unwrap();
        assert!(reply.iter().rev().eq(&request), "{len} bytes came back as {} or changed", reply.len());
    }
    assert_eq!(ask(&client, b"fail").unwrap_err().abort_code(), Some(77));
    drop((serving, client));
    pair.end();
}

#[test]
fn a_call_streams_both_ways_at_once() {
    let pair = Pair::new("streams");
    let (service, client) = (pair.service(), pair.client());
    let request = pattern(700_000);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut call = service.accept_timeout(LONG).unwrap();
            let mut sum = 0u64;
            let mut part = [0; 3_000];
            loop {
                match call.recv(&mut part).unwrap() {
                    0 => break,
                    n => sum += part[..n].iter().map(|&byte| u64::from(byte)).sum::<u64>(),
                }
            }
            for _ in 0..100 {
                call.send(&sum.to_be_bytes()).unwrap();
            }
            call.finish().unwrap();
            call.wait().unwrap();
        });
        let mut call = client.call(server(), SERVICE).unwrap();
        call.set_timeout(Some(LONG));
        for part in request.chunks(10_000) {
            call.send(part).unwrap();
        }
        call.finish().unwrap();
        let sum: u64 = request.iter().map(|&byte| u64::from(byte)).sum();
        assert_eq!(call.read_all().unwrap(), sum.to_be_bytes().repeat(100));
        call.wait().unwrap();
        assert_eq!(
            call.send(b"more").unwrap_err(),
            CallFailed::Ended(CallEnd::Protocol(Completion::Succeeded))
        );
    });
    drop((service, client));
    pair.end();
}

#[test]
fn aborts_reach_the_other_side_with_their_code() {
    let pair = Pair::new("aborts");
    let (service, client) = (pair.service(), pair.client());
    thread::scope(|scope| {
        scope.spawn(|| {
            service.accept_timeout(LONG).unwrap().abort(-4711);
            // The client gives up this one.
            let mut call = service.accept_timeout(LONG).unwrap();
            let failed = call.read_all().unwrap_err();
            assert_eq!(failed.abort_code(), Some(code::USER_ABORT), "{failed}");
            drop(call);
            // And this one is dropped here.
            drop(service.accept_timeout(LONG).unwrap());
        });
        assert_eq!(ask(&client, b"one").unwrap_err().abort_code(), Some(-4711));
        let mut call = client.call(server(), SERVICE).unwrap();
        call.send(b"two").unwrap();
        thread::sleep(Duration::from_millis(50));
        drop(call);
        let failed = ask(&client, b"three").unwrap_err();
        assert_eq!(failed.abort_code(), Some(code::USER_ABORT));
    });
    drop((service, client));
    pair.end();
}

#[test]
fn closing_a_service_ends_its_calls() {
    let pair = Pair::new("closing");
    let (service, client) = (pair.service(), pair.client());
    thread::scope(|scope| {
        let waiting = scope.spawn(|| ask(&client, b"hello"));
        let mut call = service.accept_timeout(LONG).unwrap();
        let reading = scope.spawn(move || {
            let mut request = [0; 5];
            assert_eq!(call.recv(&mut request).unwrap(), 5);
            // The handle outlives the socket; its call does not.
            while call.end().is_none() {
                thread::yield_now();
            }
            (call.end(), call.send(b"reply").unwrap_err())
        });
        let accepting = scope.spawn(|| service.accept().unwrap_err());
        thread::sleep(Duration::from_millis(50));
        service.close();
        assert_eq!(accepting.join().unwrap(), AcceptFailed::Closed);
        let closed = CallEnd::SocketClosed;
        assert_eq!(reading.join().unwrap(), (Some(closed), CallFailed::Ended(closed)));
        let failed = waiting.join().unwrap().unwrap_err();
        assert_eq!(failed.abort_code(), Some(code::CALL_DEAD), "{failed}");
    });
    drop((service, client));
    pair.end();
}

#[test]
fn the_address_of_a_closed_service_can_be_bound_again() {
    let pair = Pair::new("again");
    let client = pair.client();
    for round in 0..20 {
        let service = pair.service();
        thread::scope(|scope| {
            scope.spawn(|| echo(&service));
            assert_eq!(ask(&client, &[round]).unwrap(), [round]);
            service.close();
        });
    }
    drop(client);
    pair.end();
}

#[test]
fn a_service_without_charged_accepts_is_busy() {
    let mut config = SocketConfig::default();
    config.endpoint.busy = Duration::from_millis(300);
    let pair = Pair::with("busy", 1, config);
    let socket = pair.server.rx().listen(server(), SERVICE, 4).unwrap();
    let client = pair.client();
    let failed = ask(&client, b"hello").unwrap_err();
    assert_eq!(failed, CallFailed::Ended(CallEnd::Protocol(Completion::Busy)));
    drop((socket, client));
    pair.end();
}

#[test]
fn the_vocabulary_of_af_rxrpc() {
    let pair = Pair::new("vocabulary");
    let service = pair.server.rx().listen(server(), SERVICE, 2).unwrap();
    let client = pair.client.rx().socket().unwrap();
    let mut buffer = [0; 64];
    for user_id in [7, 8] {
        service.charge(user_id).unwrap();
    }
    assert_eq!(service.charge(7), Err(CallFailed::BacklogFull { backlog: 2 }));
    let target = Target::new(server(), SERVICE.0);
    for round in 0..3 {
        client.call(1, target, CallOptions::default()).unwrap();
        assert_eq!(client.call(1, target, CallOptions::default()), Err(CallFailed::UserIdInUse(1)));
        client.send(1, b"request", false).unwrap();

        let Message::NewCall { user_id, peer } = service.recv_timeout(LONG, &mut buffer).unwrap() else {
            panic!()
        };
        assert_eq!((user_id, peer.service), (if round == 1 { 8 } else { 7 }, 147));
        assert_eq!(
            service.recv_timeout(LONG, &mut buffer[..3]).unwrap(),
            Message::Data { user_id, bytes: 3, end: false }
        );
        assert_eq!(&buffer[..3], b"req");
        assert_eq!(
            service.recv_timeout(LONG, &mut buffer).unwrap(),
            Message::Data { user_id, bytes: 4, end: true }
        );
        assert_eq!(service.charge(user_id), Err(CallFailed::UserIdInUse(user_id)));
        service.send(user_id, b"reply", false).unwrap();

        assert_eq!(
            client.recv_timeout(LONG, &mut buffer).unwrap(),
            Message::Data { user_id: 1, bytes: 5, end: true }
        );
        assert_eq!(&buffer[..5], b"reply");
        assert_eq!(client.recv_timeout(LONG, &mut buffer).unwrap(), Message::Ack { user_id: 1 });
        assert_eq!(client.send(1, b"more", true), Err(CallFailed::UnknownUserId(1)));

        assert_eq!(service.recv_timeout(LONG, &mut buffer).unwrap(), Message::Ack { user_id });
        // The ID is free from here on.
        service.charge(user_id).unwrap();
    }
    drop((service, client));
    pair.end();
}

#[test]
fn terminal_messages_release_and_rejected_calls_have_none() {
    let pair = Pair::new("terminal");
    let service = pair.server.rx().listen(server(), SERVICE, 4).unwrap();
    let client = pair.client.rx().socket().unwrap();
    let mut buffer = [0; 64];
    let target = Target::new(server(), SERVICE.0);
    for user_id in [1, 2] {
        service.charge(user_id).unwrap();
    }
    client.call(10, target, CallOptions::default()).unwrap();
    client.send(10, b"x", false).unwrap();
    let new = service.recv_timeout(LONG, &mut buffer).unwrap();
    assert!(matches!(new, Message::NewCall { user_id: 1, .. }), "{new:?}");
    service.reject(1, 55).unwrap();
    assert_eq!(
        client.recv_timeout(LONG, &mut buffer).unwrap(),
        Message::Abort { user_id: 10, code: 55, remote: true }
    );

    client.call(10, target, CallOptions::default()).unwrap();
    client.send(10, b"x", true).unwrap();
    let new = service.recv_timeout(LONG, &mut buffer).unwrap();
    assert!(
        matches!(new, Message::NewCall { user_id: 2, .. }),
        "{new:?}: nothing more is said of the rejected call"
    );
    client.abort(10, 66).unwrap();
    assert_eq!(
        client.recv_timeout(LONG, &mut buffer).unwrap(),
        Message::Abort { user_id: 10, code: 66, remote: false }
    );
    loop {
        match service.recv_timeout(LONG, &mut buffer).unwrap() {
            Message::Data { user_id: 2, .. } => {}
            last => break assert_eq!(last, Message::Abort { user_id: 2, code: 66, remote: true }),
        }
    }
    let silence = service.recv_timeout(Duration::from_millis(50), &mut buffer);
    assert_eq!(silence, Err(AcceptFailed::TimedOut));
    drop((service, client));
    pair.end();
}

#[test]
fn shutting_an_engine_down_wakes_everybody() {
    let pair = Pair::new("shutdown");
    let (service, client) = (pair.service(), pair.client());
    let Pair { server: server_engine, client: client_engine } = pair;
    thread::scope(|scope| {
        let mut theirs = client.call(server(), SERVICE).unwrap();
        theirs.send(b"hello").unwrap();
        let mut ours = service.accept_timeout(LONG).unwrap();
        let accepting = scope.spawn(|| service.accept().unwrap_err());
        let reading = scope.spawn(move || ours.read_all().unwrap_err());
        let calling = scope.spawn(move || theirs.read_all().unwrap_err());
        thread::sleep(Duration::from_millis(50));
        server_engine.shutdown();
        assert_eq!(accepting.join().unwrap(), AcceptFailed::Shutdown);
        assert_eq!(reading.join().unwrap(), CallFailed::Ended(CallEnd::CoreGone));
        client_engine.shutdown();
        assert_eq!(calling.join().unwrap(), CallFailed::Ended(CallEnd::CoreGone));
        assert!(client.call(server(), SERVICE).is_err());
    });
}

#[test]
fn several_cores_share_the_calls() {
    let pair = Pair::with("cores", 2, SocketConfig::default());
    let service = pair.service();
    let clients: Vec<_> = (0..4).map(|_| pair.client()).collect();
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| echo(&service));
        }
        let calling: Vec<_> = clients
            .iter()
            .map(|client| {
                scope.spawn(move || {
                    for len in 0..200 {
                        let request = pattern(len * 7);
                        assert!(ask(client, &request).unwrap() == request);
                    }
                })
            })
            .collect();
        for calling in calling {
            calling.join().unwrap();
        }
        service.close();
    });
    let busy: Vec<_> = pair.client.stats().cores.iter().map(|core| core.ledger.consumed).collect();
    assert!(busy.iter().all(|&consumed| consumed >= 200), "both cores took part: {busy:?}");
    drop((service, clients));
    pair.end();
}

#[test]
fn a_service_at_its_limit_goes_on_when_calls_end() {
    let config = SocketConfig { calls_max: 3, backlog: 2, ..SocketConfig::default() };
    let pair = Pair {
        server: engine("limit", "192.0.2.10/24", 1, &config),
        client: engine("limit", "192.0.2.20/24", 1, &SocketConfig::default()),
    };
    let (service, client) = (pair.service(), pair.client());
    thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| assert_eq!(ask(&client, b"hello").unwrap(), b"hello"));
        }
        let held: Vec<_> = (0..3).map(|_| service.accept_timeout(LONG).unwrap()).collect();
        let none = service.accept_timeout(Duration::from_millis(100)).unwrap_err();
        assert_eq!(none, AcceptFailed::TimedOut, "the socket has as many calls as it may");
        scope.spawn(move || {
            // By now the other thread waits for a call again.
            thread::sleep(Duration::from_millis(100));
            for call in held {
                call.reply(b"hello").unwrap();
            }
        });
        for _ in 0..3 {
            service.accept_timeout(LONG).unwrap().reply(b"hello").unwrap();
        }
    });
    drop((service, client));
    pair.end();
}

/// Everybody does everything at any moment: requests of any length, replies without reading, aborts, dropped calls, and
/// in the end the service is closed under its calls. Nothing hangs, nothing is left.
#[test]
fn random_endings_leave_nothing_behind() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0x5eed);
    println!("SEED={seed} cargo test -p rxrpc --test sockets random_endings");
    let pair = Pair::with("random", 2, SocketConfig::default());
    let service = pair.service();
    let clients: Vec<_> = (0..3).map(|_| pair.client()).collect();
    thread::scope(|scope| {
        for server in 0..2 {
            let service = &service;
            let mut random = fastrand::Rng::with_seed(seed + 100 + server);
            scope.spawn(move || {
                for call in service.incoming() {
                    serve_somehow(call, &mut random);
                }
            });
        }
        let calling: Vec<_> = clients
            .iter()
            .zip(seed..)
            .map(|(client, seed)| {
                let mut random = fastrand::Rng::with_seed(seed);
                scope.spawn(move || (0..400).filter(|_| call_somehow(client, &mut random)).count())
            })
            .collect();
        let succeeded: usize = calling.into_iter().map(|calling| calling.join().unwrap()).sum();
        assert!(succeeded > 100, "{succeeded} calls succeeded");
        // Under calls in progress.
        let client = &clients[0];
        for seed in 0..4 {
            let mut random = fastrand::Rng::with_seed(seed);
            scope.spawn(move || (0..20).filter(|_| call_somehow(client, &mut random)).count());
        }
        thread::sleep(Duration::from_millis(5));
        service.close();
    });
    drop((service, clients));
    pair.end();
}

fn serve_somehow(mut call: rxrpc::Call, random: &mut fastrand::Rng) {
    let _ = match random.u8(0..8) {
        0 => return call.abort(random.i32(..)),
        1 => return drop(call),
        2 => call.recv(&mut [0; 100]).map(|_| ()),
        3 => call.reply(b"early"),
        4 => call.send(&pattern(random.usize(0..200_000))),
        5 => call.send(b"and that is it").and_then(|()| call.finish()),
        _ => call.read_all().and_then(|request| call.reply(&request)),
    };
}

/// True: the call succeeded.
fn call_somehow(client: &Client, random: &mut fastrand::Rng) -> bool {
    let options = CallOptions { hard_timeout: Some(LONG), ..CallOptions::default() };
    let Ok(mut call) = client.call_with(Target::new(server(), SERVICE.0), options) else { return false };
    let request = pattern(random.usize(0..50_000));
    match random.u8(0..8) {
        0 => call.abort(random.i32(..)),
        1 => drop(call.send(&request)),
        2 => drop(call.send(&request).and_then(|()| call.finish())),
        3 => drop(call.send(&request).and_then(|()| call.finish()).and_then(|()| call.recv(&mut [0; 10]))),
        _ => {
            // The reply may begin, or the call end, before all of the request is sent.
            let _ = call.send(&request).and_then(|()| call.finish());
            return call.read_all().is_ok();
        }
    }
    false
}
