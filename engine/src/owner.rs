//! Who owns a flow: one pure, keyed function of the 4-tuple per engine. Every core can compute it.
//!
//! It does not depend on which queue a frame came in by, so it holds where the device cannot steer. Deliberately absent: roaming;
//! the peer's address is part of the flow.

use std::net::{IpAddr, SocketAddr};

use crate::flow::{Flow, FlowHash, HashKeys};

/// The ownership function of one engine.
#[derive(Clone, Copy, Debug)]
pub struct Ownership {
    hash: FlowHash,
    cores: usize,
}

impl Ownership {
    pub(crate) fn new(keys: HashKeys, cores: usize) -> Self {
        assert!(cores > 0, "an engine has at least one core");
        Ownership { hash: FlowHash::new(keys), cores }
    }

    /// The core, `0..cores`, to which the flow between `local` and `peer` belongs.
    #[inline]
    pub fn owner(&self, local: SocketAddr, peer: SocketAddr) -> usize {
        if self.cores == 1 {
            return 0;
        }
        // The high bits of the product spread the hash evenly over any number of cores.
        ((u128::from(self.hash.of(&Flow::new(local, Some(peer)))) * self.cores as u128) >> 64) as usize
    }

    /// How many cores share the flows.
    pub fn cores(&self) -> usize {
        self.cores
    }
}

/// What a handler may ask about flows and routes while it works with the core's buffers. See [`Cx::split`](crate::Cx::split).
#[derive(Clone, Copy)]
pub struct Steering<'a> {
    pub(crate) now: pmd::Instant,
    pub(crate) core: usize,
    pub(crate) ownership: &'a Ownership,
    pub(crate) stack: &'a crate::stack::Stack,
}

impl Steering<'_> {
    /// This core's number.
    pub fn core(&self) -> usize {
        self.core
    }

    /// How many cores the engine has.
    pub fn cores(&self) -> usize {
        self.ownership.cores
    }

    /// The core that owns a flow.
    pub fn owner(&self, local: SocketAddr, peer: SocketAddr) -> usize {
        self.ownership.owner(local, peer)
    }

    /// The address of ours that datagrams to `to` leave from; `None` without a route.
    pub fn source_for(&self, to: SocketAddr) -> Option<IpAddr> {
        self.stack.source_for(to)
    }

    /// The largest UDP payload, in bytes, that reaches `to` unfragmented.
    pub fn mtu_for(&self, to: SocketAddr) -> usize {
        self.stack.mtu_for(self.now, to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_spread_evenly_and_depend_on_the_key() {
        let flows = || (0..30_000u32).map(|i| SocketAddr::from(([10, 0, (i >> 8) as u8, i as u8], 7001)));
        let local = SocketAddr::from(([192, 0, 2, 1], 7000));
        let (a, b) = (Ownership::new(HashKeys(1, 2), 3), Ownership::new(HashKeys(1, 3), 3));
        let mut counts = [0; 3];
        let mut differ = 0;
        for peer in flows() {
            counts[a.owner(local, peer)] += 1;
            differ += u32::from(a.owner(local, peer) != b.owner(local, peer));
        }
        assert!(counts.iter().all(|n| (9_000..11_000).contains(n)), "{counts:?}");
        assert!(differ > 15_000, "another key must give another placement, {differ} of 30000 differ");
    }
}
