//! Calls on one serving core over `memory:`, and where that core's time goes.

use super::{Head, constant};
use crate::bench::arms::{self, cpus, number};
use crate::bench::compare::{Bar, Comparison, Side};
use crate::bench::profile;
use crate::bench::rounds::{Arm, Rounds};
use crate::fault::{Result, ensure};
use crate::proc::Cmd;
use crate::step::Cx;

/// What the best published system does on hardware (eRPC, NSDI 2019), and what we would like to.
const GOAL: (&str, f64) = ("goal", 10e6);

const SERVED: Head = Head {
    what: "rx-memory, one serving core",
    unit: "calls/s",
    boundary: "64 B there and 64 B back, no security, 128 calls in flight on 32 connections, between two engines with a core each on a \
        CPU of its own, joined by memory:; the service is inline on its core; replies compared by the client; the median of 9 batches of \
        100 ms inside the program. Both cores do about as much for a call, so the client may be what limits it",
};

/// Calls a second, beside the goal; the bar is in calls a second.
pub fn memory(cx: &Cx<'_>, rounds: &mut Rounds) -> Result<Vec<Comparison>> {
    let [client, server] = cpus()?;
    ensure!(client != server, "client and server need a CPU each, and this process may use one only");
    let micro = Cmd::new(arms::micro(cx)?).args(["serve", &server.to_string(), &client.to_string()]);
    let cycle = Cmd::new(arms::buffer_cycle(cx)?).arg(format!("0@{client}"));
    let mut arms = [
        Arm::new("RxHandler", || number(&micro.ok(cx)?.stdout, "calls_per_second")),
        Arm::new("buffer cycle in C", || number(&cycle.ok(cx)?.stdout, "cpu_ns_per_packet")),
    ];
    let (figures, orders) = rounds.run(cx, &mut arms)?;
    let [served, cycles] = figures.try_into().unwrap_or_else(|_| unreachable!("two arms"));
    profile::print(cx, &micro, server, served.iter().copied().fold(0.0, f64::max))?;
    let (ours, goal) = (Side { name: "RxHandler", figures: served }, constant(GOAL.0, GOAL.1, rounds.count));
    Ok(vec![Comparison { cycles, ..SERVED.line(ours, goal, Some(Bar::Reaches(2e6)), &orders) }])
}
