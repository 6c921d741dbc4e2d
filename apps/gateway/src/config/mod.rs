//! The gateway's configuration: what it may say, and reading it.
//!
//! The types here are plain data, so that a program can build a [`Config`] without a file. [`Config::parse`] checks everything
//! that can be known before a device is opened and reports all of it at once. Deliberately absent: defaults that depend on
//! the machine, environment variables, includes; keys, of which there are only the files' names.

mod parse;
mod security;
mod source;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use engine::Idle;
pub use security::{ListenerSecurity, PoolSecurity, User};
pub use source::{ConfigError, Problem};

/// Everything a gateway is told at its start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Which CPUs to poll on.
    pub cores: Cores,
    /// What a core does when there is nothing to do.
    pub idle: Idle,
    /// How long calls in progress may go on after SIGTERM.
    pub drain: Duration,
    /// Packet memory of each core.
    pub memory: Memory,
    /// What each core holds at most.
    pub limits: Limits,
    /// For listeners that relay.
    pub relay: Relay,
    /// At least one.
    pub ports: Vec<PortConfig>,
    /// At least one; no two have the same address.
    pub listeners: Vec<ListenerConfig>,
    /// At least one; no two have the same name.
    pub pools: Vec<PoolConfig>,
}

/// The cores of the gateway; each has its own queues, connections and memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cores {
    /// So many, on whichever CPUs the process may use. Where these are fewer, cores share polling threads.
    Count(usize),
    /// One on each of these CPUs.
    Cpus(Vec<usize>),
}

impl Cores {
    /// How many cores.
    pub fn count(&self) -> usize {
        match self {
            Self::Count(cores) => *cores,
            Self::Cpus(cpus) => cpus.len(),
        }
    }
}

/// Packet memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Buffers of 2 KiB in each core's pool: at least [`BUFFERS_BESIDES`], and [`BUFFERS_PER_CALL`] for each call that
    /// may be in progress.
    pub buffers: usize,
}

/// Buffers that each call in progress has to itself, so that calls that nobody reads cannot stop the others.
pub const BUFFERS_PER_CALL: usize = RECEIVE_RESERVE + SEND_RESERVE;
/// Packets that a call may always hold unread: what a peer sends before it knows our window.
pub(crate) const RECEIVE_RESERVE: usize = 16;
/// Packets that a call may always hold for sending.
pub(crate) const SEND_RESERVE: usize = 8;
/// Buffers that all calls share, and that devices and protocols need.
pub const BUFFERS_BESIDES: usize = 4096;

/// What a core holds at most. Beyond it, calls are refused at once; nothing grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Calls in progress on one core.
    pub calls: usize,
    /// Client connections known on one core; relayed ones are as many again.
    pub connections: usize,
    /// Peers known on one core; of relayed clients, as many at each server.
    pub peers: usize,
}

/// What relaying may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relay {
    /// UDP ports on each own address towards backends, over all cores: as many clients can be known to one backend at a
    /// time, for each has a port of its own.
    pub ports: usize,
    /// How long a client or a connection is remembered without a packet.
    pub idle: Duration,
}

/// A network interface and the addresses it answers for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortConfig {
    /// What to open, as `pmd::open` has it: `af_packet:eth1`, `tap:rx0`, `memory:a`, ..
    pub url: String,
    /// Own addresses with their subnets.
    pub addresses: Vec<Cidr>,
    /// Default routers, at most one of each family.
    pub gateways: Vec<IpAddr>,
    /// Subnets behind other routers.
    pub routes: Vec<Route>,
    /// Largest IP packet in bytes; none: the device's.
    pub mtu: Option<usize>,
    /// 802.1Q tag, 1 to 4094.
    pub vlan: Option<u16>,
}

/// A subnet reached through a router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The subnet.
    pub to: Cidr,
    /// A neighbour on the port.
    pub via: IpAddr,
}

/// Where clients reach the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerConfig {
    /// One of a port's addresses, and a UDP port.
    pub address: SocketAddr,
    /// What becomes of connections.
    pub mode: ListenerMode,
    /// What clients prove; none: nothing, and they need not (security class 0).
    pub security: Option<ListenerSecurity>,
    /// At least one; no id is in two of them.
    pub services: Vec<ServiceConfig>,
}

/// What becomes of a client's connection; decided by the listener, before a connection object exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenerMode {
    /// Calls end at the gateway, which makes calls of its own to backends: call by call.
    Terminate,
    /// Packets go on to a backend with other addresses and ports and nothing else changed, so that what the two ends agreed on
    /// survives: connection by connection.
    Relay,
}

/// Which services a listener serves, and by whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceConfig {
    /// Rx service ids; 52 is the VLDB, 73 the protection database, 147 rxperf.
    pub ids: Vec<u16>,
    /// Index into [`Config::pools`].
    pub pool: usize,
}

/// Servers that are equals: any of them may take any call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolConfig {
    /// What listeners and figures call it.
    pub name: String,
    /// The servers.
    pub backends: Vec<SocketAddr>,
    /// Calls in flight to one backend, or connections that are relayed to it, over all cores; beyond it the backend is passed over. For calls as many connections are
    /// made as it takes, four calls to each: no call waits in line behind one that nobody reads.
    pub calls: usize,
    /// Asking after their health.
    pub probe: Probe,
    /// Giving up calls to them.
    pub timeouts: Timeouts,
    /// What the gateway proves to them, with calls of clients who have proved who they are; none: nothing.
    pub security: Option<PoolSecurity>,
}

/// How a backend's health is asked after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Between two probes.
    pub interval: Duration,
    /// A probe that has no answer by then has failed.
    pub timeout: Duration,
    /// Failures in a row, of probes or of calls, that make a backend dead.
    pub failures: u32,
    /// Answers in a row that bring it back.
    pub answers: u32,
}

/// When a call to a backend is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Nothing heard from the backend, keep-alives included.
    pub silence: Duration,
    /// The whole call; none: as long as it takes.
    pub call: Option<Duration>,
}

impl Config {
    /// Reads and checks a file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let file = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&file, &text),
            Err(error) => {
                let what = format!("cannot read it: {error}");
                let mend = "name a readable TOML file after --config".to_string();
                Err(ConfigError { file, problems: vec![Problem { line: 0, column: 0, what, mend }] })
            }
        }
    }

    /// Checks `text`; `file` is only named in errors.
    pub fn parse(file: &str, text: &str) -> Result<Self, ConfigError> {
        parse::config(text).map_err(|problems| ConfigError { file: file.to_string(), problems })
    }
}

impl PortConfig {
    /// How the port leads to `address`: the length of the longest prefix among its subnets and routes that has it, 0 if only a default router
    /// does. `None`: it does not.
    pub fn reach(&self, address: IpAddr) -> Option<u8> {
        let subnets = self.addresses.iter().chain(self.routes.iter().map(|route| &route.to));
        let known = subnets.filter(|subnet| subnet.contains(address)).map(|subnet| subnet.prefix).max();
        let routed = self.gateways.iter().any(|gateway| gateway.is_ipv4() == address.is_ipv4());
        known.or(routed.then_some(0))
    }
}

impl Config {
    /// The backends of listeners that relay.
    pub fn relayed_backends(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        let relayed = self.listeners.iter().filter(|listener| listener.mode == ListenerMode::Relay);
        let services = relayed.flat_map(|listener| &listener.services);
        services.flat_map(|service| self.pools[service.pool].backends.iter().copied())
    }

    /// Own addresses from which relayed packets may leave towards backends, each once.
    pub fn relay_sources(&self) -> Vec<IpAddr> {
        let mut sources = Vec::new();
        for backend in self.relayed_backends().map(|backend| backend.ip()) {
            let best = self.ports.iter().filter_map(|port| port.reach(backend)).max();
            let ports = self.ports.iter().filter(|port| best.is_some() && port.reach(backend) == best);
            let own = ports.flat_map(|port| port.addresses.iter().map(|own| own.address));
            for own in own.filter(|own| own.is_ipv4() == backend.is_ipv4()) {
                if !sources.contains(&own) {
                    sources.push(own);
                }
            }
        }
        sources
    }
}

impl Default for Relay {
    fn default() -> Self {
        Self { ports: 4096, idle: Duration::from_secs(1800) }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { calls: 2048, connections: 4096, peers: 4096 }
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self { buffers: 65536 }
    }
}

impl Default for Probe {
    fn default() -> Self {
        let (interval, timeout) = (Duration::from_millis(1000), Duration::from_millis(500));
        Self { interval, timeout, failures: 3, answers: 1 }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { silence: Duration::from_secs(10), call: None }
    }
}

/// An address and the length of its subnet's prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    /// With its host part.
    pub address: IpAddr,
    /// In bits.
    pub prefix: u8,
}

impl Cidr {
    /// Whether `address` lies in the subnet.
    pub fn contains(&self, address: IpAddr) -> bool {
        let (ours, theirs, width) = match (self.address, address) {
            (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits().into(), b.to_bits().into(), 32),
            (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits(), b.to_bits(), 128),
            _ => return false,
        };
        let difference: u128 = ours ^ theirs;
        difference.checked_shr(width - u32::from(self.prefix)).unwrap_or(0) == 0
    }
}

/// The text is not of the form `192.0.2.10/24` or `2001:db8::10/64`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an address and a prefix length; write it like 192.0.2.10/24 or 2001:db8::10/64")]
pub struct CidrError;

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        let (address, prefix) = text.split_once('/').ok_or(CidrError)?;
        let address: IpAddr = address.parse().map_err(|_| CidrError)?;
        let prefix: u8 = prefix.parse().map_err(|_| CidrError)?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        if prefix > width { Err(CidrError) } else { Ok(Self { address, prefix }) }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

#[cfg(test)]
mod tests;
