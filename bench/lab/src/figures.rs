//! What a gateway says of itself with `--json`, and what must hold of it.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::fault::{Result, ensure};

/// One line of `rxline gateway --json`. Counters run from its start.
#[derive(Clone, Debug, Deserialize)]
pub struct Figures {
    /// Calls of clients.
    pub calls: Calls,
    /// What is relayed.
    pub relay: Relay,
    /// Servers, in the order of the configuration.
    pub backends: Vec<Backend>,
    /// What became of every frame.
    pub ledger: Ledger,
    /// Frames and datagrams thrown away, by reason.
    pub drops: BTreeMap<String, u64>,
    /// Packet memory.
    pub pools: Vec<Pool>,
}

/// Calls of clients, and how they ended.
#[derive(Clone, Debug, Deserialize)]
pub struct Calls {
    /// Came in.
    pub accepted: u64,
    /// Have not ended.
    pub in_progress: u64,
    /// Ended with the whole reply.
    pub succeeded: u64,
    /// The backend aborted them.
    pub backend_aborted: u64,
    /// The backend was lost.
    pub backend_failed: u64,
    /// The backend did not take the gateway's own proof.
    pub proof_refused: u64,
    /// The client aborted them.
    pub client_aborted: u64,
    /// The client was lost.
    pub client_lost: u64,
    /// The whole reply was sent to it, and it left without a word.
    pub client_left: u64,
    /// No backend was alive.
    pub refused_dead: u64,
    /// Every backend had as many as it may.
    pub refused_busy: u64,
    /// A limit of the gateway's own.
    pub refused_limit: u64,
    /// It was shutting down.
    pub refused_draining: u64,
    /// The client had proved who it is, and is nobody who may.
    pub refused_user: u64,
    /// The time to drain was up.
    pub drained: u64,
}

/// What is relayed.
#[derive(Clone, Debug, Deserialize)]
pub struct Relay {
    /// Connections that clients began.
    pub connected: u64,
    /// Connections that servers began.
    pub called_back: u64,
    /// Known now.
    pub connections: u64,
    /// Forgotten.
    pub forgotten: u64,
    /// Packets to servers.
    pub packets_to_servers: u64,
    /// Packets to clients.
    pub packets_to_clients: u64,
    /// ABORTs sent in a server's place.
    pub aborts: u64,
}

/// One server.
#[derive(Clone, Debug, Deserialize)]
pub struct Backend {
    /// Address and port.
    pub address: String,
    /// Whether it answers probes.
    pub alive: bool,
    /// Calls in flight.
    pub outstanding: u64,
    /// Calls that it answered.
    pub succeeded: u64,
    /// Calls that it aborted.
    pub aborted: u64,
    /// Calls that were lost with it.
    pub failed: u64,
    /// Calls that the client gave up.
    pub cancelled: u64,
}

impl Backend {
    /// Calls that it was given so far, however they ended or will end.
    pub fn given(&self) -> u64 {
        self.outstanding + self.succeeded + self.aborted + self.failed + self.cancelled
    }
}

/// What became of every frame.
#[derive(Clone, Debug, Deserialize)]
pub struct Ledger {
    /// Frames that came in.
    pub received: u64,
    delivered: u64,
    consumed: u64,
    dropped: u64,
}

/// One core's packet memory.
#[derive(Clone, Debug, Deserialize)]
pub struct Pool {
    name: String,
    buffers: u64,
    in_use: u64,
}

impl Figures {
    /// The backends that answer probes.
    pub fn alive(&self) -> usize {
        self.backends.iter().filter(|backend| backend.alive).count()
    }

    /// The first backend at this address, whatever its port.
    pub fn backend(&self, address: std::net::Ipv4Addr) -> Result<&Backend> {
        let wanted = format!("{address}:");
        let found = self.backends.iter().find(|backend| backend.address.starts_with(&wanted));
        found.ok_or_else(|| crate::fault::Fault::Check(format!("the figures have no backend at {address}")))
    }

    /// Packet buffers in use, over all cores.
    pub fn buffers_in_use(&self) -> u64 {
        self.pools.iter().map(|pool| pool.in_use).sum()
    }

    /// After the end: every frame accounted for, every buffer home, every call ended in exactly one way.
    pub fn must_close(&self) -> Result {
        let Ledger { received, delivered, consumed, dropped } = self.ledger;
        ensure!(received > 0, "the gateway received nothing: {self:?}");
        let sum = delivered + consumed + dropped;
        ensure!(
            received == sum,
            "the ledger does not close: {received} received, but {delivered} delivered + {consumed} consumed + {dropped} dropped = {sum}"
        );
        ensure!(!self.pools.is_empty(), "the figures have no pools");
        for Pool { name, buffers, in_use } in &self.pools {
            ensure!(*in_use == 0, "{in_use} of {buffers} buffers of {name} did not come home");
        }
        for backend in &self.backends {
            let Backend { address, outstanding, .. } = backend;
            ensure!(*outstanding == 0, "{outstanding} calls to {address} never ended");
        }
        let relay = &self.relay;
        let ended = relay.connections == 0 && relay.connected + relay.called_back == relay.forgotten;
        ensure!(ended, "relayed connections do not add up: {relay:?}");
        let calls = &self.calls;
        ensure!(calls.in_progress == 0, "{} calls never ended", calls.in_progress);
        ensure!(calls.accepted == calls.ended(), "calls do not add up: {calls:?}");
        Ok(())
    }
}

impl Calls {
    /// Over all ways of ending.
    pub fn ended(&self) -> u64 {
        self.succeeded + self.client_left + self.unwell() + self.backend_aborted
    }

    /// Ended otherwise than by a reply or by the server's own abort.
    pub fn unwell(&self) -> u64 {
        let lost =
            self.backend_failed + self.proof_refused + self.client_aborted + self.client_lost + self.drained;
        let refused = self.refused_dead + self.refused_busy + self.refused_limit + self.refused_draining;
        lost + refused + self.refused_user
    }
}
