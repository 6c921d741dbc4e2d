//! Packets by themselves: whatever parses is written again to the same bytes, and nothing reads beyond the end.

use rxrpc::wire::debug::{DebugKind, DebugReply, DebugRequest};
use rxrpc::wire::{
    Abort, Ack, HEADER_LEN, Header, JUMBO_HEADER_LEN, JUMBO_PAYLOAD_LEN, PacketType, parse_version, split,
};

/// A whole UDP payload.
pub fn packet(data: &[u8]) {
    let Ok((header, body)) = Header::parse(data) else { return };
    assert_eq!(header.to_bytes(), data[..HEADER_LEN], "a header is written as it was read");
    match header.packet_type {
        PacketType::Data => jumbogram(&header, body),
        PacketType::Ack => drop(Ack::parse(body)),
        PacketType::Abort => drop(Abort::parse(&header, body)),
        PacketType::Version => {
            let text = parse_version(body);
            assert!(text.chars().count() <= 65 && !text.chars().any(char::is_control), "{text:?}");
        }
        PacketType::Debug => debug(&header, body),
        _ => {}
    }
}

/// The parts lie one after the other, and with the headers between them they are the whole body.
fn jumbogram(header: &Header, body: &[u8]) {
    let read = |at: usize| body[at..at + JUMBO_HEADER_LEN].try_into().expect("four bytes");
    let Ok(parts) = split(header, body.len(), read) else { return };
    let mut end = 0;
    for (index, part) in parts.iter().enumerate() {
        let last = index + 1 == parts.len();
        assert_eq!(part.offset, end, "part {index}");
        assert_eq!(part.seq, header.seq.wrapping_add(index as u32));
        assert_eq!(part.serial, header.serial.wrapping_add(index as u32));
        assert!(last || part.len == JUMBO_PAYLOAD_LEN);
        end = part.offset + part.len + if last { 0 } else { JUMBO_HEADER_LEN };
    }
    assert_eq!(end, body.len());
}

fn debug(header: &Header, body: &[u8]) {
    if let Ok(request) = DebugRequest::parse(body) {
        assert_eq!(request.to_bytes(), body[..DebugRequest::LEN]);
        assert!(header.probe_reply().is_none_or(|reply| !reply.from_client()), "an answer asks nothing");
    }
    for kind in (0..=5).filter_map(DebugKind::from_u32) {
        let Ok(reply) = DebugReply::parse(kind, body) else { continue };
        let mut out = [0; 1_024];
        let len = reply.encode(&mut out).expect("no reply is as long");
        assert_eq!(DebugReply::parse(kind, &out[..len]), Ok(reply), "{kind:?}");
    }
}
