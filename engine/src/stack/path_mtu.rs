//! Path MTUs below that of the first link, as routers report them (RFC 1191, RFC 8201).
//!
//! Bounded, and forgotten after a while so that a path that grew is found again. What we send may be fragmented on
//! its way (DF clear), so this only saves routers and reassembly the work; a forged report cannot cut below the
//! least MTU of the IP version.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use pmd::Instant;

use super::small::Keyed;

/// RFC 1191 section 6.3.
const AGE: Duration = Duration::from_secs(600);
const MTU_MIN_V4: u16 = 576;
const MTU_MIN_V6: u16 = 1280;

pub struct PathMtus {
    known: HashMap<IpAddr, (u16, Instant), Keyed>,
    max: usize,
}

impl PathMtus {
    pub fn new(max: usize, keyed: Keyed) -> Self {
        // Twice the room, so that the map clears out deleted entries in place and never allocates again.
        PathMtus { known: HashMap::with_capacity_and_hasher(2 * max, keyed), max }
    }

    /// A router says that `mtu` bytes pass on the way to `to`.
    pub fn report(&mut self, now: Instant, to: IpAddr, mtu: u16) {
        let mtu = mtu.max(if to.is_ipv4() { MTU_MIN_V4 } else { MTU_MIN_V6 });
        if let Some((known, expires)) = self.known.get_mut(&to) {
            // Only time makes it larger.
            if mtu <= *known || now >= *expires {
                (*known, *expires) = (mtu, now + AGE);
            }
            return;
        }
        if self.known.len() >= self.max {
            let oldest = self.known.iter().min_by_key(|(_, (_, expires))| *expires).map(|(&to, _)| to);
            oldest.map(|to| self.known.remove(&to));
        }
        self.known.insert(to, (mtu, now + AGE));
    }

    /// What is known of the way to `to`, not older than its age at `now`.
    #[inline]
    pub fn get(&self, now: Instant, to: IpAddr) -> Option<usize> {
        if self.known.is_empty() {
            return None;
        }
        self.known.get(&to).filter(|(_, expires)| now < *expires).map(|&(mtu, _)| usize::from(mtu))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn reports_shrink_age_and_stay_within_reason() {
        let mut mtus = PathMtus::new(4, Keyed(1, 2));
        let (v4, v6) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1]));
        mtus.report(at(0), v4, 1400);
        mtus.report(at(1), v4, 1450);
        assert_eq!(mtus.get(at(2), v4), Some(1400));
        mtus.report(at(3), v4, 68);
        mtus.report(at(3), v6, 68);
        assert_eq!((mtus.get(at(4), v4), mtus.get(at(4), v6)), (Some(576), Some(1280)));
        assert_eq!(mtus.get(at(603), v4), None);
        mtus.report(at(604), v4, 1450);
        assert_eq!(mtus.get(at(605), v4), Some(1450));
    }

    #[test]
    fn the_oldest_gives_way() {
        let mut mtus = PathMtus::new(4, Keyed(1, 2));
        let host = |n: u8| IpAddr::from([10, 0, 0, n]);
        for n in 0..100 {
            mtus.report(at(u64::from(n)), host(n), 1000);
        }
        let known: Vec<_> = (0..100).filter(|&n| mtus.get(at(100), host(n)).is_some()).collect();
        assert_eq!(known, [96, 97, 98, 99]);
    }
}
