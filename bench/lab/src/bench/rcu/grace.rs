//! The grace period as the writer sees it.

use super::super::compare::{Bar, Comparison};
use super::super::rounds::Rounds;
use super::{Head, Programs};
use crate::fault::Result;
use crate::proc::Cmd;

/// us; the goal is 2.
const P99: Bar = Bar::Within(10.0);
/// Of liburcu's.
const P99_RATIO: Bar = Bar::AtMost(2.0);

const BOUNDARY: &str = "from the call of synchronize to its return, on one CPU, while a reader on the other CPU reads and declares a \
    quiescent state in turn, without pause; up to 20,000 grace periods one after the other, after 500 of warm-up; the clock's own \
    cost is part of it";

/// Medians for the record, and the 99th percentile against two bars.
pub fn lines(programs: &Programs<'_>, rounds: &mut Rounds) -> Result<Vec<Comparison>> {
    let [writer, reader] = programs.cpus.map(|cpu| cpu.to_string());
    let on = |program: &std::path::Path, arm: Option<&str>| {
        let words = ["grace"].into_iter().chain(arm).chain([writer.as_str(), reader.as_str()]);
        words.fold(Cmd::new(program), |command, word| command.arg(word))
    };
    let commands = vec![
        ("ours", on(&programs.micro, Some("ours"))),
        ("crossbeam defer+flush", on(&programs.micro, Some("crossbeam-flush"))),
        ("liburcu-qsbr", on(&programs.urcu, None)),
        ("rte_rcu_qsbr", on(&programs.rte, None)),
    ];
    let told = programs.measure_with_cycle(rounds, commands)?;
    let line = |what, key, anchor, bar| {
        let head = Head { what, unit: "us", boundary: BOUNDARY };
        let side = |arm, name| {
            told.side(arm, name, key).map(|mut side| {
                side.figures.iter_mut().for_each(|figure| *figure /= 1e3);
                side
            })
        };
        told.line(&head, side("ours", "rcu::synchronize")?, side(anchor, anchor)?, bar)
    };
    let mut lines = Vec::new();
    for anchor in ["liburcu-qsbr", "rte_rcu_qsbr", "crossbeam defer+flush"] {
        lines.push(line("rcu-grace p50", "p50_ns", anchor, None)?);
    }
    lines.push(line("rcu-grace p99", "p99_ns", "liburcu-qsbr", Some(P99))?);
    lines.push(line("rcu-grace p99", "p99_ns", "liburcu-qsbr", Some(P99_RATIO))?);
    for anchor in ["rte_rcu_qsbr", "crossbeam defer+flush"] {
        lines.push(line("rcu-grace p99", "p99_ns", anchor, None)?);
    }
    Ok(lines)
}
