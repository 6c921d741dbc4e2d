//! The Internet checksum (RFC 1071) over any number of pieces.
//!
//! One's complement addition does not care about byte order, so words are summed as they lie in memory and the
//! result is swapped once at the end.

use std::net::IpAddr;

/// A running one's complement sum. Pieces may have odd lengths.
#[derive(Clone, Copy, Default, Debug)]
pub struct Sum {
    /// Sum of little-endian 16-bit words, carries not yet folded in.
    words: u64,
    /// An odd number of bytes has gone in: the next byte is the high half of a word.
    odd: bool,
}

impl Sum {
    /// The pseudo header of UDP and ICMPv6 (RFC 768, RFC 8200 section 8.1).
    #[inline]
    pub fn pseudo_header(src: IpAddr, dst: IpAddr, protocol: u8, len: usize) -> Sum {
        let len = u32::from_le_bytes((len as u32).to_be_bytes());
        let protocol = u16::from_le_bytes([0, protocol]);
        Sum { words: address(src) + address(dst) + u64::from(len) + u64::from(protocol), odd: false }
    }

    /// Adds the next bytes. The sum has room for gigabytes of them.
    #[inline]
    pub fn add(&mut self, bytes: &[u8]) {
        let words = sum_words(bytes);
        self.words += if self.odd { u64::from(fold(words).swap_bytes()) } else { words };
        self.odd ^= bytes.len() % 2 == 1;
    }

    /// The value for a checksum field, to be stored big-endian: the complement of the sum.
    pub fn checksum(self) -> u16 {
        !fold(self.words).swap_bytes()
    }

    /// Whether the bytes so far, their checksum field included, are intact.
    pub fn is_intact(self) -> bool {
        fold(self.words) == 0xffff
    }
}

fn address(address: IpAddr) -> u64 {
    match address {
        IpAddr::V4(a) => u64::from(u32::from_le_bytes(a.octets())),
        IpAddr::V6(a) => {
            let bits = u128::from_le_bytes(a.octets());
            halves(bits as u64) + halves((bits >> 64) as u64)
        }
    }
}

/// Sum of the little-endian words of `bytes`, an odd last byte padded with zero. Four independent lanes keep the
/// additions off one another's critical path and let the compiler use vector registers.
#[inline]
fn sum_words(bytes: &[u8]) -> u64 {
    let mut lanes = [0u64; 4];
    let (blocks, rest) = bytes.as_chunks::<32>();
    for block in blocks {
        for (lane, word) in lanes.iter_mut().zip(block.as_chunks::<8>().0) {
            *lane += halves(u64::from_le_bytes(*word));
        }
    }
    let mut sum: u64 = lanes.iter().sum();
    let (words, tail) = rest.as_chunks::<8>();
    for word in words {
        sum += halves(u64::from_le_bytes(*word));
    }
    if tail.is_empty() {
        return sum;
    }
    let mut last = [0; 8];
    last[..tail.len()].copy_from_slice(tail);
    sum + halves(u64::from_le_bytes(last))
}

fn halves(word: u64) -> u64 {
    (word & 0xffff_ffff) + (word >> 32)
}

/// Adds the carries back in until 16 bits are left.
fn fold(sum: u64) -> u16 {
    let sum = halves(sum);
    let sum = halves(sum) as u32;
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Word by word, as RFC 1071 describes it.
    fn naive(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    #[test]
    fn rfc1071_example() {
        let mut sum = Sum::default();
        sum.add(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(sum.checksum(), !0xddf2);
    }

    #[test]
    fn all_ones_do_not_overflow() {
        let mut sum = Sum::default();
        for _ in 0..40 {
            sum.add(&[0xff; 65535]);
        }
        assert_eq!(sum.checksum(), naive(&vec![0xff; 40 * 65535]));
    }

    proptest! {
        #[test]
        fn pieces_sum_like_the_naive_model(pieces in proptest::collection::vec(
            proptest::collection::vec(any::<u8>(), 0..200), 0..8)) {
            let mut sum = Sum::default();
            pieces.iter().for_each(|piece| sum.add(piece));
            prop_assert_eq!(sum.checksum(), naive(&pieces.concat()));
        }

        #[test]
        fn a_message_with_its_checksum_is_intact(mut bytes in proptest::collection::vec(any::<u8>(), 2..100)) {
            bytes[..2].fill(0);
            let mut sum = Sum::default();
            sum.add(&bytes);
            bytes[..2].copy_from_slice(&sum.checksum().to_be_bytes());
            let mut check = Sum::default();
            check.add(&bytes);
            // All zeros sum to zero, which is the one message that has no non-zero representation.
            prop_assert!(check.is_intact());
        }
    }
}
