//! `rxline demo` as an ordinary user, on two CPUs and on one.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use crate::cargo::build_rxline;
use crate::fault::{Context, Fault, Result, ensure};
use crate::proc::Cmd;
use crate::step::Cx;
use crate::tests::workspace::NOBODY;

/// The last line of `--json`.
#[derive(Debug, Deserialize)]
struct Summary {
    calls: u64,
    verified: u64,
    failed: u64,
    calls_per_second: f64,
    latency_us: Latency,
    drops: serde_json::Map<String, serde_json::Value>,
}

#[derive(Debug, Deserialize)]
struct Latency {
    p50: f64,
    p99: f64,
    p999: f64,
}

/// Every call verified, with as many CPUs as there are and with one.
pub fn demo(cx: &Cx<'_>) -> Result {
    let rxline = build_rxline(cx)?;
    let copy = Copy::of(&rxline, &cx.host.suffix)?;
    for cpus in [None, Some("0")] {
        let demo = Cmd::new(&copy.binary).args(["demo", "--seconds", "5", "--json"]);
        let demo = demo.unprivileged(NOBODY).cwd("/").limit(Duration::from_secs(30));
        let demo = match cpus {
            Some(cpus) => demo.under(["taskset", "-c", cpus]),
            None => demo,
        };
        let output = demo.ok(cx)?;
        let last = output.stdout.lines().last().unwrap_or_default();
        let summary: Summary = serde_json::from_str(last)
            .map_err(|error| Fault::Check(format!("demo's last line is {last:?}: {error}")))?;
        judge(&summary)?;
        cx.log.line(format!("CPUs {}: {summary:?}", cpus.unwrap_or("all")));
    }
    Ok(())
}

fn judge(summary: &Summary) -> Result {
    let Summary { calls, verified, failed, calls_per_second, latency_us, drops } = summary;
    ensure!(*calls > 1000, "hardly any calls: {summary:?}");
    ensure!(*failed == 0 && verified == calls, "not every call was verified: {summary:?}");
    let rate = *calls as f64 / calls_per_second;
    ensure!((3.0..8.0).contains(&rate), "{calls} calls at {calls_per_second}/s do not make five seconds");
    let Latency { p50, p99, p999 } = latency_us;
    ensure!(0.0 < *p50 && p50 <= p99 && p99 <= p999, "latencies out of order: {summary:?}");
    ensure!(drops.values().all(serde_json::Value::is_u64), "drops are not counts: {summary:?}");
    Ok(())
}

/// The binary where everyone may run it: the checkout may lie in root's own folder.
struct Copy {
    folder: PathBuf,
    binary: PathBuf,
}

impl Copy {
    fn of(binary: &std::path::Path, suffix: &str) -> Result<Copy> {
        let folder = std::env::temp_dir().join(format!("rxl-{suffix}"));
        let copy = Copy { binary: folder.join("rxline"), folder };
        fs::create_dir(&copy.folder).context(|| format!("create {}", copy.folder.display()))?;
        for path in [&copy.folder, &copy.binary] {
            if path == &copy.binary {
                fs::copy(binary, path).context(|| format!("copy {}", binary.display()))?;
            }
            fs::set_permissions(path, fs::Permissions::from_mode(0o755))
                .context(|| format!("open up {}", path.display()))?;
        }
        Ok(copy)
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}
