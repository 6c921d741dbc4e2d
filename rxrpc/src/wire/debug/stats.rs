//! The counters of a whole Rx instance.

use super::super::fields::{Field, Spare, layout};
use super::{DebugError, LAYOUT_VERSION, LAYOUT_VERSION_MIN, take};

layout! {
    /// Basic figures, and the layout version that says how to read the rest (rx_debugStats).
    pub struct Stats {
        /// Packet buffers that are free.
        pub free_packets: u32,
        /// Times that buffers had to be reclaimed from calls.
        pub packet_reclaims: u32,
        /// Calls executed.
        pub calls_executed: u32,
        /// Not zero: somebody waits for packet buffers.
        pub waiting_for_packets: u8,
        /// File descriptors in use, of the first 64.
        pub used_fds: u8,
        /// Layout version, a letter.
        pub version: u8,
        /// Unused.
        pub spare1: Spare<1>,
        /// Calls waiting for a thread (version N).
        pub waiting_calls: u32,
        /// Idle server threads (O).
        pub idle_threads: u32,
        /// Calls that ever waited for a thread (R).
        pub waited_calls: u32,
        /// Packet buffers in all (S).
        pub packets: u32,
        /// Unused.
        pub spare2: Spare<24>,
    }
}

impl Default for Stats {
    /// All zero but the version, which is [`LAYOUT_VERSION`].
    fn default() -> Self {
        Self {
            free_packets: 0,
            packet_reclaims: 0,
            calls_executed: 0,
            waiting_for_packets: 0,
            used_fds: 0,
            version: LAYOUT_VERSION,
            spare1: Spare,
            waiting_calls: 0,
            idle_threads: 0,
            waited_calls: 0,
            packets: 0,
            spare2: Spare,
        }
    }
}

impl Stats {
    pub(super) fn parse(body: &[u8]) -> Result<Self, DebugError> {
        let stats: Self = take("statistics", body)?;
        if stats.version < LAYOUT_VERSION_MIN {
            return Err(DebugError::TooOld { version: stats.version as char });
        }
        Ok(stats)
    }
}

layout! {
    /// A span of time.
    #[derive(Default)]
    pub struct Time {
        /// Whole seconds.
        pub seconds: u32,
        /// Microseconds.
        pub microseconds: u32,
    }
}

/// Names of the packet types as rxdebug prints them, in the order of [`RxStatistics::packets_read`]: type 1 first.
pub const PACKET_TYPE_NAMES: [&str; 13] = [
    "data",
    "ack",
    "busy",
    "abort",
    "ackall",
    "challenge",
    "response",
    "debug",
    "params",
    "unused",
    "unused",
    "unused",
    "version",
];

layout! {
    /// All counters (rx_statistics). Every one wraps at 32 bits.
    #[derive(Default)]
    pub struct RxStatistics {
        /// Requests for a packet buffer.
        pub packet_requests: u32,
        /// Buffers refused for receiving.
        pub receive_alloc_failures: u32,
        /// Buffers refused for sending.
        pub send_alloc_failures: u32,
        /// Buffers refused for everything else.
        pub special_alloc_failures: u32,
        /// Whether large socket buffers could be had.
        pub socket_greedy: u32,
        /// Packets too short to be one.
        pub bogus_packets: u32,
        /// Where the last of them came from; 0 if none came.
        pub bogus_host: u32,
        /// Reads that found no packet.
        pub empty_reads: u32,
        /// Packets dropped for lack of a buffer.
        pub no_buffer_drops: u32,
        /// Waits for a packet or a timeout.
        pub selects: u32,
        /// Waits for room to send.
        pub send_selects: u32,
        /// Packets received, by type.
        pub packets_read: [u32; 13],
        /// Distinct DATA packets received.
        pub data_read: u32,
        /// ACKs received.
        pub acks_read: u32,
        /// DATA packets received again.
        pub duplicates_read: u32,
        /// DATA packets that fitted no call.
        pub spurious_read: u32,
        /// Packets sent, by type.
        pub packets_sent: [u32; 13],
        /// ACKs sent.
        pub acks_sent: u32,
        /// Pings sent.
        pub pings_sent: u32,
        /// ABORTs sent.
        pub aborts_sent: u32,
        /// BUSYs sent.
        pub busies_sent: u32,
        /// Distinct DATA packets sent.
        pub data_sent: u32,
        /// DATA packets sent again.
        pub data_resent: u32,
        /// DATA packets sent again early, because of a gap that an ACK showed.
        pub data_pushed: u32,
        /// Packets not sent again because they had been acknowledged.
        pub acked_not_resent: u32,
        /// Sum of the round-trip times.
        pub rtt_total: Time,
        /// Least round-trip time.
        pub rtt_min: Time,
        /// Greatest round-trip time.
        pub rtt_max: Time,
        /// Round-trip times taken.
        pub rtt_samples: u32,
        /// Connections that peers opened.
        pub server_connections: u32,
        /// Connections that this side opened.
        pub client_connections: u32,
        /// Peers known.
        pub peers: u32,
        /// Call structures.
        pub calls: u32,
        /// Call structures that are free.
        pub free_calls: u32,
        /// Sends that the network refused.
        pub send_failures: u32,
        /// Errors that ended the instance.
        pub fatal_errors: u32,
        /// Packets dropped because their call was over.
        pub dally_drops: u32,
        /// Continuation buffers refused for receiving (version P).
        pub receive_cbuf_failures: u32,
        /// Continuation buffers refused for sending (P).
        pub send_cbuf_failures: u32,
        /// Calls refused as busy (R).
        pub busies: u32,
        /// Unused.
        pub spare: Spare<16>,
    }
}

impl RxStatistics {
    /// The counters behind `dally_drops` came one by one with later versions; what a peer leaves out is zero.
    const LEN_MIN: usize = Self::LEN - 16 - 3 * 4;

    pub(super) fn parse(body: &[u8]) -> Result<Self, DebugError> {
        if body.len() < Self::LEN_MIN {
            return Err(DebugError::TooShort { what: "counters", len: body.len(), needed: Self::LEN_MIN });
        }
        let mut bytes = [0; Self::LEN];
        let len = body.len().min(Self::LEN);
        bytes[..len].copy_from_slice(&body[..len]);
        take("counters", &bytes)
    }
}

const _: () = assert!(Stats::LEN == 56, "rx_debugStats");
const _: () = assert!(RxStatistics::LEN == 71 * 4, "rx_statistics");
