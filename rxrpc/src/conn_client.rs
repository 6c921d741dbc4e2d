//! Client connections: bundles, places on them, and the calls that wait in line for one.

use crate::call::Call;
use crate::conn::{Channel, Last};
use crate::endpoint::Endpoint;
use crate::security::{ConnSecurity, Credentials};
use crate::shared::Keyed;
use crate::slab::Recycle;
use crate::upgrade::Upgrade;
use crate::wire::Cid;
use crate::{BeginError, BundleId, CallId, CallOptions, Completion, ConnId, LocalId, PeerId, Role, Target};
use pmd::Instant;
use std::collections::VecDeque;
use std::net::SocketAddr;

/// Channels of a connection.
pub const CHANNELS: usize = 4;
/// The last call number that a channel gives out; OpenAFS holds call numbers in signed integers.
const CALL_NUMBER_MAX: u32 = i32::MAX as u32;

/// The connections that carry one user's calls to one service.
#[derive(Debug, Default)]
pub struct Bundle {
    pub key: Option<BundleKey>,
    pub peer: PeerId,
    pub conns: Vec<ConnId>,
    pub conns_max: usize,
    pub credentials: Option<Credentials>,
    /// Places without a call. The one freed last is taken first: its final ACK is then never sent.
    pub free: Vec<(ConnId, usize)>,
    pub waiting: VecDeque<CallId>,
    /// For one call and its one connection: nobody finds it.
    pub exclusive: bool,
    pub upgrade: Upgrade,
}

/// What makes calls share connections: where they go, whether a service upgrade is asked for, and whose they are (the address of
/// credentials that the bundle holds).
pub type BundleKey = (LocalId, Target, bool, Option<usize>);

impl Recycle for Bundle {
    fn recycle(&mut self) {
        (self.key, self.credentials) = (None, None);
        self.conns.clear();
        self.free.clear();
        self.waiting.clear();
        (self.exclusive, self.upgrade) = (false, Upgrade::No);
    }
}

impl Endpoint {
    /// The bundle for a call; made if there is none, or if the call is to have one of its own.
    pub(crate) fn bundle_for(
        &mut self,
        local: LocalId,
        target: Target,
        options: &CallOptions,
    ) -> Result<BundleId, BeginError> {
        let key = (local, target, options.upgrade, options.credentials.as_ref().map(Credentials::address));
        if !options.exclusive
            && let Some(id) = self.find_bundle(&key)
        {
            return Ok(id);
        }
        let limit = self.bundles.limit();
        if self.bundles.is_full() {
            return Err(BeginError::TooManyBundles { limit });
        }
        let peer = self
            .peer_for(local, target.peer)
            .ok_or(BeginError::TooManyPeers { limit: self.peers.limit() })?;
        let (id, bundle) = self.bundles.insert().expect("not full");
        let conns_max = options.bundle_conns_max.unwrap_or(self.shared.config.bundle_conns_max);
        (bundle.key, bundle.peer, bundle.conns_max) = (Some(key), peer, conns_max.max(1));
        bundle.credentials = options.credentials.clone();
        bundle.upgrade = if options.upgrade { Upgrade::Asking } else { Upgrade::No };
        bundle.exclusive = options.exclusive;
        if bundle.exclusive {
            bundle.conns_max = 1;
        } else {
            self.bundle_index.insert(key, id);
        }
        Ok(id)
    }

    /// The bundle under a key. That of the last call is likely that of the next.
    fn find_bundle(&mut self, key: &BundleKey) -> Option<BundleId> {
        let last = self.bundles.get(self.last_bundle);
        if last.is_some_and(|bundle| bundle.key.as_ref() == Some(key) && !bundle.exclusive) {
            return Some(self.last_bundle);
        }
        self.last_bundle = *self.bundle_index.get(key)?;
        Some(self.last_bundle)
    }

    /// A place for a call: a free one, or the first of a new connection.
    pub(crate) fn take_place(&mut self, now: Instant, id: BundleId) -> Option<(ConnId, usize)> {
        let bundle = self.bundles.get_mut(id)?;
        while let Some((conn, channel)) = bundle.free.pop() {
            if self.conns.get(conn).is_some_and(|conn| conn.channels[channel].number < CALL_NUMBER_MAX) {
                return Some((conn, channel));
            }
        }
        // While it is not known which service it is, one call asks.
        let conns_max = if bundle.upgrade == Upgrade::Asking { 1 } else { bundle.conns_max };
        if bundle.conns.len() >= conns_max || self.conns.is_full() {
            return None;
        }
        let conn = self.new_client_conn(now, id)?;
        let bundle = self.bundles.get_mut(id)?;
        if bundle.upgrade != Upgrade::Asking && !bundle.exclusive {
            bundle.free.extend((1..CHANNELS).rev().map(|channel| (conn, channel)));
        }
        Some((conn, 0))
    }

    fn new_client_conn(&mut self, now: Instant, bundle_id: BundleId) -> Option<ConnId> {
        let bundle = self.bundles.get(bundle_id)?;
        let ((local, target, ..), peer) = (bundle.key?, bundle.peer);
        let (upgrade, exclusive) = (bundle.upgrade, bundle.exclusive);
        let credentials = bundle.credentials.clone();
        let cid = self.next_cid(local, target.peer);
        let (id, conn) = self.conns.insert()?;
        conn.id = id;
        conn.role = Role::Client;
        (conn.local, conn.peer, conn.addr) = (local, peer, target.peer);
        (conn.epoch, conn.cid, conn.exclusive) = (self.epoch, cid, exclusive);
        conn.service = if let Upgrade::To(service) = upgrade { service } else { target.service };
        (conn.asked_service, conn.asks_upgrade) = (conn.service, upgrade == Upgrade::Asking);
        conn.security = ConnSecurity::for_client(credentials.as_ref(), self.epoch, cid);
        (conn.bundle, conn.used) = (Some(bundle_id), now);
        let key = conn.key();
        self.bundles.get_mut(bundle_id)?.conns.push(id);
        self.register_conn(id, key);
        self.keep_awake(now, peer);
        self.shared.stats.client_conns += 1;
        Some(id)
    }

    /// Connection ids count up from a random start; one that a long-lived connection still has is left out.
    fn next_cid(&mut self, local: LocalId, peer: SocketAddr) -> Cid {
        loop {
            self.next_cid = self.next_cid.wrapping_add(CHANNELS as u32);
            let cid = Cid(self.next_cid).connection();
            let key = crate::conn::ConnKey::new(Role::Client, local, peer, self.epoch, cid);
            if cid.0 != 0 && !self.conn_index.contains_key(&key) {
                return cid;
            }
        }
    }

    /// Puts a call on its place.
    pub(crate) fn attach(&mut self, now: Instant, call_id: CallId, (conn_id, channel): (ConnId, usize)) {
        let (Some(call), Some(conn)) = (self.calls.get_mut(call_id), self.conns.get_mut(conn_id)) else {
            return;
        };
        let number = conn.channels[channel].number + 1;
        // A new call tells the server that the client has all of the last one, so no ACK is owed for it any more; but
        // the code of an abort is told first.
        let abort_before = match conn.channels[channel] {
            Channel { last: Last::Abort { code }, reply: Some(_), .. } => Some(code),
            Channel { abort_before, .. } => abort_before,
        };
        conn.channels[channel] = Channel { call: Some(call_id), number, abort_before, ..Channel::default() };
        (call.conn, call.channel, call.number) = (Some(conn_id), channel, number);
        (call.epoch, call.cid) = (conn.epoch, conn.cid.with_channel(channel).0);
        (call.peer, call.service) = (conn.peer, conn.service);
        self.shared.trace_begun(now, call);
        let d = &mut call.deadlines;
        (d.heard, d.pinged, d.moved) = (now, now, now);
        if call.send.len() > 0 {
            call.schedule(&mut self.shared);
        }
        call.rearm_all(&mut self.shared);
    }

    /// A channel is free: the next in line has it, or it waits for the next call.
    pub(crate) fn place_freed(&mut self, now: Instant, bundle_id: BundleId, conn: ConnId, channel: usize) {
        let Some(bundle) = self.bundles.get_mut(bundle_id) else { return };
        if bundle.exclusive {
            return;
        }
        bundle.free.push((conn, channel));
        self.serve_line(now, bundle_id);
    }

    /// Gives places to calls in line while there are any.
    pub(crate) fn serve_line(&mut self, now: Instant, bundle_id: BundleId) {
        while self.bundles.get(bundle_id).is_some_and(|bundle| !bundle.waiting.is_empty()) {
            let Some(place) = self.take_place(now, bundle_id) else { return };
            let Some(call) = self.bundles.get_mut(bundle_id).and_then(|bundle| bundle.waiting.pop_front())
            else {
                return;
            };
            self.attach(now, call, place);
        }
    }

    /// A bundle lost its last connection and can have no other: its line would wait for nothing.
    pub(crate) fn disperse_line(&mut self, now: Instant, bundle_id: BundleId, completion: Completion) {
        while let Some(bundle) = self.bundles.get_mut(bundle_id).filter(|bundle| bundle.conns.is_empty()) {
            let Some(call) = bundle.waiting.pop_front() else { return };
            self.finish(now, call, completion);
        }
    }

    /// A call in line has ended.
    pub(crate) fn leave_line(&mut self, bundle_id: BundleId, call: CallId) {
        if let Some(bundle) = self.bundles.get_mut(bundle_id) {
            bundle.waiting.retain(|&waiting| waiting != call);
        }
        self.drop_bundle_if_unused(bundle_id);
    }

    /// A bundle goes with its last connection, unless calls wait for one.
    pub(crate) fn drop_bundle_if_unused(&mut self, id: BundleId) {
        let Some(bundle) = self.bundles.get(id) else { return };
        if !bundle.conns.is_empty() || !bundle.waiting.is_empty() {
            return;
        }
        let (key, peer) = (bundle.key, bundle.peer);
        if let Some(key) = key.filter(|_| !bundle.exclusive) {
            self.bundle_index.remove(&key);
        }
        self.bundles.remove(id);
        self.peer_unref(peer);
    }

    /// The peer at an address, with one more reference; made if there is none. `None`: too many.
    pub(crate) fn peer_for(&mut self, local: LocalId, addr: SocketAddr) -> Option<PeerId> {
        if let Some(&id) = self.peer_index.get(&(local, addr)) {
            self.peers.get_mut(id)?.refs += 1;
            return Some(id);
        }
        let (id, peer) = self.peers.insert()?;
        (peer.local, peer.addr, peer.refs) = (local, addr, 1);
        self.peer_index.insert((local, addr), id);
        Some(id)
    }

    pub(crate) fn peer_unref(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        peer.refs -= 1;
        if peer.refs == 0 {
            self.peer_index.remove(&(peer.local, peer.addr));
            self.shared.timers.stop(&mut peer.timer);
            self.peers.remove(id);
        }
    }
}

impl Call {
    /// Whether it stands in line.
    pub fn in_line(&self) -> bool {
        self.role == Role::Client && self.conn.is_none() && self.completion.is_none()
    }
}

/// Bundles by what makes calls share them.
pub type BundleIndex = Keyed<BundleKey, BundleId>;
