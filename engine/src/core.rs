//! THE loop: one turn of one core.

use std::sync::Arc;
use std::time::Duration;

use pmd::{Burst, Clock, Instant, Pool, PoolSeed};

use crate::control::Sockets;
use crate::cx::{CoreState, Cx};
use crate::handler::Handler;
use crate::idle::Idle;
use crate::inbox::CoreInbox;
use crate::poll::{Fds, Turn};
use crate::rcu::Reader;
use crate::ring::Bell;

/// How long a core may sleep while a device without a file descriptor might have something.
const BLIND_NAP: Duration = Duration::from_micros(100);

/// One core: its queues, its stack, its handler. Lives on one polling thread.
pub(crate) struct Core<H: Handler> {
    pub handler: H,
    pub inbox: CoreInbox<H::Command>,
    pub state: CoreState,
    pub sockets: Arc<Sockets>,
    pub pool: Pool,
    pub reader: Reader,
    pub burst: Burst,
    pub idle: Idle,
}

/// A core on its way to its thread.
pub(crate) struct CoreSeed<H: Handler> {
    /// Whose stalls the watch names.
    pub name: String,
    pub make: Box<dyn FnOnce(Instant) -> H + Send>,
    pub inbox: CoreInbox<H::Command>,
    pub state: CoreState,
    pub pool: PoolSeed,
    pub sockets: Arc<Sockets>,
    pub idle: Idle,
}

impl<H: Handler> CoreSeed<H> {
    /// Builds the core on the thread where it will live.
    pub fn build(self) -> Core<H> {
        let CoreSeed { name, make, inbox, mut state, pool, sockets, idle } = self;
        let mut pool = pool.claim();
        // A raw handler has the wire to itself: its stack says nothing.
        if state.core == 0 && !H::RAW {
            state.stack.announce(Clock::now(), &mut pool, &mut state.out);
        }
        let handler = make(Clock::now());
        Core {
            handler,
            inbox,
            state,
            sockets,
            pool,
            reader: Reader::register(&name),
            burst: Burst::new(),
            idle,
        }
    }
}

impl<H: Handler> Core<H> {
    fn run_turn(&mut self) -> bool {
        let now = Clock::now();
        let Core { handler, inbox, state, pool, reader, burst, sockets, .. } = self;
        reader.begin_turn(now);
        let (guard, retirer) = reader.split();
        let mut cx = Cx { now, pool, state, sockets, guard, retirer };
        cx.look_at_reserve();
        let sent = cx.state.counters.sent.get();
        let mut busy = inbox.run(&mut cx, handler);
        for port in 0..cx.state.ports.len() {
            busy |= Self::receive(&mut cx, handler, port, burst);
        }
        Self::expire(&mut cx, handler);
        handler.transmit(&mut cx);
        cx.settle(handler);
        busy |= cx.flush() || cx.state.counters.sent.get() != sent;
        cx.wake_touched();
        cx.ring_bells();
        inbox.refill_credits(&mut cx);
        cx.state.counters.turn(busy);
        reader.quiescent();
        reader.nudge();
        busy
    }

    /// A port's burst, from the driver to the wake-ups. A function of its own, so that `cargo lab test rcu/instructions` can
    /// tell which instructions that takes: none is locked, and one at most is a barrier.
    #[inline(never)]
    fn receive(cx: &mut Cx<'_>, handler: &mut H, port: usize, burst: &mut Burst) -> bool {
        let received = cx.receive_burst(port, burst);
        if H::RAW {
            cx.raw(handler, port, burst);
            return received > 0;
        }
        cx.input_burst(handler, port, burst);
        cx.settle(handler);
        cx.wake_touched();
        received > 0
    }

    /// What is due, and what a protocol makes of the datagrams it was given, up to its own wake-ups. Held to the same as `receive`.
    #[inline(never)]
    fn expire(cx: &mut Cx<'_>, handler: &mut H) {
        cx.state.stack.expire(cx.now, cx.pool, &mut cx.state.out);
        handler.expire(cx);
    }

    /// The last turn is over: settles what is in flight, so that the ledger closes and every buffer goes home.
    fn finish(&mut self) {
        let Core { inbox, state, pool, reader, sockets, .. } = self;
        let (guard, retirer) = reader.split();
        let mut cx = Cx { now: Clock::now(), pool, state, sockets, guard, retirer };
        inbox.refuse_handed(&mut cx);
        cx.let_go();
        cx.flush();
    }

    fn bell(&self) -> &Bell {
        &self.sockets.cores[self.state.core].bell
    }
}

impl<H: Handler> Turn for Core<H> {
    fn turn(&mut self) -> bool {
        let busy = self.run_turn();
        if self.inbox.stopping {
            self.finish();
        }
        busy
    }

    fn is_done(&self) -> bool {
        self.inbox.stopping
    }

    fn idle(&self) -> Idle {
        self.idle
    }

    fn prepare_sleep(&mut self) -> Option<Instant> {
        self.reader.offline();
        self.bell().prepare();
        let unsent = self.state.ports.iter().any(|side| !side.tx.is_empty());
        if !self.inbox.is_empty() || unsent || self.state.out.has_loopback() {
            return None;
        }
        let now = Clock::now();
        let mut until = Instant::FAR_FUTURE;
        let timers = [self.handler.next_timeout(), self.state.stack.next_timeout()];
        for at in timers.into_iter().flatten() {
            until = until.min(at);
        }
        for side in &self.state.ports {
            until = until.min(side.queue.next_event().unwrap_or(Instant::FAR_FUTURE));
            if side.queue.wait_fd().is_none() {
                until = until.min(now + BLIND_NAP);
            }
        }
        // Last, so that a queue is asked whether something came after all else was looked at.
        (until > now && self.state.ports.iter_mut().all(|side| side.queue.arm())).then_some(until)
    }

    fn fds<'a>(&'a self, fds: &mut Fds<'a>) -> bool {
        let queues = self.state.ports.iter().filter_map(|side| side.queue.wait_fd());
        queues.chain([self.bell().fd()]).all(|fd| fds.push(fd))
    }

    fn wake(&mut self, slept: bool) {
        self.bell().silence();
        self.reader.online();
        self.state.ports.iter_mut().for_each(|side| side.queue.disarm());
        if slept {
            self.state.counters.sleeps.add(1);
        }
    }
}
