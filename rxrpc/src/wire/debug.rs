//! The DEBUG protocol, which `rxdebug` speaks: one request, one reply, no call.
//!
//! A request is a DEBUG packet with CLIENT_INITIATED, a request number in the call field and a [`DebugRequest`] as its
//! body. The reply carries the same header without CLIENT_INITIATED and one record of the kind asked for, laid out as
//! OpenAFS's layout version `S` does it. Connections and peers are asked for by index, from 0 until the answer is "no
//! more"; nothing is locked in between, so that a list may skip or repeat an entry.
//!
//! Deliberately absent: the unaligned connection record of version `L` (before OpenAFS 1.0), and IPv6: a record holds
//! an IPv4 address, and who answers shows an IPv6 peer as 0.0.0.0.
//!
//! Source: OpenAFS doc/txt/rx-debug.txt.

mod conn;
mod peer;
mod stats;

pub use conn::{CallMode, CallState, Connection, SecurityStats};
pub use peer::Peer;
pub use stats::{PACKET_TYPE_NAMES, RxStatistics, Stats, Time};

use super::fields::{self, Field};
use super::{Header, NoRoom, PacketType};
pub use fields::Spare;

/// The layout version that we write: OpenAFS 1.6 and later.
pub const LAYOUT_VERSION: u8 = b'S';
/// The oldest layout version that we read.
pub const LAYOUT_VERSION_MIN: u8 = b'M';
/// The longest body of a reply, in bytes.
pub const REPLY_LEN_MAX: usize = RxStatistics::LEN;

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum DebugKind {
    /// [`Stats`]; the index is 0.
    Stats = 1,
    /// The connection with this index among those that are in use.
    Connection = 2,
    /// The connection with this index among all.
    AnyConnection = 3,
    /// [`RxStatistics`]; the index is 0.
    RxStatistics = 4,
    /// The peer with this index.
    Peer = 5,
}

impl DebugKind {
    /// The kind with this number, if there is one.
    pub const fn from_u32(number: u32) -> Option<Self> {
        Some(match number {
            1 => Self::Stats,
            2 => Self::Connection,
            3 => Self::AnyConnection,
            4 => Self::RxStatistics,
            5 => Self::Peer,
            _ => return None,
        })
    }
}

/// The body of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DebugRequest {
    /// What is wanted, or the number of a kind that nobody has defined; that is answered with
    /// [`DebugReply::UnknownKind`].
    pub kind: Result<DebugKind, u32>,
    /// Which record of that kind, from 0.
    pub index: u32,
}

impl DebugRequest {
    /// Length of the body in bytes.
    pub const LEN: usize = 8;

    /// Asks for one record.
    pub const fn new(kind: DebugKind, index: u32) -> Self {
        Self { kind: Ok(kind), index }
    }

    /// Reads the body of a request.
    pub fn parse(body: &[u8]) -> Result<Self, DebugError> {
        let [number, index] = take("request", body)?;
        Ok(Self { kind: DebugKind::from_u32(number).ok_or(number), index })
    }

    /// The body's bytes.
    pub fn to_bytes(&self) -> [u8; Self::LEN] {
        let number = self.kind.map_or_else(|number| number, |kind| kind as u32);
        let mut bytes = [0; Self::LEN];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        bytes[4..].copy_from_slice(&self.index.to_be_bytes());
        bytes
    }

    /// The header of a request with this number, as OpenAFS's rxdebug sends it.
    pub const fn header(packet_type: PacketType, number: u32) -> Header {
        let flags = super::Flags::CLIENT_INITIATED.with(super::Flags::LAST);
        Header { epoch: 999, call: number, flags, ..Header::new(packet_type) }
    }
}

/// The body of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DebugReply {
    /// Basic figures.
    Stats(Stats),
    /// One connection.
    Connection(Connection),
    /// No connection has this index or a higher one.
    NoConnection,
    /// All counters.
    RxStatistics(RxStatistics),
    /// One peer.
    Peer(Peer),
    /// No peer has this index or a higher one.
    NoPeer,
    /// The answering side does not know the kind asked for.
    UnknownKind,
}

/// Ends a list: a cid or a host that cannot be.
const NO_MORE: u32 = u32::MAX;
/// In both words of the reply to a kind that is unknown.
const UNKNOWN_KIND: i32 = -8;

impl DebugReply {
    /// Reads the reply to a request of this kind; the reply itself does not say which it answers.
    pub fn parse(kind: DebugKind, body: &[u8]) -> Result<Self, DebugError> {
        if body == [UNKNOWN_KIND.to_be_bytes(), UNKNOWN_KIND.to_be_bytes()].concat() {
            return Ok(Self::UnknownKind);
        }
        Ok(match kind {
            DebugKind::Stats => Self::Stats(Stats::parse(body)?),
            DebugKind::Connection | DebugKind::AnyConnection => match take::<Connection>("connection", body)?
            {
                end if end.cid == NO_MORE => Self::NoConnection,
                conn => Self::Connection(conn),
            },
            DebugKind::RxStatistics => Self::RxStatistics(RxStatistics::parse(body)?),
            DebugKind::Peer => match take::<Peer>("peer", body)? {
                end if end.host == std::net::Ipv4Addr::BROADCAST => Self::NoPeer,
                peer => Self::Peer(peer),
            },
        })
    }

    /// Bytes of the body on the wire.
    pub const fn encoded_len(&self) -> usize {
        match self {
            Self::Stats(_) => Stats::LEN,
            Self::Connection(_) | Self::NoConnection => Connection::LEN,
            Self::RxStatistics(_) => RxStatistics::LEN,
            Self::Peer(_) | Self::NoPeer => Peer::LEN,
            Self::UnknownKind => 2 * i32::LEN,
        }
    }

    /// Writes the body at the start of `out` and returns its length.
    pub fn encode(&self, out: &mut [u8]) -> Result<usize, NoRoom> {
        match self {
            Self::Stats(stats) => fields::encode(stats, out),
            Self::Connection(conn) => fields::encode(conn, out),
            Self::NoConnection => fields::encode(&Connection { cid: NO_MORE, ..Connection::default() }, out),
            Self::RxStatistics(stats) => fields::encode(stats, out),
            Self::Peer(peer) => fields::encode(peer, out),
            Self::NoPeer => {
                fields::encode(&Peer { host: std::net::Ipv4Addr::BROADCAST, ..Peer::default() }, out)
            }
            Self::UnknownKind => fields::encode(&[UNKNOWN_KIND; 2], out),
        }
    }
}

fn take<F: Field>(what: &'static str, mut body: &[u8]) -> Result<F, DebugError> {
    let len = body.len();
    F::take(&mut body).ok_or(DebugError::TooShort { what, len, needed: F::LEN })
}

/// Why a DEBUG body cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DebugError {
    /// It ends too early.
    #[error("a DEBUG {what} has {needed} bytes, and {len} came")]
    TooShort {
        /// Which record.
        what: &'static str,
        /// Bytes there were.
        len: usize,
        /// Bytes there must be.
        needed: usize,
    },
    /// A layout from before OpenAFS.
    #[error("DEBUG layout version {version:?} is older than {:?}", LAYOUT_VERSION_MIN as char)]
    TooOld {
        /// The peer's version.
        version: char,
    },
}
