//! What the two ancestor changes removed from the way of a packet: the rwlock around the wake-up, and the reference on the socket.

use super::super::compare::{Bar, Comparison};
use super::super::rounds::Rounds;
use super::{Head, Programs, Told};
use crate::fault::Result;
use crate::proc::Cmd;

/// The claim of both changes.
const CHEAPER: Bar = Bar::AtMost(1.0);

const PACKETS: &str = "an engine's whole receive path with a core on each CPU, 64-byte frames in bursts of 32 from a source that copies \
    one frame into fresh buffers: rx_burst, parsing, table lookup, queueing on the one socket that all cores share, one wake-up a \
    burst, freeing; for each packet the socket's object is held by a load under RCU, by Arc clone and drop, or under a rwlock's read \
    lock; nobody sleeps on the socket; the median of 9 batches of 50 ms inside the program";
const CALLS: &str = "two engines joined by memory:, a core of either on each CPU, 16 calls of 64 B there and 64 B back in flight a CPU, to \
    one serving socket that all cores share; every packet that the server receives holds the socket's object as in rcu-dispatch; \
    client and server are both counted; the median of 7 batches of 100 ms inside the program";

/// What is measured on one CPU and on two: the subcommand of `micro`, the key of the figure, the names of the two lines, and whether the
/// claim is judged by it. Packets are judged by CPU time, which says what a packet costs and not who had the CPU.
struct Measured {
    key: &'static str,
    unit: &'static str,
    what: [&'static str; 2],
    boundary: &'static str,
    bar: Option<Bar>,
}

const OF_PACKETS: [Measured; 2] = [
    Measured {
        key: "ns",
        unit: "CPU ns/packet",
        what: ["rcu-dispatch, 1 CPU", "rcu-dispatch, 2 CPUs"],
        boundary: PACKETS,
        bar: Some(CHEAPER),
    },
    Measured {
        key: "mpps",
        unit: "Mpps",
        what: ["rcu-packets, 1 CPU", "rcu-packets, 2 CPUs"],
        boundary: PACKETS,
        bar: None,
    },
];

const OF_CALLS: [Measured; 2] = [
    Measured {
        key: "us",
        unit: "CPU us/call",
        what: ["rcu-call, 1 CPU", "rcu-call, 2 CPUs"],
        boundary: CALLS,
        bar: None,
    },
    Measured {
        key: "calls_per_second",
        unit: "calls/s",
        what: ["rcu-calls, 1 CPU", "rcu-calls, 2 CPUs"],
        boundary: CALLS,
        bar: None,
    },
];

/// The arms by what holds the object: the name in the table, and what `micro` calls it.
const HELD: [(&str, &str); 3] = [("RCU", "rcu"), ("Arc", "arc"), ("rwlock", "rwlock")];

/// Packets, then calls.
pub fn lines(programs: &Programs<'_>, rounds: &mut Rounds) -> Result<Vec<Comparison>> {
    let mut lines = Vec::new();
    for (subcommand, measured) in [("dispatch", &OF_PACKETS), ("calls", &OF_CALLS)] {
        let told = [1, 2].map(|cpus| {
            let on = programs.on(cpus);
            let command = |arm: &str| Cmd::new(&programs.micro).args([subcommand, arm, &on]);
            programs.measure(rounds, HELD.map(|(name, arm)| (name, command(arm))).into())
        });
        let [one, two] = told;
        let told = [one?, two?];
        for measured in measured {
            for (told, what) in told.iter().zip(measured.what) {
                lines.extend(compare(told, measured, what)?);
            }
        }
    }
    Ok(lines)
}

fn compare(told: &Told, measured: &Measured, what: &'static str) -> Result<Vec<Comparison>> {
    let Measured { key, unit, boundary, bar, .. } = *measured;
    let [(ours, _), before @ ..] = HELD;
    let line = |anchor| {
        told.line(
            &Head { what, unit, boundary },
            told.side(ours, ours, key)?,
            told.side(anchor, anchor, key)?,
            bar,
        )
    };
    before.into_iter().map(|(anchor, _)| line(anchor)).collect()
}
