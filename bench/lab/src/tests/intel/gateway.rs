//! The gateway on emulated NICs: its clients and servers are on the host, and reach it through taps.

use std::time::Duration;

use crate::cargo::build_rxline;
use crate::fault::{Result, ensure, tail};
use crate::gateway::{Plan, closing, latest};
use crate::guest::{Guest, Kit, Nic, Peer, pci};
use crate::net::{Net, Wire};
use crate::rxperf::{self, Load};
use crate::step::Cx;

/// Calls from the host through the guest to two servers on the host: every one verified, and the gateway's books close.
pub fn gateway(cx: &Cx<'_>) -> Result {
    let rxline = build_rxline(cx)?;
    let kit = Kit::obtain(cx)?;
    let net = Net::build(cx, Wire::Tap, 2)?;
    let nics = ["cli0", "srv0"].map(|tap| Nic { model: "igb", peer: Peer::Tap(tap) });
    let mut guest = Guest::boot_in(cx, &kit, &nics, &net.gateway)?;
    net.attach(cx)?;
    guest.give(&rxline)?;
    bind(&mut guest)?;

    let _servers = [rxperf::serve(cx, &net.servers[0], 0, "")?, rxperf::serve(cx, &net.servers[1], 1, "")?];
    let plan = Plan { buffers: 53248, ..Plan::rxperf(&[rxperf::address(0), rxperf::address(1)]) };
    let urls = [format!("igb:{}", pci(0)), format!("igb:{}", pci(1))];
    guest.write("gateway.toml", &plan.config((&urls[0], &urls[1])))?;
    guest.sh(
        "RUST_BACKTRACE=1 /share/rxline gateway --config /share/gateway.toml --json > /share/gateway.out 2> /share/gateway.err &
        echo $! > /tmp/gateway.pid",
    )?;
    let alive = cx.wait_for("both backends alive in the gateway's figures", Duration::from_secs(30), || {
        Ok(latest(&guest.shared("gateway.out")).filter(|figures| figures.alive() == 2).map(drop))
    });
    cx.log.block(&guest.shared("gateway.err"));
    alive?;

    let load = Load { in_flight: 8, seconds: 6, reply_bytes: 4000 };
    let output = rxperf::load(cx, &net.client, &load)?.run(cx)?;
    let report = rxperf::report(&output.stdout)?;
    cx.log.line(format!("{report:?}"));
    let stop = "pid=$(cat /tmp/gateway.pid); kill -TERM $pid
        while kill -0 $pid 2> /dev/null; do usleep 50000; done";
    guest.sh(stop)?;
    let printed = guest.shared("gateway.out");
    cx.log.block(&tail(&printed, 1));
    cx.log.block(&guest.shared("gateway.err"));
    let figures = closing(&printed)?;
    figures.must_close()?;
    ensure!(report.failed == 0 && report.verified > 100, "calls failed, or were too few: {report:?}");
    let given: Vec<u64> = figures.backends.iter().map(|backend| backend.given()).collect();
    ensure!(figures.calls.accepted >= report.verified, "the gateway counted {:?}", figures.calls);
    ensure!(given.iter().all(|calls| *calls > 0), "a server had no calls: {given:?}");
    unbind(&mut guest)?;
    guest.stop()
}

/// A shell function that wants both NICs to have this driver.
const HAVE: &str = "have() { for nic in $nics; do
        [ \"$(basename \"$(readlink /sys/bus/pci/devices/$nic/driver)\")\" = $1 ] || return 1
    done; }";

/// From the kernel's driver to VFIO, with `rxline bind`.
pub(super) fn bind(guest: &mut Guest<'_>) -> Result {
    let nics = format!("{} {}", pci(0), pci(1));
    guest
        .sh(&format!(
            "set -e; nics='{nics}'; {HAVE}
        load igb; load vfio_iommu_type1; load vfio_pci
        have igb; [ -e /sys/class/net/eth1 ]
        /share/rxline bind $nics
        have vfio-pci; [ ! -e /sys/class/net/eth1 ]"
        ))
        .map(drop)
}

/// And back, with `rxline unbind`.
pub(super) fn unbind(guest: &mut Guest<'_>) -> Result {
    let nics = format!("{} {}", pci(0), pci(1));
    guest
        .sh(&format!(
            "set -e; nics='{nics}'; {HAVE}
        /share/rxline unbind $nics
        have igb; [ -e /sys/class/net/eth1 ]
        for nic in $nics; do [ \"$(cat /sys/bus/pci/devices/$nic/driver_override)\" = '(null)' ]; done"
        ))
        .map(drop)
}
