//! A million idle connections at one endpoint.

use super::{Head, constant};
use crate::bench::arms::{self, cpus, number};
use crate::bench::compare::{Bar, Comparison, Side};
use crate::bench::rounds::{Arm, Rounds};
use crate::fault::Result;
use crate::proc::Cmd;
use crate::step::Cx;

const CONNECTIONS: &str = "1000000";
/// No slowdown of more than a tenth.
const NO_SLOWER: Bar = Bar::AtLeast(0.9);
/// What a connection without anything to do would have to cost for ten million of them.
const GOAL_BYTES: f64 = 128.0;

const CALLS: Head = Head {
    what: "rx-idle, calls of active ones",
    unit: "calls/s",
    boundary: "64 calls of 64 B there and 64 B back in flight over 64 active connections, opened here and there among the idle ones; both \
        endpoints in one thread, no engine; the median of 9 batches of 100 ms inside the program",
};
const BYTES: Head = Head {
    what: "rx-idle, memory",
    unit: "B/connection",
    boundary: "growth of the process's resident memory from the first 1024 connections on, for each idle service connection: the \
        connection, what it remembers of its last calls, its timer, its place in the hash table, and the same for its peer, as each comes \
        from an address of its own",
};

/// Calls a second with and without idle connections, and the memory of each.
pub fn idle(cx: &Cx<'_>, rounds: &mut Rounds) -> Result<Vec<Comparison>> {
    let [_, cpu] = cpus()?;
    let micro = arms::micro(cx)?;
    let run = |connections: &str| Cmd::new(&micro).args(["idle", connections, &cpu.to_string()]);
    let (with, without) = (run(CONNECTIONS), run("0"));
    let mut arms = [
        Arm::new("beside 1 M idle", || Ok(with.ok(cx)?.stdout)),
        Arm::new("alone", || Ok(without.ok(cx)?.stdout)),
    ];
    let (told, orders) = rounds.run(cx, &mut arms)?;
    let side = |at: usize, key: &str| -> Result<Side> {
        let figures = told[at].iter().map(|stdout| number(stdout, key)).collect::<Result<_>>()?;
        Ok(Side { name: arms[at].name, figures })
    };
    let (calls, bytes) = (side(0, "calls_per_second")?, side(0, "bytes_each")?);
    let goal = constant("goal", GOAL_BYTES, rounds.count);
    Ok(vec![
        CALLS.line(calls, side(1, "calls_per_second")?, Some(NO_SLOWER), &orders),
        BYTES.line(bytes, goal, None, &orders),
    ])
}
