//! ACK packets: what arrived, what may be sent.
//!
//! Body: bufferSpace u16, maxSkew u16, firstPacket u32, previousPacket u32, serial u32, reason u8, nAcks u8,
//! acks[nAcks], three bytes of padding, then up to four u32: maxMTU, ifMTU, rwind, jumbo_max. Old peers end earlier, and
//! path-MTU probes go on with zeros, so each trailer word is optional and what follows them is ignored.
//!
//! The figures are the peer's claims. Who uses them validates and clamps them: firstPacket and nAcks against the window
//! that was really sent, MTUs and windows to sane ranges. `previous` is only a hint; some peers put a serial there.

use super::NoRoom;

/// The most packets one ACK can speak of: nAcks is a byte.
pub const ACK_MAX_SLOTS: usize = 255;

/// Bytes before the slots.
const FIXED_LEN: usize = 18;
/// Padding between the slots and the trailer.
const PAD_LEN: usize = 3;

/// Why an ACK was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AckReason {
    /// A packet asked for it.
    Requested,
    /// A packet came twice.
    Duplicate,
    /// A packet came before one that it follows.
    OutOfSequence,
    /// A packet was beyond the window.
    ExceedsWindow,
    /// No buffers at the receiver.
    NoSpace,
    /// Asks for a [`AckReason::PingResponse`].
    Ping,
    /// Answers a ping; `serial` is the ping's.
    PingResponse,
    /// The delayed acknowledgement's time was up.
    Delay,
    /// The reader has taken data, or the call ended.
    Idle,
    /// A number from the future. Its windows still count.
    Other(u8),
}

impl AckReason {
    /// The reason with this number.
    pub const fn from_u8(number: u8) -> Self {
        match number {
            1 => Self::Requested,
            2 => Self::Duplicate,
            3 => Self::OutOfSequence,
            4 => Self::ExceedsWindow,
            5 => Self::NoSpace,
            6 => Self::Ping,
            7 => Self::PingResponse,
            8 => Self::Delay,
            9 => Self::Idle,
            other => Self::Other(other),
        }
    }

    /// Its number on the wire.
    pub const fn to_u8(self) -> u8 {
        match self {
            Self::Requested => 1,
            Self::Duplicate => 2,
            Self::OutOfSequence => 3,
            Self::ExceedsWindow => 4,
            Self::NoSpace => 5,
            Self::Ping => 6,
            Self::PingResponse => 7,
            Self::Delay => 8,
            Self::Idle => 9,
            Self::Other(number) => number,
        }
    }
}

/// The words behind the slots; a short ACK lacks the later ones, or all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AckTrailer {
    /// Largest packet the sender of the ACK takes, Rx header included, in bytes.
    pub max_mtu: Option<u32>,
    /// MTU of its interface, in bytes.
    pub if_mtu: Option<u32>,
    /// Its receive window, in packets.
    pub receive_window: Option<u32>,
    /// Packets it takes in one jumbogram; 0 where the sender probes path MTUs.
    pub jumbo_max: Option<u32>,
}

impl AckTrailer {
    /// All four words, as today's peers send them.
    pub const fn full(max_mtu: u32, if_mtu: u32, receive_window: u32, jumbo_max: u32) -> Self {
        Self {
            max_mtu: Some(max_mtu),
            if_mtu: Some(if_mtu),
            receive_window: Some(receive_window),
            jumbo_max: Some(jumbo_max),
        }
    }

    /// The words up to the first absent one.
    fn words(&self) -> impl Iterator<Item = u32> {
        [self.max_mtu, self.if_mtu, self.receive_window, self.jumbo_max].into_iter().map_while(|word| word)
    }
}

/// The body of an ACK packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack<'a> {
    /// Free receive buffers, in packets; nobody relies on it.
    pub buffer_space: u16,
    /// Unused today.
    pub max_skew: u16,
    /// Everything before this sequence number has been received and handed on (hard-acknowledged).
    pub first: u32,
    /// Highest or latest sequence number received; a hint.
    pub previous: u32,
    /// Serial of the packet that caused this ACK; 0 if none did.
    pub serial: u32,
    /// Why it was sent.
    pub reason: AckReason,
    /// One byte for each packet from `first`: bit 0 set if it has been received (soft-acknowledged).
    pub slots: &'a [u8],
    /// MTUs and window.
    pub trailer: AckTrailer,
}

impl<'a> Ack<'a> {
    /// Reads the body of an ACK packet.
    pub fn parse(body: &'a [u8]) -> Result<Self, AckError> {
        let (fixed, rest) =
            body.split_first_chunk::<FIXED_LEN>().ok_or(AckError::TooShort { len: body.len() })?;
        let slots = fixed[17] as usize;
        let (slots, rest) =
            rest.split_at_checked(slots).ok_or(AckError::SlotsBeyondEnd { slots, room: rest.len() })?;
        let word = |at: usize| u32::from_be_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]);
        let mut trailer = rest.get(PAD_LEN..).unwrap_or(&[]);
        let mut next = || {
            let (word, rest) = trailer.split_first_chunk::<4>()?;
            trailer = rest;
            Some(u32::from_be_bytes(*word))
        };
        Ok(Self {
            buffer_space: u16::from_be_bytes([fixed[0], fixed[1]]),
            max_skew: u16::from_be_bytes([fixed[2], fixed[3]]),
            first: word(4),
            previous: word(8),
            serial: word(12),
            reason: AckReason::from_u8(fixed[16]),
            slots,
            trailer: AckTrailer {
                max_mtu: next(),
                if_mtu: next(),
                receive_window: next(),
                jumbo_max: next(),
            },
        })
    }

    /// Bytes of the body on the wire.
    pub fn encoded_len(&self) -> usize {
        FIXED_LEN + self.slots.len() + PAD_LEN + 4 * self.trailer.words().count()
    }

    /// Writes the body at the start of `out` and returns its length.
    ///
    /// # Panics
    /// If there are more than [`ACK_MAX_SLOTS`] slots: the caller's own figure, never the peer's.
    pub fn encode(&self, out: &mut [u8]) -> Result<usize, NoRoom> {
        assert!(self.slots.len() <= ACK_MAX_SLOTS, "an ACK holds {ACK_MAX_SLOTS} slots");
        let (needed, room) = (self.encoded_len(), out.len());
        let out = out.get_mut(..needed).ok_or(NoRoom { needed, room })?;
        out[0..2].copy_from_slice(&self.buffer_space.to_be_bytes());
        out[2..4].copy_from_slice(&self.max_skew.to_be_bytes());
        out[4..8].copy_from_slice(&self.first.to_be_bytes());
        out[8..12].copy_from_slice(&self.previous.to_be_bytes());
        out[12..16].copy_from_slice(&self.serial.to_be_bytes());
        out[16] = self.reason.to_u8();
        out[17] = self.slots.len() as u8;
        let (slots, rest) = out[FIXED_LEN..].split_at_mut(self.slots.len());
        slots.copy_from_slice(self.slots);
        let (pad, trailer) = rest.split_at_mut(PAD_LEN);
        pad.fill(0);
        for (word, at) in self.trailer.words().zip(trailer.chunks_exact_mut(4)) {
            at.copy_from_slice(&word.to_be_bytes());
        }
        Ok(needed)
    }
}

/// Why a body is no ACK.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AckError {
    /// Ends before nAcks.
    #[error("an ACK of {len} bytes ends within its fixed part of {FIXED_LEN}")]
    TooShort {
        /// Bytes there were.
        len: usize,
    },
    /// nAcks promises more slots than there are bytes.
    #[error("an ACK speaks of {slots} packets and has bytes for {room}")]
    SlotsBeyondEnd {
        /// nAcks.
        slots: usize,
        /// Bytes that follow it.
        room: usize,
    },
}
