//! Whole calls of real peers, replayed: their packets go in as they were captured, and what we make of the same call is
//! compared with what their peer sent. See the head of `golden.hex`.

mod common;

use common::Node;
use common::solo::{Sent, Solo};
use rxrpc::wire::{AckReason, Cid, Flags, HEADER_LEN, Header, PacketType};
use rxrpc::{CallId, CallOptions, Completion, EndpointConfig, Event, ServiceConfig, Target};
use std::time::Duration;

fn golden(capture: &str, frame: u32) -> Vec<u8> {
    let start = format!("{capture} {frame} ");
    let line =
        include_str!("golden.hex").lines().find(|line| line.starts_with(&start)).expect("in golden.hex");
    let hex = line.rsplit(' ').next().unwrap();
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn read(t: &mut Solo, call: CallId) -> Vec<u8> {
    let mut out = vec![0; 10_000];
    let got = t.node.rx.recv(t.now, call, &mut out).unwrap();
    assert!(!got.more, "the message is not complete");
    out.truncate(got.bytes);
    out
}

/// Ours must be theirs but for the serial, which counts our packets, and the request for an ACK, which is a choice.
fn same(ours: &Sent, theirs: &[u8]) {
    let (header, body) = Header::parse(theirs).unwrap();
    let flags = ours.header.flags.without(Flags::REQUEST_ACK);
    assert_eq!(Header { serial: header.serial, flags, ..ours.header }, header);
    assert_eq!(ours.body, body);
}

const VL: &str = "vl-noauth";
const LINUX: &str = "linux612-vs-openafs-first400";

#[test]
fn an_openafs_client_is_served() {
    let mut t = Solo::new(EndpointConfig::default());
    t.node.rx.listen(t.node.local, ServiceConfig::new(52)).unwrap();
    t.node.rx.listen(t.node.local, ServiceConfig::new(50)).unwrap();
    for (request, reply, ack) in [(1, 2, 3), (21, 22, 23)] {
        t.input_bytes(&golden(VL, request)).unwrap();
        let call = t.incoming();
        assert_eq!(read(&mut t, call), &golden(VL, request)[HEADER_LEN..]);
        t.reply(call, &golden(VL, reply)[HEADER_LEN..]);
        same(&t.sent_one(), &golden(VL, reply));
        t.input_bytes(&golden(VL, ack)).unwrap();
        assert_eq!(t.node.rx.completion(call), Some(Completion::Succeeded), "the client's ACK ends it");
        t.node.rx.release(t.now, call);
        t.events();
    }
    // The second call on the second connection was aborted by the server.
    t.input_bytes(&golden(VL, 24)).unwrap();
    let call = t.incoming();
    let code = i32::from_be_bytes(golden(VL, 25)[HEADER_LEN..].try_into().unwrap());
    t.node.rx.abort(t.now, call, code);
    same(&t.sent_one(), &golden(VL, 25));
}

/// The server's packets, with the ids that our own client chose.
fn adopt(mut packet: Vec<u8>, header: &Header) -> Vec<u8> {
    packet[..4].copy_from_slice(&header.epoch.to_be_bytes());
    packet[4..8].copy_from_slice(&header.cid.0.to_be_bytes());
    packet
}

fn begin(t: &mut Solo, service: u16, request: &[u8]) -> (CallId, Sent) {
    let Node { rx, pool, local, .. } = &mut t.node;
    let call = rx.begin(t.now, *local, Target::new(t.peer, service), CallOptions::default()).unwrap();
    assert_eq!(rx.send(t.now, pool, call, request, false), Ok(request.len()));
    (call, t.sent_one())
}

#[test]
fn a_linux_server_is_called() {
    let mut t =
        Solo::new(EndpointConfig { final_ack: Duration::from_millis(10), ..EndpointConfig::default() });
    for (request, ping, reply) in [(1, 2, 4), (6, 7, 9)] {
        let theirs = golden(LINUX, request);
        let (call, ours) = begin(&mut t, 147, &theirs[HEADER_LEN..]);
        let (header, body) = Header::parse(&theirs).unwrap();
        assert_eq!((ours.header.call, ours.header.seq), (header.call, header.seq));
        assert_eq!(
            (ours.header.flags.without(Flags::REQUEST_ACK), ours.body.as_slice()),
            (header.flags, body)
        );
        // Linux pings each new call, and the ping acknowledges the request.
        t.input_bytes(&adopt(golden(LINUX, ping), &ours.header)).unwrap();
        let answer = t.sent_one();
        let (theirs, _) = Header::parse(&golden(LINUX, ping)).unwrap();
        assert_eq!((answer.ack().reason, answer.ack().serial), (AckReason::PingResponse, theirs.serial));
        assert_eq!(t.node.rx.call(call).unwrap().unacked_packets, 0);
        t.input_bytes(&adopt(golden(LINUX, reply), &ours.header)).unwrap();
        assert_eq!(read(&mut t, call), &golden(LINUX, reply)[HEADER_LEN..]);
        assert_eq!(t.node.rx.completion(call), Some(Completion::Succeeded));
        t.node.rx.release(t.now, call);
        t.events();
    }
    let last = t.wait(Duration::from_millis(50));
    assert_eq!(last.len(), 1, "the first call's final ACK was made needless by the second call");
    assert_eq!((last[0].1.header.call, last[0].1.ack().first), (2, 2));
}

#[test]
fn an_openafs_server_is_called() {
    let mut t = Solo::new(EndpointConfig::default());
    let (call, ours) = begin(&mut t, 50, &golden(VL, 21)[HEADER_LEN..]);
    t.input_bytes(&adopt(golden(VL, 22), &ours.header)).unwrap();
    assert_eq!(read(&mut t, call), &golden(VL, 22)[HEADER_LEN..]);
    t.node.rx.release(t.now, call);
    let (call, ours) = begin(&mut t, 50, &golden(VL, 24)[HEADER_LEN..]);
    assert_eq!(
        (ours.header.call, ours.header.cid.channel()),
        (2, 0),
        "the channel freed last is taken first"
    );
    t.events();
    t.input_bytes(&adopt(golden(VL, 25), &ours.header)).unwrap();
    let code = i32::from_be_bytes(golden(VL, 25)[HEADER_LEN..].try_into().unwrap());
    assert_eq!(t.events(), [Event::Complete { call, completion: Completion::RemoteAbort(code) }]);
    assert_eq!(t.sent().len(), 0);
}

/// An OpenAFS ABORT without a connection names its service in the checksum field, and none where it belongs.
#[test]
fn a_raw_abort_of_openafs_ends_its_call() {
    let mut t = Solo::new(EndpointConfig::default());
    let (call, ours) = begin(&mut t, 50, b"request");
    let header = Header {
        epoch: ours.header.epoch,
        cid: Cid(ours.header.cid.0),
        call: 1,
        checksum: 50,
        ..Header::new(PacketType::Abort)
    };
    t.input(&header, &(-2_i32).to_be_bytes()).unwrap();
    assert_eq!(t.node.rx.completion(call), Some(Completion::RemoteAbort(-2)));
}
