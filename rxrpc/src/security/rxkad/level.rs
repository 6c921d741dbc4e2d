//! How much rxkad protects, and what it costs of each packet.

use super::fcrypt::BLOCK;

/// How much of each packet is protected. The numbers are the wire's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Level {
    /// The client is known; of packets, only their places in the connection are checked.
    #[default]
    Clear = 0,
    /// The length is sealed besides, which ties each body to its place; the payload is in the clear.
    Auth = 1,
    /// Everything is encrypted.
    Encrypt = 2,
}

impl Level {
    /// The level with this number.
    pub const fn from_u32(number: u32) -> Option<Self> {
        match number {
            0 => Some(Self::Clear),
            1 => Some(Self::Auth),
            2 => Some(Self::Encrypt),
            _ => None,
        }
    }

    /// The name that command lines and views have for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Clear => "clear",
            Self::Auth => "auth",
            Self::Encrypt => "encrypt",
        }
    }

    /// Bytes before the payload.
    pub(crate) const fn header_len(self) -> usize {
        match self {
            Self::Clear => 0,
            Self::Auth => 4,
            Self::Encrypt => 8,
        }
    }

    /// Bytes that `len` bytes of payload become.
    pub(crate) fn sealed_len(self, len: usize) -> usize {
        match self {
            Self::Clear => len,
            Self::Auth => (len + self.header_len()).max(BLOCK),
            Self::Encrypt => (len + self.header_len()).next_multiple_of(BLOCK),
        }
    }

    /// The most payload that fits into a packet of `room` bytes; at least one.
    pub(crate) fn payload(self, room: usize) -> usize {
        let whole = match self {
            Self::Clear | Self::Auth => room,
            Self::Encrypt => room / BLOCK * BLOCK,
        };
        whole.saturating_sub(self.header_len()).max(1)
    }
}

impl std::fmt::Display for Level {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Level {
    type Err = UnknownLevel;

    fn from_str(text: &str) -> Result<Self, UnknownLevel> {
        [Self::Clear, Self::Auth, Self::Encrypt]
            .into_iter()
            .find(|level| level.name() == text)
            .ok_or_else(|| UnknownLevel { text: text.into() })
    }
}

/// No level has this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no level of rxkad: clear, auth or encrypt")]
pub struct UnknownLevel {
    /// What was written.
    pub text: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_a_packet_is_never_longer_sealed() {
        for level in [Level::Clear, Level::Auth, Level::Encrypt] {
            for room in 16..=1416 {
                let payload = level.payload(room);
                assert!(level.sealed_len(payload) <= room, "{level} {room}");
                assert!(level.sealed_len(payload + 1) > room, "{level} {room}: more would fit");
            }
        }
    }

    #[test]
    fn levels_are_read_as_they_are_written() {
        for level in [Level::Clear, Level::Auth, Level::Encrypt] {
            assert_eq!(level.to_string().parse(), Ok(level));
            assert_eq!(Level::from_u32(level as u32), Some(level));
        }
        assert_eq!(Level::from_u32(3), None);
        assert!("crypt".parse::<Level>().is_err());
    }
}
