//! The half of a call that threads share: what handles, receive queues and views reach.
//!
//! The other half, the protocol's state, is one core's alone and lives in its [`Endpoint`](crate::Endpoint). Between
//! them run two byte rings, one for each direction, single producer and single consumer, so neither side ever waits
//! for the other; a completion cell that is written once; and requests of the user, which are flags that the core reads
//! when a queued [`Work`](super::call_ref::Work) tells it to look.
//!
//! Deliberately absent: a pointer to the socket. A call names its socket by [`SocketId`], and whoever resolves that
//! must handle "gone".

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use rtrb::{Consumer, Producer, RingBuffer};

use super::budget::ReadAccount;
use super::call_ref::Holders;

use super::completion::{CallEnd, CompletionCell};
use crate::BeginError;
use engine::wq::SocketWq;

/// A socket of this API: slot and generation. The generation makes a name that outlives its socket resolve to nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SocketId {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
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
    fn begin(&self, limit: usize) -> bool {
        if self.live.fetch_add(1, Ordering::AcqRel) >= limit {
            self.live.fetch_sub(1, Ordering::AcqRel);
            return false;
        }
        self.begun.fetch_add(1, Ordering::Relaxed);
        self.whole.as_ref().is_none_or(|whole| whole.begin(usize::MAX))
    }

    fn end(&self) {
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

/// See the module.
pub(crate) struct CallShared {
    pub(crate) holders: Holders,
    pub(crate) user_id: u64,
    pub(crate) socket: SocketId,
    /// The core whose endpoint has the call's state.
    pub(crate) core: usize,
    /// The call's slot in that core's table; that core alone reads and writes it.
    pub(crate) slot: AtomicU32,
    pub(crate) peer: OnceLock<CallPeer>,
    /// The call goes by its user ID: its socket's receive queue says when something happened.
    pub(crate) by_id: bool,
    /// Why it could not begin; set before the completion says so.
    pub(crate) begin_error: OnceLock<BeginError>,
    pub(crate) completion: CompletionCell,
    /// A socket operation released the call: the user ID is free and no message carries it any more.
    released: AtomicBool,

    /// Received bytes. `None` once the call is released: nobody reads on.
    pub(crate) received: Mutex<Option<Consumer<u8>>>,
    /// The last byte of the other end's direction is in the ring.
    pub(crate) received_all: AtomicBool,
    /// The core left bytes in the endpoint because the reader had no room or no budget: a reader says when it has read.
    pub(crate) reader_behind: AtomicBool,
    pub(crate) readable: SocketWq,

    /// Bytes to send. `None` once the call is released.
    pub(crate) to_send: Mutex<Option<Producer<u8>>>,
    /// The user has sent its last byte: it is in the ring.
    pub(crate) sent_all: AtomicBool,
    pub(crate) writable: SocketWq,

    /// The user wants the call aborted: [`ABORT_WANTED`] and the code. First wins.
    abort: AtomicU64,
    /// A reader was told of the call; and that its data has ended.
    pub(crate) announced: AtomicBool,
    pub(crate) end_told: AtomicBool,
    /// The user handed the call over to its socket: release it when it is complete.
    pub(crate) lingering: AtomicBool,

    pub(crate) bytes_received: AtomicU64,
    /// Of these, bytes that the reader has taken.
    pub(crate) bytes_read: AtomicU64,
    /// The core's account of all its readers.
    pub(crate) core_account: Arc<ReadAccount>,
    pub(crate) bytes_sent: AtomicU64,
    ledger: Arc<CallLedger>,
}

const ABORT_WANTED: u64 = 1 << 32;

/// A call's other ends, for its core alone: the rings' far sides. Dropping it completes the call, whatever the reason
/// (a command that never ran, a core that stopped), so that nobody waits for a core that is gone.
pub(crate) struct CoreHalf {
    pub(crate) shared: Arc<CallShared>,
    pub(crate) received: Producer<u8>,
    pub(crate) to_send: Consumer<u8>,
}

impl Drop for CoreHalf {
    fn drop(&mut self) {
        self.shared.complete(CallEnd::CoreGone);
        self.shared.readable.wake_all();
        self.shared.writable.wake_all();
    }
}

/// What a new call is made of.
pub(crate) struct NewCall<'a> {
    pub(crate) user_id: u64,
    pub(crate) by_id: bool,
    pub(crate) socket: SocketId,
    pub(crate) core: usize,
    pub(crate) receive_buffer: usize,
    pub(crate) send_buffer: usize,
    pub(crate) calls_max: usize,
    pub(crate) unread_budget: usize,
    pub(crate) core_account: &'a Arc<ReadAccount>,
    pub(crate) ledger: &'a Arc<CallLedger>,
}

impl CallShared {
    /// Makes both halves. Allocates; so this is the application thread's to do, never a core's.
    /// The error is the limit that leaves no room for it: of the socket's calls or of the core's.
    pub(crate) fn halves(new: NewCall<'_>) -> Result<CoreHalf, usize> {
        if !new.ledger.begin(new.calls_max) {
            return Err(new.calls_max);
        }
        new.core_account.begin_call(new.unread_budget).inspect_err(|_| new.ledger.end())?;
        let (received, read) = RingBuffer::new(new.receive_buffer);
        let (write, to_send) = RingBuffer::new(new.send_buffer);
        let shared = Arc::new(CallShared {
            holders: Holders::default(),
            user_id: new.user_id,
            socket: new.socket,
            core: new.core,
            slot: AtomicU32::new(u32::MAX),
            peer: OnceLock::new(),
            by_id: new.by_id,
            begin_error: OnceLock::new(),
            completion: CompletionCell::default(),
            released: AtomicBool::new(false),
            received: Mutex::new(Some(read)),
            received_all: AtomicBool::new(false),
            reader_behind: AtomicBool::new(false),
            readable: SocketWq::default(),
            to_send: Mutex::new(Some(write)),
            sent_all: AtomicBool::new(false),
            writable: SocketWq::default(),
            abort: AtomicU64::new(0),
            announced: AtomicBool::new(false),
            end_told: AtomicBool::new(false),
            lingering: AtomicBool::new(false),
            bytes_received: AtomicU64::new(0),
            bytes_read: AtomicU64::new(0),
            core_account: new.core_account.clone(),
            bytes_sent: AtomicU64::new(0),
            ledger: new.ledger.clone(),
        });
        Ok(CoreHalf { shared, received, to_send })
    }

    /// Publishes how the call ended. True: this was the first to say so; later ones change nothing.
    pub(crate) fn complete(&self, end: CallEnd) -> bool {
        self.completion.set(end)
    }

    /// Marks the call released. True: by this caller, who now does what a release takes; false: it was already.
    pub(crate) fn mark_released(&self) -> bool {
        !self.released.swap(true, Ordering::AcqRel)
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

    /// The last reference was put. By now the call is complete and was released; its memory follows when nobody looks.
    pub(super) fn clean_up(&self) {
        assert!(self.is_released(), "a call's last reference was put before a socket operation released it");
        assert!(self.completion.get().is_some(), "a call's last reference was put before it was complete");
        self.ledger.end();
        self.core_account.end_call();
    }
}
