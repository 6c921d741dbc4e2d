//! The rules of calls and sockets (`bench/lab/rows/ROWS.md`, B), on two engines in one process.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use engine::Engine;

use super::call_ref::{CallRef, ReceiveQueue, Work};
use super::*;
use crate::{CallOptions, Target};

const SERVICE: ServiceId = ServiceId(147);
/// As good as never: a test that waits for so long has failed.
const LONG: Duration = Duration::from_secs(10);
/// Long enough for anything that would happen to have happened.
const SHORT: Duration = Duration::from_millis(100);

struct Pair {
    server: RxEngine,
    client: RxEngine,
}

fn server() -> SocketAddr {
    "192.0.2.10:7009".parse().unwrap()
}

impl Pair {
    fn new(name: &str) -> Self {
        let start = |address: &str| {
            let builder = Engine::builder().name(name).port(format!("memory:{name}")).address(address);
            builder.core_count(1).pool_buffers(1_024).start_rx().unwrap()
        };
        Pair { server: start("192.0.2.10/24"), client: start("192.0.2.20/24") }
    }

    fn service(&self) -> Service {
        self.server.rx().bind(server(), SERVICE).unwrap()
    }

    /// A socket with user IDs that listens, and one that calls.
    fn sockets(&self) -> (RxSocket, RxSocket) {
        (self.server.rx().listen(server(), SERVICE, 4).unwrap(), self.client.rx().socket().unwrap())
    }
}

fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !condition() {
        assert!(Instant::now() < deadline, "never came true: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

fn call(client: &RxSocket, user_id: u64, request: &[u8]) {
    let options = CallOptions { hard_timeout: Some(LONG), ..CallOptions::default() };
    client.call(user_id, Target::new(server(), SERVICE.0), options).unwrap();
    client.send(user_id, request, false).unwrap();
}

/// The next message, whatever data comes before it thrown away.
fn next(socket: &RxSocket) -> Message {
    loop {
        match socket.recv_timeout(LONG, &mut [0; 64]).unwrap() {
            Message::Data { .. } => {}
            other => return other,
        }
    }
}

// ---- B1, B2, B9, B15: sockets ----

#[test]
fn the_name_of_a_closed_socket_means_nothing() {
    let pair = Pair::new("b1-name");
    let first = pair.client.rx().socket().unwrap();
    let (id, table) = (first.socket.id, first.api.sockets.clone());
    assert!(table.with(id, |socket| socket.is_closed()).is_some());
    drop(first);
    let second = pair.client.rx().socket().unwrap();
    assert_eq!(second.socket.id.slot, id.slot, "the slot is another's now");
    assert!(table.with(id, |_| ()).is_none(), "the name resolves to a socket that it does not name");
}

#[test]
fn a_call_does_not_keep_its_socket() {
    let pair = Pair::new("b1-keep");
    let client = pair.client.rx().client().unwrap();
    let mut call = client.call(server(), SERVICE).unwrap();
    let socket = Arc::downgrade(&client.socket);
    drop(client);
    eventually("the socket's memory is freed", || socket.strong_count() == 0);
    assert_eq!(call.end(), Some(CallEnd::SocketClosed));
    let closed = CallFailed::Ended(CallEnd::SocketClosed);
    assert_eq!(call.send(b"more").unwrap_err(), closed);
}

/// Closes a client while this thread reads it; returns what it saw before it stopped reading.
fn close_under_a_reader<R>(
    pair: &Pair,
    look: impl FnOnce(&AtomicBool, &Weak<socket_shared::SocketShared>) -> R,
) -> R {
    let client = pair.client.rx().client().unwrap();
    let (id, table) = (client.socket.id, client.api.sockets.clone());
    let (weak, closed) = (Arc::downgrade(&client.socket), AtomicBool::new(false));
    thread::scope(|scope| {
        let pin = engine::rcu::pin();
        let socket = table.get(id, pin.guard()).expect("it is open");
        scope.spawn(|| {
            drop(client);
            closed.store(true, Ordering::SeqCst);
        });
        eventually("the socket is unpublished", || table.get(id, pin.guard()).is_none());
        thread::sleep(SHORT);
        assert!(socket.is_closed(), "the reader still sees it, closed");
        let seen = look(&closed, &weak);
        drop(pin);
        seen
    })
}

#[test]
fn close_waits_for_whoever_found_the_socket_before() {
    let pair = Pair::new("b2-grace");
    let closed = close_under_a_reader(&pair, |closed, _| closed.load(Ordering::SeqCst));
    assert!(!closed, "close drained the socket while it was being read");
}

#[test]
fn the_memory_of_a_socket_is_there_until_its_readers_are_gone() {
    let pair = Pair::new("b2-memory");
    let weak = close_under_a_reader(&pair, |_, weak| {
        assert!(weak.strong_count() > 0, "freed under a reader");
        weak.clone()
    });
    eventually("the memory is freed", || weak.strong_count() == 0);
}

#[test]
fn a_closed_socket_is_found_by_nobody_and_takes_no_call() {
    let pair = Pair::new("b15-order");
    let (service, _client) = pair.sockets();
    service.charge(1).unwrap();
    service.close();
    let gone = service.api.sockets.with(service.socket.id, |_| ()).is_none();
    assert!(gone, "a closed socket is still found");
    assert_eq!(service.charge(2), Err(CallFailed::Ended(CallEnd::SocketClosed)));
    assert_eq!(pair.server.rx().live_calls(), 0, "charges end with their socket");
}

#[test]
fn close_releases_and_aborts_all_calls_at_once() {
    let pair = Pair::new("b9-close");
    let (service, client) = pair.sockets();
    service.charge(1).unwrap();
    call(&client, 10, b"hello");
    assert!(matches!(next(&service), Message::NewCall { user_id: 1, .. }));
    service.close();
    assert_eq!(pair.server.rx().live_calls(), 0, "a call outlived the close of its socket");
    let code = crate::code::CALL_DEAD;
    assert_eq!(next(&client), Message::Abort { user_id: 10, code, remote: true });
}

#[test]
fn close_wakes_and_ends_calls_that_handles_hold() {
    let pair = Pair::new("b9-handle");
    let client = pair.client.rx().client().unwrap();
    let mut held = client.call(server(), SERVICE).unwrap();
    held.set_timeout(Some(LONG));
    thread::scope(|scope| {
        let reading = scope.spawn(|| held.read_all().unwrap_err());
        thread::sleep(SHORT);
        client.close();
        assert_eq!(reading.join().unwrap(), CallFailed::Ended(CallEnd::SocketClosed));
    });
    assert_eq!(pair.client.rx().calls()[0].holders, "--S--", "the handle alone");
    drop(held);
    assert_eq!(pair.client.rx().live_calls(), 0);
}

// ---- B3, B4: release ----

#[test]
fn a_call_is_released_by_its_user_alone_and_once() {
    let pair = Pair::new("b3-once");
    let service = pair.service();
    let client = pair.client.rx().client().unwrap();
    let mut ours = client.call(server(), SERVICE).unwrap();
    ours.finish().unwrap();
    service.accept_timeout(LONG).unwrap().reply(b"").unwrap();
    ours.set_timeout(Some(LONG));
    ours.wait().unwrap();
    let shared = ours.shared().clone();
    assert!(!shared.is_released(), "complete, and still its user's");
    assert!(shared.mark_released());
    assert!(!shared.mark_released(), "released twice");
    // The user's reference is put by dropping the handle, which finds the call released; the core is told here.
    pair.client.rx().api.tell(0, command::SocketCommand::Release(command::Released(shared.name())));
    drop(ours);
    eventually("the call is cleaned up", || pair.client.rx().live_calls() == 0);
}

#[test]
fn a_released_user_id_is_free_at_once_and_no_message_carries_it() {
    let pair = Pair::new("b4-id");
    let (service, client) = pair.sockets();
    service.charge(1).unwrap();
    call(&client, 10, b"hello");
    eventually("the call is on the queue", || !service.socket.queue().is_empty());
    let released = service.find(1).unwrap();
    service.release(1).unwrap();
    // The ID names another call from here on.
    service.charge(1).unwrap();
    eventually("the released call ended", || released.completion.get().is_some());
    drop(released);
    assert_eq!(service.recv_timeout(SHORT, &mut [0; 64]), Err(AcceptFailed::TimedOut));
    assert!(matches!(next(&client), Message::Abort { user_id: 10, remote: true, .. }));
    call(&client, 10, b"again");
    assert!(matches!(next(&service), Message::NewCall { user_id: 1, .. }));
}

#[test]
fn a_released_charge_is_taken_by_no_call() {
    let pair = Pair::new("b4-charge");
    let (service, client) = pair.sockets();
    for round in 0..20 {
        // More rounds than the backlog has places.
        service.charge(round).unwrap();
        service.release(round).unwrap();
    }
    eventually("the charges are gone", || pair.server.rx().live_calls() == 0);
    service.charge(100).unwrap();
    call(&client, 10, b"hello");
    assert!(matches!(next(&service), Message::NewCall { user_id: 100, .. }));
}

// ---- B6, B7, B10, B11, B12, B16: calls ----

#[test]
fn a_run_is_queued_once_and_not_for_a_released_call() {
    let pair = Pair::new("b6-once");
    let client = pair.client.rx().client().unwrap();
    let call = client.call(server(), SERVICE).unwrap();
    let shared = call.shared().clone();
    eventually("the call began", || !shared.work.is_set());
    let queued = CallRef::<Work>::take(&shared).expect("it is not queued");
    assert!(CallRef::<Work>::take(&shared).is_none(), "queued twice");
    drop(queued);
    drop(CallRef::<Work>::take(&shared).expect("put, as it was not sent"));
    drop(call);
    assert!(CallRef::<Work>::take(&shared).is_none(), "a released call was queued");
}

#[test]
fn a_call_that_was_cleaned_up_is_gone_and_its_memory_is_the_next_ones() {
    let pair = Pair::new("b7-name");
    let client = pair.client.rx().client().unwrap();
    let table = &pair.client.rx().api.cores[0].table;
    let first = client.call(server(), SERVICE).unwrap();
    let name = first.shared().name();
    assert!(table.find(name).is_some());
    drop(first);
    eventually("it is cleaned up", || pair.client.rx().live_calls() == 0);
    assert!(table.find(name).is_none(), "the name of a call that is gone resolves to something");
    let second = client.call(server(), SERVICE).unwrap();
    assert_eq!(second.shared().name().index, name.index, "recycled");
    assert!(table.find(name).is_none(), "the name resolves to another call");
}

#[test]
fn the_memory_of_a_call_that_somebody_looks_at_goes_through_rcu() {
    let pair = Pair::new("b7-rcu");
    let client = pair.client.rx().client().unwrap();
    let rx = pair.client.rx();
    let first = client.call(server(), SERVICE).unwrap();
    let (late, weak) = (first.shared().clone(), Arc::downgrade(first.shared()));
    drop(first);
    eventually("it is cleaned up", || rx.live_calls() == 0);
    let pin = engine::rcu::pin();
    let second = client.call(server(), SERVICE).unwrap();
    assert!(!Arc::ptr_eq(second.shared(), &late), "recycled under somebody who has it");
    drop(late);
    thread::sleep(SHORT);
    assert!(weak.strong_count() > 0, "freed before the grace period was over");
    drop(pin);
    eventually("its memory is freed", || weak.strong_count() == 0);
}

#[test]
fn views_see_the_calls_that_there_are_while_calls_come_and_go() {
    let pair = Pair::new("b10-views");
    let serving = pair.service().serve(|call| call.answer(<[u8]>::to_vec)).unwrap();
    let client = pair.client.rx().client().unwrap();
    let held = client.call(server(), SERVICE).unwrap();
    eventually("it began", || !held.shared().work.is_set());
    let user_id = held.shared().user_id();
    let stop = AtomicBool::new(false);
    let missing = thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                client.request(server(), SERVICE, b"hello").unwrap();
            }
        });
        let missing = (0..300).filter(|_| {
            let views = pair.client.rx().calls();
            !views.iter().any(|view| view.user_id == user_id && view.holders == "--S--")
        });
        let missing = missing.count();
        stop.store(true, Ordering::Relaxed);
        missing
    });
    assert_eq!(missing, 0, "a call that is held all the time was not listed");
    drop((held, client));
    eventually("no call is listed that nobody holds", || pair.client.rx().calls().is_empty());
    drop(serving);
}

#[test]
fn the_end_of_everything_finds_no_call() {
    let pair = Pair::new("b11-list");
    let service = pair.service();
    let client = pair.client.rx().client().unwrap();
    let table = pair.client.rx().api.cores[0].table.clone();
    let calls: Vec<_> = (0..3).map(|_| client.call(server(), SERVICE).unwrap()).collect();
    assert!(!table.is_empty());
    // Released, and the core's halves are on their way back.
    drop(calls);
    drop((service, client));
    let Pair { server, client } = pair;
    server.shutdown();
    client.shutdown();
    assert!(table.is_empty(), "a call is left: {:#?}", table.views());
}

#[test]
#[should_panic(expected = "a call outlived its socket and its handles")]
fn a_reference_that_nobody_puts_is_noticed_at_the_end() {
    let pair = Pair::new("b11-leak");
    let client = pair.client.rx().client().unwrap();
    let call = client.call(server(), SERVICE).unwrap();
    std::mem::forget(CallRef::<ReceiveQueue>::take(call.shared()));
    drop(call);
    drop(client);
    pair.client.shutdown();
}

#[test]
fn a_reader_that_leaves_data_behind_is_told_again_and_news_links_anew() {
    let pair = Pair::new("b12-again");
    let (service, client) = pair.sockets();
    service.charge(1).unwrap();
    client.call(10, Target::new(server(), SERVICE.0), CallOptions::default()).unwrap();
    for round in 0..50 {
        client.send(10, b"request", true).unwrap();
        if round == 0 {
            assert!(matches!(service.recv_timeout(LONG, &mut []), Ok(Message::NewCall { user_id: 1, .. })));
        }
        let mut read = 0;
        while read < 7 {
            let mut part = [0; 3];
            match service.recv_timeout(LONG, &mut part).expect("told again of what was left") {
                Message::Data { user_id: 1, bytes, end: false } => {
                    assert_eq!(part[..bytes], b"request"[read..read + bytes]);
                    read += bytes;
                }
                other => panic!("{other:?}"),
            }
        }
    }
    let shared = service.find(1).unwrap();
    assert!(!shared.linked.is_set(), "off the queue");
    let views = pair.server.rx().calls();
    assert_eq!(views[0].holders, "U----", "an entry that is gone still holds the call");
}

#[test]
fn a_user_id_is_charged_once() {
    let pair = Pair::new("b16-id");
    let (service, _client) = pair.sockets();
    service.charge(7).unwrap();
    assert_eq!(service.charge(7), Err(CallFailed::UserIdInUse(7)));
    let options = CallOptions::default();
    assert_eq!(service.call(7, Target::new(server(), 1), options), Err(CallFailed::UserIdInUse(7)));
}

#[test]
fn charges_and_close_are_serialised() {
    for round in 0..20 {
        let pair = Pair::new(&format!("b16-close-{round}"));
        let (service, _client) = pair.sockets();
        thread::scope(|scope| {
            scope.spawn(|| {
                for user_id in 0.. {
                    match service.charge(user_id) {
                        Ok(()) => service.release(user_id).map_or((), |()| ()),
                        Err(CallFailed::BacklogFull { .. } | CallFailed::TooManyCalls { .. }) => {}
                        Err(closed) => {
                            assert_eq!(closed, CallFailed::Ended(CallEnd::SocketClosed));
                            break;
                        }
                    }
                }
            });
            thread::sleep(Duration::from_millis(2));
            service.close();
        });
        eventually("every charge ended", || pair.server.rx().live_calls() == 0);
        assert!(service.socket.ids().is_empty(), "a user ID outlived the close");
    }
}

// ---- services on the core ----

#[test]
fn a_service_that_panics_fails_its_call_and_its_core_goes_on() {
    let pair = Pair::new("panics");
    let serving = pair.service().serve(|call| match call.request() {
        b"panic" => panic!("this panic is part of the test"),
        _ => call.answer(<[u8]>::to_vec),
    });
    let client = pair.client.rx().client().unwrap();
    for _ in 0..3 {
        let failed = client.request(server(), SERVICE, b"panic").unwrap_err();
        assert_eq!(failed.abort_code(), Some(crate::code::INVALID_OPERATION));
        assert_eq!(client.request(server(), SERVICE, b"hello").unwrap(), b"hello");
    }
    assert_eq!(pair.server.rx().panicked_calls(), 3);
    drop((serving, client));
}
