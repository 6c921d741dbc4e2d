//! What a run prints. Each name ends with its unit where it has one; a name that is here stays.

use serde::Serialize;

use crate::args::{ModeName, Wait, Workload};

/// What a load saw. All but `errors` is of the measured time alone.
#[derive(Clone, Debug, Serialize)]
pub struct Loaded {
    /// UDP echo or Rx calls.
    pub workload: Workload,
    /// The load's own way, as it was given.
    pub arm: String,
    /// How requests followed each other.
    pub mode: ModeName,
    /// What the load did while it waited.
    pub wait: Wait,
    /// Bytes of a request.
    pub payload_bytes: u32,
    /// Bytes of a reply; of UDP the same.
    pub reply_bytes: u32,
    /// The most requests at once.
    pub in_flight: usize,
    /// Source ports.
    pub flows: usize,
    /// What times and payloads were drawn from.
    pub seed: u64,
    /// Requests that were to be made, a second; of an open loop.
    pub offered_per_second: Option<f64>,
    /// For so long it was measured.
    pub seconds: f64,
    /// Replies that came in that time, each verified to the last byte.
    pub calls: u64,
    /// The same a second.
    pub calls_per_second: f64,
    /// Bytes of those replies, a second.
    pub bytes_per_second: f64,
    /// Requests due in that time that were never made, because `in_flight` others had no answer yet or the wire took no more.
    pub unsent: u64,
    /// Requests made whose answer did not come in `patience_ms`; of UDP. No error: a loss is what a full queue does.
    pub lost: u64,
    /// Wrong replies, replies that nobody waited for or that came twice, failed calls: of the whole run. Answers to what was lost before, which
    /// come late, count nowhere. Anything but 0 is a failure, exit code 1.
    pub errors: u64,
    /// The first of these.
    pub first_error: Option<String>,
    /// From when a request was meant to be made to its reply; the requests are those that were due in the measured time.
    #[serde(flatten)]
    pub latency: Latency,
    /// CPU time of this process in the measured time, user and system. In a pair: the server too. A softirq that interrupts the process may
    /// count here as well.
    pub cpu_seconds: f64,
    /// The same for a million calls.
    pub cpu_seconds_per_million_calls: f64,
    /// What /proc/stat says of the whole machine from 10 ms before the measured time until its last answer, in steps of 10 ms.
    #[serde(flatten)]
    pub machine: Machine,
    /// From this program's exec to its first reply.
    pub cold_start_seconds: f64,
}

/// Percentiles.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Latency {
    /// Requests.
    pub latency_count: u64,
    /// Least.
    pub latency_ns_min: u64,
    /// Mean.
    pub latency_ns_mean: f64,
    /// Median.
    pub latency_ns_p50: u64,
    /// Nine of ten.
    pub latency_ns_p90: u64,
    /// 99 of a hundred.
    pub latency_ns_p99: u64,
    /// 999 of a thousand.
    pub latency_ns_p99_9: u64,
    /// Most.
    pub latency_ns_max: u64,
}

/// CPU time of the whole machine.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Machine {
    /// The length of that time.
    pub machine_seconds: f64,
    /// CPU time for anything, of all CPUs: user, nice, system, irq, softirq.
    pub machine_busy_seconds: f64,
    /// Thereof softirq.
    pub machine_softirq_seconds: f64,
    /// The share of softirq of each of this side's CPUs: 0 to 1.
    pub softirq_shares: Vec<CpuShare>,
}

/// One CPU's.
#[derive(Clone, Debug, Serialize)]
pub struct CpuShare {
    /// Its number.
    pub cpu: usize,
    /// 0 to 1.
    pub share: f64,
}

/// What a server did, from its first request to its last one.
#[derive(Clone, Debug, Serialize)]
pub struct Served {
    /// UDP echo or Rx calls.
    pub workload: Workload,
    /// The server's way.
    pub arm: String,
    /// What its threads did when there was nothing to do.
    pub wait: Wait,
    /// Its CPUs.
    pub cpus: Vec<usize>,
    /// Datagrams sent back, or calls that ended well.
    pub served: u64,
    /// Thereof each thread's, in the order of `cpus`; of engines empty.
    pub served_by_thread: Vec<u64>,
    /// Calls that did not end well, datagrams that could not be sent back.
    pub failed: u64,
    /// From the first request to the last one, in steps of 10 ms.
    pub seconds: f64,
    /// CPU time of the process in that time, user and system.
    pub cpu_seconds: f64,
    /// The same for a million of `served`.
    pub cpu_seconds_per_million_calls: f64,
    /// What /proc/stat says of the whole machine in that time.
    #[serde(flatten)]
    pub machine: Machine,
    /// From this program's exec until it could answer.
    pub ready_seconds: f64,
    /// Packets lost on this side, by name, where it is known; what the kernel dropped because a socket was full is `socket_full`.
    pub drops: Vec<Dropped>,
    /// What leaked when it ended: buffers, sockets, panics. Ours alone; anything is a failure, exit code 1.
    pub leaks: Vec<String>,
}

/// One kind of loss.
#[derive(Clone, Debug, Serialize)]
pub struct Dropped {
    /// Why.
    pub reason: String,
    /// How many.
    pub packets: u64,
}

/// Both sides of a pair.
#[derive(Clone, Debug, Serialize)]
pub struct Paired {
    /// The load's side, its fields at the top as if it stood alone.
    #[serde(flatten)]
    pub load: Loaded,
    /// The server's side.
    pub server: Served,
}

/// `arms`.
#[derive(Clone, Debug, Serialize)]
pub struct Arms {
    /// Each way of the kernel's.
    pub arms: Vec<Probed>,
}

/// Whether this machine has it.
#[derive(Clone, Debug, Serialize)]
pub struct Probed {
    /// The way.
    pub arm: String,
    /// Whether it works here.
    pub available: bool,
    /// If not, why and the mend.
    pub why: Option<String>,
}
