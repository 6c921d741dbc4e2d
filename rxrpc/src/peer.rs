//! What is known of a remote address, as seen from one local address.

use crate::path_mtu::{PathMtu, packets_in};
use crate::rtt::Rtt;
use crate::slab::Recycle;
use crate::timer::Timer;
use crate::wire::{AckTrailer, MAX_SUB_PACKETS};
use crate::{LocalId, PeerId, PeerView};
use pmd::Instant;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

/// Bounds of a peer's largest packet: what every Rx takes, and what UDP can carry.
const MTU_RANGE: (u32, u32) = (500, 65_535);
/// A round trip is measured again after so long.
const RTT_FRESH: Duration = Duration::from_secs(1);
/// Network errors of a peer are acted upon at most once in so long.
const ERROR_PAUSE: Duration = Duration::from_millis(100);

/// A peer.
#[derive(Debug)]
pub struct Peer {
    pub local: LocalId,
    pub addr: SocketAddr,
    /// Connections and bundles that refer to it; it goes with the last.
    pub refs: usize,
    /// Of these, client connections: while there are any, NATs on the way are kept awake.
    pub client_conns: usize,
    /// When the last packet of a call was sent to it, or a keep-alive.
    pub sent_at: Instant,
    /// For the keep-alive.
    pub timer: Timer,
    pub rtt: Rtt,
    rtt_asked: Option<Instant>,
    error_at: Option<Instant>,
    pub max_mtu: u32,
    pub jumbo_max: u32,
    pub path_mtu: PathMtu,
    pub packets_sent: u64,
    pub retransmits: u64,
    pub bytes_sent: u64,
    pub bytes_received: u64,
}

impl Default for Peer {
    fn default() -> Self {
        Self {
            local: LocalId::default(),
            addr: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            refs: 0,
            client_conns: 0,
            sent_at: Instant::default(),
            timer: Timer::default(),
            rtt: Rtt::default(),
            rtt_asked: None,
            error_at: None,
            max_mtu: 1_444,
            jumbo_max: 1,
            path_mtu: PathMtu::default(),
            packets_sent: 0,
            retransmits: 0,
            bytes_sent: 0,
            bytes_received: 0,
        }
    }
}

impl Recycle for Peer {
    fn recycle(&mut self) {
        *self = Self::default();
    }
}

impl Peer {
    /// Whether the round trip should be measured again; asks once.
    pub fn wants_rtt(&mut self, now: Instant) -> bool {
        let stale = self.rtt_asked.is_none_or(|at| now.saturating_duration_since(at) >= RTT_FRESH);
        if stale {
            self.rtt_asked = Some(now);
        }
        stale
    }

    /// Takes over what an ACK's trailer says of the peer, within bounds.
    pub fn learn(&mut self, trailer: &AckTrailer) {
        let clamp = |mtu: u32| mtu.clamp(MTU_RANGE.0, MTU_RANGE.1);
        if let Some(mtu) = trailer.max_mtu {
            self.max_mtu = clamp(mtu);
        }
        if let Some(jumbo) = trailer.jumbo_max {
            self.jumbo_max = jumbo.min(MAX_SUB_PACKETS as u32);
        }
    }

    /// Packets that a datagram to it may carry, as far as it and we put up with them: whether they arrive is another
    /// question. One that advertises no jumbograms at all (0) finds out by padded pings itself, and takes what fits its
    /// largest packet.
    pub fn jumbo_limit(&self, ours: u32) -> u8 {
        let theirs = match self.jumbo_max {
            0 => packets_in(self.max_mtu as usize) as u32,
            packets => packets,
        };
        theirs.min(ours) as u8
    }

    /// Whether a network error should be acted upon now.
    pub fn takes_error(&mut self, now: Instant) -> bool {
        let takes = self.error_at.is_none_or(|at| now.saturating_duration_since(at) >= ERROR_PAUSE);
        if takes {
            self.error_at = Some(now);
        }
        takes
    }

    pub fn view(&self, id: PeerId, local_addr: SocketAddr, rto: Duration) -> PeerView {
        PeerView {
            id,
            local: self.local,
            local_addr,
            peer: self.addr,
            conns: self.refs,
            rtt: self.rtt.smoothed(),
            rtt_deviation: self.rtt.deviation(),
            rto,
            max_mtu: self.max_mtu,
            jumbo_max: self.jumbo_max,
            datagram_packets: self.path_mtu.packets(MAX_SUB_PACKETS as u8).into(),
            packets_sent: self.packets_sent,
            retransmits: self.retransmits,
            bytes_sent: self.bytes_sent,
            bytes_received: self.bytes_received,
        }
    }
}
