//! `rxline rxperf` as a process of a step: servers behind the gateway, and load.
//!
//! Their addresses belong to rxline and not to the kernel, whose own interface they share.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use serde::Deserialize;

use crate::cargo::build_rxline;
use crate::fault::{Fault, Result};
use crate::gateway::RXPERF;
use crate::net::FRONT;
use crate::ns::Netns;
use crate::proc::{Cmd, Running};
use crate::step::Cx;

/// The load's own address.
const CLIENT: &str = "10.61.1.20/24";

/// Where the rxperf server of a server's namespace answers.
pub fn address(index: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 61, 2, 31 + index as u8)
}

/// Starts the server with this number; `wire` goes before its port's URL: `sim:delay=2ms@`.
pub fn serve(cx: &Cx<'_>, ns: &Netns, index: usize, wire: &str) -> Result<Running> {
    let rxline = build_rxline(cx)?;
    let url = format!("{wire}af_packet:v0");
    let address = format!("{}/24", address(index));
    let server = ns.cmd(rxline).args(["rxperf", "server", "--port", &url, "--address", &address]);
    // Only the gateway's network is its neighbour; calls come from there.
    server.args(["--json"]).env("RUST_BACKTRACE", "1").start(cx, &format!("rxperf-server{index}"))
}

/// What a load is.
pub struct Load {
    /// Calls in progress at once.
    pub in_flight: usize,
    /// How long.
    pub seconds: u64,
    /// Bytes that each call receives.
    pub reply_bytes: usize,
}

/// What became of a load: the last line of `rxline rxperf client --json`.
#[derive(Clone, Debug, Deserialize)]
pub struct Report {
    /// Calls that ended well, every byte of the answer right.
    pub verified: u64,
    /// Calls that did not.
    pub failed: u64,
    /// Verified calls a second.
    pub calls_per_second: f64,
    /// Verified calls by the service that answered.
    pub services: BTreeMap<u16, u64>,
    /// Why calls failed, in words, and how many.
    pub failures: BTreeMap<String, u64>,
}

/// The command of a load through the gateway.
pub fn load(cx: &Cx<'_>, ns: &Netns, load: &Load) -> Result<Cmd> {
    let rxline = build_rxline(cx)?;
    let server = SocketAddrV4::new(FRONT, RXPERF.0).to_string();
    let connections = load.in_flight.div_ceil(4).to_string();
    let (seconds, in_flight) = (load.seconds.to_string(), load.in_flight.to_string());
    let reply_bytes = load.reply_bytes.to_string();
    let client = ns.cmd(rxline).args(["rxperf", "client", "--port", "af_packet:cli0", "--address", CLIENT]);
    let client = client.args(["--server", &server, "--in-flight", &in_flight, "--connections", &connections]);
    let client = client.args(["--seconds", &seconds, "--reply-bytes", &reply_bytes, "--json"]);
    Ok(client.env("RUST_BACKTRACE", "1").limit(Duration::from_secs(load.seconds + 40)))
}

/// The report at the end of what a load printed.
pub fn report(stdout: &str) -> Result<Report> {
    let last = stdout.lines().last().unwrap_or_default();
    serde_json::from_str(last)
        .map_err(|error| Fault::Check(format!("rxperf's last line is {last:?}: {error}")))
}
