//! The drivers that need no privilege, under the suite that all drivers pass.

mod suite;

use std::time::Duration;

use pmd::{BURST, Burst, Clock, LinkState, OpenOptions, Pool};
use suite::Wire;

fn open(url: &str) -> Result<Box<dyn pmd::Port>, pmd::PortError> {
    pmd::open(url, &OpenOptions::default())
}

#[test]
fn memory() {
    let url = "memory:conformance,ring=512".to_owned();
    suite::run(&Wire { lossless: true, bounded: true, ..Wire::new([url.clone(), url]) });
}

#[test]
fn memory_with_jumbo_frames() {
    let url = "memory:jumbo,ring=512".to_owned();
    let wire = Wire::new([url.clone(), url]);
    suite::run(&Wire { lossless: true, bounded: true, mtu: Some(9000), ..wire });
}

/// Two ends at a socket of this test's own; a server is opened first, or the client.
fn memif(name: &str, options: &str, server_first: bool) -> Wire {
    let name = format!("rxline-{name}-{}", std::process::id());
    let at = match server_first {
        true => format!("memif:@{name}"),
        // A file, which a killed server leaves behind.
        false => format!("memif:{}", std::env::temp_dir().join(name).display()),
    };
    let mut urls = [format!("{at},role=server"), format!("{at},ring=512{options}")];
    if !server_first {
        urls.reverse();
    }
    Wire { lossless: true, bounded: true, killed: &[0, 1], ..Wire::new(urls) }
}

#[test]
fn memif_from_server_to_client() {
    suite::run(&memif("server", "", true));
}

#[test]
fn memif_from_client_to_server() {
    suite::run(&memif("client", "", false));
}

#[test]
fn memif_with_buffers_shorter_than_frames() {
    suite::run(&memif("short", ",buffer=256", true));
    suite::run(&memif("short", ",buffer=256", false));
}

#[test]
fn memif_with_jumbo_frames() {
    suite::run(&Wire { mtu: Some(9000), ..memif("jumbo", "", true) });
    suite::run(&Wire { mtu: Some(9000), ..memif("jumbo", "", false) });
}

#[test]
#[ignore = "the suite starts this as a process of its own, and kills it"]
fn the_process_that_is_killed() {
    suite::echo_until_killed();
}

#[test]
fn sim_without_impairments() {
    let [a, b] = ["sim:seed=3@memory:wrapped,ring=2048", "sim:seed=4@memory:wrapped"].map(str::to_owned);
    suite::run(&Wire::new([a, b]));
}

#[test]
fn sim_with_delay() {
    let [a, b] = ["sim:delay=300us,limit=8192@memory:late,ring=4096", "memory:late"].map(str::to_owned);
    suite::run(&Wire::new([a, b]));
}

#[test]
fn a_memory_wire_has_two_ends_and_four_queues() {
    let mut first = open("memory:four,queues=4").unwrap();
    assert_eq!((first.info().queues_max, first.link()), (4, LinkState::Down));
    let error = open("memory:four,queues=2").err().unwrap().to_string();
    assert!(error.contains("queues=4"), "{error}");
    let mut second = open("memory:four").unwrap();
    assert!(open("memory:four").err().unwrap().to_string().contains("two ends"));
    assert_ne!(first.info().mac, second.info().mac);
    let mut pool = suite::pool(64);
    let pools = vec![pool.handle(); 4];
    let (mut sends, mut receives) = (first.open_queues(&pools).unwrap(), second.open_queues(&pools).unwrap());
    let now = Clock::now();
    for (n, queue) in sends.iter_mut().enumerate() {
        let mut burst: Burst = [pool.copy_from(&[n as u8; 60]).unwrap()].into_iter().collect();
        queue.tx_burst(now, &mut burst);
    }
    for (n, queue) in receives.iter_mut().enumerate() {
        let mut burst = Burst::new();
        assert_eq!(queue.rx_burst(now, &mut pool, &mut burst), 1);
        assert_eq!(burst[0].data(), [n as u8; 60], "queue n talks with queue n");
    }
    assert_eq!(second.stats().rx_frames, 4);
}

#[test]
fn frames_for_nobody_are_dropped_by_name() {
    let mut port = open("memory:alone").unwrap();
    let mut pool = suite::pool(8);
    let mut queue = port.open_queues(&[pool.handle()]).unwrap().pop().unwrap();
    let mut burst: Burst = (0..8).map(|_| pool.copy_from(&[1; 60]).unwrap()).collect();
    assert_eq!(queue.tx_burst(Clock::now(), &mut burst), 8);
    assert_eq!((port.stats().drops.get("tx_no_peer"), port.stats().tx_frames), (8, 0));
    assert_eq!(pool.available(), 8);
}

#[test]
fn null() {
    suite::run_one_sided("null:");
    suite::run_one_sided("sim:delay=1us@null:");
}

#[test]
fn null_swallows_and_produces() {
    let mut pool = suite::pool(40);
    let mut port = open("null:rx=64,flows=3").unwrap();
    let mut queue = port.open_queues(&[pool.handle()]).unwrap().pop().unwrap();
    let mut burst = Burst::new();
    assert_eq!(queue.rx_burst(Clock::now(), &mut pool, &mut burst), 32);
    let ports: Vec<u8> = burst.iter().take(4).map(|mbuf| mbuf.data()[35]).collect();
    assert_eq!(ports, [0, 1, 2, 0]);
    let header = &burst[0].data()[14..34];
    let sum: u32 = header.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff, "the IPv4 checksum holds");
    let mut second = Burst::new();
    assert_eq!(queue.rx_burst(Clock::now(), &mut pool, &mut second), 8);
    assert_eq!(queue.stats().rx_no_buffer, 24);
    assert_eq!(queue.tx_burst(Clock::now(), &mut burst), 32);
    drop(second);
    assert_eq!(pool.available(), 40);
    let stats = port.stats();
    assert_eq!((stats.rx_frames, stats.rx_bytes, stats.tx_frames, stats.tx_bytes), (40, 2560, 32, 2048));

    let mut silent = open("null:").unwrap();
    let mut queue = silent.open_queues(&[pool.handle()]).unwrap().pop().unwrap();
    assert_eq!(queue.rx_burst(Clock::now(), &mut pool, &mut burst), 0);
    assert!(open("null:rx=41").is_err() && open("null:rx=2000").is_err() && open("null:speed=1").is_err());
}

#[test]
fn memory_that_spreads() {
    let url = "memory:spread-conformance,queues=1,rss,ring=512".to_owned();
    suite::run(&Wire { lossless: true, bounded: true, ..Wire::new([url.clone(), url]) });
}

/// Three queues of one end send flows of both families; each arrives on the queue that the other end's [`pmd::Rss`] names.
#[test]
fn a_memory_wire_with_rss_spreads_as_its_port_foretells() {
    let mut word = 7u64;
    let key = pmd::rss_key(|| {
        word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        word
    });
    let options = OpenOptions { rss_key: Some(key), ..OpenOptions::default() };
    let mut first = pmd::open("memory:spread,queues=3,rss,ring=300", &OpenOptions::default()).unwrap();
    let mut second = pmd::open("memory:spread", &options).unwrap();
    assert!(second.info().capabilities.spreads_flows);
    assert_eq!(second.rss(), None, "its queues are not open");
    let mut pool = suite::pool(512);
    let pools = vec![pool.handle(); 3];
    let mut sends = first.open_queues(&pools).unwrap();
    let now = Clock::now();
    let frame = |flow: u8| {
        let mut frame = vec![0; 12];
        frame
            .extend_from_slice(&[8, 0, 0x45, 0, 0, 32, 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2]);
        frame.extend_from_slice(&[0x1b, flow, 0, 7, 0, 12, 0, 0, 0, 0, 0, 0]);
        frame
    };
    let mut burst: Burst = [pool.copy_from(&frame(0)).unwrap()].into_iter().collect();
    assert_eq!(sends[0].tx_burst(now, &mut burst), 1);
    assert_eq!(sends[0].stats().drops.get("tx_no_peer"), 1, "no queue is there to choose");

    let mut receives = second.open_queues(&pools).unwrap();
    let rss = second.rss().unwrap();
    assert_eq!(rss.key, key);
    for (n, queue) in sends.iter_mut().enumerate() {
        for half in 0..2u8 {
            let mut burst: Burst = (0..30).map(|i| pool.copy_from(&frame(half * 30 + i)).unwrap()).collect();
            assert_eq!(queue.tx_burst(now, &mut burst), 30, "queue {n}");
        }
    }
    let mut seen = 0;
    for (n, queue) in receives.iter_mut().enumerate() {
        let (mut burst, before) = (Burst::new(), seen);
        while queue.rx_burst(now, &mut pool, &mut burst) > 0 {
            for frame in burst.drain(..) {
                let flow = frame.data()[35];
                let peer = ([192, 0, 2, 1], u16::from_be_bytes([0x1b, flow])).into();
                assert_eq!(rss.queue_of(([192, 0, 2, 2], 7).into(), peer), n, "flow {flow}");
                assert_eq!(rss.queue(frame.meta().rss_hash), n, "and its hash says so");
                seen += 1;
            }
        }
        assert!(seen > before, "queue {n} got nothing of 60 flows");
    }
    assert_eq!(seen, 180);
    assert!(pmd::open("memory:plain", &options).is_ok_and(|_plain| {
        let error = pmd::open("memory:plain,rss", &options).err().unwrap().to_string();
        error.contains("opened first")
    }));
}

/// One queue sends as fast as it is read, and the other its one frame: that comes all the same.
#[test]
fn a_memory_wire_with_rss_lets_no_sender_keep_another_out() {
    let mut first = open("memory:crowded,queues=2,rss").unwrap();
    let mut second = open("memory:crowded").unwrap();
    let mut pool = suite::pool(512);
    let mut sends = first.open_queues(&vec![pool.handle(); 2]).unwrap();
    let mut receive = second.open_queues(&[pool.handle()]).unwrap().pop().unwrap();
    let now = Clock::now();
    let frames = |pool: &mut Pool, n: usize, byte: u8| -> Burst {
        (0..n).map(|_| pool.copy_from(&[byte; 60]).unwrap()).collect()
    };
    for _ in 0..4 {
        assert_eq!(sends[0].tx_burst(now, &mut frames(&mut pool, BURST, 1)), BURST);
    }
    assert_eq!(sends[1].tx_burst(now, &mut frames(&mut pool, 1, 2)), 1);
    let heard = (0..2).any(|_| {
        let mut burst = Burst::new();
        receive.rx_burst(now, &mut pool, &mut burst);
        sends[0].tx_burst(now, &mut frames(&mut pool, BURST, 1));
        burst.iter().any(|frame| frame.data()[0] == 2)
    });
    assert!(heard, "two bursts, and the second sender's frame was in neither");
}

/// Two threads answer each other, and each sleeps on its queue's file descriptor whenever nothing waits. A frame that is sent while the other
/// goes to sleep either is seen by `arm` or wakes it: a wake-up lost would take the whole second.
#[test]
fn a_memory_queue_that_goes_to_sleep_misses_no_frame() {
    const ROUNDS: u32 = 20_000;
    let pong = |mut queue: Box<dyn pmd::Queue>, serves: bool| {
        let mut pool = suite::pool(64);
        let mut slept = 0;
        for round in 0..ROUNDS {
            let mut burst = Burst::new();
            if serves {
                burst.push(pool.copy_from(&round.to_be_bytes().repeat(15)).unwrap());
                queue.tx_burst(Clock::now(), &mut burst);
            }
            // Some rounds are spun through, so that frames come at every moment of the other's going to sleep.
            let mut spins = (round * 7919) % 200;
            while queue.rx_burst(Clock::now(), &mut pool, &mut burst) == 0 {
                if spins > 0 {
                    spins -= 1;
                    continue;
                }
                let armed = queue.arm();
                if armed {
                    let fd = queue.wait_fd().expect("membarrier is there since Linux 4.14");
                    assert!(
                        suite::sleep::readable_within(fd, Duration::from_secs(1)),
                        "round {round}: nothing woke it"
                    );
                    slept += 1;
                }
                queue.disarm();
            }
            assert_eq!(burst[0].data()[..4], round.to_be_bytes());
            if !serves {
                queue.tx_burst(Clock::now(), &mut burst);
            }
        }
        slept
    };
    let pool = suite::pool(8);
    let mut ports = [(); 2].map(|()| open("memory:sleepers").unwrap());
    let [a, b] = ports.each_mut().map(|port| port.open_queues(&[pool.handle()]).unwrap().remove(0));
    let other = std::thread::spawn(move || pong(b, false));
    let slept = pong(a, true) + other.join().unwrap();
    assert!(slept > 0, "neither ever slept");
}
