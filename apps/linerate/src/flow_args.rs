//! What frames look like, as the command line says it: of generators and of RFC 2544's trials alike.

use clap::Args as ClapArgs;
use pmd::MacAddr;

use crate::template::Template;
use crate::values::{Addresses, Ports};

/// What frames look like, sizes apart.
#[derive(ClapArgs, Debug, Clone)]
pub struct FlowArgs {
    /// Source addresses: A, A-B, a network, several with commas; random: before them to draw
    ///
    /// Each field goes on by itself with each frame, so ranges of 4 addresses and 3 ports make 12 flows. Odd ports send what goes back, source and
    /// destination swapped. If not given, RFC 2544's: 198.18.0.1 to 198.19.0.1.
    #[arg(long, value_name = "ADDRS")]
    source: Option<Addresses>,

    /// Destination addresses, likewise
    #[arg(long, value_name = "ADDRS")]
    destination: Option<Addresses>,

    /// UDP source ports: 49184, 1024-65535, random:1024-65535
    #[arg(long, value_name = "PORTS", default_value = "49184")]
    source_port: Ports,

    /// UDP destination ports, likewise
    #[arg(long, value_name = "PORTS", default_value = "7")]
    destination_port: Ports,

    /// VLAN tag; twice for two, the outer one first
    #[arg(long = "vlan", value_name = "ID")]
    vlans: Vec<u16>,

    /// Ethernet destination; that of the port at the other end if not given
    #[arg(long, value_name = "MAC")]
    peer_mac: Option<MacAddr>,
}

impl FlowArgs {
    /// The template, but for sizes, and for the Ethernet addresses, which the ports give.
    pub fn template(&self) -> Template {
        let default = Template::default();
        Template {
            vlans: self.vlans.clone(),
            source: self.source.clone().unwrap_or(default.source),
            destination: self.destination.clone().unwrap_or(default.destination),
            source_ports: self.source_port.clone(),
            destination_ports: self.destination_port.clone(),
            ..Template::default()
        }
    }

    /// Ethernet destination.
    pub fn peer_mac(&self) -> Option<MacAddr> {
        self.peer_mac
    }
}
