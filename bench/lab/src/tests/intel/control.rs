//! Without a driver of ours: the guest, its NICs and the wires do what the other checks take for granted.

use super::checks;
use super::forward;
use crate::fault::{Result, ensure};
use crate::guest::{Guest, Kit, Nic, Peer};
use crate::step::Cx;

/// The kernel's own igb and e1000e, with our program above `af_packet:`.
pub fn control(cx: &Cx<'_>) -> Result {
    let program = forward::build(cx, "")?;
    let kit = Kit::obtain(cx)?;
    let nics = ["igb", "e1000e"].map(|model| Nic { model, peer: Peer::Wire });
    let mut guest = Guest::boot(cx, &kit, &nics)?;
    guest.give(&program)?;
    // Without promiscuous mode the kernel's drivers filter VLANs. No word of the kernel's own on the wires.
    guest.sh("echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6; load igb && load e1000e")?;
    for index in 0..nics.len() {
        guest.sh(&format!(
            "ip link set eth{index} promisc on up
            until [ $(cat /sys/class/net/eth{index}/carrier) = 1 ]; do usleep 50000; done"
        ))?;
        let mut nic = checks::Nic::new(cx, &mut guest, index, format!("af_packet:eth{index}"));
        nic.echoes(5_000)?;
        nic.cable()?;
        let (_, checksums) = nic.offloads("")?;
        let good = 2 * checks::EACH;
        ensure!(
            checksums.good == good && checksums.bad == 0,
            "{good} were right, and the kernel said: {checksums:?}"
        );
    }
    guest.stop()
}
