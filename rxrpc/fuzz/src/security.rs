//! CHALLENGE and RESPONSE: to a client's connection and to a service's, asked for and not.

use crate::bytes::Bytes;
use crate::world::{SERVICE, World, credentials};
use rxrpc::wire::{Cid, Flags, Header, PacketType};
use rxrpc::{CallOptions, Target};

/// Packets of these two types, each with a byte before it that says whose it is, and two for its length.
pub fn security(data: &[u8]) {
    World::run(|world| {
        let mut bytes = Bytes(data);
        let mut serial = 10;
        while !bytes.is_empty() {
            let (way, len) = (bytes.u8(), usize::from(bytes.u16() % 2_048));
            let body = bytes.take(len);
            serial += 1;
            let index = [0, 2, 2, 2, 4, 6, 200, 255][usize::from(way >> 5)];
            let header = if way & 1 == 0 {
                to_service(world, way, index)
            } else {
                let Some(header) = to_client(world, way, index) else { return };
                header
            };
            let _ = world.input(0, &[&Header { serial, ..header }.to_bytes()[..], body].concat());
            world.transmit(16);
            world.wait(u64::from(way & 2) * 600);
            world.events();
        }
    });
}

/// A client's DATA, which begins a connection of the class, or its RESPONSE.
fn to_service(_world: &mut World<'_>, way: u8, index: u8) -> Header {
    let data = way & 8 != 0;
    let kind = if data { PacketType::Data } else { PacketType::Response };
    let number = u32::from(data);
    Header {
        epoch: 7,
        cid: Cid(0x100 | u32::from(way & 4)),
        call: number,
        seq: number,
        flags: Flags::CLIENT_INITIATED | Flags::LAST,
        security_index: index,
        service: SERVICE,
        ..Header::new(kind)
    }
}

/// A server's CHALLENGE for the first of our calls, which begins if there is none.
fn to_client(world: &mut World<'_>, way: u8, index: u8) -> Option<Header> {
    let now = world.now;
    if world.rx.calls().next().is_none() {
        let target = Target::new(world.peer(0), SERVICE);
        let credentials = (index == 2).then(credentials);
        let options = CallOptions { credentials, ..CallOptions::default() };
        let call = world.rx.begin(now, world.local, target, options).ok()?;
        let _ = world.rx.send(now, world.pool, call, b"request", false);
        world.transmit(16);
    }
    let call = world.rx.calls().find(|call| call.conn.is_some())?;
    Some(Header {
        epoch: call.epoch,
        cid: Cid(call.cid),
        call: if way & 4 != 0 { call.number } else { 0 },
        security_index: index,
        service: SERVICE,
        ..Header::new(if way & 8 != 0 { PacketType::Response } else { PacketType::Challenge })
    })
}
