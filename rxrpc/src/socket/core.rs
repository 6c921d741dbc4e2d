//! [`SocketApp`]: the socket API's side of a core. It moves bytes between the core's endpoint and the rings of readers
//! and writers, and tells sockets what happened.
//!
//! Owned by its core: plain data, no lock. Threads reach it by [`SocketCommand`]s, it reaches them through what they
//! share ([`CallShared`], [`SocketShared`]) and wakes each of them once a turn. A call names its socket by
//! [`SocketId`]; a socket that was closed meanwhile is `None` here, and the call ends.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use engine::wq::Barrier;
use rtrb::Producer;

use super::budget::{ReadAccount, ReadBudget};
use super::call_ref::{AcceptQueue, CallRef, ReceiveQueue, Service, UserId, Work, hold};
use super::call_shared::{CallPeer, CallShared, CoreHalf, SocketId};
use super::completion::CallEnd;
use super::core_call::CoreCall;
use super::core_socket::{CoreSockets, SocketHalf};
use super::inline::{InlineCall, Spares};
use crate::control::Done;
use crate::{App, BeginError, CallId, CallOptions, Completion, Event, LocalId, Rx, Target, code};

/// What threads tell a core.
pub enum SocketCommand {
    /// A socket comes into being on this core.
    Open(Box<SocketHalf>),
    /// An accept is charged.
    Charge(Charge),
    /// A call begins.
    Begin(Box<Begin>),
    /// There is something to do for a call: bytes to send, room to read into, an abort.
    Work(QueuedWork),
    /// A call is released: the reference of whoever named it for the user ends here.
    Release(Named),
    /// The socket is closed: all its calls are released, incomplete ones aborted.
    Close(SocketId, Done),
}

/// A charged accept. Dropped unused, because its core stopped or its socket closed, it ends its call.
pub struct Charge(Option<(CallRef<AcceptQueue>, Box<CoreHalf>)>);

impl Charge {
    pub(super) fn new(reference: CallRef<AcceptQueue>, half: Box<CoreHalf>) -> Self {
        Charge(Some((reference, half)))
    }

    fn socket(&self) -> SocketId {
        self.0.as_ref().expect("there until it is taken").1.shared.socket
    }

    fn take(mut self) -> (CallRef<AcceptQueue>, Box<CoreHalf>) {
        self.0.take().expect("taken once, here")
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        if let Some((reference, half)) = self.0.take() {
            half.shared.complete(CallEnd::SocketClosed);
            half.shared.mark_released();
            drop(half);
            drop(reference);
        }
    }
}

/// A call to begin.
pub struct Begin {
    pub(super) work: CallRef<Work>,
    pub(super) half: Box<CoreHalf>,
    pub(super) target: Target,
    pub(super) options: CallOptions,
}

/// A call's place in the core's inbox. It has one at most.
pub struct QueuedWork(pub(super) CallRef<Work>);

/// The reference of whoever named a call for its user, on its way to be put.
pub struct Named(Name);

enum Name {
    ById(CallRef<UserId>),
    ByHandle(CallRef<Service>),
}

impl Named {
    pub(super) fn by_id(reference: CallRef<UserId>) -> Self {
        Named(Name::ById(reference))
    }

    pub(super) fn by_handle(reference: CallRef<Service>) -> Self {
        Named(Name::ByHandle(reference))
    }

    pub(super) fn shared(&self) -> &Arc<CallShared> {
        match &self.0 {
            Name::ById(reference) => reference.shared(),
            Name::ByHandle(reference) => reference.shared(),
        }
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        // Complete by now, unless the core stopped before it came to this.
        self.shared().complete(CallEnd::CoreGone);
    }
}

/// A slot of the core's calls, at the place of their [`CallId`].
#[derive(Default)]
enum Slot {
    #[default]
    Free,
    Threads(CoreCall),
    Inline(InlineCall),
}

/// See the module.
pub struct SocketApp {
    sockets: CoreSockets,
    calls: Vec<Slot>,
    budget: ReadBudget,
    spares: Spares,
    touched: Touched,
    /// Halves of released calls, on their way back to a thread that frees them: a core does not.
    ended: Producer<Box<CoreHalf>>,
}

/// Whom to wake at the end of the turn, by slot. A slot that has another tenant by then is woken for nothing.
#[derive(Default)]
struct Touched {
    readers: Vec<usize>,
    writers: Vec<usize>,
    sockets: Vec<SocketId>,
}

impl SocketApp {
    /// A core's app that lets readers leave `unread_budget` bytes unread, of which they count in `account` what they read.
    pub(super) fn new(
        unread_budget: usize,
        account: Arc<ReadAccount>,
        ended: Producer<Box<CoreHalf>>,
    ) -> Self {
        SocketApp {
            sockets: CoreSockets::default(),
            calls: Vec::new(),
            budget: ReadBudget::new(unread_budget, account),
            spares: Spares::default(),
            touched: Touched::default(),
            ended,
        }
    }

    // ---- commands ----

    fn charge(&mut self, rx: &mut Rx<'_>, charge: Charge) {
        if let Some(socket) = self.sockets.get(charge.socket())
            && let Some((local, service)) = socket.service
            && rx.endpoint.charge(local, service, 1).is_ok()
        {
            socket.charged.push_back(charge);
        } else {
            self.end_unused(charge);
        }
    }

    /// Ends a charged call that no client came for.
    fn end_unused(&mut self, charge: Charge) {
        let (reference, half) = charge.take();
        half.shared.complete(CallEnd::SocketClosed);
        half.shared.mark_released();
        self.bury(half);
        drop(reference);
    }

    fn begin(&mut self, rx: &mut Rx<'_>, begin: Begin) {
        let Begin { work, half, target, options } = begin;
        let shared = half.shared.clone();
        let Some(socket) = self.sockets.get(shared.socket) else {
            shared.complete(CallEnd::SocketClosed);
            shared.mark_released();
            self.bury(half);
            return;
        };
        let local = match socket.half.shared.local {
            Some(addr) => rx.local(addr),
            None => rx.client_local(target.peer),
        };
        let begun = match local {
            Some(local) => rx.begin(local, target, options),
            None => Err(BeginError::UnknownLocal),
        };
        match begun {
            Ok(id) => {
                self.insert(CoreCall::new(id, shared.socket, half));
                self.work(rx, work);
            }
            Err(error) => {
                let _ = shared.begin_error.set(error);
                shared.complete(CallEnd::NotBegun);
                if shared.by_id {
                    self.link(&shared);
                }
                self.bury(half);
            }
        }
    }

    fn insert(&mut self, call: CoreCall) {
        let slot = call.id.slot();
        call.half.shared.slot.store(slot as u32, Ordering::Relaxed);
        self.put(slot, Slot::Threads(call));
    }

    fn put(&mut self, slot: usize, tenant: Slot) {
        if slot >= self.calls.len() {
            self.calls.resize_with(slot + 1, Slot::default);
        }
        self.calls[slot] = tenant;
    }

    /// Does what there is to do for a call. The queued reference is put first: what is asked for from here on queues
    /// the call anew.
    fn work(&mut self, rx: &mut Rx<'_>, work: CallRef<Work>) {
        let slot = self.slot_of(work.shared());
        drop(work);
        let Some(slot) = slot else { return };
        let Slot::Threads(call) = &mut self.calls[slot] else { return };
        let complete = call.half.shared.completion.get().is_some();
        if !complete {
            if let Some(code) = call.half.shared.abort_requested() {
                return rx.abort(call.id, code);
            }
            if call.push(rx) {
                self.touched.writers.push(slot);
            }
        }
        self.pull(rx, slot);
        if complete {
            self.link_if_lingering(slot);
        }
    }

    /// The slot of a call that is in progress on this core, or complete and not released.
    fn slot_of(&self, shared: &Arc<CallShared>) -> Option<usize> {
        let slot = shared.slot.load(Ordering::Relaxed) as usize;
        match self.calls.get(slot)? {
            Slot::Threads(call) if Arc::ptr_eq(&call.half.shared, shared) => Some(slot),
            _ => None,
        }
    }

    fn is_tenant(&self, call: CallId) -> bool {
        self.calls.get(call.slot()).and_then(Slot::id) == Some(call)
    }

    /// A socket operation released the call: what it owes the peer is sent, and its slot is free.
    fn release(&mut self, rx: &mut Rx<'_>, named: Named) {
        if let Some(slot) = self.slot_of(named.shared()) {
            let code = named.shared().abort_requested().unwrap_or(code::USER_ABORT);
            self.end(rx, slot, code, CallEnd::Protocol(Completion::LocalAbort(code)));
        }
        let socket = named.shared().socket;
        drop(named);
        // Whoever accepts sleeps until the end of this turn at least, and finds that there is room for another call.
        if self
            .sockets
            .get(socket)
            .is_some_and(|socket| socket.half.shared.wants_calls.load(Ordering::Relaxed))
        {
            self.touched.sockets.push(socket);
        }
    }

    /// Takes a call out of its slot. If it is incomplete it is aborted with `code`, and `end` is how it ended.
    fn end(&mut self, rx: &mut Rx<'_>, slot: usize, code: i32, end: CallEnd) {
        match std::mem::take(&mut self.calls[slot]) {
            Slot::Free => {}
            Slot::Threads(call) => {
                rx.abort(call.id, code);
                rx.release(call.id);
                call.half.shared.complete(end);
                call.half.shared.mark_released();
                self.budget.forget(call.unread());
                self.bury(call.half);
            }
            Slot::Inline(call) => {
                rx.abort(call.id, code);
                rx.release(call.id);
                call.recycle(&mut self.spares);
            }
        }
    }

    /// The socket is closed: it listens no more, and all its calls are released, incomplete ones aborted.
    fn close(&mut self, rx: &mut Rx<'_>, id: SocketId) {
        let Some(mut socket) = self.sockets.close(rx, id) else { return };
        for charge in socket.charged.drain(..) {
            self.end_unused(charge);
        }
        for slot in 0..self.calls.len() {
            if self.calls[slot].socket() == Some(id) {
                self.end(rx, slot, code::CALL_DEAD, CallEnd::SocketClosed);
            }
        }
    }

    /// Sends a released call's half to a thread that frees it, and wakes who may still wait for it.
    fn bury(&mut self, half: Box<CoreHalf>) {
        half.shared.readable.wake_all();
        half.shared.writable.wake_all();
        // Full: then the core frees it after all. Threads empty the ring whenever they begin or charge a call.
        let _ = self.ended.push(half);
    }

    // ---- events ----

    fn incoming(&mut self, rx: &mut Rx<'_>, id: CallId, local: LocalId, peer: CallPeer) {
        let Some(socket) = self.sockets.listening(local, peer.service) else {
            return rx.reject(id, code::INVALID_OPERATION);
        };
        if socket.half.inline.is_some() {
            let call = InlineCall::new(id, socket.id(), peer, &mut self.spares);
            return self.put(id.slot(), Slot::Inline(call));
        }
        let Some(charge) = socket.charged.pop_front() else {
            return rx.reject(id, code::CALL_DEAD);
        };
        let (reference, half) = charge.take();
        let _ = half.shared.peer.set(peer);
        if let Some(link) = reference.pass::<ReceiveQueue>() {
            socket.link(link);
        }
        self.touched.sockets.push(socket.id());
        let call = CoreCall::new(id, socket.id(), half);
        self.insert(call);
    }

    fn readable(&mut self, rx: &mut Rx<'_>, slot: usize) {
        match self.calls.get_mut(slot) {
            Some(Slot::Threads(_)) => self.pull(rx, slot),
            Some(Slot::Inline(call)) => {
                if let Some(service) =
                    self.sockets.get(call.socket).and_then(|socket| socket.half.inline.clone())
                {
                    call.readable(rx, &service);
                }
            }
            _ => {}
        }
    }

    fn pull(&mut self, rx: &mut Rx<'_>, slot: usize) {
        let Slot::Threads(call) = &mut self.calls[slot] else { return };
        if call.pull(rx, &mut self.budget) {
            self.touched.readers.push(slot);
            if call.half.shared.by_id {
                let shared = call.half.shared.clone();
                self.link(&shared);
            }
        }
    }

    fn writable(&mut self, rx: &mut Rx<'_>, slot: usize) {
        match self.calls.get_mut(slot) {
            Some(Slot::Threads(call)) => {
                let made_room = call.push(rx);
                self.touched.writers.extend(made_room.then_some(slot));
            }
            Some(Slot::Inline(call)) => call.writable(rx),
            _ => {}
        }
    }

    fn complete(&mut self, rx: &mut Rx<'_>, slot: usize, completion: Completion) {
        match self.calls.get(slot) {
            Some(Slot::Threads(_)) => {
                self.pull(rx, slot);
                let Slot::Threads(call) = &self.calls[slot] else { return };
                let shared = call.half.shared.clone();
                shared.complete(CallEnd::Protocol(completion));
                self.touched.readers.push(slot);
                self.touched.writers.push(slot);
                if shared.by_id || shared.lingering.load(Ordering::Acquire) {
                    self.link(&shared);
                }
            }
            // An inline service has nothing to learn from it.
            Some(Slot::Inline(_)) => self.end(rx, slot, code::CALL_DEAD, CallEnd::Protocol(completion)),
            _ => {}
        }
    }

    fn link_if_lingering(&mut self, slot: usize) {
        let Slot::Threads(call) = &self.calls[slot] else { return };
        if call.half.shared.lingering.load(Ordering::Acquire) {
            let shared = call.half.shared.clone();
            self.link(&shared);
        }
    }

    /// Puts a call on its socket's receive queue, unless it is there or its socket is gone.
    fn link(&mut self, shared: &Arc<CallShared>) {
        let Some(socket) = self.sockets.get(shared.socket) else { return };
        if let Some(link) = hold::<ReceiveQueue>(shared) {
            socket.link(link);
        }
        self.touched.sockets.push(shared.socket);
    }

    /// Wakes everybody who was touched in this turn, behind one barrier.
    fn wake(&mut self, rx: &Rx<'_>) {
        let Touched { readers, writers, sockets } = &mut self.touched;
        if readers.is_empty() && writers.is_empty() && sockets.is_empty() {
            return;
        }
        let barrier = Barrier::publish();
        for slot in readers.drain(..) {
            if let Slot::Threads(call) = &self.calls[slot] {
                call.half.shared.readable.wake(rx.guard, &barrier);
            }
        }
        for slot in writers.drain(..) {
            if let Slot::Threads(call) = &self.calls[slot] {
                call.half.shared.writable.wake(rx.guard, &barrier);
            }
        }
        for id in sockets.drain(..) {
            if let Some(socket) = self.sockets.get(id) {
                socket.half.shared.readable.wake(rx.guard, &barrier);
            }
        }
    }
}

impl Slot {
    fn id(&self) -> Option<CallId> {
        match self {
            Slot::Free => None,
            Slot::Threads(call) => Some(call.id),
            Slot::Inline(call) => Some(call.id),
        }
    }

    fn socket(&self) -> Option<SocketId> {
        match self {
            Slot::Free => None,
            Slot::Threads(call) => Some(call.socket),
            Slot::Inline(call) => Some(call.socket),
        }
    }
}

impl App for SocketApp {
    type Command = SocketCommand;

    fn command(&mut self, rx: &mut Rx<'_>, command: SocketCommand) {
        match command {
            SocketCommand::Open(half) => self.sockets.open(rx, *half),
            SocketCommand::Charge(charge) => self.charge(rx, charge),
            SocketCommand::Begin(begin) => self.begin(rx, *begin),
            SocketCommand::Work(QueuedWork(work)) => self.work(rx, work),
            SocketCommand::Release(named) => self.release(rx, named),
            SocketCommand::Close(id, done) => {
                self.close(rx, id);
                drop(done);
            }
        }
    }

    fn event(&mut self, rx: &mut Rx<'_>, event: Event) {
        match event {
            Event::Incoming { call, local, service, peer } => {
                self.incoming(rx, call, local, CallPeer { addr: peer, service });
            }
            Event::Readable { call } if self.is_tenant(call) => self.readable(rx, call.slot()),
            Event::Writable { call } if self.is_tenant(call) => self.writable(rx, call.slot()),
            Event::Complete { call, completion } if self.is_tenant(call) => {
                self.complete(rx, call.slot(), completion)
            }
            // Released here, in this turn.
            Event::Readable { .. } | Event::Writable { .. } | Event::Complete { .. } => {}
            // This app asks no peer anything.
            Event::Version { .. } | Event::Debug { .. } => {}
        }
    }

    fn expire(&mut self, rx: &mut Rx<'_>) {
        self.wake(rx);
    }
}
