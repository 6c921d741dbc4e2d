//! rxperf over veth: our client and server directly, the same through the gateway, and OpenAFS's Rx library directly.
//!
//! All three use the wires of [`Net`]: our programs through `af_packet:`, OpenAFS's through the kernel's UDP. The server
//! has one CPU and the client the other; the gateway has one for itself, and client and server share the other.

use std::net::SocketAddrV4;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Signal;

use super::arms::{self, cpus, number, pinned};
use super::busy::busy_seconds;
use super::compare::{Comparison, Side};
use super::rounds::{Arm, Orders, Rounds};
use crate::cargo::build_rxline;
use crate::fault::{Result, ensure};
use crate::gateway::{Gateway, Plan, RXPERF};
use crate::net::{FRONT, Net, Wire, server};
use crate::ns::Netns;
use crate::proc::{Cmd, Running, words};
use crate::rxperf::address;
use crate::step::Cx;

/// One load.
struct Load {
    in_flight: usize,
    reply_bytes: usize,
    seconds: u64,
}

/// Makes the server and the caches warm; its figures are thrown away.
const WARM_UP: Load = Load { seconds: 1, ..RPC };
const RPC: Load = Load { in_flight: 4, reply_bytes: 64, seconds: 3 };
const BULK: Load = Load { in_flight: 1, reply_bytes: 1_000_000, seconds: 3 };

const RPC_BOUNDARY: &str = "closed loop, 4 calls in flight on one connection, 64 B there and 64 B back; calls that ended with \
    every byte of the reply verified by the client, a second; over veth and a bridge; server and client have a CPU each \
    (the gateway one, client and server the other)";
const BULK_BOUNDARY: &str = "one call after the other, 64 B there and 1 MB back, every byte verified by the client; otherwise as \
    rxperf-rpc; each library's own packet sizes and windows";
const CPU_BOUNDARY: &str =
    "CPU seconds of the whole machine while the rpc load ran, interrupts included, for each million calls";

/// What one arm came to in one round.
struct Figures {
    calls_per_second: f64,
    megabytes_per_second: f64,
    cpu_per_million: f64,
}

/// What every arm works with.
struct Stage<'a> {
    cx: &'a Cx<'a>,
    net: Net,
    rxline: PathBuf,
    afs: PathBuf,
    cpus: [usize; 2],
}

/// Calls a second, and bytes a second.
pub fn rxperf(cx: &Cx<'_>, rounds: &mut Rounds) -> Result<Vec<Comparison>> {
    let (rxline, afs, cpus) = (build_rxline(cx)?, arms::afs_rxperf(cx)?, cpus()?);
    let stage = Stage { cx, net: Net::build(cx, Wire::AfPacket, 1)?, rxline, afs, cpus };
    let mut arms = [
        Arm::new("direct", || stage.direct()),
        Arm::new("gateway", || stage.gateway()),
        Arm::new("OpenAFS", || stage.openafs()),
    ];
    let (figures, orders) = rounds.run(cx, &mut arms)?;
    let [direct, gateway, openafs] = [0, 1, 2].map(|at| (arms[at].name, figures[at].as_slice()));
    let mut lines = Vec::new();
    for (ours, anchor) in [(direct, openafs), (gateway, openafs), (gateway, direct)] {
        lines.extend(compare(ours, anchor, &orders));
    }
    Ok(lines)
}

fn compare(
    ours: (&'static str, &[Figures]),
    anchor: (&'static str, &[Figures]),
    orders: &Orders,
) -> [Comparison; 3] {
    let line = |what, unit, boundary, figure: fn(&Figures) -> f64| {
        let [ours, anchor] = [ours, anchor]
            .map(|(name, figures)| Side { name, figures: figures.iter().map(figure).collect() });
        Comparison {
            what,
            unit,
            boundary,
            ours,
            anchor,
            bar: None,
            cycles: Vec::new(),
            orders: orders.clone(),
        }
    };
    [
        line("rxperf-rpc", "calls/s", RPC_BOUNDARY, |figures| figures.calls_per_second),
        line("rxperf-bulk", "MB/s", BULK_BOUNDARY, |figures| figures.megabytes_per_second),
        line("rxperf-rpc-cpu", "CPU s/M calls", CPU_BOUNDARY, |figures| figures.cpu_per_million),
    ]
}

impl Stage<'_> {
    fn direct(&self) -> Result<Figures> {
        let server = self.serve(self.cpus[1])?;
        let to = SocketAddrV4::new(address(0), RXPERF.0);
        let client = |load: &Load| {
            self.client(&self.net.direct, ("af_packet:v0", "10.61.2.20/24"), to, self.cpus[0], load)
        };
        let figures = self.measure(client)?;
        self.end(server)?;
        Ok(figures)
    }

    fn gateway(&self) -> Result<Figures> {
        // The plan puts the gateway on the first CPU.
        let server = self.serve(self.cpus[1])?;
        let gateway = Gateway::start(self.cx, &self.net, &Plan::rxperf(&[address(0)]))?;
        let to = SocketAddrV4::new(FRONT, RXPERF.0);
        let client = |load: &Load| {
            self.client(&self.net.client, ("af_packet:cli0", "10.61.1.20/24"), to, self.cpus[1], load)
        };
        let figures = self.measure(client)?;
        gateway.stop(self.cx)?;
        self.end(server)?;
        Ok(figures)
    }

    fn openafs(&self) -> Result<Figures> {
        let serve = pinned(Cmd::new(&self.afs).arg("server"), self.cpus[1]);
        let mut serving = within(&self.net.servers[0], serve).start(self.cx, "afs-server")?;
        self.cx.wait_for("OpenAFS's Rx has its socket", Duration::from_secs(10), || {
            serving.must_live()?;
            Ok(self.net.servers[0].has_udp_socket(RXPERF.0)?.then_some(()))
        })?;
        let client = |load: &Load| {
            let words =
                [load.seconds as usize, load.in_flight, 64, load.reply_bytes].map(|word| word.to_string());
            let client = Cmd::new(&self.afs).args(["client", &server(0).to_string()]).args(words);
            within(&self.net.direct, pinned(client, self.cpus[0]))
        };
        let figures = self.measure(client)?;
        serving.must_live()?;
        Ok(figures)
    }

    /// A client that exits with an error, which it does if a single call failed, is an error here.
    fn measure(&self, client: impl Fn(&Load) -> Cmd) -> Result<Figures> {
        let run = |load: &Load| {
            let command = client(load).limit(Duration::from_secs(load.seconds + 40));
            let (before, told) = (busy_seconds()?, command.ok(self.cx)?.stdout);
            let (busy, rate) = (busy_seconds()? - before, number(&told, "calls_per_second")?);
            self.cx.log.line(format!("{rate:.1} calls/s, {busy:.2} CPU seconds"));
            Ok((rate, busy / (number(&told, "calls")? / 1e6)))
        };
        run(&WARM_UP)?;
        let (calls_per_second, cpu_per_million) = run(&RPC)?;
        let (bulk, _) = run(&BULK)?;
        let megabytes_per_second = bulk * BULK.reply_bytes as f64 / 1e6;
        Ok(Figures { calls_per_second, megabytes_per_second, cpu_per_million })
    }

    fn serve(&self, cpu: usize) -> Result<Running> {
        let address = format!("{}/24", address(0));
        let words =
            ["rxperf", "server", "--port", "af_packet:v0", "--address", &address, "--json", "--cores"];
        let command = Cmd::new(&self.rxline).args(words).arg(cpu.to_string());
        let mut serving = within(&self.net.servers[0], command).start(self.cx, "rxperf-server")?;
        // Its first figures: from then on nobody is told that the port has no socket.
        self.cx.wait_for("the rxperf server prints figures", Duration::from_secs(10), || {
            serving.must_live()?;
            Ok(serving.stdout().contains('\n').then_some(()))
        })?;
        Ok(serving)
    }

    fn client(&self, ns: &Netns, port: (&str, &str), to: SocketAddrV4, cpu: usize, load: &Load) -> Cmd {
        let command = Cmd::new(&self.rxline).args([
            "rxperf",
            "client",
            "--json",
            "--port",
            port.0,
            "--address",
            port.1,
        ]);
        let pairs = [
            ("--server", to.to_string()),
            ("--cores", cpu.to_string()),
            ("--in-flight", load.in_flight.to_string()),
            ("--connections", load.in_flight.div_ceil(4).to_string()),
            ("--reply-bytes", load.reply_bytes.to_string()),
            ("--seconds", load.seconds.to_string()),
        ];
        within(ns, pairs.iter().fold(command, |command, (name, value)| command.arg(name).arg(value)))
    }

    /// Our server ends well only if it leaked nothing.
    fn end(&self, mut server: Running) -> Result {
        server.must_live()?;
        server.signal(Signal::TERM)?;
        let status = server.wait(self.cx, Duration::from_secs(20))?;
        ensure!(status.success(), "the rxperf server ended with {}: {}", words(status), server.stderr());
        Ok(())
    }
}

fn within(ns: &Netns, command: Cmd) -> Cmd {
    command.under(["ip", "netns", "exec", ns.name()])
}
