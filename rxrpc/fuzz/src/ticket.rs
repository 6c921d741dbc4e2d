//! Tickets, in RESPONSEs to a service's CHALLENGE: as they come, and sealed with the service's own keys, so that what is inside
//! meets its reader too.

use crate::bytes::Bytes;
use crate::world::{AES_KEY, AES_KVNO, DES_KEY, DES_KVNO, SERVICE, World};
use des::Des;
use des::cipher::{BlockCipherEncrypt, KeyInit};
use picky_krb::crypto::CipherSuite;
use rxrpc::wire::{Cid, Flags, Header, PacketType};
use rxrpc::{CallState, Event};

/// Tickets, each with a byte before it that says of which form it is, and two for its length.
pub fn ticket(data: &[u8]) {
    World::run(|world| {
        let mut bytes = Bytes(data);
        for client in 0..8 {
            if bytes.is_empty() {
                return;
            }
            let (form, len) = (bytes.u8() % 5, usize::from(bytes.u16() % 1_024));
            let inside = bytes.take(len);
            let (kvno, ticket) = match form {
                0 => (256, inside.to_vec()),
                1 => (213, inside.to_vec()),
                2 => (DES_KVNO, inside.to_vec()),
                3 => (DES_KVNO, pcbc_encrypted(inside)),
                _ => (213, krb5_encrypted(inside)),
            };
            respond(world, client, kvno, &ticket);
            // Whoever sealed the ticket, the proof that the session key is known is missing.
            let secured = world.rx.calls().any(|call| call.state != CallState::ServiceSecuring);
            assert!(!secured, "a ticket alone let somebody in");
            while let Some(event) = world.rx.poll_event() {
                assert!(!matches!(event, Event::Incoming { .. }), "{event:?}");
            }
            world.transmit(16);
        }
    });
}

/// A new connection of class 2, and the RESPONSE on it.
fn respond(world: &mut World<'_>, client: u32, kvno: u32, ticket: &[u8]) {
    let data = Header {
        epoch: 7,
        cid: Cid(0x100 + 4 * client),
        call: 1,
        seq: 1,
        serial: 1,
        flags: Flags::CLIENT_INITIATED | Flags::LAST,
        security_index: 2,
        service: SERVICE,
        ..Header::new(PacketType::Data)
    };
    let _ = world.input(0, &[&data.to_bytes()[..], &[0; 8]].concat());
    world.transmit(16);
    let response = Header { call: 0, seq: 0, serial: 2, packet_type: PacketType::Response, ..data };
    let words = |words: &[u32]| words.iter().flat_map(|word| word.to_be_bytes()).collect::<Vec<_>>();
    let body = [words(&[2, 0]), vec![0; 40], words(&[kvno, ticket.len() as u32]), ticket.to_vec()].concat();
    let _ = world.input(0, &[&response.to_bytes()[..], &body].concat());
}

/// Of Kerberos 4's form: DES in PCBC, the key as first vector.
fn pcbc_encrypted(inside: &[u8]) -> Vec<u8> {
    let cipher = Des::new(&DES_KEY.into());
    let mut vector = DES_KEY;
    let mut sealed = Vec::new();
    for part in inside.chunks(8) {
        let mut plain = [0; 8];
        plain[..part.len()].copy_from_slice(part);
        let mut block = std::array::from_fn::<u8, 8, _>(|at| plain[at] ^ vector[at]).into();
        cipher.encrypt_block(&mut block);
        sealed.extend_from_slice(&block);
        vector = std::array::from_fn(|at| plain[at] ^ block[at]);
    }
    sealed
}

/// The encrypted part of a Kerberos 5 ticket.
fn krb5_encrypted(inside: &[u8]) -> Vec<u8> {
    let cipher = CipherSuite::Aes256CtsHmacSha196.cipher();
    let Ok(sealed) = cipher.encrypt(&AES_KEY, 2, inside) else { return Vec::new() };
    let number = |tag, number: u8| der(tag, &der(2, &[number]));
    der(0x30, &[number(0xa0, 18), number(0xa1, AES_KVNO as u8), der(0xa2, &der(4, &sealed))].concat())
}

fn der(tag: u8, inside: &[u8]) -> Vec<u8> {
    let len = inside.len();
    let head = match len {
        0..128 => vec![tag, len as u8],
        _ => vec![tag, 0x82, (len >> 8) as u8, len as u8],
    };
    [head, inside.to_vec()].concat()
}
