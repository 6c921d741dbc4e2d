//! fcrypt, the block cipher of rxkad, in PCBC mode.
//!
//! A Feistel network of 16 rounds over blocks of 64 bits with a key of 56: a relative of DES, without its permutations. It protects
//! against nobody who can spend a day of a graphics card; it is here because the protocol says so. Encryption is one long chain, bound by
//! the latency of its table look-ups: several packets are encrypted side by side, 3.6 times as fast. Decryption runs four blocks of one
//! packet side by side.

use super::sboxes::{SBOX0, SBOX1, SBOX2, SBOX3};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Bytes of a block, and of a key.
pub const BLOCK: usize = 8;
const ROUNDS: usize = 16;
/// Blocks that are decrypted side by side.
const LANES: usize = 4;

/// The boxes, shifted to where their output goes.
static TABLES: [[u32; 256]; 4] = {
    let mut tables = [[0; 256]; 4];
    let mut i = 0;
    while i < 256 {
        tables[0][i] = (SBOX0[i] as u32) << 3;
        tables[1][i] = (SBOX1[i] as u32).rotate_right(5);
        tables[2][i] = (SBOX2[i] as u32) << 11;
        tables[3][i] = (SBOX3[i] as u32) << 19;
        i += 1;
    }
    tables
};

/// A key, ready for use.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Fcrypt {
    schedule: [u32; ROUNDS],
}

impl Fcrypt {
    /// The lowest bit of each byte is parity and does not count.
    pub fn new(key: &[u8; BLOCK]) -> Self {
        const BITS: u32 = 56;
        let mut bits = key.iter().fold(0, |bits, &byte| bits << 7 | u64::from(byte >> 1));
        let mut schedule = [0; ROUNDS];
        for word in &mut schedule {
            *word = bits as u32;
            bits = (bits >> 11 | bits << (BITS - 11)) & ((1 << BITS) - 1);
        }
        bits.zeroize();
        Self { schedule }
    }

    /// One block.
    #[inline]
    pub fn encrypt(&self, block: u64) -> u64 {
        let [sealed] = self.encrypt_each([block]);
        sealed
    }

    /// Several blocks, one by one and yet at once.
    #[inline]
    fn encrypt_each<const N: usize>(&self, blocks: [u64; N]) -> [u64; N] {
        let mut left = blocks.map(|block| (block >> 32) as u32);
        let mut right = blocks.map(|block| block as u32);
        for pair in self.schedule.chunks_exact(2) {
            for lane in 0..N {
                left[lane] ^= mix(right[lane] ^ pair[0]);
            }
            for lane in 0..N {
                right[lane] ^= mix(left[lane] ^ pair[1]);
            }
        }
        std::array::from_fn(|lane| u64::from(left[lane]) << 32 | u64::from(right[lane]))
    }

    /// The other way.
    #[inline]
    fn decrypt<const N: usize>(&self, blocks: [u64; N]) -> [u64; N] {
        let mut left = blocks.map(|block| (block >> 32) as u32);
        let mut right = blocks.map(|block| block as u32);
        for pair in self.schedule.rchunks_exact(2) {
            for lane in 0..N {
                right[lane] ^= mix(left[lane] ^ pair[1]);
            }
            for lane in 0..N {
                left[lane] ^= mix(right[lane] ^ pair[0]);
            }
        }
        std::array::from_fn(|lane| u64::from(left[lane]) << 32 | u64::from(right[lane]))
    }

    /// Encrypts whole blocks in place, each mixed with the plain and the encrypted form of the one before it.
    pub fn pcbc_encrypt(&self, iv: u64, data: &mut [u8]) {
        self.pcbc_encrypt_each(iv, [data]);
    }

    /// The same for several bodies, each a chain of its own, as far as the shortest goes; the rest of each by itself.
    pub fn pcbc_encrypt_each<const N: usize>(&self, iv: u64, bodies: [&mut [u8]; N]) {
        debug_assert!(bodies.iter().all(|body| body.len().is_multiple_of(BLOCK)));
        let bodies = bodies.map(|body| body.as_chunks_mut::<BLOCK>().0);
        let common = bodies.iter().map(|blocks| blocks.len()).min().unwrap_or(0);
        let mut chains = [iv; N];
        #[allow(clippy::needless_range_loop, reason = "the index is of several slices")]
        for at in 0..common {
            let plain: [u64; N] = std::array::from_fn(|lane| u64::from_be_bytes(bodies[lane][at]));
            let sealed = self.encrypt_each::<N>(std::array::from_fn(|lane| plain[lane] ^ chains[lane]));
            for lane in 0..N {
                bodies[lane][at] = sealed[lane].to_be_bytes();
                chains[lane] = plain[lane] ^ sealed[lane];
            }
        }
        for (blocks, chain) in bodies.into_iter().zip(chains) {
            if blocks.len() > common {
                self.pcbc_encrypt(chain, blocks[common..].as_flattened_mut());
            }
        }
    }

    /// Decrypts whole blocks in place.
    pub fn pcbc_decrypt(&self, iv: u64, data: &mut [u8]) {
        debug_assert!(data.len().is_multiple_of(BLOCK));
        let mut chain = iv;
        let (groups, rest) = data.as_chunks_mut::<BLOCK>().0.as_chunks_mut::<LANES>();
        for group in groups {
            chain = self.pcbc_group(chain, group);
        }
        for bytes in rest {
            chain = self.pcbc_group(chain, std::array::from_mut(bytes));
        }
    }

    #[inline]
    fn pcbc_group<const N: usize>(&self, mut chain: u64, group: &mut [[u8; BLOCK]; N]) -> u64 {
        let sealed = group.map(u64::from_be_bytes);
        let opened = self.decrypt(sealed);
        for lane in 0..N {
            let plain = opened[lane] ^ chain;
            group[lane] = plain.to_be_bytes();
            chain = plain ^ sealed[lane];
        }
        chain
    }
}

/// What a round makes of the half that it leaves alone.
#[inline]
fn mix(word: u32) -> u32 {
    let [a, b, c, d] = word.to_be_bytes();
    TABLES[0][usize::from(a)]
        ^ TABLES[1][usize::from(b)]
        ^ TABLES[2][usize::from(c)]
        ^ TABLES[3][usize::from(d)]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// (key, iv, plain, sealed): the vectors of Linux crypto/testmgr.h, which has the longer ones from Arla.
    const VECTORS: [(u64, u64, &[u8], &str); 4] = [
        (0, 0, &[0; 8], "0e0900c73ef7ed41"),
        (0x1144_77aa_dd00_3366, 0, &[0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde, 0xf0], "d8ed787477ec0680"),
        (
            0xf0e1_d2c3_b4a5_9687,
            0xfedc_ba98_7654_3210,
            b"The quick brown fox jumps over the lazy dogs.\0\0\0",
            "00f00e1175e62382eeac98624451e484c359d8aa6460aef7d2d9137972a3450323b562d70cf527d1f8913cac442292ef",
        ),
        (
            0xfedc_ba98_7654_3210,
            0xf0e1_d2c3_b4a5_9687,
            b"The quick brown fox jumps over the lazy dogs.\0\0\0",
            "ca90f59dcbd4d23c01887f3e316e629dd8e057a3063a42582a28fe72522fdde01989091c2a8e8c94fcc768e488aade0f",
        ),
    ];

    #[test]
    fn the_known_vectors_hold_both_ways() {
        for (key, iv, plain, sealed) in VECTORS {
            let cipher = Fcrypt::new(&key.to_be_bytes());
            let mut data = plain.to_vec();
            cipher.pcbc_encrypt(iv, &mut data);
            let hex: String = data.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hex, sealed, "key {key:x}");
            cipher.pcbc_decrypt(iv, &mut data);
            assert_eq!(data, plain, "key {key:x}");
        }
    }

    #[test]
    fn parity_bits_do_not_count() {
        let (even, odd) = (Fcrypt::new(&[0x54; 8]), Fcrypt::new(&[0x55; 8]));
        assert_eq!(even.encrypt(7), odd.encrypt(7));
    }

    #[test]
    fn bodies_encrypted_side_by_side_are_what_each_is_alone() {
        let cipher = Fcrypt::new(b"rxlines!");
        for lens in [[4, 4, 4, 4], [4, 4, 4, 1], [0, 9, 2, 5], [7, 0, 0, 0]] {
            let plain =
                lens.map(|blocks| (0..blocks * BLOCK).map(|i| (i * 37 + blocks) as u8).collect::<Vec<_>>());
            let (mut together, mut alone) = (plain.clone(), plain);
            cipher.pcbc_encrypt_each(5, together.each_mut().map(Vec::as_mut_slice));
            alone.iter_mut().for_each(|body| cipher.pcbc_encrypt(5, body));
            assert_eq!(together, alone, "{lens:?}");
        }
    }

    #[test]
    fn every_length_in_blocks_comes_back() {
        let cipher = Fcrypt::new(b"rxlines!");
        for blocks in 0..13 {
            let plain: Vec<u8> = (0..blocks * BLOCK).map(|i| (i * 37) as u8).collect();
            let mut data = plain.clone();
            cipher.pcbc_encrypt(99, &mut data);
            assert!(blocks == 0 || data != plain);
            cipher.pcbc_decrypt(99, &mut data);
            assert_eq!(data, plain, "{blocks} blocks");
        }
    }
}
