//! Devices of DPDK's in software that need no privilege, under the suite that all drivers pass. Needs an installed libdpdk:
//!
//! `cargo test -p pmd --features dpdk --test conformance_dpdk`
//!
//! EAL is one for the whole program, so that each test names devices of its own.

mod suite;

use pmd::{BURST, Burst, Clock, LinkState, Mbuf, OpenOptions, Pool, PoolConfig, Port, PortError, Queue};
use suite::Wire;

fn open(url: &str) -> Result<Box<dyn Port>, PortError> {
    pmd::open(url, &OpenOptions::default())
}

fn open_with(url: &str, pools: &[&Pool]) -> (Box<dyn Port>, Vec<Box<dyn Queue>>) {
    let mut port = open(url).unwrap_or_else(|error| panic!("{error}"));
    let handles: Vec<_> = pools.iter().map(|pool| pool.handle()).collect();
    let queues = port.open_queues(&handles).unwrap_or_else(|error| panic!("{error}"));
    (port, queues)
}

fn refusal(url: &str) -> String {
    open(url).err().unwrap_or_else(|| panic!("{url} was opened")).to_string()
}

#[test]
fn net_null() {
    suite::run_one_sided("dpdk:net_null0,no-rx=1");
}

#[test]
fn net_pcap() {
    let path = std::env::temp_dir().join(format!("rxline-dpdk-{}.pcap", std::process::id()));
    suite::run_one_sided(&format!("dpdk:net_pcap0,tx_pcap={}", path.display()));
    let written = std::fs::metadata(&path).unwrap().len();
    std::fs::remove_file(&path).unwrap();
    // The file's header, and of 501 frames their own headers and bytes.
    assert_eq!(written, 24 + 501 * 16 + 920 + (60..560).sum::<u64>());
}

#[test]
fn net_memif() {
    let socket = std::env::temp_dir().join(format!("rxline-dpdk-{}.sock", std::process::id()));
    let url = |n: usize, role: &str| {
        format!("dpdk:net_memif{n},role={role},socket-abstract=no,socket={}", socket.display())
    };
    let urls = [url(0, "server"), url(1, "client")];
    suite::run(&Wire { lossless: true, bounded: true, frail: true, ..Wire::new(urls) });
}

/// net_ring's transmit ring is its receive ring.
fn send(queue: &mut dyn Queue, frames: impl IntoIterator<Item = Mbuf>) -> usize {
    let mut burst: Burst = frames.into_iter().collect();
    queue.tx_burst(Clock::now(), &mut burst)
}

#[test]
fn net_ring_gives_back_what_it_was_given_without_a_copy() {
    let mut pool = suite::pool(512);
    let (port, mut queues) = open_with("dpdk:net_ring0", &[&pool]);
    assert_eq!(port.link(), LinkState::Up);
    let queue = &mut *queues[0];
    let mut segmented = pool.copy_from(&[7; 100]).unwrap();
    segmented.chain(pool.copy_from(&[8; 50]).unwrap());
    let frames = [pool.copy_from(&[6; 60]).unwrap(), segmented];
    let places: Vec<*const u8> = frames.iter().map(|frame| frame.data().as_ptr()).collect();
    assert_eq!(send(queue, frames), 2);
    let mut burst = Burst::new();
    assert_eq!(queue.rx_burst(Clock::now(), &mut pool, &mut burst), 2);
    let received: Vec<*const u8> = burst.iter().map(|frame| frame.data().as_ptr()).collect();
    assert_eq!(received, places, "the same buffers");
    assert_eq!(burst[0].data(), [6; 60]);
    let segments: Vec<&[u8]> = burst[1].segments().collect();
    assert_eq!(segments, [&[7; 100][..], &[8; 50]]);
    assert_eq!((burst[1].len(), burst[1].tailroom()), (150, pmd::DATA_ROOM - 50));
    assert_eq!(port.stats().rx_frames, 2);
    burst.clear();
    assert_eq!(pool.available(), 512);
}

#[test]
fn a_full_net_ring_keeps_what_it_cannot_take_and_forgets_nothing_when_closed() {
    let mut pool = suite::pool(4096);
    let (port, mut queues) = open_with("dpdk:net_ring1", &[&pool]);
    let mut sent = 0;
    loop {
        let mut burst: Burst = (0..BURST).map(|i| pool.copy_from(&[(sent + i) as u8; 60]).unwrap()).collect();
        sent += queues[0].tx_burst(Clock::now(), &mut burst);
        if let Some(first) = burst.first() {
            assert_eq!(first.data(), [sent as u8; 60], "taken from the front, the rest stays");
            break;
        }
        assert!(sent < 4096 - BURST, "no ring is that long");
    }
    assert_eq!((port.stats().tx_full, port.stats().tx_frames), (1, sent as u64));
    drop((port, queues));
    assert_eq!(pool.available(), 4096, "frames in the ring went home");
    // And again, as new.
    let (_port, mut queues) = open_with("dpdk:net_ring1", &[&pool]);
    let mut burst = Burst::new();
    assert_eq!(queues[0].rx_burst(Clock::now(), &mut pool, &mut burst), 0);
}

#[test]
fn frames_of_a_pool_that_the_device_does_not_know_are_copied_and_counted() {
    let (mut known, mut other) = (suite::pool(64), suite::pool(64));
    let (port, mut queues) = open_with("dpdk:net_ring2", &[&known]);
    let frame = other.copy_from(&vec![9; 4000]).unwrap();
    assert_eq!(send(&mut *queues[0], [other.copy_from(&[5; 60]).unwrap()]), 1);
    assert_eq!(other.available(), 64 - frame.segment_count());
    let mut burst = Burst::new();
    assert_eq!(queues[0].rx_burst(Clock::now(), &mut known, &mut burst), 1);
    assert_eq!(burst[0].data(), [5; 60]);
    assert_eq!((port.stats().tx_copied, known.available()), (1, 63));
}

#[test]
fn queues_of_pools_of_their_own_and_frames_that_cross() {
    let mut pools = [suite::pool(256), suite::pool(256)];
    let (port, mut queues) = {
        let [a, b] = &pools;
        open_with("dpdk:queues=2@net_ring3", &[a, b])
    };
    // Sent on queue 0 from the pool of queue 1, which the device knows too.
    let frame = pools[1].copy_from(&[1; 60]).unwrap();
    assert_eq!(send(&mut *queues[0], [frame]), 1);
    let mut burst = Burst::new();
    assert_eq!(queues[0].rx_burst(Clock::now(), &mut pools[0], &mut burst), 1);
    assert_eq!((port.stats().tx_copied, pools[1].available()), (0, 255));
    burst.clear();
    assert_eq!(pools.each_mut().map(Pool::available), [256, 256]);
}

#[test]
fn what_is_written_before_the_at_is_ours() {
    assert_eq!(open("dpdk:mtu=1400,queues=3@net_null7").unwrap().info().mtu, 1400);
    assert_eq!(open("dpdk:queues=3@net_null7").unwrap().info().queues_max, 3);
    let error = refusal("dpdk:speed=3@net_null7");
    assert!(error.contains("\"speed\" does not fit") && error.contains("queues"), "{error}");
    assert!(refusal("dpdk:").contains("the device is missing"));
    assert!(refusal("dpdk:queues=3").contains("the device is missing"));
}

#[test]
fn dpdks_own_words_become_the_error_with_the_mend() {
    let error = refusal("dpdk:net_pcap7,rx_pcap=/nowhere/at/all");
    assert!(error.contains("/nowhere/at/all") && error.contains("No such file"), "{error}");
    let error = refusal("dpdk:net_nothing0");
    assert!(error.contains("that is installed"), "{error}");
    let error = refusal("dpdk:0000:fe:1f.7");
    assert!(error.contains("dpdk-devbind.py"), "{error}");
    let _open = open("dpdk:net_null8").unwrap();
    assert!(refusal("dpdk:net_null8").contains("is taken"));
}

#[test]
fn a_ring_is_filled_from_a_pool_that_nobody_has_claimed() {
    let seed = PoolConfig::new("seed", 128).build().unwrap();
    let mut port = open("dpdk:net_null9").unwrap();
    let mut queue = port.open_queues(&[seed.handle()]).unwrap().pop().unwrap();
    let mut pool = seed.claim();
    let mut burst = Burst::new();
    assert_eq!(queue.rx_burst(Clock::now(), &mut pool, &mut burst), BURST);
    assert_eq!(burst[0].len(), 64, "net_null's frames");
    assert_eq!(pool.available(), 128 - BURST);
    // Dropped on a thread that does not own the pool.
    std::thread::spawn(move || drop(burst)).join().unwrap();
    assert_eq!(pool.available(), 128);
    // An empty pool is no harm.
    let held: Vec<Mbuf> = std::iter::from_fn(|| pool.alloc()).collect();
    let mut burst = Burst::new();
    assert_eq!((queue.rx_burst(Clock::now(), &mut pool, &mut burst), held.len()), (0, 128));
}
