//! The tests that need no peer: as an ordinary user, and those that need privileges in namespaces of their own.

use std::fs;
use std::os::unix::fs::chown;
use std::path::PathBuf;
use std::time::Duration;

use crate::cargo::{cargo, count_passed, test_programs};
use crate::fault::{Context, Fault, Result, ensure};
use crate::host::User;
use crate::proc::Cmd;
use crate::step::Cx;

/// Debian's `nobody`: owns nothing, may do nothing.
pub const NOBODY: User = User { uid: 65534, gid: 65534 };

const LIMIT: Duration = Duration::from_secs(900);

/// `cargo test --workspace` as an ordinary user: whoever called sudo, or else `nobody`.
pub fn workspace(cx: &Cx<'_>) -> Result {
    let test = ["test", "--workspace", "--locked"];
    if cx.host.owner.is_some() {
        return cargo(cx).args(test).limit(LIMIT).run_to_log(cx);
    }
    cargo(cx).args(["fetch", "--locked"]).run_to_log(cx)?;
    as_nobody(cx)?.arg("--offline").limit(LIMIT).run_to_log(cx)?;
    let told = fs::read_to_string(cx.log.path()).unwrap_or_default();
    ensure!(count_passed(&told) > 0, "not one test ran");
    cx.log.line(format!("{} tests passed", count_passed(&told)));
    Ok(())
}

/// Root's checkout, toolchain and crates may lie where nobody else can look. So they are shown to `nobody`, read-only,
/// under /mnt of a mount namespace of its own, beside a build folder that is kept for the next time.
fn as_nobody(cx: &Cx<'_>) -> Result<Cmd> {
    let target = cx.host.work.join("user");
    fs::create_dir_all(&target).context(|| format!("create {}", target.display()))?;
    chown(&target, Some(NOBODY.uid), Some(NOBODY.gid)).context(|| format!("chown {}", target.display()))?;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/src/tests/as_nobody.sh");
    let cmd = Cmd::new("unshare").args(["--mount", "--propagation", "private", "sh", script]);
    let cmd = cmd.arg(&cx.host.root).arg(&target).arg(sysroot(cx)?).arg(cargo_home()?);
    let nobody = Cmd::new("cargo").args(["test", "--workspace", "--locked"]).unprivileged(NOBODY);
    Ok(nobody.under(cmd.words()))
}

/// Tests of drivers on real Linux interfaces, in namespaces that hold nothing but loopback.
pub fn privileged(cx: &Cx<'_>) -> Result {
    run_privileged(cx, |name| name.ends_with("_privileged"))
}

/// The test programs of pmd that need privileges and whose names are `wanted`, each in namespaces of its own.
pub fn run_privileged(cx: &Cx<'_>, wanted: impl Fn(&str) -> bool) -> Result {
    let build = ["test", "--locked", "--package", "pmd", "--features", "privileged-tests", "--no-run"];
    let built = cargo(cx).args(build).arg("--message-format=json").quiet().limit(LIMIT).ok(cx)?;
    let programs = test_programs(&built.stdout)?;
    let mut passed = 0;
    for (name, program) in programs.iter().filter(|(name, _)| wanted(name)) {
        let alone = Cmd::new(program).arg("--test-threads=1").cwd(&cx.host.root);
        let alone = alone.under(["unshare", "--net", "--mount", "--"]).limit(Duration::from_secs(180));
        let count = count_passed(&alone.ok(cx)?.stdout);
        cx.log.line(format!("{name}: {count} passed"));
        passed += count;
    }
    ensure!(passed > 0, "no test of this kind was built");
    Ok(())
}

fn sysroot(cx: &Cx<'_>) -> Result<PathBuf> {
    let told = Cmd::new("rustc").args(["--print", "sysroot"]).cwd(&cx.host.root).ok(cx)?;
    Ok(PathBuf::from(told.stdout.trim()))
}

fn cargo_home() -> Result<PathBuf> {
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo"));
    let found = std::env::var_os("CARGO_HOME").map(PathBuf::from).or_else(home);
    found
        .filter(|path| path.is_dir())
        .ok_or_else(|| Fault::Check("cargo's home is not found: set CARGO_HOME".into()))
}
