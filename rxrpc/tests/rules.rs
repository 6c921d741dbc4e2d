//! The rules that other implementations' bugs have taught, each as a test. The names are those bugs'.
//!
//! Rules that cannot be seen from outside the core are tested where they are kept, under the same numbers: 1 to 3 on the side of threads in
//! `socket/tests.rs` and `ui/`, 4, 5, 7 and 8 for rxkad in `rxkad.rs` beside this file, 6 and 8 in `conn_service.rs`, 12 (keyed hashing) in
//! `conn.rs`, 12 (what a turn sends) in `turns.rs`, 15 (checksums) in `checksum.rs`.

mod common;

use common::solo::{SERVICE, Solo, ack_body, packet};
use rxrpc::wire::{AckReason, AckTrailer, Flags, JUMBO_PAYLOAD_LEN, PacketType};
use rxrpc::{CallState, Completion, EndpointConfig, Event, RxDrop, ServiceConfig, Timeout, code};
use std::time::Duration;

fn solo() -> Solo {
    Solo::new(EndpointConfig::default())
}

const LAST: Flags = Flags::LAST;
const ASK: Flags = Flags::REQUEST_ACK;

/// 1. Notification, release and receive raced for a queue link: here a call has at most one `Readable` in the queue,
///    and none once it is released.
#[test]
fn a_call_is_on_the_event_queue_once() {
    let mut t = solo();
    for seq in 1..=10 {
        t.data(1, seq, Flags::NONE, b"x").unwrap();
    }
    let call = t.incoming();
    assert_eq!(t.events(), [Event::Readable { call }]);
    t.data(1, 11, LAST, b"x").unwrap();
    assert!(t.node.rx.release(t.now, call));
    assert_eq!(t.events(), [], "no event names a released call");
}

/// 2. Unlinking under readers: a released call is found by nobody, and its slot's next tenant is not taken for it.
#[test]
fn a_released_call_is_found_by_nobody() {
    let mut t = solo();
    t.data(1, 1, LAST, b"one").unwrap();
    let first = t.incoming();
    assert!(t.node.rx.release(t.now, first));
    t.data(2, 1, LAST, b"two").unwrap();
    let second = t.incoming();
    assert_eq!(first.slot(), second.slot());
    assert!(!t.node.rx.release(t.now, first));
    assert!(t.node.rx.call(first).is_none() && t.node.rx.send_room(first) == 0);
    assert!(t.node.rx.recv(t.now, first, &mut [0; 8]).is_err());
    t.node.rx.abort(t.now, first, 1);
    assert_eq!(t.node.rx.completion(second), None, "an old identifier does not touch the new call");
}

/// 3 and 4. References put that were not taken, and things leaked where something is refused: after each refusal the
/// tables and the pool are as they were.
#[test]
fn nothing_leaks_where_a_packet_is_refused() {
    let mut t =
        Solo::new(EndpointConfig { conns_max: 3, peers_max: 2, calls_max: 4, ..EndpointConfig::default() });
    t.node
        .rx
        .listen(t.node.local, ServiceConfig { backlog: 0, auto_charge: false, ..ServiceConfig::new(9) })
        .unwrap();
    let refused = |t: &mut Solo, reason, change: &dyn Fn(&mut rxrpc::wire::Header)| {
        let mut header = t.header(PacketType::Data, 1, 1);
        change(&mut header);
        assert_eq!(t.input(&header, b"abc"), Err(reason), "{header:?}");
        assert_eq!(
            (t.node.rx.conns().count(), t.node.rx.peers().count(), t.node.rx.calls().count()),
            (0, 0, 0)
        );
    };
    refused(&mut t, RxDrop::NoService, &|header| header.service = 1);
    refused(&mut t, RxDrop::UnknownSecurity, &|header| header.security_index = 2);
    refused(&mut t, RxDrop::Busy, &|header| header.service = 9);
    refused(&mut t, RxDrop::BadSequence, &|header| header.seq = 0);
    refused(&mut t, RxDrop::BadSequence, &|header| header.call = 0);
    refused(&mut t, RxDrop::MidCall, &|header| header.seq = 256);
    refused(&mut t, RxDrop::NoConnection, &|header| header.flags = Flags::NONE);
    refused(&mut t, RxDrop::NoConnection, &|header| header.packet_type = PacketType::Ack);
    refused(&mut t, RxDrop::Unexpected, &|header| header.packet_type = PacketType::Params);
    assert_eq!(
        t.sent().len(),
        3,
        "an abort for each of the first two, BUSY for the third, silence for the rest"
    );
    assert!(t.node.rx.stats().ledger_closes());
    assert_eq!(t.node.pool.available(), t.node.pool.capacity());
}

/// 6. Charged accepts and the end of their socket: calls that came in and were never looked at end with the address.
#[test]
fn charged_calls_end_with_their_address() {
    let mut t = solo();
    t.data(1, 1, LAST, b"never looked at").unwrap();
    t.node.rx.remove_local(t.now, t.node.local);
    assert_eq!(t.sent_one().code(), code::USER_ABORT);
    assert_eq!(t.events(), [], "the call is gone, and its announcement with it");
    assert!(t.node.rx.is_idle());
    assert_eq!((t.node.rx.conns().count(), t.node.rx.locals().count()), (0, 0));
    assert_eq!(t.node.pool.available(), t.node.pool.capacity());
    assert_eq!(t.data(2, 1, LAST, b"too late"), Err(RxDrop::NoLocal));
}

/// 7. A RESPONSE that nobody asked for.
#[test]
fn a_response_without_a_challenge_is_ignored() {
    let mut t = solo();
    t.data(1, 1, LAST, b"x").unwrap();
    let call = t.incoming();
    let header = t.header(PacketType::Response, 0, 0);
    assert_eq!(t.input(&header, &[0; 300]), Err(RxDrop::ResponseUnasked));
    assert_eq!(t.node.rx.completion(call), None);
}

/// 9. An ACK parsed without looking at its length, and ACKs of what was never sent.
#[test]
fn acks_are_checked_before_they_are_believed() {
    let mut t = solo();
    t.data(1, 1, LAST, b"x").unwrap();
    let call = t.incoming();
    t.reply(call, &[7; 5_000]);
    assert_eq!(t.sent().len(), 4);
    let header = t.header(PacketType::Ack, 1, 0);
    let whole = ack_body(AckReason::Idle, 1, &[1; 4], 0, AckTrailer::default());
    assert_eq!(t.input(&header, &whole[..17]), Err(RxDrop::BadPacket), "ends within its fixed part");
    assert_eq!(t.input(&header, &whole[..20]), Err(RxDrop::BadPacket), "promises four slots and has two");
    assert_eq!(t.ack(1, AckReason::Idle, 6, &[], 32), Err(RxDrop::BadAck), "there is no packet 5");
    assert_eq!(t.ack(1, AckReason::Idle, u32::MAX, &[], 32), Err(RxDrop::OldAck));
    assert_eq!(t.node.rx.call(call).unwrap().unacked_packets, 4, "none of them moved anything");
    // More slots than packets: what lies beyond is nobody's.
    t.ack(1, AckReason::Idle, 1, &[1; 255], 32).unwrap();
    assert_eq!(t.node.rx.completion(call), Some(Completion::Succeeded));
}

/// 10. maxMTU and rwind taken as they come.
#[test]
fn what_a_peer_claims_is_clamped() {
    let mut t = solo();
    t.data(1, 1, LAST, b"x").unwrap();
    let call = t.incoming();
    t.reply(call, &[7; 5_000]);
    t.sent();
    for (mtu, clamped) in [(0, 500), (u32::MAX, 65_535)] {
        let header = t.header(PacketType::Ack, 1, 0);
        let trailer = AckTrailer::full(mtu, mtu, u32::MAX, u32::MAX);
        t.input(&header, &ack_body(AckReason::Idle, 1, &[], 0, trailer)).unwrap();
        let peer = t.node.rx.peers().next().unwrap();
        assert_eq!((peer.max_mtu, peer.jumbo_max), (clamped, 47));
        assert_eq!(t.node.rx.call(call).unwrap().peer_window, 255);
    }
}

/// 10. A window of zero is a window of zero; what opens it again may be lost, so it is asked for.
#[test]
fn a_closed_window_is_probed() {
    let mut t = solo();
    t.data(1, 1, LAST, b"x").unwrap();
    let call = t.incoming();
    t.reply(call, &[7; 30_000]);
    let first = t.sent().len() as u32;
    t.ack(1, AckReason::Idle, first + 1, &[], 0).unwrap();
    let probes = t.wait(Duration::from_secs(3));
    assert!(probes.iter().all(|(_, sent)| sent.is(PacketType::Ack) && sent.ack().reason == AckReason::Ping));
    assert!((2..=8).contains(&probes.len()), "{} probes in three seconds", probes.len());
    t.ack(1, AckReason::PingResponse, first + 1, &[], 255).unwrap();
    assert!(t.sent().iter().any(|sent| sent.is(PacketType::Data)), "and it goes on");
}

/// 11. ABORTs that answer ABORTs.
#[test]
fn an_abort_is_never_answered() {
    let mut t = solo();
    t.data(1, 1, LAST, b"x").unwrap();
    let call = t.incoming();
    let abort = t.header(PacketType::Abort, 1, 0);
    t.input(&abort, &7_i32.to_be_bytes()).unwrap();
    assert_eq!(t.node.rx.completion(call), Some(Completion::RemoteAbort(7)));
    assert_eq!(t.input(&abort, &7_i32.to_be_bytes()), Err(RxDrop::NoCall));
    let mut stray = t.header(PacketType::Abort, 1, 0);
    stray.service = 99;
    stray.epoch = 1;
    assert_eq!(t.input(&stray, &7_i32.to_be_bytes()), Err(RxDrop::NoConnection));
    let whole = t.header(PacketType::Abort, 0, 0);
    t.input(&whole, &8_i32.to_be_bytes()).unwrap();
    assert_eq!(t.wait(Duration::from_secs(30)).len(), 0);
}

/// 11. BUSY, and ACKs that belong to nothing, are not answered either.
#[test]
fn busy_and_unmatched_acks_are_never_answered() {
    let mut t = solo();
    for kind in [PacketType::Busy, PacketType::Ack, PacketType::AckAll, PacketType::Response] {
        let header = t.header(kind, 1, 0);
        assert_eq!(t.input(&header, &[0; 64]), Err(RxDrop::NoConnection));
    }
    assert_eq!(t.sent().len(), 0);
}

/// 11. One ACK for each part of a jumbogram (1,183 of them for 546 datagrams were seen): one for the datagram.
#[test]
fn a_jumbogram_gets_one_ack() {
    let mut t = solo();
    let jumbo = |t: &mut Solo, seq| {
        let mut header = t.header(PacketType::Data, 1, seq);
        header.flags = header.flags | Flags::JUMBO | ASK;
        let part = [&[5; JUMBO_PAYLOAD_LEN][..], &[Flags::JUMBO.0 | ASK.0, 0, 0, 0]].concat();
        let body = [part.repeat(3), vec![6; 100]].concat();
        // The parts say whether another follows; the fourth is the tail.
        let mut body = body;
        body[3 * (JUMBO_PAYLOAD_LEN + 4) - 4] = ASK.0;
        t.input(&header, &body)
    };
    jumbo(&mut t, 1).unwrap();
    let ack = t.sent_one();
    assert_eq!((ack.ack().first, ack.ack().reason), (5, AckReason::Requested));
    jumbo(&mut t, 6).unwrap();
    assert_eq!(t.sent_one().ack().slots, [0, 1, 1, 1, 1], "and one for four packets out of order");
    assert_eq!(jumbo(&mut t, 1), Err(RxDrop::Duplicate));
    assert_eq!(t.sent_one().ack().reason, AckReason::Duplicate, "and one for four duplicates");
    assert_eq!(t.node.rx.stats().received[1], 12);
}

/// 11. A packet refused for want of room is not sent again at once, only to be refused again.
#[test]
fn a_refused_packet_waits_for_the_window() {
    let mut t = Solo::new(EndpointConfig { unread_buffers_max: 0, ..EndpointConfig::default() });
    t.data(1, 1, Flags::NONE, b"x").unwrap();
    t.data(1, 2, Flags::NONE, b"x").unwrap();
    assert_eq!(t.data(1, 3, Flags::NONE, b"x"), Err(RxDrop::NoBuffers), "two are the call's own");
    let refusal = t.sent().pop().unwrap();
    assert_eq!((refusal.ack().reason, refusal.ack().first), (AckReason::NoSpace, 3));
    assert_eq!(refusal.ack().trailer.receive_window, Some(0));
    // And as the sender of such a packet.
    let call = t.incoming();
    t.reply(call, &[7; 4_000]);
    let sent = t.sent();
    let header = t.header(PacketType::Ack, 1, 0);
    let body = |window| {
        ack_body(AckReason::NoSpace, 2, &[], sent[1].header.serial, AckTrailer::full(1444, 1444, window, 1))
    };
    t.input(&header, &body(0)).unwrap();
    assert_eq!(t.sent().len(), 0);
    t.ack(1, AckReason::Idle, 2, &[], 2).unwrap();
    assert_eq!(t.sent_one().header.seq, 2, "it goes as soon as there is room, and needs no timer");
}

/// 12. A starved I/O thread: a call with much to send does not keep the others waiting.
#[test]
fn a_long_reply_lets_others_have_their_turn() {
    let mut t = Solo::new(EndpointConfig { burst_packets: 4, ..EndpointConfig::default() });
    t.data(1, 1, LAST, b"x").unwrap();
    let long = t.incoming();
    t.reply(long, &[1; 20_000]);
    let mut other = t.header(PacketType::Data, 1, 1);
    other.cid = rxrpc::wire::Cid(common::solo::CID + 1);
    other.flags = other.flags | LAST;
    t.input(&other, b"y").unwrap();
    t.events();
    let short = t.node.rx.calls().find(|call| call.id != long).unwrap().id;
    t.reply(short, b"short");
    let channels: Vec<usize> = t.sent().iter().map(|sent| sent.header.cid.channel()).collect();
    assert_eq!(channels, [0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
}

/// 12. A starved I/O thread: clients that came together are not all seen off in one turn.
#[test]
fn a_crowd_leaves_in_many_turns() {
    const CROWD: usize = 2_000;
    let mut t = Solo::new(EndpointConfig { conns_max: CROWD, ..EndpointConfig::default() });
    for n in 0..CROWD as u32 {
        let mut header = t.header(PacketType::Data, 1, 1);
        (header.cid, header.flags) = (rxrpc::wire::Cid(common::solo::CID + 4 * n), header.flags | LAST);
        t.input(&header, b"x").unwrap();
        let call = t.incoming();
        assert!(t.node.rx.release(t.now, call));
        t.sent();
        t.events();
    }
    assert_eq!(t.node.rx.conns().count(), CROWD);
    t.now += t.node.rx.config().service_conn_idle + Duration::from_secs(1);
    let mut turns = 0;
    while t.node.rx.next_timeout().is_some_and(|at| at <= t.now) {
        let before = t.node.rx.conns().count();
        t.node.rx.expire(t.now);
        assert!(
            before - t.node.rx.conns().count() <= 256,
            "a turn of {} timers",
            before - t.node.rx.conns().count()
        );
        turns += 1;
    }
    assert_eq!(t.node.rx.conns().count(), 0);
    assert!(turns >= CROWD / 256, "{turns}");
}

/// 13. A server restarted in the middle of a call: only DATA from a call's beginning creates one.
#[test]
fn only_the_beginning_of_a_call_creates_it() {
    let mut t = solo();
    assert_eq!(t.ack(1, AckReason::Ping, 1, &[], 32), Err(RxDrop::NoConnection));
    assert_eq!(t.data(1, 300, Flags::NONE, b"x"), Err(RxDrop::MidCall));
    t.data(1, 1, LAST, b"x").unwrap();
    assert_eq!(t.ack(2, AckReason::Ping, 1, &[], 32), Err(RxDrop::NoCall), "nor on a connection that exists");
    assert_eq!(t.data(2, 300, Flags::NONE, b"x"), Err(RxDrop::MidCall));
    assert_eq!(t.data(0, 1, Flags::NONE, b"x"), Err(RxDrop::Unexpected));
    assert_eq!(t.node.rx.calls().count(), 1);
}

/// 13. Invalid packets that keep a call alive.
#[test]
fn invalid_packets_do_not_keep_a_call_alive() {
    let mut t = solo();
    t.data(1, 1, LAST, b"x").unwrap();
    let call = t.incoming();
    for _ in 0..19 {
        t.wait(Duration::from_secs(1));
        assert_eq!(t.ack(1, AckReason::Idle, 77, &[], 32), Err(RxDrop::BadAck));
        assert_eq!(t.data(1, 0, Flags::NONE, b"x"), Err(RxDrop::BadSequence));
        assert_eq!(t.data(1, 9, Flags::NONE, b"x"), Err(RxDrop::BadSequence), "beyond the end");
    }
    assert_eq!(t.node.rx.completion(call), None);
    t.wait(Duration::from_millis(1_100));
    assert_eq!(t.node.rx.completion(call), Some(Completion::TimedOut(Timeout::Dead)));
}

/// 14. OpenAFS ends calls without a hard ACK: the next call on the channel is the end.
#[test]
fn the_next_call_acknowledges_the_last_reply() {
    let mut t = solo();
    t.data(1, 1, LAST, b"x").unwrap();
    let first = t.incoming();
    t.reply(first, b"reply");
    t.sent();
    assert_eq!(t.node.rx.call(first).unwrap().state, CallState::ServiceAwaitAck);
    t.data(2, 1, LAST, b"y").unwrap();
    assert_eq!(t.node.rx.completion(first), Some(Completion::Succeeded));
}

/// 14. And one that never comes: waiting for the ACK of a reply ends.
#[test]
fn a_reply_that_nobody_acknowledges_ends() {
    let mut t = solo();
    t.data(1, 1, LAST, b"x").unwrap();
    let call = t.incoming();
    t.reply(call, b"reply");
    let sent = t.wait(Duration::from_secs(21));
    let replies = sent.iter().filter(|(_, sent)| sent.is(PacketType::Data)).count();
    assert!((4..=10).contains(&replies), "sent {replies} times");
    assert!(!sent.iter().any(|(_, sent)| sent.is(PacketType::Abort)), "nobody is there to be told");
    assert_eq!(t.node.rx.completion(call), Some(Completion::TimedOut(Timeout::Dead)));
}

/// 15. Jumbograms that do not add up, and ours: none without a proof that they arrive, whatever the peer claims to take.
#[test]
fn jumbograms_are_strict_and_not_sent_without_proof() {
    let mut t = solo();
    let mut header = t.header(PacketType::Data, 1, 1);
    header.flags = header.flags | Flags::JUMBO;
    assert_eq!(t.input(&header, &[0; 1_000]), Err(RxDrop::BadJumbo));
    assert_eq!(t.events(), [], "it does not create a call");
    t.data(1, 1, LAST, b"x").unwrap();
    let call = t.incoming();
    let takes = |t: &mut Solo| {
        let header = t.header(PacketType::Ack, 1, 0);
        t.input(&header, &ack_body(AckReason::Idle, 1, &[], 0, AckTrailer::full(65_535, 65_535, 255, 47)))
    };
    takes(&mut t).unwrap();
    t.reply(call, &[1; 50_000]);
    let sent = t.sent();
    let data = || sent.iter().filter(|sent| sent.is(PacketType::Data));
    assert_eq!(data().count(), 10);
    assert!(data().all(|sent| !sent.header.flags.contains(Flags::JUMBO) && sent.body.len() <= 1_416));
    let ping = sent.iter().find(|sent| sent.is(PacketType::Ack)).expect("the path is probed");
    assert_eq!((ping.ack().reason, ping.body.len()), (AckReason::Ping, 2 * JUMBO_PAYLOAD_LEN + 4));
    let header = t.header(PacketType::Ack, 1, 0);
    let pong = ack_body(
        AckReason::PingResponse,
        11,
        &[],
        ping.header.serial,
        AckTrailer::full(65_535, 65_535, 255, 47),
    );
    t.input(&header, &pong).unwrap();
    assert_eq!(t.node.rx.peers().next().unwrap().datagram_packets, 2);
    t.ack(1, AckReason::Idle, 11, &[], 255).unwrap();
    assert_eq!(t.node.rx.peers().next().unwrap().jumbo_max, 1);
    let sent = t.sent();
    assert!(sent.iter().all(|sent| !sent.header.flags.contains(Flags::JUMBO)), "it takes none any more");
}

/// Packets for a service or a security class that we do not have are told so, by the code that OpenAFS and Linux use;
/// but only so many a second.
#[test]
fn strangers_are_told_within_limits() {
    let mut t = Solo::new(EndpointConfig { stray_replies_per_second: 10, ..EndpointConfig::default() });
    for call in 1..=100 {
        let mut header = t.header(PacketType::Data, call, 1);
        header.service = 99;
        assert_eq!(t.input(&header, b"x"), Err(RxDrop::NoService));
    }
    let sent = t.sent();
    assert_eq!(sent.len(), 10);
    assert_eq!(sent[0].code(), code::INVALID_OPERATION);
    assert_eq!((sent[0].header.call, sent[0].header.flags), (1, Flags::NONE));
    t.wait(Duration::from_secs(1));
    let bytes = packet(&t.header(PacketType::Data, 1, 1), b"x");
    assert_ne!(bytes.len(), 0);
    let mut header = t.header(PacketType::Data, 1, 1);
    header.security_index = 2;
    header.service = SERVICE;
    assert_eq!(t.input(&header, b"x"), Err(RxDrop::UnknownSecurity));
    assert_eq!(t.sent_one().code(), code::INVALID_OPERATION);
}
