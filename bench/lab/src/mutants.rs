//! `cargo lab models --mutants`: shows that the tests of the row table notice what they are there to notice.
//!
//! Works on a copy of the tracked files under the lab's folder, which is kept with its builds, so that a mutant costs one incremental
//! build of the crate it is in. Tests of one package follow each other for the same reason.

use std::collections::HashMap;
use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::cargo::count_passed;
use crate::copy::Copy;
use crate::fault::{Fault, Result, ensure};
use crate::host::Host;
use crate::models;
use crate::rows::{Line, Table};
use crate::step::Cx;

/// What a test may take, with the mutation or without.
const TEST_LIMIT: Duration = Duration::from_secs(60);
const BUILD_LIMIT: Duration = Duration::from_secs(1200);

/// How a test ended.
enum Ended {
    Passed,
    Failed,
    Hung,
    DidNotBuild,
}

/// Runs the named rows, or without names all of them.
pub fn run(host: &Host, names: &[String]) -> Result<ExitCode> {
    let table = Table::read(&host.root)?;
    let mut lines = table.lines(names)?;
    lines.sort_by_key(|line| (line.is_model, line.package().to_string()));
    let cx = Cx::new(host, "mutants", Duration::from_secs(3 * 3600))?;
    let copy = Copy::new(&cx, host.work.join("models/copy"));
    let (begun, mut survivors, mut clean) = (Instant::now(), Vec::new(), HashMap::new());
    for line in &lines {
        print!("{:<4} {:<44} ", line.row, line.mutation);
        let _ = std::io::stdout().flush();
        let begun = Instant::now();
        let outcome = copy.show(line, &mut clean);
        let seconds = begun.elapsed().as_secs_f64();
        match outcome {
            Ok(how) => println!("{how:<8} {seconds:6.1} s"),
            Err(Fault::Interrupted) => return Err(Fault::Interrupted),
            Err(fault) => {
                println!("SURVIVES {seconds:6.1} s\n  {}\n  test: {}\n  {fault}", line.statement, line.test);
                survivors.push(format!("{} {}", line.row, line.mutation));
            }
        }
    }
    copy.sync()?;
    let caught = lines.len() - survivors.len();
    println!("{caught} caught, {} not, in {:.0} s", survivors.len(), begun.elapsed().as_secs_f64());
    survivors.iter().for_each(|survivor| println!("  not caught: {survivor}"));
    Ok(if survivors.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Copy<'_> {
    /// The test passes as the code is and fails with the mutation. `clean` remembers tests that passed.
    fn show(&self, line: &Line, clean: &mut HashMap<String, ()>) -> Result<&'static str> {
        self.sync()?;
        if !clean.contains_key(&line.test) {
            match self.test(line)? {
                Ended::Passed => clean.insert(line.test.clone(), ()),
                Ended::Failed => return fault("the test fails without the mutation"),
                Ended::Hung => return fault("the test hangs without the mutation"),
                Ended::DidNotBuild => return fault("the test does not build without the mutation"),
            };
        }
        self.apply(&self.root().join("bench/lab/rows").join(&line.mutation))?;
        match self.test(line)? {
            Ended::Failed => Ok("caught"),
            Ended::Hung if line.may_hang => Ok("hangs"),
            Ended::DidNotBuild if line.may_not_build => Ok("refused"),
            Ended::Passed => fault("the test passes with the mutation"),
            Ended::Hung => fault("the test hangs with the mutation, and the table does not say that it may"),
            Ended::DidNotBuild => fault("the mutant does not build: mend the patch"),
        }
    }

    fn test(&self, line: &Line) -> Result<Ended> {
        let cargo = match line.is_model {
            true => models::cargo_test(self.cx()),
            false => models::cargo_test_in(self.cx(), self.cx().host.work.join("models/std")),
        };
        let cargo = cargo.args(["--locked", "--quiet"]).env("RUST_BACKTRACE", "0").cwd(self.root()).quiet();
        let test = cargo.clone().args(line.test_args());
        // What a compile-fail test runs is the compiler, so there is nothing to build first.
        if !line.may_not_build {
            let built = test.clone().arg("--no-run").limit(BUILD_LIMIT).run(self.cx())?;
            if !built.status.success() {
                return Ok(Ended::DidNotBuild);
            }
        }
        let limit = if line.may_not_build { BUILD_LIMIT } else { TEST_LIMIT };
        match test.limit(limit).run(self.cx()) {
            Ok(output) if output.status.success() => {
                ensure!(count_passed(&output.stdout) > 0, "`{}` matches no test", line.test);
                Ok(Ended::Passed)
            }
            Ok(_) => Ok(Ended::Failed),
            Err(Fault::TimedOut { .. }) => Ok(Ended::Hung),
            Err(fault) => Err(fault),
        }
    }
}

fn fault<T>(what: &str) -> Result<T> {
    Err(Fault::Check(what.into()))
}
