//! DPDK's own drivers for these NICs, through our port.

use super::checks;
use super::forward;
use crate::fault::Result;
use crate::guest::{Guest, Kit, Nic, Peer, pci};
use crate::step::Cx;

/// DPDK's igb and em PMDs.
pub fn dpdk(cx: &Cx<'_>) -> Result {
    let program = forward::build(cx, "dpdk")?;
    let kit = Kit::obtain(cx)?;
    let nics = ["igb", "e1000e"].map(|model| Nic { model, peer: Peer::Wire });
    let mut guest = Guest::boot(cx, &kit, &nics)?;
    guest.give(&program)?;
    guest.sh("echo 192 > /proc/sys/vm/nr_hugepages; grep HugePages_Free /proc/meminfo")?;
    for index in 0..nics.len() {
        guest.bind_vfio(index)?;
        let mut nic = checks::Nic::new(cx, &mut guest, index, format!("dpdk:{}", pci(index)));
        nic.echoes(50_000)?;
        if index == 0 {
            nic.spread(4)?;
        }
        nic.cable()?;
        nic.killed()?;
    }
    guest.stop()
}
