//! What benchmarks need of an engine's socket table without packets. No part of the API: hidden from the documentation, free to change.

use std::net::SocketAddr;

use arrayvec::ArrayVec;
use pmd::BURST;

use crate::control::Sockets;
use crate::engine::Engine;
use crate::flow::Flow;
use crate::handler::Handler;
use crate::rcu::ReadGuard;
use crate::socket::Socket;

/// The socket table of a running engine.
pub struct Lookups<'e>(&'e Sockets);

impl<'e> Lookups<'e> {
    /// Of that engine.
    pub fn of<H: Handler>(engine: &'e Engine<H>) -> Self {
        Lookups(&engine.sockets)
    }

    /// The socket for a datagram, as a core finds it.
    #[inline]
    pub fn lookup<'g>(
        &'g self,
        (local, peer): (SocketAddr, SocketAddr),
        guard: ReadGuard<'g>,
    ) -> Option<&'g Socket> {
        self.0.lookup(local, peer, guard)
    }

    /// The sockets for a burst of datagrams.
    #[inline]
    pub fn lookup_burst<'g>(
        &'g self,
        datagrams: impl IntoIterator<Item = (SocketAddr, SocketAddr)>,
        guard: ReadGuard<'g>,
    ) -> ArrayVec<Option<&'g Socket>, BURST> {
        let flows: ArrayVec<Flow, BURST> =
            datagrams.into_iter().map(|(local, peer)| Flow::new(local, Some(peer))).collect();
        self.0.lookup_burst(&flows, guard)
    }
}
