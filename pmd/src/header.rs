//! The layout of a buffer: what stands in the 128 bytes before its data.
//!
//! ```text
//! 0          128            256                                2048
//! | Header   | headroom     | data room 1792                   |
//! ```
//!
//! Offsets are those of DPDK's rte_mbuf (two cache lines, the hot fields in the first), so that a later driver can
//! hand the same buffers to an ethdev; `Meta` stands where `ol_flags` and `packet_type` do, which only drivers
//! write. Data begins 256 bytes into the stride, as XDP_PACKET_HEADROOM demands.
//!
//! In a free buffer `next` is null and `segments` is 1, so neither `alloc` nor the `drop` of a single-segment
//! packet touches the second line.

use std::mem::{offset_of, size_of};

use crate::home::Home;

/// Bytes from one buffer to the next: a power of two, fit for UMEM, memif and VFIO.
pub const STRIDE: usize = 2048;
/// Bytes of the header.
pub(crate) const HEADER: usize = 128;
/// Bytes before the data of a fresh buffer.
pub const HEADROOM: usize = 128;
/// Bytes that a fresh buffer can take behind its headroom.
pub const DATA_ROOM: usize = STRIDE - HEADER - HEADROOM;
/// Headroom and data room together.
pub(crate) const BUFFER_LEN: usize = STRIDE - HEADER;

/// What is known of a frame's layer-4 checksum.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub enum Checksum {
    /// Nobody has looked: verify it.
    #[default]
    Unknown = 0,
    /// The device verified it.
    Good = 1,
    /// The device found it wrong.
    Bad = 2,
    /// Not filled in by a local sender (only the pseudo-header is summed): the data never crossed a wire, accept it.
    /// Drivers fill it in when such a frame is transmitted again.
    Partial = 3,
}

/// What the device said about a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct Meta {
    /// State of the layer-4 checksum.
    pub checksum: Checksum,
    /// The queue it was received on.
    pub queue: u16,
    /// 802.1Q tag control information that the device took out of the frame. None of the software drivers does:
    /// they leave the tag in, or put it back.
    pub vlan: Option<u16>,
    /// The device's flow hash; 0 when it gave none.
    pub rss_hash: u32,
}

#[repr(C, align(64))]
pub(crate) struct Header {
    /// First byte of the headroom.
    pub buf_addr: *mut u8,
    /// Address for the device's DMA; 0 until a driver maps the region.
    pub iova: u64,
    /// Where the data begins, counted from `buf_addr`.
    pub data_off: u16,
    /// 1 while somebody owns the buffer, 0 in a free one (kept up in debug builds only): no buffer is shared.
    pub refcnt: u16,
    /// Segments of the packet; meaningful in its first one.
    pub segments: u16,
    pub port: u16,
    pub meta: Meta,
    /// Bytes of the packet; meaningful in its first segment.
    pub pkt_len: u32,
    /// Bytes of this segment.
    pub data_len: u16,
    _vlan_tci: u16,
    _hash: [u32; 2],
    _vlan_tci_outer: u16,
    /// Always BUFFER_LEN.
    pub buf_len: u16,
    pub home: *const Home,

    /// Next segment of the packet. Between owners: next in the pool's list of strays.
    pub next: *mut Header,
    _tx_offload: u64,
    _shinfo: u64,
    _priv_size: u16,
    _timesync: u16,
    /// Which buffer of its pool this is.
    pub index: u32,
    /// Last segment, in the first one of a chain; valid when `segments` > 1.
    pub last: *mut Header,
    /// Next packet of an MbufList.
    pub link: *mut Header,
    _spare: [u32; 4],
}

const _: () = {
    assert!(size_of::<Header>() == HEADER);
    assert!(size_of::<Meta>() == 12);
    assert!(HEADER + HEADROOM == 256);
    assert!(offset_of!(Header, buf_addr) == 0);
    assert!(offset_of!(Header, data_off) == 16);
    assert!(offset_of!(Header, meta) == 24);
    assert!(offset_of!(Header, pkt_len) == 36);
    assert!(offset_of!(Header, data_len) == 40);
    assert!(offset_of!(Header, buf_len) == 54);
    assert!(offset_of!(Header, home) == 56);
    assert!(offset_of!(Header, next) == 64);
    assert!(offset_of!(Header, index) == 92);
};

impl Header {
    /// The header of free buffer `index`, whose headroom begins at `buf_addr`.
    pub(crate) fn free(buf_addr: *mut u8, index: u32, home: *const Home) -> Header {
        Header {
            buf_addr,
            iova: 0,
            data_off: HEADROOM as u16,
            refcnt: 0,
            segments: 1,
            port: 0,
            meta: Meta::default(),
            pkt_len: 0,
            data_len: 0,
            _vlan_tci: 0,
            _hash: [0; 2],
            _vlan_tci_outer: 0,
            buf_len: BUFFER_LEN as u16,
            home,
            next: std::ptr::null_mut(),
            _tx_offload: 0,
            _shinfo: 0,
            _priv_size: 0,
            _timesync: 0,
            index,
            last: std::ptr::null_mut(),
            link: std::ptr::null_mut(),
            _spare: [0; 4],
        }
    }
}
