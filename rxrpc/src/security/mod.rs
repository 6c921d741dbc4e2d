//! The security of connections: which classes are spoken, and what each does to packets.
//!
//! A connection owns one [`Security`]. The protocol core asks it whether the connection is secured (before that nobody
//! hears of its calls), lets it open what arrives and seal what leaves. Deliberately absent so far: every class but
//! none.

mod null;

use crate::wire::Header;
use pmd::Mbuf;

/// A connection's security state.
#[derive(Debug)]
pub enum Security {
    /// Class 0.
    Null(null::Null),
}

impl Default for Security {
    fn default() -> Self {
        Self::Null(null::Null)
    }
}

impl Security {
    /// The state of a new connection of a class; `None` for classes that are not spoken.
    pub fn new(index: u8) -> Option<Self> {
        (index == null::INDEX).then(Self::default)
    }

    /// The class's number on the wire.
    pub fn index(&self) -> u8 {
        match self {
            Self::Null(_) => null::INDEX,
        }
    }

    /// Whether the peer has proved who it is, as far as the class asks for it.
    pub fn secured(&self) -> bool {
        match self {
            Self::Null(null) => null.secured(),
        }
    }

    /// Verifies a DATA packet and removes what protected it. The error is an abort code.
    pub fn open(&mut self, header: &Header, data: &mut Mbuf) -> Result<(), i32> {
        match self {
            Self::Null(null) => null.open(header, data),
        }
    }
}
