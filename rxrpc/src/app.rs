//! [`App`]: what runs on the endpoint, inline on its core; and [`Rx`], what it works with.
//!
//! An app is one core's alone and never waits: it is called with an event, a command or the time, does what there is to
//! do, and returns. Everything it may touch comes in through [`Rx`]. Threads that want to wait use the socket API, which
//! is an app itself ([`SocketApp`](crate::SocketApp)).

use std::net::{IpAddr, SocketAddr};

use engine::rcu::ReadGuard;
use engine::{Cx, Datagram, Instant, Mbuf, Outcome, Pool, Steering};

use crate::locals::Locals;
use crate::{
    BeginError, CallError, CallId, CallOptions, Completion, Endpoint, Event, ListenError, LocalId, Recv,
    RelayView, ServiceConfig, SharedCall, Target,
};

/// A user of the endpoint that runs on its core.
///
/// A turn calls, in this order: `command` for each command that waits (the engine bounds how many), `event` for what
/// the endpoint has to say ([`EVENTS_PER_TURN`](crate::EVENTS_PER_TURN) at most, the rest is the next turn's), then
/// `expire`, once. What these hand to the endpoint is sent at the end of the same turn.
pub trait App: 'static {
    /// What other threads may tell this app through [`engine::CommandSender`].
    type Command: Send + 'static;

    /// The names that [`Outcome::Refused`] refers to in what [`datagram`](Self::datagram) returns, in snake case.
    const REFUSALS: &'static [&'static str] = &[];

    /// A datagram at a gate, before the endpoint has seen it: [`RxControl::open_gate`](crate::RxControl::open_gate) and
    /// [`RxControl::bind_gate`](crate::RxControl::bind_gate). It may be sent on as it is ([`Cx::send`]).
    fn datagram(&mut self, cx: &mut Cx<'_>, gate: Gate, datagram: Datagram) -> Claim {
        let _ = (cx, gate);
        Claim::Endpoint(datagram)
    }

    /// The network says that what was sent from a gate to `peer` does not arrive.
    fn unreachable(&mut self, cx: &mut Cx<'_>, gate: Gate, peer: SocketAddr, error: engine::NetError) {
        let _ = (cx, gate, peer, error);
    }

    /// A local address was opened on this core: by [`RxControl::open`](crate::RxControl::open) of any app, on every
    /// core. The place to offer services.
    fn opened(&mut self, rx: &mut Rx<'_>, local: LocalId, addr: SocketAddr) {
        let _ = (rx, local, addr);
    }

    /// The address was closed: its calls are aborted and released by now, and no event names them any more.
    fn closed(&mut self, rx: &mut Rx<'_>, local: LocalId, addr: SocketAddr) {
        let _ = (rx, local, addr);
    }

    /// Something happened at the endpoint.
    fn event(&mut self, rx: &mut Rx<'_>, event: Event);

    /// Another thread wants something.
    fn command(&mut self, rx: &mut Rx<'_>, command: Self::Command);

    /// Once a turn, after the events.
    fn expire(&mut self, rx: &mut Rx<'_>) {
        let _ = rx;
    }

    /// When `expire` is wanted next, should nothing happen before. May be early, never late.
    fn next_timeout(&self) -> Option<Instant> {
        None
    }

    /// For views: the connections that the app passes on without the endpoint. Pushes those in its slots from `from` on, until `rows` has
    /// [`PAGE_ROWS`](crate::PAGE_ROWS) of them or [`PAGE_SLOTS`](crate::PAGE_SLOTS) slots were looked at; returns where to go on.
    fn relayed(&self, from: usize, rows: &mut Vec<RelayView>) -> Option<usize> {
        let _ = (from, rows);
        None
    }

    /// The name of what threads share of a call, for views; `None`: nothing, the call is the app's alone.
    fn shared_call(&self, call: CallId) -> Option<SharedCall> {
        let _ = call;
        None
    }
}

/// Where an app is shown datagrams before the endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// A local address of the endpoint.
    Local(LocalId),
    /// A port that the endpoint knows nothing of, by the tag it was bound with.
    Port(u32),
}

/// What an app makes of a datagram at a gate.
pub enum Claim {
    /// It is for the endpoint after all. At a [`Gate::Port`] there is none: it is dropped by name.
    Endpoint(Datagram),
    /// The app is done with it; [`Outcome::Refused`] counts [`App::REFUSALS`].
    Done(Outcome),
}

/// What an [`App`] works with while it is called: the time, the core's buffers and the core's endpoint.
///
/// The shorthands pass `now` and `pool` along; all else that an endpoint can do is at `rx.endpoint`.
pub struct Rx<'a> {
    /// The time of this turn.
    pub now: Instant,
    /// The core's buffers.
    pub pool: &'a mut Pool,
    /// The core's endpoint.
    pub endpoint: &'a mut Endpoint,
    pub(crate) steering: Steering<'a>,
    pub(crate) guard: ReadGuard<'a>,
    pub(crate) locals: &'a Locals,
}

impl Rx<'_> {
    /// This core's number, `0..cores()`.
    pub fn core(&self) -> usize {
        self.steering.core()
    }

    /// How many cores the engine has.
    pub fn cores(&self) -> usize {
        self.steering.cores()
    }

    /// The local of an address that was opened.
    pub fn local(&self, addr: SocketAddr) -> Option<LocalId> {
        self.locals.by_addr(addr)
    }

    /// A local address to call `peer` from, such that the replies come to this core.
    ///
    /// One of the ports that [`RxControl::open_clients`](crate::RxControl::open_clients) opened: the first of which the
    /// engine's ownership function says that this core gets the flow. The same peer gets the same port every time, so
    /// that calls share connections. `None`: no client port is open in the peer's address family, or (one in some
    /// 10^9 of all peers) none of them suits.
    pub fn client_local(&self, peer: SocketAddr) -> Option<LocalId> {
        let source = self.source_for(peer);
        self.locals.client(peer, source, |local| self.steering.suits(local, peer))
    }

    /// Whether what `peer` sends to `local` comes to this core.
    pub fn suits(&self, local: SocketAddr, peer: SocketAddr) -> bool {
        self.steering.suits(local, peer)
    }

    /// The address that the route to `peer` leaves by.
    pub fn source_for(&self, peer: SocketAddr) -> Option<IpAddr> {
        self.steering.source_for(peer)
    }

    /// Begins a call; see [`Endpoint::begin`].
    pub fn begin(
        &mut self,
        local: LocalId,
        target: Target,
        options: CallOptions,
    ) -> Result<CallId, BeginError> {
        self.endpoint.begin(self.now, local, target, options)
    }

    /// Copies bytes into a call; see [`Endpoint::send`].
    pub fn send(&mut self, call: CallId, bytes: &[u8], more: bool) -> Result<usize, CallError> {
        self.endpoint.send(self.now, self.pool, call, bytes, more)
    }

    /// Hands a buffer to a call; see [`Endpoint::send_mbuf`].
    pub fn send_mbuf(&mut self, call: CallId, data: Mbuf, more: bool) -> Result<Option<Mbuf>, CallError> {
        self.endpoint.send_mbuf(self.now, self.pool, call, data, more)
    }

    /// Reads in-order bytes; see [`Endpoint::recv`].
    pub fn recv(&mut self, call: CallId, out: &mut [u8]) -> Result<Recv, CallError> {
        self.endpoint.recv(self.now, call, out)
    }

    /// Takes the next in-order buffer; see [`Endpoint::recv_mbuf`].
    pub fn recv_mbuf(&mut self, call: CallId) -> Result<Option<(Mbuf, bool)>, CallError> {
        self.endpoint.recv_mbuf(self.now, call)
    }

    /// Aborts a call; see [`Endpoint::abort`].
    pub fn abort(&mut self, call: CallId, code: i32) {
        self.endpoint.abort(self.now, call, code);
    }

    /// Gives a call back; see [`Endpoint::release`].
    pub fn release(&mut self, call: CallId) -> bool {
        self.endpoint.release(self.now, call)
    }

    /// Refuses an incoming call; see [`Endpoint::reject`].
    pub fn reject(&mut self, call: CallId, code: i32) {
        self.endpoint.reject(self.now, call, code);
    }

    /// How a call ended, once it has.
    pub fn completion(&self, call: CallId) -> Option<Completion> {
        self.endpoint.completion(call)
    }

    /// Offers a service; see [`Endpoint::listen`].
    pub fn listen(&mut self, local: LocalId, service: ServiceConfig) -> Result<(), ListenError> {
        self.endpoint.listen(local, service)
    }
}
