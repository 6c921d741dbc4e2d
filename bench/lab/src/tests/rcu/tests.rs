//! Tests of the workspace that prove a part of this, run as it takes to prove it.

use std::time::Duration;

use crate::cargo::{cargo, count_passed};
use crate::fault::{Result, ensure};
use crate::step::Cx;

const LIMIT: Duration = Duration::from_secs(900);

/// What must not compile does not: kept borrows, forged permissions, core-owned objects elsewhere, calls released twice.
pub fn compile_fail(cx: &Cx<'_>) -> Result {
    let test = ["test", "--locked", "--package", "engine", "--package", "rxrpc", "--test", "compile_fail"];
    let output = cargo(cx).args(test).limit(LIMIT).ok(cx)?;
    ensure!(count_passed(&output.stdout) == 2, "one test of each crate was to run");
    Ok(())
}

/// A counting allocator sees nothing in ten seconds of each: datagrams, calls answered on the core, calls answered by threads.
pub fn allocations(cx: &Cx<'_>) -> Result {
    let test = [
        "test",
        "--release",
        "--locked",
        "--package",
        "engine",
        "--package",
        "rxrpc",
        "--test",
        "no_allocation",
    ];
    let output = cargo(cx).args(test).env("STEADY_SECONDS", "10").limit(LIMIT).ok(cx)?;
    ensure!(count_passed(&output.stdout) >= 2, "the tests of both crates were to run");
    Ok(())
}
