//! Addresses as devices see them: which there are, and which are taken.
//!
//! The IOMMU says which ranges it can map (its aperture, without what the platform reserves, such as the window of message-signalled
//! interrupts). Mappings get the lowest free addresses from 4 GiB on, where the devices here reach any; below are none, so
//! that an address cut to 32 bits by mistake faults instead of hitting something.

/// Where addresses begin.
const FLOOR: u64 = 1 << 32;
/// Taken for granted where an old kernel does not say: the smallest aperture in use.
const APERTURE_DEFAULT: (u64, u64) = (0, (1 << 39) - 1);
/// Mappings begin on a border of a huge page, so that the IOMMU can use one too.
const ALIGN: u64 = 2 << 20;

/// The address space of one container.
#[derive(Debug)]
pub(crate) struct IovaSpace {
    /// First and last address of each range, in order.
    ranges: Vec<(u64, u64)>,
    /// First address and length of each mapping, in order.
    used: Vec<(u64, u64)>,
}

impl IovaSpace {
    /// All of `ranges` (first and last address of each) is free.
    pub(crate) fn new(mut ranges: Vec<(u64, u64)>) -> IovaSpace {
        if ranges.is_empty() {
            ranges.push(APERTURE_DEFAULT);
        }
        ranges.sort_unstable();
        IovaSpace { ranges, used: Vec::new() }
    }

    /// Takes `len` addresses, all of them below 2^`bits`; returns the first.
    pub(crate) fn take(&mut self, len: u64, bits: u32) -> Option<u64> {
        let top = if bits >= 64 { u64::MAX } else { (1 << bits) - 1 };
        let at = self.ranges.iter().find_map(|&(first, last)| self.first_fit(first, last.min(top), len))?;
        let position = self.used.partition_point(|used| used.0 < at);
        self.used.insert(position, (at, len));
        Some(at)
    }

    /// Gives the mapping that begins at `at` back.
    pub(crate) fn give_back(&mut self, at: u64) {
        self.used.retain(|used| used.0 != at);
    }

    /// The end of the highest range.
    pub(crate) fn last(&self) -> u64 {
        self.ranges.last().map_or(0, |range| range.1)
    }

    fn first_fit(&self, first: u64, last: u64, len: u64) -> Option<u64> {
        let mut at = first.max(FLOOR).checked_next_multiple_of(ALIGN)?;
        let fits = |at: u64| at.checked_add(len - 1).is_some_and(|end| end <= last);
        for &(used, used_len) in &self.used {
            if used + used_len <= at {
                continue;
            }
            if fits(at) && at + len <= used {
                return Some(at);
            }
            at = (used + used_len).checked_next_multiple_of(ALIGN)?;
        }
        fits(at).then_some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn mappings_do_not_overlap_and_gaps_are_used_again() {
        let mut space = IovaSpace::new(vec![(0, 0xfedf_ffff), (0xfef0_0000, (1 << 39) - 1)]);
        let a = space.take(3 * MIB, 64).unwrap();
        let b = space.take(4096, 64).unwrap();
        let c = space.take(MIB, 64).unwrap();
        assert_eq!([a, b, c], [FLOOR, FLOOR + 4 * MIB, FLOOR + 6 * MIB]);
        space.give_back(b);
        assert_eq!(space.take(4 * MIB, 64), Some(FLOOR + 8 * MIB), "the gap is too small");
        assert_eq!(space.take(2 * MIB, 64), Some(b));
    }

    #[test]
    fn the_aperture_and_the_device_bound_the_addresses() {
        let mut space = IovaSpace::new(vec![(FLOOR, FLOOR + 4 * MIB - 1)]);
        assert_eq!(space.take(5 * MIB, 64), None);
        assert_eq!(space.take(4 * MIB, 64), Some(FLOOR));
        assert_eq!(space.take(1, 64), None);
        assert_eq!(
            IovaSpace::new(vec![(0, u64::MAX)]).take(MIB, 32),
            None,
            "a device of 32 bits reaches none"
        );
        let mut space = IovaSpace::new(vec![(0, u64::MAX)]);
        assert_eq!(space.take(u64::MAX, 64), None);
    }

    #[test]
    fn reserved_windows_are_stepped_over() {
        let hole = FLOOR + 2 * MIB;
        let mut space = IovaSpace::new(vec![(hole + MIB, u64::MAX), (FLOOR, hole - 1)]);
        assert_eq!(space.take(4 * MIB, 64), Some(FLOOR + 4 * MIB));
        assert_eq!(space.take(2 * MIB, 64), Some(FLOOR));
    }
}
