//! `cargo lab fuzz`: the targets of `rxrpc/fuzz/` under libFuzzer with AddressSanitizer, for so many minutes each. Needs no root.
//!
//! What a target finds worth keeping is minimised into its corpus, which is committed and replayed by `cargo test`. An input that
//! breaks something is left in `rxrpc/fuzz/broken/` by its name; mended, it belongs into the corpus as well.
//!
//! Coverage instrumentation and the sanitizer are part of the stable compiler and have to be unlocked by `RUSTC_BOOTSTRAP`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use crate::cargo::cargo;
use crate::fault::{Context, Fault, Result, ensure};
use crate::host::Host;
use crate::proc::Cmd;
use crate::step::Cx;

const TARGETS: &[&str] = &["packet", "ack", "security", "ticket", "datagrams"];

/// Inputs are not made longer than this: several hundred packets of the sequences.
const LEN_MAX: u32 = 4_096;

/// What to fuzz, and for how long.
#[derive(clap::Args)]
pub struct Args {
    /// packet, ack, security, ticket, datagrams; without names, all of them
    targets: Vec<String>,
    /// For each target
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
}

/// Instrumentation as cargo-fuzz has it: counters and comparisons, which libFuzzer is guided by.
const RUSTFLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing -Zsanitizer=address -Ccodegen-units=1 \
    -Cdebug-assertions=on -Coverflow-checks=on";

/// Builds the targets and runs them one after the other.
pub fn run(host: &Host, args: &Args) -> Result<ExitCode> {
    for name in &args.targets {
        ensure!(TARGETS.contains(&name.as_str()), "there is no target `{name}`: {}", TARGETS.join(", "));
    }
    let time = Duration::from_secs_f64(args.minutes * 60.0);
    let cx = Cx::new(host, "fuzz", Duration::from_secs(1_200) + (time + MERGE_LIMIT) * TARGETS.len() as u32)?;
    println!("building the targets");
    let programs = build(&cx)?;
    let chosen = |name: &&&str| args.targets.is_empty() || args.targets.iter().any(|target| target == **name);
    let mut broken = Vec::new();
    for name in TARGETS.iter().filter(chosen) {
        match fuzz(&cx, &programs, name, time) {
            Ok(said) => println!("{name:<10} {said}"),
            Err(Fault::Interrupted) => return Err(Fault::Interrupted),
            Err(fault) => {
                println!("{name:<10} FAILED: {fault}\n  log: {}", cx.log.path().display());
                broken.push(name);
            }
        }
    }
    println!("{} failed", broken.len());
    Ok(if broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What minimising a corpus may take.
const MERGE_LIMIT: Duration = Duration::from_secs(300);

/// Builds them all, and returns the folder that they are in.
fn build(cx: &Cx<'_>) -> Result<PathBuf> {
    let told = Cmd::new("rustc").arg("-vV").quiet().ok(cx)?.stdout;
    let triple = told.lines().find_map(|line| line.strip_prefix("host: "));
    let triple =
        triple.ok_or_else(|| Fault::Check(format!("rustc does not say what it builds for: {told}")))?;
    let target = cx.host.work.join("fuzz/target");
    let build = ["build", "--release", "--locked", "--package", "fuzz", "--features", "libfuzzer", "--bins"];
    let cargo = cargo(cx).args(build).args(["--target", triple]).env("CARGO_TARGET_DIR", &target);
    cargo.env("RUSTC_BOOTSTRAP", "1").env("RUSTFLAGS", RUSTFLAGS).run_to_log(cx)?;
    Ok(target.join(triple).join("release"))
}

/// Fuzzes one target, then minimises its corpus. Returns libFuzzer's last words.
fn fuzz(cx: &Cx<'_>, programs: &Path, name: &str, time: Duration) -> Result<String> {
    let program = programs.join(name);
    let (corpus, broken) =
        (cx.host.root.join("rxrpc/fuzz/corpus").join(name), cx.host.root.join("rxrpc/fuzz/broken"));
    let (found, least) = (cx.dir.join(format!("{name}-found")), cx.dir.join(format!("{name}-least")));
    for folder in [&found, &least] {
        let _ = std::fs::remove_dir_all(folder);
    }
    for folder in [&corpus, &broken, &found, &least] {
        std::fs::create_dir_all(folder).context(|| format!("create {}", folder.display()))?;
    }
    let run = Cmd::new(&program)
        .arg(&found)
        .arg(&corpus)
        .arg(format!("-artifact_prefix={}/{name}-", broken.display()))
        .arg(format!("-max_total_time={}", time.as_secs().max(1)))
        .arg(format!("-max_len={LEN_MAX}"))
        // A hang is a fault: no input takes a millisecond.
        .args(["-timeout=10", "-rss_limit_mb=2048", "-print_final_stats=1"])
        // What is lost of the pool the targets look at themselves; the rest would show as growth. LeakSanitizer needs ptrace.
        .env("ASAN_OPTIONS", "detect_leaks=0");
    let told = run.quiet().limit(time + Duration::from_secs(120)).ok(cx)?.stderr;
    let runs = told.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units: "));
    let merge = Cmd::new(&program)
        .env("ASAN_OPTIONS", "detect_leaks=0")
        // The fewest inputs that reach every place that any input does; how often they do is not counted.
        .args(["-set_cover_merge=1", "-use_counters=0"])
        .arg(format!("-max_len={LEN_MAX}"));
    merge.arg(&least).arg(&corpus).arg(&found).quiet().limit(MERGE_LIMIT).ok(cx)?;
    let kept = replace(&corpus, &least)?;
    Ok(format!("{} inputs in {:.0} s, {kept} kept", runs.unwrap_or("?").trim(), time.as_secs_f64()))
}

/// Puts the files of one folder in the place of another's. Returns how many there are.
fn replace(corpus: &Path, least: &Path) -> Result<usize> {
    let entries = |folder: &Path| -> Result<Vec<PathBuf>> {
        let entries = std::fs::read_dir(folder).context(|| format!("read {}", folder.display()))?;
        Ok(entries.flatten().map(|entry| entry.path()).collect())
    };
    for old in entries(corpus)? {
        // Files with a name of their own were put there by hand: what once broke something.
        if old.file_name().is_some_and(|name| name.len() == 40) {
            std::fs::remove_file(&old).context(|| format!("remove {}", old.display()))?;
        }
    }
    let new = entries(least)?;
    for file in &new {
        let kept = corpus.join(file.file_name().expect("a file"));
        std::fs::copy(file, &kept).context(|| format!("write {}", kept.display()))?;
    }
    Ok(new.len())
}
