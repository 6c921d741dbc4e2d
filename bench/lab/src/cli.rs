//! The command line.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::fault::{Context, Fault, Result, ensure};
use crate::host::{Host, is_root};
use crate::step::{Cx, Step, Tally, run_all};
use crate::{apt, bench, fuzz, guest, models, mutants, ns, pids, tests};

/// The peers, checks and benches of rxline.
#[derive(Parser)]
#[command(name = "cargo lab", about, version)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Say what there is to run
    List,
    /// Install what tests and benches need (Debian packages, with apt)
    Setup,
    /// Run the named checks or groups of checks; without names, all of them
    Test {
        /// As `list` shows them
        names: Vec<String>,
    },
    /// Run the loom models; needs no root
    Models {
        /// Show that the tests of the row table (bench/lab/rows/ROWS.md) notice what they are there to notice; without rows, all of them
        #[arg(long, value_name = "ROW", num_args = 0..)]
        mutants: Option<Vec<String>>,
    },
    /// Throw at Rx what strangers may send, under libFuzzer; needs no root
    Fuzz(fuzz::Args),
    /// Measure ours beside its anchors; without names, everything
    Bench(bench::Args),
    /// Run a script in a guest with Intel NICs, to try a driver by hand
    Guest(guest::hand::Args),
    /// Remove namespaces, processes and files that runs left behind
    Clean,
}

/// Does what was asked for.
pub fn run(args: Args) -> Result<ExitCode> {
    if let What::List = args.what {
        list();
        return Ok(ExitCode::SUCCESS);
    }
    if let What::Models { mutants } = &args.what {
        let host = Host::open_unprivileged()?;
        return mutants.as_ref().map_or_else(|| models::run(&host), |rows| mutants::run(&host, rows));
    }
    if let What::Fuzz(args) = &args.what {
        return fuzz::run(&Host::open_unprivileged()?, args);
    }
    if !is_root() {
        return Err(become_root());
    }
    let mut host = Host::open()?;
    host.quick_builds = matches!(args.what, What::Test { .. });
    match args.what {
        What::List | What::Models { .. } | What::Fuzz(_) => {}
        What::Setup => setup(&host, &[apt::FOR_TESTS, apt::FOR_BENCHES])?,
        What::Test { names } => return test(&host, &names),
        What::Bench(args) => {
            leftovers(&host);
            setup(&host, &[apt::FOR_TESTS, apt::FOR_BENCHES])?;
            return bench::run(&host, &args);
        }
        What::Guest(args) => {
            leftovers(&host);
            setup(&host, &[apt::FOR_TESTS])?;
            guest::hand::run(&host, &args)?;
        }
        What::Clean => clean(&host)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn list() {
    println!("checks (cargo lab test [NAME..]):");
    for step in tests::ALL {
        println!("  {:<22} {}", step.name, step.about);
    }
    println!("benches (cargo lab bench [NAME..]):");
    for bench in bench::ALL {
        println!("  {:<22} {}", bench.name, bench.about);
    }
}

fn setup(host: &Host, packages: &[&[apt::Package]]) -> Result {
    let cx = Cx::new(host, "setup", Duration::from_secs(1000))?;
    apt::install(&cx, packages)
}

fn test(host: &Host, names: &[String]) -> Result<ExitCode> {
    let steps = select(tests::ALL, names)?;
    leftovers(host);
    let tally = match setup(host, &[apt::FOR_TESTS]) {
        Ok(()) => run_all(host, &steps),
        Err(fault) => {
            println!("setup failed, so nothing can run: {fault}");
            Tally { passed: 0, failed: steps.len() }
        }
    };
    println!("{} passed, {} failed", tally.passed, tally.failed);
    Ok(if tally.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The steps that the names ask for, in the order of the table.
fn select<'s>(all: &'s [Step], names: &[String]) -> Result<Vec<&'s Step>> {
    for name in names {
        let known = all.iter().any(|step| step.is_meant_by(name));
        ensure!(known, "there is no check `{name}`; `cargo lab list` shows them");
    }
    let wanted = |step: &&Step| names.is_empty() || names.iter().any(|name| step.is_meant_by(name));
    Ok(all.iter().filter(wanted).collect())
}

fn clean(host: &Host) -> Result {
    let (processes, namespaces) = leftovers(host);
    println!("removed {processes} processes and {namespaces} namespaces that runs left behind");
    for name in ["logs", "cache", "apt", "state", "user", "models", "guest"] {
        let path = host.work.join(name);
        if path.exists() {
            std::fs::remove_dir_all(&path).context(|| format!("remove {}", path.display()))?;
            println!("removed {}", path.display());
        }
    }
    Ok(())
}

/// Removes what a killed run left.
fn leftovers(host: &Host) -> (usize, usize) {
    let processes = pids::end_leftovers(host);
    let mut namespaces = 0;
    for (name, remembered) in pids::leftover_namespaces(host) {
        namespaces += usize::from(ns::delete(&name));
        let _ = std::fs::remove_file(remembered);
    }
    (processes, namespaces)
}

/// Starts over through sudo; returns only when that is impossible.
fn become_root() -> Fault {
    println!("cargo lab needs root (apt, network namespaces, packet sockets) and starts over through sudo");
    let keep = "--preserve-env=PATH,HOME,CARGO,CARGO_HOME,CARGO_TARGET_DIR,RUSTUP_HOME,RUSTUP_TOOLCHAIN";
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(source) => return Fault::Io { what: "find this program".into(), source },
    };
    let source =
        Command::new("sudo").args(["-n", keep, "--"]).arg(program).args(std::env::args_os().skip(1)).exec();
    let what = "start sudo (run it as root, or install sudo and run `sudo -v` first)".into();
    Fault::Io { what, source }
}
