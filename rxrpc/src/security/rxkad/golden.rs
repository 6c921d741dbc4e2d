//! Conversations of real peers (golden.hex): each RESPONSE is judged, each packet opened, and what can only come out one way is made again.

use super::handshake::{self, Place};
use super::session::Session;
use super::{DesKey, Level};
use crate::security::{Sealing, ServerKeys};
use crate::wire::{Header, JUMBO_HEADER_LEN, PacketType, split};

/// When the packets were recorded: their tickets are good then.
const WHEN: Option<u64> = Some(1_795_280_904);

struct Conn {
    keys: ServerKeys,
    /// Whether the client sent it, and the UDP payload.
    packets: Vec<(bool, Vec<u8>)>,
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len() / 2).map(|i| u8::from_str_radix(&hex[2 * i..][..2], 16).unwrap()).collect()
}

fn conns(text: &str) -> Vec<Conn> {
    let (mut keys, mut conns) = (ServerKeys::new(), Vec::new());
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let words: Vec<_> = line.split(' ').collect();
        match words[..] {
            ["key", kvno, key] => {
                let key = DesKey::new(bytes(key).try_into().unwrap()).unwrap();
                keys = ServerKeys::new().with_des(kvno.parse().unwrap(), key);
            }
            ["conn"] => conns.push(Conn { keys: keys.clone(), packets: Vec::new() }),
            [way @ (">" | "<"), hex] => conns.last_mut().unwrap().packets.push((way == ">", bytes(hex))),
            _ => panic!("{line}"),
        }
    }
    conns
}

impl Conn {
    fn of(&self, kind: PacketType) -> impl Iterator<Item = (Header, &[u8])> {
        self.packets
            .iter()
            .map(|(_, packet)| Header::parse(packet).unwrap())
            .filter(move |(header, _)| header.packet_type == kind)
    }

    /// Checks CHALLENGE and RESPONSE, and returns what seals the rest.
    fn session(&self) -> Session {
        let (_, challenge) = self.of(PacketType::Challenge).next().unwrap();
        let (nonce, min_level) = handshake::read_challenge(challenge).unwrap();
        assert_eq!(handshake::challenge(nonce, Level::from_u32(min_level).unwrap())[..], *challenge);
        let (header, response) = self.of(PacketType::Response).next().unwrap();
        let place = Place { epoch: header.epoch, cid: header.cid, calls: [0; 4] };
        let proved = handshake::judge(response, &place, nonce, Level::Clear, &self.keys, WHEN).unwrap();
        assert!(["afs", "rxperf"].contains(&&*proved.identity.name), "{}", proved.identity);
        let kvno = u32::from_be_bytes(response[48..52].try_into().unwrap());
        let place = Place { calls: proved.calls, ..place };
        let again = handshake::respond(&proved.session, &place, nonce, kvno, response.len() - 56);
        assert_eq!(again[..], response[..56], "the same RESPONSE again");
        proved.session
    }
}

/// Opens a body and seals what was in it again. True: the sealed form has one way to be only, and was it.
fn open(session: &Session, header: &Header, sealed: &[u8]) -> bool {
    let mut opened = sealed.to_vec();
    let range = session.open(header, &mut opened).unwrap();
    let (len, level) = (range.len(), session.level());
    let padding = &opened[range.end..];
    if sealed.len() != level.sealed_len(len) || padding.iter().any(|&byte| byte != 0) {
        // OpenAFS pads with what its buffers hold, and Linux to whole blocks where there need be none.
        return false;
    }
    let mut again = vec![0xee; sealed.len()];
    again[level.header_len()..][..len].copy_from_slice(&opened[range]);
    let mut sealing = [Sealing { header: Header { checksum: 0, ..*header }, body: &mut again, len }];
    session.seal(&mut sealing);
    let checksum = sealing[0].header.checksum;
    assert_eq!((again, checksum), (sealed.to_vec(), header.checksum));
    true
}

/// Returns packets seen, and those of them made again.
fn replay(text: &str) -> (usize, usize) {
    let (mut seen, mut same) = (0, 0);
    for conn in conns(text) {
        let session = conn.session();
        for (header, body) in conn.of(PacketType::Data) {
            let read = |at| *body[at..].first_chunk::<JUMBO_HEADER_LEN>().unwrap();
            for part in split(&header, body.len(), read).unwrap() {
                let header = Header { seq: part.seq, checksum: part.checksum, ..header };
                seen += 1;
                same += usize::from(open(&session, &header, &body[part.offset..][..part.len]));
            }
        }
    }
    (seen, same)
}

#[test]
fn what_real_peers_sent_opens_and_is_made_again() {
    assert_eq!(replay(include_str!("golden.hex")), (33, 33));
}

#[test]
fn levels_and_both_directions_are_among_them() {
    let conns = conns(include_str!("golden.hex"));
    for level in [Level::Clear, Level::Auth, Level::Encrypt] {
        let of_level = conns.iter().filter(|conn| conn.session().level() == level);
        let both = of_level.filter(|conn| {
            let data = |way| conn.packets.iter().any(|(w, p)| *w == way && p[20] == PacketType::Data as u8);
            data(true) && data(false)
        });
        assert!(both.count() >= 2, "{level}");
    }
}

#[test]
fn a_flipped_bit_anywhere_in_a_response_is_refused() {
    let conns = conns(include_str!("golden.hex"));
    let conn = &conns[0];
    let (nonce, _) = handshake::read_challenge(conn.of(PacketType::Challenge).next().unwrap().1).unwrap();
    let (header, response) = conn.of(PacketType::Response).next().unwrap();
    let place = Place { epoch: header.epoch, cid: header.cid, calls: [0; 4] };
    let judge = |response: &[u8]| handshake::judge(response, &place, nonce, Level::Clear, &conn.keys, WHEN);
    for at in 0..response.len() {
        let mut changed = response.to_vec();
        changed[at] ^= 0x10;
        if let Ok(proved) = judge(&changed) {
            // Of the ticket, what nobody looks at may change: the address, and the server's name.
            assert!(at >= 56 && proved.identity.name == "afs", "byte {at}");
        }
    }
    for len in 0..response.len() {
        assert!(judge(&response[..len]).is_err(), "{len} bytes");
    }
    judge(response).unwrap();
}
