//! Which addresses are ours, and where everything else is.
//!
//! Static: made from the configuration, then only read. Strong host model (RFC 1122 section 3.3.4.2): an address is
//! received on the port that has it. Broadcast and multicast destinations have no route.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use ipnet::IpNet;
use pmd::MacAddr;

use super::config::{ConfigError, PortConfig};
use super::small::Fold;

/// The way to a destination.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hop {
    pub port: usize,
    /// Whose MAC address to send to: the destination itself or a gateway.
    pub next: IpAddr,
    /// The address of ours to send from, unless the sender has chosen one.
    pub source: IpAddr,
}

/// In the place of a port: a network's own address or its broadcast.
const BROADCAST: usize = usize::MAX;

struct Entry {
    net: u128,
    mask: u128,
    port: usize,
    via: Option<IpAddr>,
    source: IpAddr,
}

pub struct Routes {
    /// Longest prefix first.
    v4: Vec<Entry>,
    v6: Vec<Entry>,
    /// Link-local address of each port that has IPv6.
    link_local: Vec<Option<Ipv6Addr>>,
    /// Our addresses with their ports; and, as [`BROADCAST`], the addresses of our prefixes that no host has.
    local4: HashMap<u32, usize, BuildHasherDefault<Fold>>,
    /// A bit for each of them: most addresses of others are told apart by it alone.
    local4_bits: u64,
    local6: HashMap<(u32, u128), usize, BuildHasherDefault<Fold>>,
    /// All of ours with their ports, for listings.
    addresses: Vec<(usize, IpAddr)>,
}

impl Routes {
    pub fn new(ports: &[PortConfig]) -> Result<Self, ConfigError> {
        let mut routes = Routes {
            v4: Vec::new(),
            v6: Vec::new(),
            link_local: Vec::new(),
            local4: HashMap::default(),
            local4_bits: 0,
            local6: HashMap::default(),
            addresses: Vec::new(),
        };
        for (port, config) in ports.iter().enumerate() {
            routes.add_addresses(port, config)?;
        }
        for (port, config) in ports.iter().enumerate() {
            for route in &config.routes {
                let bad = ConfigError::Gateway { port, prefix: route.prefix, via: route.via };
                let source =
                    gateway_source(config, routes.link_local[port], route.prefix, route.via).ok_or(bad)?;
                routes.add(route.prefix, port, Some(route.via), source);
            }
        }
        routes.local4_bits = routes.local4.keys().fold(0, |bits, address| bits | bit4(*address));
        // Stable: of equal prefixes the port configured first wins.
        routes.v4.sort_by_key(|entry| std::cmp::Reverse(entry.mask));
        routes.v6.sort_by_key(|entry| std::cmp::Reverse(entry.mask));
        Ok(routes)
    }

    fn add_addresses(&mut self, port: usize, config: &PortConfig) -> Result<(), ConfigError> {
        for &net in &config.addresses {
            let address = net.addr();
            if self.local_port(address, port as u32 + 1).is_some() {
                return Err(ConfigError::DuplicateAddress { address });
            }
            self.add_local(port, address);
            if !is_link_local(address) && net.prefix_len() < net.max_prefix_len() {
                self.add(net, port, None, address);
            }
            if let IpNet::V4(net) = net
                && net.prefix_len() < 31
            {
                for edge in [net.network(), net.broadcast()] {
                    self.local4.entry(edge.to_bits()).or_insert(BROADCAST);
                }
            }
        }
        let given = config.addresses.iter().map(IpNet::addr).find(|a| is_link_local(*a));
        let link_local = match given {
            Some(IpAddr::V6(address)) => Some(address),
            _ if config.mtu >= 1280 => {
                let address = link_local(config.mac);
                self.add_local(port, IpAddr::V6(address));
                Some(address)
            }
            _ => None,
        };
        self.link_local.push(link_local);
        Ok(())
    }

    fn add_local(&mut self, port: usize, address: IpAddr) {
        match address {
            IpAddr::V4(a) => self.local4.insert(a.to_bits(), port),
            IpAddr::V6(a) => self.local6.insert(key6(a, port as u32 + 1), port),
        };
        self.addresses.push((port, address));
    }

    fn add(&mut self, prefix: IpNet, port: usize, via: Option<IpAddr>, source: IpAddr) {
        let (net, mask) = match prefix.trunc() {
            IpNet::V4(net) => (bits(net.network().into()), u128::from(net.netmask().to_bits())),
            IpNet::V6(net) => (bits(net.network().into()), net.netmask().to_bits()),
        };
        let table = if prefix.addr().is_ipv4() { &mut self.v4 } else { &mut self.v6 };
        // Many addresses of one prefix make one route; the first is the source.
        if !table.iter().any(|e| (e.net, e.mask, e.port, e.via) == (net, mask, port, via)) {
            table.push(Entry { net, mask, port, via, source });
        }
    }

    /// The way to `to`; for a link-local address on the port its scope names, or the first.
    pub fn lookup(&self, to: IpAddr, scope: u32) -> Option<Hop> {
        if to.is_multicast() || to.is_unspecified() || to.is_loopback() {
            return None;
        }
        if is_link_local(to) {
            let port = (scope as usize).saturating_sub(1);
            let source = (*self.link_local.get(port)?)?;
            return Some(Hop { port, next: to, source: source.into() });
        }
        let table = match to {
            IpAddr::V4(a) if a.is_broadcast() || self.is_subnet_broadcast(a) => return None,
            IpAddr::V4(_) => &self.v4,
            IpAddr::V6(a) if a.to_ipv4_mapped().is_some() => return None,
            IpAddr::V6(_) => &self.v6,
        };
        let address = bits(to);
        let entry = table.iter().find(|entry| address & entry.mask == entry.net)?;
        Some(Hop { port: entry.port, next: entry.via.unwrap_or(to), source: entry.source })
    }

    /// Whether `address` is on the link of `port`: reached without a gateway.
    pub fn is_on_link(&self, port: usize, address: IpAddr) -> bool {
        if is_link_local(address) {
            return true;
        }
        let table = if address.is_ipv4() { &self.v4 } else { &self.v6 };
        let address = bits(address);
        table.iter().any(|e| e.via.is_none() && e.port == port && address & e.mask == e.net)
    }

    /// Whether `port` has this address.
    #[inline]
    pub fn has4(&self, port: usize, address: Ipv4Addr) -> bool {
        self.local4.get(&address.to_bits()) == Some(&port)
    }

    /// Whether `port` has this address.
    #[inline]
    pub fn has(&self, port: usize, address: IpAddr) -> bool {
        self.local_port(address, port as u32 + 1) == Some(port)
    }

    /// The port that has this address; a link-local one is looked for on the port that `scope` names, or the first.
    #[inline]
    pub fn local_port(&self, address: IpAddr, scope: u32) -> Option<usize> {
        match address {
            IpAddr::V4(a) => self.local4.get(&a.to_bits()).copied().filter(|&port| port != BROADCAST),
            IpAddr::V6(a) => self.local6.get(&key6(a, scope.max(1))).copied(),
        }
    }

    pub fn addresses(&self) -> &[(usize, IpAddr)] {
        &self.addresses
    }

    /// Whether `port` has an address whose solicited-node group is `group`.
    pub fn has_solicited_node(&self, port: usize, group: Ipv6Addr) -> bool {
        self.addresses.iter().any(|&(p, address)| match address {
            IpAddr::V6(a) => p == port && super::wire::solicited_node(a) == group,
            IpAddr::V4(_) => false,
        })
    }

    /// Whether `address` may not send to `port`: it is ours there, or no host's.
    #[inline]
    pub fn is_impossible_source4(&self, port: usize, address: Ipv4Addr) -> bool {
        let address = address.to_bits();
        self.local4_bits & bit4(address) != 0
            && self.local4.get(&address).is_some_and(|&owner| owner == port || owner == BROADCAST)
    }

    /// Whether this is the broadcast or network address of a prefix of ours.
    pub fn is_subnet_broadcast(&self, address: Ipv4Addr) -> bool {
        self.local4.get(&address.to_bits()) == Some(&BROADCAST)
    }
}

/// The bit of an address in [`Routes::local4_bits`].
#[inline]
fn bit4(address: u32) -> u64 {
    1 << (address.wrapping_mul(0x9e37_79b9) >> 26)
}

/// The address of ours to speak to a gateway from, if it can be reached at all.
fn gateway_source(
    config: &PortConfig,
    link_local: Option<Ipv6Addr>,
    prefix: IpNet,
    via: IpAddr,
) -> Option<IpAddr> {
    if prefix.addr().is_ipv4() != via.is_ipv4() || config.addresses.iter().any(|net| net.addr() == via) {
        return None;
    }
    let global = |net: &&IpNet| net.addr().is_ipv4() == via.is_ipv4() && !is_link_local(net.addr());
    if is_link_local(via) {
        return config.addresses.iter().find(global).map(IpNet::addr).or(link_local.map(IpAddr::V6));
    }
    config.addresses.iter().filter(global).find(|net| net.contains(&via)).map(IpNet::addr)
}

/// IPv6 link-local unicast. (IPv4's 169.254/16 is an ordinary prefix here.)
pub fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(a) if a.is_unicast_link_local())
}

/// The link-local address of an interface (RFC 4291 appendix A).
pub fn link_local(mac: MacAddr) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.0;
    let id = u64::from_be_bytes([a ^ 2, b, c, 0xff, 0xfe, d, e, f]);
    Ipv6Addr::from_bits(0xfe80 << 112 | u128::from(id))
}

/// A socket address as users see it: link-local ones name their port in the scope.
pub fn socket_address(address: IpAddr, number: u16, port: usize) -> SocketAddr {
    match address {
        IpAddr::V6(a) if is_link_local(address) => SocketAddrV6::new(a, number, 0, port as u32 + 1).into(),
        _ => SocketAddr::new(address, number),
    }
}

/// Link-local addresses are looked up with their scope, which is their port's number plus one.
fn key6(address: Ipv6Addr, scope: u32) -> (u32, u128) {
    (if address.is_unicast_link_local() { scope } else { 0 }, address.to_bits())
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(a) => u128::from(a.to_bits()),
        IpAddr::V6(a) => a.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::config::Route;
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn routes() -> Routes {
        let mac = |n| MacAddr([2, 0, 0, 0, 0, n]);
        let mut a = PortConfig::new(mac(1), 1500, vec![net("192.0.2.10/24"), net("2001:db8::10/64")]);
        a.routes = vec![
            Route::default_via(ip("192.0.2.1")),
            Route { prefix: net("198.51.100.0/24"), via: ip("192.0.2.2") },
            Route::default_via(ip("fe80::1")),
        ];
        let mut b = PortConfig::new(mac(2), 1500, vec![net("203.0.113.1/28")]);
        b.routes = vec![Route { prefix: net("198.51.100.64/26"), via: ip("203.0.113.2") }];
        Routes::new(&[a, b]).unwrap()
    }

    #[test]
    fn longest_prefix_wins_and_the_source_fits_the_link() {
        let routes = routes();
        let way = |to: &str| {
            routes.lookup(ip(to), 0).map(|hop| (hop.port, hop.next.to_string(), hop.source.to_string()))
        };
        let expect = |port, next: &str, source: &str| Some((port, next.to_owned(), source.to_owned()));
        assert_eq!(way("192.0.2.77"), expect(0, "192.0.2.77", "192.0.2.10"));
        assert_eq!(way("203.0.113.5"), expect(1, "203.0.113.5", "203.0.113.1"));
        assert_eq!(way("198.51.100.1"), expect(0, "192.0.2.2", "192.0.2.10"));
        assert_eq!(way("198.51.100.65"), expect(1, "203.0.113.2", "203.0.113.1"));
        assert_eq!(way("8.8.8.8"), expect(0, "192.0.2.1", "192.0.2.10"));
        assert_eq!(way("2001:db8::77"), expect(0, "2001:db8::77", "2001:db8::10"));
        assert_eq!(way("2001:db8:1::1"), expect(0, "fe80::1", "2001:db8::10"));
        for none in ["255.255.255.255", "192.0.2.255", "224.0.0.1", "ff02::1", "::ffff:192.0.2.77", "::1"] {
            assert_eq!(way(none), None, "{none}");
        }
    }

    #[test]
    fn link_local_follows_its_scope() {
        let hop = routes().lookup(ip("fe80::9"), 2).unwrap();
        assert_eq!((hop.port, hop.source), (1, ip("fe80::ff:fe00:2")));
        assert_eq!(routes().lookup(ip("fe80::9"), 3), None);
    }

    #[test]
    fn ours_is_what_the_port_has() {
        let routes = routes();
        assert!(routes.has(0, ip("192.0.2.10")) && !routes.has(1, ip("192.0.2.10")));
        assert!(routes.has(1, ip("fe80::ff:fe00:2")) && !routes.has(0, ip("fe80::ff:fe00:2")));
        assert!(routes.local_port(ip("192.0.2.11"), 0).is_none());
        assert!(routes.is_on_link(0, ip("192.0.2.99")) && !routes.is_on_link(1, ip("192.0.2.99")));
        assert!(!routes.is_on_link(0, ip("8.8.8.8")));
    }

    #[test]
    fn a_gateway_must_be_on_the_link() {
        let mut port = PortConfig::new(MacAddr([2; 6]), 1500, vec![net("192.0.2.10/24")]);
        for via in ["198.51.100.1", "192.0.2.10", "2001:db8::1"] {
            port.routes = vec![Route { prefix: net("10.0.0.0/8"), via: ip(via) }];
            let error = Routes::new(std::slice::from_ref(&port)).err();
            assert!(matches!(error, Some(ConfigError::Gateway { .. })), "{via}: {error:?}");
        }
    }
}
