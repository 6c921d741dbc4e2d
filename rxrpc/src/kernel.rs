//! [`KernelApp`]: the interface that Linux's AF_RXRPC gives to services in the kernel, for services that run on the core.
//!
//! A service begins calls and charges accepts, each under a number of its own, and is [notified](KernelService::notify) when
//! there is something to do for one; what that is it finds out by [`Calls::recv_data`], [`Calls::send_data`] and
//! [`Calls::completion`], step by step and without ever waiting. It ends each call itself, with [`Calls::end_call`]. Where
//! the socket API copies bytes between a core and threads, here nothing lies between the service and the endpoint.
//!
//! It is one [`App`] among others, and decides nothing that an app could not: it keeps the numbers of charged accepts, which
//! are matched with calls in the order they were charged, and turns four kinds of event into one notification.
//!
//! Deliberately absent: threads. A service that waits for somebody else tells itself by
//! [`command`](KernelService::command), or is woken by [`expire`](KernelService::expire).

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use engine::{Instant, Mbuf};

use crate::{
    App, BeginError, CallError, CallId, CallOptions, CallTimeouts, Completion, Event, ListenError, LocalId,
    PeerId, Recv, Rx, ServiceConfig, Target,
};

/// A service on a core; each core has its own, and calls it alone.
pub trait KernelService: 'static {
    /// What other threads may tell it, through [`RxControl::tell`](crate::RxControl::tell).
    type Command: Send + 'static;

    /// A local address was opened on this core: the place to offer services and to charge the first accepts.
    fn opened(&mut self, calls: &mut Calls<'_, '_>, local: LocalId, addr: SocketAddr) {
        let _ = (calls, local, addr);
    }

    /// There is something to do for a call: it came in, it has data or the end of it, it has room, or it has ended. `user`
    /// is the number that it was begun or charged with. Not told for each packet, so do all there is to do.
    fn notify(&mut self, calls: &mut Calls<'_, '_>, call: CallId, user: u64);

    /// Another thread wants something.
    fn command(&mut self, calls: &mut Calls<'_, '_>, command: Self::Command);

    /// Once a turn, after the notifications.
    fn expire(&mut self, calls: &mut Calls<'_, '_>) {
        let _ = calls;
    }

    /// When `expire` is wanted next, should nothing happen before.
    fn next_timeout(&self) -> Option<Instant> {
        None
    }
}

/// Puts a [`KernelService`] on a core: `RxHandler::new(config, seed, KernelApp::new(service))`.
pub struct KernelApp<S> {
    service: S,
    charged: Charged,
}

/// Numbers of charged accepts that no call has used, by address and service. As many as the backlogs allow.
type Charged = HashMap<(LocalId, u16), VecDeque<u64>>;

impl<S: KernelService> KernelApp<S> {
    /// An app for this service.
    pub fn new(service: S) -> Self {
        KernelApp { service, charged: Charged::new() }
    }
}

/// What a [`KernelService`] works with while it is called.
pub struct Calls<'a, 'r> {
    rx: &'a mut Rx<'r>,
    charged: &'a mut Charged,
}

/// What is known of the other end of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerData {
    /// The peer, for as long as connections to it are open.
    pub id: PeerId,
    /// Its address.
    pub addr: SocketAddr,
    /// Smoothed round-trip time; `None` before the first measurement.
    pub srtt: Option<Duration>,
    /// Retransmission timeout.
    pub rto: Duration,
}

impl<'r> Calls<'_, 'r> {
    /// The endpoint and the core's buffers, for whatever is not here.
    pub fn rx(&mut self) -> &mut Rx<'r> {
        self.rx
    }

    /// The time of this turn.
    pub fn now(&self) -> Instant {
        self.rx.now
    }

    // ---- serving ----

    /// Offers a service for which accepts are charged one by one; `backlog` of them at most.
    pub fn listen(&mut self, local: LocalId, service: u16, backlog: usize) -> Result<(), ListenError> {
        let config = ServiceConfig { backlog, auto_charge: false, ..ServiceConfig::new(service) };
        self.rx.listen(local, config)
    }

    /// Charges an accept: the next call that comes in and finds none charged before gets this number.
    pub fn charge_accept(&mut self, local: LocalId, service: u16, user: u64) -> Result<(), ListenError> {
        self.rx.endpoint.charge(local, service, 1)?;
        self.charged.entry((local, service)).or_default().push_back(user);
        Ok(())
    }

    // ---- calling ----

    /// Begins a call under `options.user`. Without a local address of the service's own it goes from a client port whose
    /// replies come to this core.
    pub fn begin_call(
        &mut self,
        local: Option<LocalId>,
        target: Target,
        options: CallOptions,
    ) -> Result<CallId, BeginError> {
        let local = local.or_else(|| self.rx.client_local(target.peer)).ok_or(BeginError::UnknownLocal)?;
        self.rx.begin(local, target, options)
    }

    // ---- data ----

    /// Copies bytes into a call and says how many were taken; when that is short, a notification follows once there is
    /// room. `more` false ends this direction, once all was taken.
    pub fn send_data(&mut self, call: CallId, bytes: &[u8], more: bool) -> Result<usize, CallError> {
        self.rx.send(call, bytes, more)
    }

    /// The same for a buffer, without a copy. `Some`: what found no room.
    pub fn send_mbuf(&mut self, call: CallId, data: Mbuf, more: bool) -> Result<Option<Mbuf>, CallError> {
        self.rx.send_mbuf(call, data, more)
    }

    /// Declares how many bytes will be sent in this direction.
    pub fn set_tx_length(&mut self, call: CallId, bytes: u64) -> bool {
        self.rx.endpoint.set_tx_length(call, Some(bytes))
    }

    /// Reads what has come, as far as `out` has room; nothing is no error.
    pub fn recv_data(&mut self, call: CallId, out: &mut [u8]) -> Result<Recv, CallError> {
        self.rx.recv(call, out)
    }

    /// Takes the next buffer that has come, without a copy, and whether more may follow.
    pub fn recv_mbuf(&mut self, call: CallId) -> Result<Option<(Mbuf, bool)>, CallError> {
        self.rx.recv_mbuf(call)
    }

    // ---- a call's life ----

    /// Whether the call is still of use: it has not ended, or something of it is left to read. After hours of work for a
    /// client this says whether anybody waits for the answer.
    pub fn check_life(&self, call: CallId) -> bool {
        let endpoint = &self.rx.endpoint;
        match endpoint.call(call).map(|view| view.completion) {
            Some(None) => true,
            Some(Some(_)) => endpoint.recv_ready(call) > 0,
            None => false,
        }
    }

    /// How it ended, once it has.
    pub fn completion(&self, call: CallId) -> Option<Completion> {
        self.rx.completion(call)
    }

    /// Changes its time limits, all three at once.
    pub fn set_timeouts(&mut self, call: CallId, timeouts: &CallTimeouts) -> bool {
        self.rx.endpoint.set_timeouts(self.rx.now, call, timeouts)
    }

    /// Ends it with a code that the peer is told. A notification follows.
    pub fn abort_call(&mut self, call: CallId, code: i32) {
        self.rx.abort(call, code);
    }

    /// Gives it back: one in progress is aborted, and nothing is told of it any more. Every call ends so, once. False: it
    /// was given back before.
    pub fn end_call(&mut self, call: CallId) -> bool {
        self.rx.release(call)
    }

    /// What is known of its other end.
    pub fn peer(&self, call: CallId) -> Option<PeerData> {
        let peer = self.rx.endpoint.peer_of(call)?;
        Some(PeerData { id: peer.id, addr: peer.peer, srtt: peer.rtt, rto: peer.rto })
    }
}

impl<S: KernelService> KernelApp<S> {
    fn with<R>(&mut self, rx: &mut Rx<'_>, f: impl FnOnce(&mut S, &mut Calls<'_, '_>) -> R) -> R {
        f(&mut self.service, &mut Calls { rx, charged: &mut self.charged })
    }
}

impl<S: KernelService> App for KernelApp<S> {
    type Command = S::Command;

    fn opened(&mut self, rx: &mut Rx<'_>, local: LocalId, addr: SocketAddr) {
        self.with(rx, |service, calls| service.opened(calls, local, addr));
    }

    fn closed(&mut self, _rx: &mut Rx<'_>, local: LocalId, _addr: SocketAddr) {
        self.charged.retain(|(charged_at, _), _| *charged_at != local);
    }

    fn event(&mut self, rx: &mut Rx<'_>, event: Event) {
        let call = match event {
            Event::Incoming { call, local, service, .. } => {
                // The endpoint takes a call only where an accept is charged, and both count alike.
                let users = self.charged.get_mut(&(local, service));
                let Some(user) = users.and_then(VecDeque::pop_front) else {
                    return rx.reject(call, crate::code::CALL_DEAD);
                };
                rx.endpoint.set_user(call, user);
                call
            }
            Event::Readable { call } | Event::Writable { call } | Event::Complete { call, .. } => call,
            Event::Version { .. } | Event::Debug { .. } => return,
        };
        let user = rx.endpoint.user(call);
        self.with(rx, |service, calls| service.notify(calls, call, user));
    }

    fn command(&mut self, rx: &mut Rx<'_>, command: S::Command) {
        self.with(rx, |service, calls| service.command(calls, command));
    }

    fn expire(&mut self, rx: &mut Rx<'_>) {
        self.with(rx, |service, calls| service.expire(calls));
    }

    fn next_timeout(&self) -> Option<Instant> {
        self.service.next_timeout()
    }
}
