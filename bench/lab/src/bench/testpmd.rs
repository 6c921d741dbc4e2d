//! DPDK's own forwarder as an anchor.

use std::time::Duration;

use rustix::process::Signal;

use super::stats::Spread;
use crate::fault::{Fault, Result, ensure};
use crate::proc::{Cmd, words};
use crate::step::Cx;

/// Seconds at the start that do not count: the first report covers the start itself.
const WARM_UP: usize = 2;
/// Seconds that do.
const SECONDS: usize = 3;

/// Packets that macswap forwards over a ring, in millions a second.
pub fn macswap(cx: &Cx<'_>, cpus: [usize; 2]) -> Result<f64> {
    forward(cx, cpus, "net_ring0", "macswap")
}

/// Packets that it forwards on one device in software back to itself, in millions a second: the middle of a few seconds.
///
/// The second CPU forwards. The first one prints a few lines a second and sleeps in between.
pub fn forward(cx: &Cx<'_>, cpus: [usize; 2], device: &str, mode: &str) -> Result<f64> {
    let eal = "--no-huge --no-pci --no-shconf --no-telemetry --log-level=error -m 512";
    let forward = "--port-topology=loop --tx-first --stats-period=1 --burst=32 --txpkts=64 \
                   --total-num-mbufs=2048";
    let lcores = format!("--lcores=0@{},1@{}", cpus[0], cpus[1]);
    let command = Cmd::new("dpdk-testpmd").arg(lcores).args(eal.split(' ')).arg(format!("--vdev={device}"));
    let command = command.arg("--").arg(format!("--forward-mode={mode}"));
    let mut testpmd = command.args(forward.split_whitespace()).start(cx, "testpmd")?;
    let rates = cx.wait_for("testpmd reports rates", Duration::from_secs(30), || {
        testpmd.must_live()?;
        let rates = rx_rates(&testpmd.stdout());
        Ok((rates.len() >= WARM_UP + SECONDS).then_some(rates))
    })?;
    testpmd.signal(Signal::INT)?;
    let status = testpmd.wait(cx, Duration::from_secs(10))?;
    ensure!(status.success(), "testpmd ended with {}", words(status));
    cx.log.line(format!("Rx-pps: {rates:?}"));
    let rate = Spread::of(&rates[WARM_UP..]).filter(|rate| rate.min > 0.0);
    let rate = rate.ok_or_else(|| Fault::Check(format!("testpmd forwarded nothing: {rates:?}")))?;
    Ok(rate.median / 1e6)
}

/// Every `Rx-pps` of a single port, in order. A line that is still being written does not count.
pub fn rx_rates(stdout: &str) -> Vec<f64> {
    let complete = stdout.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    let rate = |line: &str| line.trim().strip_prefix("Rx-pps:")?.split_whitespace().next()?.parse().ok();
    complete.filter_map(rate).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_from_complete_lines() {
        let text = "  Throughput (since last show)\n  Rx-pps:            0          Rx-bps:            0\n\
                    \x20 Tx-pps:            7          Tx-bps:            0\n\
                    \x20 Rx-pps:     62705457          Rx-bps:            0\n  Rx-pps:     6270";
        assert_eq!(rx_rates(text), [0.0, 62_705_457.0]);
    }
}
