//! ACKs: by themselves, and any number of them for a call whose data is under way.

use crate::bytes::Bytes;
use crate::world::{SERVICE, World};
use rxrpc::wire::{Ack, Cid, Flags, Header, PacketType};
use rxrpc::{CallId, RxDrop};

/// Packets of the reply that the ACKs speak of.
const PACKETS: usize = 40;

/// ACK bodies with a byte before each that says how long it is, and one for header and time.
pub fn ack(data: &[u8]) {
    World::run(|world| {
        let Some(call) = reply(world) else { return };
        let mut bytes = Bytes(data);
        let mut serial = 100;
        while !bytes.is_empty() {
            let (len, way) = (usize::from(bytes.u8()), bytes.u8());
            let body = bytes.take(len);
            round_trip(body);
            serial += 1;
            let flags = if way & 1 == 1 { Flags::REQUEST_ACK } else { Flags::NONE };
            let header = Header { serial, flags: flags | Flags::CLIENT_INITIATED, ..client(PacketType::Ack) };
            let result = world.input(0, &[&header.to_bytes()[..], body].concat());
            if Ack::parse(body).is_err() && world.rx.completion(call).is_none() {
                assert_eq!(result, Err(RxDrop::BadPacket), "it is no ACK");
            }
            check(world, call);
            world.transmit(64);
            check(world, call);
            world.wait(u64::from(way >> 1) * 10);
        }
    });
}

fn round_trip(body: &[u8]) {
    let Ok(ack) = Ack::parse(body) else { return };
    let mut out = vec![0; ack.encoded_len()];
    assert_eq!(ack.encode(&mut out), Ok(out.len()));
    assert_eq!(Ack::parse(&out), Ok(ack));
}

fn client(kind: PacketType) -> Header {
    Header { epoch: 7, cid: Cid(0x100), call: 1, service: SERVICE, ..Header::new(kind) }
}

/// A call that came in, and its reply on its way.
fn reply(world: &mut World<'_>) -> Option<CallId> {
    let flags = Flags::CLIENT_INITIATED | Flags::LAST;
    let header = Header { seq: 1, serial: 1, flags, ..client(PacketType::Data) };
    world.input(0, &header.to_bytes()).ok()?;
    world.events();
    let call = world.rx.calls().next()?.id;
    let now = world.now;
    world.rx.send(now, world.pool, call, &[7; PACKETS * 32], false).ok()?;
    world.transmit(64);
    Some(call)
}

/// What must hold of the call whatever the ACKs say.
fn check(world: &World<'_>, call: CallId) {
    let Some(view) = world.rx.call(call) else { return };
    assert!(view.peer_window <= 255 && view.congestion_window >= 1, "{view:?}");
    assert!(view.tx_first as usize <= PACKETS + 2, "acknowledged what was never sent: {view:?}");
    assert!(view.unacked_packets + view.unsent_packets <= PACKETS + 1, "{view:?}");
    for peer in world.rx.peers() {
        assert!((500..=65_535).contains(&peer.max_mtu) && peer.jumbo_max <= 47, "{peer:?}");
    }
}
