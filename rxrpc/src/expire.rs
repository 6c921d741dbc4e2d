//! What time alone brings about: delayed ACKs, retransmission, pings, and the end of calls that wait in vain.

use crate::call::Call;
use crate::endpoint::Endpoint;
use crate::loss::resend;
use crate::shared::Shared;
use crate::timer::TimerKey;
use crate::{Completion, Role, Timeout};
use pmd::Instant;

/// Timers that fire in one turn; what is left is the next turn's. A crowd that came at once also leaves at once.
const TIMERS_PER_TURN: usize = 256;

impl Endpoint {
    pub(crate) fn expire_all(&mut self, now: Instant) {
        for _ in 0..TIMERS_PER_TURN {
            let Some(key) = self.shared.timers.pop_due(now) else { break };
            match key {
                TimerKey::Call(slot) => self.expire_call(now, slot),
                TimerKey::Conn(id) => self.expire_conn(now, id),
                TimerKey::Peer(id) => self.expire_peer(now, id),
            }
        }
        self.wake_starved(now);
    }

    fn expire_call(&mut self, now: Instant, slot: u32) {
        let Some((tenant, call)) = self.calls.slot_mut(slot) else { return };
        call.wake_at = None;
        // The timer may be that of a call before this one.
        let Some(id) = tenant.filter(|_| call.completion.is_none()) else { return };
        if let Some(completion) = over(now, call, &self.shared) {
            // A client that left with its whole reply, and whose last word was lost, has nothing to be told.
            let replied = call.role == Role::Service && call.send.ended() && call.send.unsent() == 0;
            let tell = !(replied && completion == Completion::TimedOut(Timeout::Dead));
            self.end(now, id, completion, tell);
            return;
        }
        let shared = &mut self.shared;
        call.ack.expire(now);
        call.deadlines.pace = call.deadlines.pace.filter(|&at| at > now);
        if call.deadlines.resend.is_some_and(|at| at <= now)
            && let Some(peer) = self.peers.get_mut(call.peer)
        {
            resend(now, call, peer, shared);
        }
        if call.watches_peer() && call.ping_at(shared) <= now {
            call.ack.ping = true;
            call.deadlines.pinged = now;
        }
        call.schedule(shared);
        call.rearm_all(shared);
    }

    /// Looks whether there are buffers for calls that found none.
    pub(crate) fn wake_starved(&mut self, now: Instant) {
        if self.shared.starved_at.is_none_or(|at| at > now) {
            return;
        }
        self.shared.starved_at = None;
        for _ in 0..self.shared.starved.len() {
            let Some(id) = self.shared.starved.pop_front() else { break };
            let Some(call) = self.calls.get_mut(id) else { continue };
            call.starved = false;
            call.notify_writable(&mut self.shared);
            if call.wants_room {
                call.want_room(now, &mut self.shared);
            }
        }
    }
}

/// Whether a call has waited long enough.
fn over(now: Instant, call: &Call, shared: &Shared) -> Option<Completion> {
    let d = &call.deadlines;
    if d.hard.is_some_and(|at| at <= now) {
        return Some(Completion::TimedOut(Timeout::Hard));
    }
    call.conn?;
    if d.busy.is_some_and(|since| since + shared.config.busy <= now) {
        return Some(Completion::Busy);
    }
    if call.watches_peer() && d.heard + d.dead <= now {
        return Some(Completion::TimedOut(Timeout::Dead));
    }
    d.idle.is_some_and(|idle| d.moved + idle <= now).then_some(Completion::TimedOut(Timeout::Idle))
}
