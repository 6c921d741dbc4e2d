//! Datagrams one after the other into an endpoint with a user, which calls and is called meanwhile: the whole of it.
//!
//! Packets are made of small numbers, so that they meet the same few connections and calls; some are any bytes at all.

use crate::bytes::Bytes;
use crate::world::{CHARGED, SERVICE, UPGRADED, World};
use rxrpc::wire::{Cid, Flags, Header, PacketType};

/// Steps of one input.
const STEPS: usize = 400;

/// One step after the other: a byte says what kind, the next ones what exactly.
pub fn datagrams(data: &[u8]) {
    World::run(|world| {
        let mut bytes = Bytes(data);
        for _ in 0..STEPS {
            if bytes.is_empty() {
                return;
            }
            step(world, &mut bytes);
        }
    });
}

fn step(world: &mut World<'_>, bytes: &mut Bytes<'_>) {
    match bytes.u8() % 16 {
        0..=4 => from_client(world, bytes),
        5..=8 => from_server(world, bytes),
        9 => {
            let (peer, len) = (bytes.u8(), usize::from(bytes.u8()));
            let _ = world.input(peer, bytes.take(len));
        }
        10 => world.wait(u64::from(bytes.u8()) * 40),
        11 => world.begin(bytes),
        12 | 13 => world.act(bytes),
        14 => world.manage(bytes),
        _ => match bytes.u8() {
            most @ 0..=127 => world.transmit(usize::from(most) + 1),
            _ => world.events(),
        },
    }
}

/// A packet of somebody who calls us.
fn from_client(world: &mut World<'_>, bytes: &mut Bytes<'_>) {
    let peer = bytes.u8();
    let kind = kind(bytes);
    let header = Header {
        epoch: bytes.small(2).wrapping_add(7),
        cid: Cid(bytes.small(12).wrapping_add(0x100)),
        call: bytes.small(4),
        seq: bytes.small(40),
        serial: bytes.small(200),
        flags: Flags(bytes.u8()) | Flags::CLIENT_INITIATED,
        user_status: bytes.u8() & 1,
        security_index: security_index(bytes),
        service: service(bytes),
        ..Header::new(kind)
    };
    finish(world, peer, &header, bytes);
}

/// A packet of somebody whom we call: for a call of ours, or beside it.
fn from_server(world: &mut World<'_>, bytes: &mut Bytes<'_>) {
    let number = usize::from(bytes.u8());
    let calls: Vec<_> = world.rx.calls().filter(|call| call.conn.is_some()).collect();
    let Some(call) = calls.get(number % calls.len().max(1)) else { return };
    let peer = (0..4).find(|&peer| world.peer(peer) == call.peer).unwrap_or(0);
    let kind = kind(bytes);
    let header = Header {
        epoch: call.epoch,
        cid: Cid(call.cid),
        call: if bytes.u8() < 230 { call.number } else { bytes.small(4) },
        seq: bytes.small(40),
        serial: bytes.small(200),
        flags: Flags(bytes.u8()).without(Flags::CLIENT_INITIATED),
        security_index: security_index(bytes),
        service: service(bytes),
        ..Header::new(kind)
    };
    finish(world, peer, &header, bytes);
}

fn finish(world: &mut World<'_>, peer: u8, header: &Header, bytes: &mut Bytes<'_>) {
    let len = usize::from(bytes.u8());
    let jumbo = header.packet_type == PacketType::Data && header.flags.contains(Flags::JUMBO);
    // A jumbogram has long parts, which would be most of the input.
    let filler = if jumbo { vec![0; 1_412] } else { Vec::new() };
    let _ = world.input(peer, &[&header.to_bytes()[..], &filler, bytes.take(len)].concat());
}

fn kind(bytes: &mut Bytes<'_>) -> PacketType {
    let number = bytes.u8() % 24;
    // DATA and ACK more often than the others.
    PacketType::from_u8(number).unwrap_or(if number < 18 { PacketType::Data } else { PacketType::Ack })
}

fn security_index(bytes: &mut Bytes<'_>) -> u8 {
    match bytes.u8() {
        0..=199 => 0,
        200..=249 => 2,
        other => other,
    }
}

fn service(bytes: &mut Bytes<'_>) -> u16 {
    [SERVICE, SERVICE, UPGRADED, CHARGED, 0, 9][usize::from(bytes.u8()) % 6]
}
