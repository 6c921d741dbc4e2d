//! What passes over a capture's ring: a fixed header and the frame's first bytes. Both ends are this process.

use pmd::Instant;

/// What became of the frame, as a byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Received,
    Sent,
    /// The reason is a `Drop`.
    Dropped,
    /// The reason is one of the handler's refusals.
    Refused,
    /// The reason is a `Drop`.
    NotSent,
}

impl Kind {
    pub const ALL: [Kind; 5] = [Kind::Received, Kind::Sent, Kind::Dropped, Kind::Refused, Kind::NotSent];
}

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub when: Instant,
    /// Bytes of the frame.
    pub len: u32,
    /// Of these, bytes that follow.
    pub captured: u32,
    pub port: u8,
    pub kind: Kind,
    pub reason: u8,
    /// The headers are made up: only a datagram was at hand.
    pub rebuilt: bool,
}

impl Record {
    pub const BYTES: usize = 20;
    /// Where kind and reason are, to be written when the frame's fate is known.
    pub const FATE: usize = 17;

    pub fn encode(&self) -> [u8; Record::BYTES] {
        let mut bytes = [0; Record::BYTES];
        bytes[..8].copy_from_slice(&self.when.as_nanos().to_ne_bytes());
        bytes[8..12].copy_from_slice(&self.len.to_ne_bytes());
        bytes[12..16].copy_from_slice(&self.captured.to_ne_bytes());
        bytes[16..].copy_from_slice(&[self.port, self.kind as u8, self.reason, u8::from(self.rebuilt)]);
        bytes
    }

    pub fn decode(bytes: &[u8; Record::BYTES]) -> Record {
        let word = |at: usize| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let when = u64::from_ne_bytes(bytes[..8].try_into().expect("eight bytes"));
        Record {
            when: Instant::from_nanos(when),
            len: word(8),
            captured: word(12),
            port: bytes[16],
            kind: Kind::ALL[usize::from(bytes[17])],
            reason: bytes[18],
            rebuilt: bytes[19] != 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_comes_back_as_it_was() {
        for (reason, &kind) in Kind::ALL.iter().enumerate() {
            let when = Instant::from_nanos(0x0123_4567_89ab_cdef);
            let reason = reason as u8 + 7;
            let record = Record { when, len: 9018, captured: 96, port: 3, kind, reason, rebuilt: true };
            let mut bytes = record.encode();
            assert_eq!(Record::decode(&bytes), record);
            bytes[Record::FATE..Record::FATE + 2].copy_from_slice(&[Kind::Dropped as u8, 1]);
            assert_eq!(Record::decode(&bytes), Record { kind: Kind::Dropped, reason: 1, ..record });
        }
    }
}
