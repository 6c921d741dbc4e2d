//! The command line, and how a run ends: one JSON object on stdout, why not on stderr, an exit code.

use std::net::Ipv4Addr;
use std::process::ExitCode;

use clap::builder::RangedU64ValueParser as Count;
use clap::{Args, Parser, Subcommand, ValueEnum};
use cli::Exit;
use serde::Serialize;

use crate::arm::Arm;
use crate::figures::{Loaded, Served};
use crate::stop::Stop;
use crate::{Trouble, meter, run};

/// One side of one way to do UDP echo or Rx calls: on kernel sockets, or on our ports.
///
/// A server on one machine, namespace or CPU, a load on the other:
///
///   vs_kernel serve udp mmsg --address 198.18.0.2 --cpus 1
///   vs_kernel load udp mmsg 198.18.0.2 --cpu 0 --mode open --rate 100000
///
/// prints what the load saw as one JSON object, and what the server did as another once it gets SIGINT or SIGTERM. Each field has its unit
/// in its name. Any load may drive any server of the same workload that it can reach: what is to be compared is the server, so give all
/// servers the same load; for round trips give both ends the same way.
#[derive(Parser)]
#[command(name = "vs_kernel", version, after_help = AFTER_HELP)]
struct Cli {
    #[command(subcommand)]
    what: What,
}

const AFTER_HELP: &str = "\
Ways (ARM):
  blocking     kernel: one recvfrom and one sendto a datagram
  mmsg         kernel: epoll, then recvmmsg and sendmmsg
  busy-poll    kernel: the same with SO_BUSY_POLL and SO_PREFER_BUSY_POLL (CAP_NET_ADMIN; on veth: ethtool -K IF gro on)
  gso          kernel: the same with UDP_SEGMENT and UDP_GRO (on veth: leave its offloads on, and no XDP at its peer)
  uring        kernel: io_uring, multishot receive into provided buffers, sends in batches
  reuseport    kernel: mmsg on a socket and thread for each of --cpus, by SO_REUSEPORT; load it with --flows 8 or more
  DRIVER:...   ours: memory:NAME (pair only), memif:PATH, af_packet:IF, af_xdp:IF, dpdk:DEVARGS (built with --features dpdk)

Exit codes:
  0  done, and every reply was what it should be
  1  it ran, and the result is bad: a wrong reply, a failed call, no answer
  2  wrong arguments
  3  the machine lacks something (interface, permission, kernel feature); the message says what and the mend";

#[derive(Subcommand)]
enum What {
    /// Serve until SIGINT or SIGTERM; says `ready` on stderr once it answers
    Serve(ServeArgs),
    /// Load a server and say what came of it
    Load(LoadArgs),
    /// Both in this process, a CPU each, joined by a `memory:` port
    Pair(PairArgs),
    /// Which ways of the kernel's this machine has: {"arms":[{"arm","available","why"}]}
    Arms,
}

/// What is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Workload {
    /// UDP datagrams, sent back as they are
    Udp,
    /// Rx calls of rxperf's RPC
    Rx,
}

/// What a thread does when there is nothing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Wait {
    /// Sleeps in the kernel until something comes; our ports poll for some 50 us first
    Sleep,
    /// Polls on
    Spin,
}

impl Wait {
    const fn name(self) -> &'static str {
        match self {
            Wait::Sleep => "sleeping",
            Wait::Spin => "spinning",
        }
    }
}

/// `serve`.
#[derive(Args, Clone, Debug)]
pub struct ServeArgs {
    /// UDP echo, or Rx calls
    #[arg(value_enum)]
    pub workload: Workload,
    /// The way: one of the kernel's, or a port by its URL
    pub arm: Arm,
    /// The address to serve at; of a port with its prefix length, as in 198.18.0.12/24
    #[arg(long)]
    pub address: String,
    /// The UDP port to serve at
    #[arg(long, default_value_t = rxperf::UDP_PORT)]
    pub udp_port: u16,
    /// CPUs, a thread on each: several for reuseport and ports
    #[arg(long, value_delimiter = ',', default_value = "0")]
    pub cpus: Vec<usize>,
    /// What a thread does when there is nothing to do
    #[arg(long, value_enum, default_value_t = Wait::Sleep)]
    pub wait: Wait,
}

/// `load`.
#[derive(Args, Clone, Debug)]
pub struct LoadArgs {
    /// UDP echo, or Rx calls
    #[arg(value_enum)]
    pub workload: Workload,
    /// The way: one of the kernel's, or a port by its URL
    pub arm: Arm,
    /// The server's address
    pub server: Ipv4Addr,
    /// The server's UDP port
    #[arg(long, default_value_t = rxperf::UDP_PORT)]
    pub udp_port: u16,
    /// The address to ask from: a port needs one with its prefix length, as in 198.18.0.11/24
    #[arg(long)]
    pub address: Option<String>,
    /// The load's CPU
    #[arg(long, default_value_t = 0)]
    pub cpu: usize,
    /// Source ports to ask from in turn, for servers on several CPUs
    #[arg(long, default_value_t = 1, value_parser = Count::<usize>::new().range(1..=64))]
    pub flows: usize,
    /// What the load does while it waits: sleep is for closed loops from one source port
    #[arg(long, value_enum, default_value_t = Wait::Spin)]
    pub wait: Wait,
    /// What is asked for
    #[command(flatten)]
    pub shape: ShapeArgs,
}

/// `pair`.
#[derive(Args, Clone, Debug)]
pub struct PairArgs {
    /// UDP echo, or Rx calls
    #[arg(value_enum)]
    pub workload: Workload,
    /// The server's CPU
    #[arg(long, default_value_t = 1)]
    pub server_cpu: usize,
    /// The load's CPU
    #[arg(long, default_value_t = 0)]
    pub client_cpu: usize,
    /// What the server does when there is nothing to do, and in a closed loop the load
    #[arg(long, value_enum, default_value_t = Wait::Spin)]
    pub wait: Wait,
    /// What is asked for
    #[command(flatten)]
    pub shape: ShapeArgs,
}

/// How requests follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum ModeName {
    /// Open loop: requests at random times (Poisson) at --rate, whatever became of those before
    Open,
    /// Closed loop: so many at once, --in-flight; the next when one has ended
    Closed,
    /// One at a time
    RoundTrip,
    /// Closed loop with large payloads
    Bulk,
}

/// The shape of a load.
#[derive(Args, Clone, Debug)]
pub struct ShapeArgs {
    /// How requests follow each other
    #[arg(long, value_enum, default_value_t = ModeName::Closed)]
    pub mode: ModeName,
    /// Requests a second, with --mode open
    #[arg(long, required_if_eq("mode", "open"))]
    pub rate: Option<f64>,
    /// Requests at once: of the open loop the most. 64 closed, 4096 open with udp and 1024 with rx, 16 in bulk with udp and 2 with rx
    #[arg(long, value_parser = Count::<usize>::new().range(1..=65_536))]
    pub in_flight: Option<usize>,
    /// Bytes of a request, 16 and more for udp: 64, in bulk 1400 with udp
    #[arg(long, value_parser = Count::<u32>::new().range(..=16_000_000))]
    pub payload_bytes: Option<u32>,
    /// Bytes of a reply, rx alone: 64, in bulk 1000000
    #[arg(long, value_parser = Count::<u32>::new().range(..=16_000_000))]
    pub reply_bytes: Option<u32>,
    /// For so long it is measured
    #[arg(long, default_value_t = 2.0, allow_negative_numbers = true)]
    pub seconds: f64,
    /// For so long the load runs before that, and does not count
    #[arg(long, default_value_t = 0.5)]
    pub warm_up_seconds: f64,
    /// A datagram without an answer for so long is lost; a call fails after 100 times as much
    #[arg(long, default_value_t = 200)]
    pub patience_ms: u64,
    /// For so long a first answer is waited for
    #[arg(long, default_value_t = 10.0)]
    pub connect_seconds: f64,
    /// Decides times and payloads of requests; drawn, and told, if not given
    #[arg(long)]
    pub seed: Option<u64>,
}

/// Runs what the command line asks for.
pub fn main() -> ExitCode {
    meter::executed();
    let said = match Cli::parse().what {
        What::Serve(args) => serve(&args),
        What::Load(args) => load(&args),
        What::Pair(args) => pair(&args),
        What::Arms => Ok((json(&run::arms()), Exit::Ok)),
    };
    match said {
        Ok((figures, exit)) => {
            cli::say(format_args!("{figures}\n"));
            exit.into()
        }
        Err(trouble) => {
            eprintln!("vs_kernel: {trouble}");
            trouble.into()
        }
    }
}

fn serve(args: &ServeArgs) -> Result<(String, Exit), Trouble> {
    let ready = || {
        eprintln!(
            "vs_kernel: ready: {} {} at {}, UDP port {}",
            args.arm,
            args.wait.name(),
            args.address,
            args.udp_port
        )
    };
    let served = run::serve(args, &Stop::on_signals()?, ready)?;
    Ok((json(&served), verdict_of_server(&served)))
}

fn load(args: &LoadArgs) -> Result<(String, Exit), Trouble> {
    let loaded = run::load(args, &Stop::on_signals()?)?;
    Ok((json(&loaded), verdict(&loaded)))
}

fn pair(args: &PairArgs) -> Result<(String, Exit), Trouble> {
    let paired = run::pair(args, &Stop::on_signals()?)?;
    let (load, server) = (verdict(&paired.load), verdict_of_server(&paired.server));
    Ok((json(&paired), if load == Exit::Ok { server } else { load }))
}

/// Whether every reply was what it should be, and there was one.
fn verdict(loaded: &Loaded) -> Exit {
    if let Some(error) = &loaded.first_error {
        eprintln!("vs_kernel: {} errors, the first: {error}", loaded.errors);
    }
    if loaded.errors == 0 && loaded.calls > 0 { Exit::Ok } else { Exit::Failed }
}

fn verdict_of_server(served: &Served) -> Exit {
    served.leaks.iter().for_each(|leak| eprintln!("vs_kernel: {leak}"));
    if served.leaks.is_empty() { Exit::Ok } else { Exit::Failed }
}

fn json(figures: &impl Serialize) -> String {
    serde_json::to_string(figures).expect("finite numbers")
}

#[cfg(test)]
mod tests {
    use super::Cli;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
