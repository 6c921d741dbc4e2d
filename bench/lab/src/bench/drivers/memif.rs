//! memif between two processes, one CPU each: ours and testpmd's macswap, in turn, in front of the same peer.
//!
//! ```text
//! testpmd flowgen (server) == memif == forward --mode macswap, or testpmd macswap (client)
//! ```
//!
//! The peer makes frames as fast as it can, and counts those that come back. It is told nothing when the other side is ended: both are
//! killed, for DPDK 22.11's server may crash when a client leaves under traffic.

use std::time::Duration;

use crate::bench::arms::{self, cpus};
use crate::bench::compare::{Bar, Comparison};
use crate::bench::memory::compare;
use crate::bench::rounds::{Arm, Rounds};
use crate::bench::stats::Spread;
use crate::bench::testpmd::rx_rates;
use crate::fault::{Fault, Result};
use crate::proc::Cmd;
use crate::step::Cx;

/// Seconds that do not count, and seconds that do.
const WARM_UP: usize = 2;
const SECONDS: usize = 3;

/// Forwarding through `memif:`.
pub fn memif(cx: &Cx<'_>, rounds: &mut Rounds) -> Result<Vec<Comparison>> {
    let [peer, dut] = cpus()?;
    let socket = cx.dir.join("socket").to_string_lossy().into_owned();
    let forward = arms::example(cx, "forward")?;
    let ours = Cmd::new(forward).arg(format!("memif:@{socket}")).args([
        "--cpus",
        &dut.to_string(),
        "--seconds",
        "60",
    ]);
    let theirs = testpmd("client", &socket, dut, "--forward-mode=macswap");
    let generator = testpmd("server", &socket, peer, "--forward-mode=flowgen --flowgen-flows=1 --txpkts=64");
    let mut arms = [
        Arm::new("memif:", || returned(cx, &generator, &ours)),
        Arm::new("testpmd net_memif", || returned(cx, &generator, &theirs)),
    ];
    compare(cx, rounds, &mut arms, |ours, anchor| Comparison {
        what: "memif-forward",
        unit: "Mpps",
        boundary: "64-byte frames that come back to the peer, testpmd's flowgen on net_memif as server, which sends as fast as it \
                   can; the forwarder is the client, swaps addresses in bursts of 32, and has a CPU of its own; the middle of \
                   three seconds after two of warm-up",
        ours,
        anchor,
        bar: Some(Bar::AtLeast(0.8)),
        cycles: Vec::new(),
        orders: Default::default(),
    })
}

/// testpmd on one CPU: its first thread prints a few lines a second.
fn testpmd(role: &str, socket: &str, cpu: usize, mode: &str) -> Cmd {
    let eal = format!(
        "--no-huge --no-pci --no-shconf --no-telemetry --log-level=error -m 256 --lcores=0@{cpu},1@{cpu}"
    );
    let common = "--no-flush-rx --total-num-mbufs=8192 --burst=32 --stats-period=1";
    Cmd::new("dpdk-testpmd")
        .args(eal.split(' '))
        .arg(format!("--vdev=net_memif0,role={role},socket={socket}"))
        .arg("--")
        .args(common.split(' '))
        .args(mode.split(' '))
}

/// Millions of frames a second that come back to `generator` from `forwarder`.
fn returned(cx: &Cx<'_>, generator: &Cmd, forwarder: &Cmd) -> Result<f64> {
    let mut generator = generator.start(cx, "generator")?;
    cx.wait_for("the generator runs", Duration::from_secs(20), || {
        generator.must_live()?;
        Ok((!rx_rates(&generator.stdout()).is_empty()).then_some(()))
    })?;
    let mut forwarder = forwarder.start(cx, "forwarder")?;
    let rates = cx.wait_for("frames come back", Duration::from_secs(30), || {
        generator.must_live()?;
        forwarder.must_live()?;
        let rates: Vec<f64> = rx_rates(&generator.stdout()).into_iter().filter(|rate| *rate > 0.0).collect();
        Ok((rates.len() >= WARM_UP + SECONDS).then_some(rates))
    })?;
    cx.log.line(format!("Rx-pps: {rates:?}"));
    let rate = Spread::of(&rates[WARM_UP..]);
    Ok(rate.ok_or_else(|| Fault::Check("no rate".into()))?.median / 1e6)
}
