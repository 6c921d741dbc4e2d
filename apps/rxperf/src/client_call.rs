//! The client's side of one call: gives the request as there is room, verifies the reply as it comes. Holds no payload.

use crate::payload::{Digest, Pattern};
use crate::protocol::{COOKIE, Op, TRAILER_LEN, Work};
use arrayvec::ArrayVec;

/// What the payload of replies must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verify {
    /// What our server makes of the request: see the crate's head.
    #[default]
    Digest,
    /// Zeros, as OpenAFS's and Linux's servers send.
    Zeros,
}

/// One call at the client.
#[derive(Clone, Debug)]
pub struct ClientCall {
    work: Work,
    head: ArrayVec<u8, 32>,
    payload: Pattern,
    /// Request bytes given away.
    given: u64,
    /// Digest of the request as far as it has been given away, without the trailer.
    digest: Digest,
    verify: Verify,
    /// Reply bytes taken.
    taken: u64,
}

impl ClientCall {
    /// A call of which nothing has been sent yet. The payload of its request is drawn from `seed`.
    pub fn new(work: Work, verify: Verify, seed: u64) -> Self {
        let payload = Pattern::new(seed);
        Self { work, head: work.head(), payload, given: 0, digest: Digest::new(), verify, taken: 0 }
    }

    /// What it does.
    pub fn work(&self) -> &Work {
        &self.work
    }

    fn payload_end(&self) -> u64 {
        self.head.len() as u64 + self.work.sends()
    }

    /// Request bytes not given yet.
    pub fn request_left(&self) -> u64 {
        let trailer = if self.work.linux_trailer { TRAILER_LEN } else { 0 };
        self.payload_end() + trailer as u64 - self.given
    }

    /// Copies the next bytes of the request to `out` and returns how many; [`ClientCall::advance`] moves on.
    pub fn peek(&self, out: &mut [u8]) -> usize {
        let len = usize::try_from(self.request_left()).map_or(out.len(), |left| left.min(out.len()));
        let head = self.head.get(self.given as usize..).unwrap_or(&[]);
        let (start, rest) = out[..len].split_at_mut(head.len().min(len));
        start.copy_from_slice(&head[..start.len()]);
        let at = self.given + start.len() as u64;
        let payload = self.payload_end().saturating_sub(at).min(rest.len() as u64) as usize;
        let (payload, trailer) = rest.split_at_mut(payload);
        self.payload.fill(at.saturating_sub(self.head.len() as u64), payload);
        trailer.fill(0);
        len
    }

    /// Counts `bytes`, the first of those that the last [`ClientCall::peek`] copied, as given.
    pub fn advance(&mut self, bytes: &[u8]) {
        let digested = self.payload_end().saturating_sub(self.given).min(bytes.len() as u64) as usize;
        self.digest.update(&bytes[..digested]);
        self.given += bytes.len() as u64;
    }

    /// Takes the next bytes of the reply and verifies them.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), WrongReply> {
        let expected = self.work.receives();
        let payload = expected.saturating_sub(self.taken).min(bytes.len() as u64) as usize;
        let (payload, cookie) = bytes.split_at(payload);
        let wrong = match self.verify {
            Verify::Digest => Pattern::new(self.digest.value()).first_difference(self.taken, payload),
            Verify::Zeros => payload.iter().position(|&byte| byte != 0),
        };
        if let Some(index) = wrong {
            return Err(WrongReply::Byte { position: self.taken + index as u64, found: payload[index] });
        }
        self.taken += payload.len() as u64;
        if !cookie.is_empty() {
            let from = (self.taken - expected) as usize;
            let part =
                self.cookie().get(from..from + cookie.len()).ok_or(WrongReply::TooLong { expected })?;
            if part != cookie {
                return Err(WrongReply::Cookie);
            }
            self.taken += cookie.len() as u64;
        }
        Ok(())
    }

    /// The reply is over.
    pub fn finish(&self) -> Result<(), WrongReply> {
        let expected = self.work.receives() + self.cookie().len() as u64;
        if self.taken == expected { Ok(()) } else { Err(WrongReply::TooShort { expected, came: self.taken }) }
    }

    fn cookie(&self) -> &'static [u8] {
        const BYTES: [u8; 4] = COOKIE.to_be_bytes();
        if self.work.op == Op::File { &[] } else { &BYTES }
    }
}

/// What is wrong with a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WrongReply {
    /// A byte of the payload.
    #[error(
        "byte {position} of the reply is {found:#04x} and should not be; if the server is not rxline's, its replies are zeros: --verify zeros"
    )]
    Byte {
        /// Which, from 0.
        position: u64,
        /// What it is.
        found: u8,
    },
    /// The cookie behind the payload.
    #[error("the reply does not end with the cookie {COOKIE:#x}")]
    Cookie,
    /// Bytes after the end.
    #[error("the reply goes on after {expected} bytes and a cookie")]
    TooLong {
        /// Payload there should be.
        expected: u64,
    },
    /// An end before the end.
    #[error("the reply ended after {came} of {expected} bytes")]
    TooShort {
        /// Bytes there should be, cookie included.
        expected: u64,
        /// Bytes there were.
        came: u64,
    },
}
