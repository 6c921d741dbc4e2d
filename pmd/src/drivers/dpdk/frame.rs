//! A frame's header on its way between DPDK and us: what rte_mbuf says there, and what ours does.
//!
//! The two have one layout but for the fields that this file translates, all in the first cache line, which whoever handles the frame
//! touches anyway. The second line is looked at for frames of several segments, and written for checksums left to the device.

use std::mem::offset_of;

use dpdk_sys as sys;

use crate::checksum;
use crate::header::{HEADER, HEADROOM, Header};
use crate::mbuf::{Checksum, Mbuf, Meta};

const _: () = {
    assert!(size_of::<Header>() == HEADER && HEADER == sys::RXL_MBUF_SIZE as usize);
    assert!(HEADROOM == sys::RTE_PKTMBUF_HEADROOM as usize);
    assert!(offset_of!(Header, buf_addr) == sys::RXL_MBUF_BUF_ADDR as usize);
    assert!(offset_of!(Header, iova) == sys::RXL_MBUF_BUF_IOVA as usize);
    assert!(offset_of!(Header, data_off) == sys::RXL_MBUF_DATA_OFF as usize);
    assert!(offset_of!(Header, refcnt) == sys::RXL_MBUF_REFCNT as usize);
    assert!(offset_of!(Header, segments) == sys::RXL_MBUF_NB_SEGS as usize);
    assert!(offset_of!(Header, port) == sys::RXL_MBUF_PORT as usize);
    assert!(offset_of!(Header, meta) == sys::RXL_MBUF_OL_FLAGS as usize);
    assert!(offset_of!(Header, pkt_len) == sys::RXL_MBUF_PKT_LEN as usize);
    assert!(offset_of!(Header, data_len) == sys::RXL_MBUF_DATA_LEN as usize);
    assert!(offset_of!(Header, buf_len) == sys::RXL_MBUF_BUF_LEN as usize);
    assert!(offset_of!(Header, home) == sys::RXL_MBUF_POOL as usize);
    assert!(offset_of!(Header, next) == sys::RXL_MBUF_NEXT as usize);
    // Ours in the second line lie among the dynamic fields; `eal` reserves the one that has to stay.
    assert!(offset_of!(Header, index) == sys::RXL_MBUF_DYNFIELD1 as usize);
};

/// # Safety
/// `header` is a buffer's header that the caller may read, and `T` what rte_mbuf has at `offset`.
#[inline]
unsafe fn field<T: Copy>(header: *const Header, offset: u32) -> T {
    // SAFETY: the offset lies within the header, at the alignment that rte_mbuf gives it.
    unsafe { *header.cast::<u8>().add(offset as usize).cast::<T>() }
}

/// # Safety
/// As for [`field`], and the caller may write.
#[inline]
unsafe fn set_field<T: Copy>(header: *mut Header, offset: u32, value: T) {
    // SAFETY: as for `field`.
    unsafe { *header.cast::<u8>().add(offset as usize).cast::<T>() = value };
}

/// Writes `ol_flags`: nothing is asked of the device, and the buffer is an ordinary one.
#[inline]
pub(super) fn clear_flags(header: &mut Header) {
    // SAFETY: the header is borrowed mutably; Meta has these bytes while the frame is ours.
    unsafe { set_field(header, sys::RXL_MBUF_OL_FLAGS, 0u64) };
}

const L4: u64 = (sys::RTE_MBUF_F_RX_L4_CKSUM_GOOD | sys::RTE_MBUF_F_RX_L4_CKSUM_BAD) as u64;
const L4_GOOD: u64 = sys::RTE_MBUF_F_RX_L4_CKSUM_GOOD as u64;
const L4_BAD: u64 = sys::RTE_MBUF_F_RX_L4_CKSUM_BAD as u64;
const STRIPPED: u64 = sys::RTE_MBUF_F_RX_VLAN_STRIPPED as u64;
const HASHED: u64 = sys::RTE_MBUF_F_RX_RSS_HASH as u64;
/// The buffer is not its mempool's own memory.
pub(super) const ELSEWHERE: u64 = sys::RTE_MBUF_F_INDIRECT | sys::RTE_MBUF_F_EXTERNAL;

/// A received frame's `ol_flags`.
#[inline]
pub(super) fn flags(header: &Header) -> u64 {
    // SAFETY: the header is borrowed.
    unsafe { field(header, sys::RXL_MBUF_OL_FLAGS) }
}

/// What the device said of a frame with these `ol_flags`.
#[inline]
pub(super) fn meta(header: &Header, flags: u64, queue: u16) -> Meta {
    let mut meta = Meta { queue, ..Meta::default() };
    if flags != 0 {
        meta.checksum = match flags & L4 {
            L4_GOOD => Checksum::Good,
            L4_BAD => Checksum::Bad,
            // RTE_MBUF_F_RX_L4_CKSUM_NONE: wrong in the frame, and yet the data is whole; virtio's word for a local sender.
            L4 => Checksum::Partial,
            _ => Checksum::Unknown,
        };
        // SAFETY: the header is borrowed; these are fields of rte_mbuf that the flags say are valid.
        unsafe {
            if flags & STRIPPED != 0 {
                meta.vlan = Some(field(header, sys::RXL_MBUF_VLAN_TCI));
            }
            if flags & HASHED != 0 {
                meta.rss_hash = field(header, sys::RXL_MBUF_HASH_RSS);
            }
        }
    }
    meta
}

/// Which checksums a device fills in.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TxChecksums {
    pub udp: bool,
    pub tcp: bool,
}

/// What is to be written to a frame whose checksum the device shall fill in: `ol_flags` and `tx_offload`.
pub(super) type Request = (u64, u64);

/// Has the checksum of a `Partial` frame filled in: by the device, which is then to be asked, or here.
#[cold]
pub(super) fn finish_checksum(mbuf: &mut Mbuf, device: TxChecksums) -> Option<Request> {
    let request = checksum::unfinished(mbuf).and_then(|at| {
        let kind = match at.protocol {
            17 if device.udp => sys::RTE_MBUF_F_TX_UDP_CKSUM,
            6 if device.tcp => sys::RTE_MBUF_F_TX_TCP_CKSUM,
            _ => return None,
        };
        let family = if at.v6 { sys::RTE_MBUF_F_TX_IPV6 } else { sys::RTE_MBUF_F_TX_IPV4 };
        let (l2, l3) = (at.network as u64, (at.transport - at.network) as u64);
        let fits = l2 < 1 << sys::RXL_L2_LEN_BITS && l3 < 1 << sys::RXL_L3_LEN_BITS;
        fits.then_some((kind | family, l2 | l3 << sys::RXL_L2_LEN_BITS))
    });
    if request.is_none() {
        checksum::complete(mbuf);
    }
    request
}

/// Asks the device for what [`finish_checksum`] found.
pub(super) fn ask(header: &mut Header, (flags, lengths): Request) {
    // SAFETY: the header is borrowed mutably, and belongs to a frame on its way to the device.
    unsafe {
        set_field(header, sys::RXL_MBUF_OL_FLAGS, flags);
        set_field(header, sys::RXL_MBUF_TX_OFFLOAD, lengths);
    }
}

/// Whether the device was asked for a checksum.
pub(super) fn is_asked(flags: u64) -> bool {
    // Two bits: 3 is UDP, 1 is TCP.
    flags & sys::RTE_MBUF_F_TX_UDP_CKSUM != 0
}
