//! One connection with its four channels.

use super::super::fields::{Field, Spare, layout};
use std::net::Ipv4Addr;

layout! {
    /// Figures of the connection's security class (rx_securityObjectStats).
    pub struct SecurityStats {
        /// 0 unknown, 1 none, 2 vab, 3 rxkad.
        pub kind: u8,
        /// 0 clear, 1 authenticated, 2 encrypted.
        pub level: u8,
        /// Unused.
        pub spare1: Spare<10>,
        /// 1 unallocated, 2 authenticated, 4 expired, 8 checksummed (bits).
        pub flags: u32,
        /// When the ticket expires, in seconds since 1970.
        pub expires: u32,
        /// Packets received.
        pub packets_received: u32,
        /// Packets sent.
        pub packets_sent: u32,
        /// Payload received, in bytes.
        pub bytes_received: u32,
        /// Payload sent, in bytes.
        pub bytes_sent: u32,
        /// Unused.
        pub spare2: Spare<40>,
    }
}

layout! {
    /// One connection (rx_debugConn).
    pub struct Connection {
        /// The peer's address.
        pub host: Ipv4Addr,
        /// Connection id, channel 0.
        pub cid: u32,
        /// Serial of the last packet sent.
        pub serial: u32,
        /// The last call number of each channel.
        pub call_number: [u32; 4],
        /// The code the connection was aborted with; 0: none.
        pub error: i32,
        /// The peer's port.
        pub port: u16,
        /// Low byte of OpenAFS's connection flags.
        pub flags: u8,
        /// [`Connection::CLIENT`] or [`Connection::SERVER`].
        pub role: u8,
        /// Security class.
        pub security_index: u8,
        /// Unused.
        pub spare1: Spare<3>,
        /// [`CallState`] of each channel.
        pub call_state: [u8; 4],
        /// [`CallMode`] of each channel.
        pub call_mode: [u8; 4],
        /// OpenAFS's call flags of each channel.
        pub call_flags: [u8; 4],
        /// [`Connection::DATA_IN`] and [`Connection::DATA_OUT`] of each channel.
        pub call_other: [u8; 4],
        /// Figures of the security class.
        pub security: SecurityStats,
        /// Epoch of the connection.
        pub epoch: u32,
        /// MTU towards the peer, in bytes.
        pub mtu: u32,
        /// Unused.
        pub spare2: Spare<36>,
    }
}

impl Connection {
    /// `role`: this side opened the connection.
    pub const CLIENT: u8 = 0;
    /// `role`: the peer opened it.
    pub const SERVER: u8 = 1;
    /// `call_other`: packets wait to be read.
    pub const DATA_IN: u8 = 1;
    /// `call_other`: packets wait to be acknowledged.
    pub const DATA_OUT: u8 = 2;
}

/// What a channel's call is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum CallState {
    /// No call has been there.
    NotInitialised = 0,
    /// A call has arrived and waits to be taken up.
    Precall = 1,
    /// In progress.
    Active = 2,
    /// Over; kept to answer duplicates.
    Dally = 3,
    /// Held.
    Hold = 4,
    /// Reset.
    Reset = 5,
}

impl CallState {
    /// The state with this number, if there is one.
    pub const fn from_u8(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::NotInitialised,
            1 => Self::Precall,
            2 => Self::Active,
            3 => Self::Dally,
            4 => Self::Hold,
            5 => Self::Reset,
            _ => return None,
        })
    }
}

/// Which way a channel's call is going.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum CallMode {
    /// Neither yet.
    None = 0,
    /// Sending.
    Sending = 1,
    /// Receiving.
    Receiving = 2,
    /// Failed.
    Error = 3,
    /// All is said.
    Eof = 4,
}

impl CallMode {
    /// The mode with this number, if there is one.
    pub const fn from_u8(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::None,
            1 => Self::Sending,
            2 => Self::Receiving,
            3 => Self::Error,
            4 => Self::Eof,
            _ => return None,
        })
    }
}

impl Default for SecurityStats {
    fn default() -> Self {
        Self {
            kind: 0,
            level: 0,
            spare1: Spare,
            flags: 0,
            expires: 0,
            packets_received: 0,
            packets_sent: 0,
            bytes_received: 0,
            bytes_sent: 0,
            spare2: Spare,
        }
    }
}

impl Default for Connection {
    fn default() -> Self {
        Self {
            host: Ipv4Addr::UNSPECIFIED,
            cid: 0,
            serial: 0,
            call_number: [0; 4],
            error: 0,
            port: 0,
            flags: 0,
            role: Self::CLIENT,
            security_index: 0,
            spare1: Spare,
            call_state: [0; 4],
            call_mode: [0; 4],
            call_flags: [0; 4],
            call_other: [0; 4],
            security: SecurityStats::default(),
            epoch: 0,
            mtu: 0,
            spare2: Spare,
        }
    }
}

const _: () = assert!(SecurityStats::LEN == 76, "rx_securityObjectStats");
const _: () = assert!(Connection::LEN == 176, "rx_debugConn");
