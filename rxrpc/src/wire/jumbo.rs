//! Jumbograms: several DATA packets of one call in one datagram.
//!
//! `[header, JUMBO][1412 bytes][flags u8, spare u8, checksum u16][1412 bytes]...`: every sub-packet but the last has
//! exactly 1412 bytes, and seq and serial go up by one with each.

use super::{Flags, Header};
use arrayvec::ArrayVec;

/// Payload of every sub-packet but the last, in bytes.
pub const JUMBO_PAYLOAD_LEN: usize = 1412;
/// Length of the header between two sub-packets.
pub const JUMBO_HEADER_LEN: usize = 4;
/// The most sub-packets that fit into one UDP datagram.
pub const MAX_SUB_PACKETS: usize = 47;

/// What stands between two sub-packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JumboHeader {
    /// Flags of the sub-packet that follows.
    pub flags: Flags,
    /// Its checksum.
    pub checksum: u16,
}

impl JumboHeader {
    /// Reads it.
    pub const fn from_bytes(b: [u8; JUMBO_HEADER_LEN]) -> Self {
        Self { flags: Flags(b[0]), checksum: u16::from_be_bytes([b[2], b[3]]) }
    }
    /// Its bytes.
    pub const fn to_bytes(&self) -> [u8; JUMBO_HEADER_LEN] {
        let checksum = self.checksum.to_be_bytes();
        [self.flags.0, 0, checksum[0], checksum[1]]
    }
}

/// One DATA packet of a datagram, and where its payload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubPacket {
    /// Sequence number.
    pub seq: u32,
    /// Serial number.
    pub serial: u32,
    /// Its own flags; JUMBO means that another follows it.
    pub flags: Flags,
    /// Its own checksum.
    pub checksum: u16,
    /// Offset of the payload from the end of the Rx header.
    pub offset: usize,
    /// Length of the payload.
    pub len: usize,
}

/// What [`split`] found.
pub type SubPackets = ArrayVec<SubPacket, MAX_SUB_PACKETS>;

/// Takes the body of a DATA packet (`len` bytes behind `header`) apart; one without JUMBO comes back as one. A
/// jumbogram that is wrong anywhere is refused as a whole. The body need not be contiguous: `read` is asked only for
/// the four bytes of a jumbo header, at offsets with `offset + 4 <= len`.
pub fn split(
    header: &Header,
    len: usize,
    mut read: impl FnMut(usize) -> [u8; JUMBO_HEADER_LEN],
) -> Result<SubPackets, JumboError> {
    let mut packets = SubPackets::new();
    let mut next = SubPacket {
        seq: header.seq,
        serial: header.serial,
        flags: header.flags,
        checksum: header.checksum,
        offset: 0,
        len,
    };
    while next.flags.contains(Flags::JUMBO) {
        let after = next.offset + JUMBO_PAYLOAD_LEN;
        if after + JUMBO_HEADER_LEN > len {
            return Err(JumboError::Truncated { offset: next.offset, left: len - next.offset });
        }
        if next.flags.contains(Flags::LAST) {
            return Err(JumboError::LastInTheMiddle { seq: next.seq });
        }
        packets
            .try_push(SubPacket { len: JUMBO_PAYLOAD_LEN, ..next })
            .map_err(|_| JumboError::TooMany { len })?;
        let jumbo = JumboHeader::from_bytes(read(after));
        let offset = after + JUMBO_HEADER_LEN;
        next = SubPacket {
            seq: next.seq.wrapping_add(1),
            serial: next.serial.wrapping_add(1),
            flags: jumbo.flags,
            checksum: jumbo.checksum,
            offset,
            len: len - offset,
        };
    }
    if next.offset > 0 && next.len > JUMBO_PAYLOAD_LEN {
        return Err(JumboError::TailTooLong { len: next.len });
    }
    packets.try_push(next).map_err(|_| JumboError::TooMany { len })?;
    Ok(packets)
}

/// Why a jumbogram was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JumboError {
    /// A sub-packet says that another follows, and the datagram ends before it.
    #[error("a jumbogram ends within the sub-packet at byte {offset}: {left} bytes are left")]
    Truncated {
        /// Where the sub-packet starts, from the end of the Rx header.
        offset: usize,
        /// Bytes from there to the end.
        left: usize,
    },
    /// The last sub-packet is longer than a sub-packet can be.
    #[error("the last sub-packet of a jumbogram has {len} bytes, more than {JUMBO_PAYLOAD_LEN}")]
    TailTooLong {
        /// Its length.
        len: usize,
    },
    /// A sub-packet is the last of the call and says that another follows.
    #[error("sub-packet {seq} of a jumbogram is the call's last, yet another follows")]
    LastInTheMiddle {
        /// Its sequence number.
        seq: u32,
    },
    /// More sub-packets than a UDP datagram can hold.
    #[error("a jumbogram of {len} bytes holds more than {MAX_SUB_PACKETS} packets")]
    TooMany {
        /// Length of the body.
        len: usize,
    },
}
