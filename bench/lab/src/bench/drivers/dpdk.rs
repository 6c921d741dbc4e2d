//! DPDK's devices through our `dpdk:`, and our own `null:`, beside dpdk-testpmd on the same devices.

use std::path::Path;

use crate::bench::arms::{cpus, figure, pinned};
use crate::bench::compare::{Bar, Comparison, Side};
use crate::bench::rounds::{Arm, Rounds};
use crate::bench::testpmd;
use crate::cargo::dpdk_examples;
use crate::fault::Result;
use crate::proc::Cmd;
use crate::step::Cx;

const THROUGH_OURS: &str = "one forwarding core, 64-byte frames in bursts of 32, back out of the device they came by; ours the example `forward` \
                            on dpdk:, the anchor testpmd on the same device of DPDK's; Rx rates in the middle of three seconds";
const OUR_OWN: &str = "as above, but ours on its own null:, which copies each frame into a buffer, and the anchor on net_null, which leaves \
                       its buffers as they are; CPU nanoseconds from packets a second on a core of its own";

/// `dpdk:` on net_null and net_ring, and `null:`; each anchor is measured once a round.
pub fn dpdk(cx: &Cx<'_>, rounds: &mut Rounds) -> Result<Vec<Comparison>> {
    let cpus = cpus()?;
    let forward = dpdk_examples(cx)?.forward;
    let ours = |url: &'static str, mode: &'static str, inject: usize| {
        let command = ours(&forward, cpus[1], url, mode, inject);
        move || figure(cx, &command, "mpps")
    };
    let theirs = |device: &'static str, mode: &'static str| move || testpmd::forward(cx, cpus, device, mode);
    let mut arms = [
        Arm::new("dpdk:net_null io", ours("dpdk:net_null0", "io", 0)),
        Arm::new("dpdk:net_null macswap", ours("dpdk:net_null0", "macswap", 0)),
        Arm::new("dpdk:net_ring macswap", ours("dpdk:net_ring0", "macswap", 512)),
        Arm::new("null: io", ours("null:rx=64", "io", 0)),
        Arm::new("null: macswap", ours("null:rx=64", "macswap", 0)),
        Arm::new("testpmd net_null io", theirs("net_null0", "io")),
        Arm::new("testpmd net_null macswap", theirs("net_null0", "macswap")),
        Arm::new("testpmd net_ring macswap", theirs("net_ring0", "macswap")),
    ];
    let (figures, orders) = rounds.run(cx, &mut arms)?;
    let side = |arm: usize| Side { name: arms[arm].name, figures: figures[arm].clone() };
    let line = |what, unit, boundary, (ours, anchor), bar| Comparison {
        what,
        unit,
        boundary,
        ours,
        anchor,
        bar: Some(bar),
        cycles: Vec::new(),
        orders: orders.clone(),
    };
    let rate =
        |what, ours, anchor| line(what, "Mpps", THROUGH_OURS, (side(ours), side(anchor)), Bar::AtLeast(0.8));
    let time = |what, ours, anchor| {
        line(what, "ns/packet", OUR_OWN, (times(side(ours)), times(side(anchor))), Bar::AtMost(1.2))
    };
    Ok(vec![
        rate("dpdk-null-io", 0, 5),
        rate("dpdk-null-macswap", 1, 6),
        rate("dpdk-ring-macswap", 2, 7),
        time("null-io", 3, 5),
        time("null-macswap", 4, 6),
    ])
}

fn ours(forward: &Path, cpu: usize, url: &str, mode: &str, inject: usize) -> Cmd {
    let command = Cmd::new(forward).arg(url).args(["--mode", mode, "--seconds", "4", "--json"]);
    pinned(command.arg("--inject").arg(inject.to_string()), cpu)
}

/// Millions a second as nanoseconds each.
fn times(side: Side) -> Side {
    Side { figures: side.figures.iter().map(|mpps| 1000.0 / mpps).collect(), ..side }
}
