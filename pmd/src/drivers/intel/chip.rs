//! What differs between the chips.

use super::bar::Bar;
use crate::mac::MacAddr;
use crate::rss::{RSS_KEY_LEN, Rss};

/// How a chip is to be set up.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    /// Queues of each direction.
    pub queues: usize,
    /// Longest frame without its check sequence.
    pub frame_max: usize,
    /// Key of the hash that chooses the queue.
    pub rss_key: [u8; RSS_KEY_LEN],
    /// Take frames to any address.
    pub promiscuous: bool,
    /// Take 802.1Q tags out of received frames, and put them into sent ones: the chips have one switch for both.
    pub strip_vlan: bool,
}

/// A ring as a chip is told of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RingAt {
    /// Which queue.
    pub queue: usize,
    /// Where the descriptors begin.
    pub iova: u64,
    /// How many there are.
    pub size: usize,
}

/// What the status register says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    /// Its speed in Mb/s.
    Up(u32),
    Down,
    /// The device is not there any more.
    Gone,
}

/// A frame whose layer-4 checksum the device is to finish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TxChecksum {
    /// Bytes before the IP header.
    pub l2: usize,
    /// Bytes of the IP header.
    pub l3: usize,
    pub ipv4: bool,
    pub tcp: bool,
}

/// What the device is to do to a frame that it sends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TxOffload {
    pub checksum: Option<TxChecksum>,
    /// Tag control information of the 802.1Q tag to insert.
    pub vlan: Option<u16>,
}

/// A piece of a frame, for the chip's descriptor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TxPiece {
    pub iova: u64,
    pub len: usize,
    /// Bytes of the whole frame.
    pub frame_len: usize,
    pub last: bool,
}

/// Set in the second word of a frame's last descriptor: report when it is done.
pub(crate) const TX_REPORT: u64 = 1 << 27;
/// The report: the device has read everything up to here.
pub(crate) const TX_DONE: u64 = 1 << 32;

/// One kind of controller. `bar` is always its registers.
///
/// All of them write received frames back alike (advanced descriptors of the 82576 and 82599, extended ones of the 82574): see
/// [`super::rx`].
pub(crate) trait Chip: Send + Sync + Sized + 'static {
    /// The driver's name.
    const DRIVER: &'static str;
    /// PCI device identities (the vendor is Intel) and what is sold under each.
    const DEVICES: &'static [(u16, &'static str)];
    /// Largest MTU.
    const MTU_MAX: usize;
    /// Received descriptor's status: the layer-4 checksum is wrong.
    const RX_L4_BAD: u32;
    /// Names of what [`Chip::drops`] counts.
    const DROPS: &'static [&'static str];

    /// The variant with this PCI device identity.
    fn of(device: u16) -> Self;
    /// Queues that it has.
    fn queues_max(&self) -> usize;
    /// Stops everything and returns to defaults. What did not finish, and in how many ms, when it does not.
    fn reset(&self, bar: &Bar) -> Result<(), (&'static str, u64)>;
    /// The address that its non-volatile memory gave it.
    fn mac(&self, bar: &Bar) -> MacAddr;
    /// Sets everything up that is not a queue's, with both directions still off.
    fn setup(&self, bar: &Bar, setup: &Setup);
    /// Bytes of a receive buffer that it fills: less than a frame means frames in several segments.
    fn rx_buffer(frame_max: usize) -> usize;
    /// Shows it a ring for receiving, with nothing in it yet. False when the queue does not start.
    fn start_rx(&self, bar: &Bar, ring: RingAt, setup: &Setup) -> bool;
    /// Shows it a ring for sending. False when the queue does not start.
    fn start_tx(&self, bar: &Bar, ring: RingAt) -> bool;
    /// Turns both directions on and has the link negotiated.
    fn go(&self, bar: &Bar, setup: &Setup);
    /// Turns both directions off.
    fn halt(&self, bar: &Bar);
    /// The tail register of a queue's receiving ring.
    fn rx_tail(queue: usize) -> usize;
    /// The tail register of a queue's sending ring.
    fn tx_tail(queue: usize) -> usize;
    /// What the status register says.
    fn link(&self, bar: &Bar) -> Link;
    /// Sends the interrupt of queue `i` to vector `i`, masked until armed.
    fn route_interrupts(&self, bar: &Bar, queues: usize);
    /// One interrupt, at the next frame that this queue receives.
    fn arm(&self, bar: &Bar, queue: usize);
    /// No interrupt.
    fn disarm(&self, bar: &Bar, queue: usize);
    /// How it chooses the queue of a frame.
    fn rss(&self, setup: &Setup) -> Rss;
    /// Adds what was dropped since the last time to `sums`, one for each of `DROPS`. The registers are cleared by reading.
    fn drops(&self, bar: &Bar, queues: usize, sums: &mut [u64]);
    /// The descriptor that tells of `offload` what its frames' own descriptors do not, if one is needed.
    fn tx_context(offload: TxOffload) -> Option<[u64; 2]>;
    /// The descriptor of a piece.
    fn tx_data(piece: TxPiece, offload: TxOffload) -> [u64; 2];
}
