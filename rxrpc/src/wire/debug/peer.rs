//! One peer: an address with what is known of the way to it.

use super::super::fields::{Field, Spare, layout};
use std::net::Ipv4Addr;

layout! {
    /// One peer (rx_debugPeer).
    pub struct Peer {
        /// Its address.
        pub host: Ipv4Addr,
        /// Its port.
        pub port: u16,
        /// MTU of the interface towards it, in bytes.
        pub if_mtu: u16,
        /// When it was last used, in seconds since 1970; 0 while it is in use.
        pub idle_since: u32,
        /// Connections to it, plus whoever else holds it.
        pub references: u16,
        /// Unused: burst sizes and waits of old.
        pub spare1: Spare<10>,
        /// Smoothed round-trip time, in eighths of a millisecond.
        pub rtt: u32,
        /// Its mean deviation, in quarters of a millisecond.
        pub rtt_deviation: u32,
        /// Unused: a timeout of old.
        pub spare2: Spare<8>,
        /// DATA packets sent.
        pub sent: u32,
        /// DATA packets sent again.
        pub resent: u32,
        /// Unused: skews and a rate flag of old.
        pub spare3: Spare<12>,
        /// MTU that fits without fragments, in bytes.
        pub nat_mtu: u16,
        /// Largest packet that the peer takes, in bytes.
        pub max_mtu: u16,
        /// Packets that the peer takes in a jumbogram.
        pub max_datagram_packets: u16,
        /// Packets in a jumbogram that the interface could carry.
        pub if_datagram_packets: u16,
        /// MTU that is used, in bytes.
        pub mtu: u16,
        /// Congestion window that a new call starts with, in packets.
        pub congestion_window: u16,
        /// Packets in the jumbograms that are sent.
        pub datagram_packets: u16,
        /// Number of the last congestion event.
        pub congestion_seq: u16,
        /// Payload sent, in bytes.
        pub bytes_sent: u64,
        /// Payload received, in bytes.
        pub bytes_received: u64,
        /// Unused.
        pub spare4: Spare<40>,
    }
}

impl Default for Peer {
    fn default() -> Self {
        Self {
            host: Ipv4Addr::UNSPECIFIED,
            port: 0,
            if_mtu: 0,
            idle_since: 0,
            references: 0,
            spare1: Spare,
            rtt: 0,
            rtt_deviation: 0,
            spare2: Spare,
            sent: 0,
            resent: 0,
            spare3: Spare,
            nat_mtu: 0,
            max_mtu: 0,
            max_datagram_packets: 0,
            if_datagram_packets: 0,
            mtu: 0,
            congestion_window: 0,
            datagram_packets: 0,
            congestion_seq: 0,
            bytes_sent: 0,
            bytes_received: 0,
            spare4: Spare,
        }
    }
}

const _: () = assert!(Peer::LEN == 132, "rx_debugPeer");
