//! What an endpoint does in each situation, packet by packet.

mod common;

use common::solo::{CID, EPOCH, SERVICE, Sent, Solo, ack_body};
use common::{Faults, Net, Node};
use rxrpc::wire::debug::{DebugKind, DebugReply, DebugRequest};
use rxrpc::wire::{AckReason, AckTrailer, Cid, Flags, Header, PacketType};
use rxrpc::{
    BeginError, CallError, CallId, CallOptions, CallState, Completion, EndpointConfig, Event, ListenError,
    NetError, RxDrop, ServiceConfig, Target, Timeout, code,
};
use std::time::Duration;

const LAST: Flags = Flags::LAST;
const ASK: Flags = Flags::REQUEST_ACK;
const NONE: Flags = Flags::NONE;

fn solo() -> Solo {
    Solo::new(EndpointConfig::default())
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A client call of ours with its request sent.
fn call(t: &mut Solo, options: CallOptions) -> (CallId, Sent) {
    let Node { rx, pool, local, .. } = &mut t.node;
    let call = rx.begin(t.now, *local, Target::new(t.peer, SERVICE), options).unwrap();
    rx.send(t.now, pool, call, b"request", false).unwrap();
    (call, t.sent_one())
}

/// A server's packet for it.
fn from_server(
    t: &mut Solo,
    request: &Sent,
    kind: PacketType,
    seq: u32,
    flags: Flags,
    body: &[u8],
) -> Result<(), RxDrop> {
    let serial = t.header(kind, 1, seq).serial;
    let header = Header { packet_type: kind, seq, serial, flags, ..request.header };
    t.input(&header, body)
}

// Receiving.

#[test]
fn data_that_asks_for_nothing_is_acked_in_time() {
    let mut t = solo();
    t.data(1, 1, NONE, b"x").unwrap();
    assert_eq!(t.wait(ms(90)).len(), 0);
    let sent = t.wait(ms(20));
    assert_eq!((sent.len(), sent[0].1.ack().reason, sent[0].1.ack().first), (1, AckReason::Delay, 2));
    t.data(1, 2, NONE, b"x").unwrap();
    t.data(1, 3, NONE, b"x").unwrap();
    assert_eq!(t.sent_one().ack().reason, AckReason::Idle, "every second datagram is acknowledged at once");
    t.data(1, 4, ASK, b"x").unwrap();
    assert_eq!(t.sent_one().ack().reason, AckReason::Requested);
}

#[test]
fn a_reply_is_the_acknowledgement_of_its_request() {
    let mut t = solo();
    t.data(1, 1, LAST, b"x").unwrap();
    let call = t.incoming();
    t.reply(call, b"y");
    assert!(t.sent_one().is(PacketType::Data));
    assert!(t.wait(ms(150)).iter().all(|(_, sent)| sent.is(PacketType::Data)), "no ACK follows");
}

#[test]
fn holes_are_shown_and_filled() {
    let mut t = solo();
    t.data(1, 1, NONE, b"a").unwrap();
    t.data(1, 3, NONE, b"c").unwrap();
    let ack = t.sent_one();
    assert_eq!((ack.ack().first, ack.ack().reason), (2, AckReason::OutOfSequence));
    assert_eq!(ack.ack().slots, [0, 1]);
    t.data(1, 5, LAST, b"e").unwrap();
    assert_eq!(t.sent_one().ack().slots, [0, 1, 0, 1]);
    let call = t.incoming();
    t.data(1, 2, NONE, b"b").unwrap();
    t.data(1, 4, NONE, b"d").unwrap();
    let mut out = [0; 8];
    let got = t.node.rx.recv(t.now, call, &mut out).unwrap();
    assert_eq!((&out[..got.bytes], got.more), (&b"abcde"[..], false));
}

#[test]
fn what_lies_beyond_the_window_is_refused_by_name() {
    let mut t = Solo::new(EndpointConfig { receive_window: 8, ..EndpointConfig::default() });
    t.data(1, 1, NONE, b"x").unwrap();
    assert_eq!(t.data(1, 9, NONE, b"x"), Err(RxDrop::Window), "one is unread, seven more fit");
    let ack = t.sent_one();
    assert_eq!((ack.ack().reason, ack.ack().trailer.receive_window), (AckReason::ExceedsWindow, Some(7)));
    t.data(1, 8, NONE, b"x").unwrap();
}

#[test]
fn a_reader_opens_the_window_again() {
    let mut t = Solo::new(EndpointConfig { receive_window: 8, ..EndpointConfig::default() });
    for seq in 1..=8 {
        t.data(1, seq, NONE, b"x").unwrap();
    }
    let call = t.incoming();
    assert_eq!(t.sent().last().unwrap().ack().trailer.receive_window, Some(0));
    assert_eq!(t.node.rx.recv(t.now, call, &mut [0; 4]).unwrap().bytes, 4);
    let update = t.sent_one();
    assert_eq!((update.ack().reason, update.ack().trailer.receive_window), (AckReason::Idle, Some(4)));
}

#[test]
fn our_acks_say_what_we_take() {
    let mut t = Solo::new(EndpointConfig { jumbo_max: 4, ..EndpointConfig::default() });
    t.data(1, 1, ASK, b"x").unwrap();
    let ack = t.sent_one();
    assert_eq!(ack.ack().trailer, AckTrailer::full(1_444, 1_444, 254, 4));
    assert_eq!(ack.header.flags, Flags::SLOW_START_OK);
    assert_eq!((ack.header.epoch, ack.header.cid, ack.header.service), (EPOCH, Cid(CID), SERVICE));
}

// Sending.

#[test]
fn the_window_of_the_peer_is_kept() {
    let mut t = solo();
    t.data(1, 1, LAST, b"x").unwrap();
    let call = t.incoming();
    t.reply(call, &[1; 40_000]);
    let first = t.sent();
    assert_eq!(first.len(), 10, "the initial congestion window");
    assert!(first.last().unwrap().header.flags.contains(ASK), "the last of a window asks for an ACK");
    t.ack(1, AckReason::Requested, 11, &[], 3).unwrap();
    assert_eq!(t.sent().len(), 3);
}

#[test]
fn a_hole_is_filled_without_waiting_for_the_timer() {
    let mut t = solo();
    t.data(1, 1, LAST, b"x").unwrap();
    let call = t.incoming();
    t.reply(call, &[1; 14_000]);
    assert_eq!(t.sent().len(), 10);
    t.ack(1, AckReason::OutOfSequence, 1, &[0, 1, 1], 255).unwrap();
    assert_eq!(t.sent().len(), 0, "two overtook it: perhaps they only swapped places");
    t.ack(1, AckReason::OutOfSequence, 1, &[0, 1, 1, 1], 255).unwrap();
    let again = t.sent_one();
    assert_eq!((again.header.seq, again.header.flags.contains(ASK)), (1, true));
    assert_eq!(t.node.rx.stats().fast_retransmits, 1);
}

#[test]
fn a_soft_ack_can_be_taken_back() {
    let mut t = solo();
    t.data(1, 1, LAST, b"x").unwrap();
    let call = t.incoming();
    t.reply(call, &[1; 2_824]);
    t.sent();
    t.ack(1, AckReason::Idle, 1, &[0, 1], 255).unwrap();
    t.ack(1, AckReason::Idle, 1, &[0, 0], 255).unwrap();
    assert_eq!(t.sent_one().header.seq, 2, "the peer threw it away");
    t.ack(1, AckReason::Idle, 3, &[], 255).unwrap();
    assert_eq!(t.node.rx.completion(call), Some(Completion::Succeeded));
}

#[test]
fn what_was_overtaken_has_a_little_time() {
    let mut t = solo();
    t.data(1, 1, LAST, b"x").unwrap();
    let call = t.incoming();
    t.reply(call, &[1; 14_000]);
    t.sent();
    t.ack(1, AckReason::OutOfSequence, 1, &[0, 1], 255).unwrap();
    assert_eq!(t.sent().len(), 0, "perhaps they only swapped places");
    let again = t.wait(ms(5));
    assert_eq!(again[0].1.header.seq, 1, "long before any timeout");
    assert_eq!(t.node.rx.stats().timeouts, 0);
}

#[test]
fn what_a_restarted_peer_forgot_is_sent_again() {
    let mut t = solo();
    t.data(1, 1, LAST, b"x").unwrap();
    let call = t.incoming();
    let Node { rx, pool, .. } = &mut t.node;
    rx.send(t.now, pool, call, &[1; 4 * rxrpc::PACKET_PAYLOAD], true).unwrap();
    assert_eq!(t.sent().len(), 4);
    // In its second life the peer counts from the beginning again.
    let (early, late) = (t.header(PacketType::Ack, 1, 0), t.header(PacketType::Ack, 1, 0));
    t.ack(1, AckReason::OutOfSequence, 1, &[0, 1, 1, 1], 255).unwrap();
    assert_eq!(t.sent_one().header.seq, 1);
    let body = |reason, serial| ack_body(reason, 2, &[], serial, AckTrailer::full(1_444, 1_444, 255, 1));
    t.input(&early, &body(AckReason::Idle, 0)).unwrap();
    assert_eq!(t.sent().len(), 0, "the peer is thought to have the rest, softly");
    let pings = t.wait(ms(500));
    let ping = &pings.last().expect("it is asked").1;
    assert_eq!(ping.ack().reason, AckReason::Ping);
    t.input(&late, &body(AckReason::PingResponse, ping.header.serial)).unwrap();
    let seqs: Vec<u32> = t.sent().iter().map(|sent| sent.header.seq).collect();
    assert_eq!(seqs, [2, 3, 4]);
}

#[test]
fn an_old_ack_changes_nothing() {
    let mut t = solo();
    t.data(1, 1, LAST, b"x").unwrap();
    let call = t.incoming();
    t.reply(call, &[1; 14_000]);
    t.sent();
    let old = t.header(PacketType::Ack, 1, 0);
    t.ack(1, AckReason::Idle, 3, &[1], 100).unwrap();
    let body = ack_body(AckReason::Idle, 3, &[0, 0, 0], 0, AckTrailer::full(1_444, 1_444, 1, 1));
    assert_eq!(t.input(&old, &body), Err(RxDrop::OldAck));
    assert_eq!(t.node.rx.call(call).unwrap().peer_window, 100);
}

#[test]
fn retransmission_backs_off() {
    let mut t = solo();
    let (_, _) = call(&mut t, CallOptions::default());
    let began = t.now;
    let sent = t.wait(Duration::from_secs(12));
    let again: Vec<_> = sent.iter().filter(|(_, sent)| sent.is(PacketType::Data)).collect();
    let gaps: Vec<_> = again.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
    assert!(again[0].0 - began >= ms(350), "before the first measurement");
    assert!(gaps.windows(2).all(|pair| pair[1] >= pair[0] * 3 / 2), "{gaps:?}");
    assert!(again.iter().all(|(_, sent)| sent.header.flags.contains(ASK)), "who repeats himself asks");
}

#[test]
fn sends_are_gathered_into_full_packets() {
    let mut t = solo();
    t.data(1, 1, LAST, b"x").unwrap();
    let call = t.incoming();
    let Node { rx, pool, .. } = &mut t.node;
    for _ in 0..100 {
        rx.send(t.now, pool, call, &[9; 100], true).unwrap();
    }
    rx.send(t.now, pool, call, &[], false).unwrap();
    let lens: Vec<usize> = t.sent().iter().map(|sent| sent.body.len()).collect();
    assert_eq!(lens, [1416, 1416, 1416, 1416, 1416, 1416, 1416, 88]);
    assert_eq!(t.node.rx.call(call).unwrap().state, CallState::ServiceAwaitAck);
}

#[test]
fn an_end_that_comes_late_travels_alone() {
    let mut t = solo();
    t.data(1, 1, LAST, b"x").unwrap();
    let call = t.incoming();
    let Node { rx, pool, .. } = &mut t.node;
    rx.send(t.now, pool, call, b"all of it", true).unwrap();
    assert!(!t.sent_one().header.flags.contains(LAST));
    t.reply(call, b"");
    let end = t.sent_one();
    assert_eq!((end.body.len(), end.header.seq, end.header.flags.contains(LAST)), (0, 2, true));
    let Node { rx, pool, .. } = &mut t.node;
    assert_eq!(rx.send(t.now, pool, call, b"more", true), Err(CallError::SendEnded));
}

// Calls of ours.

#[test]
fn busy_is_put_up_with_for_a_while() {
    let mut t = solo();
    let (id, request) = call(&mut t, CallOptions::default());
    for _ in 0..20 {
        t.wait(ms(500));
        if t.node.rx.completion(id).is_none() {
            from_server(&mut t, &request, PacketType::Busy, 0, NONE, &[]).unwrap();
        }
    }
    t.wait(Duration::from_secs(3));
    assert_eq!(t.node.rx.completion(id), Some(Completion::Busy));
}

#[test]
fn a_busy_server_that_has_room_again_is_served() {
    let mut t = solo();
    let (id, request) = call(&mut t, CallOptions::default());
    from_server(&mut t, &request, PacketType::Busy, 0, NONE, &[]).unwrap();
    let again = t.wait(ms(700));
    assert_eq!(again[0].1.body, b"request");
    from_server(&mut t, &request, PacketType::Data, 1, LAST, b"reply").unwrap();
    assert_eq!(t.node.rx.completion(id), Some(Completion::Succeeded));
}

#[test]
fn a_final_ack_is_sent_unless_the_next_call_says_it() {
    let mut t = solo();
    let (id, request) = call(&mut t, CallOptions::default());
    from_server(&mut t, &request, PacketType::Data, 1, LAST, b"reply").unwrap();
    assert!(t.node.rx.release(t.now, id));
    assert_eq!(t.sent().len(), 0, "it waits");
    let last = t.wait(ms(20));
    assert_eq!((last.len(), last[0].1.ack().first, last[0].1.ack().reason), (1, 2, AckReason::Delay));
    // Duplicates of the reply are answered from the connection's memory.
    assert_eq!(from_server(&mut t, &request, PacketType::Data, 1, LAST, b"reply"), Err(RxDrop::Duplicate));
    assert_eq!(t.sent_one().ack().first, 2);
}

#[test]
fn duplicates_of_an_aborted_call_get_the_abort_again() {
    let mut t = solo();
    t.data(1, 1, LAST, b"x").unwrap();
    let call = t.incoming();
    t.node.rx.reject(t.now, call, 99);
    assert_eq!(t.sent_one().code(), 99);
    assert_eq!(t.data(1, 1, LAST, b"x"), Err(RxDrop::Duplicate));
    assert_eq!(t.sent_one().code(), 99);
    assert_eq!(t.ack(1, AckReason::Ping, 1, &[], 1), Err(RxDrop::NoCall));
    assert_eq!(t.sent_one().code(), 99, "and so does a ping");
    assert_eq!(t.ack(1, AckReason::Idle, 1, &[], 1), Err(RxDrop::NoCall));
    assert_eq!(t.sent().len(), 0, "but no other ACK");
    t.data(5, 1, LAST, b"x").unwrap();
    assert_eq!(t.data(4, 1, LAST, b"x"), Err(RxDrop::OldCall));
}

#[test]
fn a_silent_server_is_pinged_and_then_given_up() {
    let mut t = solo();
    let (id, request) =
        call(&mut t, CallOptions { dead_timeout: Some(Duration::from_secs(12)), ..CallOptions::default() });
    let body = ack_body(AckReason::Delay, 2, &[], 0, AckTrailer::default());
    from_server(&mut t, &request, PacketType::Ack, 0, NONE, &body).unwrap();
    let sent = t.wait(Duration::from_secs(11));
    assert!(
        sent.iter().all(|(_, sent)| sent.ack().reason == AckReason::Ping && sent.header.flags.contains(ASK))
    );
    assert_eq!(sent.len(), 3);
    let pong = ack_body(AckReason::PingResponse, 2, &[], sent[2].1.header.serial, AckTrailer::default());
    from_server(&mut t, &request, PacketType::Ack, 0, NONE, &pong).unwrap();
    t.wait(Duration::from_secs(11));
    assert_eq!(t.node.rx.completion(id), None, "the answer kept it alive");
    t.wait(Duration::from_secs(2));
    assert_eq!(t.node.rx.completion(id), Some(Completion::TimedOut(Timeout::Dead)));
}

#[test]
fn pings_are_answered_before_the_call_is() {
    let mut t = solo();
    let (_, request) = call(&mut t, CallOptions::default());
    let ping = ack_body(AckReason::Ping, 1, &[], 0, AckTrailer::default());
    from_server(&mut t, &request, PacketType::Ack, 0, ASK, &ping).unwrap();
    let pong = t.sent_one();
    assert_eq!((pong.ack().reason, pong.ack().first), (AckReason::PingResponse, 1));
    assert!(pong.header.flags.contains(Flags::CLIENT_INITIATED));
}

#[test]
fn a_ping_is_answered_whatever_comes_with_it() {
    let mut t = solo();
    t.data(1, 1, NONE, b"x").unwrap();
    let ping = t.header(PacketType::Ack, 1, 0);
    let ping = Header { flags: ping.flags | ASK, ..ping };
    t.input(&ping, &ack_body(AckReason::Ping, 1, &[], 0, AckTrailer::default())).unwrap();
    t.data(1, 2, ASK, b"x").unwrap();
    t.data(1, 4, NONE, b"x").unwrap();
    let pong = t.sent_one();
    assert_eq!((pong.ack().reason, pong.ack().serial), (AckReason::PingResponse, ping.serial));
    assert_eq!(pong.ack().slots, [0, 1], "and it shows the hole");
}

#[test]
fn time_limits_end_calls() {
    for (options, after, timeout) in [
        (CallOptions { hard_timeout: Some(ms(3_000)), ..CallOptions::default() }, 3_000, Timeout::Hard),
        (CallOptions { idle_timeout: Some(ms(2_000)), ..CallOptions::default() }, 2_000, Timeout::Idle),
    ] {
        let mut t = solo();
        let (id, request) = call(&mut t, options);
        for _ in 0..after / 500 {
            assert_eq!(t.node.rx.completion(id), None);
            let body = ack_body(AckReason::PingResponse, 2, &[], 0, AckTrailer::default());
            from_server(&mut t, &request, PacketType::Ack, 0, NONE, &body).unwrap();
            t.wait(ms(500));
        }
        t.wait(ms(5));
        assert_eq!(t.node.rx.completion(id), Some(Completion::TimedOut(timeout)));
    }
}

#[test]
fn the_network_can_say_no() {
    let mut t = solo();
    let (id, _) = call(&mut t, CallOptions::default());
    let (local, peer) = (t.node.local, t.peer);
    t.node.rx.unreachable(t.now, local, "10.9.9.9:1".parse().unwrap(), NetError::PortUnreachable);
    assert_eq!(t.node.rx.completion(id), None, "another port's trouble");
    t.node.rx.unreachable(t.now, local, peer, NetError::PortUnreachable);
    assert_eq!(t.node.rx.completion(id), Some(Completion::NetworkError(NetError::PortUnreachable)));
    assert_eq!(t.sent().len(), 0, "there is nobody to tell");
}

#[test]
fn a_connection_abort_ends_all_its_calls() {
    let mut t = solo();
    let calls: Vec<_> = (0..3).map(|_| call(&mut t, CallOptions::default())).collect();
    let header = Header { call: 0, cid: calls[0].1.header.cid.connection(), ..calls[0].1.header };
    let header = Header { packet_type: PacketType::Abort, flags: NONE, ..header };
    t.input(&header, &77_i32.to_be_bytes()).unwrap();
    assert!(calls.iter().all(|(id, _)| t.node.rx.completion(*id) == Some(Completion::RemoteAbort(77))));
    assert_eq!(t.node.rx.conns().count(), 0);
    let (_, next) = call(&mut t, CallOptions::default());
    assert_ne!(next.header.cid.connection(), calls[0].1.header.cid.connection(), "later calls use another");
}

#[test]
fn a_challenge_that_we_cannot_answer_ends_the_connection() {
    let mut t = solo();
    let (id, request) = call(&mut t, CallOptions::default());
    let header = Header { packet_type: PacketType::Challenge, call: 0, flags: NONE, ..request.header };
    t.input(&header, &[0; 16]).unwrap();
    assert_eq!(t.node.rx.completion(id), Some(Completion::LocalAbort(code::PROTOCOL_ERROR)));
}

#[test]
fn a_reply_ends_its_request() {
    let mut t = solo();
    let Node { rx, pool, local, .. } = &mut t.node;
    let id = rx.begin(t.now, *local, Target::new(t.peer, SERVICE), CallOptions::default()).unwrap();
    rx.send(t.now, pool, id, &[1; 50_000], true).unwrap();
    let request = t.sent();
    from_server(&mut t, &request[0], PacketType::Data, 1, LAST, b"enough").unwrap();
    let Node { rx, pool, .. } = &mut t.node;
    assert_eq!(rx.send(t.now, pool, id, b"more", true), Err(CallError::Ended(Completion::Succeeded)));
    assert_eq!(rx.buffers_held().1, 0, "nothing of the request is kept");
}

#[test]
fn lines_are_bounded() {
    let config = EndpointConfig { bundle_waiting_max: 5, ..EndpointConfig::default() };
    let mut t = Solo::new(config);
    let Node { rx, local, .. } = &mut t.node;
    let target = Target::new(t.peer, SERVICE);
    let calls: Vec<_> =
        (0..21).map(|_| rx.begin(t.now, *local, target, CallOptions::default()).unwrap()).collect();
    assert_eq!(rx.calls().filter(|call| call.state == CallState::Waiting).count(), 5);
    let full = rx.begin(t.now, *local, target, CallOptions::default());
    assert_eq!(full, Err(BeginError::LineFull { peer: t.peer, limit: 5 }));
    let other = Target { group: 1, ..target };
    assert!(rx.begin(t.now, *local, other, CallOptions::default()).is_ok(), "another group has its own");
    rx.release(t.now, calls[0]);
    assert_eq!(rx.call(calls[16]).unwrap().state, CallState::ClientSend, "the first in line has the place");
    rx.release(t.now, calls[18]);
    rx.release(t.now, calls[1]);
    assert_eq!(rx.call(calls[17]).unwrap().state, CallState::ClientSend);
    rx.release(t.now, calls[2]);
    assert_eq!(
        rx.call(calls[19]).unwrap().state,
        CallState::ClientSend,
        "one that left the line is not served"
    );
}

// Services.

#[test]
fn accepts_are_charged_and_used_up() {
    let mut t = solo();
    t.node
        .rx
        .listen(t.node.local, ServiceConfig { backlog: 3, auto_charge: false, ..ServiceConfig::new(5) })
        .unwrap();
    let local = t.node.local;
    let full = ListenError::BacklogFull { charged: 0, wanted: 4, backlog: 3 };
    assert_eq!(t.node.rx.charge(local, 5, 4), Err(full));
    assert_eq!(t.node.rx.charge(local, 5, 2), Ok(2));
    let data = |t: &mut Solo, channel| {
        let mut header = t.header(PacketType::Data, 1, 1);
        (header.service, header.cid) = (5, Cid(CID + 64 + channel));
        header.flags = header.flags | LAST;
        t.input(&header, b"x")
    };
    assert_eq!((data(&mut t, 0), data(&mut t, 1), data(&mut t, 2)), (Ok(()), Ok(()), Err(RxDrop::Busy)));
    assert!(t.sent_one().is(PacketType::Busy));
    assert_eq!(t.node.rx.charge(local, 5, 1), Ok(1));
    assert_eq!(data(&mut t, 2), Ok(()), "the client tries again and is taken");
    assert_eq!(t.node.rx.listen(local, ServiceConfig::new(5)), Err(ListenError::ServiceInUse { service: 5 }));
}

#[test]
fn a_service_that_recharges_itself_does_so_when_calls_are_taken() {
    let mut t = solo();
    t.node
        .rx
        .listen(t.node.local, ServiceConfig { backlog: 1, auto_charge: true, ..ServiceConfig::new(5) })
        .unwrap();
    let mut results = Vec::new();
    for channel in 0..3 {
        let mut header = t.header(PacketType::Data, 1, 1);
        (header.service, header.cid) = (5, Cid(CID + 64 + channel));
        results.push(t.input(&header, b"x"));
        if channel == 1 {
            t.incoming();
        }
    }
    assert_eq!(results, [Ok(()), Err(RxDrop::Busy), Ok(())]);
}

#[test]
fn idle_connections_are_reaped() {
    let mut t = solo();
    t.data(1, 1, LAST, b"x").unwrap();
    let id = t.incoming();
    t.node.rx.release(t.now, id);
    assert_eq!(t.sent_one().code(), code::USER_ABORT);
    let (id, _) = call(&mut t, CallOptions::default());
    t.node.rx.release(t.now, id);
    assert_eq!(t.node.rx.conns().count(), 2);
    t.wait(Duration::from_secs(119));
    assert_eq!(t.node.rx.conns().count(), 2);
    t.wait(Duration::from_secs(2));
    assert_eq!(t.node.rx.conns().count(), 1, "the client's went after 120 seconds");
    t.wait(Duration::from_secs(480));
    assert_eq!((t.node.rx.conns().count(), t.node.rx.peers().count()), (0, 0));
    assert_eq!(t.node.rx.next_timeout(), None);
}

// Questions.

#[test]
fn questions_are_answered_between_endpoints() {
    let configs = vec![
        EndpointConfig::default(),
        EndpointConfig { version: "rxline test".into(), ..Default::default() },
    ];
    let mut net = Net::new(1, Faults::none(100), configs, 512);
    let to = net.nodes[1].addr;
    net.nodes[1].listen(ServiceConfig::new(SERVICE));
    let node = &mut net.nodes[0];
    let id = node.rx.begin(net.now, node.local, Target::new(to, SERVICE), CallOptions::default()).unwrap();
    node.rx.send(net.now, &mut node.pool, id, b"x", false).unwrap();
    net.run_for(ms(10));
    let node = &mut net.nodes[0];
    node.rx.probe_version(net.now, node.local, to).unwrap();
    for kind in [DebugKind::Stats, DebugKind::AnyConnection, DebugKind::RxStatistics, DebugKind::Peer] {
        node.rx.send_debug(net.now, node.local, to, DebugRequest::new(kind, 0)).unwrap();
    }
    node.rx.send_debug(net.now, node.local, to, DebugRequest::new(DebugKind::Connection, 1)).unwrap();
    net.run_for(ms(10));
    let replies: Vec<Event> = std::iter::from_fn(|| net.nodes[0].rx.poll_event()).collect();
    assert_eq!(replies.len(), 6);
    for reply in replies {
        let reply = match reply {
            Event::Version { text, .. } => {
                assert_eq!(text, "rxline test");
                continue;
            }
            Event::Debug { reply, .. } => (*reply).unwrap(),
            other => panic!("{other:?}"),
        };
        match reply {
            DebugReply::Stats(stats) => assert_eq!((stats.calls_executed, stats.packets), (1, 512)),
            DebugReply::Connection(conn) => {
                assert_eq!((conn.call_number, conn.role), ([1, 0, 0, 0], 1));
                assert_eq!(conn.port, net.nodes[0].addr.port());
            }
            DebugReply::NoConnection => {}
            DebugReply::RxStatistics(counters) => {
                assert_eq!((counters.packets_read[0], counters.packets_read[12]), (1, 1));
                assert_eq!((counters.server_connections, counters.calls), (1, 1));
            }
            DebugReply::Peer(peer) => assert_eq!(peer.port, net.nodes[0].addr.port()),
            other => panic!("{other:?}"),
        }
    }
    let node = &mut net.nodes[0];
    node.rx.release(net.now, id);
}

#[test]
fn answers_that_nobody_asked_for_are_dropped() {
    let mut t = solo();
    let mut header = Header::new(PacketType::Version);
    header.call = 7;
    assert_eq!(t.input(&header, &[b'x'; 65]), Err(RxDrop::Unexpected));
    header.packet_type = PacketType::Debug;
    assert_eq!(t.input(&header, &[0; 84]), Err(RxDrop::Unexpected));
    assert_eq!((t.events(), t.sent().len()), (vec![], 0), "and not answered");
}

// Budgets.

#[test]
fn a_thousand_calls_that_nobody_reads_leave_room_for_others() {
    let config =
        EndpointConfig { bundle_conns_max: 300, unread_buffers_max: 4_096, ..EndpointConfig::default() };
    let mut net = Net::new(5, Faults::none(100), vec![config, EndpointConfig::for_pool(30_000)], 30_000);
    let to = net.nodes[1].addr;
    net.nodes[1].listen(ServiceConfig { backlog: 2_000, ..ServiceConfig::new(SERVICE) });
    let begin = |net: &mut Net| {
        let node = &mut net.nodes[0];
        let id =
            node.rx.begin(net.now, node.local, Target::new(to, SERVICE), CallOptions::default()).unwrap();
        node.rx.send(net.now, &mut node.pool, id, b"give", false).unwrap();
        id
    };
    // The server gives everybody a hundred kilobytes.
    let serve = |net: &mut Net| {
        net.run_for(ms(2));
        let node = &mut net.nodes[1];
        while let Some(event) = node.rx.poll_event() {
            match event {
                Event::Incoming { call, .. } | Event::Writable { call } => {
                    let left = 100_000 - node.rx.user(call) as usize;
                    if let Ok(taken) = node.rx.send(net.now, &mut node.pool, call, &vec![1; left], false) {
                        node.rx.set_user(call, (100_000 - left + taken) as u64);
                    }
                }
                Event::Complete { call, .. } => {
                    node.rx.release(net.now, call);
                }
                _ => {}
            }
        }
    };
    let unread: Vec<_> = (0..1_000).map(|_| begin(&mut net)).collect();
    for _ in 0..100 {
        serve(&mut net);
        let held = net.nodes[0].rx.buffers_held().0;
        assert!(held <= 4_096 + 2 * 1_000, "{held} buffers are unread");
    }
    assert!(net.nodes[0].rx.buffers_held().0 > 1_000, "the test is too easy");
    // One who reads gets all of his, in good time.
    let (reader, began) = (begin(&mut net), net.now);
    let mut got = 0;
    while got < 100_000 {
        serve(&mut net);
        let mut out = [0; 65_536];
        got += net.nodes[0].rx.recv(net.now, reader, &mut out).unwrap().bytes;
        let late = net.now - began > Duration::from_secs(5);
        let held = net.nodes[0].rx.buffers_held();
        let theirs = net.nodes[1].rx.calls().last();
        assert!(
            !late,
            "{got} bytes in five seconds, {held:?} held: {:?} {theirs:?}",
            net.nodes[0].rx.call(reader)
        );
    }
    for call in unread.into_iter().chain([reader]) {
        assert!(net.nodes[0].rx.release(net.now, call));
    }
    for _ in 0..100 {
        serve(&mut net);
        while net.nodes[0].rx.poll_event().is_some() {}
    }
    net.run_for(Duration::from_secs(30));
    serve(&mut net);
    net.assert_clean();
}

#[test]
fn a_small_pool_only_delays() {
    let mut net = Net::new(5, Faults::none(100), vec![EndpointConfig::for_pool(40); 2], 40);
    let to = net.nodes[1].addr;
    net.nodes[1].listen(ServiceConfig::new(SERVICE));
    let node = &mut net.nodes[0];
    let id = node.rx.begin(net.now, node.local, Target::new(to, SERVICE), CallOptions::default()).unwrap();
    let (mut sent, mut got) = (0, 0);
    for _ in 0..20_000 {
        let node = &mut net.nodes[0];
        if sent < 200_000 {
            let left = 200_000 - sent;
            sent += node.rx.send(net.now, &mut node.pool, id, &vec![3; left], false).unwrap_or(0);
        }
        net.run_for(ms(5));
        let node = &mut net.nodes[1];
        while let Some(event) = node.rx.poll_event() {
            if let Event::Readable { call } = event {
                while let Some((data, more)) = node.rx.recv_mbuf(net.now, call).unwrap() {
                    got += data.len();
                    drop(data);
                    if !more {
                        node.rx.send(net.now, &mut node.pool, call, b"", false).unwrap();
                    }
                }
            }
        }
        if net.nodes[0].rx.completion(id).is_some() {
            break;
        }
    }
    assert_eq!((sent, got), (200_000, 200_000));
    assert_eq!(net.nodes[0].rx.completion(id), Some(Completion::Succeeded));
}
