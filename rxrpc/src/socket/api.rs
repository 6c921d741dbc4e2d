//! What all sockets of an engine share, and the operations that every kind of socket is made of.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use engine::{CommandSender, SendError};
use rtrb::{Consumer, RingBuffer};

use super::ServiceId;
use super::budget::ReadAccount;
use super::call_ref::{CallRef, Holder, Service, UserId, Work};
use super::call_shared::{CallLedger, CallShared, CoreHalf, NewCall};
use super::call_table::CallTable;
use super::command::{Begin, NewTimeouts, QueuedWork, Released, Returned, SocketCommand};
use super::completion::CallEnd;
use super::config::SocketConfig;
use super::core_socket::SocketHalf;
use super::error::{BindFailed, CallFailed};
use super::inline::InlineService;
use super::socket_shared::{Ring, SocketShared};
use super::socket_table::SocketTable;
use crate::control::{ClientPorts, Done, OpenLocal};
use crate::handler::RxCommand;
use crate::{CallOptions, CallTimeouts, ListenError, ServiceConfig, Target};

/// An address that sockets listen on; it is closed with the last of them.
pub(super) type Local = OpenLocal<SocketCommand>;

/// See the module.
pub(super) struct Api {
    pub(super) config: SocketConfig,
    pub(super) cores: Vec<CoreLink>,
    pub(super) ledger: Arc<CallLedger>,
    /// Client ports of the engine, opened by the first client.
    pub(super) clients: OnceLock<ClientPorts<SocketCommand>>,
    pub(super) locals: Mutex<HashMap<SocketAddr, std::sync::Weak<Local>>>,
    pub(super) sockets: Arc<SocketTable>,
    next_call: AtomicU64,
    next_core: AtomicUsize,
}

/// One core, as threads reach it.
pub(super) struct CoreLink {
    pub(super) commands: CommandSender<RxCommand<SocketCommand>>,
    pub(super) account: Arc<ReadAccount>,
    pub(super) table: Arc<CallTable>,
    /// What ended there, to be judged here.
    pub(super) ended: Mutex<Consumer<Returned>>,
    /// Calls that the core aborted because the function that answers them panicked.
    pub(super) panicked: Arc<AtomicU64>,
}

/// IDs of calls that go by a handle; those of users have the high bit clear.
const HANDLE_IDS: u64 = 1 << 63;

impl Api {
    pub(super) fn new(config: SocketConfig, sockets: Arc<SocketTable>, cores: Vec<CoreLink>) -> Self {
        Api {
            config,
            cores,
            ledger: Arc::default(),
            clients: OnceLock::new(),
            locals: Mutex::default(),
            sockets,
            next_call: AtomicU64::new(HANDLE_IDS),
            next_core: AtomicUsize::new(0),
        }
    }

    /// A core for the next client: they take turns.
    pub(super) fn next_core(&self) -> usize {
        self.next_core.fetch_add(1, Ordering::Relaxed) % self.cores.len()
    }

    /// Tells a core something. False: it has stopped, and what was sent was dropped, which says so to whom it concerns.
    pub(super) fn tell(&self, core: usize, command: SocketCommand) -> bool {
        match self.cores[core].commands.send(RxCommand::App(command)) {
            Ok(()) => true,
            Err(SendError::Stopped(_) | SendError::Full(_)) => false,
        }
    }

    // ---- sockets ----

    /// Makes a socket known to every core.
    pub(super) fn open_socket(
        &self,
        local: Option<SocketAddr>,
        service: Option<ServiceConfig>,
        inline: Option<InlineService>,
    ) -> Result<Arc<SocketShared>, BindFailed> {
        let id = self.sockets.take_slot().map_err(|limit| BindFailed::TooManySockets { limit })?;
        let ring = |core: &CoreLink| {
            let (queue, linked) = RingBuffer::new(self.config.calls_max);
            (queue, Ring { linked, calls: core.table.clone() })
        };
        let (producers, rings): (Vec<_>, Vec<_>) = self.cores.iter().map(ring).unzip();
        let ledger = Arc::new(CallLedger::of(&self.ledger));
        let number = service.as_ref().map_or(0, |service| service.service);
        let shared = Arc::new(SocketShared::new(id, number, ledger, rings));
        self.sockets.publish(shared.clone());
        let failed = Arc::new(OnceLock::new());
        let (tokens, done) = Done::tokens(self.cores.len());
        for (core, (queue, token)) in producers.into_iter().zip(tokens).enumerate() {
            let half = SocketHalf {
                id,
                sockets: self.sockets.clone(),
                queue,
                local,
                service: service.clone(),
                inline: inline.clone(),
                failed: failed.clone(),
                done: Some(token),
            };
            self.tell(core, SocketCommand::Open(Box::new(half)));
        }
        done.wait();
        let failure = match failed.get() {
            Some(error) => BindFailed::Listen(*error),
            None if shared.is_dead() => BindFailed::Shutdown,
            None => return Ok(shared),
        };
        self.close_socket(&shared);
        Err(failure)
    }

    /// Closes a socket, in this order: marked closed, unpublished, unbound on every core together with the abort of its calls,
    /// a grace period, drained; then its slot is another's, and its memory is freed by RCU.
    pub(super) fn close_socket(&self, socket: &SocketShared) {
        assert!(
            !engine::rcu::is_core(),
            "a socket was closed on a polling thread, which would wait for itself"
        );
        if !socket.mark_closed() {
            return;
        }
        self.sockets.unpublish(socket.id);
        let (tokens, done) = Done::tokens(self.cores.len());
        for (core, token) in tokens.into_iter().enumerate() {
            self.tell(core, SocketCommand::Close(socket.id, token));
        }
        done.wait();
        // Whoever found the socket before is done with it after this.
        engine::rcu::synchronize();
        self.free_ended();
        let mut queue = socket.queue();
        while queue.pop().is_some() {}
        drop(queue);
        for (_, call) in socket.take_ids() {
            call.mark_released();
        }
        socket.readable.wake_all();
        self.sockets.give_slot(socket.id);
    }

    /// Has every core upgrade clients of a socket's service that ask for it. Waits until every core knows.
    pub(super) fn set_upgrade(&self, socket: &SocketShared, to: Option<ServiceId>) -> Result<(), BindFailed> {
        let (tokens, done) = Done::tokens(self.cores.len());
        for (core, token) in tokens.into_iter().enumerate() {
            self.tell(core, SocketCommand::SetUpgrade(socket.id, to.map(|to| to.0), token));
        }
        match done.wait() {
            0 => Ok(()),
            _ => Err(BindFailed::Listen(ListenError::UnknownService { service: socket.service })),
        }
    }

    // ---- calls ----

    /// Makes a call's two halves, within the socket's and the core's limit.
    pub(super) fn new_call(
        &self,
        socket: &SocketShared,
        user_id: Option<u64>,
        core: usize,
    ) -> Result<Box<CoreHalf>, CallFailed> {
        self.free_ended_of(core);
        if socket.is_closed() {
            return Err(CallFailed::Ended(CallEnd::SocketClosed));
        }
        let new = NewCall {
            user_id: user_id.unwrap_or_else(|| self.next_call.fetch_add(1, Ordering::Relaxed)),
            by_id: user_id.is_some(),
            socket: socket.id,
            calls_max: self.config.calls_max,
            ledger: &socket.ledger,
        };
        let table = &self.cores[core].table;
        let begun = table.begin(&new).or_else(|_| {
            // Calls of the socket may have ended on other cores.
            self.free_ended();
            table.begin(&new)
        });
        begun.map_err(|limit| CallFailed::TooManyCalls { limit })
    }

    /// Begins a call, with its request in its send ring as far as that has room for it. `work` goes along.
    pub(super) fn begin(
        &self,
        mut half: Box<CoreHalf>,
        work: CallRef<Work>,
        target: Target,
        options: CallOptions,
    ) -> Result<(), CallFailed> {
        let core = half.shared.core;
        half.begin = Some((target, options));
        if self.tell(core, SocketCommand::Begin(Begin(half))) {
            work.sent();
            Ok(())
        } else {
            Err(CallFailed::Ended(CallEnd::CoreGone))
        }
    }

    /// Has the call's core look at the call, unless it is going to.
    pub(super) fn queue_work(&self, shared: &Arc<CallShared>) {
        if let Some(work) = CallRef::<Work>::take(shared)
            && self.tell(shared.core, SocketCommand::Work(QueuedWork::new(&work)))
        {
            work.sent();
        }
    }

    /// Changes the time limits of a call in progress.
    pub(super) fn set_timeouts(&self, shared: &CallShared, timeouts: CallTimeouts) {
        let command = SocketCommand::SetTimeouts(NewTimeouts { call: shared.name(), timeouts });
        self.tell(shared.core, command);
    }

    /// Releases a call, once; an incomplete one is aborted with `code`. `held` is the reference of whoever named it for the
    /// user; it ends here.
    pub(super) fn release<H: Holder>(&self, held: CallRef<H>, code: i32) {
        let shared = held.shared();
        if !shared.mark_released() {
            return;
        }
        shared.request_abort(code);
        // Nobody reads or writes from here on.
        shared.discard_unread();
        shared.wake_all();
        self.tell(shared.core, SocketCommand::Release(Released(shared.name())));
    }

    /// Releases a call that goes by its user ID; the ID is free at once.
    pub(super) fn release_id(&self, socket: &SocketShared, user_id: u64, code: i32) -> bool {
        let Some(call) = socket.ids().remove(&user_id) else { return false };
        self.release(call, code);
        true
    }

    /// Gives a call back to its socket, which releases it when it is complete: the next operation on the socket that
    /// looks at its receive queue does, or its close.
    pub(super) fn linger(&self, held: CallRef<Service>) {
        let shared = held.shared().clone();
        shared.lingering.store(true, Ordering::Release);
        if shared.completion.get().is_some() {
            return self.release(held, 0);
        }
        let mut held = Some(held);
        self.sockets.with(shared.socket(), |socket| {
            let mut ids = socket.ids();
            // Close takes all IDs after it has said so.
            if !socket.is_closed()
                && let Some(by_id) = held.take().and_then(CallRef::pass::<UserId>)
            {
                ids.insert(shared.user_id(), by_id);
            }
        });
        match held {
            // Its socket is gone.
            Some(held) => self.release(held, crate::code::CALL_DEAD),
            // The core links it when it is complete, also if it was complete before the flag was set.
            None => self.queue_work(&shared),
        }
    }

    // ---- memory ----

    /// Judges what a core has given back.
    pub(super) fn free_ended_of(&self, core: usize) {
        let core = &self.cores[core];
        let mut ended = lock(&core.ended);
        while let Ok(returned) = ended.pop() {
            match returned {
                Returned::Half(half) => CallShared::give_back(half),
                Returned::Put(name) => {
                    if let Some(call) = core.table.find(name) {
                        call.core_put();
                    }
                }
            }
        }
    }

    /// The same for all cores.
    pub(super) fn free_ended(&self) {
        (0..self.cores.len()).for_each(|core| self.free_ended_of(core));
    }
}

impl Drop for Api {
    /// The last socket and the last handle are gone, so there is nothing to destroy, only to check that nothing is left.
    fn drop(&mut self) {
        let empty = self.cores.iter().all(|core| core.table.is_empty());
        debug_assert!(empty || std::thread::panicking(), "a call outlived its socket and its handles");
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
