//! What must hold for all inputs: round trips, bounds, and that nothing a stranger sends makes a parser panic.

use super::debug::{self, DebugKind, DebugReply, DebugRequest};
use super::*;
use proptest::prelude::*;

fn packet_type() -> impl Strategy<Value = PacketType> {
    any::<u8>().prop_filter_map("a packet type", PacketType::from_u8)
}

prop_compose! {
    fn header()(
        (epoch, cid, call, seq, serial) in any::<(u32, u32, u32, u32, u32)>(),
        packet_type in packet_type(),
        (flags, user_status, security_index, checksum, service) in any::<(u8, u8, u8, u16, u16)>(),
    ) -> Header {
        Header {
            epoch, cid: Cid(cid), call, seq, serial, packet_type,
            flags: Flags(flags), user_status, security_index, checksum, service,
        }
    }
}

/// The four words of a trailer of which the first `present` are there.
fn trailer(words: [u32; 4], present: usize) -> AckTrailer {
    let word = |at: usize| (at < present).then_some(words[at]);
    AckTrailer { max_mtu: word(0), if_mtu: word(1), receive_window: word(2), jumbo_max: word(3) }
}

proptest! {
    #[test]
    fn headers_round_trip(header in header(), body in any::<Vec<u8>>()) {
        let packet = [header.to_bytes().as_slice(), &body].concat();
        prop_assert_eq!(Header::parse(&packet), Ok((header, body.as_slice())));
    }

    #[test]
    fn acks_round_trip(
        (buffer_space, max_skew, first, previous, serial) in any::<(u16, u16, u32, u32, u32)>(),
        reason in any::<u8>(),
        slots in prop::collection::vec(any::<u8>(), 0..=ACK_MAX_SLOTS),
        words in any::<[u32; 4]>(), present in 0..=4usize, zeros in 0..3usize,
    ) {
        let reason = AckReason::from_u8(reason);
        let trailer = trailer(words, present);
        let ack = Ack { buffer_space, max_skew, first, previous, serial, reason, slots: &slots, trailer };
        let mut out = vec![0xee; ack.encoded_len() + 10];
        let len = ack.encode(&mut out).unwrap();
        prop_assert_eq!(len, ack.encoded_len());
        // Up to three stray bytes do not make a word.
        out.truncate(len);
        out.extend(vec![0; zeros]);
        prop_assert_eq!(Ack::parse(&out), Ok(ack));
        prop_assert_eq!(ack.encode(&mut out[..len - 1]), Err(NoRoom { needed: len, room: len - 1 }));
    }

    #[test]
    fn jumbograms_round_trip(
        header in header(), checksums in prop::collection::vec(any::<u16>(), 0..MAX_SUB_PACKETS),
        tail in 0..=JUMBO_PAYLOAD_LEN, payload in any::<u8>(),
    ) {
        let more = !checksums.is_empty();
        let plain = header.flags.without(Flags::JUMBO).without(Flags::LAST);
        let flags = if more { plain | Flags::JUMBO } else { plain };
        let header = Header { packet_type: PacketType::Data, flags, ..header };
        let mut body = Vec::new();
        for (index, &checksum) in checksums.iter().enumerate() {
            body.extend([payload; JUMBO_PAYLOAD_LEN]);
            let flags = if index + 1 < checksums.len() { Flags::JUMBO } else { Flags::LAST };
            body.extend(JumboHeader { flags, checksum }.to_bytes());
        }
        body.extend(vec![payload; tail]);
        let found = split_slice(&header, &body).unwrap();
        prop_assert_eq!(found.len(), checksums.len() + 1);
        for (index, sub) in found.iter().enumerate() {
            prop_assert_eq!(sub.seq, header.seq.wrapping_add(index as u32));
            prop_assert_eq!(sub.serial, header.serial.wrapping_add(index as u32));
            prop_assert!(body[sub.offset..sub.offset + sub.len].iter().all(|&byte| byte == payload));
            if index > 0 {
                prop_assert_eq!(sub.checksum, checksums[index - 1]);
            }
        }
        prop_assert_eq!(found.last().unwrap().len, tail);
    }

    #[test]
    fn debug_records_round_trip(kind in 1..=5u32, bytes in prop::collection::vec(any::<u8>(), debug::REPLY_LEN_MAX)) {
        let kind = DebugKind::from_u32(kind).unwrap();
        let Ok(reply) = DebugReply::parse(kind, &bytes) else { return Ok(()) };
        let mut out = [0xee; debug::REPLY_LEN_MAX];
        let len = reply.encode(&mut out).unwrap();
        prop_assert_eq!(len, reply.encoded_len());
        prop_assert_eq!(DebugReply::parse(kind, &out[..len]), Ok(reply));
        prop_assert_eq!(reply.encode(&mut out[..len - 1]), Err(NoRoom { needed: len, room: len - 1 }));
    }

    #[test]
    fn versions_round_trip(text in "[ -~é]{0,80}") {
        let read = parse_version(&encode_version(&text));
        prop_assert!(text.starts_with(&read));
        prop_assert!(text.len() > 64 || read == text);
        prop_assert!(read.len() >= text.len().min(63));
    }

    #[test]
    fn no_bytes_make_a_parser_panic(bytes in any::<Vec<u8>>(), long in 0..70_000usize) {
        let _ = Header::parse(&bytes);
        let _ = Ack::parse(&bytes);
        let _ = DebugRequest::parse(&bytes);
        let _ = Abort::parse(&Header::new(PacketType::Abort), &bytes);
        parse_version(&bytes);
        for kind in (1..=5).filter_map(DebugKind::from_u32) {
            let _ = DebugReply::parse(kind, &bytes);
        }
        let header = Header { flags: Flags::JUMBO, ..Header::new(PacketType::Data) };
        let mut from = bytes.iter().copied().cycle();
        let _ = split(&header, long, |at| {
            assert!(at + JUMBO_HEADER_LEN <= long);
            std::array::from_fn(|_| from.next().unwrap_or(0xff))
        });
    }
}

fn split_slice(header: &Header, body: &[u8]) -> Result<SubPackets, JumboError> {
    split(header, body.len(), |at| body[at..at + JUMBO_HEADER_LEN].try_into().unwrap())
}

fn jumbo(flags: Flags) -> Header {
    Header { seq: 7, flags: Flags::JUMBO | flags, ..Header::new(PacketType::Data) }
}

#[test]
fn a_short_header_is_named() {
    assert_eq!(Header::parse(&[1; 27]), Err(HeaderError::TooShort { len: 27 }));
}

#[test]
fn an_unknown_type_is_named() {
    for number in [0, 12, 14, 255] {
        let mut packet = Header::new(PacketType::Data).to_bytes();
        packet[20] = number;
        assert_eq!(Header::parse(&packet), Err(HeaderError::UnknownType { number }));
    }
}

#[test]
fn an_ack_without_a_trailer_is_read() {
    let mut body = [0; 18];
    body[16] = 8;
    let ack = Ack::parse(&body).unwrap();
    assert_eq!((ack.reason, ack.slots, ack.trailer), (AckReason::Delay, &[][..], AckTrailer::default()));
}

#[test]
fn an_ack_that_promises_too_many_slots_is_refused() {
    let mut body = [0; 20];
    body[17] = 3;
    assert_eq!(Ack::parse(&body), Err(AckError::SlotsBeyondEnd { slots: 3, room: 2 }));
    assert_eq!(Ack::parse(&body[..17]), Err(AckError::TooShort { len: 17 }));
}

/// A path-MTU probe: zeros behind the trailer up to the size on trial.
#[test]
fn padding_behind_an_ack_is_ignored() {
    let ack = Ack {
        buffer_space: 0,
        max_skew: 0,
        first: 1,
        previous: 0,
        serial: 0,
        reason: AckReason::Ping,
        slots: &[],
        trailer: AckTrailer::full(1444, 1444, 32, 0),
    };
    let mut body = vec![0; 1400];
    ack.encode(&mut body).unwrap();
    assert_eq!(Ack::parse(&body), Ok(ack));
}

#[test]
fn a_jumbogram_that_ends_early_is_refused_whole() {
    let body = vec![0; JUMBO_PAYLOAD_LEN + JUMBO_HEADER_LEN - 1];
    let error = Err(JumboError::Truncated { offset: 0, left: body.len() });
    assert_eq!(split_slice(&jumbo(Flags::NONE), &body), error);
}

#[test]
fn a_jumbogram_with_a_long_tail_is_refused() {
    let body = vec![0; 2 * JUMBO_PAYLOAD_LEN + JUMBO_HEADER_LEN + 1];
    let error = Err(JumboError::TailTooLong { len: JUMBO_PAYLOAD_LEN + 1 });
    assert_eq!(split_slice(&jumbo(Flags::NONE), &body), error);
}

#[test]
fn nothing_follows_the_last_packet_of_a_call() {
    let body = vec![0; 2 * JUMBO_PAYLOAD_LEN];
    assert_eq!(split_slice(&jumbo(Flags::LAST), &body), Err(JumboError::LastInTheMiddle { seq: 7 }));
}

#[test]
fn a_plain_packet_may_be_longer_than_a_sub_packet() {
    let header = Header { seq: 7, ..Header::new(PacketType::Data) };
    let found = split_slice(&header, &vec![0; 8000]).unwrap();
    assert_eq!((found.len(), found[0].seq, found[0].len), (1, 7, 8000));
}

#[test]
fn a_raw_abort_names_its_service_in_the_checksum() {
    let header = Header { checksum: 52, ..Header::new(PacketType::Abort) };
    assert_eq!(Abort::parse(&header, &Abort::body(-3)), Ok(Abort { code: -3, service: Some(52) }));
    let header = Header { service: 52, checksum: 9, ..header };
    assert_eq!(Abort::parse(&header, &Abort::body(7)), Ok(Abort { code: 7, service: Some(52) }));
    assert_eq!(Abort::parse(&header, &[0; 3]), Err(AbortError::TooShort { len: 3 }));
}

#[test]
fn only_requests_are_answered() {
    let request = DebugRequest::header(PacketType::Debug, 101);
    let reply = request.probe_reply().unwrap();
    assert_eq!(reply, Header { flags: Flags::LAST, ..request });
    assert_eq!(reply.probe_reply(), None);
    assert_eq!(Header { packet_type: PacketType::Data, ..request }.probe_reply(), None);
}

#[test]
fn an_unknown_debug_kind_keeps_its_number() {
    let request = DebugRequest { kind: Err(6), index: 2 };
    assert_eq!(DebugRequest::parse(&request.to_bytes()), Ok(request));
    let mut out = [0; 8];
    DebugReply::UnknownKind.encode(&mut out).unwrap();
    assert_eq!(out, [0xff, 0xff, 0xff, 0xf8, 0xff, 0xff, 0xff, 0xf8]);
    assert_eq!(DebugReply::parse(DebugKind::Peer, &out), Ok(DebugReply::UnknownKind));
}

#[test]
fn a_layout_older_than_openafs_is_refused() {
    let mut body = [0; 56];
    body[14] = b'L';
    assert_eq!(DebugReply::parse(DebugKind::Stats, &body), Err(debug::DebugError::TooOld { version: 'L' }));
}

#[test]
fn a_version_text_cannot_steer_a_terminal() {
    assert_eq!(parse_version(b"a\x1b[2Jb\0junk"), "a\u{fffd}[2Jb");
}
