//! What an endpoint tells its user.

use crate::wire::debug::{DebugError, DebugReply};
use crate::{CallId, Completion, LocalId};
use std::net::SocketAddr;

/// Something happened. Each call has at most one `Readable` and one `Writable` waiting in the queue, so a burst of
/// packets wakes its user once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A client called: exactly once for each call, and once its connection is secured.
    Incoming {
        /// The call; it is the user's now, to be released in the end.
        call: CallId,
        /// Where it came in.
        local: LocalId,
        /// The service it is for.
        service: u16,
        /// Who called.
        peer: SocketAddr,
    },
    /// Data, or the end of the data, arrived since the last such event was taken from the queue.
    Readable {
        /// The call.
        call: CallId,
    },
    /// There is room again, after a `send` came back short or `send_room` reached zero.
    Writable {
        /// The call.
        call: CallId,
    },
    /// The call has ended: exactly once for each call that was not released before. After `Succeeded` what has not been
    /// read yet is still there to be read; otherwise it is gone. The call stays until `release`.
    Complete {
        /// The call.
        call: CallId,
        /// How it ended.
        completion: Completion,
    },
    /// The answer to `probe_version`.
    Version {
        /// The address that asked.
        local: LocalId,
        /// Who answered.
        peer: SocketAddr,
        /// The version, printable.
        text: String,
    },
    /// The answer to `send_debug`.
    Debug {
        /// The address that asked.
        local: LocalId,
        /// Who answered.
        peer: SocketAddr,
        /// What `send_debug` returned for the question.
        probe: u32,
        /// The answer.
        reply: Box<Result<DebugReply, DebugError>>,
    },
}
