//! [`Endpoint`]: everything that one core knows of Rx.
//!
//! No clock, no I/O, no thread, no source of randomness but its seed: `input` takes datagrams, `transmit` gives them,
//! `expire` is told the time, and what happened comes out of `poll_event`.

use crate::wire::debug::DebugRequest;
use crate::{
    BeginError, CallError, CallId, CallOptions, CallView, Completion, ConnView, EndpointConfig, Event,
    ListenError, LocalError, LocalId, LocalView, NetError, PeerView, RxDrop, RxStats, ServiceConfig, Target,
};
use pmd::{Instant, Mbuf, Pool};
use std::net::SocketAddr;

/// What `recv` brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recv {
    /// Bytes written to the caller's buffer.
    pub bytes: usize,
    /// Whether more may follow. False: that was the end, and all of it has been read.
    pub more: bool,
}

/// The protocol core. See the module's head.
pub struct Endpoint {}

impl Endpoint {
    /// An endpoint without addresses. `seed` decides its epoch and connection ids.
    pub fn new(config: EndpointConfig, seed: u64) -> Self {
        let _ = (config, seed);
        unimplemented!()
    }
    /// The configuration, brought into the range that the protocol allows.
    pub fn config(&self) -> &EndpointConfig {
        unimplemented!()
    }

    /// Serves an address: client calls start from it, services are offered on it.
    pub fn add_local(&mut self, addr: SocketAddr) -> Result<LocalId, LocalError> {
        let _ = addr;
        unimplemented!()
    }
    /// Leaves an address: all its calls are aborted and released, its connections and services forgotten. No event
    /// follows for them.
    pub fn remove_local(&mut self, now: Instant, local: LocalId) {
        let _ = (now, local);
        unimplemented!()
    }
    /// The address of a local.
    pub fn local_addr(&self, local: LocalId) -> Option<SocketAddr> {
        let _ = local;
        unimplemented!()
    }
    /// Offers a service.
    pub fn listen(&mut self, local: LocalId, service: ServiceConfig) -> Result<(), ListenError> {
        let _ = (local, service);
        unimplemented!()
    }
    /// Offers it no more: new calls are answered with an abort, those in progress go on.
    pub fn unlisten(&mut self, local: LocalId, service: u16) -> Result<(), ListenError> {
        let _ = (local, service);
        unimplemented!()
    }
    /// Charges `n` more accepts. Returns how many are charged now.
    pub fn charge(&mut self, local: LocalId, service: u16, n: usize) -> Result<usize, ListenError> {
        let _ = (local, service, n);
        unimplemented!()
    }
    /// Refuses an incoming call: aborts and releases it.
    pub fn reject(&mut self, now: Instant, call: CallId, code: i32) {
        let _ = (now, call, code);
        unimplemented!()
    }

    /// Takes a UDP payload that came to `local` from `peer`. `Ok`: the protocol consumed it; otherwise it was dropped
    /// for the reason given and counted under it.
    pub fn input(
        &mut self,
        now: Instant,
        pool: &mut Pool,
        local: LocalId,
        peer: SocketAddr,
        payload: Mbuf,
    ) -> Result<(), RxDrop> {
        let _ = (now, pool, local, peer, payload);
        unimplemented!()
    }
    /// The network says that what we sent from `local` to `peer` cannot arrive.
    pub fn unreachable(&mut self, now: Instant, local: LocalId, peer: SocketAddr, error: NetError) {
        let _ = (now, local, peer, error);
        unimplemented!()
    }
    /// Runs the timers that are due.
    pub fn expire(&mut self, now: Instant) {
        let _ = now;
        unimplemented!()
    }
    /// When `expire` has something to do next. May be early, never late.
    pub fn next_timeout(&self) -> Option<Instant> {
        unimplemented!()
    }
    /// Whether `transmit` has something to send.
    pub fn wants_transmit(&self) -> bool {
        unimplemented!()
    }
    /// Hands out packets until there are none, the pool is empty, or `send` says stop with false. `send` has taken the
    /// packet either way.
    pub fn transmit(
        &mut self,
        now: Instant,
        pool: &mut Pool,
        send: &mut dyn FnMut(LocalId, SocketAddr, SocketAddr, Mbuf) -> bool,
    ) {
        let _ = (now, pool, send);
        unimplemented!()
    }
    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        unimplemented!()
    }

    /// Begins a call. It may be sent on at once, even while it waits in line for a place on a connection.
    pub fn begin(
        &mut self,
        now: Instant,
        local: LocalId,
        target: Target,
        options: CallOptions,
    ) -> Result<CallId, BeginError> {
        let _ = (now, local, target, options);
        unimplemented!()
    }
    /// Bytes that `send` would take now. Once it is zero, a `Writable` follows when there is room again.
    pub fn send_room(&self, call: CallId) -> usize {
        let _ = call;
        unimplemented!()
    }
    /// Copies bytes into the call; the direction ends with the first `send` that has `more` false and took everything.
    /// Returns the bytes taken; when that is short, a `Writable` follows.
    pub fn send(
        &mut self,
        now: Instant,
        pool: &mut Pool,
        call: CallId,
        bytes: &[u8],
        more: bool,
    ) -> Result<usize, CallError> {
        let _ = (now, pool, call, bytes, more);
        unimplemented!()
    }
    /// The same for a buffer, without a copy where its size allows. `Some`: what found no room; try after `Writable`.
    pub fn send_mbuf(
        &mut self,
        now: Instant,
        pool: &mut Pool,
        call: CallId,
        data: Mbuf,
        more: bool,
    ) -> Result<Option<Mbuf>, CallError> {
        let _ = (now, pool, call, data, more);
        unimplemented!()
    }
    /// Reads in-order data.
    pub fn recv(&mut self, now: Instant, call: CallId, out: &mut [u8]) -> Result<Recv, CallError> {
        let _ = (now, call, out);
        unimplemented!()
    }
    /// Takes the next packet's payload, without a copy, and whether more may follow. `None`: nothing now. The end may
    /// come with an empty buffer.
    pub fn recv_mbuf(&mut self, now: Instant, call: CallId) -> Result<Option<(Mbuf, bool)>, CallError> {
        let _ = (now, call);
        unimplemented!()
    }
    /// Bytes that `recv` would bring now.
    pub fn recv_ready(&self, call: CallId) -> usize {
        let _ = call;
        unimplemented!()
    }
    /// Ends a call with a code that the peer is told. Nothing happens to a call that has ended.
    pub fn abort(&mut self, now: Instant, call: CallId, code: i32) {
        let _ = (now, call, code);
        unimplemented!()
    }
    /// Gives a call back, exactly once: its identifier is unknown from now on and no event names it. One in progress is
    /// aborted with RX_USER_ABORT. False: there is no such call.
    pub fn release(&mut self, now: Instant, call: CallId) -> bool {
        let _ = (now, call);
        unimplemented!()
    }
    /// How the call ended, once it has.
    pub fn completion(&self, call: CallId) -> Option<Completion> {
        let _ = call;
        unimplemented!()
    }
    /// Attaches a number of the user's own to a call.
    pub fn set_user(&mut self, call: CallId, user: u64) {
        let _ = (call, user);
        unimplemented!()
    }
    /// That number; 0 if none was set.
    pub fn user(&self, call: CallId) -> u64 {
        let _ = call;
        unimplemented!()
    }

    /// Asks a peer for its version; `Event::Version` is the answer, if there is one.
    pub fn probe_version(&mut self, now: Instant, local: LocalId, peer: SocketAddr) -> Option<u32> {
        let _ = (now, local, peer);
        unimplemented!()
    }
    /// Asks a peer something in the rxdebug protocol; `Event::Debug` with the number returned is the answer.
    /// `None`: too many questions are open.
    pub fn send_debug(
        &mut self,
        now: Instant,
        local: LocalId,
        peer: SocketAddr,
        request: DebugRequest,
    ) -> Option<u32> {
        let _ = (now, local, peer, request);
        unimplemented!()
    }

    /// All calls.
    pub fn calls(&self) -> impl Iterator<Item = CallView> {
        std::iter::empty()
    }
    /// All connections.
    pub fn conns(&self) -> impl Iterator<Item = ConnView> {
        std::iter::empty()
    }
    /// All peers.
    pub fn peers(&self) -> impl Iterator<Item = PeerView> {
        std::iter::empty()
    }
    /// All local addresses.
    pub fn locals(&self) -> impl Iterator<Item = LocalView> {
        std::iter::empty()
    }
    /// One call.
    pub fn call(&self, call: CallId) -> Option<CallView> {
        let _ = call;
        unimplemented!()
    }
    /// The counters.
    pub fn stats(&self) -> &RxStats {
        unimplemented!()
    }
    /// Whether there is no call, nothing to send and no event: connections may remain.
    pub fn is_idle(&self) -> bool {
        unimplemented!()
    }
}
