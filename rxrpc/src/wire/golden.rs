//! Packets of real peers must come out of parse and encode as they went in. See the head of `golden.hex`.

use super::debug::{DebugKind, DebugReply, DebugRequest};
use super::*;

struct Packet {
    provenance: String,
    bytes: Vec<u8>,
}

fn packets() -> Vec<Packet> {
    let lines = include_str!("golden.hex").lines().filter(|line| !line.starts_with('#'));
    lines.map(packet).collect()
}

fn packet(line: &str) -> Packet {
    let (provenance, hex) = line.rsplit_once(' ').expect("provenance and hex");
    let bytes = (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex"));
    Packet { provenance: provenance.to_owned(), bytes: bytes.collect() }
}

/// The body as we would send it, from nothing but what we read. `asked` is the kind of the last DEBUG request.
fn re_encode(header: &Header, body: &[u8], asked: &mut Option<DebugKind>) -> Vec<u8> {
    let mut out = vec![0xee; body.len()];
    let len = match header.packet_type {
        PacketType::Data => return re_encode_data(header, body),
        PacketType::Ack => Ack::parse(body).expect("an ACK").encode(&mut out).expect("room"),
        PacketType::Abort => return Abort::body(Abort::parse(header, body).expect("an ABORT").code).to_vec(),
        PacketType::Version if header.from_client() || body.len() < VERSION_LEN => return vec![0],
        PacketType::Version => return encode_version(&parse_version(body)).to_vec(),
        PacketType::Debug if header.from_client() => {
            let request = DebugRequest::parse(body).expect("a request");
            *asked = request.kind.ok();
            return request.to_bytes().to_vec();
        }
        PacketType::Debug => {
            let reply =
                DebugReply::parse(asked.take().expect("a request came before"), body).expect("a reply");
            reply.encode(&mut out).expect("room")
        }
        PacketType::Challenge | PacketType::Response => return body.to_vec(),
        other => panic!("{other:?} is in no capture"),
    };
    out.truncate(len);
    out
}

fn re_encode_data(header: &Header, body: &[u8]) -> Vec<u8> {
    let read = |at: usize| body[at..at + JUMBO_HEADER_LEN].try_into().expect("four bytes");
    let mut out = Vec::new();
    for (index, sub) in split(header, body.len(), read).expect("sub-packets").iter().enumerate() {
        assert_eq!(sub.seq, header.seq + index as u32);
        if index > 0 {
            out.extend(JumboHeader { flags: sub.flags, checksum: sub.checksum }.to_bytes());
        }
        out.extend(&body[sub.offset..sub.offset + sub.len]);
    }
    out
}

#[test]
fn real_packets_survive_parse_and_encode() {
    let mut asked = None;
    for packet in packets() {
        let (header, body) = Header::parse(&packet.bytes).expect(&packet.provenance);
        let again = [header.to_bytes().as_slice(), &re_encode(&header, body, &mut asked)].concat();
        assert_eq!(again, packet.bytes, "{}: {header:?}", packet.provenance);
    }
}

#[test]
fn every_packet_type_and_ack_reason_is_among_them() {
    let packets = packets();
    let headers: Vec<_> = packets.iter().map(|p| Header::parse(&p.bytes).expect("a header")).collect();
    let is_there = |wanted| headers.iter().any(|(header, _)| header.packet_type == wanted);
    for wanted in [
        PacketType::Data,
        PacketType::Ack,
        PacketType::Abort,
        PacketType::Challenge,
        PacketType::Response,
        PacketType::Debug,
        PacketType::Version,
    ] {
        assert!(is_there(wanted), "{wanted:?}");
    }
    let jumbo = |h: &Header| h.packet_type == PacketType::Data && h.flags.contains(Flags::JUMBO);
    assert!(headers.iter().any(|(header, _)| jumbo(header)));
    let acks = headers.iter().filter(|(header, _)| header.packet_type == PacketType::Ack);
    let reasons: Vec<_> = acks.map(|(_, body)| Ack::parse(body).expect("an ACK").reason).collect();
    for wanted in
        [AckReason::Requested, AckReason::Ping, AckReason::PingResponse, AckReason::Delay, AckReason::Idle]
    {
        assert!(reasons.contains(&wanted), "{wanted:?}");
    }
}

/// The replies to `rxdebug` of a vlserver that had just started: the figures are the ones OpenAFS's rxdebug printed.
#[test]
fn debug_replies_say_what_openafs_meant() {
    let find = |frame: &str| {
        let wanted = format!("vl-noauth {frame}");
        packets().into_iter().find(|p| p.provenance == wanted).expect("in golden.hex").bytes
    };
    let body = |frame: &str| find(frame)[HEADER_LEN..].to_vec();
    let version = parse_version(&body("8"));
    assert!(version.starts_with("OpenAFS 1.8.9-1+deb12u1-debian 2024-12-2"), "{version}");
    let Ok(DebugReply::Stats(stats)) = DebugReply::parse(DebugKind::Stats, &body("10")) else {
        panic!("stats")
    };
    assert_eq!((stats.free_packets, stats.calls_executed, stats.version), (360, 2, b'S'));
    assert_eq!((stats.idle_threads, stats.packets), (16, 907));
    let Ok(DebugReply::RxStatistics(counters)) = DebugReply::parse(DebugKind::RxStatistics, &body("12"))
    else {
        panic!("counters")
    };
    assert_eq!(counters.packet_requests, 5);
    assert_eq!(DebugReply::parse(DebugKind::Connection, &body("14")), Ok(DebugReply::NoConnection));
    let Ok(DebugReply::Peer(peer)) = DebugReply::parse(DebugKind::Peer, &body("16")) else { panic!("peer") };
    assert_eq!((peer.host, peer.port, peer.if_mtu), ([127, 0, 0, 1].into(), 40121, 1444));
    assert_eq!(DebugReply::parse(DebugKind::Peer, &body("20")), Ok(DebugReply::NoPeer));
}
