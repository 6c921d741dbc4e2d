//! The buffer cycle and forwarding over memory: pmd's own examples beside DPDK.

use super::arms::{self, cpus, figure, pinned};
use super::compare::{Bar, Comparison, Side};
use super::rounds::{Arm, Rounds};
use super::testpmd;
use crate::fault::Result;
use crate::proc::Cmd;
use crate::step::Cx;

/// Take a buffer, write it, ring, read it, give it back.
pub fn buffer_cycle(cx: &Cx<'_>, rounds: &mut Rounds) -> Result<Vec<Comparison>> {
    let [cpu, _] = cpus()?;
    let ours = pinned(Cmd::new(arms::example(cx, "buffer_cycle")?).arg("--json"), cpu);
    // EAL pins itself.
    let theirs = Cmd::new(arms::buffer_cycle(cx)?).arg(format!("0@{cpu}"));
    let mut arms = [
        Arm::new("pmd", || figure(cx, &ours, "ns_per_packet")),
        Arm::new("rte_ring + rte_mempool", || figure(cx, &theirs, "ns_per_packet")),
    ];
    compare(cx, rounds, &mut arms, |ours, anchor| Comparison {
        what: "buffer-cycle",
        unit: "ns/packet",
        boundary: "one core, one process, bursts of 32: alloc, write 64 B, single-producer single-consumer ring, read, \
                   free; each figure is the median of 9 batches of 6.4 million packets inside the program",
        ours,
        anchor,
        bar: Some(Bar::AtMost(1.2)),
        cycles: Vec::new(),
        orders: Default::default(),
    })
}

/// Forward between two ports of one process, addresses swapped.
pub fn forward(cx: &Cx<'_>, rounds: &mut Rounds) -> Result<Vec<Comparison>> {
    let cpus = cpus()?;
    let ours = pinned(Cmd::new(arms::example(cx, "forward_memory")?).arg("--json"), cpus[1]);
    let mut arms = [
        Arm::new("pmd", || figure(cx, &ours, "mpps")),
        Arm::new("testpmd net_ring", || testpmd::macswap(cx, cpus)),
    ];
    compare(cx, rounds, &mut arms, |ours, anchor| Comparison {
        what: "forward-memory",
        unit: "Mpps",
        boundary: "one forwarding core, 64-byte frames in bursts of 32 that go round: each rx, MAC swap, tx is one packet; \
                   ours at the driver interface (pmd's rx_burst and tx_burst on memory:, no stack above), the anchor \
                   testpmd's macswap on net_ring, its Rx-pps in the middle of three seconds after two of warm-up",
        ours,
        anchor,
        bar: Some(Bar::AtLeast(0.7)),
        cycles: Vec::new(),
        orders: Default::default(),
    })
}

/// Measures two arms, ours first in the list, and makes a line of the table of them.
pub(super) fn compare(
    cx: &Cx<'_>,
    rounds: &mut Rounds,
    arms: &mut [Arm<'_, f64>; 2],
    line: impl FnOnce(Side, Side) -> Comparison,
) -> Result<Vec<Comparison>> {
    let (figures, orders) = rounds.run(cx, arms)?;
    let mut sides = figures.into_iter().zip(arms).map(|(figures, arm)| Side { name: arm.name, figures });
    let (Some(ours), Some(anchor)) = (sides.next(), sides.next()) else { unreachable!("two arms") };
    Ok(vec![Comparison { orders, ..line(ours, anchor) }])
}
