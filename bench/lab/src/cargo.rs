//! Building what is tested, with the cargo that runs the lab.

use std::path::PathBuf;
use std::time::Duration;

use crate::fault::Result;
use crate::proc::Cmd;
use crate::step::Cx;

/// `cargo`, in the workspace's folder, as whoever called us through sudo, so that what it writes is theirs.
pub fn cargo(cx: &Cx<'_>) -> Cmd {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let cargo = Cmd::new(program).cwd(&cx.host.root).limit(Duration::from_secs(1200));
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
