//! Bytes that can be told apart: a pattern with random access, and a digest of a stream.

/// An endless string of bytes, given by a seed. Any part of it can be had in any order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pattern {
    seed: u64,
}

impl Pattern {
    /// The pattern of this seed.
    pub const fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// The eight bytes of word `index` (SplitMix64).
    const fn word(self, index: u64) -> [u8; 8] {
        let mut z = self.seed.wrapping_add(index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)).to_le_bytes()
    }

    /// Fills `out` with the bytes from `position` on.
    pub fn fill(self, position: u64, out: &mut [u8]) {
        let skip = (position % 8) as usize;
        let (first, rest) = out.split_at_mut(out.len().min((8 - skip) % 8));
        first.copy_from_slice(&self.word(position / 8)[skip..][..first.len()]);
        let (words, last) = rest.as_chunks_mut::<8>();
        let begins = position.div_ceil(8);
        for (index, word) in (begins..).zip(&mut *words) {
            *word = self.word(index);
        }
        last.copy_from_slice(&self.word(begins + words.len() as u64)[..last.len()]);
    }

    /// Compares `bytes` with the pattern from `position` on: the index of the first byte that differs, if one does.
    pub fn first_difference(self, position: u64, bytes: &[u8]) -> Option<usize> {
        let mut expected = [0; 512];
        for (at, part) in (0..).step_by(expected.len()).zip(bytes.chunks(expected.len())) {
            let expected = &mut expected[..part.len()];
            self.fill(position + at as u64, expected);
            if part != expected {
                return part.iter().zip(expected).position(|(a, b)| a != b).map(|index| at + index);
            }
        }
        None
    }
}

/// A digest of a stream of bytes, however it is cut into pieces. Good against accidents, not against malice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest {
    state: u64,
    /// Bytes that do not make a word yet; the first `len % 8` count.
    partial: [u8; 8],
    len: u64,
}

impl Default for Digest {
    fn default() -> Self {
        Self::new()
    }
}

impl Digest {
    /// The digest of nothing.
    pub const fn new() -> Self {
        Self { state: 0, partial: [0; 8], len: 0 }
    }

    /// Takes more bytes in.
    pub fn update(&mut self, mut bytes: &[u8]) {
        let held = (self.len % 8) as usize;
        self.len += bytes.len() as u64;
        if held > 0 {
            let (fill, rest) = bytes.split_at(bytes.len().min(8 - held));
            self.partial[held..held + fill.len()].copy_from_slice(fill);
            if held + fill.len() < 8 {
                return;
            }
            self.word(self.partial);
            bytes = rest;
        }
        let (words, rest) = bytes.as_chunks::<8>();
        words.iter().for_each(|&word| self.word(word));
        self.partial[..rest.len()].copy_from_slice(rest);
    }

    fn word(&mut self, word: [u8; 8]) {
        let mixed = self.state.rotate_left(5) ^ u64::from_le_bytes(word);
        self.state = mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    /// The digest of all bytes so far.
    pub fn value(&self) -> u64 {
        let mut end = *self;
        let held = (self.len % 8) as usize;
        end.partial[held..].fill(0);
        end.word(end.partial);
        end.word(self.len.to_le_bytes());
        end.state ^ (end.state >> 32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pattern(seed: u64, position: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        Pattern::new(seed).fill(position, &mut bytes);
        bytes
    }

    proptest! {
        #[test]
        fn any_part_of_a_pattern_is_the_same(seed: u64, from in 0..2000usize, len in 0..2000usize) {
            let whole = pattern(seed, 0, 4000);
            prop_assert_eq!(&pattern(seed, from as u64, len), &whole[from..from + len]);
            prop_assert_eq!(Pattern::new(seed).first_difference(from as u64, &whole[from..from + len]), None);
        }

        #[test]
        fn the_first_difference_is_found(seed: u64, position in 0..5000u64, len in 1..2000usize, at: prop::sample::Index) {
            let mut bytes = pattern(seed, position, len);
            let at = at.index(len);
            bytes[at] ^= 0x10;
            prop_assert_eq!(Pattern::new(seed).first_difference(position, &bytes), Some(at));
        }

        #[test]
        fn a_digest_does_not_depend_on_the_cuts(bytes: Vec<u8>, cuts in prop::collection::vec(0..40usize, 0..20)) {
            let mut whole = Digest::new();
            whole.update(&bytes);
            let (mut parts, mut rest) = (Digest::new(), &bytes[..]);
            for cut in cuts {
                let (part, after) = rest.split_at(cut.min(rest.len()));
                parts.update(part);
                rest = after;
            }
            parts.update(rest);
            prop_assert_eq!(whole.value(), parts.value());
        }

        #[test]
        fn a_digest_shows_a_changed_byte(bytes in prop::collection::vec(any::<u8>(), 1..200), at: prop::sample::Index) {
            let value = |bytes: &[u8]| { let mut digest = Digest::new(); digest.update(bytes); digest.value() };
            let mut changed = bytes.clone();
            changed[at.index(bytes.len())] ^= 1;
            prop_assert_ne!(value(&bytes), value(&changed));
            changed[at.index(bytes.len())] ^= 1;
            changed.push(0);
            prop_assert_ne!(value(&bytes), value(&changed));
        }
    }
}
