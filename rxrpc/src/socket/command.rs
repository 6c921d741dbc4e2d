//! What threads and cores tell each other: commands on their way in, and what comes back.
//!
//! Each message is a reference that its sender took and its receiver puts: a charge, a call to begin, a queued run.

use std::sync::atomic::Ordering;

use super::call_ref::{CallRef, Work};
use super::call_shared::{CallName, CoreHalf, SocketId};
use super::core_socket::SocketHalf;
use crate::CallTimeouts;
use crate::control::Done;

/// What threads tell a core.
pub enum SocketCommand {
    /// A socket comes into being on this core.
    Open(Box<SocketHalf>),
    /// An accept is charged.
    Charge(Charge),
    /// A call begins.
    Begin(Begin),
    /// There is something to do for a call: bytes to send, room to read into, an abort.
    Work(QueuedWork),
    /// A call in progress has other time limits from here on.
    SetTimeouts(NewTimeouts),
    /// Clients of the socket's service that ask for an upgrade get this one.
    SetUpgrade(SocketId, Option<u16>, Done),
    /// A call was released.
    Release(Released),
    /// The socket is closed: all its calls are released, incomplete ones aborted.
    Close(SocketId, Done),
}

/// A charged accept, the accept queue's reference. Dropped unused, because its core stopped, it ends its call.
pub struct Charge(Box<CoreHalf>);

impl Charge {
    pub(super) fn new(half: Box<CoreHalf>) -> Self {
        half.shared.charged.store(true, Ordering::Relaxed);
        Charge(half)
    }

    /// The call that waits in it.
    pub(super) fn half(&self) -> &CoreHalf {
        &self.0
    }

    /// A call takes it into use, or it ends.
    pub(super) fn take(self) -> Box<CoreHalf> {
        self.0.shared.charged.store(false, Ordering::Relaxed);
        self.0
    }
}

/// A call to begin, its first run queued with it.
pub struct Begin(pub(super) Box<CoreHalf>);

/// A call's place in the core's inbox. It has one at most, which is the reference of a queued run.
pub struct QueuedWork(pub(super) CallName);

impl QueuedWork {
    /// The message for a reference, which is the core's to put as soon as the message is sent.
    pub(super) fn new(work: &CallRef<Work>) -> Self {
        QueuedWork(work.shared().name())
    }
}

/// Time limits for a call, which may have ended meanwhile.
pub struct NewTimeouts {
    pub(super) call: CallName,
    pub(super) timeouts: CallTimeouts,
}

/// A call that a socket operation released.
pub struct Released(pub(super) CallName);

/// What comes back from a core, for threads to judge and to keep: a core frees nothing.
pub(super) enum Returned {
    /// The core has no reference left on the call but a queued run, if there is one.
    Half(Box<CoreHalf>),
    /// And now it has put that too.
    Put(CallName),
}
