//! The rxperf protocol: what a request says.
//!
//! A request starts with four u32: version 3, operation, and the sizes of the buffers its sender uses for reading and
//! writing, which matter to nobody else. Then, by operation, all big-endian and without padding:
//!
//! | operation | request | reply |
//! |---|---|---|
//! | SEND 0 | n, n bytes | cookie |
//! | RECV 1 | n | n bytes, cookie |
//! | RPC 3 | n, m, n bytes | m bytes, cookie |
//! | FILE 4 | k, k counts of words, bytes | bytes |
//!
//! FILE's counts are of four-byte words; a count of 0 turns the direction, which is to the server at first. As an Rx call
//! goes one way and then the other, one turn is all that works.
//!
//! Linux's server wants four more bytes behind the request's data; OpenAFS's client never sends them. Our server takes
//! both.

/// The port rxperf is found on.
pub const UDP_PORT: u16 = 7009;
/// Its Rx service id.
pub const SERVICE: u16 = 147;
/// The protocol's version.
pub const VERSION: u32 = 3;
/// Ends a reply.
pub const COOKIE: u32 = 0x4711;
/// The buffer size that our client names: the largest that OpenAFS's server accepts.
pub const BUFFER_LEN: u32 = 512 * 1024;
/// The bytes behind a request that Linux's server wants.
pub const TRAILER_LEN: usize = 4;

/// An operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Op {
    /// The client sends bytes.
    Send = 0,
    /// The client receives bytes.
    Recv = 1,
    /// The client sends bytes, then receives others.
    Rpc = 3,
    /// The same, in words, by a list (OpenAFS only).
    File = 4,
}

impl Op {
    /// The operation with this number, if there is one.
    pub const fn from_u32(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::Send,
            1 => Self::Recv,
            3 => Self::Rpc,
            4 => Self::File,
            _ => return None,
        })
    }
}

/// What a call does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    /// How.
    pub op: Op,
    /// Bytes to the server; none with RECV.
    pub request_bytes: u32,
    /// Bytes from the server; none with SEND.
    pub reply_bytes: u32,
    /// Add the four bytes that Linux's server wants.
    pub linux_trailer: bool,
}

impl Work {
    /// An RPC with so many bytes each way.
    pub const fn rpc(request_bytes: u32, reply_bytes: u32) -> Self {
        Self { op: Op::Rpc, request_bytes, reply_bytes, linux_trailer: false }
    }

    /// Payload to the server that this operation really has. FILE counts words and rounds up.
    pub const fn sends(&self) -> u64 {
        match self.op {
            Op::Recv => 0,
            Op::Send | Op::Rpc => self.request_bytes as u64,
            Op::File => (self.request_bytes as u64).next_multiple_of(4),
        }
    }

    /// Payload from the server that this operation really has.
    pub const fn receives(&self) -> u64 {
        match self.op {
            Op::Send => 0,
            Op::Recv | Op::Rpc => self.reply_bytes as u64,
            Op::File => (self.reply_bytes as u64).next_multiple_of(4),
        }
    }

    /// The request up to its payload.
    pub fn head(&self) -> arrayvec::ArrayVec<u8, 32> {
        let words: &[u32] = match self.op {
            Op::Send => &[self.request_bytes],
            Op::Recv => &[self.reply_bytes],
            Op::Rpc => &[self.request_bytes, self.reply_bytes],
            // A count of 0 is no transfer but a turn: a request of no bytes has no count.
            Op::File if self.request_bytes == 0 => &[2, 0, self.reply_bytes.div_ceil(4)],
            Op::File => &[3, self.request_bytes.div_ceil(4), 0, self.reply_bytes.div_ceil(4)],
        };
        let fixed = [VERSION, self.op as u32, BUFFER_LEN, BUFFER_LEN];
        fixed.iter().chain(words).flat_map(|word| word.to_be_bytes()).collect()
    }
}

/// Why the server refuses a request. Each has the abort code that Linux's or OpenAFS's server sends for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Another version of the protocol.
    #[error("rxperf version {version}, not {VERSION}")]
    Version {
        /// The client's.
        version: u32,
    },
    /// An operation that does not exist.
    #[error("rxperf operation {op} does not exist")]
    Op {
        /// Its number.
        op: u32,
    },
    /// More or fewer bytes than announced.
    #[error("an rxperf request of another length than it announced")]
    Length,
    /// A FILE list that turns back to the server after the reply has begun.
    #[error("an rxperf FILE list that turns more than once")]
    Turns,
}

impl Refusal {
    /// The code to abort the call with.
    pub const fn abort_code(self) -> i32 {
        match self {
            Self::Version { .. } => -6,
            Self::Op { .. } => -455,
            Self::Length | Self::Turns => -453,
        }
    }
}
