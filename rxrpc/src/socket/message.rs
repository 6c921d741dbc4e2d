//! What a socket's reader is told: recvmsg's messages, typed.

use super::call_shared::CallPeer;
use super::completion::CallEnd;
use crate::{Completion, NetError};

/// A message about one call. After a terminal one the call is released, and its user ID is free.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Message {
    /// A charged accept was taken into use by a call. Its data follows.
    NewCall {
        /// The ID that the accept was charged with.
        user_id: u64,
        /// Who calls which service.
        peer: CallPeer,
    },
    /// Received bytes are in the reader's buffer.
    Data {
        /// The call.
        user_id: u64,
        /// How many bytes.
        bytes: usize,
        /// The other side's data ends with them.
        end: bool,
    },
    /// Terminal: the call succeeded. For a service: the client has all of the reply.
    Ack {
        /// The call.
        user_id: u64,
    },
    /// Terminal: the call was aborted.
    Abort {
        /// The call.
        user_id: u64,
        /// The abort code.
        code: i32,
        /// By the other side; otherwise by us.
        remote: bool,
    },
    /// Terminal: the network says that the peer cannot be reached.
    NetError {
        /// The call.
        user_id: u64,
        /// What it says.
        error: NetError,
    },
    /// Terminal: the server had no room for the call.
    Busy {
        /// The call.
        user_id: u64,
    },
    /// Terminal: the call failed here: it could not begin, or its time was up.
    LocalError {
        /// The call.
        user_id: u64,
        /// What happened.
        end: CallEnd,
    },
}

impl Message {
    /// The call that the message is about.
    pub fn user_id(&self) -> u64 {
        match *self {
            Message::NewCall { user_id, .. }
            | Message::Data { user_id, .. }
            | Message::Ack { user_id }
            | Message::Abort { user_id, .. }
            | Message::NetError { user_id, .. }
            | Message::Busy { user_id }
            | Message::LocalError { user_id, .. } => user_id,
        }
    }

    /// Whether the call is over and its user ID free.
    pub fn is_terminal(&self) -> bool {
        !matches!(self, Message::NewCall { .. } | Message::Data { .. })
    }

    /// The terminal message for a call's end.
    pub(super) fn terminal(user_id: u64, end: CallEnd) -> Self {
        match end {
            CallEnd::Protocol(Completion::Succeeded) => Message::Ack { user_id },
            CallEnd::Protocol(Completion::RemoteAbort(code)) => {
                Message::Abort { user_id, code, remote: true }
            }
            CallEnd::Protocol(Completion::LocalAbort(code)) => {
                Message::Abort { user_id, code, remote: false }
            }
            CallEnd::Protocol(Completion::NetworkError(error)) => Message::NetError { user_id, error },
            CallEnd::Protocol(Completion::Busy) => Message::Busy { user_id },
            end => Message::LocalError { user_id, end },
        }
    }
}
