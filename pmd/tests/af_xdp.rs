//! `af_xdp:` on veth pairs, under the suite that all drivers pass, and what is its own: steering, the kernel beside it, taking a port
//! over. Run as root in a network namespace of your own:
//!
//! `unshare -n cargo test -p pmd --features privileged-tests --test af_xdp -- --test-threads=1`
//!
//! Interfaces are made and removed here; their names begin with `rxd`.

mod suite;

use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant as Wall};

use pmd::{Burst, Clock, LinkState, Mbuf, OpenOptions, Pool, PoolConfig, Port, Queue, STRIDE};
use suite::Wire;

fn run(program: &str, arguments: &str) -> String {
    let output = Command::new(program).args(arguments.split(' ')).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{program} {arguments}: {said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    said
}

fn ip(arguments: &str) -> String {
    run("ip", arguments)
}

/// A veth pair that is removed at the end.
struct Veth {
    ends: [String; 2],
}

impl Veth {
    fn new(tag: &str, options: &str) -> Veth {
        let ends = ["a", "b"].map(|end| format!("rxd{tag}{end}"));
        // A run that was killed may have left it.
        let _ = Command::new("ip").args(["link", "del", &ends[0]]).output();
        ip(&format!("link add {} {options}type veth peer name {} {}", ends[0], ends[1], options.trim_end())
            .trim_end()
            .replace("  ", " "));
        for end in &ends {
            // Without router solicitations and the like, the wire is idle.
            ip(&format!("link set {end} addrgenmode none up"));
        }
        Veth { ends }
    }

    fn url(&self, end: usize, options: &str) -> String {
        format!("af_xdp:{}{options}", self.ends[end])
    }

    fn set_link(&self, end: usize) -> Box<dyn Fn(bool)> {
        let end = self.ends[end].clone();
        Box::new(move |up| drop(ip(&format!("link set {end} {}", if up { "up" } else { "down" }))))
    }

    fn wire(&self, options: &str) -> Wire {
        let urls = [self.url(0, options), self.url(1, options)];
        Wire { set_link: Some(self.set_link(1)), ..Wire::new(urls) }
    }

    fn is_attached(&self, end: usize) -> bool {
        ip(&format!("link show {}", self.ends[end])).contains("prog/xdp")
    }
}

impl Drop for Veth {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["link", "del", &self.ends[0]]).output();
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
    let veth = Veth::new("nat", "");
    suite::run(&Wire { killed: &[0, 1], ..veth.wire("") });
}

#[test]
fn skb_mode() {
    let veth = Veth::new("skb", "");
    suite::run(&Wire { killed: &[1], ..veth.wire(",mode=skb,ring=512") });
}

#[test]
fn jumbo_frames() {
    let veth = Veth::new("jum", "mtu 9000 ");
    suite::run(&veth.wire(""));
}

#[test]
fn against_af_packet() {
    let veth = Veth::new("pkt", "");
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
    let veth = Veth::new("not", "");
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
    let veth = Veth::new("err", "");
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
    let veth = Veth::new("adr", "");
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

// Steering.

const OURS4: [u8; 4] = [198, 18, 30, 10];
const OURS6: [u8; 16] = [0xfd, 0x18, 0, 0x30, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x12, 0x34, 0x56];

/// Ethernet with these tags, then `rest`; padded to 60 bytes like on a wire when `pad`.
fn ethernet(tags: &[u16], ethertype: u16, rest: &[u8], pad: bool) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend([2, 0, 0, 0, 0, 9]);
    for tpid in tags {
        frame.extend(tpid.to_be_bytes());
        frame.extend([0, 42]);
    }
    frame.extend(ethertype.to_be_bytes());
    frame.extend(rest);
    if pad && frame.len() < 60 {
        frame.resize(60, 0);
    }
    frame
}

fn ipv4(to: [u8; 4]) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 20, 0, 0, 0, 0, 64, 253, 0, 0, 198, 18, 30, 99];
    packet.extend(to);
    packet
}

fn arp(operation: u8, target: [u8; 4]) -> Vec<u8> {
    let mut packet =
        vec![0, 1, 8, 0, 6, 4, 0, operation, 2, 0, 0, 0, 0, 9, 198, 18, 30, 99, 0, 0, 0, 0, 0, 0];
    packet.extend(target);
    packet
}

fn ipv6(to: [u8; 16], next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, payload.len() as u8, next, 255];
    packet.extend([0xfd, 0x18, 0, 0x30, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x99]);
    packet.extend(to);
    packet.extend(payload);
    packet
}

fn neighbour(kind: u8, target: [u8; 16]) -> Vec<u8> {
    [&[kind, 0, 0, 0, 0, 0, 0, 0], &target[..]].concat()
}

/// Frames, and whether they are the engine's. What is no frame at all the kernel drops before anybody sees it.
fn steered() -> Vec<(&'static str, bool, Vec<u8>)> {
    let solicited = |target: [u8; 16]| {
        [&[0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff], &target[13..]].concat().try_into().unwrap()
    };
    let other4 = [198, 18, 30, 11];
    // In the same solicited-node group as ours.
    let other6 = {
        let mut other = OURS6;
        other[7] = 1;
        other
    };
    let solicit = |target| ipv6(solicited(target), 58, &neighbour(135, target));
    let all_nodes = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let ours6 = ipv6(OURS6, 17, &[0; 8]);
    vec![
        ("IPv4 to us", true, ethernet(&[], 0x0800, &ipv4(OURS4), true)),
        ("IPv4 to us, no padding", true, ethernet(&[], 0x0800, &ipv4(OURS4), false)),
        ("IPv4 to another", false, ethernet(&[], 0x0800, &ipv4(other4), true)),
        ("IPv4 broadcast", false, ethernet(&[], 0x0800, &ipv4([255; 4]), true)),
        ("IPv4 cut before its last byte", false, ethernet(&[], 0x0800, &ipv4(OURS4)[..19], false)),
        ("IPv4 to us, one tag", true, ethernet(&[0x8100], 0x0800, &ipv4(OURS4), true)),
        ("IPv4 to us, two tags", true, ethernet(&[0x88a8, 0x8100], 0x0800, &ipv4(OURS4), true)),
        ("IPv4 to us, three tags", false, ethernet(&[0x88a8, 0x8100, 0x8100], 0x0800, &ipv4(OURS4), true)),
        ("IPv4 to another, one tag", false, ethernet(&[0x8100], 0x0800, &ipv4(other4), true)),
        ("a tag and two bytes", false, ethernet(&[0x8100], 0x0800, &[0x45, 0], false)),
        ("ARP request for us", true, ethernet(&[], 0x0806, &arp(1, OURS4), true)),
        ("ARP reply to us", true, ethernet(&[], 0x0806, &arp(2, OURS4), true)),
        ("ARP request for us, tagged", true, ethernet(&[0x8100], 0x0806, &arp(1, OURS4), true)),
        ("ARP request for another", false, ethernet(&[], 0x0806, &arp(1, other4), true)),
        ("ARP cut short", false, ethernet(&[], 0x0806, &arp(1, OURS4)[..27], false)),
        ("IPv6 to us", true, ethernet(&[], 0x86dd, &ours6, true)),
        ("IPv6 to us, tagged", true, ethernet(&[0x8100], 0x86dd, &ours6, true)),
        ("IPv6 to another", false, ethernet(&[], 0x86dd, &ipv6(other6, 17, &[0; 8]), true)),
        ("IPv6 cut short", false, ethernet(&[], 0x86dd, &ours6[..39], false)),
        ("NS for us", true, ethernet(&[], 0x86dd, &solicit(OURS6), true)),
        ("NS for us, tagged twice", true, ethernet(&[0x88a8, 0x8100], 0x86dd, &solicit(OURS6), true)),
        ("NS for another in our group", false, ethernet(&[], 0x86dd, &solicit(other6), true)),
        ("NS for us, unicast", true, ethernet(&[], 0x86dd, &ipv6(OURS6, 58, &neighbour(135, OURS6)), true)),
        ("NS cut short", false, ethernet(&[], 0x86dd, &solicit(OURS6)[..63], false)),
        ("NA to us", true, ethernet(&[], 0x86dd, &ipv6(OURS6, 58, &neighbour(136, other6)), true)),
        ("NA to all nodes", false, ethernet(&[], 0x86dd, &ipv6(all_nodes, 58, &neighbour(136, OURS6)), true)),
        (
            "UDP to all nodes",
            false,
            ethernet(&[], 0x86dd, &ipv6(all_nodes, 17, &neighbour(135, OURS6)), true),
        ),
        ("an ethertype of its own", false, ethernet(&[], 0x88b5, &ipv4(OURS4), true)),
        ("14 bytes", false, ethernet(&[], 0x0800, &[], false)),
    ]
}

#[test]
fn frames_are_the_engines_by_address_and_target_and_the_kernels_otherwise() {
    for mode in ["native", "skb"] {
        let veth = Veth::new("st", "");
        let mut pools = [suite::pool(512), suite::pool(512), suite::pool(512)];
        let [pool, kernel_pool, sender_pool] = &mut pools;
        // What passes, the kernel's own sockets see: one of af_packet on the same interface.
        let (_engine, mut queues) = open_for(
            &veth.url(1, &format!(",mode={mode}")),
            &["198.18.30.10", "fd18:30::12:3456", "198.18.30.200"],
            &[&*pool],
        );
        let (_kernel, mut kernel) = open(&format!("af_packet:{}", veth.ends[1]), kernel_pool);
        let (_sender, mut sender) = open(&format!("af_packet:{}", veth.ends[0]), sender_pool);
        for (what, ours, frame) in steered() {
            send(&mut *sender, sender_pool, &frame);
            let (rightly, wrongly): (&mut dyn Queue, &mut dyn Queue) =
                if ours { (&mut *queues[0], &mut *kernel) } else { (&mut *kernel, &mut *queues[0]) };
            let is_it = |got: &[u8]| got == frame;
            let got = gather_for(rightly, pool, 1, Duration::from_secs(2), is_it);
            assert_eq!(got.len(), 1, "{mode}: {what} goes to the {}", if ours { "engine" } else { "kernel" });
            let strays = gather_for(wrongly, pool, 1, Duration::from_millis(5), is_it);
            assert!(strays.is_empty(), "{mode}: {what} goes to one alone");
        }
    }
}

/// Another network namespace, by a process in it.
struct Elsewhere(Child);

impl Elsewhere {
    fn new() -> Elsewhere {
        let mut child = Command::new("unshare")
            .args(["--net", "sh", "-c", "echo there; exec sleep 60"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        assert!(wait_for_line(&mut child, "there"));
        Elsewhere(child)
    }

    fn run(&self, words: &str) -> String {
        run("nsenter", &format!("-t {} -n {words}", self.0.id()))
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_kernel_goes_on_using_the_interface() {
    let veth = Veth::new("co", "");
    let far = Elsewhere::new();
    ip(&format!("address add 198.18.40.1/24 dev {}", veth.ends[0]));
    ip(&format!("address add fd18:40::1/64 dev {} nodad", veth.ends[0]));
    ip(&format!("link set {} netns {}", veth.ends[1], far.0.id()));
    far.run(&format!("ip address add 198.18.40.2/24 dev {}", veth.ends[1]));
    far.run(&format!("ip address add fd18:40::2/64 dev {} nodad", veth.ends[1]));
    far.run(&format!("ip link set {} up", veth.ends[1]));
    far.run(&format!("ip neigh add 198.18.40.10 lladdr 02:00:00:00:00:10 dev {}", veth.ends[1]));
    let mut pool = suite::pool(512);
    let (port, mut queues) = open_for(&veth.url(0, ""), &["198.18.40.10", "fd18:40::10"], &[&pool]);
    // The kernel's own: in both directions, both families, with ARP and neighbour discovery.
    for (from_far, words) in [
        (true, "ping -c 5 -i 0.05 -W 2 198.18.40.1"),
        (true, "ping -6 -c 5 -i 0.05 -W 2 fd18:40::1"),
        (false, "ping -c 5 -i 0.05 -W 2 198.18.40.2"),
    ] {
        let said = if from_far { far.run(words) } else { run("ping", words.strip_prefix("ping ").unwrap()) };
        assert!(said.contains("5 received"), "{words}: {said}");
    }
    assert_eq!(port.stats().rx_frames, 0, "none of that was the engine's");
    // The engine's, on the same interface.
    let ping = Command::new("nsenter")
        .args([
            "-t",
            &far.0.id().to_string(),
            "-n",
            "ping",
            "-c",
            "3",
            "-i",
            "0.05",
            "-W",
            "1",
            "198.18.40.10",
        ])
        .stdout(Stdio::null())
        .spawn();
    let frames = gather_for(&mut *queues[0], &mut pool, 3, Duration::from_secs(3), |frame| {
        frame[30..34] == [198, 18, 40, 10]
    });
    ping.unwrap().wait().unwrap();
    assert_eq!(frames.len(), 3, "and the kernel saw none of these, or it would have complained");
}

// Lifetime.

#[test]
fn a_killed_process_leaves_nothing_attached() {
    let veth = Veth::new("kl", "");
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
    let veth = Veth::new("fi", "");
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
    let veth = Veth::new("rf", "");
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
    let veth = Veth::new("cp", "");
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
    let veth = Veth::new("mq", "numrxqueues 4 numtxqueues 4 ");
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
    let veth = Veth::new("sl", "");
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
    let veth = Veth::new("go", "");
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

// Without privileges.

/// Gives up everything that root has, for good.
fn become_nobody() {
    // SAFETY: plain system calls on this process, which has one thread that matters.
    unsafe {
        assert_eq!(libc::setgroups(0, std::ptr::null()), 0);
        assert_eq!(libc::setresgid(65534, 65534, 65534), 0);
        assert_eq!(libc::setresuid(65534, 65534, 65534), 0);
    }
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
    assert!(status.contains("CapEff:\t0000000000000000"), "{status}");
}

#[test]
#[ignore = "run by the test below, in a process of its own"]
fn the_process_without_privileges() {
    become_nobody();
    let url = std::env::var("CONFORMANCE_URL").unwrap();
    let own = url.split(',').next().unwrap();
    let told = refusal(own, &OpenOptions::default());
    assert!(told.contains("CAP_NET_RAW") && told.contains("setcap"), "{told}");
    let mut port = pmd::open(&url, &OpenOptions::default()).unwrap_or_else(|error| panic!("{error}"));
    let regions = port.memory();
    assert!(port.memory().is_empty(), "handed out once");
    let mut pools: Vec<Pool> = regions
        .into_iter()
        .map(|region| {
            let buffers = region.len() / STRIDE;
            PoolConfig::new("taken", buffers).build_on(region).unwrap().claim()
        })
        .collect();
    let strange = suite::pool(256);
    let elsewhere = port.open_queues(&vec![strange.handle(); pools.len()]).err().unwrap().to_string();
    assert!(elsewhere.contains("Port::memory"), "{elsewhere}");
    let handles: Vec<_> = pools.iter().map(|pool| pool.handle()).collect();
    let mut queues = port.open_queues(&handles).unwrap_or_else(|error| panic!("{error}"));
    println!("open");
    // Everything back, until a frame says that it is enough.
    let (start, mut enough) = (Wall::now(), false);
    while !enough && start.elapsed() < Duration::from_secs(20) {
        for (queue, pool) in queues.iter_mut().zip(&mut pools) {
            let mut burst = Burst::new();
            queue.rx_burst(Clock::now(), pool, &mut burst);
            enough |= burst.iter().any(|mbuf| mbuf.data().ends_with(b"enough"));
            queue.tx_burst(Clock::now(), &mut burst);
        }
    }
    assert!(enough && port.info().notes.iter().any(|note| note.starts_with("taken from")));
    drop((queues, port));
    assert!(pools.iter_mut().all(|pool| pool.available() == pool.capacity()), "every buffer is home");
    println!("closed");
}

#[test]
fn a_process_without_privileges_takes_the_port_from_one_that_has_them() {
    let veth = Veth::new("un", "");
    let mut pool = suite::pool(1024);
    for killed in [false, true] {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let url = veth.url(0, ",from=0");
        let mut taker = child("the_process_without_privileges", &url, Stdio::from(OwnedFd::from(theirs)));
        pmd::hand_over(&veth.url(0, ""), &OpenOptions::default(), 1024, &ours)
            .unwrap_or_else(|error| panic!("{error}"));
        drop(ours);
        assert!(wait_for_line(&mut taker, "open"), "it took the port over");
        assert!(veth.is_attached(0));
        let (_far, mut far) = open(&veth.url(1, ""), &pool);
        for round in 0..50u8 {
            for _ in 0..32 {
                send(&mut *far, &mut pool, &[round; 200]);
            }
            let back = gather(&mut *far, &mut pool, 32);
            assert!(back.len() == 32 && back.iter().all(|frame| *frame == [round; 200]), "{}", back.len());
        }
        if killed {
            taker.kill().unwrap();
        } else {
            send(&mut *far, &mut pool, &[&[3; 60][..], b"enough"].concat());
            assert!(wait_for_line(&mut taker, "closed"));
        }
        taker.wait().unwrap();
        assert!(!veth.is_attached(0), "it went with the process that had taken it");
    }
}

#[test]
fn a_parent_that_ends_without_a_word_is_an_error() {
    let veth = Veth::new("pa", "");
    for said in [&b""[..], b"rxline-af_xdp 9\nend\n", b"rxline-af_xdp 1\nport 1 x\nend\n"] {
        let (ours, theirs) = UnixStream::pair().unwrap();
        std::io::Write::write_all(&mut &ours, said).unwrap();
        drop(ours);
        let told = refusal(&veth.url(0, &format!(",from={}", theirs.as_raw_fd())), &OpenOptions::default());
        assert!(told.contains("taking") || told.contains("not understood"), "{told}");
    }
}
