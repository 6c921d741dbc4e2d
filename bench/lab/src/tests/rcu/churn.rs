//! The churn of `rxrpc/examples/churn`, under AddressSanitizer.
//!
//! The sanitizer is part of the stable compiler and has to be unlocked by `RUSTC_BOOTSTRAP`; the standard library stays as it is, so
//! that what it reads and writes itself (copies of memory apart) is not looked at.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::cargo::cargo;
use crate::copy::Copy;
use crate::fault::{Fault, Result, ensure};
use crate::proc::Cmd;
use crate::step::Cx;

const OPERATIONS: u64 = 1_000_000;
/// At least so long.
const SECONDS: u64 = 60;
/// Where the machine takes longer, it may take so long.
const SECONDS_MAX: u64 = 180;
/// The planted fault has to be found within.
const PLANTED_SECONDS: u64 = 30;
/// Objects are freed at once instead of after a grace period.
const PLANTED: &str = "bench/lab/src/tests/rcu/grace-period-skipped.patch";

/// What `churn --json` prints at its end.
#[derive(Debug, Deserialize)]
struct Summary {
    seconds: f64,
    binds: u64,
    closes: u64,
    accepts: u64,
    aborts: u64,
    sleepers_woken: u64,
    wake_us_p50: u64,
    wake_us_p99: u64,
    wake_us_max: u64,
    messages_missed: u64,
    retired_bytes_max: u64,
    freed: u64,
    datagrams: u64,
    call_packets: u64,
    failures: u64,
}

/// Nothing is freed early, no wake-up is lost, retired memory is bounded, and nothing is left.
pub fn churn(cx: &Cx<'_>) -> Result {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| fastrand::u64(..1 << 32));
    cx.log.line(format!("again with SEED={seed} cargo lab test rcu/churn"));
    let copy = Copy::new(cx, cx.host.work.join("churn/copy"));
    copy.sync()?;
    let program = build(&copy, "churn")?;
    planted(&copy, seed)?;
    let churn = command(&program, seed, SECONDS, OPERATIONS).limit(Duration::from_secs(SECONDS_MAX + 60));
    let output = churn.ok(cx)?;
    let last = output.stdout.lines().last().unwrap_or_default();
    let summary: Summary = serde_json::from_str(last)
        .map_err(|error| Fault::Check(format!("churn's last line is {last:?}: {error}")))?;
    cx.log.line(format!("{summary:#?}"));
    judge(&summary)?;
    let Summary { seconds, wake_us_p50, wake_us_p99, wake_us_max, sleepers_woken, retired_bytes_max, .. } =
        summary;
    println!(
        "\n  {} operations in {seconds:.0} s, {sleepers_woken} sleepers woken after p50 {wake_us_p50} us, p99 {wake_us_p99} us, \
         max {wake_us_max} us; at most {retired_bytes_max} bytes retired",
        summary.operations()
    );
    Ok(())
}

impl Summary {
    fn operations(&self) -> u64 {
        self.binds + self.closes + self.accepts + self.aborts
    }
}

/// The program judges itself; this judges that it did what it is for.
fn judge(summary: &Summary) -> Result {
    ensure!(summary.failures == 0, "{} failures, and yet exit code 0: {summary:?}", summary.failures);
    ensure!(summary.operations() >= OPERATIONS, "fewer than {OPERATIONS} operations: {summary:?}");
    ensure!(summary.seconds >= SECONDS as f64, "over too soon: {summary:?}");
    let kinds = [summary.binds, summary.closes, summary.accepts, summary.aborts];
    ensure!(kinds.iter().all(|n| *n >= 1_000), "hardly any of one kind: {summary:?}");
    ensure!(summary.freed >= summary.closes, "sockets were closed and not freed: {summary:?}");
    ensure!(
        summary.datagrams >= 1_000_000 && summary.call_packets >= 10_000,
        "hardly any traffic: {summary:?}"
    );
    let asleep = summary.sleepers_woken;
    ensure!(asleep >= 1_000 && summary.messages_missed * 20 < asleep, "hardly any sleepers: {summary:?}");
    ensure!(summary.wake_us_max <= 1_000_000, "a sleeper slept on: {summary:?}");
    Ok(())
}

/// Shows that a use after free would be found: in a copy, the control thread frees without a grace period.
fn planted(copy: &Copy<'_>, seed: u64) -> Result {
    let cx = copy.cx();
    copy.apply(&cx.host.root.join(PLANTED))?;
    let program = build(copy, "churn-planted")?;
    let churn = command(&program, seed, PLANTED_SECONDS, 1).limit(Duration::from_secs(PLANTED_SECONDS + 60));
    let output = churn.run(cx)?;
    let found = output.stderr.lines().find(|line| line.contains("AddressSanitizer: heap-use-after-free"));
    let found = found.ok_or_else(|| {
        Fault::Check("memory was freed without a grace period, and AddressSanitizer found nothing".into())
    })?;
    cx.log.line(format!("planted: freed without a grace period, and found: {found}"));
    Ok(())
}

fn command(program: &Path, seed: u64, seconds: u64, operations: u64) -> Cmd {
    let limit = SECONDS_MAX.max(seconds);
    let numbers =
        [("--seed", seed), ("--seconds", seconds), ("--operations", operations), ("--limit", limit)];
    let words = numbers.iter().flat_map(|(name, value)| [name.to_string(), value.to_string()]);
    Cmd::new(program).args(words).arg("--json").env("ASAN_OPTIONS", "detect_stack_use_after_return=1")
}

/// Builds the program with the sanitizer in it, from the copy as it is now, and keeps it under `name`.
///
/// Both programs come from the copy: to cargo a copy and its original are one package, and whichever was built last would pass for both.
fn build(copy: &Copy<'_>, name: &str) -> Result<PathBuf> {
    let cx = copy.cx();
    let told = Cmd::new("rustc").arg("-vV").cwd(copy.root()).quiet().ok(cx)?.stdout;
    let host = told.lines().find_map(|line| line.strip_prefix("host: "));
    let host = host.ok_or_else(|| Fault::Check(format!("rustc does not say what it builds for: {told}")))?;
    let target = cx.host.work.join("churn/target");
    let build =
        ["build", "--release", "--locked", "--package", "rxrpc", "--example", "churn", "--target", host];
    let cargo = cargo(cx).args(build).cwd(copy.root()).env("CARGO_TARGET_DIR", &target);
    cargo.env("RUSTC_BOOTSTRAP", "1").env("RUSTFLAGS", "-Zsanitizer=address").run_to_log(cx)?;
    let built = target.join(host).join("release/examples/churn");
    let kept = cx.dir.join(name);
    std::fs::copy(&built, &kept)
        .map_err(|source| Fault::Io { what: format!("copy {}", built.display()), source })?;
    Ok(kept)
}
