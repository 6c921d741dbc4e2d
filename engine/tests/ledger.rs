//! Random and mutated frames: nothing panics, the ledger closes, every buffer comes home, and a real socket keeps its service.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use engine::pmd::{self, Burst, Clock, OpenOptions, PoolConfig};
use engine::{Engine, Outcome};

fn seed() -> u64 {
    std::env::var("SEED").ok().map_or(0x5eed, |seed| seed.parse().expect("SEED is a number"))
}

/// An Ethernet/IPv4/UDP frame from 192.0.2.9 to 192.0.2.1 without a UDP checksum.
fn datagram(mac: [u8; 6], port: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    frame.extend(mac);
    frame.extend([2, 0, 0, 0, 0, 9, 8, 0]);
    let ip_len = (28 + payload.len()) as u16;
    let mut ip = vec![
        0x45,
        0,
        (ip_len >> 8) as u8,
        ip_len as u8,
        0,
        1,
        0,
        0,
        64,
        17,
        0,
        0,
        192,
        0,
        2,
        9,
        192,
        0,
        2,
        1,
    ];
    let sum: u32 = ip.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    ip[10..12].copy_from_slice(&(!((sum & 0xffff) + (sum >> 16)) as u16).to_be_bytes());
    frame.extend(ip);
    for field in [50_000, port, 8 + payload.len() as u16, 0] {
        frame.extend(u16::to_be_bytes(field));
    }
    frame.extend(payload);
    frame
}

#[test]
fn the_ledger_closes_under_random_frames() {
    let seed = seed();
    println!("rerun with SEED={seed} cargo test -p engine --test ledger");
    let mut random = fastrand::Rng::with_seed(seed);
    let engine = Engine::builder()
        .port("memory:fuzz")
        .address("192.0.2.1/24")
        .address("2001:db8::1/64")
        .pool_buffers(2048)
        .start()
        .unwrap();
    let mac = engine.ports()[0].mac.0;
    let addr = |text: &str| text.parse::<SocketAddr>().unwrap();
    let _service = engine.udp().serve(addr("192.0.2.1:7"), |_, _, _| Outcome::Consumed).unwrap();
    let _refuser = engine.udp().serve(addr("192.0.2.1:8"), |_, _, _| Outcome::Refused(0)).unwrap();
    let unread = engine.udp().bind(addr("192.0.2.1:9")).unwrap();

    let mut port = pmd::open("memory:fuzz", &OpenOptions::default()).unwrap();
    let mut pool = PoolConfig::new("fuzz", 4096).build().unwrap().claim();
    let mut queue = port.open_queues(&[pool.handle()]).unwrap().remove(0);
    let (mut burst, mut answers) = (Burst::new(), Burst::new());
    let mut sent = 0u64;
    let deadline = Instant::now() + Duration::from_secs(30);
    while sent < 100_000 && Instant::now() < deadline {
        while !burst.is_full() {
            let len = random.usize(..300);
            let payload: Vec<u8> = (0..len).map(|_| random.u8(..)).collect();
            let mut frame = datagram(mac, random.u16(6..12), &payload);
            match random.u8(..10) {
                0 => frame = (0..random.usize(14..400)).map(|_| random.u8(..)).collect(),
                1 => frame.truncate(random.usize(14..frame.len())),
                2..5 => (0..random.usize(1..4)).for_each(|_| {
                    let at = random.usize(..frame.len().min(60));
                    frame[at] = random.u8(..);
                }),
                _ => {}
            }
            let Some(frame) = pool.copy_from(&frame) else { break };
            burst.push(frame);
        }
        sent += queue.tx_burst(Clock::now(), &mut burst) as u64;
        // What the engine answers is read and thrown away.
        queue.rx_burst(Clock::now(), &mut pool, &mut answers);
        answers.clear();
    }
    assert_eq!(sent, 100_000, "the engine does not keep up");
    let driver_dropped = queue.stats().drops.total();
    let arrived = sent - driver_dropped;
    while engine.stats().ledger().received < arrived && Instant::now() < deadline {
        queue.rx_burst(Clock::now(), &mut pool, &mut answers);
        answers.clear();
    }
    let mut buffer = [0; 512];
    assert!(
        unread.recv_timeout(Duration::from_secs(5), &mut buffer).is_ok(),
        "a real socket still gets its datagrams"
    );
    drop((_service, _refuser, unread));
    let report = engine.shutdown();
    let ledger = report.stats.ledger();
    println!("{ledger}");
    assert_eq!(ledger.received, arrived, "{ledger}");
    assert_eq!(ledger.imbalance(), 0, "{ledger}");
    assert!(ledger.dropped().count() >= 8, "the traffic was not varied: {ledger}");
    assert!(ledger.consumed > 1000 && ledger.delivered > 0, "{ledger}");
    drop((queue, port, burst, answers));
    assert_eq!(report.leaks(), Vec::<String>::new());
    let stats = pool.handle();
    pool.available();
    assert_eq!(stats.in_use(), 0, "the generator's buffers came home");
}
