//! How calls end, and why something was refused or dropped.

use crate::CallId;
use std::net::SocketAddr;

/// Abort codes of Rx itself (OpenAFS src/rx/rx.h). Positive codes belong to the services.
pub mod code {
    /// The peer does not answer, or the call was given up.
    pub const CALL_DEAD: i32 = -1;
    /// No such service, or not with this security.
    pub const INVALID_OPERATION: i32 = -2;
    /// The call took too long.
    pub const CALL_TIMEOUT: i32 = -3;
    /// Data ended before the reader was satisfied.
    pub const EOF: i32 = -4;
    /// The peer broke the protocol.
    pub const PROTOCOL_ERROR: i32 = -5;
    /// The user gave the call up.
    pub const USER_ABORT: i32 = -6;
    /// The port is taken.
    pub const ADDRINUSE: i32 = -7;
    /// A packet was too large for the path.
    pub const MSGSIZE: i32 = -8;
    /// The server is starting.
    pub const RESTARTING: i32 = -100;

    /// The code's name, for the codes above and those of rxkad.
    pub fn name(code: i32) -> Option<&'static str> {
        Some(match code {
            CALL_DEAD => "RX_CALL_DEAD",
            INVALID_OPERATION => "RX_INVALID_OPERATION",
            CALL_TIMEOUT => "RX_CALL_TIMEOUT",
            EOF => "RX_EOF",
            PROTOCOL_ERROR => "RX_PROTOCOL_ERROR",
            USER_ABORT => "RX_USER_ABORT",
            ADDRINUSE => "RX_ADDRINUSE",
            MSGSIZE => "RX_MSGSIZE",
            RESTARTING => "RX_RESTARTING",
            _ => return crate::security::rxkad_code::name(code),
        })
    }
}

/// How a call ended. There is exactly one for each call, and the first one stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Completion {
    /// A client has all of the reply; a server knows that the client has it.
    #[error("succeeded")]
    Succeeded,
    /// The peer aborted it.
    #[error("aborted by the peer with {}", Code(*.0))]
    RemoteAbort(i32),
    /// We aborted it: the user, or the protocol core on a violation.
    #[error("aborted here with {}", Code(*.0))]
    LocalAbort(i32),
    /// The network said that the peer cannot be reached.
    #[error("{0}")]
    NetworkError(NetError),
    /// A time was up.
    #[error("{0}")]
    TimedOut(Timeout),
    /// The server had no room for the call for as long as we put up with it.
    #[error("the server is busy")]
    Busy,
}

impl Completion {
    /// The abort code by which a middle box passes this end on.
    pub fn abort_code(self) -> i32 {
        match self {
            Self::Succeeded => 0,
            Self::RemoteAbort(code) | Self::LocalAbort(code) => code,
            Self::NetworkError(_) | Self::Busy => code::CALL_DEAD,
            Self::TimedOut(Timeout::Dead) => code::CALL_DEAD,
            Self::TimedOut(_) => code::CALL_TIMEOUT,
        }
    }
}

struct Code(i32);
impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match code::name(self.0) {
            Some(name) => write!(f, "{} ({name})", self.0),
            None => write!(f, "{}", self.0),
        }
    }
}

/// Which time was up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Timeout {
    /// Nothing came from the peer, pings included.
    #[error("timed out: the peer does not answer")]
    Dead,
    /// No byte moved in either direction.
    #[error("timed out: no data moved")]
    Idle,
    /// The call's own time limit.
    #[error("timed out: the call's time limit")]
    Hard,
}

/// What the network said of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum NetError {
    /// Nobody listens there.
    #[error("connection refused: no socket on the peer's port")]
    PortUnreachable,
    /// The host is not there.
    #[error("host unreachable")]
    HostUnreachable,
    /// No way to its network.
    #[error("network unreachable")]
    NetworkUnreachable,
    /// A filter forbids it.
    #[error("prohibited by a filter on the way")]
    Prohibited,
    /// The packet was too large for the path.
    #[error("packet too large for the path")]
    TooLarge,
}

/// Why an operation on a call was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The identifier's call was released, or never was.
    #[error("{0:?} does not exist (any more)")]
    Unknown(CallId),
    /// The call's client has not proved yet who it is; `Incoming` says when it has.
    #[error("{0:?} is not announced yet: its client has still to prove who it is")]
    Unannounced(CallId),
    /// The call has ended; only `release` is left.
    #[error("the call has ended: {0}")]
    Ended(Completion),
    /// Data was sent after the end of this direction.
    #[error("this direction of the call was ended by an earlier send without `more`")]
    SendEnded,
    /// The server began its reply, which ends the request: the rest of it is not wanted.
    #[error("the reply has begun, the rest of the request is not wanted")]
    ReplyBegun,
    /// More data than was declared.
    #[error("{bytes} bytes are more than the {left} that are left of the declared length")]
    TooLong {
        /// Left of what was declared.
        left: u64,
        /// What was to be sent.
        bytes: u64,
    },
    /// The data ends before the declared length.
    #[error("the data ends with {bytes} bytes where {left} are left of the declared length")]
    TooShort {
        /// Left of what was declared.
        left: u64,
        /// What was to be sent.
        bytes: u64,
    },
}

/// Why a call could not begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BeginError {
    /// No such local address.
    #[error("the local address does not exist (any more)")]
    UnknownLocal,
    /// The endpoint's limit on calls.
    #[error("{limit} calls exist already: raise `calls_max` or release calls")]
    TooManyCalls {
        /// `calls_max`.
        limit: usize,
    },
    /// The limit on calls that wait for a place.
    #[error(
        "{limit} calls wait in line for {peer} already: raise `bundle_conns_max` or `bundle_waiting_max`"
    )]
    LineFull {
        /// The server.
        peer: SocketAddr,
        /// `bundle_waiting_max`.
        limit: usize,
    },
    /// The limit on bundles.
    #[error("{limit} bundles exist already: raise `bundles_max`")]
    TooManyBundles {
        /// `bundles_max`.
        limit: usize,
    },
    /// The limit on peers.
    #[error("{limit} peers are known already: raise `peers_max`")]
    TooManyPeers {
        /// `peers_max`.
        limit: usize,
    },
    /// The limit on connections, and the bundle has none yet to wait for.
    #[error("{limit} connections exist already: raise `conns_max`")]
    TooManyConns {
        /// `conns_max`.
        limit: usize,
    },
}

/// Why a service could not be offered or charged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListenError {
    /// No such local address.
    #[error("the local address does not exist (any more)")]
    UnknownLocal,
    /// The address offers this service already.
    #[error("service {service} is offered on this address already")]
    ServiceInUse {
        /// Service id.
        service: u16,
    },
    /// The address offers no such service.
    #[error("service {service} is not offered on this address")]
    UnknownService {
        /// Service id.
        service: u16,
    },
    /// Service 0 cannot be called.
    #[error("service id 0 is reserved")]
    Reserved,
    /// More accepts charged than the backlog allows.
    #[error("{charged} accepts are charged and the backlog is {backlog}: {wanted} more do not fit")]
    BacklogFull {
        /// Charged already.
        charged: usize,
        /// More that were wanted.
        wanted: usize,
        /// The limit.
        backlog: usize,
    },
}

/// Why a local address could not be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LocalError {
    /// It is there already.
    #[error("{0} is a local address of this endpoint already")]
    InUse(SocketAddr),
    /// The limit on local addresses.
    #[error("{limit} local addresses exist already: raise `locals_max`")]
    TooMany {
        /// `locals_max`.
        limit: usize,
    },
}

macro_rules! drops {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// Why a received packet was thrown away. Each has its counter in [`crate::RxStats`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum RxDrop { $($(#[$doc])* $variant,)* }

        impl RxDrop {
            /// All reasons, in the order of their counters.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name under which it is counted.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

drops! {
    /// Not as long as a header, or of a type that does not exist.
    BadHeader = "rx_bad_header",
    /// A body that ends too early or contradicts itself.
    BadPacket = "rx_bad_packet",
    /// A jumbogram whose parts do not add up.
    BadJumbo = "rx_bad_jumbo",
    /// The local address is gone.
    NoLocal = "rx_no_local",
    /// No such connection, and nothing that could create one.
    NoConnection = "rx_no_connection",
    /// No such call on its connection.
    NoCall = "rx_no_call",
    /// A call number lower than the channel's last.
    OldCall = "rx_old_call",
    /// A service that nobody offers here; answered with an abort.
    NoService = "rx_no_service",
    /// A security class that we do not speak; answered with an abort.
    UnknownSecurity = "rx_unknown_security",
    /// Another security class or service than its connection's.
    ConnMismatch = "rx_conn_mismatch",
    /// A new call's first packet from far into the call: one from before a restart.
    MidCall = "rx_mid_call",
    /// No accept is charged; answered with BUSY.
    Busy = "rx_busy",
    /// A limit on connections, calls or peers; answered with BUSY.
    Limit = "rx_limit",
    /// Beyond the receive window; answered with an ACK that says so.
    Window = "rx_window",
    /// A sequence number that cannot be.
    BadSequence = "rx_bad_sequence",
    /// Have it already.
    Duplicate = "rx_duplicate",
    /// No buffer left in the unread data's budget.
    NoBuffers = "rx_no_buffers",
    /// An ACK older than one seen before.
    OldAck = "rx_old_ack",
    /// An ACK for packets that were never sent.
    BadAck = "rx_bad_ack",
    /// A packet type that means nothing where it came, and the reserved types.
    Unexpected = "rx_unexpected",
    /// A CHALLENGE that is too short or of an unknown version.
    BadChallenge = "rx_bad_challenge",
    /// A RESPONSE on a connection that asked for none, or was answered already.
    ResponseUnasked = "rx_response_unasked",
    /// A RESPONSE that ends too early, or has no ticket worth the name.
    ResponseShort = "rx_response_short",
    /// A RESPONSE or ticket longer than any that is looked at.
    ResponseLong = "rx_response_long",
    /// A RESPONSE to another CHALLENGE, or of another connection; its connection is aborted.
    ResponseReplayed = "rx_response_replayed",
    /// A RESPONSE whose ticket or proof is not good; its connection is aborted.
    ResponseRefused = "rx_response_refused",
    /// DATA whose protection does not hold; its call is aborted.
    BadSeal = "rx_bad_seal",
    /// A request for information whose answer found no room to wait.
    NoReplyRoom = "rx_no_reply_room",
}

impl std::fmt::Display for RxDrop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
