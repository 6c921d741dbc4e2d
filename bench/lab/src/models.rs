//! `cargo lab models`: every loom model of the workspace, one by one. Needs no root, no peer and no network namespace.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::cargo::{cargo, test_programs};
use crate::fault::{Fault, Result, ensure};
use crate::host::Host;
use crate::proc::Cmd;
use crate::step::Cx;

/// Crates with models, which are their tests under a module of this name.
const PACKAGES: &[&str] = &["engine", "rxrpc"];
const MODULE: &str = "models::";

/// What one model may take. All together are to take less than ten minutes.
const LIMIT: Duration = Duration::from_secs(300);
const BUILD_LIMIT: Duration = Duration::from_secs(1200);

/// Builds and runs them all.
pub fn run(host: &Host) -> Result<ExitCode> {
    let cx = Cx::new(host, "models", Duration::from_secs(3600))?;
    println!("building the models");
    let (mut passed, mut failed, begun) = (0, Vec::new(), Instant::now());
    for package in PACKAGES {
        let program = build(&cx, package)?;
        for model in list(&cx, &program, package)? {
            let begun = Instant::now();
            let outcome = run_one(&cx, &program, package, &model);
            let seconds = begun.elapsed().as_secs_f64();
            match outcome {
                Ok(states) => {
                    passed += 1;
                    println!("{model:<60} ok     {seconds:6.1} s  {states:>8} interleavings");
                }
                Err(Fault::Interrupted) => return Err(Fault::Interrupted),
                Err(fault) => {
                    println!(
                        "{model:<60} FAILED {seconds:6.1} s\n  {fault}\n  log: {}",
                        cx.log.path().display()
                    );
                    failed.push(model);
                }
            }
        }
    }
    println!("{passed} passed, {} failed, in {:.0} s", failed.len(), begun.elapsed().as_secs_f64());
    Ok(if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// `cargo test` as the models need it: with loom's types in place of the system's, in a build folder of their own.
pub fn cargo_test(cx: &Cx<'_>) -> Cmd {
    let target = cx.host.work.join("models/loom");
    cargo_test_in(cx, target).env("RUSTFLAGS", "--cfg loom")
}

/// `cargo test` into a build folder of our own, without debug information: half of what a build of one crate takes.
pub fn cargo_test_in(cx: &Cx<'_>, target: PathBuf) -> Cmd {
    cargo(cx).arg("test").env("CARGO_TARGET_DIR", target).env("CARGO_PROFILE_DEV_DEBUG", "0")
}

fn build(cx: &Cx<'_>, package: &str) -> Result<PathBuf> {
    let build =
        cargo_test(cx).args(["--locked", "--lib", "--no-run", "--message-format=json", "--package", package]);
    let built = build.quiet().limit(BUILD_LIMIT).ok(cx)?;
    let mut programs = test_programs(&built.stdout)?;
    ensure!(programs.len() == 1, "one test program of {package} was expected, not {}", programs.len());
    Ok(programs.remove(0).1)
}

fn list(cx: &Cx<'_>, program: &PathBuf, package: &str) -> Result<Vec<String>> {
    let told = Cmd::new(program).args([MODULE, "--list"]).quiet().ok(cx)?.stdout;
    let names = told.lines().filter_map(|line| line.strip_suffix(": test"));
    let models: Vec<_> = names.map(String::from).collect();
    ensure!(!models.is_empty(), "{package} has no model: no test under {MODULE}");
    Ok(models)
}

/// Runs a model and says how many interleavings it went through.
fn run_one(cx: &Cx<'_>, program: &PathBuf, package: &str, model: &str) -> Result<u64> {
    let run = Cmd::new(program).args([model, "--exact", "--nocapture"]).env("RUST_BACKTRACE", "0");
    let told = run.cwd(cx.host.root.join(package)).limit(LIMIT).ok(cx)?.stdout;
    let line = told.lines().find_map(|line| line.split_once(" interleavings in "));
    let states = line.and_then(|(before, _)| before.rsplit(' ').next()?.parse().ok());
    states.ok_or_else(|| Fault::Check(format!("{model} does not say how many interleavings it went through")))
}
