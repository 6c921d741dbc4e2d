//! The drivers on Linux interfaces, under the suite that all drivers pass. Run as root in a network namespace of your own:
//!
//! `unshare -n cargo test -p pmd --features privileged-tests --test conformance_privileged`
//!
//! Interfaces are made and removed here; their names begin with `rxc`.

mod suite;

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant as Wall};

use pmd::{Burst, Checksum, Clock, LinkState, Mbuf, OpenOptions, Pool, Port, Queue};
use suite::Wire;
use suite::veth::{Veth, ip};

fn open(url: &str, queues: usize, pool: &Pool) -> (Box<dyn Port>, Vec<Box<dyn Queue>>) {
    let mut port = pmd::open(url, &OpenOptions::default()).unwrap_or_else(|error| panic!("{error}"));
    let queues = port.open_queues(&vec![pool.handle(); queues]).unwrap_or_else(|error| panic!("{error}"));
    (port, queues)
}

/// Polls the queues until `wanted` frames satisfied `keep`, for two seconds at most.
fn gather(
    queues: &mut [Box<dyn Queue>],
    pool: &mut Pool,
    wanted: usize,
    keep: impl Fn(&Mbuf) -> bool,
) -> Vec<Mbuf> {
    let (mut frames, start) = (Vec::new(), Wall::now());
    while frames.len() < wanted && start.elapsed() < Duration::from_secs(2) {
        for queue in queues.iter_mut() {
            let mut burst = Burst::new();
            queue.rx_burst(Clock::now(), pool, &mut burst);
            frames.extend(burst.into_iter().filter(|mbuf| keep(mbuf)));
        }
    }
    frames
}

/// IPv4 and UDP to port 7009, behind a tag or not.
fn is_ours(mbuf: &Mbuf) -> bool {
    mbuf.data().windows(2).any(|pair| pair == 7009u16.to_be_bytes())
}

/// Sends datagrams into the kernel's end `from`, towards an address whose neighbour is given.
struct KernelSender {
    socket: UdpSocket,
    to: SocketAddr,
}

impl KernelSender {
    fn new(interface: &str, net: u8) -> KernelSender {
        ip(&format!("address add 198.18.{net}.1/24 dev {interface}"));
        ip(&format!("neigh add 198.18.{net}.2 lladdr 02:00:00:00:00:02 dev {interface}"));
        let socket = UdpSocket::bind((std::net::Ipv4Addr::new(198, 18, net, 1), 0)).unwrap();
        KernelSender { socket, to: SocketAddr::from(([198, 18, net, 2], 7009)) }
    }

    fn send(&self, bytes: &[u8]) {
        self.socket.send_to(bytes, self.to).unwrap();
    }
}

#[test]
fn af_packet() {
    let veth = Veth::new("rxcpk", "");
    let urls = [veth.url("af_packet", 0, ""), veth.url("af_packet", 1, ",ring=2048")];
    suite::run(&Wire { set_link: Some(veth.set_link(1)), killed: &[0, 1], ..Wire::new(urls) });
}

#[test]
fn af_packet_with_jumbo_frames() {
    let veth = Veth::new("rxcpj", "mtu 9000");
    let urls = [veth.url("af_packet", 0, ""), veth.url("af_packet", 1, "")];
    suite::run(&Wire { set_link: Some(veth.set_link(1)), ..Wire::new(urls) });
}

#[test]
#[ignore = "the suite starts this as a process of its own, and kills it"]
fn the_process_that_is_killed() {
    suite::echo_until_killed();
}

#[test]
fn tap() {
    // The port is one end, the kernel's interface, through af_packet, the other.
    let urls = ["tap:rxctap".to_owned(), "af_packet:rxctap".to_owned()];
    let set_link = Box::new(|up| drop(ip(&format!("link set rxctap {}", if up { "up" } else { "down" }))));
    suite::run(&Wire { set_link: Some(set_link), killed: &[1], ..Wire::new(urls) });
}

#[test]
fn an_unfinished_checksum_is_marked_and_filled_in_on_the_way_out() {
    let veth = Veth::new("rxccs", "");
    let kernel = KernelSender::new(&veth.ends[0], 1);
    let mut pool = suite::pool(256);
    let (_port, mut queues) = open(&veth.url("af_packet", 1, ""), 1, &pool);
    kernel.send(b"unfinished");
    let mut frames = gather(&mut queues, &mut pool, 1, is_ours);
    assert_eq!(frames[0].meta().checksum, Checksum::Partial, "veth leaves it to the device");
    let before = frames[0].data()[40..42].to_vec();
    pmd::checksum::complete(&mut frames[0]);
    let frame = frames[0].data();
    assert_ne!(frame[40..42], before);
    let mut sum = pmd::checksum::Sum::default();
    sum.add(&frame[26..34]);
    sum.add(&[0, 17, 0, 18]);
    sum.add(&frame[34..52]);
    assert_eq!(sum.finish(), 0);
}

/// The kernel takes the outer tag out of whatever it receives, before the frame gets to us.
#[test]
fn vlan_tags_are_put_back() {
    let veth = Veth::new("rxcvl", "");
    let mut pool = suite::pool(256);
    let (_from, mut sends) = open(&veth.url("af_packet", 0, ""), 1, &pool);
    let (_to, mut queues) = open(&veth.url("af_packet", 1, ""), 1, &pool);
    let tags: [&[u8]; 3] = [&[0x81, 0, 0xa0, 42], &[0x88, 0xa8, 0, 7], &[0x88, 0xa8, 0, 7, 0x81, 0, 0, 42]];
    for tags in tags {
        let mut frame = vec![2; 12];
        frame.extend(tags);
        frame.extend([0x88, 0xb5]);
        frame.extend([5; 60]);
        let mut burst: Burst = pool.copy_from(&frame).into_iter().collect();
        assert_eq!(sends[0].tx_burst(Clock::now(), &mut burst), 1);
        let frames = gather(&mut queues, &mut pool, 1, |mbuf| mbuf.data().ends_with(&[5; 60]));
        assert_eq!(frames[0].data(), frame);
    }
}

#[test]
fn several_queues_share_the_flows_and_lose_nothing() {
    let veth = Veth::new("rxcfo", "");
    let kernel = KernelSender::new(&veth.ends[0], 3);
    let mut pool = suite::pool(2048);
    let (port, mut queues) = open(&veth.url("af_packet", 1, ",queues=4"), 4, &pool);
    for flow in 0..64 {
        let socket = UdpSocket::bind("198.18.3.1:0").unwrap();
        for _ in 0..4 {
            socket.send_to(&[flow; 40], kernel.to).unwrap();
        }
    }
    let frames = gather(&mut queues, &mut pool, 256, is_ours);
    assert_eq!(frames.len(), 256);
    let mut used = std::collections::HashMap::new();
    for frame in &frames {
        let flow = frame.data()[42];
        assert_eq!(
            *used.entry(flow).or_insert(frame.meta().queue),
            frame.meta().queue,
            "one flow, one queue"
        );
    }
    let queues_used: std::collections::HashSet<u16> = used.into_values().collect();
    assert!(queues_used.len() > 1, "64 flows on {queues_used:?}");
    assert!(port.stats().rx_frames >= 256);
}

/// What a local TCP sender gives a device that segments for it: one frame of many kilobytes.
#[test]
fn super_frames_arrive_in_segments() {
    let veth = Veth::new("rxcgs", "");
    ip(&format!("link set {} mtu 9000", veth.ends[0]));
    // Our end was opened with MTU 1500, its slots are 2048 bytes: longer frames come by way of the socket.
    let mut pool = suite::pool(64);
    let (_port, mut queues) = open(&veth.url("af_packet", 1, ""), 1, &pool);
    ip(&format!("link set {} mtu 9000", veth.ends[1]));
    let kernel = KernelSender::new(&veth.ends[0], 4);
    let payload: Vec<u8> = (0..8900).map(|i| (i * 7) as u8).collect();
    for _ in 0..3 {
        kernel.send(&payload);
        kernel.send(b"short");
    }
    let frames = gather(&mut queues, &mut pool, 6, is_ours);
    assert_eq!(frames.len(), 6);
    for (i, frame) in frames.iter().enumerate() {
        let bytes: Vec<u8> = frame.segments().flatten().copied().collect();
        assert_eq!(
            bytes[42..],
            if i % 2 == 0 { payload.clone() } else { b"short".to_vec() },
            "in order and whole"
        );
    }
    assert_eq!(frames[0].segment_count(), 5);
    // Without buffers for a long one it is dropped by name, and what follows arrives.
    drop(frames);
    let mut small = suite::pool(2);
    kernel.send(&payload);
    kernel.send(b"after");
    let frames = gather(&mut queues, &mut small, 1, is_ours);
    assert!(frames[0].data().ends_with(b"after"));
    assert_eq!(queues[0].stats().rx_no_buffer, 1);
}

#[test]
fn an_interface_that_goes_away_is_a_link_that_is_down() {
    let veth = Veth::new("rxcgo", "");
    let mut pool = suite::pool(64);
    let (port, mut queues) = open(&veth.url("af_packet", 1, ""), 1, &pool);
    assert_eq!(port.link(), LinkState::Up);
    ip(&format!("link set {} down", veth.ends[1]));
    assert_eq!(port.link(), LinkState::Down);
    for deleted in [false, true] {
        if deleted {
            ip(&format!("link del {}", veth.ends[0]));
        }
        let before = queues[0].stats().drops.get("tx_link_down");
        let mut burst: Burst = (0..3).map(|_| pool.copy_from(&[2; 60]).unwrap()).collect();
        assert_eq!(queues[0].tx_burst(Clock::now(), &mut burst), 3);
        assert_eq!(queues[0].stats().drops.get("tx_link_down") - before, 3);
        assert_eq!(queues[0].rx_burst(Clock::now(), &mut pool, &mut burst), 0);
        assert_eq!(port.link(), LinkState::Down);
    }
    assert_eq!((port.info().mtu, pool.available()), (0, 64));
}

#[test]
fn a_ring_that_nobody_reads_counts_what_it_loses() {
    let veth = Veth::new("rxcrf", "");
    let kernel = KernelSender::new(&veth.ends[0], 5);
    let mut pool = suite::pool(2048);
    let (port, mut queues) = open(&veth.url("af_packet", 1, ",ring=512"), 1, &pool);
    for _ in 0..2000 {
        kernel.send(&[9; 20]);
    }
    let frames = gather(&mut queues, &mut pool, 2000, is_ours);
    let stats = port.stats();
    assert!(!frames.is_empty() && frames.len() < 2000);
    assert!(frames.len() as u64 + stats.drops.get("rx_ring_full") >= 2000, "{} and {stats:?}", frames.len());
}

#[test]
fn a_queue_can_be_slept_on() {
    let veth = Veth::new("rxcwt", "");
    let kernel = KernelSender::new(&veth.ends[0], 6);
    let mut pool = suite::pool(64);
    let (_port, mut queues) = open(&veth.url("af_packet", 1, ""), 1, &pool);
    gather(&mut queues, &mut pool, 1, |_| false);
    use std::os::fd::AsRawFd;
    let mut poll =
        libc::pollfd { fd: queues[0].wait_fd().unwrap().as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one pollfd, alive for the call.
    assert_eq!(unsafe { libc::poll(&mut poll, 1, 0) }, 0, "nothing there");
    kernel.send(b"wake up");
    // SAFETY: as above.
    assert_eq!(unsafe { libc::poll(&mut poll, 1, 1000) }, 1);
    assert_eq!(gather(&mut queues, &mut pool, 1, is_ours).len(), 1);
}

#[test]
fn a_tap_with_several_queues_talks_to_the_kernel() {
    let mut pool = suite::pool(256);
    let (port, mut queues) = open("tap:rxctapq,queues=2,mtu=4000", 2, &pool);
    assert_eq!(port.info().mtu, 4000);
    let kernel = KernelSender::new("rxctapq", 7);
    kernel.send(&[3; 3900]);
    let frames = gather(&mut queues, &mut pool, 1, is_ours);
    assert_eq!((frames[0].len(), frames[0].segment_count()), (3942, 3));
    // And back: the kernel answers an ARP request for its address.
    let mut request = vec![0xff; 6];
    request.extend(port.info().mac.0);
    request.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    request.extend(port.info().mac.0);
    request.extend([198, 18, 7, 2, 0, 0, 0, 0, 0, 0, 198, 18, 7, 1]);
    let mut burst: Burst = pool.copy_from(&request).into_iter().collect();
    assert_eq!(queues[1].tx_burst(Clock::now(), &mut burst), 1);
    let reply = gather(&mut queues, &mut pool, 1, |mbuf| mbuf.data().get(12..14) == Some(&[8, 6]));
    assert_eq!(reply[0].data()[..6], port.info().mac.0);
    assert_ne!(reply[0].data()[6..12], port.info().mac.0, "the kernel's end has an address of its own");
    drop((frames, reply, queues));
    assert_eq!(pool.available(), 256);
    // A child that another test is just starting may hold the files a moment longer.
    let start = Wall::now();
    while port.link() == LinkState::Up && start.elapsed() < Duration::from_secs(2) {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(port.link(), LinkState::Down, "it went with its queues");
}

#[test]
fn errors_name_the_interface() {
    let error = |url: &str| pmd::open(url, &OpenOptions::default()).err().expect(url).to_string();
    assert!(error("af_packet:rxcnone").contains("no interface \"rxcnone\""));
    assert!(error("af_packet:a-name-that-is-far-too-long").contains("no interface"));
    assert!(error("tap:a-name-that-is-far-too-long").contains("no interface"));
    let (_port, _queues) = open("tap:rxctapx", 1, &suite::pool(64));
    assert!(error("tap:rxctapx").contains("taken"));
}
