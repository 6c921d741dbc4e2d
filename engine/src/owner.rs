//! Who owns a flow: one pure function of the 4-tuple per engine, which every core and every thread can compute.
//!
//! Where all ports of an engine spread by one Toeplitz hash over addresses and ports, that hash is the function: what a flow brings
//! then comes in by its owner's queue, and nothing is handed over. The builder gives all ports the same key to that end, an engine's own.
//! Where a device cannot steer, cannot say how, or hashes addresses alone (a client's choice of port would move nothing), the function
//! is the keyed hash of the socket table, and a core hands what is not its own to the owner by ring.
//!
//! A device's own word on a frame's hash (`Meta::rss_hash`) is not asked: devices hash fragments and frames with extension headers by
//! addresses alone, so that the word would have to be judged for each frame, to save the 5 ns that computing takes.
//!
//! Deliberately absent: roaming (the peer's address is part of the flow), and moving flows between cores that run.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use pmd::{Rss, Toeplitz};

use crate::flow::{Flow, FlowHash, HashKeys};
use crate::ledger::CoreCounters;

/// The ownership function of one engine.
#[derive(Clone, Debug)]
pub struct Ownership {
    cores: usize,
    by: By,
}

#[derive(Clone, Debug)]
enum By {
    /// The devices' hash and table.
    Device(Arc<(Toeplitz, Rss)>),
    /// A hash that no device knows.
    Keyed(FlowHash),
}

impl Ownership {
    /// The function for `cores` cores, whose queues are those of ports that spread like this.
    pub(crate) fn new(keys: HashKeys, cores: usize, ports: impl IntoIterator<Item = Option<Rss>>) -> Self {
        assert!(cores > 0, "an engine has at least one core");
        let by = match common(cores, ports) {
            Some(rss) => By::Device(Arc::new((Toeplitz::new(&rss.key), rss))),
            None => By::Keyed(FlowHash::new(keys)),
        };
        Ownership { cores, by }
    }

    /// The key that an engine asks its ports to spread by.
    pub(crate) fn device_key(keys: HashKeys) -> [u8; pmd::RSS_KEY_LEN] {
        let mut random = fastrand::Rng::with_seed(keys.derive(3));
        pmd::rss_key(|| random.u64(..))
    }

    /// The core, `0..cores`, to which the flow between `local` and `peer` belongs.
    #[inline]
    pub fn owner(&self, local: SocketAddr, peer: SocketAddr) -> usize {
        if self.cores == 1 {
            return 0;
        }
        match &self.by {
            By::Device(device) => device.1.queue(device.0.hash(peer, local, true)),
            // The high bits of the product spread the hash evenly over any number of cores.
            By::Keyed(hash) => {
                ((u128::from(hash.of(&Flow::new(local, Some(peer)))) * self.cores as u128) >> 64) as usize
            }
        }
    }

    /// How many cores share the flows.
    pub fn cores(&self) -> usize {
        self.cores
    }

    /// Whether the ports bring flows to their owners by themselves.
    pub fn is_the_devices(&self) -> bool {
        matches!(self.by, By::Device(_))
    }
}

/// The way in which all ports spread over the cores, if it is one and the same, and fit to own flows by.
fn common(cores: usize, ports: impl IntoIterator<Item = Option<Rss>>) -> Option<Rss> {
    let mut ports = ports.into_iter();
    let first = ports.next()??;
    let fits = first.udp_ports
        && first.table.len().is_power_of_two()
        && first.table.iter().all(|queue| usize::from(*queue) < cores);
    (fits && ports.all(|port| port.is_some_and(|port| port.agrees_with(&first)))).then_some(first)
}

/// What a handler may ask about flows and routes while it works with the core's buffers. See [`Cx::split`](crate::Cx::split).
#[derive(Clone, Copy)]
pub struct Steering<'a> {
    pub(crate) now: pmd::Instant,
    pub(crate) core: usize,
    pub(crate) ownership: &'a Ownership,
    pub(crate) counters: &'a CoreCounters,
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

    /// Whether what `peer` sends to `local` belongs to this core: for a client in search of a port to call from. Each look counts
    /// ([`CoreStats::ports_tried`](crate::CoreStats::ports_tried)).
    pub fn suits(&self, local: SocketAddr, peer: SocketAddr) -> bool {
        self.counters.ports_tried.add(1);
        self.owner(local, peer) == self.core
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
        let (a, b) = (Ownership::new(HashKeys(1, 2), 3, [None]), Ownership::new(HashKeys(1, 3), 3, [None]));
        let mut counts = [0; 3];
        let mut differ = 0;
        for peer in flows() {
            counts[a.owner(local, peer)] += 1;
            differ += u32::from(a.owner(local, peer) != b.owner(local, peer));
        }
        assert!(counts.iter().all(|n| (9_000..11_000).contains(n)), "{counts:?}");
        assert!(differ > 15_000, "another key must give another placement, {differ} of 30000 differ");
    }

    /// Two ports that spread alike make the function, whatever the sizes of their tables; anything else does not.
    #[test]
    fn the_devices_hash_owns_where_all_ports_spread_alike_over_the_cores() {
        let keys = HashKeys(1, 2);
        let rss = Rss::spread(Ownership::device_key(keys), 4);
        let larger = Rss { table: rss.table.repeat(4), ..rss.clone() };
        let of = |cores, ports: &[Option<Rss>]| Ownership::new(keys, cores, ports.iter().cloned());
        assert!(of(4, &[Some(rss.clone()), Some(larger)]).is_the_devices());
        let addresses_only = Rss { udp_ports: false, ..rss.clone() };
        let other_key = Rss::spread(Ownership::device_key(HashKeys(1, 3)), 4);
        let odd_table = Rss { table: vec![0, 1, 2], ..rss.clone() };
        for (why, cores, ports) in [
            ("one cannot tell", 4, vec![Some(rss.clone()), None]),
            ("the first cannot tell", 4, vec![None, Some(rss.clone())]),
            ("a client cannot choose", 4, vec![Some(addresses_only)]),
            ("two keys", 4, vec![Some(rss.clone()), Some(other_key)]),
            ("a queue without a core", 3, vec![Some(rss.clone())]),
            ("not a table", 4, vec![Some(odd_table)]),
            ("no table", 4, vec![Some(Rss { table: Vec::new(), ..rss.clone() })]),
        ] {
            assert!(!of(cores, &ports).is_the_devices(), "{why}");
        }
    }

    #[test]
    fn the_devices_queue_is_the_owner() {
        let rss = Rss::spread(Ownership::device_key(HashKeys(5, 6)), 3);
        let ownership = Ownership::new(HashKeys(5, 6), 3, [Some(rss.clone())]);
        for (local, peer) in [("192.0.2.1:7", "198.51.100.7:9"), ("[2001:db8::1]:7", "[2001:db8::2]:9")] {
            let (local, mut peer): (SocketAddr, SocketAddr) = (local.parse().unwrap(), peer.parse().unwrap());
            for port in 1..500 {
                peer.set_port(port);
                assert_eq!(ownership.owner(local, peer), rss.queue_of(local, peer), "{local} {peer}");
            }
        }
    }
}
