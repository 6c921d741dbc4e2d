//! The server's side of one call: takes the request as it comes, gives the reply as there is room. Holds no payload.

use crate::payload::{Digest, Pattern};
use crate::protocol::{COOKIE, Op, Refusal, TRAILER_LEN, VERSION};

/// One call at the server.
#[derive(Clone, Debug)]
pub struct ServerCall {
    wants: Wants,
    /// A word of the request that has not come whole; `held` bytes of it are there.
    word: [u8; 4],
    held: usize,
    digest: Digest,
    op: Op,
    /// Reply payload asked for, in bytes.
    reply: u64,
    /// Reply bytes given away.
    given: u64,
}

/// What the next bytes of the request are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wants {
    Version,
    Operation,
    /// The sizes of the client's buffers; so many are left.
    BufferSizes(u8),
    /// n of SEND, RPC.
    RequestBytes,
    /// n of RECV, m of RPC, with the request's payload that follows.
    ReplyBytes(u64),
    /// k of FILE.
    FileCount,
    /// FILE's list: entries left, request's payload so far, and whether the direction has turned.
    FileList {
        left: u32,
        request: u64,
        to_client: bool,
    },
    Payload(u64),
    /// Nothing, or four bytes of Linux's kind: so many have come.
    Trailer(usize),
    /// The request is over: the reply is being given.
    Replying,
}

impl Default for ServerCall {
    fn default() -> Self {
        Self::new()
    }
}

impl ServerCall {
    /// A call of which nothing has come yet.
    pub const fn new() -> Self {
        Self {
            wants: Wants::Version,
            word: [0; 4],
            held: 0,
            digest: Digest::new(),
            op: Op::Send,
            reply: 0,
            given: 0,
        }
    }

    /// Takes the next bytes of the request.
    pub fn feed(&mut self, mut bytes: &[u8]) -> Result<(), Refusal> {
        while !bytes.is_empty() {
            bytes = match self.wants {
                Wants::Payload(left) => {
                    let here = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
                    self.digest.update(&bytes[..here]);
                    self.wants = after_payload(left - here as u64);
                    &bytes[here..]
                }
                Wants::Trailer(came) if came + bytes.len() <= TRAILER_LEN => {
                    self.wants = Wants::Trailer(came + bytes.len());
                    &[]
                }
                Wants::Trailer(_) | Wants::Replying => return Err(Refusal::Length),
                _ => self.feed_word(bytes)?,
            };
        }
        Ok(())
    }

    /// Takes bytes towards the next word of the request's head and returns the rest.
    fn feed_word<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], Refusal> {
        let (here, rest) = bytes.split_at(bytes.len().min(4 - self.held));
        self.word[self.held..self.held + here.len()].copy_from_slice(here);
        self.held += here.len();
        if self.held == 4 {
            self.held = 0;
            self.digest.update(&self.word);
            self.wants = self.after_word(u32::from_be_bytes(self.word))?;
        }
        Ok(rest)
    }

    fn after_word(&mut self, word: u32) -> Result<Wants, Refusal> {
        Ok(match self.wants {
            Wants::Version if word == VERSION => Wants::Operation,
            Wants::Version => return Err(Refusal::Version { version: word }),
            Wants::Operation => {
                self.op = Op::from_u32(word).ok_or(Refusal::Op { op: word })?;
                Wants::BufferSizes(2)
            }
            Wants::BufferSizes(2) => Wants::BufferSizes(1),
            Wants::BufferSizes(_) => match self.op {
                Op::Send | Op::Rpc => Wants::RequestBytes,
                Op::Recv => Wants::ReplyBytes(0),
                Op::File => Wants::FileCount,
            },
            Wants::RequestBytes if self.op == Op::Rpc => Wants::ReplyBytes(u64::from(word)),
            Wants::RequestBytes => after_payload(u64::from(word)),
            Wants::ReplyBytes(request) => {
                self.reply = u64::from(word);
                after_payload(request)
            }
            Wants::FileCount => after_list(word, 0, false),
            Wants::FileList { left, request, to_client } => {
                let (left, bytes) = (left - 1, 4 * u64::from(word));
                match (word, to_client) {
                    (0, _) => after_list(left, request, !to_client),
                    (_, true) => {
                        self.reply = self.reply.saturating_add(bytes);
                        after_list(left, request, true)
                    }
                    (_, false) if self.reply > 0 => return Err(Refusal::Turns),
                    (_, false) => after_list(left, request.saturating_add(bytes), false),
                }
            }
            Wants::Payload(_) | Wants::Trailer(_) | Wants::Replying => unreachable!("no words there"),
        })
    }

    /// The request is over: from now on there is a reply.
    pub fn finish(&mut self) -> Result<(), Refusal> {
        match self.wants {
            Wants::Trailer(0 | TRAILER_LEN) => {
                self.wants = Wants::Replying;
                Ok(())
            }
            _ => Err(Refusal::Length),
        }
    }

    /// Whether the request is over.
    pub fn replies(&self) -> bool {
        self.wants == Wants::Replying
    }

    /// Reply bytes not given yet; 0 until the request is over.
    pub fn reply_left(&self) -> u64 {
        if self.replies() { self.reply.saturating_add(self.cookie().len() as u64) - self.given } else { 0 }
    }

    /// Copies the next bytes of the reply to `out` and returns how many; [`ServerCall::advance`] moves on.
    pub fn peek(&self, out: &mut [u8]) -> usize {
        let len = usize::try_from(self.reply_left()).map_or(out.len(), |left| left.min(out.len()));
        let payload =
            usize::try_from(self.reply.saturating_sub(self.given)).map_or(len, |left| left.min(len));
        let (payload, cookie) = out[..len].split_at_mut(payload);
        Pattern::new(self.digest.value()).fill(self.given, payload);
        let from = self.given.saturating_sub(self.reply) as usize;
        cookie.copy_from_slice(&self.cookie()[from..from + cookie.len()]);
        len
    }

    /// Counts `bytes` of the reply, at most [`ServerCall::reply_left`], as given.
    pub fn advance(&mut self, bytes: usize) {
        debug_assert!(bytes as u64 <= self.reply_left());
        self.given += bytes as u64;
    }

    /// What follows the payload.
    fn cookie(&self) -> &'static [u8] {
        const BYTES: [u8; 4] = COOKIE.to_be_bytes();
        if self.op == Op::File { &[] } else { &BYTES }
    }
}

const fn after_payload(left: u64) -> Wants {
    if left == 0 { Wants::Trailer(0) } else { Wants::Payload(left) }
}

const fn after_list(left: u32, request: u64, to_client: bool) -> Wants {
    if left == 0 { after_payload(request) } else { Wants::FileList { left, request, to_client } }
}
