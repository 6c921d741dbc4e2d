//! [`SocketApp`]: the socket API's side of a core. It moves bytes between the core's endpoint and the rings of readers
//! and writers, and tells sockets what happened.
//!
//! Owned by its core: plain data, no lock. Threads reach it by [`SocketCommand`]s, it reaches them through what they
//! share ([`CallShared`], [`SocketShared`](super::socket_shared::SocketShared)) with plain loads and stores, and wakes each of
//! them once a turn behind one barrier ([`settle`](super::settle)). A call names its socket by [`SocketId`]; a socket that
//! was closed meanwhile is `None` here, and the call ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use engine::Instant;
use rtrb::Producer;

use super::budget::ReadBudget;
use super::call_shared::{CallName, CallPeer, CoreHalf, SocketId};
use super::call_table::CallTable;
use super::command::{Begin, Charge, NewTimeouts, QueuedWork, Released, Returned, SocketCommand};
use super::completion::CallEnd;
use super::core_call::CoreCall;
use super::core_socket::CoreSockets;
use super::inline::{InlineCall, Spares};
use super::settle::Touched;
use super::socket_table::SocketTable;
use crate::{App, BeginError, CallId, Completion, Event, LocalId, Rx, SharedCall, code};

/// A slot of the core's calls, at the place of their [`CallId`].
#[derive(Default)]
pub(super) enum Slot {
    #[default]
    Free,
    Threads(CoreCall),
    Inline(InlineCall),
}

/// See the module.
pub struct SocketApp {
    pub(super) sockets: CoreSockets,
    pub(super) calls: Vec<Slot>,
    pub(super) budget: ReadBudget,
    spares: Spares,
    pub(super) touched: Touched,
    /// What threads share of this core's calls, and of all sockets.
    pub(super) table: Arc<CallTable>,
    pub(super) published: Arc<SocketTable>,
    /// What ended here, on its way back to the threads.
    ended: Producer<Returned>,
    /// Calls aborted because the function that answers them panicked. Written here alone.
    panicked: Arc<AtomicU64>,
}

impl SocketApp {
    /// A core's app, for calls within `unread_budget` bytes that readers may leave unread.
    pub(super) fn new(
        unread_budget: usize,
        table: Arc<CallTable>,
        published: Arc<SocketTable>,
        ended: Producer<Returned>,
        panicked: Arc<AtomicU64>,
    ) -> Self {
        SocketApp {
            sockets: CoreSockets::default(),
            calls: Vec::new(),
            budget: ReadBudget::new(unread_budget, table.account.clone()),
            spares: Spares::new(),
            touched: Touched::new(),
            table,
            published,
            ended,
            panicked,
        }
    }

    // ---- commands ----

    fn charge(&mut self, rx: &mut Rx<'_>, charge: Charge) {
        if let Some(socket) = self.sockets.get(charge.half().shared.socket())
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
        let mut half = charge.take();
        half.complete(CallEnd::SocketClosed);
        half.closed = true;
        self.hand_back(half);
    }

    fn begin(&mut self, rx: &mut Rx<'_>, Begin(mut half): Begin) {
        half.shared.work.clear();
        let (target, options) = half.begin.take().expect("a call begins with its target");
        let upgrade = options.upgrade;
        if half.shared.is_released() {
            // By somebody who was faster than its beginning.
            half.complete(CallEnd::Protocol(Completion::LocalAbort(code::USER_ABORT)));
            return self.hand_back(half);
        }
        let Some(socket) = self.sockets.get(half.shared.socket()) else {
            half.complete(CallEnd::SocketClosed);
            half.closed = true;
            return self.hand_back(half);
        };
        let local = match socket.half.local {
            Some(addr) => rx.local(addr),
            None => rx.client_local(target.peer),
        };
        let begun = match local {
            Some(local) => rx.begin(local, target, options),
            None => Err(BeginError::UnknownLocal),
        };
        match begun {
            Ok(id) => {
                let socket = half.shared.socket();
                let mut call = CoreCall::new(id, socket, half);
                call.asks_upgrade = upgrade;
                self.insert(call);
                self.run(rx, id.slot());
            }
            Err(error) => {
                half.begin_error = Some(error);
                half.complete(CallEnd::NotBegun);
                if half.shared.by_id() && half.shared.linked.set() {
                    socket.link(half.name());
                    let socket = half.shared.socket();
                    self.touch_socket(socket);
                }
                self.hand_back(half);
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

    /// A queued run of a call. Its reference is put first: what is asked for from here on queues the call anew.
    fn work(&mut self, rx: &mut Rx<'_>, QueuedWork(name): QueuedWork) {
        // The reference itself keeps the call from being gone.
        let Some(shared) = self.table.get(name, rx.guard) else { return };
        shared.work.clear();
        match self.slot_of(name, rx) {
            Some(slot) => self.run(rx, slot),
            // Its half is with the threads, so they judge whether this was the last reference.
            None => self.return_to_threads(Returned::Put(name)),
        }
    }

    /// Does what there is to do for a call, now and once more behind the burst's barrier.
    fn run(&mut self, rx: &mut Rx<'_>, slot: usize) {
        self.touch(slot, |touched| touched.work_again = true);
        self.look_at(rx, slot);
    }

    /// Does what threads ask for. A call that is complete is sent nothing and queued no more.
    pub(super) fn look_at(&mut self, rx: &mut Rx<'_>, slot: usize) {
        let Slot::Threads(call) = &mut self.calls[slot] else { return };
        let complete = call.half.shared.completion.get().is_some();
        if !complete {
            if let Some(code) = call.half.shared.abort_requested() {
                return rx.abort(call.id, code);
            }
            if call.push(rx) {
                self.touch(slot, |touched| touched.wake_writer = true);
            }
        }
        self.pull(rx, slot);
        if complete {
            self.link_if_lingering(slot);
        }
    }

    /// The slot of a call that is in progress on this core, or complete and not released.
    fn slot_of(&self, name: CallName, rx: &Rx<'_>) -> Option<usize> {
        let slot = self.table.get(name, rx.guard)?.slot.load(Ordering::Relaxed) as usize;
        match self.calls.get(slot)? {
            Slot::Threads(call) if call.half.name() == name => Some(slot),
            _ => None,
        }
    }

    fn is_tenant(&self, call: CallId) -> bool {
        self.calls.get(call.slot()).and_then(Slot::id) == Some(call)
    }

    /// A socket operation released the call: what it owes the peer is sent, and its slot is free.
    fn release(&mut self, rx: &mut Rx<'_>, Released(name): Released) {
        let Some(slot) = self.slot_of(name, rx) else { return self.release_charge(rx, name) };
        let Slot::Threads(call) = &self.calls[slot] else { return };
        let (socket, code) = (call.socket, call.half.shared.abort_requested());
        let code = code.unwrap_or(code::USER_ABORT);
        self.end(rx, slot, code, CallEnd::Protocol(Completion::LocalAbort(code)), false);
        // Whoever accepts sleeps until the end of this turn at least, and finds that there is room for another call.
        if self.published.get(socket, rx.guard).is_some_and(|s| s.wants_calls.load(Ordering::Relaxed)) {
            self.touch_socket(socket);
        }
    }

    /// A charged accept was released before a call used it.
    fn release_charge(&mut self, rx: &mut Rx<'_>, name: CallName) {
        let Some(shared) = self.table.get(name, rx.guard) else { return };
        let Some(socket) = self.sockets.get(shared.socket()) else { return };
        let Some(at) = socket.charged.iter().position(|charge| charge.half().name() == name) else { return };
        let charge = socket.charged.remove(at).expect("it is there");
        if let Some((local, service)) = socket.service {
            rx.endpoint.uncharge(local, service);
        }
        self.end_unused(charge);
    }

    /// Takes a call out of its slot. If it is incomplete it is aborted with `code`, and `end` is how it ended. `closed`: with
    /// its socket, which releases it.
    fn end(&mut self, rx: &mut Rx<'_>, slot: usize, code: i32, end: CallEnd, closed: bool) {
        match std::mem::take(&mut self.calls[slot]) {
            Slot::Free => {}
            Slot::Threads(CoreCall { id, mut half, .. }) => {
                rx.abort(id, code);
                rx.release(id);
                half.complete(end);
                half.closed |= closed;
                self.hand_back(half);
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
                self.end(rx, slot, code::CALL_DEAD, CallEnd::SocketClosed, true);
            }
        }
    }

    /// Gives an ended call's half back to the threads, and has who may still wait for the call woken.
    fn hand_back(&mut self, half: Box<CoreHalf>) {
        self.touched.ended(half.name());
        self.return_to_threads(Returned::Half(half));
    }

    fn return_to_threads(&mut self, returned: Returned) {
        // The ring has room for both of each call that there may be.
        let pushed = self.ended.push(returned);
        debug_assert!(pushed.is_ok(), "each call comes back once, and puts one run at most after that");
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
        let half = charge.take();
        half.shared.peer.set(peer);
        let call = CoreCall::new(id, socket.id(), half);
        self.insert(call);
        self.link(id.slot());
    }

    fn readable(&mut self, rx: &mut Rx<'_>, slot: usize) {
        match self.calls.get_mut(slot) {
            Some(Slot::Threads(_)) => self.pull(rx, slot),
            Some(Slot::Inline(call)) => {
                if let Some(service) =
                    self.sockets.get(call.socket).and_then(|socket| socket.half.inline.as_ref())
                {
                    call.readable(rx, service, &self.panicked);
                }
            }
            _ => {}
        }
    }

    pub(super) fn pull(&mut self, rx: &mut Rx<'_>, slot: usize) {
        let Slot::Threads(call) = &mut self.calls[slot] else { return };
        let news = call.pull(rx, &mut self.budget);
        let by_id = call.half.shared.by_id();
        // Also if there is no news: it may have to look again.
        self.touch(slot, |touched| touched.wake_reader |= news);
        if news && by_id {
            self.link(slot);
        }
    }

    fn writable(&mut self, rx: &mut Rx<'_>, slot: usize) {
        match self.calls.get_mut(slot) {
            Some(Slot::Threads(call)) => {
                let made_room = call.push(rx);
                self.touch(slot, |touched| touched.wake_writer |= made_room);
            }
            Some(Slot::Inline(call)) => call.writable(rx),
            _ => {}
        }
    }

    fn complete(&mut self, rx: &mut Rx<'_>, slot: usize, completion: Completion) {
        match self.calls.get(slot) {
            Some(Slot::Threads(_)) => {
                self.pull(rx, slot);
                let Slot::Threads(call) = &mut self.calls[slot] else { return };
                call.half.complete(CallEnd::Protocol(completion));
                let shared = &call.half.shared;
                let tell = shared.by_id() || shared.lingering.load(Ordering::Acquire);
                self.touch(slot, |touched| (touched.wake_reader, touched.wake_writer) = (true, true));
                if tell {
                    self.link(slot);
                }
            }
            // An inline service has nothing to learn from it.
            Some(Slot::Inline(_)) => {
                self.end(rx, slot, code::CALL_DEAD, CallEnd::Protocol(completion), false)
            }
            _ => {}
        }
    }

    fn link_if_lingering(&mut self, slot: usize) {
        let Slot::Threads(call) = &self.calls[slot] else { return };
        if call.half.shared.lingering.load(Ordering::Acquire) {
            self.link(slot);
        }
    }

    /// Puts a call on its socket's receive queue, unless it is there or its socket is gone.
    pub(super) fn link(&mut self, slot: usize) {
        let Slot::Threads(call) = &self.calls[slot] else { return };
        let Some(socket) = self.sockets.get(call.socket) else { return };
        if call.half.shared.linked.set() {
            socket.link(call.half.name());
            let socket = call.socket;
            self.touch_socket(socket);
        } else {
            self.touch(slot, |touched| touched.link_again = true);
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

    fn shared_call(&self, call: CallId) -> Option<SharedCall> {
        match self.calls.get(call.slot())? {
            Slot::Threads(tenant) if tenant.id == call => Some(SharedCall(tenant.half.name())),
            _ => None,
        }
    }

    fn command(&mut self, rx: &mut Rx<'_>, command: SocketCommand) {
        match command {
            SocketCommand::Open(half) => self.sockets.open(rx, *half),
            SocketCommand::Charge(charge) => self.charge(rx, charge),
            SocketCommand::Begin(begin) => self.begin(rx, begin),
            SocketCommand::Work(work) => self.work(rx, work),
            SocketCommand::SetTimeouts(NewTimeouts { call, timeouts }) => {
                if let Some(Slot::Threads(call)) = self.slot_of(call, rx).map(|slot| &self.calls[slot]) {
                    rx.endpoint.set_timeouts(rx.now, call.id, &timeouts);
                }
            }
            SocketCommand::SetUpgrade(id, to, done) => {
                let service = self.sockets.get(id).and_then(|socket| socket.service);
                let set = service
                    .is_some_and(|(local, service)| rx.endpoint.set_upgrade(local, service, to).is_ok());
                if !set {
                    done.refuse();
                }
            }
            SocketCommand::Release(released) => self.release(rx, released),
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
        self.settle(rx);
    }

    fn next_timeout(&self) -> Option<Instant> {
        // What a second look brought is told in the next turn.
        (!self.touched.is_empty()).then_some(Instant::default())
    }
}
