//! The read side and the quiescent state.

use super::super::compare::{Bar, Comparison};
use super::super::rounds::Rounds;
use super::{Head, Programs};
use crate::fault::Result;
use crate::proc::Cmd;

/// ns over a plain load. The cost of following a pointer has to be that of a load.
const READ: Bar = Bar::WithinOver(1.0);
/// ns.
const QUIESCENT: Bar = Bar::Within(1.5);

const BOUNDARY: &str = "a shared pointer is loaded and the word behind it added to a sum; a quiescent state every 1024 reads \
    (crossbeam repin: every 32); each figure is the median of 9 batches of 10 ms after a warm-up, inside the program";
const BOUNDARY_TWO: &str =
    "as rcu-read, by two threads on a CPU each, at the same time and of the same word; the mean of both";
const BOUNDARY_QUIESCENT: &str = "nothing but quiescent states, one after the other, while nobody waits for a grace period; batches as in rcu-read";

/// What stands beside ours: its name in the table, and the arm of `micro` that does it.
const BESIDE: [(&str, &str); 8] = [
    ("plain load", "plain"),
    ("crossbeam repin/32", "crossbeam-repin"),
    ("crossbeam pin", "crossbeam-pin"),
    ("seize", "seize"),
    ("arc-swap", "arc-swap"),
    ("std RwLock", "std-rwlock"),
    ("parking_lot RwLock", "parking-lot-rwlock"),
    ("Arc clone+drop", "arc-clone"),
];

const HEADS: [Head; 2] = [
    Head { what: "rcu-read", unit: "ns/read", boundary: BOUNDARY },
    Head { what: "rcu-read, 2 CPUs", unit: "ns/read", boundary: BOUNDARY_TWO },
];

/// A line for each thing that ours is compared with, on one CPU and on two; then the quiescent states.
pub fn lines(programs: &Programs<'_>, rounds: &mut Rounds) -> Result<Vec<Comparison>> {
    let mut lines = Vec::new();
    for (cpus, head) in [1, 2].into_iter().zip(&HEADS) {
        lines.extend(read(programs, rounds, cpus, head)?);
    }
    lines.extend(quiescent(programs, rounds)?);
    Ok(lines)
}

fn read(programs: &Programs<'_>, rounds: &mut Rounds, cpus: usize, head: &Head) -> Result<Vec<Comparison>> {
    let on = programs.on(cpus);
    let micro = |arm: &str| Cmd::new(&programs.micro).args(["read", arm, &on]);
    let mut commands = vec![
        ("ours", micro("ours")),
        ("liburcu-qsbr", Cmd::new(&programs.urcu).args(["read", &on])),
        ("rte_rcu_qsbr", Cmd::new(&programs.rte).args(["read", &on])),
    ];
    commands.extend(BESIDE.map(|(name, arm)| (name, micro(arm))));
    let told = programs.measure_with_cycle(rounds, commands)?;
    let line = |anchor, bar| {
        told.line(head, told.side("ours", "RcuCell::load", "ns")?, told.side(anchor, anchor, "ns")?, bar)
    };
    let mut lines = vec![line("plain load", Some(READ))?];
    for anchor in
        ["liburcu-qsbr", "rte_rcu_qsbr"].into_iter().chain(BESIDE[1..].iter().map(|(name, _)| *name))
    {
        lines.push(line(anchor, None)?);
    }
    Ok(lines)
}

fn quiescent(programs: &Programs<'_>, rounds: &mut Rounds) -> Result<Vec<Comparison>> {
    let on = programs.on(1);
    let commands = vec![
        ("ours", Cmd::new(&programs.micro).args(["quiescent", "ours", &on])),
        ("crossbeam repin", Cmd::new(&programs.micro).args(["quiescent", "crossbeam-repin", &on])),
        ("liburcu-qsbr", Cmd::new(&programs.urcu).args(["quiescent", &on])),
        ("rte_rcu_qsbr", Cmd::new(&programs.rte).args(["quiescent", &on])),
    ];
    let told = programs.measure_with_cycle(rounds, commands)?;
    let head = Head { what: "rcu-quiescent", unit: "ns/state", boundary: BOUNDARY_QUIESCENT };
    [("liburcu-qsbr", Some(QUIESCENT)), ("rte_rcu_qsbr", None), ("crossbeam repin", None)]
        .into_iter()
        .map(|(anchor, bar)| {
            told.line(
                &head,
                told.side("ours", "Reader::quiescent", "ns")?,
                told.side(anchor, anchor, "ns")?,
                bar,
            )
        })
        .collect()
}
