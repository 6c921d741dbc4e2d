//! The suite that all drivers pass, in a guest, on two NICs and the cable between them.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::cargo::{cargo, count_passed, test_programs};
use crate::fault::{Fault, Result, ensure, tail};
use crate::guest::{Guest, Kit, Nic, Peer, pci};
use crate::step::Cx;

const LIMIT: Duration = Duration::from_secs(150);

/// Two 82576 on one hub, two 82574L on another.
pub fn suite(cx: &Cx<'_>) -> Result {
    let program = build(cx)?;
    let kit = Kit::obtain(cx)?;
    let nics = [("igb", 0), ("igb", 0), ("e1000e", 1), ("e1000e", 1)];
    let nics = nics.map(|(model, hub)| Nic { model, peer: Peer::Hub(hub) });
    let mut guest = Guest::boot(cx, &kit, &nics)?;
    guest.give(&program)?;
    // What the suite runs to pull and plug the cable; the host does it and removes the request.
    guest.write(
        "cable",
        "#!/bin/sh\necho $1 > /share/request.new && mv /share/request.new /share/request
        while [ -e /share/request ]; do usleep 20000; done\n",
    )?;
    (0..nics.len()).try_for_each(|index| guest.bind_vfio(index))?;
    let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
    for first in [0, 2] {
        let model = nics[first].model;
        let devices = [first, first + 1].map(|index| format!("{model}:{},promisc=1", pci(index))).join(" ");
        run(cx, &mut guest, model, &name, first, &devices)?;
    }
    guest.stop()
}

fn build(cx: &Cx<'_>) -> Result<PathBuf> {
    let build = ["test", "--locked", "--package", "pmd", "--features", "device-tests", "--test", "devices"];
    let built = cargo(cx).args(build).args(["--no-run", "--message-format=json"]).quiet().ok(cx)?;
    let programs = test_programs(&built.stdout)?;
    let found = programs.into_iter().find(|(name, _)| name == "devices");
    found.map(|(_, path)| path).ok_or_else(|| Fault::Check("cargo built no test `devices`".into()))
}

fn run(
    cx: &Cx<'_>,
    guest: &mut Guest<'_>,
    model: &str,
    program: &str,
    first: usize,
    devices: &str,
) -> Result {
    guest.sh(&format!(
        "export DEVICES='{devices}' DEVICES_LINK='sh /share/cable' DEVICES_UNCOUNTED=1 RUST_BACKTRACE=1
        (/share/{program} --test-threads=1 --nocapture; echo status $?) > /share/{model}.suite 2>&1 &"
    ))?;
    let begun = Instant::now();
    let ended = cx.wait_for("the suite ends", LIMIT, || {
        if let request @ ("on" | "off") = guest.shared("request").trim() {
            guest.set_link(first, request == "on")?;
            guest.remove("request")?;
        }
        let said = guest.shared(&format!("{model}.suite"));
        Ok(said.lines().any(|line| line.starts_with("status ")).then_some(()))
    });
    let said = guest.shared(&format!("{model}.suite"));
    cx.log.block(&said);
    ended?;
    let passed = count_passed(&said);
    cx.log.line(format!("{model}: {passed} tests passed in {:.1} s", begun.elapsed().as_secs_f64()));
    let right = said.lines().any(|line| line == "status 0") && passed > 0;
    ensure!(right, "the suite fails on {model}:\n{}", tail(&said, 30));
    Ok(())
}
