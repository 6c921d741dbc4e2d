//! AF_XDP on a veth pair: forwarding beside DPDK's net_af_xdp, one way and there and back beside a bare loop in C, and the round
//! trip beside the kernel's own UDP.
//!
//! ```text
//! gen [g0] ===== veth ===== [f0] fwd
//! ```
//!
//! Two namespaces. What is measured runs on `f0` and the second CPU; what drives or counts it, the same program for every arm, runs on
//! `g0` and the first. A veth does the receiver's softirq on the sender's CPU. No arm has zero copy: a veth has none.

use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Signal;

use crate::bench::arms::{self, cpus, figure, pinned};
use crate::bench::compare::{Bar, Comparison, Side};
use crate::bench::rounds::{Arm, Orders, Rounds};
use crate::fault::{Result, ensure};
use crate::net::{finish, veth};
use crate::ns::Netns;
use crate::proc::{Cmd, words};
use crate::step::Cx;

/// Seconds that a rate is measured for, after one of warm-up.
const SECONDS: &str = "3";
/// For so long a program in the background would go on; each is ended before.
const BACKGROUND_SECONDS: &str = "30";
const ROUND_TRIPS: &str = "30000";
const NET: [&str; 2] = ["198.18.0.1", "198.18.0.2"];
const UDP_PORT: &str = "7009";

struct Stage<'a> {
    cx: &'a Cx<'a>,
    gen_ns: Netns,
    fwd_ns: Netns,
    cpus: [usize; 2],
    bare: PathBuf,
    udp: PathBuf,
    forward: PathBuf,
    round_trip: PathBuf,
}

/// All comparisons of `af_xdp:`.
pub fn af_xdp(cx: &Cx<'_>, rounds: &mut Rounds) -> Result<Vec<Comparison>> {
    let stage = Stage::build(cx)?;
    let mut lines = stage.forward(rounds)?;
    lines.extend(stage.one_way(rounds)?);
    lines.extend(stage.round_trip(rounds)?);
    Ok(lines)
}

impl<'a> Stage<'a> {
    fn build(cx: &'a Cx<'a>) -> Result<Stage<'a>> {
        let (gen_ns, fwd_ns) = (Netns::create(cx, "gen")?, Netns::create(cx, "fwd")?);
        veth(cx, (&gen_ns, "g0"), (&fwd_ns, "f0"))?;
        for (ns, name, address) in [(&gen_ns, "g0", NET[0]), (&fwd_ns, "f0", NET[1])] {
            finish(cx, ns, name)?;
            ns.ip(cx, &format!("addr add {address}/24 dev {name}"))?;
        }
        let bare = arms::plain(cx, "xdp_bare")?;
        let udp = arms::plain(cx, "udp_spin")?;
        let (forward, round_trip) = (arms::example(cx, "forward")?, arms::example(cx, "round_trip")?);
        Ok(Stage { cx, gen_ns, fwd_ns, cpus: cpus()?, bare, udp, forward, round_trip })
    }

    fn on_gen(&self, command: Cmd) -> Cmd {
        pinned(command, self.cpus[0]).under(["ip", "netns", "exec", self.gen_ns.name()])
    }

    fn on_fwd(&self, command: Cmd) -> Cmd {
        pinned(command, self.cpus[1]).under(["ip", "netns", "exec", self.fwd_ns.name()])
    }

    fn bare(&self, mode: &str, interface: &str, amount: &str) -> Cmd {
        let command = Cmd::new(&self.bare).args([mode, interface, amount]);
        if interface == "g0" { self.on_gen(command) } else { self.on_fwd(command) }
    }

    /// Our forwarder on `f0`, and on a second port if there is one.
    fn ours(&self, ports: &[&str], mode: &str, seconds: &str) -> Cmd {
        let command =
            Cmd::new(&self.forward).args(ports).args(["--mode", mode, "--seconds", seconds, "--json"]);
        self.on_fwd(command)
    }

    fn testpmd(&self) -> Cmd {
        // EAL pins its threads itself: the first CPU prints once a second.
        let lcores = format!("--lcores=0@{},1@{}", self.cpus[0], self.cpus[1]);
        let eal = "--no-huge --no-pci --no-shconf --no-telemetry --log-level=error -m 512 --vdev=net_af_xdp0,iface=f0";
        let forward =
            "--forward-mode=macswap --port-topology=loop --stats-period=1 --burst=32 --total-num-mbufs=16384";
        let command = Cmd::new("dpdk-testpmd").arg(lcores).args(eal.split(' ')).arg("--");
        command.args(forward.split(' ')).under(["ip", "netns", "exec", self.fwd_ns.name()])
    }

    /// A figure of the program `front`, while `back` runs and has said `ready`.
    fn beside(&self, back: &Cmd, ready: &str, front: &Cmd, key: &str) -> Result<f64> {
        let cx = self.cx;
        let mut back = back.start(cx, "background")?;
        cx.wait_for(
            &format!("the program in the background says {ready:?}"),
            Duration::from_secs(20),
            || {
                back.must_live()?;
                Ok((back.stderr().contains(ready) || back.stdout().contains(ready)).then_some(()))
            },
        )?;
        let figure = figure(cx, front, key)?;
        back.must_live()?;
        back.signal(Signal::INT)?;
        let status = back.wait(cx, Duration::from_secs(10))?;
        // Those in C have no handler for it.
        let by_signal = !status.success() && status.code().is_none();
        ensure!(status.success() || by_signal, "the program in the background ended with {}", words(status));
        cx.log.line(format!("{key} {figure}"));
        Ok(figure)
    }

    fn forward(&self, rounds: &mut Rounds) -> Result<Vec<Comparison>> {
        let flood = self.bare("flood", "g0", SECONDS);
        let ours = self.ours(&["af_xdp:f0"], "macswap", BACKGROUND_SECONDS);
        let theirs = self.testpmd();
        let bare = self.bare("echo", "f0", BACKGROUND_SECONDS);
        let measure = |back: &Cmd, ready: &str| self.beside(back, ready, &flood, "mpps");
        let mut arms = [
            Arm::new("af_xdp:", || measure(&ours, "ready")),
            Arm::new("testpmd net_af_xdp", || measure(&theirs, "Rx-pps:")),
            Arm::new("bare C", || measure(&bare, "ready")),
        ];
        let boundary = "60-byte frames that come back to the generator, an AF_XDP loop in C that sends as fast as it can; the \
                        forwarder swaps addresses in bursts of 32 on a CPU of its own; copy mode; 3 s after 1 s of warm-up";
        self.compare(rounds, &mut arms, |anchor| Comparison {
            what: if anchor == 1 { "af_xdp-forward" } else { "af_xdp-forward-bare" },
            unit: "Mpps",
            boundary,
            bar: (anchor == 1).then_some(Bar::AtLeast(1.0)),
            ..empty()
        })
    }

    fn one_way(&self, rounds: &mut Rounds) -> Result<Vec<Comparison>> {
        let send = self.bare("tx", "g0", BACKGROUND_SECONDS);
        let (ours, bare) = (self.ours(&["af_xdp:f0", "null:"], "io", "4.5"), self.bare("rx", "f0", SECONDS));
        let mut arms = [
            Arm::new("af_xdp:", || self.beside(&send, "ready", &ours, "mpps")),
            Arm::new("bare C", || self.beside(&send, "ready", &bare, "mpps")),
        ];
        let boundary = "60-byte frames counted by the receiver, sent by an AF_XDP loop in C on the other CPU, which does the \
                        receiver's softirq too";
        let mut lines = self.compare(rounds, &mut arms, |_| Comparison {
            what: "af_xdp-rx",
            unit: "Mpps",
            boundary,
            bar: Some(Bar::AtLeast(0.9)),
            ..empty()
        })?;
        let count = self.bare("rx", "g0", SECONDS);
        let ours = self.ours(&["null:rx=60", "af_xdp:f0"], "io", BACKGROUND_SECONDS);
        let bare = self.bare("tx", "f0", BACKGROUND_SECONDS);
        let mut arms = [
            Arm::new("af_xdp:", || self.beside(&ours, "ready", &count, "mpps")),
            Arm::new("bare C", || self.beside(&bare, "ready", &count, "mpps")),
        ];
        let boundary = "60-byte frames, each written anew, counted by an AF_XDP loop in C at the far end; the sender's CPU does the \
                        far end's softirq too";
        lines.extend(self.compare(rounds, &mut arms, |_| Comparison {
            what: "af_xdp-tx",
            unit: "Mpps",
            boundary,
            bar: Some(Bar::AtLeast(0.9)),
            ..empty()
        })?);
        Ok(lines)
    }

    fn round_trip(&self, rounds: &mut Rounds) -> Result<Vec<Comparison>> {
        let ping = Cmd::new(&self.round_trip).args(["af_xdp:g0", "--rounds", ROUND_TRIPS]);
        let ping = self.on_gen(ping);
        let echo = self.ours(&["af_xdp:f0"], "macswap", BACKGROUND_SECONDS);
        let udp = |what: &str, amount: &str| Cmd::new(&self.udp).args([what, NET[1], UDP_PORT, amount]);
        let (udp_ping, udp_echo) =
            (self.on_gen(udp("ping", ROUND_TRIPS)), self.on_fwd(udp("echo", BACKGROUND_SECONDS)));
        let bare_ping = self.bare("ping", "g0", ROUND_TRIPS);
        let bare_echo = self.bare("echo", "f0", BACKGROUND_SECONDS);
        let mut arms = [
            Arm::new("af_xdp:", || self.beside(&echo, "ready", &ping, "us")),
            Arm::new("kernel UDP, spinning", || self.beside(&udp_echo, "ready", &udp_ping, "us")),
            Arm::new("bare C", || self.beside(&bare_echo, "ready", &bare_ping, "us")),
        ];
        let boundary = "one frame of 60 bytes at a time, there and back, both ends polling on a CPU of their own; the median of 30,000 \
                        round trips inside the pinging program. UDP through nonblocking sockets, without XDP on the veth";
        self.compare(rounds, &mut arms, |anchor| Comparison {
            what: if anchor == 1 { "af_xdp-round-trip" } else { "af_xdp-round-trip-bare" },
            unit: "us",
            boundary,
            bar: (anchor == 1).then_some(Bar::AtMost(0.7)),
            ..empty()
        })
    }

    /// Measures the arms, ours first; a line of the table for each of the others.
    fn compare(
        &self,
        rounds: &mut Rounds,
        arms: &mut [Arm<'_, f64>],
        line: impl Fn(usize) -> Comparison,
    ) -> Result<Vec<Comparison>> {
        let (figures, orders) = rounds.run(self.cx, arms)?;
        let side = |at: usize| Side { name: arms[at].name, figures: figures[at].clone() };
        let compared =
            |at| Comparison { ours: side(0), anchor: side(at), orders: orders.clone(), ..line(at) };
        Ok((1..arms.len()).map(compared).collect())
    }
}

/// What every line fills in.
fn empty() -> Comparison {
    let nobody = || Side { name: "", figures: Vec::new() };
    let orders = Orders::default();
    let (ours, anchor) = (nobody(), nobody());
    Comparison { what: "", unit: "", boundary: "", ours, anchor, bar: None, cycles: Vec::new(), orders }
}
