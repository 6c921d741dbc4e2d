//! Interfaces: link, queues, XDP, and the checksums that veth leaves unfinished.

use crate::machine::Machine;
use crate::net::{Link, Peer};
use crate::report::{Group, State};
use crate::targets::{Driver, Targets};

use super::missing;

/// The kernel's `enum netdev_xdp_act`.
const XDP_BASIC: u64 = 1;
const XDP_REDIRECT: u64 = 2;
const XDP_ZEROCOPY: u64 = 8;
/// A frame with its headroom must fit a page in native mode, unless the program takes fragments.
const XDP_MTU_MAX: u32 = 3498;

/// Drivers of Linux 6.1 with native XDP: for kernels that do not tell. The second list has zero copy too.
const NATIVE: &[&str] = &[
    "atlantic",
    "bnxt_en",
    "cpsw",
    "dpaa2-eth",
    "ena",
    "fsl_enetc",
    "hv_netvsc",
    "igb",
    "ixgbevf",
    "mlx4_en",
    "mvneta",
    "mvpp2",
    "nfp",
    "nicvf",
    "qede",
    "sfc",
    "tun",
    "veth",
    "virtio_net",
    "xen-netfront",
];
const NATIVE_ZERO_COPY: &[&str] = &["i40e", "ice", "igc", "ixgbe", "mlx5_core", "stmmac"];

pub(super) fn check(machine: &Machine, targets: &Targets, group: &mut Group<'_>) {
    if let Some(error) = &machine.network.error {
        let mend = "run where netlink sockets are allowed";
        group.bad("netlink", None, State::Warning, format!("the kernel does not answer: {error}"), mend);
    }
    if targets.is_empty() {
        machine
            .network
            .links
            .iter()
            .filter(|link| link.ethernet)
            .for_each(|link| show(machine, link, None, group));
    }
    for (name, driver) in targets.interfaces() {
        match machine.network.link(name) {
            Some(link) => show(machine, link, driver, group),
            None => {
                let text = "there is none of that name in this network namespace";
                group.bad(
                    "interface",
                    Some(name),
                    State::Problem,
                    text,
                    "ip -br link  # lists those that there are",
                );
            }
        }
    }
}

fn show(machine: &Machine, link: &Link, driver: Option<&Driver>, group: &mut Group<'_>) {
    let kernel_driver = driver_of(machine, link);
    state(link, &kernel_driver, driver.is_some(), group);
    queues(link, group);
    xdp(link, &kernel_driver, driver, group);
    checksums(machine, link, driver, group);
    node(machine, link, group);
}

/// The kernel's driver: a device's own, or the kind of one that is made of software.
fn driver_of(machine: &Machine, link: &Link) -> String {
    let device = || machine.link(format!("sys/class/net/{}/device/driver", link.name));
    link.kind.clone().or_else(device).unwrap_or_else(|| "unknown driver".into())
}

fn state(link: &Link, kernel_driver: &str, named: bool, group: &mut Group<'_>) {
    let of = Some(&*link.name);
    let text = format!("{kernel_driver}, MTU {}", link.mtu);
    if link.running {
        group.ok("interface", of, format!("{text}, up"));
    } else if link.up {
        let text = format!("{text}, up, and without a carrier");
        group.bad("interface", of, State::Warning, text, "connect the cable, or bring the other end up");
    } else if named {
        let mend = format!("sudo ip link set {} up", link.name);
        group.bad("interface", of, missing(named), format!("{text}, down"), mend);
    } else {
        group.ok("interface", of, format!("{text}, down"));
    }
}

fn queues(link: &Link, group: &mut Group<'_>) {
    let of = Some(&*link.name);
    let (rx, tx) = link.queues;
    match link.channels {
        Some(channels) if channels.rx < channels.rx_max => {
            let kind = if channels.combined { "combined" } else { "rx" };
            let text = format!(
                "{} of {} in use; `sudo ethtool -L {} {kind} N` changes that",
                channels.rx, channels.rx_max, link.name
            );
            group.ok("queues", of, text);
        }
        Some(channels) => group.ok("queues", of, format!("{}, as many as there can be", channels.rx)),
        None => group.ok("queues", of, format!("{rx} receiving, {tx} sending")),
    }
}

fn xdp(link: &Link, kernel_driver: &str, driver: Option<&Driver>, group: &mut Group<'_>) {
    let af_xdp = driver.is_some_and(|driver| driver.scheme == "af_xdp");
    if driver.is_some() && !af_xdp {
        return;
    }
    let of = Some(&*link.name);
    if let Some(program) = &link.xdp {
        let text =
            format!("program {} is on it ({} mode): af_xdp: needs its place", program.id, program.mode);
        let mend =
            format!("sudo ip link set dev {} xdp off  # after stopping whoever put it there", link.name);
        group.bad("xdp_program", of, missing(af_xdp), text, mend);
    }
    let (native, copies) = match link.xdp_features {
        Some(bits) => {
            let native = bits & (XDP_BASIC | XDP_REDIRECT) == XDP_BASIC | XDP_REDIRECT;
            (native, if bits & XDP_ZEROCOPY != 0 { "with zero copy" } else { "copying" })
        }
        None if NATIVE_ZERO_COPY.contains(&kernel_driver) => {
            (true, "with zero copy, by the driver's name (this kernel does not tell)")
        }
        None if NATIVE.contains(&kernel_driver) => {
            (true, "copying, by the driver's name (this kernel does not tell)")
        }
        None => (false, ""),
    };
    if !native {
        let text = format!("not in {kernel_driver}: af_xdp: works in SKB mode, a few times slower");
        if af_xdp {
            let mend = "use a NIC with native XDP, or af_packet:, which costs about the same";
            return group.bad("xdp_native", of, State::Warning, text, mend);
        }
        return group.ok("xdp_native", of, text);
    }
    group.ok("xdp_native", of, format!("{kernel_driver} has it, {copies}"));
    if link.mtu > XDP_MTU_MAX {
        let text = format!("MTU {}: native XDP takes frames of one page", link.mtu);
        let mend = format!("sudo ip link set {} mtu {XDP_MTU_MAX}", link.name);
        group.bad("xdp_mtu", of, State::Warning, text, mend);
    }
}

/// The kernel's end of a veth leaves the checksum of what it sends to hardware that is not there. Of XDP, nobody can tell.
fn checksums(machine: &Machine, link: &Link, driver: Option<&Driver>, group: &mut Group<'_>) {
    let of = Some(&*link.name);
    let scheme = driver.map_or("af_xdp", |driver| driver.scheme);
    // af_packet: is told of it frame by frame.
    if scheme != "af_xdp" {
        return;
    }
    let peer = match link.peer {
        Peer::None => return,
        Peer::Here(index) => machine.network.at(index),
        Peer::Elsewhere => None,
    };
    match peer {
        Some(peer) if peer.tx_checksum == Some(false) => {
            group.ok("veth_checksum", of, format!("its other end {} finishes checksums itself", peer.name));
        }
        Some(peer) => {
            let text = format!(
                "its other end {} sends UDP with unfinished checksums, which af_xdp: drops",
                peer.name
            );
            let mend = format!("sudo ethtool -K {} tx off", peer.name);
            group.bad("veth_checksum", of, missing(driver.is_some()), text, mend);
        }
        None => {
            let text = "its other end is in another namespace: unless told otherwise it sends unfinished checksums, which af_xdp: drops";
            let mend = "ethtool -K PEER tx off  # in the namespace of the other end";
            group.bad("veth_checksum", of, State::Warning, text, mend);
        }
    }
}

fn node(machine: &Machine, link: &Link, group: &mut Group<'_>) {
    let node = machine.number(format!("sys/class/net/{}/device/numa_node", link.name));
    if let Some(node) = node.filter(|node| *node >= 0) {
        group.ok("numa", Some(&link.name), format!("node {node}"));
    }
}
