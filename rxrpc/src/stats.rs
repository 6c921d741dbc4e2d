//! Counters of an endpoint. Plain integers, owned by its core.

use crate::RxDrop;
use std::time::Duration;

/// Packet types that have counters of their own, by their number on the wire.
pub const PACKET_TYPES: usize = 14;

/// What happened since the endpoint was made.
#[derive(Clone, Debug)]
pub struct RxStats {
    /// UDP payloads given to `input`. Equal to `consumed` plus all `drops`.
    pub datagrams: u64,
    /// Those that did something.
    pub consumed: u64,
    /// Those thrown away, by [`RxDrop`].
    pub drops: [u64; RxDrop::ALL.len()],
    /// Packets received, by type number; parts of a jumbogram count each.
    pub received: [u64; PACKET_TYPES],
    /// Packets sent, by type number.
    pub sent: [u64; PACKET_TYPES],
    /// DATA packets that brought something new.
    pub data_new: u64,
    /// DATA packets that we had already.
    pub data_duplicate: u64,
    /// DATA packets that came before one that they follow.
    pub data_out_of_order: u64,
    /// DATA packets sent for the first time.
    pub data_sent: u64,
    /// DATA packets sent again.
    pub data_resent: u64,
    /// Of these, because ACKs showed a hole.
    pub fast_retransmits: u64,
    /// Probes of a tail that nothing acknowledged.
    pub tail_probes: u64,
    /// Retransmission timeouts.
    pub timeouts: u64,
    /// Pings sent.
    pub pings_sent: u64,
    /// Jumbograms received.
    pub jumbograms: u64,
    /// Jumbograms sent.
    pub jumbograms_sent: u64,
    /// PINGs padded to see whether a jumbogram would arrive.
    pub path_probes: u64,
    /// Calls begun here.
    pub calls_begun: u64,
    /// Calls that came in.
    pub calls_accepted: u64,
    /// Calls that ended well.
    pub calls_succeeded: u64,
    /// Calls that ended otherwise.
    pub calls_failed: u64,
    /// Calls that had to wait in line for a place on a connection.
    pub calls_waited: u64,
    /// Connections made here.
    pub client_conns: u64,
    /// Connections that came in.
    pub service_conns: u64,
    /// Answers that found no room to wait or no buffer, and were not sent.
    pub replies_lost: u64,
    /// Times that a packet could not be sent for want of a buffer; it is sent later.
    pub no_buffer_on_send: u64,
    /// Round trips measured.
    pub rtt_samples: u64,
    /// Their sum.
    pub rtt_sum: Duration,
    /// The shortest.
    pub rtt_min: Option<Duration>,
    /// The longest.
    pub rtt_max: Duration,
}

impl Default for RxStats {
    fn default() -> Self {
        Self {
            datagrams: 0,
            consumed: 0,
            drops: [0; RxDrop::ALL.len()],
            received: [0; PACKET_TYPES],
            sent: [0; PACKET_TYPES],
            data_new: 0,
            data_duplicate: 0,
            data_out_of_order: 0,
            data_sent: 0,
            data_resent: 0,
            fast_retransmits: 0,
            tail_probes: 0,
            timeouts: 0,
            pings_sent: 0,
            jumbograms: 0,
            jumbograms_sent: 0,
            path_probes: 0,
            calls_begun: 0,
            calls_accepted: 0,
            calls_succeeded: 0,
            calls_failed: 0,
            calls_waited: 0,
            client_conns: 0,
            service_conns: 0,
            replies_lost: 0,
            no_buffer_on_send: 0,
            rtt_samples: 0,
            rtt_sum: Duration::ZERO,
            rtt_min: None,
            rtt_max: Duration::ZERO,
        }
    }
}

impl RxStats {
    /// Datagrams dropped for this reason.
    pub fn dropped(&self, reason: RxDrop) -> u64 {
        self.drops[reason as usize]
    }

    /// All drops that happened, with their names.
    pub fn drops_named(&self) -> impl Iterator<Item = (&'static str, u64)> {
        RxDrop::ALL
            .iter()
            .map(|&reason| (reason.name(), self.dropped(reason)))
            .filter(|&(_, count)| count > 0)
    }

    /// Whether every datagram is accounted for.
    pub fn ledger_closes(&self) -> bool {
        self.datagrams == self.consumed + self.drops.iter().sum::<u64>()
    }

    pub(crate) fn rtt(&mut self, sample: Duration) {
        self.rtt_samples += 1;
        self.rtt_sum += sample;
        self.rtt_min = Some(self.rtt_min.map_or(sample, |least| least.min(sample)));
        self.rtt_max = self.rtt_max.max(sample);
    }
}
