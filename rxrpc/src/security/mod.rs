//! The security of connections: which classes are spoken, and what each does to packets.
//!
//! A service says with [`Security`] how its callers prove who they are; a client's calls carry [`Credentials`]. A connection owns one
//! [`ConnSecurity`]. The protocol core asks it whether the connection is secured (before that nobody hears of its calls), has it seal
//! what leaves and open what arrives.
//!
//! A service that takes encrypted calls only, and a client with a ticket made from the same keys:
//!
//! ```
//! use rxrpc::engine::Engine;
//! use rxrpc::security::DesKey;
//! use rxrpc::{Credentials, Level, RxExt, Security, ServerKeys, ServiceId};
//!
//! let keys = ServerKeys::new().with_des(1, DesKey::random()?);
//! let proof = Security::rxkad(keys.clone()).at_least(Level::Encrypt);
//! let engine = Engine::builder().port("memory:secured").address("192.0.2.10/24").start_rx()?;
//! let service = engine.rx().bind("192.0.2.10:7009", ServiceId(147))?.security(proof)?;
//! std::thread::spawn(move || {
//!     for mut call in service.incoming() {
//!         let request = call.read_all()?;
//!         call.reply(&request)?;
//!     }
//!     Ok::<(), rxrpc::socket::CallFailed>(())
//! });
//!
//! let theirs = Engine::builder().port("memory:secured").address("192.0.2.20/24").start_rx()?;
//! let server = "192.0.2.10:7009".parse()?;
//! let client = theirs.rx().client()?.credentials(Credentials::local(&keys, Level::Encrypt)?);
//! assert_eq!(client.request(server, ServiceId(147), b"in secret")?, b"in secret");
//! let stranger = theirs.rx().client()?;
//! assert!(stranger.request(server, ServiceId(147), b"hello").is_err());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Deliberately absent so far: rxgk.

mod credentials;
#[cfg(test)]
mod gate;
mod keys;
mod null;
mod rxkad;

pub use credentials::{Credentials, Security, Token};
pub use keys::{Enctype, KeyError, KeyFileError, Krb5Key, ServerKeys};
pub(crate) use rxkad::{Challenge, LANES, Place, RESPONSE_MAX, Rxkad};
pub use rxkad::{DesKey, Level, UnknownLevel, code as rxkad_code};

use crate::wire::{Cid, Header};
use pmd::{Mbuf, Pool};
use std::sync::Arc;

/// Who called, as a ticket says it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The principal's name.
    pub name: String,
    /// Its instance; most have none.
    pub instance: String,
    /// Its cell or realm; empty for tickets made with the server's own key.
    pub cell: String,
    /// Number of the key that opened the ticket.
    pub kvno: u32,
    /// How much of the connection is protected.
    pub level: Level,
    /// Unix seconds from which the ticket is good.
    pub starts: u64,
    /// Unix seconds up to which it is; `None`: for ever.
    pub expires: Option<u64>,
}

/// `name.instance@cell`, each part only where there is one.
impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)?;
        for (sign, part) in [('.', &self.instance), ('@', &self.cell)] {
            if !part.is_empty() {
                write!(f, "{sign}{part}")?;
            }
        }
        Ok(())
    }
}

/// A DATA packet that is to be sealed.
pub(crate) struct Sealing<'a> {
    /// Says where the packet belongs, which its seal depends on: connection, channel, call and sequence number. Gets the checksum.
    pub header: Header,
    /// [`Level::sealed_len`] of `len` bytes, with the `len` bytes of payload behind room for the security header.
    pub body: &'a mut [u8],
    /// Bytes of payload.
    pub len: usize,
}

/// Why a packet was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotOpened {
    /// The call ends with this abort code.
    Abort(i32),
    /// There was no buffer to put it in.
    NoBuffers,
}

/// A connection's security state.
#[derive(Debug)]
pub(crate) enum ConnSecurity {
    /// Class 0.
    Null(null::Null),
    /// Class 2.
    Rxkad(Rxkad),
    /// For tests: any response proves who the client is.
    #[cfg(test)]
    Gate(gate::Gate),
}

impl Default for ConnSecurity {
    fn default() -> Self {
        Self::Null(null::Null)
    }
}

impl ConnSecurity {
    /// The state of a new connection to a service; `None` for classes that it does not take.
    pub fn for_service(index: u8, service: &Security, nonce: impl FnOnce() -> u32) -> Option<Self> {
        match index {
            null::INDEX if service.takes_none() => Some(Self::default()),
            rxkad::INDEX => Some(Self::Rxkad(Rxkad::for_service(service.takes_rxkad()?, nonce()))),
            #[cfg(test)]
            gate::INDEX => Some(Self::Gate(gate::Gate::default())),
            _ => None,
        }
    }

    /// The state of a new connection of a client.
    pub fn for_client(credentials: Option<&Credentials>, epoch: u32, cid: Cid) -> Self {
        credentials
            .map_or_else(Self::default, |credentials| Self::Rxkad(Rxkad::for_client(credentials, epoch, cid)))
    }

    /// The class's number on the wire.
    pub fn index(&self) -> u8 {
        match self {
            Self::Null(_) => null::INDEX,
            Self::Rxkad(_) => rxkad::INDEX,
            #[cfg(test)]
            Self::Gate(_) => gate::INDEX,
        }
    }

    /// For tests.
    #[cfg(test)]
    pub fn gate(&mut self) -> Option<&mut gate::Gate> {
        match self {
            Self::Gate(gate) => Some(gate),
            _ => None,
        }
    }

    /// rxkad's state.
    pub fn rxkad(&mut self) -> Option<&mut Rxkad> {
        match self {
            Self::Rxkad(rxkad) => Some(rxkad),
            _ => None,
        }
    }

    /// Whether the peer has proved who it is, as far as the class asks for it.
    pub fn secured(&self) -> bool {
        match self {
            Self::Null(null) => null.secured(),
            Self::Rxkad(rxkad) => rxkad.secured(),
            #[cfg(test)]
            Self::Gate(gate) => gate.secured(),
        }
    }

    /// What a CHALLENGE that is still to be answered is waiting for.
    pub fn challenge(&self) -> Option<&Challenge> {
        match self {
            Self::Rxkad(rxkad) => rxkad.challenge(),
            _ => None,
        }
    }

    /// Whether the connection has a CHALLENGE or RESPONSE to send.
    pub fn owes(&self) -> bool {
        matches!(self, Self::Rxkad(rxkad) if rxkad.owes())
    }

    /// The level at which packets are sealed; `None`: they are not.
    pub fn level(&self) -> Option<Level> {
        match self {
            Self::Rxkad(rxkad) => rxkad.level(),
            _ => None,
        }
    }

    /// Seals packets in place, [`LANES`] of them in the time of one. Does nothing where packets are not sealed.
    pub fn seal(&self, packets: &mut [Sealing<'_>]) {
        if let Self::Rxkad(rxkad) = self {
            rxkad.seal(packets);
        }
    }

    /// Who the client is, once it has proved that.
    pub fn identity(&self) -> Option<&Arc<Identity>> {
        match self {
            Self::Rxkad(rxkad) => rxkad.identity(),
            _ => None,
        }
    }

    /// The same as [`open`](Self::open) for a packet in one buffer. The error is an abort code.
    pub fn open_held(&self, header: &Header, data: &mut Mbuf) -> Result<(), i32> {
        match self {
            Self::Rxkad(rxkad) => rxkad.open_held(header, data),
            _ => Ok(()),
        }
    }

    /// Verifies a DATA packet and removes what protected it, in place: the buffer is nobody else's.
    pub fn open(&self, header: &Header, data: &mut Mbuf, pool: &mut Pool) -> Result<(), NotOpened> {
        match self {
            Self::Null(null) => null.open(header, data),
            Self::Rxkad(rxkad) => rxkad.open(header, data, pool),
            #[cfg(test)]
            Self::Gate(_) => Ok(()),
        }
    }
}
