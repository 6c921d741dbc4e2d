//! [`Endpoint`]: everything that one core knows of Rx.
//!
//! No clock, no I/O, no thread, no source of randomness but its seed: `input` takes datagrams, `transmit` gives them,
//! `expire` is told the time, and what happened comes out of `poll_event`. This file is the public face; what it does
//! is in the files named after it: input, output, expire, finish, conn_client, conn_service, transfer.

use crate::call::{Call, INITIAL_WINDOW};
use crate::congestion::Congestion;
use crate::conn::{Conn, ConnKey, KeyedHash, RecentConns};
use crate::conn_client::{Bundle, BundleIndex};
use crate::error::code;
use crate::finish::event_call;
use crate::local::Local;
use crate::peer::Peer;
use crate::probe::Question;
use crate::security::{Credentials, Identity};
use crate::shared::{Keyed, Shared};
use crate::slab::Slab;
use crate::trace::TraceSink;
use crate::wire::debug::DebugRequest;
use crate::{
    BeginError, BundleId, CallId, CallOptions, CallTimeouts, CallView, Completion, ConnId, ConnView,
    EndpointConfig, Event, ListenError, LocalError, LocalId, LocalView, NetError, PeerId, PeerView, Role,
    RxDrop, RxStats, ServiceConfig, Target, Timeout,
};
use pmd::{Instant, Mbuf, Pool};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// The protocol core. See the module's head.
pub struct Endpoint {
    pub(crate) shared: Shared,
    pub(crate) calls: Slab<CallId, Call>,
    pub(crate) conns: Slab<ConnId, Conn>,
    pub(crate) peers: Slab<PeerId, Peer>,
    pub(crate) locals: Slab<LocalId, Local>,
    pub(crate) bundles: Slab<BundleId, Bundle>,
    pub(crate) conn_index: Keyed<ConnKey, ConnId>,
    pub(crate) peer_index: Keyed<(LocalId, SocketAddr), PeerId>,
    pub(crate) bundle_index: BundleIndex,
    pub(crate) recent_conns: RecentConns,
    /// The bundle of the last call begun.
    pub(crate) last_bundle: BundleId,
    pub(crate) epoch: u32,
    pub(crate) next_cid: u32,
    /// Connections whose client has not proved who it is.
    pub(crate) unsecured: usize,
    /// What CHALLENGEs are made from, and how many there were: nobody can foretell the next.
    pub(crate) nonces: (KeyedHash, u64),
    /// The Unix time at the clock's origin.
    pub(crate) unix_origin: Option<Duration>,
    /// Where the search for an unused connection goes on.
    pub(crate) reclaim_at: usize,
    pub(crate) stray_tokens: u64,
    pub(crate) stray_at: Instant,
    pub(crate) questions: Vec<Question>,
    pub(crate) unsent_questions: usize,
    pub(crate) question_number: u32,
}

impl Endpoint {
    /// An endpoint without addresses. `seed` decides its epoch, its connection ids and the key of its hash tables.
    pub fn new(config: EndpointConfig, seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let hash = KeyedHash(random.u64(..), random.u64(..));
        let shared = Shared::new(config);
        let config = &shared.config;
        Self {
            calls: Slab::new(config.calls_max),
            conns: Slab::new(config.conns_max),
            peers: Slab::new(config.peers_max),
            locals: Slab::new(config.locals_max),
            bundles: Slab::new(config.bundles_max),
            conn_index: Keyed::with_hasher(hash),
            peer_index: Keyed::with_hasher(hash),
            bundle_index: BundleIndex::with_hasher(hash),
            recent_conns: RecentConns::default(),
            last_bundle: BundleId::default(),
            // The high bit would ask servers to take our packets from any address.
            epoch: random.u32(1..1 << 31),
            next_cid: random.u32(..) << 2,
            unsecured: 0,
            nonces: (KeyedHash(random.u64(..), random.u64(..)), 0),
            unix_origin: None,
            reclaim_at: 0,
            stray_tokens: u64::from(config.stray_replies_per_second),
            stray_at: Instant::default(),
            questions: Vec::new(),
            unsent_questions: 0,
            question_number: random.u32(..) >> 8,
            shared,
        }
    }

    /// Says what time of day it is, as time since 1970: what tickets are judged by. Without it, tickets that end are refused.
    pub fn set_unix_time(&mut self, now: Instant, unix: Duration) {
        self.unix_origin = Some(unix.saturating_sub(now.saturating_duration_since(Instant::ZERO)));
    }

    /// The configuration, brought into the range that the protocol allows.
    pub fn config(&self) -> &EndpointConfig {
        &self.shared.config
    }
}

/// Addresses and services.
impl Endpoint {
    /// Serves an address: client calls start from it, services are offered on it.
    pub fn add_local(&mut self, addr: SocketAddr) -> Result<LocalId, LocalError> {
        if self.locals.iter().any(|(_, local)| local.addr == addr && !local.closing) {
            return Err(LocalError::InUse(addr));
        }
        let limit = self.locals.limit();
        let (id, local) = self.locals.insert().ok_or(LocalError::TooMany { limit })?;
        local.addr = addr;
        Ok(id)
    }

    /// Leaves an address: all its calls are aborted and released, its connections and services forgotten. No event
    /// follows for them. The aborts go out with the next `transmit`.
    pub fn remove_local(&mut self, now: Instant, id: LocalId) {
        let Some(local) = self.locals.get_mut(id) else { return };
        local.closing = true;
        local.services.clear();
        let mut at = 0;
        while let Some(call_id) = self.calls.next_from(at) {
            at = call_id.slot() + 1;
            if self.calls.get(call_id).is_some_and(|call| call.local == id) {
                self.release_call(now, call_id);
            }
        }
        let mut at = 0;
        while let Some(conn_id) = self.conns.next_from(at) {
            at = conn_id.slot() + 1;
            if self.conns.get(conn_id).is_some_and(|conn| conn.local == id) {
                self.end_conn(now, conn_id, Completion::LocalAbort(code::USER_ABORT));
            }
        }
        if self.locals.get(id).is_some_and(|local| local.conns == 0) {
            self.locals.remove(id);
        }
    }

    /// The address of a local.
    pub fn local_addr(&self, local: LocalId) -> Option<SocketAddr> {
        self.locals.get(local).filter(|local| !local.closing).map(|local| local.addr)
    }

    /// Offers a service.
    pub fn listen(&mut self, local: LocalId, service: ServiceConfig) -> Result<(), ListenError> {
        self.open_local(local)?.listen(service)
    }

    /// Offers it no more: new calls are answered with an abort, those in progress go on.
    pub fn unlisten(&mut self, local: LocalId, service: u16) -> Result<(), ListenError> {
        self.open_local(local)?.unlisten(service)
    }

    /// Charges `n` more accepts. Returns how many are charged now.
    pub fn charge(&mut self, local: LocalId, service: u16, n: usize) -> Result<usize, ListenError> {
        let offered = self.open_local(local)?.service(service);
        offered.ok_or(ListenError::UnknownService { service })?.charge(n)
    }

    /// Takes one charged accept back that no call has used. False: there is none, or a call that is still to be announced
    /// has it.
    pub fn uncharge(&mut self, local: LocalId, service: u16) -> bool {
        self.open_local(local).ok().and_then(|local| local.service(service)).is_some_and(|s| s.uncharge())
    }

    fn open_local(&mut self, local: LocalId) -> Result<&mut Local, ListenError> {
        self.locals.get_mut(local).filter(|local| !local.closing).ok_or(ListenError::UnknownLocal)
    }

    /// Refuses an incoming call: aborts and releases it.
    pub fn reject(&mut self, now: Instant, call: CallId, code: i32) {
        self.abort(now, call, code);
        self.release(now, call);
    }
}

/// Packets and time.
impl Endpoint {
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
        self.shared.stats.datagrams += 1;
        let traced = self.shared.tracer.as_mut().and_then(|tracer| tracer.received(now, &payload));
        let result = self.input_datagram(now, pool, local, peer, payload);
        match result {
            Ok(()) => self.shared.stats.consumed += 1,
            Err(reason) => {
                self.shared.stats.drops[reason as usize] += 1;
                if let (Some(tracer), Some(call)) = (&mut self.shared.tracer, traced) {
                    tracer.refused(now, call, reason);
                }
            }
        }
        result
    }

    /// The network says that what we sent from `local` to `peer` cannot arrive.
    pub fn unreachable(&mut self, now: Instant, local: LocalId, peer: SocketAddr, error: NetError) {
        self.input_unreachable(now, local, peer, error);
    }

    /// UDP payloads of more than `len` bytes do not reach `peer` from `local` in one piece: jumbograms are made no larger.
    pub fn path_mtu(&mut self, now: Instant, local: LocalId, peer: SocketAddr, len: usize) {
        if let Some(&id) = self.peer_index.get(&(local, peer))
            && let Some(peer) = self.peers.get_mut(id)
        {
            peer.path_mtu.too_big(now, len);
        }
    }

    /// Runs timers that are due: some hundreds at most, so that no turn is long. With more of them left, `next_timeout` is past.
    pub fn expire(&mut self, now: Instant) {
        self.expire_all(now);
    }

    /// When `expire` has something to do next. May be early, never late.
    pub fn next_timeout(&self) -> Option<Instant> {
        match (self.shared.timers.next(), self.shared.starved_at) {
            (Some(wheel), Some(starved)) => Some(wheel.min(starved)),
            (wheel, starved) => wheel.or(starved),
        }
    }

    /// Whether `transmit` has something to send.
    pub fn wants_transmit(&self) -> bool {
        !self.shared.work.is_empty()
            || !self.shared.replies.is_empty()
            || !self.shared.keep_alives.is_empty()
            || self.unsent_questions > 0
    }

    /// Hands out packets (from where, to where) until there are none, the pool is empty, or `send` says stop with
    /// false. `send` has taken the packet either way.
    pub fn transmit(
        &mut self,
        now: Instant,
        pool: &mut Pool,
        send: &mut dyn FnMut(LocalId, SocketAddr, SocketAddr, Mbuf) -> bool,
    ) {
        self.send_questions(pool);
        self.send_keep_alives(pool);
        let Some(mut tracer) = self.shared.tracer.take() else { return self.transmit_all(now, pool, send) };
        self.transmit_all(now, pool, &mut |local, from, to, packet| {
            tracer.sent(now, &packet);
            send(local, from, to, packet)
        });
        self.shared.tracer = Some(tracer);
    }

    /// From now on events go to `sink`, or nowhere. Returns the one they went to.
    pub fn set_trace(&mut self, sink: Option<TraceSink>) -> Option<TraceSink> {
        std::mem::replace(&mut self.shared.tracer, sink.map(Box::new)).map(|old| *old)
    }

    /// The next thing that happened. Events of calls that were released in the meantime are left out.
    pub fn poll_event(&mut self) -> Option<Event> {
        while let Some(event) = self.shared.events.pop_front() {
            let Some(id) = event_call(&event) else { return Some(event) };
            let Some(call) = self.calls.get_mut(id) else { continue };
            match event {
                Event::Readable { .. } => call.readable_queued = false,
                Event::Writable { .. } => call.writable_queued = false,
                Event::Incoming { local, service, .. } => self.recharge(local, service),
                _ => {}
            }
            return Some(event);
        }
        None
    }

    /// A call that came in has been taken: its place is charged again, where the service is so configured.
    fn recharge(&mut self, local: LocalId, service: u16) {
        let offered = self.locals.get_mut(local).and_then(|local| local.service(service));
        if let Some(service) = offered.filter(|service| service.config.auto_charge) {
            service.charged = (service.charged + 1).min(service.config.backlog);
        }
    }
}

/// Calls. Their data is moved in transfer.rs.
impl Endpoint {
    /// Begins a call. It may be sent on at once, even while it waits in line for a place on a connection.
    pub fn begin(
        &mut self,
        now: Instant,
        local: LocalId,
        target: Target,
        options: CallOptions,
    ) -> Result<CallId, BeginError> {
        if self.local_addr(local).is_none() {
            return Err(BeginError::UnknownLocal);
        }
        if self.calls.is_full() {
            return Err(BeginError::TooManyCalls { limit: self.calls.limit() });
        }
        let bundle_id = self.bundle_for(local, target, &options)?;
        let bundle = self.bundles.get(bundle_id).expect("found or made");
        let (line, no_conns) = (bundle.waiting.len(), bundle.conns.is_empty());
        // Whoever stands in line already goes first.
        let place = if line == 0 { self.take_place(now, bundle_id) } else { None };
        if place.is_none() {
            let limit = self.shared.config.bundle_waiting_max;
            if no_conns {
                self.drop_bundle_if_unused(bundle_id);
                return Err(BeginError::TooManyConns { limit: self.conns.limit() });
            }
            if line >= limit {
                return Err(BeginError::LineFull { peer: target.peer, limit });
            }
        }
        let id = self.new_client_call(now, local, target, options, bundle_id);
        match (place, self.bundles.get_mut(bundle_id)) {
            (Some(place), _) => self.attach(now, id, place),
            (None, Some(bundle)) => {
                bundle.waiting.push_back(id);
                self.shared.stats.calls_waited += 1;
                if let Some(call) = self.calls.get_mut(id) {
                    call.rearm_all(&mut self.shared);
                }
            }
            (None, None) => unreachable!("the bundle was there"),
        }
        Ok(id)
    }

    fn new_client_call(
        &mut self,
        now: Instant,
        local: LocalId,
        target: Target,
        options: CallOptions,
        bundle: BundleId,
    ) -> CallId {
        let (id, call) = self.calls.insert().expect("there is room");
        (call.id, call.role, call.user, call.announced) = (id, Role::Client, options.user, true);
        (call.local, call.addr, call.service, call.bundle) =
            (local, target.peer, target.service, Some(bundle));
        call.ack.edge = INITIAL_WINDOW.min(self.shared.config.receive_window);
        call.seal = options.credentials.as_ref().map(Credentials::level);
        call.congestion = Congestion::new(self.shared.config.congestion);
        call.tx_left = options.tx_length;
        call.deadlines.began = now;
        call.set_timeouts(now, &options.timeouts(), &self.shared.config);
        self.shared.stats.calls_begun += 1;
        id
    }

    /// Ends a call with a code that the peer is told. Nothing happens to a call that has ended.
    pub fn abort(&mut self, now: Instant, call: CallId, code: i32) {
        self.finish(now, call, Completion::LocalAbort(code));
    }

    /// Ends a call as [`Timeout::Dead`] without a word: for a reply that was sent whole to a client that says nothing any more. It may have
    /// all of it, and an ABORT could take that away before it is read. A client that asks again is told.
    pub fn give_up(&mut self, now: Instant, call: CallId) {
        self.end(now, call, Completion::TimedOut(Timeout::Dead), false);
    }

    /// Gives a call back, exactly once: its identifier is unknown from now on and no event names it. One in progress is
    /// aborted with RX_USER_ABORT. False: there is no such call.
    pub fn release(&mut self, now: Instant, call: CallId) -> bool {
        self.release_call(now, call)
    }

    /// How the call ended, once it has.
    pub fn completion(&self, call: CallId) -> Option<Completion> {
        self.calls.get(call)?.completion
    }

    /// Who made a call that came in, where the service asks for proof; from `Incoming` on.
    pub fn identity(&self, call: CallId) -> Option<&Arc<Identity>> {
        self.calls.get(call)?.identity.as_ref()
    }

    /// The service that a call goes to. A client that asks for an upgrade learns it with the server's first answer.
    pub fn service(&self, call: CallId) -> Option<u16> {
        self.calls.get(call).map(|call| call.service)
    }

    /// Attaches a number of the user's own to a call.
    pub fn set_user(&mut self, call: CallId, user: u64) {
        if let Some(call) = self.calls.get_mut(call) {
            call.user = user;
        }
    }

    /// That number; 0 if none was set.
    pub fn user(&self, call: CallId) -> u64 {
        self.calls.get(call).map_or(0, |call| call.user)
    }

    /// Changes a call's time limits, all three at once: those of a client's call in progress, or a service's own. The hard one
    /// counts from now. False: there is no such call, or it has ended.
    pub fn set_timeouts(&mut self, now: Instant, call: CallId, timeouts: &CallTimeouts) -> bool {
        let Some(call) = self.calls.get_mut(call).filter(|call| call.completion.is_none()) else {
            return false;
        };
        call.set_timeouts(now, timeouts, &self.shared.config);
        call.rearm_all(&mut self.shared);
        true
    }

    /// Declares how many more bytes will be sent on a call: its last packet says so exactly, and data that turns out longer or
    /// shorter is refused by `send`. `None` takes a declaration back.
    pub fn set_tx_length(&mut self, call: CallId, bytes: Option<u64>) -> bool {
        let Some(call) = self.calls.get_mut(call).filter(|call| !call.send_closed) else { return false };
        call.tx_left = bytes;
        true
    }

    /// Sets which service's calls a client gets that asks a service for an upgrade; see [`ServiceConfig::upgrade_to`].
    pub fn set_upgrade(&mut self, local: LocalId, service: u16, to: Option<u16>) -> Result<(), ListenError> {
        let offered = self.open_local(local)?.service(service);
        offered.ok_or(ListenError::UnknownService { service })?.config.upgrade_to = to;
        Ok(())
    }
}

/// Questions and views.
impl Endpoint {
    /// Asks a peer for its version; `Event::Version` is the answer, if one comes. `None`: too many questions are open.
    pub fn probe_version(&mut self, now: Instant, local: LocalId, peer: SocketAddr) -> Option<u32> {
        self.ask(now, local, peer, None)
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
        self.ask(now, local, peer, Some(request))
    }

    /// All calls.
    pub fn calls(&self) -> impl Iterator<Item = CallView> {
        self.calls.iter().map(|(_, call)| call.view(self.addr_of(call.local)))
    }

    /// All connections.
    pub fn conns(&self) -> impl Iterator<Item = ConnView> {
        self.conns.iter().map(|(_, conn)| conn.view(self.addr_of(conn.local)))
    }

    /// All peers.
    pub fn peers(&self) -> impl Iterator<Item = PeerView> {
        self.peers.iter().map(|(id, peer)| self.peer_view(id, peer))
    }

    /// All local addresses.
    pub fn locals(&self) -> impl Iterator<Item = LocalView> {
        self.locals.iter().map(|(id, local)| local.view(id))
    }

    /// One call.
    pub fn call(&self, call: CallId) -> Option<CallView> {
        self.calls.get(call).map(|call| call.view(self.addr_of(call.local)))
    }

    /// The peer of a call; `None` while the call waits in line, and once the peer is forgotten.
    pub fn peer_of(&self, call: CallId) -> Option<PeerView> {
        let id = self.calls.get(call)?.peer;
        self.peers.get(id).map(|peer| self.peer_view(id, peer))
    }

    /// The counters.
    pub fn stats(&self) -> &RxStats {
        &self.shared.stats
    }

    /// Buffers held for readers and for sending.
    pub fn buffers_held(&self) -> (usize, usize) {
        (self.shared.unread, self.shared.queued)
    }

    /// Whether there is no call, nothing to send and no event. Connections may remain until their time is up.
    pub fn is_idle(&self) -> bool {
        self.calls.len() == 0
            && !self.wants_transmit()
            && self.shared.events.is_empty()
            && self.buffers_held() == (0, 0)
    }
}
