//! The wires of a step: clients, the gateway, servers.
//!
//! ```text
//!  client -- cli0 [gateway] srv0 -- lan: a bridge -- server 0, server 1, .., direct
//! ```
//!
//! Each box is a namespace. The client can reach the gateway alone; `direct` is a client on the servers' side. With
//! [`Wire::AfPacket`], [`Wire::AfXdp`] and [`Wire::Dpdk`] the gateway's two interfaces are veth ends; with [`Wire::Tap`] the gateway makes
//! them itself, and
//! [`Net::attach`] moves their kernel ends to the client and the bridge.

use std::net::Ipv4Addr;
use std::time::Duration;

use crate::fault::Result;
use crate::ns::Netns;
use crate::proc::Cmd;
use crate::step::Cx;

/// What the gateway's ports are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    /// `af_packet:` on veth.
    AfPacket,
    /// `af_xdp:` on veth.
    AfXdp,
    /// `dpdk:net_af_packet` on veth.
    Dpdk,
    /// `tap:`.
    Tap,
}

/// The gateway towards its clients.
pub const FRONT: Ipv4Addr = Ipv4Addr::new(10, 61, 1, 1);
/// The same in IPv6.
pub const FRONT6: &str = "fd61:1::1";
/// The gateway towards its servers.
pub const BACK: Ipv4Addr = Ipv4Addr::new(10, 61, 2, 1);
/// The client.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 61, 1, 2);

/// The address of a server.
pub fn server(index: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 61, 2, 11 + index as u8)
}

/// The namespaces of one step. Dropped last, after the programs in them.
pub struct Net {
    /// Where clients run that know only the gateway.
    pub client: Netns,
    /// Where the gateway runs.
    pub gateway: Netns,
    /// The bridge.
    pub lan: Netns,
    /// One namespace for each server.
    pub servers: Vec<Netns>,
    /// Where clients run that reach the servers themselves.
    pub direct: Netns,
    /// What the gateway's ports are.
    pub wire: Wire,
}

impl Net {
    /// Makes the namespaces, and the wires that do not wait for the gateway.
    pub fn build(cx: &Cx<'_>, wire: Wire, servers: usize) -> Result<Net> {
        let create = |role: String| Netns::create(cx, &role);
        let net = Net {
            client: create("client".into())?,
            gateway: create("gateway".into())?,
            lan: create("lan".into())?,
            servers: (0..servers).map(|index| create(format!("server{index}"))).collect::<Result<_>>()?,
            direct: create("direct".into())?,
            wire,
        };
        net.lan.ip(cx, "link add br0 type bridge")?;
        net.lan.ip(cx, "link set br0 up")?;
        for (index, ns) in net.servers.iter().enumerate() {
            net.join_lan(cx, ns, &format!("s{index}"), &format!("{}/24", server(index)))?;
        }
        net.join_lan(cx, &net.direct, "direct", "10.61.2.3/24")?;
        if wire != Wire::Tap {
            veth(cx, (&net.gateway, "cli0"), (&net.client, "cli0"))?;
            veth(cx, (&net.gateway, "srv0"), (&net.lan, "srv0"))?;
            for name in ["cli0", "srv0"] {
                finish(cx, &net.gateway, name)?;
            }
            net.finish_kernel_ends(cx)?;
        }
        Ok(net)
    }

    /// What the configuration calls the port towards the clients, and the one towards the servers.
    pub fn urls(&self) -> (&'static str, &'static str) {
        match self.wire {
            Wire::AfPacket => ("af_packet:cli0", "af_packet:srv0"),
            Wire::AfXdp => ("af_xdp:cli0", "af_xdp:srv0"),
            Wire::Dpdk => ("dpdk:net_af_packet0,iface=cli0", "dpdk:net_af_packet1,iface=srv0"),
            Wire::Tap => ("tap:cli0", "tap:srv0"),
        }
    }

    /// Once the gateway runs: gives its taps' kernel ends to the client and the bridge. Nothing to do on veth.
    pub fn attach(&self, cx: &Cx<'_>) -> Result {
        if self.wire != Wire::Tap {
            return Ok(());
        }
        for (name, to) in [("cli0", &self.client), ("srv0", &self.lan)] {
            cx.wait_for(&format!("the gateway makes {name}"), Duration::from_secs(10), || {
                let shown = Cmd::line(&format!("ip -n {} link show {name}", self.gateway.name())).quiet();
                Ok(shown.run(cx)?.status.success().then_some(()))
            })?;
            self.gateway.ip(cx, &format!("link set {name} netns {}", to.name()))?;
        }
        self.finish_kernel_ends(cx)
    }

    /// Where to capture: namespace and interface towards the clients, and towards the servers. What AF_XDP receives and sends, and what net_af_packet sends (past the qdiscs), is
    /// seen at the far ends alone.
    pub fn taps(&self) -> [(&Netns, &'static str); 2] {
        match self.wire {
            Wire::AfPacket => [(&self.gateway, "cli0"), (&self.gateway, "srv0")],
            Wire::AfXdp | Wire::Dpdk | Wire::Tap => [(&self.client, "cli0"), (&self.lan, "srv0")],
        }
    }

    fn finish_kernel_ends(&self, cx: &Cx<'_>) -> Result {
        finish(cx, &self.client, "cli0")?;
        self.client.ip(cx, &format!("addr add {CLIENT}/24 dev cli0"))?;
        self.client.ip(cx, "addr add fd61:1::2/64 dev cli0 nodad")?;
        self.lan.ip(cx, "link set srv0 master br0")?;
        finish(cx, &self.lan, "srv0")
    }

    fn join_lan(&self, cx: &Cx<'_>, ns: &Netns, port: &str, address: &str) -> Result {
        veth(cx, (ns, "v0"), (&self.lan, port))?;
        self.lan.ip(cx, &format!("link set {port} master br0"))?;
        finish(cx, &self.lan, port)?;
        finish(cx, ns, "v0")?;
        ns.ip(cx, &format!("addr add {address} dev v0"))
    }
}

/// A veth pair between two namespaces.
pub fn veth(cx: &Cx<'_>, a: (&Netns, &str), b: (&Netns, &str)) -> Result {
    let (ns_a, ns_b) = (a.0.name(), b.0.name());
    let pair = format!("ip link add {} netns {ns_a} type veth peer name {} netns {ns_b}", a.1, b.1);
    Cmd::line(&pair).ok(cx).map(drop)
}

/// Up, and with checksums that the kernel fills in by itself instead of leaving them to hardware that is not there.
pub fn finish(cx: &Cx<'_>, ns: &Netns, name: &str) -> Result {
    ns.cmd("ethtool").args(["-K", name, "tx", "off"]).ok(cx)?;
    ns.ip(cx, &format!("link set {name} up"))
}
