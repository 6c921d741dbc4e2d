//! What a session key does to DATA packets: the checksum of each, and its body by level.

use super::fcrypt::{BLOCK, Fcrypt};
use super::{DesKey, LANES, Level, code};
use crate::security::Sealing;
use crate::wire::{Cid, Header};

/// A connection's packets are sealed and opened with this, whichever side sent them.
pub struct Session {
    cipher: Fcrypt,
    /// The key again, as the vector that a body's chain begins with.
    key: DesKey,
    /// What the checksums of this connection begin with: no other connection has it.
    checksum_iv: u64,
    level: Level,
}

impl Session {
    /// For the connection with this epoch and id.
    pub fn new(key: &DesKey, level: Level, epoch: u32, cid: Cid) -> Self {
        let cipher = Fcrypt::new(key.bytes());
        let mut block = [0; 2 * BLOCK];
        block[..4].copy_from_slice(&epoch.to_be_bytes());
        block[4..8].copy_from_slice(&cid.connection().0.to_be_bytes());
        block[12..].copy_from_slice(&u32::from(super::INDEX).to_be_bytes());
        cipher.pcbc_encrypt(key.as_iv(), &mut block);
        let checksum_iv = u64::from_be_bytes(*block.last_chunk().expect("two blocks"));
        Self { cipher, key: key.clone(), checksum_iv, level }
    }

    pub fn level(&self) -> Level {
        self.level
    }

    pub fn set_level(&mut self, level: Level) {
        self.level = level;
    }

    /// A packet's checksum: over where it belongs, not over its body. Never zero.
    pub fn checksum(&self, header: &Header) -> u16 {
        let place = (header.cid.channel() as u32) << 30 | header.seq & 0x3fff_ffff;
        let block = u64::from(header.call) << 32 | u64::from(place);
        let sealed = self.cipher.encrypt(block ^ self.checksum_iv);
        ((sealed >> 16) as u16).max(1)
    }

    /// Seals packets in place and sets their headers' checksums; encrypts [`LANES`] at a time.
    pub fn seal(&self, packets: &mut [Sealing<'_>]) {
        for packet in &mut *packets {
            self.frame(packet);
        }
        match self.level {
            Level::Clear => {}
            Level::Auth => {
                packets.iter_mut().for_each(|packet| self.cipher.pcbc_encrypt(0, &mut packet.body[..BLOCK]));
            }
            Level::Encrypt => packets.chunks_mut(LANES).for_each(|packets| self.encrypt(packets)),
        }
    }

    /// What is in a body before it is encrypted.
    fn frame(&self, Sealing { header, body, len }: &mut Sealing<'_>) {
        header.checksum = self.checksum(header);
        let overhead = self.level.header_len();
        if overhead == 0 {
            return;
        }
        debug_assert_eq!(body.len(), self.level.sealed_len(*len));
        body[..overhead].fill(0);
        // Padding: the buffer may have held another call's bytes.
        body[overhead + *len..].fill(0);
        body[..4].copy_from_slice(&(check(header) << 16 | *len as u32).to_be_bytes());
    }

    fn encrypt(&self, packets: &mut [Sealing<'_>]) {
        let (cipher, iv) = (&self.cipher, self.key.as_iv());
        match packets {
            [a, b, c, d] => {
                cipher.pcbc_encrypt_each(iv, [&mut *a.body, &mut *b.body, &mut *c.body, &mut *d.body])
            }
            [a, b, c] => cipher.pcbc_encrypt_each(iv, [&mut *a.body, &mut *b.body, &mut *c.body]),
            [a, b] => cipher.pcbc_encrypt_each(iv, [&mut *a.body, &mut *b.body]),
            alone => alone.iter_mut().for_each(|packet| cipher.pcbc_encrypt(iv, packet.body)),
        }
    }

    /// Opens a body in place. Returns where in it the payload is. The error is an abort code.
    pub fn open(&self, header: &Header, body: &mut [u8]) -> Result<std::ops::Range<usize>, i32> {
        if self.checksum(header) != header.checksum {
            return Err(code::SEALED_INCONSISTENT);
        }
        let sealed = match self.level {
            Level::Clear => return Ok(0..body.len()),
            Level::Auth => BLOCK,
            // Some peers pad to their packets' size, beyond whole blocks.
            Level::Encrypt => body.len() / BLOCK * BLOCK,
        };
        if body.len() < BLOCK {
            return Err(code::SEALED_INCONSISTENT);
        }
        match self.level {
            Level::Encrypt => self.cipher.pcbc_decrypt(self.key.as_iv(), &mut body[..sealed]),
            _ => self.cipher.pcbc_decrypt(0, &mut body[..sealed]),
        }
        let word = u32::from_be_bytes(*body.first_chunk().expect("a block at least"));
        if word >> 16 != check(header) {
            return Err(code::SEALED_INCONSISTENT);
        }
        let (start, len) = (self.level.header_len(), (word & 0xffff) as usize);
        let room = if self.level == Level::Encrypt { sealed } else { body.len() } - start;
        if len > room {
            return Err(code::DATA_LEN);
        }
        Ok(start..start + len)
    }

    /// Encrypts the part of a RESPONSE that proves possession of the key.
    pub fn seal_proof(&self, proof: &mut [u8]) {
        self.cipher.pcbc_encrypt(self.key.as_iv(), proof);
    }

    /// The other way.
    pub fn open_proof(&self, proof: &mut [u8]) {
        self.cipher.pcbc_decrypt(self.key.as_iv(), proof);
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("level", &self.level).finish_non_exhaustive()
    }
}

/// The check bits that a body repeats of its header.
fn check(header: &Header) -> u32 {
    (header.seq ^ header.call) & 0xffff
}
