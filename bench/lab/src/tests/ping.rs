//! The kernel's ping against our stack: both families, whole and in fragments.

use std::time::Duration;

use crate::fault::{Result, ensure};
use crate::gateway::{Gateway, Plan};
use crate::net::{FRONT, FRONT6, Net, Wire, server};
use crate::step::Cx;

/// Echo requests of each size. Bytes of data; from 1473 (IPv4) and 1453 (IPv6) on they travel in fragments.
const SIZES: [(&str, [usize; 4]); 2] = [("-4", [56, 1472, 1473, 8000]), ("-6", [56, 1452, 1473, 8000])];

/// A thousand of each are answered, every one.
pub fn ping(cx: &Cx<'_>) -> Result {
    for wire in [Wire::AfPacket, Wire::AfXdp, Wire::Tap] {
        let net = Net::build(cx, wire, 1)?;
        // The server's namespace has nobody on these ports; echoes need no backend.
        let gateway = Gateway::launch(cx, &net, &Plan::openafs(&[server(0)]))?;
        for (family, sizes) in SIZES {
            let address = if family == "-4" { FRONT.to_string() } else { FRONT6.to_string() };
            for size in sizes {
                let size = size.to_string();
                // Adaptive: the next one goes when the last was answered. Should this machine stall for a moment, the answers
                // to all that was sent meanwhile would not fit in ping's own receive buffer.
                let args = [family, "-A", "-q", "-n", "-c", "1000", "-W", "2", "-s", &size, &address];
                let told = net.client.cmd("ping").args(args).limit(Duration::from_secs(30)).run(cx)?.stdout;
                let all = told.contains("1000 packets transmitted, 1000 received, 0% packet loss");
                ensure!(all, "{wire:?}: ping {family} -s {size} lost some:\n{told}");
                ensure!(
                    !told.contains("duplicates"),
                    "{wire:?}: ping {family} -s {size} saw duplicates:\n{told}"
                );
            }
        }
        gateway.stop(cx)?;
    }
    Ok(())
}
