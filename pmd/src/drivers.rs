//! The drivers, one file each; [`crate::open`] chooses by URL.

pub(crate) mod af_packet;
pub(crate) mod af_xdp;
mod doorbell;
#[cfg(feature = "dpdk")]
pub(crate) mod dpdk;
#[cfg(not(feature = "dpdk"))]
#[path = "drivers/dpdk_absent.rs"]
pub(crate) mod dpdk;
pub(crate) mod intel;
mod interface;
mod mbuf_ring;
pub(crate) mod memif;
pub(crate) mod memory;
pub(crate) mod null;
mod packet_ring;
mod packet_send;
pub(crate) mod pcap;
pub(crate) mod sim;
mod spread;
pub(crate) mod tap;

use std::sync::Arc;

use crate::counters::{Counters, QueueStats};
use crate::mbuf::{Burst, Mbuf};

/// Ethernet header: the least a frame must have.
pub(crate) const FRAME_MIN: usize = 14;
/// What a frame has beyond its MTU: the Ethernet header and two VLAN tags.
pub(crate) const FRAME_OVERHEAD: usize = 22;

/// Names of the drops of [`admit`], first in every driver's list.
pub(crate) const DROP_RUNT: (usize, &str) = (0, "tx_runt");
pub(crate) const DROP_OVERSIZE: (usize, &str) = (1, "tx_oversize");

/// Drops the frames that no wire of `frame_max` bytes can carry, by name; returns the bytes of the others.
#[inline]
pub(crate) fn admit(burst: &mut Burst, frame_max: usize, counters: &Counters) -> usize {
    let (mut bytes, mut refused) = (0, false);
    for mbuf in burst.iter() {
        let len = mbuf.len();
        bytes += len;
        refused |= !(FRAME_MIN..=frame_max).contains(&len);
    }
    if refused { refuse(burst, frame_max, counters) } else { bytes }
}

#[cold]
fn refuse(burst: &mut Burst, frame_max: usize, counters: &Counters) -> usize {
    burst.retain(|mbuf| {
        let long = mbuf.len() > frame_max;
        if long || mbuf.len() < FRAME_MIN {
            counters.dropped(if long { DROP_OVERSIZE.0 } else { DROP_RUNT.0 }, 1);
            return false;
        }
        true
    });
    burst.iter().map(Mbuf::len).sum()
}

/// The sum over a port's queues.
pub(crate) fn sum(counters: &[Arc<Counters>]) -> QueueStats {
    let mut sum = QueueStats::default();
    for counters in counters {
        sum.merge(&counters.snapshot());
    }
    sum
}
