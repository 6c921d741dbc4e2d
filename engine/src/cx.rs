//! [`Cx`]: what a handler works with while it is called.

use std::net::SocketAddr;
use std::sync::Arc;

use arrayvec::ArrayVec;
use pmd::{BURST, Burst, Instant, Mbuf, Pool, Queue};

use crate::capture::Tap;
use crate::control::Sockets;
use crate::handler::Outcome;
use crate::ledger::CoreCounters;
use crate::owner::{Ownership, Steering};
use crate::rcu::{ReadGuard, Retirer};
use crate::socket::{CoreToken, Pushed, Socket, SocketId};
use crate::stack::{Datagram, Outbox, Stack, Unreachable, Update};
use crate::stats::Drop;
use crate::wq::Barrier;

/// Sockets that can be on the wake list before it is worked off early.
const TOUCHED_MAX: usize = 64;

/// What passes between the cores of an engine.
pub(crate) enum HandOver {
    Datagram(Datagram),
    Unreachable(Unreachable),
    Update(Update),
}

/// One core's share of one port.
pub(crate) struct PortSide {
    pub queue: Box<dyn Queue>,
    /// Frames on their way into the device, oldest first.
    pub tx: Burst,
}

/// Every frame that leaves passes here.
#[inline]
fn tx_burst(
    queue: &mut dyn Queue,
    tap: &mut Option<Box<Tap>>,
    port: usize,
    now: Instant,
    burst: &mut Burst,
) -> usize {
    match tap {
        None => queue.tx_burst(now, burst),
        Some(tap) => tap.tx_burst(queue, port, now, burst),
    }
}

/// A core's own state, apart from its pool, its reader and its handler.
pub(crate) struct CoreState {
    pub core: usize,
    pub ownership: Ownership,
    pub stack: Stack,
    pub out: Outbox,
    pub ports: Vec<PortSide>,
    /// Rings to the other cores; `None` at this core's own place.
    pub peers: Vec<Option<rtrb::Producer<HandOver>>>,
    /// Cores to wake at the end of the turn.
    pub handed_to: u64,
    pub token: CoreToken,
    pub touched: ArrayVec<SocketId, TOUCHED_MAX>,
    pub counters: Arc<CoreCounters>,
    /// Buffers of the pool that sockets may not hold: they keep receiving alive.
    pub reserve: usize,
    /// Whether the pool is above its reserve, looked up once a turn.
    pub above_reserve: bool,
    /// There only while somebody captures.
    pub tap: Option<Box<Tap>>,
}

impl CoreState {
    pub fn new(
        token: CoreToken,
        stack: Stack,
        queues: Vec<Box<dyn Queue>>,
        peers: Vec<Option<rtrb::Producer<HandOver>>>,
        pool_buffers: usize,
        counters: Arc<CoreCounters>,
        sockets: &Sockets,
    ) -> Self {
        CoreState {
            core: token.core(),
            ownership: sockets.ownership.clone(),
            stack,
            out: Outbox::new(queues.len(), pool_buffers / 4),
            ports: queues.into_iter().map(|queue| PortSide { queue, tx: Burst::new() }).collect(),
            peers,
            handed_to: 0,
            token,
            touched: ArrayVec::new(),
            counters,
            reserve: pool_buffers / 4,
            above_reserve: true,
            tap: None,
        }
    }
}

/// What a handler works with: the time, the core's buffers, and the way out. Lives for one turn, under the core's read guard.
pub struct Cx<'a> {
    /// The time of this turn: the clock was read once.
    pub now: Instant,
    /// The core's buffers.
    pub pool: &'a mut Pool,
    pub(crate) state: &'a mut CoreState,
    pub(crate) sockets: &'a Sockets,
    pub(crate) guard: ReadGuard<'a>,
    pub(crate) retirer: &'a mut Retirer,
}

impl<'a> Cx<'a> {
    /// This core's number, `0..cores()`.
    pub fn core(&self) -> usize {
        self.state.core
    }

    /// How many cores the engine has.
    pub fn cores(&self) -> usize {
        self.state.ownership.cores()
    }

    /// The core that owns the flow between `local` and `peer`.
    pub fn owner(&self, local: SocketAddr, peer: SocketAddr) -> usize {
        self.state.ownership.owner(local, peer)
    }

    /// The largest UDP payload, in bytes, that reaches `to` unfragmented.
    pub fn mtu_for(&self, to: SocketAddr) -> usize {
        self.state.stack.mtu_for(self.now, to)
    }

    /// The pool and the questions about flows and routes, both at once.
    pub fn split(&mut self) -> (&mut Pool, Steering<'_>) {
        let CoreState { core, ref ownership, ref stack, ref counters, .. } = *self.state;
        (self.pool, Steering { now: self.now, core, ownership, counters, stack })
    }

    /// The core's read permission, for cells that RCU protects.
    pub fn guard(&self) -> ReadGuard<'a> {
        self.guard
    }

    /// The core's way to free shared objects after a grace period. Full at the cap on retired memory: refuse new work by name, before
    /// it is begun ([`Retirer::has_room`]).
    pub fn retirer(&mut self) -> &mut Retirer {
        self.retirer
    }

    /// The socket of that name; `None` once it is closed.
    pub fn socket(&self, id: SocketId) -> Option<&'a Socket> {
        self.sockets.get(id, self.guard)
    }

    /// Sends a UDP datagram. `from` may have an unspecified IP: the route chooses. The payload is used up either way.
    pub fn send(&mut self, from: SocketAddr, to: SocketAddr, payload: Mbuf) -> Result<(), Drop> {
        let CoreState { stack, out, counters, .. } = &mut *self.state;
        let sent = stack.send(self.now, from, to, payload, self.pool, out);
        match sent {
            Ok(()) => counters.sent.add(1),
            Err(reason) => {
                counters.tx_drops[reason as usize].add(1);
                if let Some(tap) = &mut self.state.tap {
                    tap.not_sent(self.now, from, to, reason);
                }
            }
        }
        sent
    }

    /// Sends a complete frame on port `port`: for raw handlers. When the device takes no more, it is dropped by name.
    pub fn send_frame(&mut self, port: usize, frame: Mbuf) {
        let CoreState { ports, tap, counters, .. } = &mut *self.state;
        let side = &mut ports[port];
        if side.tx.is_full() {
            tx_burst(&mut *side.queue, tap, port, self.now, &mut side.tx);
        }
        match side.tx.try_push(frame) {
            Ok(()) => counters.sent.add(1),
            Err(error) => {
                counters.tx_drops[Drop::TransmitFull as usize].add(1);
                if let Some(tap) = tap {
                    tap.frame_not_sent(self.now, port, &error.element(), Drop::TransmitFull);
                }
            }
        }
    }

    /// Sends a burst of frames on port `port`: straight into the device where it can. Leaves `burst` empty; what the device does not
    /// take now waits for room behind what waited before, and beyond a burst is dropped by name.
    #[inline]
    pub fn send_burst(&mut self, port: usize, burst: &mut Burst) {
        let CoreState { ports, tap, counters, .. } = &mut *self.state;
        let side = &mut ports[port];
        if !side.tx.is_empty() {
            tx_burst(&mut *side.queue, tap, port, self.now, &mut side.tx);
        }
        if side.tx.is_empty() {
            let sent = tx_burst(&mut *side.queue, tap, port, self.now, burst);
            counters.sent.add(sent as u64);
        }
        for frame in burst.drain(..) {
            self.send_frame(port, frame);
        }
    }

    /// Offers a burst to the device once, and at once: for handlers that count what it does not take, which stays in `burst`. How many it
    /// took. Goes ahead of what waits from the other two; a handler uses either them or this.
    #[inline]
    pub fn offer_burst(&mut self, port: usize, burst: &mut Burst) -> usize {
        let CoreState { ports, tap, counters, .. } = &mut *self.state;
        let sent = tx_burst(&mut *ports[port].queue, tap, port, self.now, burst);
        counters.sent.add(sent as u64);
        sent
    }

    /// Puts a datagram on the socket's queue for its readers, who are woken once at the end of the burst.
    #[inline]
    pub fn deliver(&mut self, socket: &Socket, datagram: Datagram) -> Outcome {
        let state = &mut *self.state;
        if !state.above_reserve {
            return Outcome::Dropped(Drop::PoolReserve);
        }
        let weight = crate::socket::weight(&datagram.payload);
        if !self.sockets.core_budget_allows(state.core, state.counters.queued.get(), weight) {
            return Outcome::Dropped(Drop::CoreBudget);
        }
        let Some(mbuf) = crate::udp::pack(datagram) else { return Outcome::Dropped(Drop::NoHeadroom) };
        match socket.push(&mut state.token, mbuf) {
            Err(_) => Outcome::Dropped(Drop::SocketBudget),
            Ok(pushed) => {
                state.counters.queued.add(weight);
                if pushed == Pushed::First {
                    self.touched(socket.id());
                }
                Outcome::Delivered
            }
        }
    }

    /// Wakes whoever waits for the socket, once, at the end of the burst. What they wait for must be published already.
    pub fn notify(&mut self, socket: &Socket) {
        if socket.touch(&mut self.state.token) == Pushed::First {
            self.touched(socket.id());
        }
    }

    fn touched(&mut self, id: SocketId) {
        if self.state.touched.is_full() {
            self.wake_touched();
        }
        self.state.touched.push(id);
    }

    /// The end of a burst: every touched socket's readers are offered what arrived and woken, behind one barrier.
    #[inline]
    pub(crate) fn wake_touched(&mut self) {
        let CoreState { touched, token, .. } = &mut *self.state;
        if touched.is_empty() {
            return;
        }
        for id in &*touched {
            if let Some(socket) = self.sockets.get(*id, self.guard) {
                socket.publish(token);
            }
        }
        let barrier = Barrier::publish();
        for id in touched.drain(..) {
            if let Some(socket) = self.sockets.get(id, self.guard) {
                socket.wake(token, self.guard, &barrier);
            }
        }
    }

    /// Hands something to another core, or back when its ring has no room.
    pub(crate) fn hand_over(&mut self, core: usize, what: HandOver) -> Result<(), HandOver> {
        let Some(ring) = &mut self.state.peers[core] else { return Err(what) };
        ring.push(what).map_err(|rtrb::PushError::Full(what)| what)?;
        self.state.handed_to |= 1 << core;
        Ok(())
    }

    /// Wakes the cores that were handed something this turn, if they sleep.
    #[inline]
    pub(crate) fn ring_bells(&mut self) {
        let mut cores = std::mem::take(&mut self.state.handed_to);
        while cores != 0 {
            self.sockets.cores[cores.trailing_zeros() as usize].bell.ring();
            cores &= cores - 1;
        }
    }

    /// Moves what the stack wants sent into the devices, as far as they take it.
    #[inline]
    pub(crate) fn flush(&mut self) -> bool {
        let CoreState { ports, out, tap, .. } = &mut *self.state;
        let mut moved = false;
        for (port, side) in ports.iter_mut().enumerate() {
            let waiting = out.frames(port);
            loop {
                while side.tx.len() < BURST {
                    let Some(frame) = waiting.pop_front() else { break };
                    side.tx.push(frame);
                }
                if side.tx.is_empty() {
                    break;
                }
                let sent = tx_burst(&mut *side.queue, tap, port, self.now, &mut side.tx);
                moved |= sent > 0;
                if !side.tx.is_empty() {
                    break;
                }
            }
        }
        moved
    }
}
