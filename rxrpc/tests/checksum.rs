//! 15. Jumbo packets arrived corrupted where checksums were switched off: a datagram for Rx has a UDP checksum, and a right one.

use std::time::{Duration, Instant};

use rxrpc::engine::{Engine, pmd};
use rxrpc::wire::{Cid, Flags, Header, PacketType};
use rxrpc::{RxExt, ServiceId};

use pmd::{Burst, Clock, OpenOptions, PoolConfig};

const LONG: Duration = Duration::from_secs(20);

fn sum(bytes: impl Iterator<Item = u16>) -> u16 {
    let sum: u32 = bytes.map(u32::from).sum();
    let once = (sum & 0xffff) + (sum >> 16);
    !((once & 0xffff) + (once >> 16)) as u16
}

fn words(bytes: &[u8]) -> impl Iterator<Item = u16> {
    bytes.chunks(2).map(|pair| u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]))
}

/// A frame from 192.0.2.9 to 192.0.2.1 whose UDP checksum is what `checksum` makes of the right one.
fn frame(mac: [u8; 6], payload: &[u8], checksum: impl Fn(u16) -> u16) -> Vec<u8> {
    let udp_len = 8 + payload.len() as u16;
    let addresses = [192, 0, 2, 9, 192, 0, 2, 1];
    let mut ip =
        [&[0x45, 0][..], &(20 + udp_len).to_be_bytes(), &[0, 1, 0, 0, 64, 17, 0, 0], &addresses].concat();
    let ip_sum = sum(words(&ip));
    ip[10..12].copy_from_slice(&ip_sum.to_be_bytes());
    let mut udp =
        [50_000, 7009, udp_len, 0].iter().flat_map(|field: &u16| field.to_be_bytes()).collect::<Vec<_>>();
    udp.extend(payload);
    let udp_sum = sum(words(&addresses).chain([17, udp_len]).chain(words(&udp)));
    udp[6..8].copy_from_slice(&checksum(udp_sum).to_be_bytes());
    [&mac[..], &[2, 0, 0, 0, 0, 9, 8, 0], &ip, &udp].concat()
}

/// A call of its own.
fn request(call: u32) -> Vec<u8> {
    let flags = Flags::CLIENT_INITIATED | Flags::LAST;
    let header = Header {
        epoch: 7,
        cid: Cid(0x100),
        call,
        seq: 1,
        serial: call,
        flags,
        service: 147,
        ..Header::new(PacketType::Data)
    };
    [&header.to_bytes()[..], &call.to_be_bytes()].concat()
}

#[test]
fn a_datagram_without_a_checksum_is_not_for_rx() {
    let engine = Engine::builder().port("memory:checksum").address("192.0.2.1/24").start_rx().unwrap();
    let service = engine.rx().bind("192.0.2.1:7009", ServiceId(147)).unwrap();
    let mac = engine.ports()[0].mac.0;
    let mut port = pmd::open("memory:checksum", &OpenOptions::default()).unwrap();
    let mut pool = PoolConfig::new("checksum", 64).build().unwrap().claim();
    let mut queue = port.open_queues(&[pool.handle()]).unwrap().remove(0);
    let mut burst = Burst::new();
    burst.push(pool.copy_from(&frame(mac, &request(1), |_| 0)).unwrap());
    burst.push(pool.copy_from(&frame(mac, &request(2), |right| right ^ 0x100)).unwrap());
    burst.push(pool.copy_from(&frame(mac, &request(3), |right| right)).unwrap());
    let deadline = Instant::now() + LONG;
    while !burst.is_empty() {
        queue.tx_burst(Clock::now(), &mut burst);
        assert!(Instant::now() < deadline, "the engine takes no frames");
    }
    let mut call = service.accept_timeout(LONG).unwrap();
    assert_eq!(call.read_all().unwrap(), 3_u32.to_be_bytes(), "the first two are nobody's");
    let stats = engine.stats();
    let ledger = stats.ledger();
    let dropped: Vec<_> = ledger.dropped().filter(|(_, count)| *count > 0).collect();
    assert_eq!(dropped, [("bad_udp_checksum", 1), ("no_udp_checksum", 1)]);
    drop((call, service));
    engine.shutdown();
}
