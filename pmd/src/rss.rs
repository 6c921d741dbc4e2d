//! Receive-side scaling: how a device chooses the queue for a frame.

/// Bytes of a Toeplitz key: enough for IPv6 addresses and ports.
pub const RSS_KEY_LEN: usize = 40;

/// A device's choice of queue: the Toeplitz hash of addresses and, where it looks so far, UDP ports; its low bits index a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rss {
    /// The hash's key.
    pub key: [u8; RSS_KEY_LEN],
    /// The queue for each value of the hash's low bits: a power of two of them.
    pub table: Vec<u16>,
    /// Whether the ports of UDP datagrams (of those not fragmented) are hashed too.
    pub udp_ports: bool,
}
