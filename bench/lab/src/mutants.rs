//! `cargo lab models --mutants`: shows that the tests of the row table notice what they are there to notice.
//!
//! Works on a copy of the tracked files under the lab's folder, which is kept with its builds, so that a mutant costs one incremental
//! build of the crate it is in. Tests of one package follow each other for the same reason.

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::cargo::count_passed;
use crate::fault::{Context, Fault, Result, ensure};
use crate::host::Host;
use crate::models;
use crate::proc::Cmd;
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
    let copy = Copy { root: host.work.join("models/copy"), cx: &cx };
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

/// A copy of the checkout, to be damaged.
struct Copy<'a> {
    root: PathBuf,
    cx: &'a Cx<'a>,
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
        self.apply(&line.mutation)?;
        match self.test(line)? {
            Ended::Failed => Ok("caught"),
            Ended::Hung if line.may_hang => Ok("hangs"),
            Ended::DidNotBuild if line.may_not_build => Ok("refused"),
            Ended::Passed => fault("the test passes with the mutation"),
            Ended::Hung => fault("the test hangs with the mutation, and the table does not say that it may"),
            Ended::DidNotBuild => fault("the mutant does not build: mend the patch"),
        }
    }

    /// Makes the copy equal to the checkout. Files that are equal keep their time, so that cargo builds only what changed.
    fn sync(&self) -> Result {
        let root = &self.cx.host.root;
        let list = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
        let told = Cmd::new("git").args(list).cwd(root).quiet().ok(self.cx)?.stdout;
        let mut stale = files(&self.root);
        for name in told.split('\0').filter(|name| !name.is_empty()) {
            let (from, to) = (root.join(name), self.root.join(name));
            let Ok(content) = fs::read(&from) else { continue }; // deleted, and not yet committed
            stale.retain(|path| *path != to);
            if fs::read(&to).is_ok_and(|old| old == content) {
                continue;
            }
            let folder = to.parent().unwrap_or(&self.root);
            fs::create_dir_all(folder).context(|| format!("create {}", folder.display()))?;
            fs::write(&to, content).context(|| format!("write {}", to.display()))?;
        }
        stale
            .iter()
            .try_for_each(|path| fs::remove_file(path).context(|| format!("remove {}", path.display())))
    }

    fn apply(&self, patch: &str) -> Result {
        // The copy lies inside a checkout, which git must not take for what the patch is about.
        let git = Cmd::new("git").args(["apply", "-C1"]).arg(self.root.join("bench/lab/rows").join(patch));
        let above = self.root.parent().unwrap_or(Path::new("/"));
        git.env("GIT_CEILING_DIRECTORIES", above).cwd(&self.root).quiet().ok(self.cx).map(drop)
    }

    fn test(&self, line: &Line) -> Result<Ended> {
        let cargo = match line.is_model {
            true => models::cargo_test(self.cx),
            false => models::cargo_test_in(self.cx, self.cx.host.work.join("models/std")),
        };
        let cargo = cargo.args(["--locked", "--quiet"]).env("RUST_BACKTRACE", "0").cwd(&self.root).quiet();
        let test = cargo.clone().args(line.test_args());
        // What a compile-fail test runs is the compiler, so there is nothing to build first.
        if !line.may_not_build {
            let built = test.clone().arg("--no-run").limit(BUILD_LIMIT).run(self.cx)?;
            if !built.status.success() {
                return Ok(Ended::DidNotBuild);
            }
        }
        let limit = if line.may_not_build { BUILD_LIMIT } else { TEST_LIMIT };
        match test.limit(limit).run(self.cx) {
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

/// Every file under `folder`.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(files(&path))
        } else {
            found.push(path)
        }
    }
    found
}
