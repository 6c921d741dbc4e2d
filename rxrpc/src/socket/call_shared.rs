//! The half of a call that threads share: what handles, receive queues and views reach.
//!
//! The other half, the protocol's state, is one core's alone and lives in its [`Endpoint`](crate::Endpoint). Between
//! them run two byte rings, one for each direction, single producer and single consumer, so neither side ever waits
//! for the other; a completion cell that is written once; and requests of the user, which are flags that the core reads
//! when a queued [`Work`](super::call_ref::Work) tells it to look. What a core writes it writes with plain stores.
//!
//! Deliberately absent: a pointer to the socket. A call names its socket by [`SocketId`], and whoever resolves that
//! must handle "gone". A call itself is named by its [`CallName`] in queues and messages.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use rtrb::{Consumer, Producer, RingBuffer};

use super::budget::ReadAccount;
use super::call_ref::Fate;
use super::call_table::CallTable;
use super::completion::{CallEnd, CompletionCell};
use super::link::Link;
use super::peer_cell::PeerCell;
use crate::{BeginError, CallOptions, Target};
use engine::wq::SocketWq;

/// A socket of this API: slot and generation. The generation makes a name that outlives its socket resolve to nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SocketId {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

/// A call of a core's [`CallTable`]: place and generation. It resolves to nothing once the call is cleaned up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct CallName {
    pub(super) index: u32,
    pub(super) generation: u32,
}

/// How many calls this API has, for views and for the check at shutdown that none is left.
#[derive(Default, Debug)]
pub(crate) struct CallLedger {
    live: AtomicUsize,
    begun: AtomicU64,
    /// The engine's, where this is one socket's.
    whole: Option<Arc<CallLedger>>,
}

impl CallLedger {
    /// A socket's part of the whole.
    pub(crate) fn of(whole: &Arc<CallLedger>) -> Self {
        CallLedger { whole: Some(whole.clone()), ..CallLedger::default() }
    }

    /// Counts one more call, unless there are `limit`.
    pub(super) fn begin(&self, limit: usize) -> bool {
        if self.live.fetch_add(1, Ordering::AcqRel) >= limit {
            self.live.fetch_sub(1, Ordering::AcqRel);
            return false;
        }
        self.begun.fetch_add(1, Ordering::Relaxed);
        self.whole.as_ref().is_none_or(|whole| whole.begin(usize::MAX))
    }

    pub(super) fn end(&self) {
        self.live.fetch_sub(1, Ordering::AcqRel);
        if let Some(whole) = &self.whole {
            whole.end();
        }
    }

    /// Calls that somebody holds a reference on.
    pub(crate) fn live(&self) -> usize {
        self.live.load(Ordering::Acquire)
    }

    /// Calls ever made or charged.
    pub(crate) fn begun(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }
}

/// Who called which service, known once a charged call was taken into use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CallPeer {
    /// The other end.
    pub addr: SocketAddr,
    /// The service called.
    pub service: u16,
}

/// See the module. Its memory is recycled for further calls, each a generation later, and freed by RCU.
pub(crate) struct CallShared {
    pub(super) home: Weak<CallTable>,
    /// The core whose endpoint has the call's state, and the call's place in that core's table.
    pub(crate) core: usize,
    pub(super) index: u32,
    pub(super) generation: AtomicU32,
    /// Who keeps the call, as far as threads do. Cores never take this lock.
    pub(super) fate: Mutex<Fate>,
    /// A charged accept that no call has used: the accept queue's reference.
    pub(super) charged: AtomicBool,
    /// Queued for its core: the reference of a queued run.
    pub(super) work: Link,
    /// On its socket's receive queue, in the core's ring: that entry's reference.
    pub(super) linked: Link,

    user_id: AtomicU64,
    socket: AtomicU64,
    /// The call goes by its user ID: its socket's receive queue says when something happened.
    by_id: AtomicBool,
    /// The call's slot in its core's endpoint; that core alone reads and writes it.
    pub(crate) slot: AtomicU32,
    pub(crate) peer: PeerCell,
    pub(crate) completion: CompletionCell,
    /// A socket operation released the call: the user ID is free and no message carries it any more. Written under `fate`.
    pub(super) released: AtomicBool,

    /// Received bytes.
    pub(crate) received: Mutex<Consumer<u8>>,
    /// The last byte of the other end's direction is in the ring.
    pub(crate) received_all: AtomicBool,
    /// The core left bytes in the endpoint because the reader had no room or no budget: a reader says when it has read.
    /// Written by the core alone.
    pub(crate) reader_behind: AtomicBool,
    pub(crate) readable: SocketWq,

    /// Bytes to send.
    pub(crate) to_send: Mutex<Producer<u8>>,
    /// The user has sent its last byte: it is in the ring.
    pub(crate) sent_all: AtomicBool,
    /// Bytes that the user said it will send; [`ANY_LENGTH`]: it did not. Written under `to_send`, before the bytes.
    pub(crate) tx_length: AtomicU64,
    /// Bytes put into the ring so far. Written under `to_send`.
    pub(crate) bytes_put: AtomicU64,
    /// The service that a server's answer named to a call that asks for an upgrade; 0: none yet. Written by the core alone.
    pub(crate) upgraded: AtomicU32,
    pub(crate) writable: SocketWq,

    /// The user wants the call aborted: [`ABORT_WANTED`] and the code. First wins. Written by threads alone.
    abort: AtomicU64,
    /// A reader was told of the call; and that its data has ended.
    pub(crate) announced: AtomicBool,
    pub(crate) end_told: AtomicBool,
    /// The user handed the call over to its socket: release it when it is complete.
    pub(crate) lingering: AtomicBool,

    pub(crate) bytes_received: AtomicU64,
    /// Of these, bytes that the reader has taken. Written under `received`.
    pub(crate) bytes_read: AtomicU64,
    pub(crate) bytes_sent: AtomicU64,
    /// The core's account of all its readers.
    pub(crate) core_account: Arc<ReadAccount>,
}

const ABORT_WANTED: u64 = 1 << 32;
/// No length was declared.
pub(crate) const ANY_LENGTH: u64 = u64::MAX;

/// A call's other ends, for its core alone: the rings' far sides, and with them the right to complete the call.
///
/// It stands for the references that the core has, and goes back to the threads with the last of them. Dropping it
/// instead (a command that never ran, a core that stopped) completes the call, so that nobody waits for a core that
/// is gone.
pub(crate) struct CoreHalf {
    pub(crate) shared: Arc<CallShared>,
    pub(crate) received: Producer<u8>,
    pub(crate) to_send: Consumer<u8>,
    /// What the call begins with, on its way to the core.
    pub(crate) begin: Option<(Target, CallOptions)>,
    /// Why it could not begin, on its way back.
    pub(crate) begin_error: Option<BeginError>,
    /// Nobody but the core knows the call, or its socket was closed: that released it.
    pub(crate) closed: bool,
    /// The half of a call, not a spare.
    pub(super) in_use: bool,
}

impl CoreHalf {
    /// Publishes how the call ended. True: this was the first to say so; later ones change nothing.
    pub(crate) fn complete(&mut self, end: CallEnd) -> bool {
        self.shared.completion.set(end)
    }

    pub(crate) fn name(&self) -> CallName {
        self.shared.name()
    }
}

impl Drop for CoreHalf {
    fn drop(&mut self) {
        if self.in_use {
            self.complete(CallEnd::CoreGone);
            let charged = self.shared.charged.load(Ordering::Relaxed);
            self.shared.core_is_gone(self.closed || charged);
            self.shared.wake_all();
        }
    }
}

/// What a new call is made of.
pub(crate) struct NewCall<'a> {
    pub(crate) user_id: u64,
    pub(crate) by_id: bool,
    pub(crate) socket: SocketId,
    pub(crate) calls_max: usize,
    pub(crate) ledger: &'a Arc<CallLedger>,
}

impl CallShared {
    /// Makes both halves, for a place in a table. Allocates; so this is a thread's to do, never a core's.
    pub(super) fn halves(home: &Arc<CallTable>, index: u32) -> Box<CoreHalf> {
        let (receive_buffer, send_buffer) = home.buffers;
        let (received, read) = RingBuffer::new(receive_buffer);
        let (write, to_send) = RingBuffer::new(send_buffer);
        let shared = Arc::new(CallShared {
            home: Arc::downgrade(home),
            core: home.core,
            index,
            generation: AtomicU32::new(0),
            fate: Mutex::default(),
            charged: AtomicBool::new(false),
            work: Link::default(),
            linked: Link::default(),
            user_id: AtomicU64::new(0),
            socket: AtomicU64::new(0),
            by_id: AtomicBool::new(false),
            slot: AtomicU32::new(u32::MAX),
            peer: PeerCell::default(),
            completion: CompletionCell::default(),
            released: AtomicBool::new(true),
            received: Mutex::new(read),
            received_all: AtomicBool::new(false),
            reader_behind: AtomicBool::new(false),
            readable: SocketWq::default(),
            to_send: Mutex::new(write),
            sent_all: AtomicBool::new(false),
            tx_length: AtomicU64::new(ANY_LENGTH),
            bytes_put: AtomicU64::new(0),
            upgraded: AtomicU32::new(0),
            writable: SocketWq::default(),
            abort: AtomicU64::new(0),
            announced: AtomicBool::new(false),
            end_told: AtomicBool::new(false),
            lingering: AtomicBool::new(false),
            bytes_received: AtomicU64::new(0),
            bytes_read: AtomicU64::new(0),
            bytes_sent: AtomicU64::new(0),
            core_account: home.account.clone(),
        });
        Box::new(CoreHalf {
            shared,
            received,
            to_send,
            begin: None,
            begin_error: None,
            closed: false,
            in_use: false,
        })
    }

    /// Brings both halves into the first state of a new call, which nobody else knows yet.
    pub(super) fn renew(half: &mut CoreHalf, new: &NewCall<'_>) {
        let call = &*half.shared;
        for flag in [
            &call.received_all,
            &call.reader_behind,
            &call.sent_all,
            &call.announced,
            &call.end_told,
            &call.lingering,
            &call.charged,
            &call.released,
        ] {
            flag.store(false, Ordering::Relaxed);
        }
        for count in [&call.bytes_received, &call.bytes_read, &call.bytes_sent, &call.bytes_put, &call.abort]
        {
            count.store(0, Ordering::Relaxed);
        }
        call.tx_length.store(ANY_LENGTH, Ordering::Relaxed);
        call.upgraded.store(0, Ordering::Relaxed);
        debug_assert!(!call.work.is_set() && !call.linked.is_set());
        call.completion.reset();
        call.peer.reset();
        call.slot.store(u32::MAX, Ordering::Relaxed);
        call.by_id.store(new.by_id, Ordering::Relaxed);
        call.user_id.store(new.user_id, Ordering::Relaxed);
        let socket = u64::from(new.socket.slot) << 32 | u64::from(new.socket.generation);
        call.socket.store(socket, Ordering::Relaxed);
        *call.fate() = Fate::begin(new.ledger.clone());
        let unsent = half.to_send.slots();
        half.to_send.read_chunk(unsent).expect("so many slots are there").commit_all();
        (half.begin, half.begin_error, half.closed, half.in_use) = (None, None, false, true);
    }

    pub(super) fn fate(&self) -> MutexGuard<'_, Fate> {
        self.fate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn name(&self) -> CallName {
        CallName { index: self.index, generation: self.generation.load(Ordering::Relaxed) }
    }

    pub(crate) fn user_id(&self) -> u64 {
        self.user_id.load(Ordering::Relaxed)
    }

    pub(crate) fn by_id(&self) -> bool {
        self.by_id.load(Ordering::Relaxed)
    }

    /// The name of the call's socket.
    pub(crate) fn socket(&self) -> SocketId {
        let id = self.socket.load(Ordering::Relaxed);
        SocketId { slot: (id >> 32) as u32, generation: id as u32 }
    }

    /// Whether it is a charged accept that no call has used.
    pub(crate) fn is_charged(&self) -> bool {
        self.charged.load(Ordering::Relaxed)
    }

    pub(crate) fn is_released(&self) -> bool {
        self.released.load(Ordering::Acquire)
    }

    /// Asks the core to abort the call. The first request stands.
    pub(crate) fn request_abort(&self, code: i32) {
        let wanted = ABORT_WANTED | u64::from(code as u32);
        let _ = self.abort.compare_exchange(0, wanted, Ordering::AcqRel, Ordering::Relaxed);
    }

    /// The code that the user wants the call aborted with.
    pub(crate) fn abort_requested(&self) -> Option<i32> {
        let wanted = self.abort.load(Ordering::Acquire);
        (wanted & ABORT_WANTED != 0).then_some(wanted as u32 as i32)
    }

    /// Throws away what lies unread: nobody will read it. For threads.
    pub(super) fn discard_unread(&self) {
        let mut ring = self.received.lock().unwrap_or_else(PoisonError::into_inner);
        let unread = ring.slots();
        ring.read_chunk(unread).expect("so many slots are there").commit_all();
        self.count_read(unread);
    }

    /// A reader, which has the ring's lock, took so many bytes.
    pub(super) fn count_read(&self, bytes: usize) {
        let read = self.bytes_read.load(Ordering::Relaxed) + bytes as u64;
        self.bytes_read.store(read, Ordering::Release);
        self.core_account.add_read(bytes as u64);
    }

    /// Wakes whoever waits for the call: for threads. A core does it at the end of its burst.
    pub(super) fn wake_all(&self) {
        self.readable.wake_all();
        self.writable.wake_all();
    }
}
