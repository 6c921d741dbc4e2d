//! [`Network`]: what the kernel tells, over netlink and to anybody, of the interfaces of this network namespace.
//!
//! Numbers are those of linux/if_link.h, linux/rtnetlink.h, linux/ethtool_netlink.h and linux/netdev.h.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rustix::net::netlink as protocol;

use crate::netlink::{GENERIC_HEADER, Netlink, attribute, attributes, push, string, u16_at, u32_at, u64_at};

/// Interfaces, addresses, default routes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Network {
    /// By index.
    pub links: Vec<Link>,
    /// Interface index and address.
    pub addresses: Vec<(u32, IpAddr)>,
    /// The interface of each route, in any table, that leads to everywhere; `None` where the kernel does not name it.
    pub default_routes: Vec<Option<u32>>,
    /// Why it is not complete.
    pub error: Option<String>,
}

/// An interface.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Link {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Administratively up.
    pub up: bool,
    /// Up, with a carrier.
    pub running: bool,
    /// Whether its frames are Ethernet's; loopback's are not counted.
    pub ethernet: bool,
    /// Bytes of a layer-3 packet.
    pub mtu: u32,
    /// Of one that is made of software: `veth`, `bridge`, `vlan`, ..
    pub kind: Option<String>,
    /// A veth's other end.
    pub peer: Peer,
    /// Queues in use, receiving and sending.
    pub queues: (u32, u32),
    /// The XDP program on it.
    pub xdp: Option<XdpProgram>,
    /// Combined, or receiving and sending, as `ethtool -l` has them; `None` where the driver does not tell.
    pub channels: Option<Channels>,
    /// What of XDP the driver can do, if the kernel tells (since 6.3): bits of `enum netdev_xdp_act`.
    pub xdp_features: Option<u64>,
    /// Whether it leaves checksums of what it sends to hardware.
    pub tx_checksum: Option<bool>,
}

/// The other end of an interface that has one.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Peer {
    /// It has none.
    #[default]
    None,
    /// An interface of this namespace, by index.
    Here(u32),
    /// In another network namespace.
    Elsewhere,
}

/// An XDP program on an interface.
#[derive(Clone, Debug, PartialEq)]
pub struct XdpProgram {
    /// `native`, `skb` or `hardware`.
    pub mode: &'static str,
    /// The kernel's number of it.
    pub id: u32,
}

/// Numbers of queues.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Channels {
    /// Now in use for receiving.
    pub rx: u32,
    /// As many as there can be.
    pub rx_max: u32,
    /// Whether they are set as `combined`.
    pub combined: bool,
}

const RTM_GETLINK: u16 = 18;
const RTM_GETADDR: u16 = 22;
const RTM_GETROUTE: u16 = 26;
/// struct ifinfomsg, ifaddrmsg, rtmsg.
const LINK_HEADER: usize = 16;
const ADDRESS_HEADER: usize = 8;
const ROUTE_HEADER: usize = 12;

impl Network {
    /// Asks the kernel.
    pub fn read() -> Self {
        let mut network = Network::default();
        if let Err(error) = network.ask() {
            network.error = Some(error.to_string());
        }
        network
    }

    fn ask(&mut self) -> io::Result<()> {
        let mut route = Netlink::open(None)?;
        route.dump(RTM_GETLINK, &[0; LINK_HEADER], |body| self.links.extend(link(body)))?;
        route.dump(RTM_GETADDR, &[0; ADDRESS_HEADER], |body| self.addresses.extend(address(body)))?;
        route
            .dump(RTM_GETROUTE, &[0; ROUTE_HEADER], |body| self.default_routes.extend(default_route(body)))?;
        self.links.sort_unstable_by_key(|link| link.index);
        // What follows is not known to every kernel, nor to every driver.
        if let Ok(mut ethtool) = Generic::find("ethtool") {
            self.links.iter_mut().for_each(|link| link.ask_ethtool(&mut ethtool));
        }
        if let Ok(mut netdev) = Generic::find("netdev") {
            self.links.iter_mut().for_each(|link| link.ask_xdp(&mut netdev));
        }
        Ok(())
    }

    /// The interface of that name.
    pub fn link(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|link| link.name == name)
    }

    /// The interface of that index.
    pub fn at(&self, index: u32) -> Option<&Link> {
        self.links.iter().find(|link| link.index == index)
    }

    /// The addresses that the kernel has on an interface.
    pub fn addresses_of(&self, index: u32) -> impl Iterator<Item = IpAddr> + '_ {
        self.addresses.iter().filter(move |entry| entry.0 == index).map(|entry| entry.1)
    }
}

fn link(body: &[u8]) -> Option<Link> {
    const IFF_UP: u32 = 1;
    const IFF_RUNNING: u32 = 0x40;
    const ARPHRD_ETHER: u16 = 1;
    let attrs = body.get(LINK_HEADER..)?;
    let flags = u32_at(body, 8)?;
    let number = |kind| attribute(attrs, kind).and_then(|value| u32_at(value, 0));
    let kind = attribute(attrs, 18).and_then(|info| attribute(info, 1)).map(string);
    let peer = match (number(5), attribute(attrs, 37)) {
        _ if kind.as_deref() != Some("veth") => Peer::None,
        (_, Some(_)) => Peer::Elsewhere,
        (Some(index), None) if index != 0 => Peer::Here(index),
        _ => Peer::Elsewhere,
    };
    Some(Link {
        index: u32_at(body, 4)?,
        name: string(attribute(attrs, 3)?),
        up: flags & IFF_UP != 0,
        running: flags & (IFF_UP | IFF_RUNNING) == IFF_UP | IFF_RUNNING,
        ethernet: u16_at(body, 2)? == ARPHRD_ETHER,
        mtu: number(4).unwrap_or(0),
        kind,
        peer,
        queues: (number(32).unwrap_or(1), number(31).unwrap_or(1)),
        xdp: attribute(attrs, 43).and_then(xdp),
        ..Link::default()
    })
}

/// IFLA_XDP: mode and number of what is attached, if anything is.
fn xdp(nest: &[u8]) -> Option<XdpProgram> {
    let mode = match *attribute(nest, 2)?.first()? {
        0 => return None,
        1 => "native",
        2 => "skb",
        3 => "hardware",
        _ => "several",
    };
    let id = |kind| attribute(nest, kind).and_then(|value| u32_at(value, 0));
    Some(XdpProgram { mode, id: [4, 5, 6, 7].into_iter().find_map(id).unwrap_or(0) })
}

fn address(body: &[u8]) -> Option<(u32, IpAddr)> {
    let attrs = body.get(ADDRESS_HEADER..)?;
    // IFA_LOCAL is ours where the other end has an address too.
    let bytes = attribute(attrs, 2).or_else(|| attribute(attrs, 1))?;
    let v4 = |bytes: [u8; 4]| IpAddr::V4(Ipv4Addr::from(bytes));
    let v6 = |bytes: [u8; 16]| IpAddr::V6(Ipv6Addr::from(bytes));
    let ip = bytes.try_into().map(v4).or_else(|_| bytes.try_into().map(v6)).ok()?;
    Some((u32_at(body, 4)?, ip))
}

/// The interfaces of a route to everywhere, or to a half of it, as VPNs write it.
fn default_route(body: &[u8]) -> Vec<Option<u32>> {
    const RTN_UNICAST: u8 = 1;
    const FAMILIES: [u8; 2] = [2, 10];
    let Some(attrs) = body.get(ROUTE_HEADER..) else { return Vec::new() };
    let (family, prefix, kind) = (body[0], body[1], body[7]);
    if prefix > 1 || kind != RTN_UNICAST || !FAMILIES.contains(&family) {
        return Vec::new();
    }
    let mut interfaces: Vec<_> = attribute(attrs, 4).and_then(|value| u32_at(value, 0)).into_iter().collect();
    if let Some(mut hops) = attribute(attrs, 9) {
        while let (Some(len), Some(index)) = (u16_at(hops, 0), u32_at(hops, 4)) {
            interfaces.push(index);
            // struct rtnexthop is 8 bytes long, with attributes behind it.
            hops = hops.get(usize::from(len).max(8).next_multiple_of(4)..).unwrap_or_default();
        }
    }
    if interfaces.is_empty() { vec![None] } else { interfaces.into_iter().map(Some).collect() }
}

/// A family of generic netlink.
struct Generic {
    socket: Netlink,
    family: u16,
}

impl Generic {
    fn find(name: &str) -> io::Result<Self> {
        const CONTROL: u16 = 0x10;
        const GET_FAMILY: u8 = 3;
        let mut socket = Netlink::open(Some(protocol::GENERIC))?;
        let mut body = vec![GET_FAMILY, 1, 0, 0];
        push(&mut body, 2, &[name.as_bytes(), b"\0"].concat());
        let mut family = None;
        socket.get(CONTROL, &body, |answer| {
            let attrs = answer.get(GENERIC_HEADER..).unwrap_or_default();
            family = attribute(attrs, 1).and_then(|value| u16_at(value, 0));
        })?;
        Ok(Generic { socket, family: family.ok_or(io::ErrorKind::NotFound)? })
    }

    /// The attributes of the answer to `command`; empty if there is none.
    fn get(&mut self, command: u8, attrs: &[u8]) -> Vec<u8> {
        let body = [&[command, 1, 0, 0], attrs].concat();
        let mut answer = Vec::new();
        // EOPNOTSUPP and the like: the driver does not tell.
        let _ = self.socket.get(self.family, &body, |bytes| {
            answer = bytes.get(GENERIC_HEADER..).unwrap_or_default().to_vec();
        });
        answer
    }
}

impl Link {
    fn ask_ethtool(&mut self, ethtool: &mut Generic) {
        const FEATURES_GET: u8 = 11;
        const CHANNELS_GET: u8 = 17;
        let mut header = Vec::new();
        push(&mut header, 1, &self.index.to_ne_bytes());
        let mut attrs = Vec::new();
        const NLA_F_NESTED: u16 = 0x8000;
        push(&mut attrs, 1 | NLA_F_NESTED, &header);
        self.channels = channels(&ethtool.get(CHANNELS_GET, &attrs));
        self.tx_checksum = tx_checksum(&ethtool.get(FEATURES_GET, &attrs));
    }

    fn ask_xdp(&mut self, netdev: &mut Generic) {
        const DEV_GET: u8 = 1;
        let mut attrs = Vec::new();
        push(&mut attrs, 1, &self.index.to_ne_bytes());
        self.xdp_features = attribute(&netdev.get(DEV_GET, &attrs), 3).and_then(|value| u64_at(value, 0));
    }
}

fn channels(attrs: &[u8]) -> Option<Channels> {
    let number = |kind| attribute(attrs, kind).and_then(|value| u32_at(value, 0)).unwrap_or(0);
    let (rx_max, combined_max, rx, combined) = (number(2), number(5), number(6), number(9));
    let channels =
        Channels { rx: rx + combined, rx_max: rx_max.max(combined_max), combined: combined_max > 0 };
    (channels.rx_max > 0).then_some(channels)
}

/// ETHTOOL_A_FEATURES_ACTIVE lists what is on, by name.
fn tx_checksum(attrs: &[u8]) -> Option<bool> {
    let bits = attribute(attribute(attrs, 4)?, 3)?;
    let mut names = attributes(bits).filter_map(|(_, bit)| attribute(bit, 2)).map(string);
    Some(
        names
            .any(|name| matches!(&*name, "tx-checksum-ip-generic" | "tx-checksum-ipv4" | "tx-checksum-ipv6")),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_answers_anybody() {
        let network = Network::read();
        assert_eq!(network.error, None);
        let lo = network.link("lo").expect("every namespace has one");
        assert_eq!((lo.index, lo.ethernet, &lo.kind), (1, false, &None));
        assert!(lo.mtu > 0 && lo.queues.0 > 0);
    }

    fn route(prefix: u8, kind: u8, attrs: &[(u16, &[u8])]) -> Vec<u8> {
        let mut body = vec![2, prefix, 0, 0, 254, 3, 0, kind, 0, 0, 0, 0];
        attrs.iter().for_each(|(kind, value)| push(&mut body, *kind, value));
        body
    }

    #[test]
    fn default_routes_are_found_in_every_form() {
        let oif = 7u32.to_ne_bytes();
        assert_eq!(default_route(&route(0, 1, &[(4, &oif)])), [Some(7)]);
        assert_eq!(default_route(&route(1, 1, &[(4, &oif)])), [Some(7)], "half of everywhere");
        assert_eq!(default_route(&route(24, 1, &[(4, &oif)])), []);
        assert_eq!(default_route(&route(0, 7, &[])), [], "unreachable leads nowhere");
        assert_eq!(default_route(&route(0, 1, &[(30, &oif)])), [None], "by a nexthop object");
        let mut hops = Vec::new();
        for index in [3u32, 4] {
            hops.extend(16u16.to_ne_bytes());
            hops.extend([0, 0]);
            hops.extend(index.to_ne_bytes());
            push(&mut hops, 5, &[192, 0, 2, 1]);
        }
        assert_eq!(default_route(&route(0, 1, &[(9, &hops)])), [Some(3), Some(4)]);
        assert_eq!(default_route(&[0; 5]), []);
    }

    #[test]
    fn what_is_cut_short_is_no_link_and_no_panic() {
        let mut body = vec![0; LINK_HEADER];
        body[2] = 1;
        body[4] = 9;
        body[8] = 0x41;
        push(&mut body, 3, b"veth0\0");
        let mut info = Vec::new();
        push(&mut info, 1, b"veth");
        push(&mut body, 18, &info);
        push(&mut body, 5, &8u32.to_ne_bytes());
        let mut xdp = Vec::new();
        push(&mut xdp, 2, &[2]);
        push(&mut xdp, 4, &77u32.to_ne_bytes());
        push(&mut body, 43, &xdp);
        let whole = link(&body).unwrap();
        assert_eq!((whole.index, &*whole.name, whole.running, whole.peer), (9, "veth0", true, Peer::Here(8)));
        assert_eq!(whole.xdp, Some(XdpProgram { mode: "skb", id: 77 }));
        for end in 0..body.len() {
            let _ = (link(&body[..end]), address(&body[..end]), default_route(&body[..end]));
            let _ = (channels(&body[..end]), tx_checksum(&body[..end]));
        }
    }
}
