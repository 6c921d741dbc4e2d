//! Which frames are the engine's, and the kernel beside it on the same interface.

use super::*;

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
        let veth = Pair::new("st", "");
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
    let veth = Pair::new("co", "");
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
