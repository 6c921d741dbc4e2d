//! DES keys: those of servers, and the session keys that fcrypt uses.

use des::Des;
use des::cipher::{BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};
use hmac::{Hmac, Mac};
use md5::Md5;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::fcrypt::BLOCK;
use crate::security::KeyError;

/// A DES key of 8 bytes, of which the lowest bit of each is odd parity. Zeroised when dropped; `Debug` does not print it.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct DesKey([u8; BLOCK]);

impl DesKey {
    /// A key as it is. Parity is not looked at, since no cipher here does; weak keys are refused.
    pub fn new(bytes: [u8; BLOCK]) -> Result<Self, KeyError> {
        let key = Self(bytes);
        if key.is_weak() { Err(KeyError::Weak) } else { Ok(key) }
    }

    /// A random key, from the system's source of randomness.
    pub fn random() -> Result<Self, KeyError> {
        loop {
            let mut key = Self([0; BLOCK]);
            getrandom::fill(&mut key.0).map_err(|_| KeyError::NoRandomness)?;
            key.fix_parity();
            if !key.is_weak() {
                return Ok(key);
            }
        }
    }

    /// The session key of a Kerberos 5 ticket: a DES key itself, any other by HMAC-MD5 in the counter mode of NIST SP 800-108
    /// (draft-kaduk-afs3-rxkad-kdf). A weak key is passed over for the next counter's.
    pub fn of_session(enctype: i32, key: &[u8]) -> Result<Self, KeyError> {
        match enctype {
            1..=3 => {
                Self::new(key.try_into().map_err(|_| KeyError::Length { len: key.len(), wanted: BLOCK })?)
            }
            5 | 7 | 16 => Self::derive(&without_parity(key)?),
            17.. => Self::derive(key),
            _ => Err(KeyError::Enctype { enctype }),
        }
    }

    fn derive(key: &[u8]) -> Result<Self, KeyError> {
        const LEAST: usize = 7;
        if key.len() < LEAST {
            return Err(KeyError::Length { len: key.len(), wanted: LEAST });
        }
        for counter in 1..=u8::MAX {
            let mut mac = Hmac::<Md5>::new_from_slice(key).expect("HMAC takes keys of any length");
            mac.update(&[counter]);
            mac.update(b"rxkad\0");
            mac.update(&(8 * BLOCK as u32).to_be_bytes());
            let mut digest = mac.finalize().into_bytes();
            let mut derived = Self(*digest.first_chunk().expect("16 bytes"));
            digest.as_mut_slice().zeroize();
            derived.fix_parity();
            if !derived.is_weak() {
                return Ok(derived);
            }
        }
        Err(KeyError::Weak)
    }

    fn fix_parity(&mut self) {
        for byte in &mut self.0 {
            *byte = *byte & 0xfe | u8::from((*byte >> 1).count_ones().is_multiple_of(2));
        }
    }

    fn is_weak(&self) -> bool {
        let mut odd = self.clone();
        odd.fix_parity();
        des::weak_key_test(&odd.0).is_err()
    }

    pub(crate) fn bytes(&self) -> &[u8; BLOCK] {
        &self.0
    }

    /// The key as the vector that a chain begins with.
    pub(super) fn as_iv(&self) -> u64 {
        u64::from_be_bytes(self.0)
    }

    /// Encrypts whole blocks with DES in PCBC mode, with the key as the vector: how Kerberos 4 sealed its tickets.
    pub(super) fn pcbc_encrypt(&self, data: &mut [u8]) {
        let cipher = Des::new(&self.0.into());
        let mut chain = self.as_iv();
        for bytes in data.as_chunks_mut::<BLOCK>().0 {
            let plain = u64::from_be_bytes(*bytes);
            *bytes = (plain ^ chain).to_be_bytes();
            cipher.encrypt_block((&mut *bytes).into());
            chain = plain ^ u64::from_be_bytes(*bytes);
        }
    }

    /// The other way.
    pub(crate) fn pcbc_decrypt(&self, data: &mut [u8]) {
        let cipher = Des::new(&self.0.into());
        let mut chain = self.as_iv();
        for bytes in data.as_chunks_mut::<BLOCK>().0 {
            let sealed = u64::from_be_bytes(*bytes);
            cipher.decrypt_block((&mut *bytes).into());
            let plain = u64::from_be_bytes(*bytes) ^ chain;
            *bytes = plain.to_be_bytes();
            chain = plain ^ sealed;
        }
    }
}

/// The random bits of a triple-DES key: of each 8 bytes the first 7, with the bits of the eighth for their parity.
fn without_parity(key: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let (blocks, rest) = key.as_chunks::<BLOCK>();
    if !rest.is_empty() {
        return Err(KeyError::Length { len: key.len(), wanted: 3 * BLOCK });
    }
    let mut bits = Zeroizing::new(Vec::with_capacity(key.len()));
    for block in blocks {
        for (at, byte) in block[..BLOCK - 1].iter().enumerate() {
            bits.push(byte & 0xfe | block[BLOCK - 1] >> (at + 1) & 1);
        }
    }
    Ok(bits)
}

impl std::fmt::Debug for DesKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DesKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weak_keys_are_refused_whatever_their_parity() {
        assert_eq!(DesKey::new([1; 8]), Err(KeyError::Weak));
        assert_eq!(DesKey::new([0; 8]), Err(KeyError::Weak));
        assert_eq!(DesKey::new([0xfe; 8]), Err(KeyError::Weak));
        assert!(DesKey::new([2; 8]).is_ok());
    }

    #[test]
    fn random_keys_have_odd_parity_and_differ() {
        let (a, b) = (DesKey::random().unwrap(), DesKey::random().unwrap());
        assert_ne!(a, b);
        assert!(a.0.iter().all(|byte| byte.count_ones() % 2 == 1));
    }

    #[test]
    fn des_in_pcbc_comes_back_and_is_des() {
        let key = DesKey::new(*b"\x13\x34\x57\x79\x9b\xbc\xdf\xf1").unwrap();
        // The first block of PCBC is DES of the block mixed with the vector: the textbook's vector of FIPS 46.
        let mut data = (0x0123_4567_89ab_cdef_u64 ^ key.as_iv()).to_be_bytes().to_vec();
        data.extend(*b"another.");
        let plain = data.clone();
        key.pcbc_encrypt(&mut data);
        assert_eq!(data[..8], 0x85e8_1354_0f0a_b405_u64.to_be_bytes());
        key.pcbc_decrypt(&mut data);
        assert_eq!(data, plain);
    }

    /// HMAC-MD5(key, 01 "rxkad" 00 00000040), computed by another implementation, with parity put right.
    #[test]
    fn session_keys_are_derived_as_the_draft_says() {
        let key: Vec<u8> = (0..32).collect();
        let derived = DesKey::of_session(18, &key).unwrap();
        assert_eq!(derived.0, KDF_OF_0_TO_31);
        assert_eq!(DesKey::of_session(1, b"\x13\x34\x57\x79\x9b\xbc\xdf\xf1").unwrap().0[0], 0x13);
        assert_eq!(DesKey::of_session(18, &[1; 6]), Err(KeyError::Length { len: 6, wanted: 7 }));
        assert_eq!(DesKey::of_session(0, &key), Err(KeyError::Enctype { enctype: 0 }));
    }

    #[test]
    fn a_triple_des_key_loses_its_parity_first() {
        // The eighth byte's bits 1 to 7 go to the lowest bits of the seven before it.
        let key =
            [[0, 0, 0, 0, 0, 0, 0, 0b0000_0010], [0xff; 8], [0, 0, 0, 0, 0, 0, 0, 0b1000_0000]].concat();
        let bits = without_parity(&key).unwrap();
        let expected = [&[1, 0, 0, 0, 0, 0, 0][..], &[0xff; 7], &[0, 0, 0, 0, 0, 0, 1]].concat();
        assert_eq!(*bits, expected);
        assert!(without_parity(&[0; 23]).is_err());
    }

    #[test]
    fn debug_does_not_tell_the_key() {
        let key = DesKey::new(*b"secret!!").unwrap();
        assert_eq!(format!("{key:?}"), "DesKey(..)");
    }

    const KDF_OF_0_TO_31: [u8; 8] = [0xb6, 0x0d, 0xb5, 0xe3, 0x0b, 0x26, 0x6b, 0x16];
}
