//! A frame's way from the queue to the handler: demux, owner, table, handler; and what the stack settles on the side.

use arrayvec::ArrayVec;
use pmd::{BURST, Burst, Mbuf};

use crate::cx::{CoreState, Cx, HandOver};
use crate::flow::Flow;
use crate::handler::{Handler, Outcome};
use crate::socket::Socket;
use crate::stack::{Datagram, Unreachable, Update, Verdict};
use crate::stats::Drop;
use crate::table::prefetch;

/// Notices and datagrams to ourselves that one burst takes up: a socket that answers itself must not hold the core.
const LOCAL_BURST: usize = 64;

impl Cx<'_> {
    /// Once a turn: whether the pool can spare buffers for sockets that nobody reads.
    #[inline]
    pub(crate) fn look_at_reserve(&mut self) {
        self.state.above_reserve = self.pool.available() > self.state.reserve;
    }

    #[inline]
    pub(crate) fn receive_burst(&mut self, port: usize, burst: &mut Burst) -> usize {
        let received = self.state.ports[port].queue.rx_burst(self.now, self.pool, burst);
        if received > 0 {
            self.state.counters.received.add(received as u64);
        }
        received
    }

    /// A raw handler's burst. What it takes out is consumed, or delivered if it sends it; what it leaves is dropped.
    #[inline]
    pub(crate) fn raw<H: Handler>(&mut self, handler: &mut H, port: usize, burst: &mut Burst) {
        let before = burst.len() as u64;
        if before == 0 {
            return;
        }
        if let Some(tap) = &mut self.state.tap {
            tap.received(self.now, port, burst);
        }
        let sent = self.state.counters.sent.get();
        handler.raw(self, port, burst);
        let counters = &self.state.counters;
        let left = (burst.len() as u64).min(before);
        let delivered = (counters.sent.get() - sent).min(before - left);
        counters.delivered.add(delivered);
        counters.consumed.add(before - left - delivered);
        if left > 0 {
            counters.drops[Drop::RawUnclaimed as usize].add(left);
            if let Some(tap) = &mut self.state.tap {
                tap.unclaimed(self.now, port, burst);
            }
        }
        burst.clear();
    }

    /// A burst's way, frame by frame: parse, find the owner, find the socket, hand it to the handler.
    #[inline]
    pub(crate) fn input_burst<H: Handler>(&mut self, handler: &mut H, port: usize, burst: &mut Burst) {
        if self.state.tap.is_some() {
            return self.input_captured(handler, port, burst);
        }
        if self.sockets.are_many() {
            return self.input_among_many(handler, port, burst);
        }
        for frame in burst.drain(..) {
            if let Ok(datagram) = self.input(handler, port, frame) {
                let _ = self.deliver_to_socket(handler, datagram);
            }
        }
    }

    /// The same while somebody captures: each frame is copied first, and shown with what became of it.
    #[cold]
    fn input_captured<H: Handler>(&mut self, handler: &mut H, port: usize, burst: &mut Burst) {
        for frame in burst.drain(..) {
            if let Some(tap) = &mut self.state.tap {
                tap.begin(self.now, port, &frame);
            }
            let outcome = match self.input(handler, port, frame) {
                Ok(datagram) => self.deliver_to_socket(handler, datagram),
                Err(outcome) => outcome,
            };
            if let Some(tap) = &mut self.state.tap {
                tap.end(outcome);
            }
        }
    }

    /// Delivers a datagram that another core handed over, or that is our own: whoever captures sees it only if it is dropped.
    #[inline]
    pub(crate) fn deliver_late<H: Handler>(&mut self, handler: &mut H, datagram: Datagram) {
        if let Some(tap) = &mut self.state.tap {
            tap.begin_datagram(self.now, &datagram);
        }
        let outcome = self.deliver_to_socket(handler, datagram);
        if let Some(tap) = &mut self.state.tap {
            tap.end_datagram(outcome);
        }
    }

    /// Where a socket is hardly ever in the cache: all are looked for at once, so that the misses overlap. Where they are in the cache, this
    /// would cost 14 ns a datagram more than it saves (measured with `udp_echo_memory`).
    #[inline(never)]
    fn input_among_many<H: Handler>(&mut self, handler: &mut H, port: usize, burst: &mut Burst) {
        let mut arrived: ArrayVec<Datagram, BURST> = ArrayVec::new();
        for frame in burst.drain(..) {
            arrived.extend(self.input(handler, port, frame));
        }
        let flow = |datagram: &Datagram| Flow::new(datagram.local, Some(datagram.peer));
        let flows: ArrayVec<_, BURST> = arrived.iter().map(flow).collect();
        let sockets = self.sockets.lookup_burst(&flows, self.guard);
        sockets.iter().flatten().for_each(|socket| prefetch(*socket));
        for (datagram, socket) in arrived.into_iter().zip(sockets) {
            let _ = self.deliver_to(handler, socket, datagram);
        }
    }

    /// A frame's datagram, if it has one for this core; else what became of it, which is counted already. Fragments that are held
    /// and datagrams that went to their owner are `Consumed` here.
    #[inline]
    fn input<H: Handler>(&mut self, handler: &mut H, port: usize, frame: Mbuf) -> Result<Datagram, Outcome> {
        let CoreState { stack, out, counters, .. } = &mut *self.state;
        match stack.demux(self.now, port, frame, self.pool, out) {
            Verdict::Datagram(datagram) => {
                let mine = self.steer(datagram);
                self.state.counters.at_owner.add(u64::from(mine.is_ok()));
                return mine;
            }
            Verdict::Consumed => counters.consumed.add(1),
            Verdict::Held => {}
            Verdict::Unreachable(notice) => {
                counters.consumed.add(1);
                self.steer_notice(handler, notice);
            }
            Verdict::Drop(reason, _frame) => {
                counters.dropped(reason);
                return Err(Outcome::Dropped(reason));
            }
        }
        Err(Outcome::Consumed)
    }

    /// Back if this core owns the flow, as most often; else it goes to the one that does.
    #[inline]
    fn steer(&mut self, datagram: Datagram) -> Result<Datagram, Outcome> {
        let owner = self.owner(datagram.local, datagram.peer);
        if owner == self.state.core {
            return Ok(datagram);
        }
        match self.hand_over(owner, HandOver::Datagram(datagram)) {
            Ok(()) => {
                self.state.counters.handed_out.add(1);
                Err(Outcome::Consumed)
            }
            Err(_) => {
                self.state.counters.dropped(Drop::HandOverFull);
                Err(Outcome::Dropped(Drop::HandOverFull))
            }
        }
    }

    #[inline]
    fn deliver_to_socket<H: Handler>(&mut self, handler: &mut H, datagram: Datagram) -> Outcome {
        let socket = self.sockets.lookup(datagram.local, datagram.peer, self.guard);
        self.deliver_to(handler, socket, datagram)
    }

    /// The outcome, which is counted already.
    #[inline]
    fn deliver_to<H: Handler>(
        &mut self,
        handler: &mut H,
        socket: Option<&Socket>,
        datagram: Datagram,
    ) -> Outcome {
        let outcome = match socket {
            Some(socket) => handler.input(self, socket, datagram),
            None => {
                let CoreState { stack, out, .. } = &mut *self.state;
                stack.port_unreachable(self.now, datagram, self.pool, out);
                Outcome::Dropped(Drop::NoSocket)
            }
        };
        self.state.counters.outcome(outcome);
        outcome
    }

    fn steer_notice<H: Handler>(&mut self, handler: &mut H, notice: Unreachable) {
        let owner = self.owner(notice.local, notice.peer);
        if owner == self.state.core {
            self.notice(handler, notice);
        } else {
            // A full ring loses an advice that the network repeats.
            let _ = self.hand_over(owner, HandOver::Unreachable(notice));
        }
    }

    /// Tells the socket's handler that the network does not deliver.
    pub(crate) fn notice<H: Handler>(&mut self, handler: &mut H, notice: Unreachable) {
        let Unreachable { local, peer, error } = notice;
        if let Some(socket) = self.sockets.lookup(local, peer, self.guard) {
            handler.unreachable(self, socket, peer, error);
        }
    }

    /// Works off what the stack left in its outbox, except frames.
    #[inline]
    pub(crate) fn settle<H: Handler>(&mut self, handler: &mut H) {
        while let Some(update) = self.state.out.pop_update() {
            self.spread(update);
        }
        for _ in 0..LOCAL_BURST {
            let Some(notice) = self.state.out.pop_unreachable() else { break };
            self.steer_notice(handler, notice);
        }
        for _ in 0..LOCAL_BURST {
            let Some(datagram) = self.state.out.pop_loopback() else { break };
            self.state.counters.received.add(1);
            if let Ok(datagram) = self.steer(datagram) {
                self.deliver_late(handler, datagram);
            }
        }
        if let Some(tally) = self.state.out.take_tally() {
            self.state.counters.settle(&tally);
            if let Some(tap) = &mut self.state.tap {
                tap.settled(&tally);
            }
        }
        self.state.counters.held.set(self.state.stack.held() as u64);
    }

    /// At the end: gives up what the stack holds, and what it would have told others.
    pub(crate) fn let_go(&mut self) {
        let CoreState { stack, out, counters, .. } = &mut *self.state;
        stack.clear(out);
        while out.pop_loopback().is_some() {
            counters.received.add(1);
            counters.dropped(Drop::Stopping);
        }
        if let Some(tally) = out.take_tally() {
            counters.settle(&tally);
        }
        counters.held.set(stack.held() as u64);
    }

    /// Tells the other cores what this one learnt. A full ring loses it: it is advice.
    fn spread(&mut self, update: Update) {
        let this = self.state.core;
        for core in (0..self.cores()).filter(|core| *core != this) {
            let _ = self.hand_over(core, HandOver::Update(update));
        }
    }
}
