//! Where the arms run, and one turn of one arm: everything that is measured of it in a round.
//!
//! ```text
//! load [c0] ===== veth ===== [s0] server
//! ```
//!
//! Both ends of the veth have an address of the kernel's and one of rxline's. `memif:` joins two processes without it, and a pair is one
//! process. Load and server have a CPU each; a veth does the receiver's softirq on the sender's CPU.

use std::time::Duration;

use rustix::process::Signal;

use super::arms::{Spec, Wire};
use super::curve::{self, Point};
use super::measure::{Measure, Turn, Work};
use super::program::{KERNEL, Loaded, Paired, Program, Served, Shape, told};
use crate::bench::arms::cpus;
use crate::fault::{Fault, Result, ensure};
use crate::net::{finish, veth};
use crate::ns::Netns;
use crate::proc::{Cmd, Running, words};
use crate::step::Cx;

/// Namespaces, wire, program, CPUs.
pub struct Stage<'a> {
    cx: &'a Cx<'a>,
    program: Program,
    client: Netns,
    server: Netns,
    /// Of the load, and of the server.
    pub cpus: [usize; 2],
    seed: u64,
}

/// One work of one arm: what runs the loads, and its figures so far.
struct Trial<'s> {
    stage: &'s Stage<'s>,
    spec: &'static Spec,
    work: Work,
    /// None: a pair, whose server comes with each load.
    server: Option<Running>,
    /// How long a pair's server took to be ready.
    ready_seconds: Option<f64>,
    /// Counts loads, so that no two have the same seed.
    loads: u64,
}

impl<'a> Stage<'a> {
    /// Builds everything.
    pub fn build(cx: &'a Cx<'a>, seed: u64) -> Result<Stage<'a>> {
        let cpus = cpus()?;
        ensure!(cpus[0] != cpus[1], "load and server need a CPU each, and this process may use one only");
        let program = Program::build(cx)?;
        let (client, server) = (Netns::create(cx, "client")?, Netns::create(cx, "server")?);
        veth(cx, (&client, "c0"), (&server, "s0"))?;
        for (ns, name, address) in [(&client, "c0", KERNEL[0]), (&server, "s0", KERNEL[1])] {
            finish(cx, ns, name)?;
            ns.ip(cx, &format!("addr add {address}/24 dev {name}"))?;
        }
        Ok(Stage { cx, program, client, server, cpus, seed })
    }

    /// Measures an arm once. What fails is named in the turn, and the rest is measured all the same.
    ///
    /// # Errors
    /// Only if the whole bench is to stop.
    pub fn turn(&self, spec: &'static Spec, round: usize) -> Result<Turn> {
        let mut turn = Turn::default();
        let offloads = turn.attempt("the wire's offloads", self.set_offloads(spec.offloads))?;
        if offloads.is_some() {
            for work in Work::ALL {
                let measured = self.measure(spec, work, round, &mut turn);
                turn.attempt(work.title(), measured)?;
            }
        }
        Ok(turn)
    }

    fn set_offloads(&self, on: bool) -> Result {
        let word = if on { "on" } else { "off" };
        for (ns, name) in [(&self.client, "c0"), (&self.server, "s0")] {
            ns.cmd("ethtool").args(["-K", name, "tx", word, "gro", word]).ok(self.cx)?;
        }
        Ok(())
    }

    fn measure(&self, spec: &'static Spec, work: Work, round: usize, turn: &mut Turn) -> Result {
        let server = if spec.is_pair() { None } else { Some(self.start(spec, work)?) };
        let loads = (round as u64) << 32;
        let mut trial = Trial { stage: self, spec, work, server, ready_seconds: None, loads };
        let measured = trial.measure_all(turn);
        // Figures of a server that then ended badly stay, and the fault is named beside them.
        let ended = trial.end();
        measured?;
        if let Some(seconds) = ended?
            && work == Work::Echo
        {
            turn.figures.insert(Measure::ColdStart, seconds * 1e3);
        }
        Ok(())
    }

    fn start(&self, spec: &Spec, work: Work) -> Result<Running> {
        let cx = self.cx;
        let command = self.within(spec, &self.server, self.program.serve(work, spec, self.cpus));
        let mut server = command.start(cx, "server")?;
        cx.wait_for("the server is ready", Duration::from_secs(20), || {
            server.must_live()?;
            Ok(server.stderr().contains("ready").then_some(()))
        })?;
        Ok(server)
    }

    fn within(&self, spec: &Spec, ns: &Netns, command: Cmd) -> Cmd {
        // Abstract sockets are found within one namespace alone.
        let ns = if spec.wire == Wire::Veth { ns } else { &self.server };
        command.under(["ip", "netns", "exec", ns.name()])
    }
}

impl Trial<'_> {
    fn measure_all(&mut self, turn: &mut Turn) -> Result {
        let [rate, cpu, knee] = self.work.measures();
        let (one, bulk) = match self.work {
            Work::Echo => (Measure::RoundTrip, Measure::Bulk),
            Work::Calls => (Measure::CallTime, Measure::RxBulk),
        };
        let saturated = self.load(Shape::Closed);
        let saturated = turn.attempt(rate.kind().title, saturated)?;
        let trip = self.load(Shape::RoundTrip);
        if let Some(trip) = turn.attempt(one.kind().title, trip)? {
            turn.figures.insert(one, trip.latency_ns_p50 as f64 / 1e3);
        }
        let large = self.load(Shape::Bulk);
        if let Some(large) = turn.attempt(bulk.kind().title, large)? {
            turn.figures.insert(bulk, large.bytes_per_second / 1e6);
        }
        let Some(saturated) = saturated else { return Ok(()) };
        turn.figures.insert(rate, saturated.calls_per_second);
        turn.figures.insert(cpu, saturated.cpu_per_million());
        let mut points = Vec::new();
        for &part in self.spec.loads {
            let point = self.point(part, saturated.calls_per_second * part);
            points.extend(turn.attempt(&format!("{}, at {part} of saturation", self.work.title()), point)?);
        }
        if let Some(rate) = curve::knee(&points) {
            turn.figures.insert(knee, rate);
        }
        turn.curves.insert(self.work, points);
        Ok(())
    }

    fn point(&mut self, load: f64, offered: f64) -> Result<Point> {
        let loaded = self.load(Shape::Open(offered))?;
        let us = |ns: u64| ns as f64 / 1e3;
        Ok(Point {
            load,
            offered,
            answered: loaded.calls_per_second,
            p50_us: us(loaded.latency_ns_p50),
            p99_us: us(loaded.latency_ns_p99),
            p999_us: us(loaded.latency_ns_p999),
        })
    }

    /// Runs one load. Wrong replies and a server that died are errors.
    fn load(&mut self, shape: Shape) -> Result<Loaded> {
        let Trial { stage, spec, work, .. } = *self;
        self.loads += 1;
        let (program, cpus, seed) = (&stage.program, stage.cpus, stage.seed ^ self.loads);
        let loaded = match &mut self.server {
            Some(server) => {
                let load = program.load(work, spec, shape, cpus, seed);
                let stdout = stage.within(spec, &stage.client, load).ok(stage.cx)?.stdout;
                server.must_live()?;
                told(&stdout)?
            }
            None => {
                let stdout = program.pair(work, shape, cpus, seed).ok(stage.cx)?.stdout;
                let pair: Paired = told(&stdout)?;
                pair.server.must_be_right(work)?;
                self.ready_seconds.get_or_insert(pair.server.ready_seconds);
                pair.load
            }
        };
        loaded.must_be_right()?;
        Ok(loaded)
    }

    /// Ends the server, which has to end well; how long it took to be ready, seconds.
    fn end(self) -> Result<Option<f64>> {
        let Some(mut server) = self.server else { return Ok(self.ready_seconds) };
        server.must_live()?;
        server.signal(Signal::TERM)?;
        let status = server.wait(self.stage.cx, Duration::from_secs(20))?;
        ensure!(status.success(), "the server ended with {}: {}", words(status), server.stderr());
        let served: Served = told(&server.stdout())?;
        served.must_be_right(self.work)?;
        Ok(Some(served.ready_seconds))
    }
}

impl Turn {
    /// What came of a part; a part that failed is named and yields nothing. What ends the bench is passed on.
    fn attempt<T>(&mut self, what: &str, result: Result<T>) -> Result<Option<T>> {
        match result {
            Ok(done) => Ok(Some(done)),
            Err(fault @ (Fault::Interrupted | Fault::StepTimedOut(_))) => Err(fault),
            Err(fault) => {
                self.faults.push(format!("{what}: {fault}"));
                Ok(None)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_that_fails_is_named_and_an_interruption_is_passed_on() {
        let mut turn = Turn::default();
        assert_eq!(turn.attempt("one", Ok(1)).unwrap(), Some(1));
        let failed: Result<u8> = Err(Fault::Check("3 errors".into()));
        assert_eq!(turn.attempt("bulk", failed).unwrap(), None);
        assert_eq!(turn.faults, ["bulk: 3 errors"]);
        assert!(turn.attempt::<u8>("x", Err(Fault::Interrupted)).is_err());
    }
}
