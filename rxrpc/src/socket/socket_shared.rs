//! The half of a socket that threads share: its receive queue, its user-ID tree and how its cores are told things.
//!
//! Locks here are the application threads' own. A core owns the far side of its receive ring and never takes one.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rtrb::Consumer;

use super::call_ref::{CallRef, ReceiveQueue as Linked, UserId};
use super::call_shared::{CallLedger, CallName, SocketId};
use super::call_table::CallTable;
use engine::wq::SocketWq;

/// See the module.
pub(crate) struct SocketShared {
    pub(crate) id: SocketId,
    pub(crate) service: u16,
    /// Counts the socket's calls. It outlives the socket where a call does.
    pub(crate) ledger: Arc<CallLedger>,
    closed: AtomicBool,
    /// Accepts could not be charged for want of calls: the next call that ends wakes whoever accepts.
    pub(crate) wants_calls: AtomicBool,
    /// Cores that serve the socket.
    cores_alive: AtomicUsize,
    /// Something is on the receive queue.
    pub(crate) readable: SocketWq,
    queue: Mutex<ReceiveQueue>,
    ids: Mutex<HashMap<u64, CallRef<UserId>>>,
}

/// A core's end of a socket's receive queue: the names of the calls that it linked.
pub(crate) struct Ring {
    pub(crate) linked: Consumer<CallName>,
    /// Where that core's calls are.
    pub(crate) calls: Arc<CallTable>,
}

/// The calls that have something for a reader.
///
/// A ring from each core, and behind them what readers put back: a call that they left data behind in. A call has one
/// entry at most on either. The rings have room for every call that the socket may have, so they are never full.
pub(crate) struct ReceiveQueue {
    put_back: VecDeque<CallRef<Linked>>,
    rings: Vec<Ring>,
    /// Where the next search begins, so that no core's calls wait for another's.
    next: usize,
}

impl ReceiveQueue {
    /// The next call that has something. It is off the queue: what happens from here on links it anew.
    pub(crate) fn pop(&mut self) -> Option<CallRef<Linked>> {
        for _ in 0..self.rings.len() {
            let ring = self.next;
            self.next = (ring + 1) % self.rings.len();
            let Ring { linked, calls } = &mut self.rings[ring];
            if let Ok(name) = linked.pop() {
                let call = calls.find(name).expect("an entry on the queue keeps its call");
                return Some(CallRef::unlink(&call));
            }
        }
        let call = self.put_back.pop_front()?;
        call.taken_back();
        Some(call)
    }

    /// Queues a call again in which a reader left something.
    pub(crate) fn put_back(&mut self, call: CallRef<Linked>) {
        self.put_back.extend(call.put_back());
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.put_back.is_empty() && self.rings.iter().all(|ring| ring.linked.is_empty())
    }
}

impl SocketShared {
    pub(crate) fn new(id: SocketId, service: u16, ledger: Arc<CallLedger>, rings: Vec<Ring>) -> Self {
        SocketShared {
            id,
            service,
            ledger,
            closed: AtomicBool::new(false),
            wants_calls: AtomicBool::new(false),
            cores_alive: AtomicUsize::new(rings.len()),
            readable: SocketWq::default(),
            queue: Mutex::new(ReceiveQueue { put_back: VecDeque::new(), rings, next: 0 }),
            ids: Mutex::default(),
        }
    }

    /// The receive queue, for readers.
    pub(crate) fn queue(&self) -> MutexGuard<'_, ReceiveQueue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The user-ID tree, for socket operations.
    pub(crate) fn ids(&self) -> MutexGuard<'_, HashMap<u64, CallRef<UserId>>> {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes all IDs out of the tree, at close.
    pub(crate) fn take_ids(&self) -> HashMap<u64, CallRef<UserId>> {
        std::mem::take(&mut *self.ids())
    }

    /// True: this caller closes the socket. False: it was closed already.
    pub(crate) fn mark_closed(&self) -> bool {
        !self.closed.swap(true, Ordering::AcqRel)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// A core serves the socket no more: it was closed there, or the engine is going down.
    pub(crate) fn core_left(&self) {
        self.cores_alive.fetch_sub(1, Ordering::AcqRel);
        self.readable.wake_all();
    }

    /// Whether nothing will come any more: every core has left.
    pub(crate) fn is_dead(&self) -> bool {
        self.cores_alive.load(Ordering::Acquire) == 0
    }
}
