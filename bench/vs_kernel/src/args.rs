//! What a run is asked for.

use std::net::Ipv4Addr;

use clap::builder::RangedU64ValueParser as Count;
use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::arm::Arm;

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
    /// In words.
    pub const fn name(self) -> &'static str {
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
