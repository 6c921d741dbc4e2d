//! The security of connections: which classes are spoken, and what each does to packets.
//!
//! A connection owns one [`Security`]. The protocol core asks it whether the connection is secured (before that nobody
//! hears of its calls), lets it open what arrives and seal what leaves. Deliberately absent so far: every class but
//! none.

#[cfg(test)]
mod gate;
mod null;

use crate::RxDrop;
use crate::wire::Header;
use pmd::Mbuf;

/// A connection's security state.
#[derive(Debug)]
pub enum Security {
    /// Class 0.
    Null(null::Null),
    /// For tests: any response proves who the client is.
    #[cfg(test)]
    Gate(gate::Gate),
}

impl Default for Security {
    fn default() -> Self {
        Self::Null(null::Null)
    }
}

impl Security {
    /// The state of a new connection of a class; `None` for classes that are not spoken.
    pub fn new(index: u8) -> Option<Self> {
        match index {
            null::INDEX => Some(Self::default()),
            #[cfg(test)]
            gate::INDEX => Some(Self::Gate(gate::Gate::default())),
            _ => None,
        }
    }

    /// The class's number on the wire.
    pub fn index(&self) -> u8 {
        match self {
            Self::Null(_) => null::INDEX,
            #[cfg(test)]
            Self::Gate(_) => gate::INDEX,
        }
    }

    /// Whether the peer has proved who it is, as far as the class asks for it.
    pub fn secured(&self) -> bool {
        match self {
            Self::Null(null) => null.secured(),
            #[cfg(test)]
            Self::Gate(gate) => gate.secured(),
        }
    }

    /// Takes the client's answer to a challenge. `Ok`: it has proved who it is, if [`secured`](Self::secured) says so from
    /// here on.
    pub fn respond(&mut self, response: &[u8]) -> Result<(), RxDrop> {
        match self {
            Self::Null(null) => null.respond(response),
            #[cfg(test)]
            Self::Gate(gate) => gate.respond(response),
        }
    }

    /// Verifies a DATA packet and removes what protected it. The error is an abort code.
    pub fn open(&mut self, header: &Header, data: &mut Mbuf) -> Result<(), i32> {
        match self {
            Self::Null(null) => null.open(header, data),
            #[cfg(test)]
            Self::Gate(_) => Ok(()),
        }
    }
}
