//! Who called, in a form that a core writes and anybody reads without a lock.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::sync::atomic::{AtomicU64, Ordering};

use super::call_shared::CallPeer;

/// Written once in a call's life, by its core, before anybody is told of the call.
#[derive(Default)]
pub(crate) struct PeerCell {
    address: [AtomicU64; 2],
    /// IPv6: scope and flow label.
    scope: AtomicU64,
    /// Port, service and family; 0: not known. Written last.
    head: AtomicU64,
}

const V4: u64 = 4 << 32;
const V6: u64 = 6 << 32;

impl PeerCell {
    pub(crate) fn set(&self, peer: CallPeer) {
        let (address, scope, family) = match peer.addr {
            SocketAddr::V4(v4) => (u128::from(u32::from(*v4.ip())), 0, V4),
            SocketAddr::V6(v6) => {
                (u128::from(*v6.ip()), u64::from(v6.scope_id()) << 32 | u64::from(v6.flowinfo()), V6)
            }
        };
        self.address[0].store((address >> 64) as u64, Ordering::Relaxed);
        self.address[1].store(address as u64, Ordering::Relaxed);
        self.scope.store(scope, Ordering::Relaxed);
        let head = family | u64::from(peer.service) << 16 | u64::from(peer.addr.port());
        // Release: pairs with the Acquire in `get`.
        self.head.store(head, Ordering::Release);
    }

    pub(crate) fn get(&self) -> Option<CallPeer> {
        let head = self.head.load(Ordering::Acquire);
        let (high, low) = (self.address[0].load(Ordering::Relaxed), self.address[1].load(Ordering::Relaxed));
        let scope = self.scope.load(Ordering::Relaxed);
        let port = head as u16;
        let addr = match head & (V4 | V6) {
            V4 => SocketAddr::new(IpAddr::V4(Ipv4Addr::from(low as u32)), port),
            V6 => {
                let ip = Ipv6Addr::from(u128::from(high) << 64 | u128::from(low));
                SocketAddr::V6(SocketAddrV6::new(ip, port, scope as u32, (scope >> 32) as u32))
            }
            _ => return None,
        };
        Some(CallPeer { addr, service: (head >> 16) as u16 })
    }

    /// The cell of the next call.
    pub(super) fn reset(&self) {
        self.head.store(0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_survives_its_words() {
        let cell = PeerCell::default();
        assert_eq!(cell.get(), None);
        for addr in ["192.0.2.1:7009", "0.0.0.0:0", "255.255.255.255:65535", "[2001:db8::1]:1"] {
            let peer = CallPeer { addr: addr.parse().unwrap(), service: u16::MAX };
            cell.set(peer);
            assert_eq!(cell.get(), Some(peer));
        }
        let local = SocketAddrV6::new("fe80::1".parse().unwrap(), 7, 0xfedcb, 9);
        let peer = CallPeer { addr: local.into(), service: 0 };
        cell.set(peer);
        assert_eq!(cell.get(), Some(peer));
        cell.reset();
        assert_eq!(cell.get(), None);
    }
}
