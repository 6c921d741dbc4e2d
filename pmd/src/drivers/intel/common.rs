//! What all these chips have alike in their registers: the ones of a ring, the station's address, and the tables of RSS.
//!
//! A ring's are those of the 82574 datasheet 10.2.5 and 10.2.6, the 82576 datasheet 8.10 and 8.12, and the 82599 datasheet 8.2.3.8 and 8.2.3.9.

use super::bar::Bar;
use super::chip::RingAt;
use super::ring::DESCRIPTOR;
use crate::mac::MacAddr;
use crate::rss::Rss;

// From where a queue's registers begin.
pub(crate) const BASE_LOW: usize = 0x00;
pub(crate) const BASE_HIGH: usize = 0x04;
pub(crate) const LENGTH: usize = 0x08;
pub(crate) const HEAD: usize = 0x10;
pub(crate) const TAIL: usize = 0x18;

/// Tells of an empty ring, whose registers begin at `at`.
pub(crate) fn write_ring(bar: &Bar, at: usize, ring: RingAt) {
    bar.write(at + BASE_LOW, ring.iova as u32);
    bar.write(at + BASE_HIGH, (ring.iova >> 32) as u32);
    bar.write(at + LENGTH, (ring.size * DESCRIPTOR) as u32);
    bar.write(at + HEAD, 0);
    bar.write(at + TAIL, 0);
}

/// The address in a pair of registers, the low one at `at`.
pub(crate) fn read_mac(bar: &Bar, at: usize) -> MacAddr {
    let (low, high) = (bar.read(at).to_le_bytes(), bar.read(at + 4).to_le_bytes());
    MacAddr([low[0], low[1], low[2], low[3], high[0], high[1]])
}

/// Writes key and redirection table: four bytes, and four entries of a byte, to a register. An entry's queue begins at bit `shift`.
pub(crate) fn write_rss(bar: &Bar, key: usize, table: usize, shift: u32, rss: &Rss) {
    for (index, bytes) in rss.key.as_chunks::<4>().0.iter().enumerate() {
        bar.write(key + 4 * index, u32::from_le_bytes(*bytes));
    }
    for (index, queues) in rss.table.as_chunks::<4>().0.iter().enumerate() {
        bar.write(table + 4 * index, u32::from_le_bytes(queues.map(|queue| (queue as u8) << shift)));
    }
}
