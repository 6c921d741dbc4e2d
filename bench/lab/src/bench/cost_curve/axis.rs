//! What there is much or little of, the points that are measured, and what is told to the program.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::proc::Cmd;

/// What a curve runs along.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Axis {
    /// Bound UDP sockets.
    Sockets,
    /// Rx connections.
    Connections,
    /// Calls at once.
    InFlight,
    /// Bytes of a reply.
    Payload,
    /// Cores of either side.
    Cores,
}

/// One point, and what orders and logs call it.
#[derive(Clone, Copy, Debug)]
pub struct Point {
    pub axis: Axis,
    pub n: u64,
    pub name: &'static str,
}

const fn point(axis: Axis, n: u64, name: &'static str) -> Point {
    Point { axis, n, name }
}

/// All of them, along each axis upwards.
pub const POINTS: [Point; 21] = [
    point(Axis::Sockets, 1_000, "1 k sockets"),
    point(Axis::Sockets, 10_000, "10 k sockets"),
    point(Axis::Sockets, 100_000, "100 k sockets"),
    point(Axis::Sockets, 1_000_000, "1 M sockets"),
    point(Axis::Connections, 1_000, "1 k connections"),
    point(Axis::Connections, 10_000, "10 k connections"),
    point(Axis::Connections, 100_000, "100 k connections"),
    point(Axis::Connections, 1_000_000, "1 M connections"),
    point(Axis::InFlight, 1, "1 in flight"),
    point(Axis::InFlight, 10, "10 in flight"),
    point(Axis::InFlight, 100, "100 in flight"),
    point(Axis::InFlight, 1_000, "1 k in flight"),
    point(Axis::InFlight, 10_000, "10 k in flight"),
    point(Axis::Payload, 1, "1 B"),
    point(Axis::Payload, 100, "100 B"),
    point(Axis::Payload, 1_000, "1 kB"),
    point(Axis::Payload, 10_000, "10 kB"),
    point(Axis::Payload, 100_000, "100 kB"),
    point(Axis::Payload, 1_000_000, "1 MB"),
    point(Axis::Cores, 1, "1 core"),
    point(Axis::Cores, 2, "2 cores"),
];

/// Calls at once where that is not what varies, and connections for them, so that a call seldom waits for a place on one.
const IN_FLIGHT: u64 = 128;
/// Large replies at once: as many as leave every call its whole window.
const LARGE_IN_FLIGHT: u64 = 32;

impl Axis {
    /// All of them.
    pub const ALL: [Axis; 5] = [Axis::Sockets, Axis::Connections, Axis::InFlight, Axis::Payload, Axis::Cores];

    /// As tables call it.
    pub fn title(self) -> &'static str {
        match self {
            Axis::Sockets => "sockets",
            Axis::Connections => "connections",
            Axis::InFlight => "calls in flight",
            Axis::Payload => "bytes of a reply",
            Axis::Cores => "cores of either side",
        }
    }

    /// What is counted.
    pub fn unit(self) -> &'static str {
        if self == Axis::Sockets { "echoes/s" } else { "calls/s" }
    }

    /// What it costs to have `n` of it, seconds, and in words.
    pub fn cost(self, n: u64, per_second: f64) -> f64 {
        match self {
            Axis::Payload => 1.0 / per_second,
            _ => n as f64 / per_second,
        }
    }

    /// What [`Axis::cost`] is.
    pub fn cost_words(self) -> &'static str {
        match self {
            Axis::Sockets => "the time for an echo through each socket",
            Axis::Connections => "the time for a call on each connection",
            Axis::InFlight => "the time until all that are in flight are answered",
            Axis::Payload => "the time of a call",
            Axis::Cores => "the time of as many calls as there are cores",
        }
    }

    /// How that cost may grow at most: with which power of `n`. Twice the cores should do twice the calls in the same time.
    pub fn linear(self) -> f64 {
        if self == Axis::Cores { 0.0 } else { 1.0 }
    }
}

impl Point {
    /// The command that measures it for so long; client and server have a CPU each, but for cores, where each has a core on every CPU.
    pub fn command(&self, micro: &Path, [client, server]: [usize; 2], seconds: f64) -> Cmd {
        let n = self.n;
        let micro = Cmd::new(micro);
        let command = match self.axis {
            Axis::Sockets => {
                micro.args(["cost-sockets", &n.to_string(), &server.to_string(), &client.to_string()])
            }
            Axis::Connections => calls(micro, [n, IN_FLIGHT, 64], [&[server], &[client]]),
            Axis::InFlight => calls(micro, [n, n, 64], [&[server], &[client]]),
            Axis::Payload => calls(micro, [LARGE_IN_FLIGHT, LARGE_IN_FLIGHT, n], [&[server], &[client]]),
            Axis::Cores => {
                let cpus = &[client, server][..n as usize];
                calls(micro, [IN_FLIGHT, IN_FLIGHT, 64], [cpus, cpus])
            }
        };
        command.args(["--seconds", &seconds.to_string()])
    }
}

fn calls(micro: Cmd, [connections, in_flight, reply]: [u64; 3], [server, client]: [&[usize]; 2]) -> Cmd {
    let list = |cpus: &[usize]| cpus.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
    let micro = micro.args(["cost-calls", "--connections", &connections.to_string()]);
    let micro = micro.args(["--in-flight", &in_flight.to_string(), "--reply-bytes", &reply.to_string()]);
    micro.args(["--server-cpus", &list(server), "--client-cpus", &list(client)])
}

/// What the program prints.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub struct Cost {
    /// Calls or echoes.
    pub per_second: f64,
    /// Of the whole process, both ends.
    pub resident_bytes: f64,
    /// Before there were sockets or connections.
    pub before_bytes: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_rise_along_each_axis_and_have_names_of_their_own() {
        for axis in Axis::ALL {
            let along: Vec<u64> =
                POINTS.iter().filter(|point| point.axis == axis).map(|point| point.n).collect();
            assert!(along.len() >= 2 && along.is_sorted(), "{along:?}");
        }
        let names: std::collections::BTreeSet<_> = POINTS.iter().map(|point| point.name).collect();
        assert_eq!(names.len(), POINTS.len());
    }

    #[test]
    fn commands_vary_what_the_axis_says_and_nothing_else() {
        let words = |at: usize| POINTS[at].command(Path::new("micro"), [0, 1], 1.0).to_string();
        assert_eq!(words(3), "micro cost-sockets 1000000 1 0 --seconds 1");
        assert!(words(7).contains(
            "--connections 1000000 --in-flight 128 --reply-bytes 64 --server-cpus 1 --client-cpus 0"
        ));
        assert!(words(18).contains("--in-flight 32 --reply-bytes 1000000"));
        assert!(words(19).contains("--server-cpus 0 --client-cpus 0 "));
        assert!(words(20).contains("--server-cpus 0,1 --client-cpus 0,1 "));
    }

    #[test]
    fn twice_the_cores_at_twice_the_rate_cost_the_same_time() {
        assert_eq!(Axis::Cores.cost(1, 1000.0), Axis::Cores.cost(2, 2000.0));
        assert_eq!(Axis::Payload.cost(100, 1000.0), 1e-3);
        assert_eq!(Axis::Connections.cost(100, 1000.0), 0.1);
    }
}
