//! DPDK's devices in software through `dpdk:`, with and without hugepages, and two processes side by side.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;

use crate::cargo::{cargo, count_passed, test_programs};
use crate::fault::{Context, Result, ensure};
use crate::hugepages::Hugepages;
use crate::proc::{Cmd, Running, words};
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

/// Two processes of ours, each with an EAL of its own, exchange numbered frames over net_memif; one is killed, and another takes its place.
pub fn processes(cx: &Cx<'_>) -> Result {
    let programs = examples(cx)?;
    let pages = Hugepages::reserve(cx, PAGES)?;
    let before = pages.free()?;
    let mut server = serve(cx, &programs.forward)?;
    check(cx, &programs.echo_check, 20_000)?;
    // A peer that dies in the middle.
    let client =
        Cmd::new(&programs.forward).arg(url(cx, "client")).args(["--inject", "256"]).start(cx, "victim")?;
    cx.wait_for("the victim runs", Duration::from_secs(20), || {
        Ok(client.stderr().contains("Mpps").then_some(()))
    })?;
    client.signal(Signal::KILL)?;
    drop(client);
    server.must_live()?;
    check(cx, &programs.echo_check, 20_000)?;
    server.must_live()?;
    server.signal(Signal::TERM)?;
    let status = server.wait(cx, Duration::from_secs(20))?;
    ensure!(status.success(), "the server ended with {}", words(status));
    let told: serde_json::Value = serde_json::from_str(server.stdout().lines().last().unwrap_or_default())
        .map_err(|error| crate::fault::Fault::Check(format!("the server's report: {error}")))?;
    cx.log.line(format!("the server: {told}"));
    ensure!(told["frames"].as_u64() > Some(40_000), "the server saw {} frames", told["frames"]);
    ensure!(told["queues"][0]["buffers_out"] == 0, "buffers are missing: {}", told["queues"][0]);
    all_given_back(cx, &pages, before)
}

fn url(cx: &Cx<'_>, role: &str) -> String {
    let socket = cx.dir.join("memif.sock");
    format!("dpdk:net_memif0,role={role},socket-abstract=no,socket={}", socket.display())
}

fn serve(cx: &Cx<'_>, forward: &Path) -> Result<Running> {
    let server = Cmd::new(forward).arg(url(cx, "server")).arg("--json").start(cx, "server")?;
    let socket = cx.dir.join("memif.sock");
    cx.wait_for("the server listens", Duration::from_secs(20), || Ok(socket.exists().then_some(())))?;
    Ok(server)
}

fn check(cx: &Cx<'_>, echo_check: &Path, frames: usize) -> Result {
    let check = Cmd::new(echo_check).arg(url(cx, "client")).arg(format!("frames={frames}"));
    check.limit(Duration::from_secs(60)).run_to_log(cx)
}

/// pmd's examples with DPDK.
pub struct Examples {
    /// Sends back, or on.
    pub forward: PathBuf,
    echo_check: PathBuf,
}

/// Builds them, beside those without DPDK that have the same names.
pub fn examples(cx: &Cx<'_>) -> Result<Examples> {
    let build = ["build", "--release", "--locked", "--package", "pmd", "--features", "dpdk"];
    cargo(cx).args(build).args(["--example", "forward", "--example", "echo_check"]).run_to_log(cx)?;
    let keep = |name: &str| {
        let kept = cx.dir.join(name);
        let built = cx.host.target().join("release/examples").join(name);
        std::fs::copy(&built, &kept).context(|| format!("copy {}", built.display()))?;
        Ok(kept)
    };
    Ok(Examples { forward: keep("forward")?, echo_check: keep("echo_check")? })
}
