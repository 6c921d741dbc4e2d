//! What sockets under quiescent-state RCU cost: reading, waiting for a grace period, dispatching a packet, finding a socket.
//!
//! Each part is one set of rounds: ours and all that stands beside it run in the same round, in random order. A figure is one run of one
//! program, `micro` (bench/micro) for the arms in Rust and the programs of bench/arms for those in C.

mod dispatch;
mod grace;
mod lookup;
mod read;

use std::path::PathBuf;

use super::arms::{self, cpus, number};
use super::compare::{Bar, Comparison, Side};
use super::rounds::{Arm, Orders, Rounds};
use crate::fault::{Result, ensure};
use crate::proc::Cmd;
use crate::step::Cx;

/// The name of the arm that absolute bars stretch with.
const CYCLE: &str = "buffer cycle in C";

/// All parts.
pub fn rcu(cx: &Cx<'_>, rounds: &mut Rounds) -> Result<Vec<Comparison>> {
    let programs = Programs::build(cx)?;
    let mut lines = read::lines(&programs, rounds)?;
    lines.extend(grace::lines(&programs, rounds)?);
    lines.extend(dispatch::lines(&programs, rounds)?);
    lines.extend(lookup::lines(&programs, rounds)?);
    Ok(lines)
}

/// What is run, and on which CPUs.
struct Programs<'a> {
    cx: &'a Cx<'a>,
    micro: PathBuf,
    urcu: PathBuf,
    rte: PathBuf,
    hash: PathBuf,
    cycle: PathBuf,
    cpus: [usize; 2],
}

impl Programs<'_> {
    fn build<'a>(cx: &'a Cx<'a>) -> Result<Programs<'a>> {
        let cpus = cpus()?;
        ensure!(
            cpus[0] != cpus[1],
            "a reader and a writer need a CPU each, and this process may use one only"
        );
        Ok(Programs {
            cx,
            micro: arms::micro(cx)?,
            urcu: arms::with_package(cx, "rcu_urcu", "liburcu-qsbr")?,
            rte: arms::with_package(cx, "rcu_rte", "libdpdk")?,
            hash: arms::with_package(cx, "hash_rte", "libdpdk")?,
            cycle: arms::buffer_cycle(cx)?,
            cpus,
        })
    }

    /// The CPUs' numbers as the programs take them: one of them, or both.
    fn on(&self, cpus: usize) -> String {
        self.cpus[..cpus].iter().map(usize::to_string).collect::<Vec<_>>().join(",")
    }

    /// What an arm for each command told in each round, and the buffer cycle besides, for absolute bars.
    fn measure_with_cycle(
        &self,
        rounds: &mut Rounds,
        mut commands: Vec<(&'static str, Cmd)>,
    ) -> Result<Told> {
        commands.push((CYCLE, Cmd::new(&self.cycle).arg(format!("0@{}", self.cpus[0]))));
        self.measure(rounds, commands)
    }

    /// What an arm for each command told in each round.
    fn measure(&self, rounds: &mut Rounds, commands: Vec<(&'static str, Cmd)>) -> Result<Told> {
        let mut arms: Vec<_> = commands
            .iter()
            .map(|(name, command)| Arm::new(name, || Ok(command.ok(self.cx)?.stdout)))
            .collect();
        let (told, orders) = rounds.run(self.cx, &mut arms)?;
        let names = commands.iter().map(|(name, _)| *name);
        Ok(Told { told: names.zip(told).collect(), orders })
    }
}

/// What every arm of a part told, round by round.
struct Told {
    told: Vec<(&'static str, Vec<String>)>,
    orders: Orders,
}

impl Told {
    /// The figures called `key` of the arm `arm`, as a side called `name`.
    fn side(&self, arm: &str, name: &'static str, key: &str) -> Result<Side> {
        let told = self.told.iter().find(|(known, _)| *known == arm);
        let (_, told) = told.unwrap_or_else(|| panic!("no arm is called {arm:?}"));
        let figures = told.iter().map(|stdout| number(stdout, key)).collect::<Result<_>>()?;
        Ok(Side { name, figures })
    }

    /// A line of the table.
    fn line(&self, head: &Head, ours: Side, anchor: Side, bar: Option<Bar>) -> Result<Comparison> {
        let cycles = match bar {
            Some(bar) if bar.is_absolute() => self.side(CYCLE, CYCLE, "cpu_ns_per_packet")?.figures,
            _ => Vec::new(),
        };
        let Head { what, unit, boundary } = *head;
        Ok(Comparison { what, unit, boundary, ours, anchor, bar, cycles, orders: self.orders.clone() })
    }
}

/// What is the same for several lines.
struct Head {
    what: &'static str,
    unit: &'static str,
    boundary: &'static str,
}
