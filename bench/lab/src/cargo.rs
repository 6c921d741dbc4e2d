//! Building what is tested, with the cargo that runs the lab.

use std::path::PathBuf;
use std::time::Duration;

use crate::fault::{Context, Fault, Result, ensure};
use crate::proc::Cmd;
use crate::step::Cx;

/// `cargo`, in the workspace's folder, as whoever called us through sudo, so that what it writes is theirs.
pub fn cargo(cx: &Cx<'_>) -> Cmd {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let cargo = Cmd::new(program).cwd(&cx.host.root).limit(Duration::from_secs(1200));
    let cargo = if cx.host.quick_builds {
        cargo.env("CARGO_PROFILE_RELEASE_LTO", "false").env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "4")
    } else {
        cargo
    };
    match cx.host.owner {
        Some(user) => cargo.unprivileged(user),
        None => cargo,
    }
}

/// Builds the release binary `rxline`.
pub fn build_rxline(cx: &Cx<'_>) -> Result<PathBuf> {
    cargo(cx).args(["build", "--release", "--locked", "--package", "rxline"]).run_to_log(cx)?;
    Ok(cx.host.rxline())
}

/// The same with DPDK, beside the one without.
pub fn build_rxline_dpdk(cx: &Cx<'_>) -> Result<PathBuf> {
    let build = ["build", "--release", "--locked", "--package", "rxline", "--features", "dpdk"];
    cargo(cx).args(build).run_to_log(cx)?;
    let kept = cx.dir.join("rxline");
    let built = cx.host.rxline();
    std::fs::copy(&built, &kept).context(|| format!("copy {}", built.display()))?;
    Ok(kept)
}

/// pmd's examples with DPDK.
pub struct DpdkExamples {
    /// Sends back, or on.
    pub forward: PathBuf,
    /// Sends numbered frames to one that sends back, and looks at each that returns.
    pub echo_check: PathBuf,
}

/// Builds them, beside those without DPDK that have the same names.
pub fn dpdk_examples(cx: &Cx<'_>) -> Result<DpdkExamples> {
    let build = ["build", "--release", "--locked", "--package", "pmd", "--features", "dpdk"];
    cargo(cx).args(build).args(["--example", "forward", "--example", "echo_check"]).run_to_log(cx)?;
    let keep = |name: &str| {
        let kept = cx.dir.join(name);
        let built = cx.host.target().join("release/examples").join(name);
        std::fs::copy(&built, &kept).context(|| format!("copy {}", built.display()))?;
        Ok(kept)
    };
    Ok(DpdkExamples { forward: keep("forward")?, echo_check: keep("echo_check")? })
}

/// The programs that `cargo test` made, by the name of their target.
pub fn test_programs(messages: &str) -> Result<Vec<(String, PathBuf)>> {
    let mut programs = Vec::new();
    for line in messages.lines() {
        let message: serde_json::Value = serde_json::from_str(line)
            .map_err(|error| Fault::Check(format!("cargo said {line:?}: {error}")))?;
        let is_test = message["profile"]["test"] == true;
        if let (true, Some(program)) = (is_test, message["executable"].as_str()) {
            let name = message["target"]["name"].as_str().unwrap_or("?");
            programs.push((name.to_string(), PathBuf::from(program)));
        }
    }
    ensure!(!programs.is_empty(), "cargo built no test");
    Ok(programs)
}

/// Sums libtest's `test result: ok. N passed; ..`.
pub fn count_passed(told: &str) -> usize {
    let counts = told.lines().filter_map(|line| line.strip_prefix("test result: ok. "));
    counts.filter_map(|rest| rest.split(' ').next()?.parse::<usize>().ok()).sum()
}
