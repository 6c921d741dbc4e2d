//! The arms: every way to serve the same datagrams and the same calls, the kernel's and ours.

use serde::Serialize;

use super::measure::Measure;

/// Who moves the packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Whose {
    /// The kernel's sockets.
    Kernel,
    /// Ports of rxline.
    Ours,
}

/// What joins load and server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Wire {
    /// A veth pair, a namespace on either end.
    Veth,
    /// One process, and `memory:` in it.
    Process,
    /// Memory that two processes share.
    SharedMemory,
}

impl Wire {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Wire::Veth => "veth, two processes",
            Wire::Process => "one process",
            Wire::SharedMemory => "shared memory, two processes",
        }
    }
}

/// One arm. The ways are words of the program's: see `vs_kernel --help`.
#[derive(Debug, Serialize)]
pub struct Spec {
    /// As tables and sentences call it.
    pub name: &'static str,
    /// Who.
    pub whose: Whose,
    /// On what.
    pub wire: Wire,
    /// The way that is measured; of a pair nothing.
    pub server: &'static str,
    /// What a server thread does when there is nothing to do: `sleep`, `spin`.
    pub wait: &'static str,
    /// How many CPUs serve. With two, one of them is the load's too.
    pub serving_cpus: usize,
    /// The load for rates and curves: the fastest one that the server's end understands.
    pub load: &'static str,
    /// The load for round trips and bulk: both ends the same way.
    pub same: &'static str,
    /// What that one does while it waits.
    pub same_wait: &'static str,
    /// Source ports of the load.
    pub flows: usize,
    /// Whether the wire's offloads are on: segmentation, receive offload, checksums left to hardware.
    pub offloads: bool,
    /// At which parts of its rate at saturation latency is measured.
    pub loads: &'static [f64],
    /// What it has to have figures of: else it is a miss.
    #[serde(skip)]
    pub measures: &'static [Measure],
}

/// What every arm has.
const COMMON: &[Measure] = &[
    Measure::Echo,
    Measure::EchoCpu,
    Measure::Calls,
    Measure::CallsCpu,
    Measure::RoundTrip,
    Measure::CallTime,
    Measure::Bulk,
    Measure::RxBulk,
    Measure::ColdStart,
];

/// Parts of the rate at saturation; fewer for what is slow.
const LOADS: &[f64] = &[0.1, 0.3, 0.5, 0.7, 0.8, 0.9];
const FEW_LOADS: &[f64] = &[0.1, 0.5, 0.7, 0.9];

impl Spec {
    /// A way of the kernel's on veth.
    pub const fn kernel(server: &'static str, name: &'static str) -> Spec {
        Spec {
            name,
            whose: Whose::Kernel,
            wire: Wire::Veth,
            server,
            wait: "sleep",
            serving_cpus: 1,
            load: "af_packet:c0",
            same: server,
            same_wait: "spin",
            flows: 1,
            offloads: false,
            loads: FEW_LOADS,
            measures: COMMON,
        }
    }

    /// A port of ours on veth, and the same port at the far end.
    pub const fn ours(server: &'static str, same: &'static str, name: &'static str) -> Spec {
        Spec { whose: Whose::Ours, wait: "spin", same, loads: LOADS, ..Spec::kernel(server, name) }
    }

    /// Whether load and server are one process.
    pub fn is_pair(&self) -> bool {
        self.wire == Wire::Process
    }
}

/// The kernel's recvmmsg and sendmmsg: what the bar of UDP echo is measured against.
pub const MMSG: &str = "kernel: epoll + recvmmsg/sendmmsg";
/// The kernel's ways that never sleep: what the bar of the round trip is measured against, whichever is faster.
pub const SPINNING: [&str; 2] = ["kernel: recvmmsg/sendmmsg, spinning", "kernel: SO_BUSY_POLL"];
/// Ours of the bars of rates.
pub const MEMORY: &str = "memory:";
/// Ours of the bar of the round trip.
pub const AF_XDP: &str = "af_xdp:";

/// All of them.
pub static ARMS: [Spec; 12] = [
    Spec { same_wait: "sleep", ..Spec::kernel("blocking", "kernel: blocking sockets") },
    Spec::kernel("mmsg", MMSG),
    Spec { wait: "spin", ..Spec::kernel("mmsg", SPINNING[0]) },
    Spec { wait: "spin", offloads: true, load: "busy-poll", ..Spec::kernel("busy-poll", SPINNING[1]) },
    Spec { offloads: true, load: "gso", ..Spec::kernel("gso", "kernel: GSO + GRO") },
    Spec::kernel("uring", "kernel: io_uring"),
    Spec { serving_cpus: 2, flows: 8, ..Spec::kernel("reuseport", "kernel: SO_REUSEPORT, two cores") },
    Spec::ours("af_packet:s0", "af_packet:c0", "af_packet:"),
    Spec::ours("af_xdp:s0", "af_xdp:c0", AF_XDP),
    Spec {
        wire: Wire::SharedMemory,
        load: "memif:@rxline-vs-kernel",
        ..Spec::ours("memif:@rxline-vs-kernel,role=server", "memif:@rxline-vs-kernel", "memif:")
    },
    Spec { wire: Wire::Process, load: "", ..Spec::ours("", "", MEMORY) },
    Spec::ours("dpdk:net_af_packet0,iface=s0", "af_packet:c0", "dpdk:net_af_packet"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct_and_the_bars_find_theirs() {
        let names: std::collections::BTreeSet<_> = ARMS.iter().map(|arm| arm.name).collect();
        assert_eq!(names.len(), ARMS.len());
        for name in [MMSG, SPINNING[0], SPINNING[1], MEMORY, AF_XDP] {
            assert!(names.contains(name), "{name}");
        }
    }

    #[test]
    fn curves_rise() {
        for arm in &ARMS {
            assert!(arm.loads.is_sorted() && arm.loads.first() > Some(&0.0) && arm.loads.last() < Some(&1.0));
        }
    }
}
