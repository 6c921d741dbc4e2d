//! What all sockets of an engine share, and the operations that every kind of socket is made of.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use engine::{CommandSender, SendError};
use rtrb::{Consumer, RingBuffer};

use super::budget::ReadAccount;
use super::call_ref::{CallRef, Service, UserId, Work, hold};
use super::call_shared::{CallLedger, CallShared, CoreHalf, NewCall, SocketId};
use super::completion::CallEnd;
use super::config::SocketConfig;
use super::core::{Begin, Named, QueuedWork, SocketCommand};
use super::core_socket::SocketHalf;
use super::error::{BindFailed, CallFailed};
use super::inline::InlineService;
use super::socket_shared::SocketShared;
use crate::control::{ClientPorts, Done, OpenLocal};
use crate::handler::RxCommand;
use crate::{CallOptions, ServiceConfig, Target};

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
    slots: Mutex<Slots>,
    next_call: AtomicU64,
    next_core: AtomicUsize,
}

/// One core, as threads reach it.
pub(super) struct CoreLink {
    pub(super) commands: CommandSender<RxCommand<SocketCommand>>,
    pub(super) account: Arc<ReadAccount>,
    /// Halves of calls that ended there, to be freed here.
    pub(super) ended: Mutex<Consumer<Box<CoreHalf>>>,
}

/// Which socket slots are in use.
#[derive(Default)]
struct Slots {
    free: Vec<u32>,
    generations: Vec<u32>,
}

/// IDs of calls that go by a handle; those of users have the high bit clear.
const HANDLE_IDS: u64 = 1 << 63;

impl Api {
    pub(super) fn new(config: SocketConfig, cores: Vec<CoreLink>) -> Self {
        Api {
            config,
            cores,
            ledger: Arc::default(),
            clients: OnceLock::new(),
            locals: Mutex::default(),
            slots: Mutex::default(),
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

    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // ---- sockets ----

    /// Makes a socket known to every core.
    pub(super) fn open_socket(
        &self,
        local: Option<SocketAddr>,
        service: Option<ServiceConfig>,
        inline: Option<InlineService>,
    ) -> Result<Arc<SocketShared>, BindFailed> {
        let id = self.take_slot();
        let calls_max = self.config.calls_max;
        let (producers, consumers): (Vec<_>, Vec<_>) =
            self.cores.iter().map(|_| RingBuffer::new(calls_max)).unzip();
        let ledger = Arc::new(CallLedger::of(&self.ledger));
        let number = service.map_or(0, |service| service.service);
        let shared = Arc::new(SocketShared::new(id, local, number, ledger, consumers));
        let failed = Arc::new(OnceLock::new());
        let (tokens, done) = Done::tokens(self.cores.len());
        for (core, (queue, token)) in producers.into_iter().zip(tokens).enumerate() {
            let half = SocketHalf {
                shared: shared.clone(),
                queue,
                service,
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

    /// Closes a socket: marked closed, unpublished on every core together with the abort of its calls, then drained.
    ///
    /// A core forgets a socket between two packets, so when every core has, nobody can reach it any more: that wait is
    /// the grace period.
    pub(super) fn close_socket(&self, socket: &SocketShared) {
        assert!(
            !engine::rcu::is_core(),
            "a socket was closed on a polling thread, which would wait for itself"
        );
        if !socket.mark_closed() {
            return;
        }
        let (tokens, done) = Done::tokens(self.cores.len());
        for (core, token) in tokens.into_iter().enumerate() {
            self.tell(core, SocketCommand::Close(socket.id, token));
        }
        done.wait();
        socket.readable.wake_all();
        let drain = |shared: &CallShared| {
            shared.complete(CallEnd::SocketClosed);
            shared.mark_released();
        };
        let mut queue = socket.queue();
        while let Some(link) = queue.pop() {
            drain(&link);
        }
        drop(queue);
        for (_, call) in socket.ids().drain() {
            drain(&call);
        }
        self.free_ended();
        self.give_slot(socket.id);
    }

    fn take_slot(&self) -> SocketId {
        let mut slots = self.slots();
        let slot = slots.free.pop().unwrap_or_else(|| {
            slots.generations.push(0);
            slots.generations.len() as u32 - 1
        });
        SocketId { slot, generation: slots.generations[slot as usize] }
    }

    fn give_slot(&self, id: SocketId) {
        let mut slots = self.slots();
        slots.generations[id.slot as usize] += 1;
        slots.free.push(id.slot);
    }

    // ---- calls ----

    /// Makes a call's two halves, within the socket's and the core's limit. It has no reference yet: give it one at once.
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
            core,
            receive_buffer: self.config.receive_buffer,
            send_buffer: self.config.send_buffer,
            calls_max: self.config.calls_max,
            unread_budget: self.config.unread_budget,
            core_account: &self.cores[core].account,
            ledger: &socket.ledger,
        };
        CallShared::halves(new).map(Box::new).map_err(|limit| CallFailed::TooManyCalls { limit })
    }

    /// Begins a call, with `request` in its send ring already as far as that has room for it. Returns what had not.
    pub(super) fn begin(
        &self,
        half: Box<CoreHalf>,
        work: CallRef<Work>,
        target: Target,
        options: CallOptions,
    ) -> Result<(), CallFailed> {
        let core = half.shared.core;
        let begin = Begin { half, work, target, options };
        if self.tell(core, SocketCommand::Begin(Box::new(begin))) {
            Ok(())
        } else {
            Err(CallFailed::Ended(CallEnd::CoreGone))
        }
    }

    /// Has the call's core look at the call, unless it is going to.
    pub(super) fn queue_work(&self, shared: &Arc<CallShared>) {
        if let Some(work) = hold::<Work>(shared) {
            self.tell(shared.core, SocketCommand::Work(QueuedWork(work)));
        }
    }

    /// Releases a call, once; an incomplete one is aborted with `code`. The reference of whoever named the call travels
    /// to the call's core and ends there.
    pub(super) fn release(&self, named: Named, code: i32) {
        let shared = named.shared().clone();
        if !shared.mark_released() {
            return;
        }
        shared.request_abort(code);
        // Nobody reads or writes from here on; what the core makes of the rings is its own.
        *lock(&shared.received) = None;
        *lock(&shared.to_send) = None;
        self.tell(shared.core, SocketCommand::Release(named));
    }

    /// Releases a call that goes by its user ID; the ID is free at once.
    pub(super) fn release_id(&self, socket: &SocketShared, user_id: u64, code: i32) -> bool {
        let Some(call) = socket.ids().remove(&user_id) else { return false };
        self.release(Named::by_id(call), code);
        true
    }

    /// Gives a call back to its socket, which releases it when it is complete: the next operation on the socket that
    /// looks at its receive queue does, or its close.
    pub(super) fn linger(&self, socket: &SocketShared, held: CallRef<Service>) {
        let shared = held.shared().clone();
        shared.lingering.store(true, Ordering::Release);
        if shared.completion.get().is_some() {
            return self.release(Named::by_handle(held), 0);
        }
        if let Some(by_id) = held.pass::<UserId>() {
            socket.ids().insert(shared.user_id, by_id);
        }
        // The core links it when it is complete, also if it was complete before the flag was set.
        self.queue_work(&shared);
    }

    // ---- memory ----

    /// Frees what calls that ended on a core have left.
    fn free_ended_of(&self, core: usize) {
        let mut ended = lock(&self.cores[core].ended);
        while let Ok(half) = ended.pop() {
            drop(half);
        }
    }

    /// The same for all cores.
    pub(super) fn free_ended(&self) {
        (0..self.cores.len()).for_each(|core| self.free_ended_of(core));
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
