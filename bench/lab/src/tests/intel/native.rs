//! Our own drivers, on VFIO.

use super::checks;
use super::forward;
use crate::fault::{Result, ensure};
use crate::guest::{Guest, Kit, Nic, Peer, pci};
use crate::step::Cx;

/// The 82576.
pub fn igb(cx: &Cx<'_>) -> Result {
    driver(cx, "igb", Some(4))
}

/// The 82574L.
pub fn e1000e(cx: &Cx<'_>) -> Result {
    driver(cx, "e1000e", None)
}

fn driver(cx: &Cx<'_>, model: &'static str, queues: Option<usize>) -> Result {
    let program = forward::build(cx, "")?;
    let kit = Kit::obtain(cx)?;
    let mut guest = Guest::boot(cx, &kit, &[Nic { model, peer: Peer::Wire }])?;
    guest.give(&program)?;
    guest.bind_vfio(0)?;
    let mut nic = checks::Nic::new(cx, &mut guest, 0, format!("{model}:{}", pci(0)));
    nic.echoes(50_000)?;
    if let Some(queues) = queues {
        nic.spread(queues)?;
    }
    nic.cable()?;
    nic.sleeps()?;
    nic.killed()?;
    let (tags, checksums) = nic.offloads(",vlan=strip")?;
    ensure!(tags == checks::EACH, "the NIC took {tags} of {} tags off", checks::EACH);
    let told = checksums.good >= 2 * checks::EACH && checksums.bad == checks::EACH;
    ensure!(told, "two thirds of the checksums were right, and the NIC said: {checksums:?}");
    guest.stop()
}
