//! Why packets do not cross, and what clients are told of it.
//!
//! An answer is an ABORT of 32 bytes, never longer than a packet that could begin or carry on a call: who floods us under
//! another's address does not get more out of us than he puts in.

use rxrpc::code;
use rxrpc::wire::{Abort, Flags, HEADER_LEN, Header, PacketType};

/// Why a packet does not cross. The numbers are indices into [`Refusal::NAMES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Refusal {
    /// No Rx packet.
    BadHeader,
    /// Of no connection that is known, and nothing that could begin one.
    NoConnection,
    /// To a service that the listener does not relay.
    NoService,
    /// To a port of ours, from somebody who is no server.
    NotAServer,
    /// To a port of ours that no client has towards that server.
    NoClient,
    /// Begins a connection, and no backend is alive, or all have as many as they may.
    NoBackend,
    /// Of a connection whose backend is dead or out of reach.
    BackendDead,
    /// Begins a connection where there are as many as there may be.
    Full,
    /// Begins one connection more than a client may begin in a while.
    ClientFull,
    /// Begins a connection while we shut down.
    Draining,
}

impl Refusal {
    /// What each is counted under.
    pub const NAMES: &'static [&'static str] = &[
        "relay_bad_header",
        "relay_no_connection",
        "relay_no_service",
        "relay_not_a_server",
        "relay_no_client",
        "relay_no_backend",
        "relay_backend_dead",
        "relay_full",
        "relay_client_full",
        "relay_draining",
    ];

    /// The ABORT that a client is owed for the packet it sent, if any.
    pub fn answer(self, header: &Header) -> Option<[u8; HEADER_LEN + Abort::LEN]> {
        if !header.from_client() || matches!(header.packet_type, PacketType::Abort | PacketType::Busy) {
            return None;
        }
        // Nothing was given to anybody: that call alone. A connection that leads nowhere: all of it.
        let (code, cid, call) = match self {
            Self::NoBackend | Self::Full | Self::ClientFull | Self::Draining => {
                (code::RESTARTING, header.cid, header.call)
            }
            Self::BackendDead => (code::CALL_DEAD, header.cid.connection(), 0),
            _ => return None,
        };
        let abort = Header {
            packet_type: PacketType::Abort,
            flags: Flags::NONE,
            cid,
            call,
            seq: 0,
            serial: 0,
            user_status: 0,
            checksum: 0,
            ..*header
        };
        let mut packet = [0; HEADER_LEN + Abort::LEN];
        packet[..HEADER_LEN].copy_from_slice(&abort.to_bytes());
        packet[HEADER_LEN..].copy_from_slice(&Abort::body(code));
        Some(packet)
    }
}
