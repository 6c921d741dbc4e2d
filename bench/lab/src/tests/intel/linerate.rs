//! `rxline linerate` in a guest: one emulated 82576 generates, another on the same cable forwards. How fast says nothing here.

use std::time::Duration;

use serde_json::Value;

use super::gateway::{bind, unbind};
use crate::cargo::build_rxline;
use crate::fault::{Fault, Result, ensure, tail};
use crate::guest::{Guest, Kit, Nic, Peer, mac, pci};
use crate::step::Cx;

const FRAMES: u64 = 2000;

/// Every frame that the forwarder took comes back as it was sent; what is sent is counted by who only receives.
pub fn linerate(cx: &Cx<'_>) -> Result {
    let rxline = build_rxline(cx)?;
    let kit = Kit::obtain(cx)?;
    let nics = [Nic { model: "igb", peer: Peer::Hub(0) }; 2];
    let mut guest = Guest::boot(cx, &kit, &nics)?;
    guest.give(&rxline)?;
    bind(&mut guest)?;
    let text = |mac: [u8; 6]| mac.map(|byte| format!("{byte:02x}")).join(":");
    let (tester, device) = (text(mac(0)), text(mac(1)));
    let mac_mode = format!("mac --peer-mac {tester}");
    for mode in ["macswap", "5tuple", mac_mode.as_str()] {
        begin(cx, &mut guest, &format!("forward --mode {mode}"))?;
        let args = format!("generate --size imix --loss-tolerance 2 --peer-mac {device}");
        let told = send(cx, &mut guest, &args)?;
        for never in ["corrupted", "duplicates", "reordered"] {
            ensure!(told["marked"][never] == 0, "{mode}: {never}: {told}");
        }
        let line_rate = &told["ports"][0]["line_rate_bits_per_second"];
        ensure!(*line_rate == 1_000_000_000, "{mode}: an 82576 has a gigabit: {told}");
        ensure!(told["ports"][0]["tx"]["percent_of_line_rate"].is_f64(), "{mode}: {told}");
        let forwarded = end(cx, &mut guest)?;
        ensure!(
            forwarded["ports"][0]["tx"]["frames"].as_u64() >= told["marked"]["received"].as_u64(),
            "{forwarded}"
        );
    }
    begin(cx, &mut guest, "rxonly")?;
    send(cx, &mut guest, &format!("txonly --peer-mac {device}"))?;
    let got = end(cx, &mut guest)?["ports"][0]["rx"]["frames"].as_u64().unwrap_or(0);
    ensure!((FRAMES - FRAMES / 50..=FRAMES).contains(&got), "{got} of {FRAMES} frames were counted");
    unbind(&mut guest)?;
    guest.stop()
}

/// Starts what runs on the second NIC, and waits until it shows figures.
fn begin(cx: &Cx<'_>, guest: &mut Guest<'_>, args: &str) -> Result {
    guest.sh(&format!(
        "rm -f /share/device.*
        /share/rxline linerate {args} --port igb:{} --json > /share/device.out 2> /share/device.err &
        echo $! > /tmp/device.pid",
        pci(1)
    ))?;
    let ready = cx.wait_for("the device's first figures", Duration::from_secs(60), || {
        guest.must_be_well()?;
        Ok(guest.shared("device.err").contains(" rx ").then_some(()))
    });
    cx.log.block(&guest.shared("device.err"));
    ready
}

/// Sends from the first NIC, slowly; its summary.
fn send(cx: &Cx<'_>, guest: &mut Guest<'_>, args: &str) -> Result<Value> {
    let script =
        format!("/share/rxline linerate {args} --rate 200pps --frames {FRAMES} --port igb:{} --json", pci(0));
    let (status, printed) = guest.run(&script, Duration::from_secs(90))?;
    cx.log.block(&printed);
    ensure!(status == 0, "exit code {status}:\n{}", tail(&printed, 10));
    summary(&printed)
}

/// Ends what runs on the second NIC; its summary.
fn end(cx: &Cx<'_>, guest: &mut Guest<'_>) -> Result<Value> {
    guest.sh(
        "pid=$(cat /tmp/device.pid); kill -TERM $pid; while kill -0 $pid 2> /dev/null; do usleep 50000; done",
    )?;
    cx.log.block(&guest.shared("device.err"));
    summary(&guest.shared("device.out"))
}

fn summary(printed: &str) -> Result<Value> {
    let last = printed.lines().rfind(|line| line.starts_with('{')).unwrap_or_default();
    serde_json::from_str(last).map_err(|error| Fault::Check(format!("the summary is {last:?}: {error}")))
}
