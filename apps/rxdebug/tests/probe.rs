//! A probe against a server on loopback that answers, drops or lies as each test wants.

use rxdebug::{Patience, Probe, ProbeError};
use rxrpc::wire::debug::{Connection, DebugKind, DebugReply, DebugRequest, Peer, RxStatistics, Stats};
use rxrpc::wire::{Header, PacketType, encode_version};
use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::Duration;

const PATIENCE: Patience = Patience { timeout: Duration::from_millis(200), tries: 3 };

/// Serves on loopback until the test's process ends: each packet goes to `answer`, and what comes back is sent.
fn serve(mut answer: impl FnMut(Header, &[u8]) -> Vec<Vec<u8>> + Send + 'static) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("loopback");
    let address = socket.local_addr().expect("bound");
    thread::spawn(move || {
        let mut packet = [0; 2048];
        while let Ok((len, from)) = socket.recv_from(&mut packet) {
            let (header, body) = Header::parse(&packet[..len]).expect("the probe sends Rx packets");
            for reply in answer(header, body) {
                socket.send_to(&reply, from).expect("loopback");
            }
        }
    });
    address
}

fn packet(header: Header, body: &[u8]) -> Vec<u8> {
    [header.to_bytes().as_slice(), body].concat()
}

fn reply(question: Header, reply: &DebugReply) -> Vec<u8> {
    let mut body = vec![0; reply.encoded_len()];
    reply.encode(&mut body).expect("room");
    packet(question.probe_reply().expect("a question"), &body)
}

fn asked(body: &[u8]) -> DebugRequest {
    DebugRequest::parse(body).expect("a question")
}

#[test]
fn the_version_is_asked_again_until_it_comes() {
    let mut questions = 0;
    let server = serve(move |header, _| {
        questions += 1;
        assert_eq!(header.packet_type, PacketType::Version);
        let answer = packet(header.probe_reply().expect("a question"), &encode_version("rxline 1"));
        if questions == 3 { vec![answer] } else { vec![] }
    });
    assert_eq!(Probe::open(server, PATIENCE).expect("socket").version().expect("an answer"), "rxline 1");
}

#[test]
fn silence_is_named() {
    let server = serve(|_, _| vec![]);
    let error = Probe::open(server, PATIENCE).expect("socket").version().expect_err("silence");
    assert!(matches!(error, ProbeError::NoAnswer { tries: 3, .. }), "{error}");
}

#[test]
fn a_closed_port_is_named() {
    let server = UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("loopback");
    let error = Probe::open(server, PATIENCE).expect("socket").stats().expect_err("nobody is there");
    assert!(matches!(error, ProbeError::NothingListens { .. }), "{error}");
}

#[test]
fn answers_to_other_questions_are_passed_over() {
    let server = serve(|header, _| {
        let wrong = Stats { calls_executed: 1, ..Stats::default() };
        let right = Stats { calls_executed: 2, ..Stats::default() };
        let other = Header { call: header.call + 1, ..header };
        let echo = packet(header, &[0; 56]);
        vec![
            vec![1, 2, 3],
            echo,
            reply(other, &DebugReply::Stats(wrong)),
            reply(header, &DebugReply::Stats(right)),
        ]
    });
    let stats = Probe::open(server, PATIENCE).expect("socket").stats().expect("an answer");
    assert_eq!(stats.calls_executed, 2);
}

#[test]
fn lists_are_read_to_their_end() {
    let server = serve(|header, body| {
        let DebugRequest { kind, index } = asked(body);
        let answer = match kind.expect("a kind") {
            DebugKind::AnyConnection if index < 5 => {
                DebugReply::Connection(Connection { cid: index, ..Connection::default() })
            }
            DebugKind::AnyConnection => DebugReply::NoConnection,
            DebugKind::Peer if index < 2 => DebugReply::Peer(Peer { port: index as u16, ..Peer::default() }),
            DebugKind::Peer => DebugReply::NoPeer,
            DebugKind::RxStatistics => {
                DebugReply::RxStatistics(RxStatistics { data_resent: 9, ..Default::default() })
            }
            _ => DebugReply::UnknownKind,
        };
        vec![reply(header, &answer)]
    });
    let mut probe = Probe::open(server, PATIENCE).expect("socket");
    let cids: Vec<_> = probe.connections(true).expect("connections").iter().map(|conn| conn.cid).collect();
    assert_eq!(cids, [0, 1, 2, 3, 4]);
    let ports: Vec<_> = probe.peers().expect("peers").iter().map(|peer| peer.port).collect();
    assert_eq!(ports, [0, 1]);
    assert_eq!(probe.rx_statistics().expect("counters").data_resent, 9);
    let error = probe.connections(false).expect_err("unknown kind");
    assert!(matches!(error, ProbeError::Unsupported { what: "connections", .. }), "{error}");
}

#[test]
fn a_short_answer_is_named() {
    let server = serve(|header, _| vec![packet(header.probe_reply().expect("a question"), &[0; 20])]);
    let error = Probe::open(server, PATIENCE).expect("socket").stats().expect_err("too short");
    assert!(matches!(error, ProbeError::Unreadable { .. }), "{error}");
}
