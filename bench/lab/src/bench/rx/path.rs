//! One bulk call over a long and a lossy path: ours with either congestion control, and OpenAFS's Rx through the same path.
//!
//! ```text
//! client [c0] == veth == [l0] forward [r0] == veth == [s0] server       and the same with 1 and 2, for paths measured at once
//! ```
//!
//! In the middle, pmd's example `forward` polls with a CPU of its own; `sim:` around its ports delays, and loses, what comes in by each:
//! half the round trip, and the loss, in each direction. Client and server share the other CPU, and sleep when there is nothing to do.

use std::cell::Cell;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Signal;

use super::peers::{Class, End, Peer, Programs};
use super::simulation::{Control, Simulation};
use super::{Head, constant};
use crate::bench::arms::{self, cpus, number};
use crate::bench::compare::{Bar, Comparison, Side};
use crate::bench::rounds::{Arm, Orders, Rounds};
use crate::fault::{Fault, Result, ensure};
use crate::net::{finish, veth};
use crate::ns::Netns;
use crate::proc::{Cmd, Running, words};
use crate::step::Cx;

/// Payload of a DATA packet on a 1500-byte path, and the most of them that an ACK can speak of.
const PACKET_PAYLOAD: f64 = 1416.0;
const WINDOW_MAX: f64 = 255.0;

/// A delay and a loss, and what the table calls them.
struct Path {
    what: &'static str,
    rtt_ms: u64,
    loss_percent: f64,
}

const fn path_of(what: &'static str, rtt_ms: u64, loss_percent: f64) -> Path {
    Path { what, rtt_ms, loss_percent }
}

static PATHS: [Path; 6] = [
    path_of("rx-path, 10 ms, no loss", 10, 0.0),
    path_of("rx-path, 10 ms, 0.1 % loss", 10, 0.1),
    path_of("rx-path, 10 ms, 1 % loss", 10, 1.0),
    path_of("rx-path, 50 ms, no loss", 50, 0.0),
    path_of("rx-path, 50 ms, 0.1 % loss", 50, 0.1),
    path_of("rx-path, 50 ms, 1 % loss", 50, 1.0),
];

/// Paths that are measured at once, and for how many seconds: more than 200 round trips each. None is near what a CPU can do.
struct Track {
    paths: &'static [usize],
    seconds: u64,
}

static TRACKS: [Track; 3] = [
    Track { paths: &[0], seconds: 3 },
    Track { paths: &[1, 2], seconds: 5 },
    Track { paths: &[3, 4, 5], seconds: 11 },
];

/// Who sends, and the tracks they are measured on.
struct Way {
    name: &'static str,
    peer: Peer,
    tune: &'static [&'static str],
    tracks: usize,
}

static WAYS: [Way; WAYS_LEN] = [
    Way { name: "CUBIC", peer: Peer::Port("af_packet"), tune: &["--congestion", "cubic"], tracks: 3 },
    Way { name: "BBR-like", peer: Peer::Port("af_packet"), tune: &["--congestion", "bbr"], tracks: 3 },
    Way { name: "OpenAFS, window 128", peer: Peer::OpenAfs(Some("128")), tune: &[], tracks: 3 },
    Way { name: "OpenAFS, window 32", peer: Peer::OpenAfs(None), tune: &[], tracks: 2 },
];
const WAYS_LEN: usize = 4;
/// Their places.
const CUBIC: usize = 0;
const BBR: usize = 1;
const WIDE: usize = 2;
const NARROW: usize = 3;

const BOUNDARY: &str = "payload bytes of one call that came in order at the client, from the call's beginning on until it is aborted after more \
    than 200 round trips; MTU 1500, loss of frames at random in both directions, a new seed each round";

/// What was measured on each path, by way: a figure a round, or nothing.
type Measured = Vec<[Option<Vec<f64>>; WAYS_LEN]>;

/// All paths and ways.
pub fn path(cx: &Cx<'_>, rounds: &mut Rounds) -> Result<Vec<Comparison>> {
    let simulation = Simulation::run(cx)?;
    let stage = Stage::build(cx)?;
    let (measured, orders) = measure(&stage, rounds)?;
    Ok(PATHS.iter().zip(measured).flat_map(|(path, ways)| path.lines(&ways, &simulation, &orders)).collect())
}

fn measure(stage: &Stage<'_>, rounds: &mut Rounds) -> Result<(Measured, Orders)> {
    let of_way = |(way, Way { tracks, .. }): (usize, &Way)| (0..*tracks).map(move |track| (way, track));
    let order: Vec<(usize, usize)> = WAYS.iter().enumerate().flat_map(of_way).collect();
    let arm = |&(way, track): &(usize, usize)| {
        Arm::new(WAYS[way].name, move || stage.run(&TRACKS[track], &WAYS[way]))
    };
    let mut arms: Vec<_> = order.iter().map(arm).collect();
    let (figures, orders) = rounds.run(stage.cx, &mut arms)?;
    let mut measured: Measured = PATHS.iter().map(|_| Default::default()).collect();
    for (&(way, track), rounds) in order.iter().zip(&figures) {
        for (at, &path) in TRACKS[track].paths.iter().enumerate() {
            measured[path][way] = Some(rounds.iter().map(|figures| figures[at]).collect());
        }
    }
    Ok((measured, orders))
}

impl Path {
    /// The lines of the table that this path has, and the bars among them.
    fn lines(&self, ways: &[Option<Vec<f64>>], simulation: &Simulation, orders: &Orders) -> Vec<Comparison> {
        let head = Head { what: self.what, unit: "MB/s", boundary: BOUNDARY };
        let side = |way: usize| Some(Side { name: WAYS[way].name, figures: ways[way].clone()? });
        let rounds = ways[CUBIC].as_ref().map_or(0, Vec::len);
        let (limit, rfc) = (
            constant("protocol's limit", self.limit(), rounds),
            constant("RFC 9438 allows", self.cubic_allowed(), rounds),
        );
        let simulated = |control| {
            Some(constant("simulation", simulation.rate(control, self.rtt_ms, self.loss_percent)?, rounds))
        };
        let (lossless, near) = (self.loss_percent == 0.0, self.rtt_ms == 10);
        let share = Some(Bar::AtLeast(0.9));
        let times = match self.loss_percent {
            0.1 => Some(Bar::AtLeast(2.0)),
            1.0 if near => Some(Bar::AtLeast(4.0)),
            _ => None,
        };
        let lines = [
            (CUBIC, Some(limit.clone()), share.filter(|_| lossless)),
            (BBR, Some(limit), share.filter(|_| lossless)),
            (CUBIC, Some(rfc).filter(|_| !lossless), share.filter(|_| near)),
            (CUBIC, side(WIDE), None),
            (BBR, side(WIDE), times),
            (CUBIC, side(NARROW), None),
            (BBR, side(NARROW), None),
            (CUBIC, simulated(Control::Cubic), None),
            (BBR, simulated(Control::Bbr), None),
        ];
        let line = |(way, anchor, bar)| Some(head.line(side(way)?, anchor?, bar, orders));
        lines.into_iter().filter_map(line).collect()
    }

    fn rtt(&self) -> f64 {
        self.rtt_ms as f64 / 1e3
    }

    /// A window in each round trip, MB/s.
    fn limit(&self) -> f64 {
        WINDOW_MAX * PACKET_PAYLOAD / self.rtt() / 1e6
    }

    /// What CUBIC's average window comes to at this loss, MB/s: RFC 9438, section 5.1, and 4.3 where Reno would have more.
    fn cubic_allowed(&self) -> f64 {
        let loss = self.loss_percent / 100.0;
        let curve = (0.4 * 3.7 / (4.0 * 0.3_f64)).powf(0.25) * (self.rtt() / loss).powf(0.75);
        let window = curve.max((1.5 / loss).sqrt()).min(WINDOW_MAX);
        window * PACKET_PAYLOAD / self.rtt() / 1e6
    }

    /// The port of the middle on this interface.
    fn port(&self, interface: &str, seed: u32) -> String {
        let (delay, loss) = (500 * self.rtt_ms, self.loss_percent / 100.0);
        format!("sim:seed={seed},rx.delay={delay}us,rx.loss={loss},limit=4096@af_packet:{interface}")
    }
}

/// What forwards between the ends.
pub(super) struct Middle {
    /// Towards the client and towards the server of each wire, by URL.
    pub ports: Vec<String>,
    /// The names of what it may drop.
    pub meant: &'static [&'static str],
}

/// The namespaces, the wires, and the programs.
pub(super) struct Stage<'a> {
    cx: &'a Cx<'a>,
    pub programs: Programs,
    forward: PathBuf,
    client: Netns,
    middle: Netns,
    server: Netns,
    cpus: [usize; 2],
    seed: Cell<u32>,
}

impl<'a> Stage<'a> {
    pub fn build(cx: &'a Cx<'a>) -> Result<Stage<'a>> {
        let cpus = cpus()?;
        ensure!(cpus[0] != cpus[1], "the path needs a CPU of its own, and this process may use one only");
        let create = |role| Netns::create(cx, role);
        let stage = Stage {
            cx,
            programs: Programs::build(cx)?,
            forward: arms::example(cx, "forward")?,
            client: create("client")?,
            middle: create("middle")?,
            server: create("server")?,
            cpus,
            seed: Cell::new(1),
        };
        let wires = TRACKS.iter().map(|track| track.paths.len()).max().unwrap_or(0);
        for wire in 0..wires {
            for (end, middle) in
                [(stage.client(wire), format!("l{wire}")), (stage.server(wire), format!("r{wire}"))]
            {
                veth(cx, (end.ns, &end.interface), (&stage.middle, &middle))?;
                finish(cx, end.ns, &end.interface)?;
                finish(cx, &stage.middle, &middle)?;
                end.ns.ip(cx, &format!("addr add {}/24 dev {}", end.kernel, end.interface))?;
            }
        }
        Ok(stage)
    }

    pub fn client(&self, wire: usize) -> End<'_> {
        self.end(&self.client, format!("c{wire}"), wire, 1)
    }

    pub fn server(&self, wire: usize) -> End<'_> {
        self.end(&self.server, format!("s{wire}"), wire, 2)
    }

    /// Each wire is a network: the kernel's address ends with `host`, rxline's with ten more.
    fn end<'e>(&'e self, ns: &'e Netns, interface: String, wire: usize, host: u8) -> End<'e> {
        let [kernel, own] = [host, host + 10].map(|host| Ipv4Addr::new(198, 18, wire as u8, host));
        End { ns, interface, kernel, own, cpu: self.cpus[0] }
    }

    /// MB/s on each path of a track.
    fn run(&self, track: &Track, way: &Way) -> Result<Vec<f64>> {
        let ports = track.paths.iter().enumerate().flat_map(|(wire, &path)| {
            [format!("l{wire}"), format!("r{wire}")]
                .map(|interface| PATHS[path].port(&interface, self.next_seed()))
        });
        let wires: Vec<usize> = (0..track.paths.len()).collect();
        let clients = wires.iter().map(|&wire| (self.client(wire), wire)).collect();
        let middle = Middle { ports: ports.collect(), meant: &["sim_rx_lost"] };
        let figures = self.stream(&middle, (way.peer, way.tune), clients, track.seconds)?;
        self.cx.log.line(format!("{} on {:?}: {figures:.2?} MB/s", way.name, track.paths));
        Ok(figures)
    }

    /// Another one for each port and run.
    pub fn next_seed(&self) -> u32 {
        self.seed.replace(self.seed.get() + 1)
    }

    /// MB/s of a call from each of these ends to the server on that wire, all at once.
    pub fn stream(
        &self,
        middle: &Middle,
        (peer, tune): (Peer, &[&str]),
        clients: Vec<(End<'_>, usize)>,
        seconds: u64,
    ) -> Result<Vec<f64>> {
        let (cx, programs) = (self.cx, &self.programs);
        let forwarding = self.start_middle(middle)?;
        // OpenAFS's server has all addresses, ours one.
        let served = if let Peer::OpenAfs(_) = peer { 1 } else { middle.ports.len() / 2 };
        let servers = (0..served).map(|wire| programs.serve(cx, peer, &self.server(wire), Class::None, tune));
        let servers: Vec<Running> = servers.collect::<Result<_>>()?;
        let start = |(number, (from, wire)): (usize, &(End<'_>, usize))| {
            programs.stream(peer, from, &self.server(*wire), seconds).start(cx, &format!("client{number}"))
        };
        let running: Vec<Running> = clients.iter().enumerate().map(start).collect::<Result<_>>()?;
        let mut figures = Vec::new();
        for mut client in running {
            let status = client.wait(cx, Duration::from_secs(seconds + 20))?;
            let told = client.stdout();
            ensure!(status.success(), "a client ended with {}: {told}{}", words(status), client.stderr());
            figures.push(number(&told, "bytes_received")? / 1e6 / number(&told, "seconds")?);
        }
        for server in servers {
            programs.end(cx, peer, server)?;
        }
        self.end_middle(forwarding, middle.meant)?;
        Ok(figures)
    }

    fn start_middle(&self, middle: &Middle) -> Result<Running> {
        let words = ["--mode", "io", "--buffers", "32768", "--json", "--cpus"];
        let forward = Cmd::new(&self.forward).args(&middle.ports).args(words).arg(self.cpus[1].to_string());
        let forward = forward.under(["ip", "netns", "exec", self.middle.name()]);
        let mut middle = forward.start(self.cx, "middle")?;
        self.cx.wait_for("the middle forwards", Duration::from_secs(20), || {
            middle.must_live()?;
            Ok(middle.stderr().contains("ready").then_some(()))
        })?;
        Ok(middle)
    }

    /// Nothing was lost but what was meant to.
    fn end_middle(&self, mut middle: Running, meant: &[&str]) -> Result {
        middle.must_live()?;
        middle.signal(Signal::INT)?;
        let status = middle.wait(self.cx, Duration::from_secs(10))?;
        ensure!(status.success(), "the middle ended with {}: {}", words(status), middle.stderr());
        let told = middle.stdout();
        let report: serde_json::Value = serde_json::from_str(told.lines().last().unwrap_or_default())
            .map_err(|error| Fault::Check(format!("the middle's report is {told:?}: {error}")))?;
        self.cx.log.line(format!("middle: {}", report["ports"]));
        for port in report["ports"].as_array().into_iter().flatten() {
            let drops = port["drops"].as_object().into_iter().flatten();
            let unmeant: Vec<_> = drops.filter(|(name, _)| !meant.contains(&name.as_str())).collect();
            ensure!(unmeant.is_empty(), "the middle dropped what it should not: {unmeant:?}");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_those_of_the_protocol_and_the_rfc() {
        let close = |a: f64, b: f64| (a / b - 1.0).abs() < 0.01;
        assert!(close(PATHS[0].limit(), 36.1) && close(PATHS[3].limit(), 7.22));
        // At short round trips Reno has more: sqrt(1.5 / p) packets.
        assert!(close(PATHS[1].cubic_allowed(), 38.73 * 1416.0 / 0.01 / 1e6));
        assert!(close(PATHS[2].cubic_allowed(), 12.25 * 1416.0 / 0.01 / 1e6));
    }

    #[test]
    fn every_path_is_measured_once() {
        let mut paths: Vec<usize> = TRACKS.iter().flat_map(|track| track.paths).copied().collect();
        paths.sort();
        assert_eq!(paths, [0, 1, 2, 3, 4, 5]);
        for track in &TRACKS {
            for &path in track.paths {
                assert!(track.seconds * 1000 / PATHS[path].rtt_ms >= 200, "{}", PATHS[path].what);
            }
        }
    }
}
