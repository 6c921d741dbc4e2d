//! The program that is measured, bench/vs_kernel: what it is told, and what of its figures is used.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::arms::Spec;
use super::measure::Work;
use crate::cargo::cargo;
use crate::fault::{Context, Fault, Result, ensure};
use crate::proc::Cmd;
use crate::step::Cx;

/// Addresses of load and server, the kernel's and rxline's.
pub const KERNEL: [Ipv4Addr; 2] = [Ipv4Addr::new(198, 18, 0, 1), Ipv4Addr::new(198, 18, 0, 2)];
pub const OWN: [Ipv4Addr; 2] = [Ipv4Addr::new(198, 18, 0, 11), Ipv4Addr::new(198, 18, 0, 12)];

/// For so long a load is measured, after so long that does not count. More rounds tell more than longer ones, where a machine has its slow minutes.
const SECONDS: f64 = 0.6;
const WARM_UP_SECONDS: f64 = 0.2;

/// How requests follow each other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Shape {
    /// So many at once that the server is never idle ([`in_flight`]).
    Closed,
    /// One at a time, both ends the same way.
    RoundTrip,
    /// Large ones, both ends the same way.
    Bulk,
    /// At random times, so many a second.
    Open(f64),
}

/// Of a load's figures.
#[derive(Debug, Deserialize)]
pub struct Loaded {
    pub calls: u64,
    pub calls_per_second: f64,
    pub bytes_per_second: f64,
    pub errors: u64,
    pub first_error: Option<String>,
    pub latency_ns_p50: u64,
    pub latency_ns_p99: u64,
    #[serde(rename = "latency_ns_p99_9")]
    pub latency_ns_p999: u64,
    pub machine_busy_seconds: f64,
}

/// Of a server's figures.
#[derive(Debug, Deserialize)]
pub struct Served {
    pub served: u64,
    pub failed: u64,
    pub ready_seconds: f64,
    pub leaks: Vec<String>,
}

/// Of a pair's figures.
#[derive(Debug, Deserialize)]
pub struct Paired {
    #[serde(flatten)]
    pub load: Loaded,
    pub server: Served,
}

/// The program, with DPDK.
pub struct Program(PathBuf);

impl Program {
    /// Builds it.
    pub fn build(cx: &Cx<'_>) -> Result<Program> {
        let build = ["build", "--release", "--locked", "--package", "vs_kernel", "--features", "dpdk"];
        cargo(cx).args(build).run_to_log(cx)?;
        // Other benches build it without DPDK, in the same place.
        let (built, kept) = (cx.host.target().join("release/vs_kernel"), cx.dir.join("vs_kernel"));
        std::fs::copy(&built, &kept).context(|| format!("copy {}", built.display()))?;
        Ok(Program(kept))
    }

    /// The server of an arm.
    pub fn serve(&self, work: Work, spec: &Spec, cpus: [usize; 2]) -> Cmd {
        let address = if is_port(spec.server) { format!("{}/24", OWN[1]) } else { KERNEL[1].to_string() };
        let cpus =
            if spec.serving_cpus > 1 { format!("{},{}", cpus[1], cpus[0]) } else { cpus[1].to_string() };
        let command = Cmd::new(&self.0).args(["serve", word(work), spec.server, "--address", &address]);
        command.args(["--cpus", &cpus, "--wait", spec.wait])
    }

    /// A load on the server of an arm.
    pub fn load(&self, work: Work, spec: &Spec, shape: Shape, cpus: [usize; 2], seed: u64) -> Cmd {
        // A bare port asks for calls from one source port alone.
        let too_many = work == Work::Calls && spec.flows > 1 && is_port(spec.load);
        let same = matches!(shape, Shape::RoundTrip | Shape::Bulk) || too_many;
        let (way, wait) = if same { (spec.same, spec.same_wait) } else { (spec.load, "spin") };
        // Loads that cannot sleep are told nothing: see the program's help.
        let wait = if shape == Shape::RoundTrip { wait } else { "spin" };
        let server = if is_port(spec.server) { OWN[1] } else { KERNEL[1] };
        let command = Cmd::new(&self.0).args(["load", word(work), way, &server.to_string()]);
        let command =
            if is_port(way) { command.args(["--address", &format!("{}/24", OWN[0])]) } else { command };
        let (cpu, flows) = (cpus[0].to_string(), spec.flows.to_string());
        shaped(command.args(["--cpu", &cpu, "--flows", &flows, "--wait", wait]), work, shape, seed)
    }

    /// Load and server in one process.
    pub fn pair(&self, work: Work, shape: Shape, cpus: [usize; 2], seed: u64) -> Cmd {
        let [client, server] = cpus.map(|cpu| cpu.to_string());
        let command =
            Cmd::new(&self.0).args(["pair", word(work), "--client-cpu", &client, "--server-cpu", &server]);
        shaped(command, work, shape, seed)
    }
}

/// Requests at once at saturation: several bursts, so that neither end waits for the other.
fn in_flight(work: Work) -> &'static str {
    match work {
        Work::Echo => "256",
        Work::Calls => "128",
    }
}

fn word(work: Work) -> &'static str {
    match work {
        Work::Echo => "udp",
        Work::Calls => "rx",
    }
}

/// Ways of the kernel's are plain words.
pub fn is_port(way: &str) -> bool {
    way.contains(':')
}

fn shaped(command: Cmd, work: Work, shape: Shape, seed: u64) -> Cmd {
    let rate;
    let words: &[&str] = match shape {
        Shape::Closed => &["--mode", "closed", "--in-flight", in_flight(work)],
        Shape::RoundTrip => &["--mode", "round-trip"],
        Shape::Bulk => &["--mode", "bulk"],
        Shape::Open(per_second) => {
            rate = format!("{per_second:.0}");
            &["--mode", "open", "--rate", &rate]
        }
    };
    let times = [SECONDS, WARM_UP_SECONDS].map(|seconds| seconds.to_string());
    let command = command.args(words).args(["--seconds", &times[0], "--warm-up-seconds", &times[1]]);
    command.args(["--seed", &seed.to_string()]).limit(Duration::from_secs(30))
}

/// The JSON object at the end of what a program printed.
pub fn told<T: DeserializeOwned>(stdout: &str) -> Result<T> {
    let last = stdout.lines().last().unwrap_or_default();
    serde_json::from_str(last).map_err(|error| Fault::Check(format!("the last line {last:?}: {error}")))
}

impl Loaded {
    /// An error unless it did something and everything was right.
    pub fn must_be_right(&self) -> Result {
        let first = self.first_error.as_deref().unwrap_or("not named");
        ensure!(self.errors == 0, "{} errors, the first: {first}", self.errors);
        ensure!(self.calls > 0 && self.calls_per_second > 0.0, "nothing was answered");
        Ok(())
    }

    /// CPU seconds of the whole machine for each million.
    pub fn cpu_per_million(&self) -> f64 {
        self.machine_busy_seconds / (self.calls as f64 / 1e6)
    }
}

impl Served {
    /// An error unless it did something, every call well, and cleaned up. A datagram that could not be sent back is a loss and no error: the
    /// load has no answer to it.
    pub fn must_be_right(&self, work: Work) -> Result {
        ensure!(self.served > 0, "the server served nothing");
        let well = self.failed == 0 || work == Work::Echo;
        ensure!(well, "the server failed at {} calls, and served {}", self.failed, self.served);
        ensure!(self.leaks.is_empty(), "the server leaks: {}", self.leaks.join("; "));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::arms::{AF_XDP, ARMS, MMSG};
    use super::*;

    fn words(command: &Cmd) -> String {
        let words: Vec<_> = command.words().iter().map(|word| word.to_string_lossy()).collect();
        words.join(" ")
    }

    fn arm(name: &str) -> &'static Spec {
        ARMS.iter().find(|arm| arm.name == name).unwrap()
    }

    #[test]
    fn kernels_and_ports_have_addresses_of_their_own() {
        let program = Program("vs_kernel".into());
        let serve = |name| words(&program.serve(Work::Echo, arm(name), [0, 1]));
        assert_eq!(serve(MMSG), "vs_kernel serve udp mmsg --address 198.18.0.2 --cpus 1 --wait sleep");
        assert_eq!(
            serve(AF_XDP),
            "vs_kernel serve udp af_xdp:s0 --address 198.18.0.12/24 --cpus 1 --wait spin"
        );
        let load = |name, shape| words(&program.load(Work::Calls, arm(name), shape, [0, 1], 7));
        assert!(
            load(MMSG, Shape::Open(1234.5))
                .starts_with("vs_kernel load rx af_packet:c0 198.18.0.2 --address 198.18.0.11/24 --cpu 0"),
            "{}",
            load(MMSG, Shape::Open(1234.5))
        );
        assert!(load(MMSG, Shape::Open(1234.5)).contains("--mode open --rate 1234 "));
        assert!(load(MMSG, Shape::RoundTrip).starts_with("vs_kernel load rx mmsg 198.18.0.2 --cpu 0"));
        assert!(
            load(AF_XDP, Shape::Bulk)
                .starts_with("vs_kernel load rx af_xdp:c0 198.18.0.12 --address 198.18.0.11/24")
        );
    }

    #[test]
    fn wrong_replies_and_leaks_are_failures() {
        let loaded = |errors, calls| Loaded {
            calls,
            calls_per_second: calls as f64,
            bytes_per_second: 0.0,
            errors,
            first_error: None,
            latency_ns_p50: 1,
            latency_ns_p99: 1,
            latency_ns_p999: 1,
            machine_busy_seconds: 2.0,
        };
        assert!(loaded(0, 1).must_be_right().is_ok());
        assert!(loaded(1, 1).must_be_right().is_err());
        assert!(loaded(0, 0).must_be_right().is_err());
        assert_eq!(loaded(0, 500_000).cpu_per_million(), 4.0);
        let served = |failed, leaks| Served { served: 9, failed, ready_seconds: 0.1, leaks };
        assert!(served(0, vec![]).must_be_right(Work::Calls).is_ok());
        assert!(served(1, vec![]).must_be_right(Work::Calls).is_err());
        assert!(served(1, vec![]).must_be_right(Work::Echo).is_ok());
        assert!(served(0, vec!["a buffer".into()]).must_be_right(Work::Echo).is_err());
    }
}
