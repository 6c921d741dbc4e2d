//! The Rx wire formats: every packet type as plain values over bytes.
//!
//! Everything here is pure: bytes in, values out, and back. Nothing allocates on the paths that carry calls, and no
//! input can cause a panic: lengths are checked once, by `parse`, and each way of being wrong has a name. All integers
//! are big-endian; every field that the protocol does not use is written as zero.
//!
//! Deliberately absent: what packets *mean*. Sequence windows, which flags a peer may set and when, clamping of the
//! figures a peer advertises: that is the endpoint's. CHALLENGE and RESPONSE bodies belong to their security class and
//! are opaque here.
//!
//! Sources: OpenAFS doc/txt/rx-spec.txt and rx-debug.txt, Linux Documentation/networking/rxrpc.rst, and the packets of
//! real peers in `golden.rs`.

mod ack;
mod control;
pub mod debug;
mod fields;
mod header;
mod jumbo;

#[cfg(test)]
mod golden;
#[cfg(test)]
mod tests;

pub use ack::{ACK_MAX_SLOTS, Ack, AckError, AckReason, AckTrailer};
pub use control::{Abort, AbortError, VERSION_LEN, encode_version, parse_version};
pub use header::{Cid, Flags, HEADER_LEN, Header, HeaderError, PacketType};
pub use jumbo::{
    JUMBO_HEADER_LEN, JUMBO_PAYLOAD_LEN, JumboError, JumboHeader, MAX_SUB_PACKETS, SubPacket, SubPackets,
    split,
};

/// The output slice is too short for what was to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{needed} bytes do not fit into the {room} bytes given")]
pub struct NoRoom {
    /// Bytes that the value takes on the wire.
    pub needed: usize,
    /// Bytes that the caller offered.
    pub room: usize,
}
