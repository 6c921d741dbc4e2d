//! What a stack is made from, and what can be wrong with it.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use ipnet::IpNet;
use pmd::MacAddr;

/// One port as the stack sees it.
#[derive(Clone, Debug)]
pub struct PortConfig {
    /// The port's unicast address.
    pub mac: MacAddr,
    /// The largest IP packet the link carries, bytes (Ethernet: 1500).
    pub mtu: usize,
    /// Frames carry this 802.1Q VLAN identifier, 1 to 4094; `None`: untagged.
    pub vlan: Option<u16>,
    /// Our addresses, each with the length of its on-link prefix. The IPv6 link-local address of the MAC is added.
    pub addresses: Vec<IpNet>,
    /// What is reached through gateways on this link.
    pub routes: Vec<Route>,
}

impl PortConfig {
    /// An untagged port without routes.
    pub fn new(mac: MacAddr, mtu: usize, addresses: Vec<IpNet>) -> Self {
        PortConfig { mac, mtu, vlan: None, addresses, routes: Vec::new() }
    }
}

/// A destination reached through a gateway.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Route {
    /// The destinations.
    pub prefix: IpNet,
    /// The gateway: on-link at this port, or an IPv6 link-local address.
    pub via: IpAddr,
}

impl Route {
    /// Everything of the gateway's IP version that has no better route.
    pub fn default_via(via: IpAddr) -> Self {
        let prefix = match via {
            IpAddr::V4(_) => IpNet::V4(Default::default()),
            IpAddr::V6(_) => IpNet::V6(Default::default()),
        };
        Route { prefix, via }
    }
}

/// How much of everything the stack holds at most. All of it is set aside when the stack is made.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Neighbours known at a time.
    pub neighbours: usize,
    /// Frames that wait for one neighbour's address.
    pub waiting_per_neighbour: usize,
    /// Frames that wait for any neighbour's address.
    pub waiting: usize,
    /// Datagrams being reassembled.
    pub reassemblies: usize,
    /// Datagrams being reassembled for one source; its oldest gives way to its next.
    pub reassemblies_per_source: usize,
    /// Buffers held by fragments.
    pub reassembly_buffers: usize,
    /// How long a datagram may take to arrive in whole.
    pub reassembly_timeout: Duration,
    /// Destinations with a path MTU below their route's.
    pub path_mtus: usize,
    /// ICMP errors sent a second.
    pub icmp_errors_per_second: u32,
    /// ARP requests and neighbour solicitations sent a second.
    pub solicitations_per_second: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            neighbours: 1024,
            waiting_per_neighbour: 128,
            waiting: 1024,
            reassemblies: 256,
            reassemblies_per_source: 64,
            reassembly_buffers: 2048,
            reassembly_timeout: Duration::from_secs(30),
            path_mtus: 256,
            icmp_errors_per_second: 1000,
            solicitations_per_second: 1000,
        }
    }
}

/// The configuration of one core's stack.
#[derive(Clone, Debug)]
pub struct StackConfig {
    /// The ports, in the order of their indices.
    pub ports: Vec<PortConfig>,
    /// Secret randomness; the same on every core of an engine, so that their identifications do not collide.
    pub seed: u64,
    /// Which core this is, below `cores`.
    pub core: usize,
    /// How many cores share the ports.
    pub cores: usize,
    /// Accept UDP over IPv4 without a checksum (RFC 768 allows it; RFC 8200 forbids it over IPv6, where it is never accepted).
    pub accept_zero_checksum: bool,
    /// The bounds.
    pub limits: Limits,
}

impl StackConfig {
    /// One core, default limits, and a seed that must be replaced where others can send to us.
    pub fn new(ports: Vec<PortConfig>) -> Self {
        StackConfig {
            ports,
            seed: 0,
            core: 0,
            cores: 1,
            accept_zero_checksum: true,
            limits: Limits::default(),
        }
    }
}

/// Why a [`StackConfig`] makes no stack.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not between 1 and 64.
    #[error("{count} ports; a stack has 1 to 64")]
    PortCount {
        /// How many were given.
        count: usize,
    },
    /// `core` is not below `cores`, or above what identifications are divided among.
    #[error("core {core} of {cores}; give a core below the number of cores, and at most 256 cores")]
    Core {
        /// The core given.
        core: usize,
        /// The number given.
        cores: usize,
    },
    /// A group address or all zeros.
    #[error("port {port}: {mac} is not a station's address; give a unicast MAC address")]
    Mac {
        /// Index of the port.
        port: usize,
        /// The address given.
        mac: MacAddr,
    },
    /// Outside of what IP works with.
    #[error("port {port}: MTU {mtu}; give 576 to 65535, and at least 1280 where there are IPv6 addresses")]
    Mtu {
        /// Index of the port.
        port: usize,
        /// The MTU given.
        mtu: usize,
    },
    /// Reserved by 802.1Q, or too large for it.
    #[error("port {port}: VLAN {vlan}; give 1 to 4094, or none for untagged frames")]
    Vlan {
        /// Index of the port.
        port: usize,
        /// The VLAN given.
        vlan: u16,
    },
    /// Not an address that a host can have.
    #[error(
        "port {port}: {address} cannot be a host's address; give a unicast address and its prefix length"
    )]
    Address {
        /// Index of the port.
        port: usize,
        /// The address given.
        address: IpNet,
    },
    /// Given twice.
    #[error("{address} is given twice; an address belongs to one port, once")]
    DuplicateAddress {
        /// The address.
        address: IpAddr,
    },
    /// No address of the port shares a prefix with the gateway.
    #[error(
        "port {port}: the gateway {via} of {prefix} is not on-link; give the port an address in its prefix, \
         or name another gateway of the same IP version"
    )]
    Gateway {
        /// Index of the port.
        port: usize,
        /// The route's destinations.
        prefix: IpNet,
        /// The gateway given.
        via: IpAddr,
    },
    /// A bound that nothing could work with.
    #[error("limit {name} is {value}; give {min} to {max}")]
    Limit {
        /// The field of [`Limits`].
        name: &'static str,
        /// The value given.
        value: usize,
        /// The least.
        min: usize,
        /// The most.
        max: usize,
    },
}

impl StackConfig {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if self.ports.is_empty() || self.ports.len() > 64 {
            return Err(ConfigError::PortCount { count: self.ports.len() });
        }
        if self.core >= self.cores || self.cores > 256 {
            return Err(ConfigError::Core { core: self.core, cores: self.cores });
        }
        self.limits.check()?;
        self.ports.iter().enumerate().try_for_each(|(port, config)| config.check(port))
    }
}

impl PortConfig {
    fn check(&self, port: usize) -> Result<(), ConfigError> {
        if self.mac.is_multicast() || self.mac == MacAddr::default() {
            return Err(ConfigError::Mac { port, mac: self.mac });
        }
        let has_v6 = self.addresses.iter().any(|a| matches!(a, IpNet::V6(_)));
        if !(576..=65535).contains(&self.mtu) || (has_v6 && self.mtu < 1280) {
            return Err(ConfigError::Mtu { port, mtu: self.mtu });
        }
        if let Some(vlan) = self.vlan.filter(|vlan| !(1..=4094).contains(vlan)) {
            return Err(ConfigError::Vlan { port, vlan });
        }
        match self.addresses.iter().find(|net| !is_host(net)) {
            Some(&address) => Err(ConfigError::Address { port, address }),
            None => Ok(()),
        }
    }
}

/// Whether a host can have this address within its prefix.
fn is_host(net: &IpNet) -> bool {
    match net {
        IpNet::V4(net) => {
            let a = net.addr();
            let edge = net.prefix_len() < 31 && (a == net.network() || a == net.broadcast());
            let reserved = a.octets()[0] == 0 || a.octets()[0] >= 224;
            !edge && !reserved && !a.is_loopback() && a != Ipv4Addr::UNSPECIFIED
        }
        IpNet::V6(net) => {
            let a = net.addr();
            !a.is_unspecified() && !a.is_loopback() && !a.is_multicast() && a.to_ipv4_mapped().is_none()
        }
    }
}

impl Limits {
    fn check(&self) -> Result<(), ConfigError> {
        let bounds = [
            ("neighbours", self.neighbours, 16, 32768),
            ("waiting_per_neighbour", self.waiting_per_neighbour, 1, 65536),
            ("waiting", self.waiting, 1, 1 << 20),
            ("reassemblies", self.reassemblies, 1, 32768),
            ("reassemblies_per_source", self.reassemblies_per_source, 1, 32768),
            ("reassembly_buffers", self.reassembly_buffers, 1, 1 << 20),
            ("path_mtus", self.path_mtus, 1, 32768),
        ];
        match bounds.into_iter().find(|&(_, value, min, max)| !(min..=max).contains(&value)) {
            Some((name, value, min, max)) => Err(ConfigError::Limit { name, value, min, max }),
            None => Ok(()),
        }
    }
}
