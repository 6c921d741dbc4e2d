//! The endpoint's timers: one for each slot of a call, each connection and each peer, on the engine's wheel.
//!
//! A call's timer belongs to its slot and outlives it: calls that begin and end within milliseconds find the timer of the one
//! before them armed, and early enough. A wake-up of a slot without a call costs less than arming and stopping for every call.

use crate::slab::Key;
use crate::{ConnId, PeerId};
use engine::timer::{TimerId, TimerWheel};
use pmd::Instant;

/// How late a timer may fire, in nanoseconds.
const TICK_NANOS: u64 = 1 << 20;
/// Marks a connection's token. Slots are well below it.
const CONN: u64 = 1 << 63;
/// Marks a peer's token. A call's has neither bit.
const PEER: u64 = 1 << 62;

/// Whose timer fired.
#[derive(Clone, Copy, Debug)]
pub enum TimerKey {
    /// The slot of a call, whichever is in it by then.
    Call(u32),
    Conn(ConnId),
    Peer(PeerId),
}

/// An object's timer. Stop it before the object goes.
#[derive(Debug, Default)]
pub struct Timer(Option<TimerId>);

/// All timers.
pub struct Timers(TimerWheel);

impl Timers {
    /// Room for one timer for each of so many objects.
    pub fn new(objects: usize) -> Self {
        Self(TimerWheel::new(Instant::ZERO, objects, TICK_NANOS))
    }

    /// (Re)arms a timer.
    pub fn arm(&mut self, timer: &mut Timer, key: TimerKey, at: Instant) {
        self.stop(timer);
        timer.0 = Some(self.0.arm(at, token(key)).expect("there is a timer for each object"));
    }

    /// Stops a timer.
    pub fn stop(&mut self, timer: &mut Timer) {
        if let Some(id) = timer.0.take() {
            self.0.cancel(id);
        }
    }

    /// The owner of one timer that is due.
    pub fn pop_due(&mut self, now: Instant) -> Option<TimerKey> {
        self.0.poll(now).map(key)
    }

    /// When `pop_due` has something to do next; early where that is a move to a finer level.
    pub fn next(&self) -> Option<Instant> {
        self.0.next_timeout()
    }
}

fn token(key: TimerKey) -> u64 {
    let (mark, (slot, generation)) = match key {
        TimerKey::Call(slot) => (0, (slot, 0)),
        TimerKey::Conn(id) => (CONN, id.parts()),
        TimerKey::Peer(id) => (PEER, id.parts()),
    };
    debug_assert!(slot < 1 << 30);
    mark | u64::from(slot) << 32 | u64::from(generation)
}

fn key(token: u64) -> TimerKey {
    let (slot, generation) = (((token & !(CONN | PEER)) >> 32) as u32, token as u32);
    match token & (CONN | PEER) {
        CONN => TimerKey::Conn(ConnId::new(slot, generation)),
        PEER => TimerKey::Peer(PeerId::new(slot, generation)),
        _ => TimerKey::Call(slot),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_names_its_owner() {
        let mut timers = Timers::new(3);
        let (mut of_call, mut of_conn) = (Timer::default(), Timer::default());
        let mut of_peer = Timer::default();
        let (call, conn, peer) = (7, ConnId::new(7, 0xffff_fffd), PeerId::new(7, 5));
        let at = |nanos| Instant::from_nanos(nanos);
        timers.arm(&mut of_call, TimerKey::Call(call), at(1));
        timers.arm(&mut of_conn, TimerKey::Conn(conn), at(3 << 20));
        timers.arm(&mut of_call, TimerKey::Call(call), at(5 << 20));
        timers.arm(&mut of_peer, TimerKey::Peer(peer), at(7 << 20));
        assert!(matches!(timers.pop_due(at(10 << 20)), Some(TimerKey::Conn(id)) if id == conn));
        assert!(matches!(timers.pop_due(at(10 << 20)), Some(TimerKey::Call(slot)) if slot == call));
        assert!(matches!(timers.pop_due(at(10 << 20)), Some(TimerKey::Peer(id)) if id == peer));
        timers.arm(&mut of_call, TimerKey::Call(call), at(1));
        timers.stop(&mut of_call);
        assert!(timers.pop_due(at(10 << 20)).is_none() && timers.next().is_none());
    }
}
