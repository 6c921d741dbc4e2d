//! NAT keep-alive: peers that we call and have been silent towards are sent something now and then.
//!
//! A NAT forgets a flow that nothing leaves by, after 30 s at the least common of them, and with it the way by which a server
//! calls us back. The packet is Linux's: a VERSION that is not a client's, so that nobody answers it. One for each
//! peer and interval at most, and only while client connections to the peer are open. Packets of calls count, so a busy
//! peer gets none.
//!
//! Deliberately absent: keep-alives for service connections; whoever called us keeps his own NAT awake.

use crate::PeerId;
use crate::endpoint::Endpoint;
use crate::shared::Reply;
use crate::timer::TimerKey;
use crate::wire::{Flags, Header, PacketType};
use pmd::{Instant, Pool};

/// The body, as Linux has it: an empty string.
const BODY: &[u8] = &[0];

impl Endpoint {
    /// A client connection to the peer was opened: from now on it is kept awake.
    pub(crate) fn keep_awake(&mut self, now: Instant, id: PeerId) {
        let Some(every) = self.shared.config.nat_keep_alive else { return };
        let Some(peer) = self.peers.get_mut(id) else { return };
        peer.client_conns += 1;
        if peer.client_conns == 1 {
            peer.sent_at = now;
            self.shared.timers.arm(&mut peer.timer, TimerKey::Peer(id), now + every);
        }
    }

    /// One of its client connections is gone.
    pub(crate) fn let_sleep(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        peer.client_conns = peer.client_conns.saturating_sub(1);
        if peer.client_conns == 0 {
            self.shared.timers.stop(&mut peer.timer);
        }
    }

    /// Looks whether anything was sent since.
    pub(crate) fn expire_peer(&mut self, now: Instant, id: PeerId) {
        let Some(every) = self.shared.config.nat_keep_alive else { return };
        let Some(peer) = self.peers.get_mut(id) else { return };
        if peer.sent_at + every <= now {
            peer.sent_at = now;
            // Longer only where buffers have been missing for whole intervals: then one more would not help.
            if self.shared.keep_alives.len() < self.peers.limit() {
                self.shared.keep_alives.push_back(id);
            }
        }
        let Some(peer) = self.peers.get_mut(id) else { return };
        self.shared.timers.arm(&mut peer.timer, TimerKey::Peer(id), peer.sent_at + every);
    }

    /// Turns keep-alives that are due into packets.
    pub(crate) fn send_keep_alives(&mut self, pool: &mut Pool) {
        while let Some(&id) = self.shared.keep_alives.front() {
            let peer = self.peers.get_mut(id).filter(|peer| peer.client_conns > 0);
            let from = peer.as_ref().and_then(|peer| self.locals.get(peer.local)).map(|local| local.addr);
            if let (Some(peer), Some(from)) = (peer, from) {
                let Some(packet) = pool.alloc() else { return };
                let header =
                    Header { epoch: self.epoch, flags: Flags::LAST, ..Header::new(PacketType::Version) };
                let packet = crate::output::with_body(packet, &header, BODY);
                peer.bytes_sent += packet.len() as u64;
                self.shared.stats.sent[PacketType::Version as usize] += 1;
                let (local, to) = (peer.local, peer.addr);
                self.shared.replies.push_back(Reply { local, from, to, packet });
            }
            self.shared.keep_alives.pop_front();
        }
    }
}
