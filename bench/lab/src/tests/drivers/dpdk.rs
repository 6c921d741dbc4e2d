//! DPDK's devices in software through `dpdk:`, with and without hugepages, and two processes side by side.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;

use crate::cargo::{cargo, count_passed, dpdk_examples, test_programs};
use crate::fault::{Fault, Result, ensure};
use crate::hugepages::Hugepages;
use crate::net::{finish, veth};
use crate::ns::Netns;
use crate::proc::{Cmd, words};
use crate::step::Cx;

/// 128 MiB: DPDK's own and the pools'.
const PAGES: usize = 64;
const FEATURES: &str = "dpdk,privileged-tests";

/// The conformance suite over net_null, net_ring, net_memif, net_pcap and net_af_packet, in both kinds of memory; and what clippy says
/// of code that the workspace's own check does not see.
pub fn dpdk(cx: &Cx<'_>) -> Result {
    let clippy = ["clippy", "--locked", "--package", "dpdk-sys", "--package", "pmd", "--all-targets"];
    cargo(cx).args(clippy).args(["--features", FEATURES, "--", "-D", "warnings"]).run_to_log(cx)?;
    let build = ["test", "--locked", "--package", "pmd", "--features", FEATURES, "--no-run"];
    let targets = ["--lib", "--test", "conformance_dpdk", "--test", "conformance_dpdk_privileged"];
    let built = cargo(cx).args(build).args(targets).arg("--message-format=json").quiet().ok(cx)?;
    let programs = test_programs(&built.stdout)?;
    ensure!(programs.len() == targets.len() / 2 + 1, "cargo built {programs:?}");
    run_all(cx, &programs, "ordinary pages")?;
    let pages = Hugepages::reserve(cx, PAGES)?;
    let before = pages.free()?;
    run_all(cx, &programs, "hugepages")?;
    all_given_back(cx, &pages, before)
}

fn run_all(cx: &Cx<'_>, programs: &[(String, PathBuf)], memory: &str) -> Result {
    for (name, program) in programs {
        let alone = Cmd::new(program).arg("--test-threads=1").cwd(&cx.host.root);
        let alone = alone.under(["unshare", "--net", "--mount", "--"]).limit(Duration::from_secs(90));
        let passed = count_passed(&alone.ok(cx)?.stdout);
        cx.log.line(format!("{name} on {memory}: {passed} passed"));
        ensure!(passed > 0, "{name}: not one test ran");
    }
    Ok(())
}

/// No page is mapped any more, and no runtime directory of a process of ours is there.
fn all_given_back(cx: &Cx<'_>, pages: &Hugepages, before: usize) -> Result {
    cx.wait_for("the hugepages are free again", Duration::from_secs(10), || {
        Ok((pages.free()? >= before).then_some(()))
    })?;
    let left = runtime_directories();
    ensure!(left.is_empty(), "runtime directories are left behind: {left:?}");
    Ok(())
}

fn runtime_directories() -> Vec<String> {
    let entries = std::fs::read_dir("/var/run/dpdk").into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    // What a process that was killed leaves, the next one removes.
    let lives = |name: &str| {
        let pid = name.strip_prefix("rxline-");
        pid.is_some_and(|pid| Path::new("/proc").join(pid).exists())
    };
    names.filter(|name| name.starts_with("rxline-") && !lives(name)).collect()
}

/// Two processes of ours, each with an EAL of its own, exchange numbered frames over the two ends of a veth; one is killed, and another
/// takes its place.
pub fn processes(cx: &Cx<'_>) -> Result {
    let programs = dpdk_examples(cx)?;
    let (here, there) = (Netns::create(cx, "here")?, Netns::create(cx, "there")?);
    veth(cx, (&here, "d0"), (&there, "d0"))?;
    finish(cx, &here, "d0")?;
    finish(cx, &there, "d0")?;
    let pages = Hugepages::reserve(cx, PAGES)?;
    let before = pages.free()?;
    let mut echo = there.cmd(&programs.forward).args([DEVICE, "--json"]).start(cx, "echo")?;
    cx.wait_for("the echo is ready", Duration::from_secs(20), || {
        echo.must_live()?;
        Ok(echo.stderr().contains("ready").then_some(()))
    })?;
    let check = || {
        let check = here.cmd(&programs.echo_check).args([DEVICE, "frames=20000"]);
        check.limit(Duration::from_secs(60)).run_to_log(cx)
    };
    check()?;
    let mut victim = here.cmd(&programs.forward).args([DEVICE, "--inject", "256"]).start(cx, "victim")?;
    cx.wait_for("the victim runs", Duration::from_secs(20), || {
        victim.must_live()?;
        Ok(victim.stderr().contains("Mpps").then_some(()))
    })?;
    victim.signal(Signal::KILL)?;
    victim.wait(cx, Duration::from_secs(10))?;
    check()?;
    echo.must_live()?;
    echo.signal(Signal::TERM)?;
    let status = echo.wait(cx, Duration::from_secs(20))?;
    ensure!(status.success(), "the echo ended with {}", words(status));
    let told: serde_json::Value = serde_json::from_str(echo.stdout().lines().last().unwrap_or_default())
        .map_err(|error| Fault::Check(format!("the echo's report: {error}")))?;
    cx.log.line(format!("the echo: {told}"));
    ensure!(told["frames"].as_u64() > Some(40_000), "the echo saw {} frames", told["frames"]);
    ensure!(told["buffers_out"] == 0, "buffers are missing: {told}");
    all_given_back(cx, &pages, before)
}

const DEVICE: &str = "dpdk:net_af_packet0,iface=d0";
