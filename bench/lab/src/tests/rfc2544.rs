//! `rxline linerate rfc2544` as a command: in virtual time, on a wire whose capacity, delay and depth are known, with its report and its exit codes.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::cargo::build_rxline;
use crate::fault::{Fault, Result, ensure};
use crate::proc::{Cmd, Output};
use crate::step::Cx;

/// Frames of 512 bytes, FCS included, of which the wire counts 508.
const FRAME: f64 = 508.0 * 8.0;
const RATE: f64 = 100e6;
const DEPTH: f64 = 149.0;
const DELAY_NS: f64 = 2e6;
const WIRE: &str = "sim:rate=100M,delay=2ms,limit=149@memory:lab";
const QUICK: &str = "--virtual-time --rx memory:lab --frames 512 --trial 1 --settle 0.01 --drain 0.1 --latency-trials 2 --latency-load 95 \
                     --bursts 2 --burst-max 0.1 --json --quiet";

/// What is known of the wire is found within 2 %; the report is written, and written again, but over nothing else.
pub fn rfc2544(cx: &Cx<'_>) -> Result {
    let rxline = build_rxline(cx)?;
    let dir = cx.dir.join("report");
    let run = |wire: &str, rest: &[&str]| {
        let cmd =
            Cmd::new(&rxline).args(["linerate", "rfc2544", "--tx", wire]).args(QUICK.split_whitespace());
        cmd.args(rest).arg("--report").arg(&dir).limit(Duration::from_secs(240)).run(cx)
    };
    let gigabit = ["--line-rate", "1Gbit"];
    let output = run(WIRE, &gigabit)?;
    ensure!(output.status.success(), "{:?}: {}", output.status, output.stderr);
    found(&json(&output)?)?;
    report(&dir)?;
    for (wire, rest, code) in [
        // A report may be written again, if the figures are bad too.
        ("sim:loss=0.5,seed=2@memory:lab", &gigabit[..], 1),
        (WIRE, &[], 2),
        (WIRE, &["--line-rate", "5Mpps"], 2),
        ("tap:lab", &gigabit, 2),
    ] {
        let output = run(wire, rest)?;
        ensure!(
            output.status.code() == Some(code),
            "{wire} {rest:?}: {:?}: {}",
            output.status,
            output.stderr
        );
    }
    let foreign = dir.join("thesis.tex");
    std::fs::write(&foreign, "mine").map_err(|error| Fault::Check(format!("write {foreign:?}: {error}")))?;
    let output = run(WIRE, &gigabit)?;
    ensure!(
        output.status.code() == Some(2) && output.stderr.contains("thesis.tex"),
        "{:?}: {}",
        output.status,
        output.stderr
    );
    Ok(())
}

fn json(output: &Output) -> Result<Value> {
    serde_json::from_str(&output.stdout).map_err(|error| Fault::Check(format!("no JSON on stdout: {error}")))
}

fn found(report: &Value) -> Result {
    let size = &report["rfc2544"]["sizes"][0];
    let capacity = RATE / FRAME;
    let line_rate = 1e9 / (532.0 * 8.0);
    for (pointer, expected) in [
        ("/throughput/0/frames_per_second", capacity),
        ("/throughput/1/frames_per_second", capacity / 0.995),
        ("/latency/tagged_mean_ns", DELAY_NS + FRAME / RATE * 1e9),
        ("/latency/p99_ns", DELAY_NS + FRAME / RATE * 1e9),
        ("/loss_curve/0/loss_percent", 100.0 * (1.0 - capacity / line_rate)),
        // The burst is over before its first frame has left the wire.
        ("/back_to_back/frames", DEPTH),
    ] {
        let found = size.pointer(pointer).and_then(Value::as_f64);
        let near = found.is_some_and(|found| (found / expected - 1.0).abs() <= 0.02);
        ensure!(near, "{pointer} is {found:?}, not {expected} within 2 %");
    }
    Ok(())
}

fn report(dir: &Path) -> Result {
    let text = |name: &str| {
        let path = dir.join(name);
        std::fs::read_to_string(&path)
            .map_err(|error| Fault::Check(format!("read {}: {error}", path.display())))
    };
    let page = text("index.html")?;
    ensure!(
        page.matches("<svg").count() == 3 && !page.contains("<script"),
        "the page is not what it should be"
    );
    ensure!(text("throughput.csv")?.lines().count() == 3, "two throughputs");
    ensure!(text("trials.csv")?.lines().count() > 20, "a line for each trial");
    serde_json::from_str::<Value>(&text("report.json")?)
        .map_err(|error| Fault::Check(format!("report.json: {error}")))?;
    Ok(())
}
