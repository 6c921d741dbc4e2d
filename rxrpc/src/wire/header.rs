//! The 28-byte header that every Rx packet starts with.

use super::NoRoom;

/// Length of the Rx header in bytes.
pub const HEADER_LEN: usize = 28;

/// What a packet is. The numbers are the wire's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PacketType {
    /// Payload of a call, or a jumbogram of several.
    Data = 1,
    /// Acknowledgement; see [`super::Ack`].
    Ack = 2,
    /// The server has no room for a new call.
    Busy = 3,
    /// A call (or, with call number 0, a connection) ended with a code.
    Abort = 4,
    /// Everything sent so far on the call is acknowledged.
    AckAll = 5,
    /// A server asks a client to prove who it is. Opaque here.
    Challenge = 6,
    /// The proof. Opaque here.
    Response = 7,
    /// The rxdebug protocol; see [`super::debug`].
    Debug = 8,
    /// Reserved for an exchange of parameters; nobody sends it. Ignore.
    Params = 9,
    /// Reserved. Ignore.
    Params10 = 10,
    /// Reserved. Ignore.
    Params11 = 11,
    /// Asks for, or carries, a version string.
    Version = 13,
}

impl PacketType {
    /// The type with this number, if there is one.
    pub const fn from_u8(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Data,
            2 => Self::Ack,
            3 => Self::Busy,
            4 => Self::Abort,
            5 => Self::AckAll,
            6 => Self::Challenge,
            7 => Self::Response,
            8 => Self::Debug,
            9 => Self::Params,
            10 => Self::Params10,
            11 => Self::Params11,
            13 => Self::Version,
            _ => return None,
        })
    }
}

/// The flags byte. The bit 0x20 means two things, by packet type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flags(pub u8);

impl Flags {
    /// No flag.
    pub const NONE: Self = Self(0);
    /// Sent by the side that opened the connection.
    pub const CLIENT_INITIATED: Self = Self(0x01);
    /// The receiver should acknowledge at once.
    pub const REQUEST_ACK: Self = Self(0x02);
    /// The last packet of this direction of the call.
    pub const LAST: Self = Self(0x04);
    /// More packets follow this one right away.
    pub const MORE: Self = Self(0x08);
    /// On DATA: another sub-packet follows in this datagram.
    pub const JUMBO: Self = Self(0x20);
    /// On ACK: the sender of this ACK knows slow start.
    pub const SLOW_START_OK: Self = Self(0x20);

    /// Whether all bits of `other` are set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
    /// Both sets together.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
    /// This set less `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl std::ops::BitOr for Flags {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        self.with(other)
    }
}

/// A connection id with the channel (0 to 3) in its low two bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Cid(pub u32);

impl Cid {
    /// The bits that hold the channel.
    pub const CHANNEL_MASK: u32 = 3;

    /// The channel, 0 to 3.
    pub const fn channel(self) -> usize {
        (self.0 & Self::CHANNEL_MASK) as usize
    }
    /// The connection's id: this one with channel 0.
    #[must_use]
    pub const fn connection(self) -> Self {
        Self(self.0 & !Self::CHANNEL_MASK)
    }
    /// The same connection's id with another channel. Only the low two bits of `channel` count.
    #[must_use]
    pub const fn with_channel(self, channel: usize) -> Self {
        Self(self.connection().0 | (channel as u32 & Self::CHANNEL_MASK))
    }
}

/// The Rx header, in host order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// When the client started. The high bit means "accept me from any source address".
    pub epoch: u32,
    /// Connection and channel, chosen by the client.
    pub cid: Cid,
    /// Call number on the channel; 0 speaks of the whole connection.
    pub call: u32,
    /// Sequence number within the call and direction, from 1; 0 where it means nothing.
    pub seq: u32,
    /// Number of this transmission on the connection; a retransmission has a new one.
    pub serial: u32,
    /// What the packet is.
    pub packet_type: PacketType,
    /// See [`Flags`].
    pub flags: Flags,
    /// User status; 1 on a client's packets asks for a service upgrade (Linux).
    pub user_status: u8,
    /// Security class of the connection: 0 none, 2 rxkad, 4 rxgk, 6 yfs-rxgk.
    pub security_index: u8,
    /// Checksum or key number of the security class; zero without one.
    pub checksum: u16,
    /// The service called.
    pub service: u16,
}

impl Header {
    /// A header of this type with every other field zero.
    pub const fn new(packet_type: PacketType) -> Self {
        Self {
            epoch: 0,
            cid: Cid(0),
            call: 0,
            seq: 0,
            serial: 0,
            packet_type,
            flags: Flags::NONE,
            user_status: 0,
            security_index: 0,
            checksum: 0,
            service: 0,
        }
    }

    /// Reads the header at the start of a UDP payload and returns the body behind it.
    pub fn parse(packet: &[u8]) -> Result<(Self, &[u8]), HeaderError> {
        let (bytes, body) =
            packet.split_first_chunk::<HEADER_LEN>().ok_or(HeaderError::TooShort { len: packet.len() })?;
        Ok((Self::from_bytes(bytes)?, body))
    }

    /// Reads a header that is exactly there.
    #[inline]
    pub fn from_bytes(b: &[u8; HEADER_LEN]) -> Result<Self, HeaderError> {
        let word = |at: usize| u32::from_be_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]]);
        let packet_type = PacketType::from_u8(b[20]).ok_or(HeaderError::UnknownType { number: b[20] })?;
        Ok(Self {
            epoch: word(0),
            cid: Cid(word(4)),
            call: word(8),
            seq: word(12),
            serial: word(16),
            packet_type,
            flags: Flags(b[21]),
            user_status: b[22],
            security_index: b[23],
            checksum: u16::from_be_bytes([b[24], b[25]]),
            service: u16::from_be_bytes([b[26], b[27]]),
        })
    }

    /// The header's bytes.
    #[inline]
    pub fn to_bytes(&self) -> [u8; HEADER_LEN] {
        let mut b = [0; HEADER_LEN];
        b[0..4].copy_from_slice(&self.epoch.to_be_bytes());
        b[4..8].copy_from_slice(&self.cid.0.to_be_bytes());
        b[8..12].copy_from_slice(&self.call.to_be_bytes());
        b[12..16].copy_from_slice(&self.seq.to_be_bytes());
        b[16..20].copy_from_slice(&self.serial.to_be_bytes());
        b[20] = self.packet_type as u8;
        b[21] = self.flags.0;
        b[22] = self.user_status;
        b[23] = self.security_index;
        b[24..26].copy_from_slice(&self.checksum.to_be_bytes());
        b[26..28].copy_from_slice(&self.service.to_be_bytes());
        b
    }

    /// Writes the header at the start of `out` and returns its length.
    pub fn encode(&self, out: &mut [u8]) -> Result<usize, NoRoom> {
        let room = out.len();
        let start = out.first_chunk_mut().ok_or(NoRoom { needed: HEADER_LEN, room })?;
        *start = self.to_bytes();
        Ok(HEADER_LEN)
    }

    /// Whether the packet comes from the side that opened the connection.
    pub const fn from_client(&self) -> bool {
        self.flags.contains(Flags::CLIENT_INITIATED)
    }

    /// The header of the answer to a VERSION or DEBUG request: the request's own, without CLIENT_INITIATED. `None` for
    /// what must not be answered, since answers to answers never end.
    pub fn probe_reply(&self) -> Option<Self> {
        let probe = matches!(self.packet_type, PacketType::Version | PacketType::Debug);
        (probe && self.from_client())
            .then(|| Self { flags: self.flags.without(Flags::CLIENT_INITIATED), ..*self })
    }
}

/// Why a packet has no readable header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Shorter than a header.
    #[error("{len} bytes are no Rx packet: the header alone has {HEADER_LEN}")]
    TooShort {
        /// Bytes there were.
        len: usize,
    },
    /// A type that nobody has defined.
    #[error("Rx packet type {number} does not exist")]
    UnknownType {
        /// The number in the header.
        number: u8,
    },
}
