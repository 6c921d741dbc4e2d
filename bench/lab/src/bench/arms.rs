//! The programs that are measured: built, pinned to a CPU, asked for one figure.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::thread::{CpuSet, sched_getaffinity};

use crate::cargo::cargo;
use crate::fault::{Context, Fault, Result, ensure};
use crate::proc::Cmd;
use crate::step::Cx;

/// Two CPUs that we may use; where there is but one, the same one twice.
pub fn cpus() -> Result<[usize; 2]> {
    let allowed = sched_getaffinity(None).context(|| "sched_getaffinity".into())?;
    let mut allowed = (0..CpuSet::MAX_CPU).filter(|&cpu| allowed.is_set(cpu));
    let first = allowed.next().unwrap_or(0);
    Ok([first, allowed.next().unwrap_or(first)])
}

/// The command, on this CPU and no other.
pub fn pinned(command: Cmd, cpu: usize) -> Cmd {
    command.under(["taskset", "-c", &cpu.to_string()])
}

/// One of pmd's examples, as `cargo build --release` has it.
pub fn example(cx: &Cx<'_>, name: &str) -> Result<PathBuf> {
    let build = ["build", "--release", "--locked", "--package", "pmd", "--example", name];
    cargo(cx).args(build).run_to_log(cx)?;
    Ok(cx.host.target().join("release/examples").join(name))
}

/// The arms in Rust, which print one figure a run: the program of bench/micro.
pub fn micro(cx: &Cx<'_>) -> Result<PathBuf> {
    cargo(cx).args(["build", "--release", "--locked", "--package", "micro"]).run_to_log(cx)?;
    Ok(cx.host.target().join("release/micro"))
}

/// UDP echo and Rx calls on kernel sockets and on ports, one side of one way a run: the program of bench/vs_kernel.
pub fn vs_kernel(cx: &Cx<'_>) -> Result<PathBuf> {
    cargo(cx).args(["build", "--release", "--locked", "--package", "vs_kernel"]).run_to_log(cx)?;
    Ok(cx.host.target().join("release/vs_kernel"))
}

/// The anchor of the buffer cycle, on DPDK's ring and pool.
pub fn buffer_cycle(cx: &Cx<'_>) -> Result<PathBuf> {
    with_package(cx, "buffer_cycle", "libdpdk")
}

/// An anchor in C, linked with what `pkg-config` knows as `package`.
pub fn with_package(cx: &Cx<'_>, name: &str, package: &str) -> Result<PathBuf> {
    let flags = |which| -> Result<Vec<String>> {
        let told = Cmd::new("pkg-config").args([which, package]).ok(cx)?.stdout;
        Ok(told.split_whitespace().map(String::from).collect())
    };
    // Debian's flags say -march=corei7; the last one counts.
    let before = flags("--cflags")?.into_iter().chain(["-march=native".into()]).collect::<Vec<_>>();
    let libraries = flags("--libs")?.into_iter().chain(["-lpthread".into()]).collect::<Vec<_>>();
    compile(cx, name, &before, &libraries)
}

/// The anchor of rxperf, on OpenAFS's Rx library.
pub fn afs_rxperf(cx: &Cx<'_>) -> Result<PathBuf> {
    compile(cx, "afs_rxperf", &["-march=native".into()], &["-lafsrpc".into(), "-lpthread".into()])
}

/// A server that calls its client back, on OpenAFS's Rx library.
pub fn afs_callback(cx: &Cx<'_>) -> Result<PathBuf> {
    compile(cx, "afs_callback", &[], &["-lafsrpc".into(), "-lpthread".into()])
}

/// A client of the volume database with a ticket from a KDC, on OpenAFS's Rx library.
pub fn afs_ticket(cx: &Cx<'_>) -> Result<PathBuf> {
    compile(cx, "afs_ticket", &[], &["-lafsrpc".into(), "-lkrb5".into(), "-lpthread".into()])
}

/// An anchor in C that needs no library.
pub fn plain(cx: &Cx<'_>, name: &str) -> Result<PathBuf> {
    compile(cx, name, &["-march=native".into()], &[])
}

/// A program in C for a guest, whose CPU may have less than ours.
pub fn portable(cx: &Cx<'_>, name: &str) -> Result<PathBuf> {
    compile(cx, name, &[], &[])
}

fn compile(cx: &Cx<'_>, name: &str, flags: &[String], libraries: &[String]) -> Result<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../arms").join(name).with_extension("c");
    let program = cx.dir.join(name);
    let cc = Cmd::new("cc").arg("-O3").args(flags).arg("-o").arg(&program).arg(source).args(libraries);
    cc.limit(Duration::from_secs(120)).run_to_log(cx)?;
    Ok(program)
}

/// Runs a program whose last line is a JSON object; the number called `key` in it.
pub fn figure(cx: &Cx<'_>, command: &Cmd, key: &str) -> Result<f64> {
    number(&command.ok(cx)?.stdout, key)
}

/// The number called `key` in the JSON object at the end of a text. It has to be above zero.
pub fn number(stdout: &str, key: &str) -> Result<f64> {
    let last = stdout.lines().last().unwrap_or_default();
    let object: serde_json::Value = serde_json::from_str(last)
        .map_err(|error| Fault::Check(format!("the last line {last:?} is no JSON: {error}")))?;
    let number = object[key].as_f64().unwrap_or(f64::NAN);
    ensure!(number > 0.0 && number.is_finite(), "the last line {last:?} has no `{key}` above zero");
    Ok(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_read_from_the_last_line() {
        assert_eq!(number("starting\n{\"ns\":17.5}\n", "ns").unwrap(), 17.5);
    }

    #[test]
    fn a_program_that_says_nothing_or_zero_is_a_failure() {
        for stdout in ["", "words", "{\"other\":1}", "{\"ns\":0}", "{\"ns\":\"17\"}"] {
            assert!(number(stdout, "ns").is_err(), "{stdout:?}");
        }
    }
}
