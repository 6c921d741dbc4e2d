//! What every driver must do, run against two ports joined by a wire; and what of it makes sense for one port alone.
#![allow(dead_code, reason = "each test program uses its part")]

pub mod sleep;
pub mod veth;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant as Wall};

use pmd::{BURST, Burst, Clock, LinkState, Mbuf, OpenOptions, Pool, PoolConfig, Port, Queue, QueueStats};

/// The kind of wire under test.
pub struct Wire {
    /// URLs of the two ends, in the order in which they are opened.
    pub urls: [String; 2],
    /// What is accepted arrives: false where the kernel stands between and may drop.
    pub lossless: bool,
    /// Whether a ring fills up when nobody reads.
    pub bounded: bool,
    /// What is lost when nobody reads is counted by nobody: so with the models of NICs in QEMU.
    pub uncounted: bool,
    /// The driver must not be asked to send while the far end is leaving: DPDK's net_memif.
    pub frail: bool,
    /// Of a packet; bytes. What the devices themselves say otherwise.
    pub mtu: Option<usize>,
    /// Takes the link down, or up again, from outside. Without it the link is down while the far end is closed.
    pub set_link: Option<Box<dyn Fn(bool)>>,
    /// Which ends may be opened by another process, and be killed with it.
    pub killed: &'static [usize],
}

impl Wire {
    /// A wire with the kernel in between, which may drop, and without any of the rest.
    pub fn new(urls: [String; 2]) -> Wire {
        Wire {
            urls,
            lossless: false,
            bounded: false,
            uncounted: false,
            frail: false,
            mtu: None,
            set_link: None,
            killed: &[],
        }
    }

    fn options(&self) -> OpenOptions {
        OpenOptions { mtu: self.mtu, ..OpenOptions::default() }
    }
}

/// One open end with a queue.
struct End {
    port: Box<dyn Port>,
    queue: Box<dyn Queue>,
}

const POOL: usize = 4096;
/// Ethertype for local experiments (IEEE 802): whatever else the kernel sends on a link is not ours.
const ETHERTYPE: [u8; 2] = [0x88, 0xb5];

/// Runs all of it.
pub fn run(wire: &Wire) {
    let mut pool = pool(POOL);
    // What a device leaves hanging is named by the last line.
    let start = Wall::now();
    let mut part = |name: &str, part: &dyn Fn(&mut Pool)| {
        eprintln!("{:9.3} {}: {name}", start.elapsed().as_secs_f64(), wire.urls[0]);
        part(&mut pool);
    };
    part("an idle wire", &|pool| nothing_comes_from_an_idle_wire(wire, pool));
    part("whole and in order", &|pool| frames_arrive_whole_and_in_order(wire, pool));
    part("segments", &|pool| segmented_frames_arrive_whole(wire, pool));
    part("runts and oversize", &|pool| runts_and_oversized_frames_are_named(wire, pool));
    part("a full ring", &|pool| a_full_ring_keeps_what_it_cannot_take(wire, pool));
    part("an empty pool", &|pool| receiving_goes_on_after_the_pool_was_empty(wire, pool));
    part("queues once", &|pool| queues_are_opened_once(wire, pool));
    part("sleep", &|pool| sleep::a_sleeping_owner_is_woken(wire, pool));
    part("the link", &|pool| the_link_is_told(wire, pool));
    for end in wire.killed {
        part("killed", &|pool| an_end_killed_with_its_process_can_be_opened_again(wire, *end, pool));
    }
    part("closed", &|pool| a_closed_end_can_be_opened_again(wire, pool));
    assert_eq!(pool.available(), POOL, "{}: every buffer is home", wire.urls[0]);
}

/// Runs what makes sense on a port that only swallows, or only records.
pub fn run_one_sided(url: &str) {
    let mut pool = pool(POOL);
    let mut port = open_port(url);
    let queue = port.open_queues(&[pool.handle()]).unwrap().pop().unwrap();
    assert!(port.open_queues(&[pool.handle()]).is_err(), "queues are opened once");
    let mut end = End { port, queue };
    let mut segmented = pool.copy_from(&frame(0, 20)).unwrap();
    segmented.chain(pool.copy_from(&frame(1, 900)).unwrap());
    assert!(send(&mut end, segmented));
    let mut bytes_sent = 920;
    for number in 0..500 {
        let mbuf = pool.copy_from(&frame(number, 60 + number)).unwrap();
        bytes_sent += mbuf.len() as u64;
        assert!(send(&mut end, mbuf));
    }
    refuses_runts_and_oversized_frames(&mut end, &mut pool);
    let stats = end.port.stats();
    assert_eq!((stats.tx_frames, stats.tx_bytes, stats.tx_full), (501, bytes_sent, 0));
    assert_eq!(stats, end.queue.stats());
    assert_eq!(pool.available(), POOL, "every buffer is home");
}

fn refuses_runts_and_oversized_frames(end: &mut End, pool: &mut Pool) {
    let too_long = end.port.info().mtu + 23;
    let before = end.queue.stats();
    for len in [0, 1, 13, too_long, too_long + 5000, 60_000] {
        assert!(send(end, pool.copy_from(&frame(1, len)).unwrap()), "taken, and dropped");
    }
    let after = end.queue.stats();
    assert_eq!(after.drops.get("tx_runt") - before.drops.get("tx_runt"), 3);
    assert_eq!(after.drops.get("tx_oversize") - before.drops.get("tx_oversize"), 3);
    assert_eq!(after.tx_frames, before.tx_frames);
}

pub fn pool(buffers: usize) -> Pool {
    PoolConfig::new("conformance", buffers).build().unwrap().claim()
}

fn open_port(url: &str) -> Box<dyn Port> {
    pmd::open(url, &OpenOptions::default()).unwrap_or_else(|error| panic!("{error}"))
}

/// A device that was closed this moment may be taken for a little longer.
fn open_end(wire: &Wire, end: usize, pool: &Pool) -> End {
    let start = Wall::now();
    loop {
        let opened = pmd::open(&wire.urls[end], &wire.options())
            .and_then(|mut port| Ok((port.open_queues(&[pool.handle()])?.remove(0), port)));
        match opened {
            Ok((queue, port)) => return End { port, queue },
            Err(error) if start.elapsed() > Duration::from_secs(3) => panic!("{error}"),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

fn open(wire: &Wire, pool: &mut Pool) -> (End, End) {
    let (mut a, mut b) = (open_end(wire, 0, pool), open_end(wire, 1, pool));
    wait(|| a.port.link() == LinkState::Up && b.port.link() == LinkState::Up);
    for end in [&mut a, &mut b] {
        poll_once(end, pool);
    }
    (a, b)
}

/// DPDK's net_memif shows its buffers to the far end when it is polled, and not before.
fn poll_once(end: &mut End, pool: &mut Pool) {
    end.queue.rx_burst(Clock::now(), pool, &mut Burst::new());
}

/// A frame of `len` bytes whose contents follow from `number`.
fn frame(number: usize, len: usize) -> Vec<u8> {
    let mut bytes = vec![0x02; 12];
    bytes.extend(ETHERTYPE);
    bytes.extend((number as u32).to_be_bytes());
    bytes.extend((0..len.saturating_sub(18)).map(|i| (i * 7 + number * 13) as u8));
    bytes.truncate(len);
    bytes
}

fn bytes(mbuf: &Mbuf) -> Vec<u8> {
    mbuf.segments().flatten().copied().collect()
}

fn wait(mut done: impl FnMut() -> bool) -> bool {
    let end = Wall::now() + Duration::from_secs(3);
    while Wall::now() < end {
        if done() {
            return true;
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    false
}

fn send(end: &mut End, mbuf: Mbuf) -> bool {
    let mut burst = Burst::new();
    burst.push(mbuf);
    end.queue.tx_burst(Clock::now(), &mut burst);
    burst.is_empty()
}

/// Receives our own frames until there are `wanted`, or nothing comes for a second. The far end is polled too: that is
/// what moves frames that a timed wire still holds.
fn receive(end: &mut End, far: &mut End, pool: &mut Pool, wanted: usize) -> Vec<Mbuf> {
    receive_by(end, pool, wanted, |pool| {
        far.queue.rx_burst(Clock::now(), pool, &mut Burst::new());
    })
}

fn receive_by(
    end: &mut End,
    pool: &mut Pool,
    wanted: usize,
    mut poll_far: impl FnMut(&mut Pool),
) -> Vec<Mbuf> {
    let mut frames = Vec::new();
    let mut last = Wall::now();
    while frames.len() < wanted && last.elapsed() < Duration::from_secs(1) {
        poll_far(pool);
        let mut burst = Burst::new();
        let n = end.queue.rx_burst(Clock::now(), pool, &mut burst);
        assert_eq!(n, burst.len());
        if n > 0 {
            last = Wall::now();
        } else {
            std::thread::yield_now();
        }
        frames.extend(burst.into_iter().filter(|mbuf| mbuf.data().get(12..14) == Some(&ETHERTYPE)));
    }
    frames
}

fn nothing_comes_from_an_idle_wire(wire: &Wire, pool: &mut Pool) {
    let (mut a, _b) = open(wire, pool);
    let mut burst = Burst::new();
    for _ in 0..100 {
        a.queue.rx_burst(Clock::now(), pool, &mut burst);
        burst.retain(|mbuf| mbuf.data().get(12..14) == Some(&ETHERTYPE));
    }
    assert!(burst.is_empty());
    assert_eq!(a.queue.tx_burst(Clock::now(), &mut burst), 0, "an empty burst is no work");
}

fn frames_arrive_whole_and_in_order(wire: &Wire, pool: &mut Pool) {
    let (mut a, mut b) = open(wire, pool);
    // From small to the largest.
    let longest = a.port.info().mtu + 14;
    let length = move |number: usize| 60 + number * 11 * (longest / 1000) % (longest - 59);
    for from_first in [true, false] {
        let (from, to, to_url) = match from_first {
            true => (&mut a, &mut b, &wire.urls[1]),
            false => (&mut b, &mut a, &wire.urls[0]),
        };
        let before = [from.queue.stats(), to.queue.stats()];
        let mut bytes_sent = 0;
        for start in (0..640).step_by(BURST) {
            let mut burst: Burst = (start..start + BURST)
                .map(|number| pool.copy_from(&frame(number, length(number))).expect("buffers"))
                .collect();
            bytes_sent += burst.iter().map(Mbuf::len).sum::<usize>() as u64;
            assert_eq!(from.queue.tx_burst(Clock::now(), &mut burst), BURST, "there was room");
            for (i, mbuf) in receive(to, from, pool, BURST).iter().enumerate() {
                assert_eq!(
                    bytes(mbuf),
                    frame(start + i, length(start + i)),
                    "frame {} of {}",
                    start + i,
                    to_url
                );
            }
        }
        let sent = from.queue.stats();
        assert_eq!(sent.tx_frames - before[0].tx_frames, 640);
        assert_eq!(sent.tx_bytes - before[0].tx_bytes, bytes_sent);
        let received = to.queue.stats();
        // The kernel may have had something of its own to say on the link.
        assert!(received.rx_frames - before[1].rx_frames >= 640);
        assert!(received.rx_bytes - before[1].rx_bytes >= bytes_sent);
        assert_eq!(to.port.stats().rx_frames, received.rx_frames, "the port sums its queues");
    }
}

fn segmented_frames_arrive_whole(wire: &Wire, pool: &mut Pool) {
    let (mut a, mut b) = open(wire, pool);
    let whole = frame(77, 1400);
    for cuts in [[1, 700], [13, 14], [14, 1399]] {
        let mut mbuf = pool.copy_from(&whole[..cuts[0]]).unwrap();
        mbuf.chain(pool.copy_from(&whole[cuts[0]..cuts[1]]).unwrap());
        mbuf.chain(pool.copy_from(&whole[cuts[1]..]).unwrap());
        assert_eq!(mbuf.segment_count(), 3);
        assert!(send(&mut a, mbuf));
        // The filter of `receive` wants the header in one piece.
        let mut got = None;
        wait(|| {
            let mut burst = Burst::new();
            a.queue.rx_burst(Clock::now(), pool, &mut burst);
            burst.clear();
            b.queue.rx_burst(Clock::now(), pool, &mut burst);
            got = burst
                .into_iter()
                .map(|mbuf| bytes(&mbuf))
                .find(|bytes| bytes.get(12..14) == Some(&ETHERTYPE));
            got.is_some()
        });
        assert_eq!(got.expect("it arrives"), whole, "cut at {cuts:?}");
    }
}

fn runts_and_oversized_frames_are_named(wire: &Wire, pool: &mut Pool) {
    let (mut a, mut b) = open(wire, pool);
    refuses_runts_and_oversized_frames(&mut a, pool);
    let largest = a.port.info().mtu + 14;
    assert!(send(&mut a, pool.copy_from(&frame(2, largest)).unwrap()));
    let got = receive(&mut b, &mut a, pool, 1);
    assert_eq!(got.len(), 1);
    assert_eq!(bytes(&got[0]), frame(2, largest));
}

fn a_full_ring_keeps_what_it_cannot_take(wire: &Wire, pool: &mut Pool) {
    let (mut a, mut b) = open(wire, pool);
    let (mut accepted, mut filled) = (0, false);
    // The rest of the pool is for what devices have in their rings all the time.
    while accepted < POOL * 5 / 8 && !filled {
        let mut burst: Burst =
            (0..BURST).map(|i| pool.copy_from(&frame(accepted + i, 60)).expect("buffers")).collect();
        let taken = a.queue.tx_burst(Clock::now(), &mut burst);
        assert_eq!(taken + burst.len(), BURST, "taken from the front, the rest stays");
        if let Some(first) = burst.first() {
            assert_eq!(bytes(first), frame(accepted + taken, 60), "what stays begins where taking stopped");
            filled = true;
        }
        accepted += taken;
    }
    assert_eq!(filled, wire.bounded);
    assert_eq!(a.queue.stats().tx_full > 0, filled);
    let received = receive(&mut b, &mut a, pool, accepted);
    let mut stats = b.port.stats();
    stats.merge(&a.port.stats());
    if wire.lossless {
        assert_eq!(received.len(), accepted);
    } else {
        assert!(
            wire.uncounted || received.len() as u64 + lost(&stats) >= accepted as u64,
            "{} of {accepted}: {stats:?}",
            received.len()
        );
    }
    let order: Vec<Vec<u8>> = received.iter().map(bytes).collect();
    if wire.lossless {
        assert!(order.iter().enumerate().all(|(i, bytes)| *bytes == frame(i, 60)));
    }
    drop(received);
    assert!(send(&mut a, pool.copy_from(&frame(5, 60)).unwrap()), "there is room again");
    assert_eq!(receive(&mut b, &mut a, pool, 1).len(), 1);
}

fn lost(stats: &QueueStats) -> u64 {
    stats.rx_no_buffer + stats.drops.total()
}

fn receiving_goes_on_after_the_pool_was_empty(wire: &Wire, pool: &mut Pool) {
    // Room for four frames of one segment.
    let mut small = self::pool(4);
    let (mut a, mut b) = (open_end(wire, 0, pool), open_end(wire, 1, &small));
    wait(|| a.port.link() == LinkState::Up && b.port.link() == LinkState::Up);
    poll_once(&mut b, &mut small);
    let mut burst: Burst = (0..BURST).map(|number| pool.copy_from(&frame(number, 100)).unwrap()).collect();
    assert_eq!(a.queue.tx_burst(Clock::now(), &mut burst), BURST);
    // Each end with the pool that it was opened with.
    // Frames wait in the device, or are lost by name; whenever buffers are free again, receiving goes on.
    let mut received = 0;
    loop {
        let held = receive_by(&mut b, &mut small, 4.min(BURST - received), |_| {
            a.queue.rx_burst(Clock::now(), pool, &mut Burst::new());
        });
        received += held.len();
        if held.is_empty() || received == BURST {
            break;
        }
    }
    let lost = lost(&b.port.stats()) as usize;
    assert!(received > 0 && (wire.uncounted || received + lost >= BURST), "{received} received, {lost} lost");
    assert!(send(&mut a, pool.copy_from(&frame(9, 100)).unwrap()));
    let held = receive_by(&mut b, &mut small, 1, |_| {
        a.queue.rx_burst(Clock::now(), pool, &mut Burst::new());
    });
    assert_eq!(held.len(), 1, "and it works on");
    drop(held);
    drop((a, b));
    assert_eq!(small.available(), 4);
}

fn queues_are_opened_once(wire: &Wire, pool: &mut Pool) {
    let (mut a, _b) = open(wire, pool);
    let again = a.port.open_queues(&[pool.handle()]).err().expect("no second time").to_string();
    assert!(again.contains("opened already"), "{again}");
    drop((a, _b));
    let mut port = open_port(&wire.urls[0]);
    for n in [0, port.info().queues_max + 1] {
        let error = port.open_queues(&vec![pool.handle(); n]).err().expect("no such number").to_string();
        assert!(error.contains(&format!("{n} wanted")), "{error}");
    }
}

fn a_closed_end_can_be_opened_again(wire: &Wire, pool: &mut Pool) {
    let (mut a, b) = open(wire, pool);
    // Frames in flight when the far end closes must not be lost to the pool.
    for number in 0..10 {
        assert!(send(&mut a, pool.copy_from(&frame(number, 200)).unwrap()));
    }
    drop(b);
    assert!(
        !wire.frail || wait(|| a.port.link() == LinkState::Down),
        "{}: the link is still up",
        wire.urls[0]
    );
    for number in 0..10 {
        send(&mut a, pool.copy_from(&frame(number, 200)).unwrap());
    }
    drop(a);
    let (mut a, mut b) = open(wire, pool);
    assert!(receive_now(&mut b, pool).is_empty(), "nothing is left over from before");
    assert!(send(&mut a, pool.copy_from(&frame(3, 200)).unwrap()));
    assert_eq!(bytes(&receive(&mut b, &mut a, pool, 1)[0]), frame(3, 200));
}

fn receive_now(end: &mut End, pool: &mut Pool) -> Vec<Mbuf> {
    let mut burst = Burst::new();
    end.queue.rx_burst(Clock::now(), pool, &mut burst);
    burst.into_iter().filter(|mbuf| mbuf.data().get(12..14) == Some(&ETHERTYPE)).collect()
}

/// Sends and listens until something arrives: a link that has come up takes a moment to carry.
fn must_carry(from: &mut End, to: &mut End, pool: &mut Pool) {
    let carried = wait(|| {
        send(from, pool.copy_from(&frame(4, 200)).unwrap());
        let mut burst = Burst::new();
        from.queue.rx_burst(Clock::now(), pool, &mut burst);
        burst.clear();
        to.queue.rx_burst(Clock::now(), pool, &mut burst);
        burst.iter().any(|mbuf| bytes(mbuf) == frame(4, 200))
    });
    assert!(carried, "{} to {}: nothing arrives", from.port.info().url, to.port.info().url);
}

fn the_link_is_told(wire: &Wire, pool: &mut Pool) {
    let (mut a, b) = open(wire, pool);
    let mut b = Some(b);
    match &wire.set_link {
        Some(set_link) => set_link(false),
        None => drop(b.take()),
    }
    assert!(wait(|| a.port.link() == LinkState::Down), "{}: the link is still up", wire.urls[0]);
    for number in 0..100 {
        // Taken and dropped, or left; never lost, never stuck.
        send(&mut a, pool.copy_from(&frame(number, 60)).unwrap());
    }
    if let Some(set_link) = &wire.set_link {
        set_link(true);
    }
    let mut b = b.unwrap_or_else(|| open_end(wire, 1, pool));
    assert!(wait(|| a.port.link() == LinkState::Up && b.port.link() == LinkState::Up), "the link stays down");
    must_carry(&mut a, &mut b, pool);
    must_carry(&mut b, &mut a, pool);
}

/// The test of every program that a child process of the suite runs, and its end's URL.
const CHILD: (&str, &str) = ("the_process_that_is_killed", "CONFORMANCE_URL");

/// In the child: opens its end, says so, and sends everything back until it is killed. It ends by itself should nobody do that.
pub fn echo_until_killed() {
    let url = std::env::var(CHILD.1).expect("the suite starts this");
    let mut pool = pool(POOL);
    let wire = Wire::new([url.clone(), url]);
    let mut end = open_end(&wire, 0, &pool);
    println!("open");
    let start = Wall::now();
    let mut burst = Burst::new();
    while start.elapsed() < Duration::from_secs(20) {
        end.queue.rx_burst(Clock::now(), &mut pool, &mut burst);
        end.queue.tx_burst(Clock::now(), &mut burst);
    }
}

fn start_child(url: &str) -> Child {
    let program = std::env::current_exe().unwrap();
    let arguments = ["--exact", CHILD.0, "--ignored", "--nocapture"];
    let mut child =
        Command::new(program).args(arguments).env(CHILD.1, url).stdout(Stdio::piped()).spawn().unwrap();
    let told = BufReader::new(child.stdout.take().unwrap());
    assert!(told.lines().map_while(Result::ok).any(|line| line == "open"), "the child opens {url}");
    child
}

fn an_end_killed_with_its_process_can_be_opened_again(wire: &Wire, theirs: usize, pool: &mut Pool) {
    let ours = 1 - theirs;
    let (mut a, mut child) = match theirs {
        0 => {
            let child = start_child(&wire.urls[0]);
            (open_end(wire, ours, pool), child)
        }
        _ => (open_end(wire, ours, pool), start_child(&wire.urls[1])),
    };
    // In full traffic, with frames in the rings of both directions.
    let mut returned = 0;
    wait(|| {
        let mut burst: Burst = (0..BURST).filter_map(|number| pool.copy_from(&frame(number, 300))).collect();
        a.queue.tx_burst(Clock::now(), &mut burst);
        burst.clear();
        a.queue.rx_burst(Clock::now(), pool, &mut burst);
        returned += burst.iter().filter(|mbuf| mbuf.data().get(12..14) == Some(&ETHERTYPE)).count();
        returned > 500
    });
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(returned > 500, "{} of {} came back", returned, wire.urls[theirs]);
    for number in 0..100 {
        send(&mut a, pool.copy_from(&frame(number, 60)).unwrap());
    }
    let mut b = open_end(wire, theirs, pool);
    assert!(wait(|| a.port.link() == LinkState::Up && b.port.link() == LinkState::Up), "the link stays down");
    must_carry(&mut a, &mut b, pool);
    must_carry(&mut b, &mut a, pool);
}
