//! `af_xdp:` on veth pairs, under the suite that all drivers pass, and what is its own: steering, the kernel beside it, taking a port
//! over. Run as root in a network namespace of your own:
//!
//! `unshare -n cargo test -p pmd --features privileged-tests --test af_xdp -- --test-threads=1`
//!
//! Interfaces are made and removed here; their names begin with `rxd`.

mod steering;
#[path = "../suite/mod.rs"]
mod suite;
mod takeover;

use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant as Wall};

use pmd::{Burst, Clock, LinkState, Mbuf, OpenOptions, Pool, PoolConfig, Port, Queue, STRIDE};
use suite::Wire;
use suite::veth::{Veth, ip, run};

/// A pair with `af_xdp:` on its ends.
struct Pair(Veth);

impl std::ops::Deref for Pair {
    type Target = Veth;

    fn deref(&self) -> &Veth {
        &self.0
    }
}

impl Pair {
    fn new(tag: &str, options: &str) -> Pair {
        Pair(Veth::new(&format!("rxd{tag}"), options))
    }

    fn url(&self, end: usize, options: &str) -> String {
        self.0.url("af_xdp", end, options)
    }

    fn wire(&self, options: &str) -> Wire {
        let urls = [self.url(0, options), self.url(1, options)];
        Wire { set_link: Some(self.set_link(1)), ..Wire::new(urls) }
    }

    fn is_attached(&self, end: usize) -> bool {
        ip(&format!("link show {}", self.ends[end])).contains("prog/xdp")
    }
}

type Opened = (Box<dyn Port>, Vec<Box<dyn Queue>>);

fn open_for(url: &str, addresses: &[&str], pools: &[&Pool]) -> Opened {
    let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
    let options = OpenOptions { addresses, queues: pools.len(), ..OpenOptions::default() };
    let mut port = pmd::open(url, &options).unwrap_or_else(|error| panic!("{error}"));
    let handles: Vec<_> = pools.iter().map(|pool| pool.handle()).collect();
    let queues = port.open_queues(&handles).unwrap_or_else(|error| panic!("{error}"));
    (port, queues)
}

fn open(url: &str, pool: &Pool) -> (Box<dyn Port>, Box<dyn Queue>) {
    let (port, mut queues) = open_for(url, &[], &[pool]);
    (port, queues.remove(0))
}

fn refusal(url: &str, options: &OpenOptions) -> String {
    pmd::open(url, options).err().unwrap_or_else(|| panic!("{url} was opened")).to_string()
}

/// Polls until `wanted` frames satisfied `keep`, for `patience` at most.
fn gather_for(
    queue: &mut dyn Queue,
    pool: &mut Pool,
    wanted: usize,
    patience: Duration,
    keep: impl Fn(&[u8]) -> bool,
) -> Vec<Vec<u8>> {
    let (mut frames, start) = (Vec::new(), Wall::now());
    while frames.len() < wanted && start.elapsed() < patience {
        let mut burst = Burst::new();
        queue.rx_burst(Clock::now(), pool, &mut burst);
        frames.extend(burst.iter().map(bytes).filter(|frame| keep(frame)));
    }
    frames
}

fn gather(queue: &mut dyn Queue, pool: &mut Pool, wanted: usize) -> Vec<Vec<u8>> {
    gather_for(queue, pool, wanted, Duration::from_secs(2), |_| true)
}

fn bytes(mbuf: &Mbuf) -> Vec<u8> {
    mbuf.segments().flatten().copied().collect()
}

fn send(queue: &mut dyn Queue, pool: &mut Pool, frame: &[u8]) {
    let mut burst: Burst = pool.copy_from(frame).into_iter().collect();
    assert_eq!(queue.tx_burst(Clock::now(), &mut burst), 1, "it is taken");
}

/// One test of this program, in a process of its own; it says "ready" before anything else happens.
fn child(test: &str, url: &str, stdin: Stdio) -> Child {
    let arguments = ["--exact", test, "--ignored", "--nocapture"];
    let mut child = Command::new(std::env::current_exe().unwrap());
    let child = child.args(arguments).env("CONFORMANCE_URL", url).stdin(stdin).stdout(Stdio::piped());
    child.spawn().unwrap()
}

fn wait_for_line(child: &mut Child, line: &str) -> bool {
    let told = BufReader::new(child.stdout.as_mut().unwrap());
    told.lines().map_while(Result::ok).any(|said| said == line)
}

// The suite.

#[test]
fn native() {
    let veth = Pair::new("nat", "");
    suite::run(&Wire { killed: &[0, 1], ..veth.wire("") });
}

#[test]
fn skb_mode() {
    let veth = Pair::new("skb", "");
    suite::run(&Wire { killed: &[1], ..veth.wire(",mode=skb,ring=512") });
}

#[test]
fn jumbo_frames() {
    let veth = Pair::new("jum", "mtu 9000 ");
    suite::run(&veth.wire(""));
}

#[test]
fn against_af_packet() {
    let veth = Pair::new("pkt", "");
    // A small ring: the suite holds nearly all buffers of the pool that both ends share.
    let urls = [veth.url(0, ",ring=64"), format!("af_packet:{}", veth.ends[1])];
    suite::run(&Wire { set_link: Some(veth.set_link(1)), ..Wire::new(urls) });
}

#[test]
#[ignore = "run by the suite, in a process that is killed"]
fn the_process_that_is_killed() {
    suite::echo_until_killed();
}

// What it says of itself.

#[test]
fn notes_say_what_was_chosen_and_why() {
    let veth = Pair::new("not", "");
    let pool = suite::pool(256);
    let (port, queue) = open(&veth.url(0, ",busy_poll=20"), &pool);
    let notes = port.info().notes.join("\n");
    assert!(notes.contains("native mode"), "{notes}");
    assert!(notes.contains("no zero copy (Operation not supported"), "a veth has none: {notes}");
    assert!(notes.contains("busy poll: on"), "{notes}");
    assert!(ip(&format!("link show {}", veth.ends[0])).contains("xdp"), "xdp, and not xdpgeneric");
    drop((port, queue));
    let (port, _queue) = open(&veth.url(0, ",mode=skb"), &pool);
    assert!(port.info().notes.join("\n").contains("SKB mode (as asked for)"), "{:?}", port.info().notes);
    drop((port, _queue));
    // A driver that has no XDP of its own: the reason for SKB mode is told.
    ip("link add rxdbridge type bridge");
    ip("link set rxdbridge up");
    let (port, _queue) = open("af_xdp:rxdbridge", &pool);
    let notes = port.info().notes.join("\n");
    ip("link del rxdbridge");
    assert!(notes.contains("SKB mode (native mode refused: Operation not supported"), "{notes}");
}

#[test]
fn errors_name_the_mend() {
    let veth = Pair::new("err", "");
    let pool = suite::pool(256);
    let none = OpenOptions::default();
    assert!(refusal("af_xdp:rxdnone", &none).contains("no interface \"rxdnone\""));
    assert!(refusal(&veth.url(0, ",ring=100"), &none).contains("power of two"));
    assert!(refusal(&veth.url(0, ",mode=fast"), &none).contains("write native or skb"));
    assert!(refusal("af_xdp:rxd,from=77", &none).contains("from=77 is no open file"));
    let mut port = pmd::open(&veth.url(0, ""), &none).unwrap();
    let two = port.open_queues(&[pool.handle(), pool.handle()]).err().unwrap().to_string();
    assert!(two.contains("2 wanted") && two.contains("ethtool -L"), "{two}");
    // The program is attached already.
    let taken = refusal(&veth.url(0, ""), &none);
    assert!(taken.contains("is taken: another XDP program"), "{taken}");
}

#[test]
fn an_address_of_the_kernels_is_refused() {
    let veth = Pair::new("adr", "");
    ip(&format!("address add 198.18.20.1/24 dev {}", veth.ends[0]));
    ip(&format!("address add fd18:20::1/64 dev {} nodad", veth.ends[1]));
    for address in ["198.18.20.1", "fd18:20::1"] {
        let addresses: Vec<IpAddr> = vec!["198.18.20.7".parse().unwrap(), address.parse().unwrap()];
        let told = refusal(&veth.url(0, ""), &OpenOptions { addresses, ..OpenOptions::default() });
        assert!(
            told.starts_with(address) && told.contains(&format!("ip address del {address} dev rxdadr")),
            "{told}"
        );
    }
    assert!(!veth.is_attached(0), "what was refused left nothing behind");
}

#[test]
fn a_killed_process_leaves_nothing_attached() {
    let veth = Pair::new("kl", "");
    for _ in 0..3 {
        let mut owner = child("the_process_that_is_killed", &veth.url(0, ""), Stdio::null());
        assert!(wait_for_line(&mut owner, "open"));
        assert!(veth.is_attached(0));
        owner.kill().unwrap();
        owner.wait().unwrap();
        assert!(!veth.is_attached(0), "the program went with the process");
        // At once, although the queue may still be let go of.
        let mut pool = suite::pool(256);
        let (_port, mut queue) = open(&veth.url(0, ""), &pool);
        send(&mut *queue, &mut pool, &[2; 60]);
    }
    assert!(!veth.is_attached(0), "nor does an orderly end leave anything");
}

#[test]
fn one_that_only_sends_keeps_its_fill_ring_full() {
    let veth = Pair::new("fi", "");
    let mut pools = [suite::pool(2048), suite::pool(2048)];
    let [pool, far_pool] = &mut pools;
    let (_port, mut queue) = open(&veth.url(0, ",ring=256"), pool);
    let (_far, mut far) = open(&veth.url(1, ",ring=256"), far_pool);
    // It has 256 buffers to receive into. They fill up while it only sends, and it takes nothing.
    for round in 0..20u8 {
        for _ in 0..8 {
            send(&mut *far, far_pool, &[round; 60]);
            send(&mut *queue, pool, &[0x55; 60]);
        }
    }
    let stats = queue.stats();
    assert_eq!((stats.drops.total(), stats.tx_frames), (0, 160), "{stats:?}");
    assert_eq!(gather(&mut *queue, pool, 160).len(), 160, "all that came meanwhile");
    // Empty the rings, then let buffers come back only through sending: the ring is filled anew by that alone.
    let mut held = Vec::new();
    while let Some(mbuf) = pool.alloc() {
        held.push(mbuf);
    }
    for _ in 0..256 {
        send(&mut *far, far_pool, &[7; 60]);
    }
    assert_eq!(gather(&mut *queue, pool, 256).len(), 256, "what the ring had");
    drop(held);
    send(&mut *queue, pool, &[0x55; 60]);
    for _ in 0..256 {
        send(&mut *far, far_pool, &[8; 60]);
    }
    let got = gather(&mut *queue, pool, 256);
    assert_eq!(got.len(), 256, "the one burst that was sent filled it: {:?}", queue.stats());
    drop((queue, far));
    assert_eq!((pool.available(), far_pool.available()), (2048, 2048));
}

#[test]
fn what_nobody_reads_is_counted() {
    let veth = Pair::new("rf", "");
    let mut pools = [suite::pool(1024), suite::pool(1024)];
    let [pool, far_pool] = &mut pools;
    let (port, mut queue) = open(&veth.url(0, ",ring=128"), pool);
    let (_far, mut far) = open(&veth.url(1, ""), far_pool);
    for _ in 0..500 {
        send(&mut *far, far_pool, &[9; 60]);
    }
    let got = gather_for(&mut *queue, pool, 500, Duration::from_millis(200), |_| true).len() as u64;
    let stats = port.stats();
    assert_eq!(got, 128);
    assert_eq!(got + stats.drops.get("rx_ring_full") + stats.drops.get("rx_fill_empty"), 500, "{stats:?}");
    drop(queue);
    assert_eq!(port.stats(), stats, "the figures outlive the socket");
    assert_eq!(pool.available(), 1024);
}

#[test]
fn frames_of_other_pools_are_copied_and_counted() {
    let veth = Pair::new("cp", "");
    let mut pools = [suite::pool(256), suite::pool(256), suite::pool(256)];
    let [pool, far_pool, strange] = &mut pools;
    let (_port, mut queue) = open(&veth.url(0, ""), pool);
    let (_far, mut far) = open(&veth.url(1, ""), far_pool);
    let frame: Vec<u8> = (0..1500).map(|i| i as u8).collect();
    send(&mut *queue, strange, &frame);
    assert!(gather(&mut *far, far_pool, 1) == vec![frame.clone()]);
    assert_eq!(strange.available(), 256, "its own buffer is home at once");
    // Ours is sent as it is; of two pools, or in segments where the socket takes none, it is copied.
    send(&mut *queue, pool, &frame);
    assert_eq!(queue.stats().tx_copied, 1);
    let mut mixed = pool.copy_from(&frame[..700]).unwrap();
    mixed.chain(strange.copy_from(&frame[700..]).unwrap());
    let mut burst: Burst = Some(mixed).into_iter().collect();
    assert_eq!(queue.tx_burst(Clock::now(), &mut burst), 1);
    assert_eq!(gather(&mut *far, far_pool, 2), [frame.clone(), frame.clone()]);
    assert_eq!(queue.stats().tx_copied, 2);
    // Without a buffer for the copy it is dropped by name. What was sent is home first.
    queue.rx_burst(Clock::now(), pool, &mut burst);
    let held: Vec<Mbuf> = std::iter::from_fn(|| pool.alloc()).collect();
    send(&mut *queue, strange, &frame);
    assert_eq!(queue.stats().drops.get("tx_no_buffer"), 1);
    drop((held, queue));
    assert_eq!((pool.available(), strange.available()), (256, 256));
}

#[test]
fn what_is_sent_to_queue_q_arrives_on_queue_q() {
    const QUEUES: usize = 4;
    let veth = Pair::new("mq", "numrxqueues 4 numtxqueues 4 ");
    for end in &veth.ends {
        run("ethtool", &format!("-L {end} rx {QUEUES} tx {QUEUES}"));
    }
    let mut pools: Vec<Pool> = (0..2 * QUEUES).map(|_| suite::pool(512)).collect();
    let [left, right] = [&pools[..QUEUES], &pools[QUEUES..]];
    let (a, mut a_queues) = open_for(&veth.url(0, ""), &[], &left.iter().collect::<Vec<_>>());
    let (b, mut b_queues) = open_for(&veth.url(1, ""), &[], &right.iter().collect::<Vec<_>>());
    assert_eq!((a.info().queues_max, a_queues.len()), (QUEUES, QUEUES));
    for round in 0..16u8 {
        for (number, queue) in a_queues.iter_mut().enumerate() {
            send(
                &mut **queue,
                &mut pools[number],
                &[round, number as u8, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 0x88, 0xb5],
            );
        }
    }
    for (number, queue) in b_queues.iter_mut().enumerate() {
        let frames = gather(&mut **queue, &mut pools[QUEUES + number], 16);
        assert_eq!(frames.len(), 16);
        assert!(frames.iter().all(|frame| frame[1] == number as u8), "queue {number} received {frames:?}");
    }
    assert_eq!((a.stats().tx_frames, b.stats().rx_frames), (64, 64));
    drop((a_queues, b_queues));
    assert!(pools.iter_mut().all(|pool| pool.available() == 512));
    // Fewer queues than the interface has: it is said what becomes of the others.
    drop((a, b));
    let (port, _queues) = open_for(&veth.url(0, ""), &[], &[&pools[0]]);
    assert!(
        port.info().notes.iter().any(|note| note.starts_with("1 of 4 receive queues")),
        "{:?}",
        port.info().notes
    );
}

#[test]
fn a_queue_can_be_slept_on() {
    let veth = Pair::new("sl", "");
    let mut pools = [suite::pool(256), suite::pool(256)];
    let [pool, far_pool] = &mut pools;
    let (_port, mut queue) = open(&veth.url(0, ""), pool);
    let (_far, mut far) = open(&veth.url(1, ""), far_pool);
    let mut poll =
        libc::pollfd { fd: queue.wait_fd().unwrap().as_raw_fd(), events: libc::POLLIN, revents: 0 };
    assert!(queue.arm());
    // SAFETY: one pollfd, alive for the call.
    assert_eq!(unsafe { libc::poll(&mut poll, 1, 0) }, 0, "nothing there");
    send(&mut *far, far_pool, &[1; 60]);
    // SAFETY: as above.
    assert_eq!(unsafe { libc::poll(&mut poll, 1, 1000) }, 1);
    queue.disarm();
    assert_eq!(gather(&mut *queue, pool, 1).len(), 1);
}

#[test]
fn an_interface_that_goes_away_is_a_link_that_is_down() {
    let veth = Pair::new("go", "");
    let mut pool = suite::pool(256);
    let (port, mut queue) = open(&veth.url(1, ""), &pool);
    assert_eq!(port.link(), LinkState::Up);
    ip(&format!("link set {} down", veth.ends[1]));
    for deleted in [false, true] {
        if deleted {
            ip(&format!("link del {}", veth.ends[0]));
        }
        assert_eq!(port.link(), LinkState::Down);
        let before = queue.stats().drops.get("tx_link_down");
        let mut burst: Burst = (0..3).map(|_| pool.copy_from(&[2; 60]).unwrap()).collect();
        assert_eq!(queue.tx_burst(Clock::now(), &mut burst), 3);
        assert_eq!(queue.stats().drops.get("tx_link_down") - before, 3);
        assert_eq!(queue.rx_burst(Clock::now(), &mut pool, &mut burst), 0);
    }
    drop(queue);
    assert_eq!((port.info().mtu, pool.available()), (0, 256));
}
