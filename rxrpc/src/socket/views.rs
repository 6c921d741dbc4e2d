//! What people see of the socket API's calls: plain values, read under RCU while cores and threads go on.

use std::sync::atomic::Ordering;

use engine::rcu::pin;

use super::call_shared::{CallName, CallPeer, CallShared};
use super::call_table::CallTable;
use super::completion::CallEnd;

/// What threads share of a call. The core's side of it is a [`CallView`](crate::CallView).
#[derive(Clone, Debug)]
pub struct SocketCallView {
    /// The core that has the call.
    pub core: usize,
    /// The user's ID of it; one of the API's own, with the highest bit set, where the user has a handle.
    pub user_id: u64,
    /// Who holds it: `UASWR` for user-ID tree, accept queue, service, queued run and receive queue, `-` for who does not.
    pub holders: String,
    /// Who called; `None`: nobody did yet, or we call.
    pub peer: Option<CallPeer>,
    /// How it ended, once it has.
    pub end: Option<CallEnd>,
    /// A socket operation released it.
    pub released: bool,
    /// Bytes given to its reader, and of these taken.
    pub bytes_received: u64,
    /// See `bytes_received`.
    pub bytes_read: u64,
    /// Bytes taken from its writer.
    pub bytes_sent: u64,
}

impl CallTable {
    /// All calls that somebody holds.
    pub(super) fn views(&self) -> Vec<SocketCallView> {
        let mut views = Vec::new();
        self.for_each(|call| views.extend(view(call)));
        views
    }
}

impl CallTable {
    /// What threads share of the call of this name; `None`: it was cleaned up. For views, under a pin of the looking thread.
    pub(crate) fn view(&self, name: CallName) -> Option<SocketCallView> {
        let pin = pin();
        let call = self.get(name, pin.guard())?;
        // It may have become another call meanwhile; then the name says so.
        view(call).filter(|_| call.name() == name)
    }
}

fn view(call: &CallShared) -> Option<SocketCallView> {
    // Under this lock a call neither begins nor is cleaned up.
    let fate = call.fate();
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    fate.is_live().then(|| SocketCallView {
        core: call.core,
        user_id: call.user_id(),
        holders: call.holders(&fate),
        peer: call.peer.get(),
        end: call.completion.get(),
        released: call.is_released(),
        bytes_received: count(&call.bytes_received),
        bytes_read: count(&call.bytes_read),
        bytes_sent: count(&call.bytes_sent),
    })
}
