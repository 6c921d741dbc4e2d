//! The network stack of one core: Ethernet, 802.1Q, ARP, neighbour discovery, IPv4, IPv6, ICMP and UDP.
//!
//! A [`Stack`] belongs to one core and is plain data: no clock, no I/O, no thread, no lock, and no allocation after
//! [`Stack::new`]. Frames go in through [`Stack::demux`], datagrams through [`Stack::send`]; what it wants done comes out
//! through the [`Outbox`]. Several cores that share ports have a stack each; what one hears about neighbours and path
//! MTUs it tells the others in [`Update`]s.
//!
//! ```text
//! input      demux: a frame to a verdict          output      send: a datagram to frames, fragments
//! icmp       echo, errors, both versions          arp, ndp    questions and answers about neighbours
//! neighbour  the cache behind both                reassembly  fragments to datagrams
//! route      our addresses, and everything else   path_mtu    what routers said fits
//! wire, checksum, small                           headers, sums, keyed hashing and such
//! ```
//!
//! Deliberately absent: forwarding between ports, broadcast and multicast UDP, router advertisements and redirects
//! (routes are configured), duplicate address detection and MLD, IGMP, path MTU discovery of its own (what we send may
//! be fragmented on its way), IPv6 jumbograms, ICMP time exceeded for reassembly.

mod arp;
mod checksum;
mod config;
mod icmp;
mod input;
mod ndp;
mod neighbour;
mod output;
mod path_mtu;
mod reassembly;
mod route;
mod small;
mod verdict;
mod wire;

#[cfg(test)]
mod tests;

use std::hash::BuildHasher;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use pmd::{Instant, MacAddr, Pool};

pub use config::{ConfigError, Limits, PortConfig, Route, StackConfig};
pub use ipnet::IpNet;
pub use neighbour::{Claim, ClaimKind};
pub use verdict::{Datagram, NetError, Outbox, Tally, Unreachable, Update, Verdict};

use neighbour::Neighbours;
use path_mtu::PathMtus;
use reassembly::Reassembly;
use route::{Hop, Routes};
use small::{Identification, Keyed, RateLimit};
use wire::{IP_PAYLOAD_MAX, IPV4, IPV6, UDP};

/// What a port is to the stack after its addresses and routes have gone to [`Routes`].
struct StackPort {
    mac: MacAddr,
    mtu: usize,
    vlan: Option<u16>,
}

/// The network stack of one core.
pub struct Stack {
    ports: Vec<StackPort>,
    routes: Routes,
    /// The destination sent to last, with its scope, and the way there, which never changes. It is none of our own addresses.
    last_way: Option<((IpAddr, u32), Hop)>,
    /// The port and the address of ours that were last found to belong together, which never changes either.
    last_local4: (usize, Ipv4Addr),
    neighbours: Neighbours,
    reassembly: Reassembly,
    path_mtus: PathMtus,
    /// Identifications of datagrams that we fragment, and of those that routers might.
    fragment_ids: Identification,
    whole_ids: Identification,
    icmp_errors: RateLimit,
    solicitations: RateLimit,
    accept_zero_checksum: bool,
    /// Other cores want to hear what this one learns.
    shared: bool,
}

/// What every step needs besides the stack.
struct Io<'a> {
    now: Instant,
    pool: &'a mut Pool,
    out: &'a mut Outbox,
}

impl Stack {
    /// A stack for one core.
    pub fn new(config: StackConfig) -> Result<Stack, ConfigError> {
        config.check()?;
        let limits = &config.limits;
        let secret = |n: u64| Keyed(config.seed, 0x7278_6c69_6e65).hash_one(n);
        let keyed = Keyed(secret(1), secret(2));
        let (core, cores) = (config.core, config.cores);
        Ok(Stack {
            routes: Routes::new(&config.ports)?,
            last_way: None,
            last_local4: (usize::MAX, Ipv4Addr::UNSPECIFIED),
            neighbours: Neighbours::new(limits, keyed),
            reassembly: Reassembly::new(limits, keyed),
            path_mtus: PathMtus::new(limits.path_mtus, keyed),
            fragment_ids: Identification::new(secret(3), core, cores),
            whole_ids: Identification::new(secret(4), core, cores),
            icmp_errors: RateLimit::new(limits.icmp_errors_per_second),
            solicitations: RateLimit::new(limits.solicitations_per_second),
            accept_zero_checksum: config.accept_zero_checksum,
            shared: cores > 1,
            ports: config
                .ports
                .iter()
                .map(|port| StackPort { mac: port.mac, mtu: port.mtu, vlan: port.vlan })
                .collect(),
        })
    }

    /// Our addresses with the indices of their ports, link-local ones included.
    pub fn addresses(&self) -> impl Iterator<Item = (usize, IpAddr)> + '_ {
        self.routes.addresses().iter().copied()
    }

    /// Whether this is an address of ours. Link-local IPv6 addresses count on any port.
    pub fn is_local(&self, address: IpAddr) -> bool {
        (0..self.ports.len()).any(|port| self.routes.has(port, address))
    }

    /// The address that [`Stack::send`] chooses for a destination.
    pub fn source_for(&self, to: SocketAddr) -> Option<IpAddr> {
        match self.routes.local_port(to.ip(), scope(to)) {
            Some(_) => Some(to.ip()),
            None => Some(self.routes.lookup(to.ip(), scope(to))?.source),
        }
    }

    /// The largest UDP payload that goes to `to` in one packet, bytes, as far as is known at `now`.
    pub fn mtu_for(&self, now: Instant, to: SocketAddr) -> usize {
        let headers = if to.is_ipv4() { IPV4 + UDP } else { IPV6 + UDP };
        if self.routes.local_port(to.ip(), scope(to)).is_some() {
            return IP_PAYLOAD_MAX - headers;
        }
        let least = if to.is_ipv4() { 576 } else { 1280 };
        let mtu = self.routes.lookup(to.ip(), scope(to)).map_or(least, |hop| self.mtu(now, hop, to.ip()));
        mtu - headers
    }

    /// The largest IP packet on the way to `to`.
    fn mtu(&self, now: Instant, hop: Hop, to: IpAddr) -> usize {
        let link = self.ports[hop.port].mtu;
        self.path_mtus.get(now, to).map_or(link, |path| path.min(link))
    }

    /// Fragments that wait for the rest of their datagrams: received frames not in the ledger yet.
    pub fn held(&self) -> usize {
        self.reassembly.held()
    }

    /// When [`Stack::expire`] has something to do.
    pub fn next_timeout(&self) -> Option<Instant> {
        [self.neighbours.next_timeout(), self.reassembly.next_timeout()].into_iter().flatten().min()
    }

    /// Runs the timers that are due. Cheap when none is.
    pub fn expire(&mut self, now: Instant, pool: &mut Pool, out: &mut Outbox) {
        self.reassembly.expire(now, &mut |reason, n| out.count_rx(reason, n));
        self.expire_neighbours(&mut Io { now, pool, out });
    }

    /// Applies what another core's stack has learnt.
    pub fn apply(&mut self, now: Instant, update: Update, pool: &mut Pool, out: &mut Outbox) {
        match update {
            // A claim about nobody whom this core deals with is no news.
            Update::Neighbour(claim) => {
                self.learn(&mut Io { now, pool, out }, &claim);
            }
            Update::PathMtu { to, mtu } => self.path_mtus.report(now, to, mtu),
        }
    }

    /// Lets go of every buffer: at shutdown, before the pools are counted. The tally says what was given up.
    pub fn clear(&mut self, out: &mut Outbox) {
        self.reassembly.clear(&mut |reason, n| out.count_rx(reason, n));
        self.neighbours.clear(&mut |action| output::give_up(out, action));
    }
}

/// The port that a link-local address names, plus one; 0: none.
fn scope(address: SocketAddr) -> u32 {
    match address {
        SocketAddr::V4(_) => 0,
        SocketAddr::V6(a) => a.scope_id(),
    }
}
