//! What can go wrong with a socket operation.

use std::net::SocketAddr;

use super::completion::CallEnd;
use crate::control::OpenError;
use crate::{BeginError, ListenError};

/// Why a socket could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BindFailed {
    /// The text names no address.
    #[error("`{text}` is no socket address: write it as 192.0.2.10:7009 or [2001:db8::1]:7009")]
    BadAddress {
        /// What was given.
        text: String,
    },
    /// The address could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The service could not be offered.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The engine has as many sockets as it may.
    #[error("there are {limit} sockets already: close some, or raise `sockets_max`")]
    TooManySockets {
        /// How many there may be.
        limit: usize,
    },
    /// The engine was shut down.
    #[error("the engine was shut down")]
    Shutdown,
}

/// Why no call was accepted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AcceptFailed {
    /// The socket was closed.
    #[error("the socket was closed")]
    Closed,
    /// The engine was shut down.
    #[error("the engine was shut down")]
    Shutdown,
    /// None came in time.
    #[error("no call came in time")]
    TimedOut,
}

/// Why an operation on a call failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CallFailed {
    /// The call has ended before the operation could be done.
    #[error("{0}")]
    Ended(CallEnd),
    /// The endpoint refused to begin it.
    #[error("the call could not begin: {0}")]
    NotBegun(BeginError),
    /// The socket or its core has as many calls as it may.
    #[error("there are {limit} calls already: finish some, or raise `calls_max` and `unread_budget`")]
    TooManyCalls {
        /// How many there may be.
        limit: usize,
    },
    /// The operation did not get done in its time. The call goes on.
    #[error("the operation took longer than its time limit")]
    TimedOut,
    /// More bytes came than the caller wants.
    #[error("more than {limit} bytes came: read in parts, or raise the limit")]
    TooLong {
        /// The limit.
        limit: usize,
    },
    /// The sending direction was finished before.
    #[error("this direction of the call was finished before")]
    SendFinished,
    /// More data than was declared. Nothing of it was taken.
    #[error("{bytes} bytes are more than the declared {length}: declare what is to be sent, or nothing")]
    BeyondTxLength {
        /// What was declared.
        length: u64,
        /// What it would have been.
        bytes: u64,
    },
    /// The data was to end before what was declared. It goes on.
    #[error("only {bytes} of the declared {length} bytes were sent: send the rest, or abort the call")]
    ShortOfTxLength {
        /// What was declared.
        length: u64,
        /// What was sent.
        bytes: u64,
    },
    /// The length of the data is declared before its first byte.
    #[error("{bytes} bytes were sent already: declare the length before the first")]
    SendBegun {
        /// What was sent.
        bytes: u64,
    },
    /// The user ID names another call.
    #[error("user ID {0} names a call already: release that one first, or take another ID")]
    UserIdInUse(u64),
    /// The user ID names no call.
    #[error("user ID {0} names no call")]
    UnknownUserId(u64),
    /// The socket offers no service to charge accepts for.
    #[error("the socket does not listen")]
    NotListening,
    /// As many accepts are charged as the backlog allows.
    #[error("{backlog} accepts are charged already, which is the backlog")]
    BacklogFull {
        /// The backlog.
        backlog: usize,
    },
    /// There is no address to call this peer from.
    #[error("no local address to call {0} from: bind one of its family, or give the engine a route")]
    NoSource(SocketAddr),
}

impl CallFailed {
    /// The abort code, if the call ended by an abort.
    pub fn abort_code(&self) -> Option<i32> {
        use crate::Completion::{LocalAbort, RemoteAbort};
        match self {
            CallFailed::Ended(CallEnd::Protocol(RemoteAbort(code) | LocalAbort(code))) => Some(*code),
            _ => None,
        }
    }
}

impl From<CallFailed> for std::io::Error {
    fn from(failed: CallFailed) -> Self {
        use std::io::ErrorKind;
        let kind = match failed {
            CallFailed::TimedOut => ErrorKind::TimedOut,
            CallFailed::Ended(CallEnd::Protocol(crate::Completion::TimedOut(_))) => ErrorKind::TimedOut,
            CallFailed::Ended(_) => ErrorKind::ConnectionAborted,
            _ => ErrorKind::Other,
        };
        std::io::Error::new(kind, failed)
    }
}
