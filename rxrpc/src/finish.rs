//! How calls and connections end.
//!
//! A call ends once: it leaves its channel, which remembers what duplicates are to be told and who is owed a last word,
//! and the user gets his event. What is left of it then is only what has not been read, until `release`.

use crate::conn::{Conn, Last};
use crate::endpoint::Endpoint;
use crate::error::code;
use crate::security::Challenge;
use crate::shared::{Shared, Work};
use crate::timer::TimerKey;
use crate::trace::Happened;
use crate::wire::AckReason;
use crate::{CallId, Completion, ConnId, EndpointConfig, Event, Role};
use pmd::Instant;
use std::time::Duration;

impl Endpoint {
    /// Ends a call, and tells the other end unless it knows. The first end stands.
    pub(crate) fn finish(&mut self, now: Instant, id: CallId, completion: Completion) {
        let tell =
            matches!(completion, Completion::LocalAbort(_) | Completion::TimedOut(_) | Completion::Busy);
        self.end(now, id, completion, tell);
    }

    pub(crate) fn end(&mut self, now: Instant, id: CallId, completion: Completion, tell: bool) {
        let Some(call) = self.calls.get_mut(id).filter(|call| call.completion.is_none()) else { return };
        let in_line = call.in_line();
        call.completion = Some(completion);
        let shared = &mut self.shared;
        if call.conn.is_some() {
            shared.trace(now, call, || Happened::Ended(completion));
        }
        shared.queued -= call.send.finish();
        if completion == Completion::Succeeded {
            shared.stats.calls_succeeded += 1;
        } else {
            shared.stats.calls_failed += 1;
            shared.unread -= call.recv.discard();
        }
        let last = match completion {
            Completion::Succeeded => Last::Ack { next: call.recv.next(), highest: call.recv.highest() },
            other => Last::Abort { code: other.abort_code() },
        };
        let (conn, channel, bundle, announced) =
            (call.conn.take(), call.channel, call.bundle, call.announced);
        if std::mem::take(&mut call.holds_charge) {
            let offered = self.locals.get_mut(call.local).and_then(|local| local.service(call.service));
            if let Some(service) = offered {
                service.charged = (service.charged + 1).min(service.config.backlog);
            }
        }
        if announced {
            shared.events.push_back(Event::Complete { call: id, completion });
        }
        if in_line && let Some(bundle) = bundle {
            self.leave_line(bundle, id);
        }
        if let Some(conn) = conn {
            self.detach(now, conn, channel, last, tell);
        }
        if !announced {
            // Nobody was told of it, so nobody will release it.
            self.forget(id);
        }
    }

    /// Takes an ended call off its channel.
    fn detach(&mut self, now: Instant, conn_id: ConnId, index: usize, last: Last, tell: bool) {
        let Some(conn) = self.conns.get_mut(conn_id) else { return };
        conn.used = now;
        let channel = &mut conn.channels[index];
        (channel.call, channel.last) = (None, last);
        if tell {
            channel.reply = Some((AckReason::Requested, 0));
            self.schedule_conn(conn_id);
        }
        let Some(conn) = self.conns.get_mut(conn_id) else { return };
        if let Some(bundle) = conn.bundle {
            self.place_freed(now, bundle, conn_id, index);
        }
    }

    /// A client call has all of its reply: the server is owed an ACK, at once if something asked for one, otherwise
    /// when no new call on the channel has said the same in time.
    pub(crate) fn owe_final_ack(
        &mut self,
        now: Instant,
        conn_id: ConnId,
        call: CallId,
        owed: Option<(AckReason, u32)>,
    ) {
        let Some(conn) = self.conns.get_mut(conn_id) else { return };
        let number = self.calls.get(call).map(|call| (call.channel, call.number));
        // A call that waited in line may be on the channel already.
        let Some((index, _)) = number.filter(|&(index, number)| {
            conn.channels[index].call.is_none() && conn.channels[index].number == number
        }) else {
            return;
        };
        match owed {
            Some(owed) => {
                conn.channels[index].reply = Some(owed);
                self.schedule_conn(conn_id);
            }
            None => {
                let at = now + self.shared.config.final_ack;
                conn.channels[index].final_ack = Some(at);
                wake_conn_by(conn, &mut self.shared, at);
            }
        }
    }

    /// Queues a connection whose channels owe answers.
    pub(crate) fn schedule_conn(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        if !conn.queued {
            conn.queued = true;
            self.shared.work.push_back(Work::Conn(id));
        }
    }

    /// Ends all calls of a connection, and the connection.
    pub(crate) fn end_conn(&mut self, now: Instant, id: ConnId, completion: Completion) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        // Calls in line must not come onto its channels.
        let bundle = conn.bundle.take();
        for channel in conn.channels.iter_mut().filter(|channel| channel.final_ack.is_some()) {
            channel.final_ack = None;
            channel.reply = channel.reply.or(Some((AckReason::Delay, 0)));
        }
        if conn.owes() {
            self.schedule_conn(id);
        }
        let Some(conn) = self.conns.get(id) else { return };
        for call in conn.channels.map(|channel| channel.call).into_iter().flatten() {
            self.finish(now, call, completion);
        }
        if let Some(bundle_id) = bundle {
            if let Some(bundle) = self.bundles.get_mut(bundle_id) {
                bundle.conns.retain(|&conn| conn != id);
                bundle.free.retain(|&(conn, _)| conn != id);
            }
            self.serve_line(now, bundle_id);
            self.disperse_line(now, bundle_id, completion);
            self.drop_bundle_if_unused(bundle_id);
        }
        // One that owes aborts goes when they are sent and its time is up.
        if !self.conns.get(id).is_some_and(Conn::owes) {
            self.remove_conn(id);
        }
    }

    /// Forgets a connection without calls.
    pub(crate) fn remove_conn(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        debug_assert!(conn.unused());
        let (key, peer, local, bundle) = (conn.key(), conn.peer, conn.local, conn.bundle);
        let role = conn.role;
        self.unsecured -= usize::from(!conn.security.secured());
        self.shared.timers.stop(&mut conn.timer);
        self.conns.remove(id);
        self.conn_index.remove(&key);
        self.recent_conns.forget(&key);
        if let Some(bundle_id) = bundle {
            if let Some(bundle) = self.bundles.get_mut(bundle_id) {
                bundle.conns.retain(|&conn| conn != id);
                bundle.free.retain(|&(conn, _)| conn != id);
            }
            self.drop_bundle_if_unused(bundle_id);
        }
        if role == Role::Client {
            self.let_sleep(peer);
        }
        self.peer_unref(peer);
        if let Some(local_conns) = self.locals.get_mut(local) {
            local_conns.conns -= 1;
            if local_conns.closing && local_conns.conns == 0 {
                self.locals.remove(local);
            }
        }
    }

    /// Makes a new connection findable.
    pub(crate) fn register_conn(&mut self, id: ConnId, key: crate::conn::ConnKey) {
        self.conn_index.insert(key, id);
        let Some(conn) = self.conns.get_mut(id) else { return };
        if let Some(local) = self.locals.get_mut(conn.local) {
            local.conns += 1;
        }
        if conn.role == Role::Client
            && let Some(peer) = self.peers.get_mut(conn.peer)
        {
            peer.refs += 1;
        }
        arm_conn(conn, &mut self.shared);
    }

    /// Gives a call back. See `Endpoint::release`.
    pub(crate) fn release_call(&mut self, now: Instant, id: CallId) -> bool {
        let Some(call) = self.calls.get_mut(id) else { return false };
        // No event names a call after its release, this end included.
        call.announced = false;
        if call.completion.is_none() {
            self.finish(now, id, Completion::LocalAbort(code::USER_ABORT));
        } else {
            self.forget(id);
        }
        true
    }

    /// Frees a call that has ended.
    fn forget(&mut self, id: CallId) {
        let Some(call) = self.calls.get_mut(id) else { return };
        debug_assert!(call.completion.is_some() && call.conn.is_none());
        self.shared.unread -= call.recv.discard();
        self.calls.remove(id);
        self.trim_events();
    }

    /// Events of released calls are skipped when they come up; a user who releases calls without looking at events
    /// must not make the queue grow.
    fn trim_events(&mut self) {
        /// Events of a living call: Incoming, Readable, Writable, Complete.
        const PER_CALL: usize = 4;
        let events = &mut self.shared.events;
        if events.len() > PER_CALL * self.calls.len() + 4_096 {
            let calls = &self.calls;
            events.retain(|event| event_call(event).is_none_or(|call| calls.get(call).is_some()));
        }
    }

    /// Wakes a connection: final ACKs that are due, and its end if nobody used it for long.
    pub(crate) fn expire_conn(&mut self, now: Instant, id: ConnId) {
        if let Some(conn) = self.conns.get_mut(id) {
            conn.wake_at = None;
        }
        self.expire_challenge(now, id);
        let Some(conn) = self.conns.get_mut(id) else { return };
        let mut owes = false;
        for channel in &mut conn.channels {
            if channel.final_ack.is_some_and(|at| at <= now) {
                channel.final_ack = None;
                channel.reply = channel.reply.or(Some((AckReason::Delay, 0)));
                owes = true;
            }
        }
        let idle = idle_limit(conn, &self.shared.config);
        let in_use = !conn.unused() || conn.owes();
        if in_use {
            conn.used = now;
        } else if conn.used + idle <= now {
            self.remove_conn(id);
            return;
        }
        arm_conn(conn, &mut self.shared);
        if owes {
            self.schedule_conn(id);
        }
    }
}

/// The call that an event is about.
pub(crate) fn event_call(event: &Event) -> Option<CallId> {
    match event {
        Event::Incoming { call, .. }
        | Event::Readable { call }
        | Event::Writable { call }
        | Event::Complete { call, .. } => Some(*call),
        Event::Version { .. } | Event::Debug { .. } => None,
    }
}

/// How long a connection without calls lives. One that was for a single call lives as long as its peer may still repeat the
/// end of that call, and hear the answer again.
fn idle_limit(conn: &Conn, config: &EndpointConfig) -> Duration {
    const EXCLUSIVE: Duration = Duration::from_secs(2);
    match conn.role {
        Role::Client if conn.exclusive => EXCLUSIVE.min(config.client_conn_idle),
        Role::Client => config.client_conn_idle,
        Role::Service => config.service_conn_idle,
    }
}

/// Makes sure that a connection is woken in time for all that it has to do.
pub(crate) fn arm_conn(conn: &mut Conn, shared: &mut Shared) {
    // One in use looks again later: it need not be told when its calls end.
    let mut next = conn.used + idle_limit(conn, &shared.config);
    for at in conn.channels.iter().filter_map(|channel| channel.final_ack) {
        next = next.min(at);
    }
    if let Some(at) = conn.security.challenge().and_then(Challenge::deadline) {
        next = next.min(at);
    }
    wake_conn_by(conn, shared, next);
}

/// Makes sure that a connection is woken by then; early does no harm.
fn wake_conn_by(conn: &mut Conn, shared: &mut Shared, at: Instant) {
    if conn.wake_at.is_none_or(|wakes| at < wakes) {
        conn.wake_at = Some(at);
        shared.timers.arm(&mut conn.timer, TimerKey::Conn(conn.id), at);
    }
}
