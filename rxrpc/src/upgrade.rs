//! Service upgrade: a client asks, on the first call of a new connection, for a newer service under the same address.
//!
//! The question is user status 1 on the call's DATA packets, the answer is the service id in the server's. A server that knows
//! nothing of it answers as ever, so that asking costs nothing but the parallel calls that wait for the first answer.

use crate::ConnId;
use crate::conn_client::CHANNELS;
use crate::endpoint::Endpoint;
use crate::local::Local;
use crate::wire::{Header, PacketType};
use pmd::Instant;

/// The user status that asks for an upgrade.
pub const ASKS: u8 = 1;

/// Where a bundle's calls go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Upgrade {
    /// To the service that its target names.
    #[default]
    No,
    /// That is to be found out: by one call at a time, on one connection.
    Asking,
    /// To the service that the server named.
    To(u16),
}

impl Endpoint {
    /// The first word of a server that was asked for an upgrade: the service it names is the bundle's from here on.
    pub(crate) fn learn_service(&mut self, now: Instant, conn_id: ConnId, header: &Header) {
        if !matches!(header.packet_type, PacketType::Data | PacketType::Ack | PacketType::Challenge) {
            return;
        }
        let Some(conn) = self.conns.get_mut(conn_id) else { return };
        conn.asks_upgrade = false;
        if header.service != 0 {
            conn.service = header.service;
        }
        let (service, bundle_id) = (conn.service, conn.bundle);
        // Nobody but the call that asks is on the connection.
        let asking = conn.channels.iter().find_map(|channel| channel.call);
        if let Some(call) = asking.and_then(|call| self.calls.get_mut(call)) {
            call.service = service;
            call.schedule(&mut self.shared);
        }
        let Some(bundle) = bundle_id.and_then(|id| self.bundles.get_mut(id)) else { return };
        bundle.upgrade = Upgrade::To(service);
        if !bundle.exclusive {
            bundle.free.extend((1..CHANNELS).rev().map(|channel| (conn_id, channel)));
        }
        if let Some(bundle_id) = bundle_id {
            self.serve_line(now, bundle_id);
        }
    }
}

impl Local {
    /// The service that a new connection is for: the one it names, or the one that is an upgrade of it, if the client asks.
    pub fn upgraded(&mut self, header: &Header) -> u16 {
        let asks = header.user_status == ASKS;
        let to = self.service(header.service).and_then(|service| service.config.upgrade_to);
        match to.filter(|_| asks) {
            Some(to) if self.service(to).is_some() => to,
            _ => header.service,
        }
    }
}
