//! Two network devices joined by a cable, under the suite that all drivers pass. Which they are is said from outside:
//!
//! `DEVICES="igb:0000:01:00.0,promisc=1 igb:0000:02:00.0,promisc=1" cargo test -p pmd --features device-tests --test devices`
//!
//! `DEVICES_LINK` is a command that takes the link down or up (its argument is `off` or `on`), for instance a switch's. `DEVICES_UNCOUNTED=1`
//! is for devices that do not count what they have no room for, as emulated ones.

mod suite;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant as Wall};

use pmd::{Burst, Checksum, Clock, LinkState, Mbuf, OpenOptions, Pool, Port, Queue};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::Timespec;
use suite::Wire;

/// All tests use the same two devices.
fn one_at_a_time() -> MutexGuard<'static, ()> {
    static DEVICES: Mutex<()> = Mutex::new(());
    DEVICES.lock().unwrap_or_else(PoisonError::into_inner)
}

fn urls() -> [String; 2] {
    let devices = std::env::var("DEVICES").expect("DEVICES names two URLs, with a space between them");
    let urls: Vec<String> = devices.split(' ').map(str::to_owned).collect();
    urls.try_into().expect("two URLs")
}

fn wire() -> Wire {
    let command = std::env::var("DEVICES_LINK").expect("DEVICES_LINK is a command that is given off or on");
    let set_link = move |up| {
        let script = format!("{command} {}", if up { "on" } else { "off" });
        assert!(Command::new("sh").args(["-c", &script]).status().unwrap().success(), "{script}");
    };
    let uncounted = std::env::var_os("DEVICES_UNCOUNTED").is_some();
    Wire { set_link: Some(Box::new(set_link)), uncounted, killed: &[0, 1], ..Wire::new(urls()) }
}

#[test]
fn the_suite() {
    let _alone = one_at_a_time();
    suite::run(&wire());
}

#[test]
fn the_suite_with_jumbo_frames() {
    let _alone = one_at_a_time();
    suite::run(&Wire { mtu: Some(9000), ..wire() });
}

#[test]
#[ignore = "a child process of the suite"]
fn the_process_that_is_killed() {
    suite::echo_until_killed();
}

struct End {
    port: Box<dyn Port>,
    queues: Vec<Box<dyn Queue>>,
}

/// Both ends with `queues` queues on one pool, `options` added to their URLs, and the link up.
fn open(queues: usize, options: [&str; 2], pool: &mut Pool) -> [End; 2] {
    let [a, b] = urls();
    let mut ends = [a + options[0], b + options[1]].map(|url| {
        let start = Wall::now();
        let mut port = loop {
            // A device whose last user is just being killed is taken for a moment.
            match pmd::open(&url, &OpenOptions::default()) {
                Ok(port) => break port,
                Err(error) if start.elapsed() > Duration::from_secs(3) => panic!("{error}"),
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        };
        let pools = vec![pool.handle(); queues.min(port.info().queues_max)];
        let queues = port.open_queues(&pools).unwrap_or_else(|error| panic!("{error}"));
        End { port, queues }
    });
    let start = Wall::now();
    while ends.iter().any(|end| end.port.link() == LinkState::Down) {
        assert!(start.elapsed() < Duration::from_secs(5), "the link stays down");
        std::thread::sleep(Duration::from_millis(1));
    }
    // The first poll gives a device its buffers.
    for queue in ends.iter_mut().flat_map(|end| &mut end.queues) {
        queue.rx_burst(Clock::now(), pool, &mut Burst::new());
    }
    ends
}

/// Ethernet, IPv4 and UDP around `payload`, with good checksums.
fn datagram(from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let (SocketAddr::V4(from), SocketAddr::V4(to)) = (from, to) else { unreachable!("IPv4 here") };
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];
    let udp_len = (8 + payload.len()) as u16;
    frame.extend([0x45, 0]);
    frame.extend((20 + udp_len).to_be_bytes());
    frame.extend([0, 0, 0x40, 0, 64, 17, 0, 0]);
    frame.extend(from.ip().octets());
    frame.extend(to.ip().octets());
    let ip = checksum(&[&frame[14..34]]);
    frame[24..26].copy_from_slice(&ip.to_be_bytes());
    let mut udp = Vec::new();
    udp.extend(from.port().to_be_bytes());
    udp.extend(to.port().to_be_bytes());
    udp.extend(udp_len.to_be_bytes());
    udp.extend([0, 0]);
    udp.extend(payload);
    let sum = checksum(&[&frame[26..34], &17u16.to_be_bytes(), &udp_len.to_be_bytes(), &udp]);
    udp[6..8].copy_from_slice(&sum.to_be_bytes());
    frame.extend(udp);
    frame
}

fn checksum(pieces: &[&[u8]]) -> u16 {
    let mut sum = pmd::checksum::Sum::default();
    pieces.iter().for_each(|piece| sum.add(piece));
    sum.finish()
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn some_datagram(payload: &[u8]) -> Vec<u8> {
    datagram(address("192.0.2.1:1000"), address("192.0.2.2:2000"), payload)
}

fn send(queue: &mut Box<dyn Queue>, frame: Mbuf) {
    let mut burst: Burst = [frame].into_iter().collect();
    assert_eq!(queue.tx_burst(Clock::now(), &mut burst), 1);
}

/// What comes until there are `wanted` frames, or nothing for a second.
fn receive(end: &mut End, pool: &mut Pool, wanted: usize) -> Vec<Mbuf> {
    let (mut frames, mut last) = (Vec::new(), Wall::now());
    while frames.len() < wanted && last.elapsed() < Duration::from_secs(1) {
        for queue in &mut end.queues {
            let mut burst = Burst::new();
            if queue.rx_burst(Clock::now(), pool, &mut burst) > 0 {
                last = Wall::now();
            }
            frames.extend(burst);
        }
    }
    frames
}

fn bytes(mbuf: &Mbuf) -> Vec<u8> {
    mbuf.segments().flatten().copied().collect()
}

#[test]
fn flows_go_to_the_queue_that_is_foretold() {
    let _alone = one_at_a_time();
    let mut pool = suite::pool(8192);
    let [mut a, mut b] = open(4, ["", ""], &mut pool);
    let rss = b.port.rss().expect("it spreads flows");
    let local = address("192.0.2.2:7001");
    let mut used = HashSet::new();
    for flow in 0..256u16 {
        let peer = SocketAddr::from(([192, 0, 2, (flow % 64) as u8], 5000 + flow));
        for _ in 0..4 {
            send(&mut a.queues[0], pool.copy_from(&datagram(peer, local, &flow.to_be_bytes())).unwrap());
        }
        for frame in receive(&mut b, &mut pool, 4) {
            assert_eq!(frame.data()[42..44], flow.to_be_bytes());
            let queue = usize::from(frame.meta().queue);
            assert_eq!(queue, rss.queue_of(local, peer), "the queue of {peer}");
            assert_eq!(rss.queue(frame.meta().rss_hash), queue, "the hash is that of the frame");
            used.insert(queue);
        }
    }
    assert_eq!(used.len(), b.queues.len(), "256 flows use all queues");
    assert_eq!(b.port.stats().rx_frames, 1024, "none was lost");
}

#[test]
fn tags_are_taken_out_and_put_in_where_the_url_says_so() {
    let _alone = one_at_a_time();
    let mut pool = suite::pool(4096);
    let mut tagged = some_datagram(b"tagged, and long enough not to be padded");
    tagged.splice(12..12, [0x81, 0x00, 0xa0, 0x2a]);
    let plain = some_datagram(b"tagged, and long enough not to be padded");
    for options in [[",vlan=keep", ",vlan=strip"], [",vlan=strip", ",vlan=keep"]] {
        let strips = options[1] == ",vlan=strip";
        let [mut a, mut b] = open(1, options, &mut pool);
        // The tag in the frame, and beside it: by the device where it strips, by the driver where not.
        send(&mut a.queues[0], pool.copy_from(&tagged).unwrap());
        let mut beside = pool.copy_from(&plain).unwrap();
        beside.meta_mut().vlan = Some(0xa02a);
        send(&mut a.queues[0], beside);
        let got = receive(&mut b, &mut pool, 2);
        assert_eq!(got.len(), 2);
        for frame in &got {
            let expected = if strips { (&plain, Some(0xa02a)) } else { (&tagged, None) };
            assert_eq!((&bytes(frame), frame.meta().vlan), expected);
        }
    }
}

#[test]
fn checksums_are_verified_and_finished() {
    let _alone = one_at_a_time();
    let mut pool = suite::pool(4096);
    let [mut a, mut b] = open(1, ["", ""], &mut pool);
    let good = some_datagram(&[7; 100]);
    let mut bad = good.clone();
    bad[60] ^= 1;
    let mut without = good.clone();
    without[12..14].copy_from_slice(&[0x88, 0xb5]);
    for (frame, expected) in [(&good, Checksum::Good), (&bad, Checksum::Bad), (&without, Checksum::Unknown)] {
        send(&mut a.queues[0], pool.copy_from(frame).unwrap());
        let got = receive(&mut b, &mut pool, 1);
        assert_eq!((bytes(&got[0]), got[0].meta().checksum), (frame.clone(), expected));
    }
    // Only the pseudo-header is summed, as a local sender leaves it; in one piece and in several, whole and tagged.
    let pseudo = !checksum(&[&good[26..34], &17u16.to_be_bytes(), &good[38..40]]);
    let mut partial = good.clone();
    partial[40..42].copy_from_slice(&pseudo.to_be_bytes());
    let tag = |frame: &[u8]| [&frame[..12], &[0x81, 0, 0, 9], &frame[12..]].concat();
    for (sent, expected) in [(partial.clone(), good.clone()), (tag(&partial), tag(&good))] {
        for cut in [sent.len(), 100, 60] {
            let mut frame = pool.copy_from(&sent[..cut]).unwrap();
            frame.chain(pool.copy_from(&sent[cut..]).unwrap());
            frame.meta_mut().checksum = Checksum::Partial;
            send(&mut a.queues[0], frame);
            assert_eq!(bytes(&receive(&mut b, &mut pool, 1)[0]), expected, "cut at {cut}");
        }
    }
}

fn readable(queue: &dyn Queue, limit: Duration) -> bool {
    let fd = queue.wait_fd().expect("it can be slept on");
    let limit = Timespec { tv_sec: 0, tv_nsec: limit.as_nanos() as i64 };
    poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&limit)).unwrap() > 0
}

#[test]
fn each_queue_can_be_slept_on() {
    let _alone = one_at_a_time();
    let mut pool = suite::pool(8192);
    let [mut a, mut b] = open(4, ["", ""], &mut pool);
    let rss = b.port.rss().unwrap();
    let local = address("192.0.2.2:7001");
    for target in 0..b.queues.len() {
        let host = (1..=250)
            .find(|host| rss.queue_of(local, SocketAddr::from(([192, 0, 2, *host], 9000))) == target);
        let peer = SocketAddr::from(([192, 0, 2, host.expect("a host for each queue")], 9000));
        let mut frame = || pool.copy_from(&datagram(peer, local, b"wake up")).unwrap();
        let (one, two, three) = (frame(), frame(), frame());
        let sleeper = &mut b.queues[target];
        assert!(sleeper.arm(), "nothing waits");
        assert!(!readable(&**sleeper, Duration::from_millis(20)), "nothing came yet");
        send(&mut a.queues[0], one);
        assert!(readable(&**sleeper, Duration::from_millis(900)), "queue {target} is woken");
        wake(&mut **sleeper);
        assert!(!readable(&**sleeper, Duration::from_millis(20)), "and only once");
        assert!(!sleeper.arm(), "a frame waits: no sleep");
        wake(&mut **sleeper);
        let mut burst = Burst::new();
        assert_eq!(sleeper.rx_burst(Clock::now(), &mut pool, &mut burst), 1);
        // Awake, it is not told.
        send(&mut a.queues[0], two);
        assert_eq!(receive(&mut b, &mut pool, 1).len(), 1);
        assert!(!readable(&*b.queues[target], Duration::from_millis(20)));
        // Asleep again.
        assert!(b.queues[target].arm());
        send(&mut a.queues[0], three);
        assert!(readable(&*b.queues[target], Duration::from_millis(900)), "queue {target} is woken again");
        wake(&mut *b.queues[target]);
        assert_eq!(receive(&mut b, &mut pool, 1).len(), 1);
    }
}

/// Disarms a queue, and takes an interrupt that was on its way then: another CPU may be about to handle it.
fn wake(queue: &mut dyn Queue) {
    queue.disarm();
    readable(queue, Duration::from_millis(20));
    queue.disarm();
}

#[test]
fn frames_in_memory_that_the_device_does_not_see_are_copied() {
    let _alone = one_at_a_time();
    let (mut pool, mut foreign) = (suite::pool(4096), suite::pool(64));
    for (mtu, len) in [("", 900), (",mtu=9000", 7000)] {
        let [mut a, mut b] = open(1, [mtu, mtu], &mut pool);
        let frame = some_datagram(&vec![3; len]);
        send(&mut a.queues[0], foreign.copy_from(&frame).unwrap());
        assert_eq!(foreign.available(), 64, "it is home at once");
        // In very many pieces, too.
        let mut pieces = pool.copy_from(&frame[..20]).unwrap();
        for piece in frame[20..].chunks(len / 40) {
            pieces.chain(pool.copy_from(piece).unwrap());
        }
        send(&mut a.queues[0], pieces);
        let got = receive(&mut b, &mut pool, 2);
        assert_eq!(got.iter().map(bytes).collect::<Vec<_>>(), [frame.clone(), frame]);
        assert_eq!(a.queues[0].stats().tx_copied, 2);
    }
}

#[test]
fn a_device_in_use_is_said_to_be() {
    let _alone = one_at_a_time();
    let mut pool = suite::pool(4096);
    let _ends = open(1, ["", ""], &mut pool);
    let error = pmd::open(&urls()[0], &OpenOptions::default()).err().expect("one user at a time").to_string();
    assert!(error.contains("in use"), "{error}");
}
