//! What other threads and cores want of a core: commands, sends, hand-overs. Bounded work per turn.

use pmd::Mbuf;

use crate::control::Op;
use crate::cx::{CoreState, Cx, HandOver};
use crate::handler::Handler;
use crate::ring::{Outlet, WakeOnDrop};
use crate::stats::Drop;
use crate::wq::{Barrier, Event};

/// Of each kind of message, how many a turn takes.
const INBOX_BURST: usize = 64;
/// How many empty buffers a turn gives to application threads.
const CREDITS_BURST: usize = 32;
/// How many of them lie ready: enough for a datagram of 64 KiB.
pub(crate) const CREDITS: usize = 128;

/// The core's ends of everything that leads to it.
pub(crate) struct CoreInbox<C> {
    pub commands: Outlet<C>,
    pub ops: Outlet<Op>,
    /// From each other core.
    pub handed: Vec<rtrb::Consumer<HandOver>>,
    /// Empty buffers for application threads to send with.
    pub credits: rtrb::Producer<Mbuf>,
    pub credits_wq: WakeOnDrop,
    pub stopping: bool,
}

impl<C> CoreInbox<C> {
    /// Takes a bounded share of everything that waits. Tells whether there was anything.
    #[inline]
    pub fn run<H: Handler<Command = C>>(&mut self, cx: &mut Cx<'_>, handler: &mut H) -> bool {
        let mut busy = false;
        for _ in 0..INBOX_BURST {
            let Some(command) = self.commands.pop() else { break };
            handler.command(cx, command);
            busy = true;
        }
        for _ in 0..INBOX_BURST {
            let Some(op) = self.ops.pop() else { break };
            self.stopping |= op_run(cx, op);
            busy = true;
        }
        for ring in &mut self.handed {
            for _ in 0..INBOX_BURST {
                let Ok(handed) = ring.pop() else { break };
                take_over(cx, handler, handed);
                busy = true;
            }
        }
        if busy {
            cx.wake_touched();
            self.commands.made_room(cx.guard);
            self.ops.made_room(cx.guard);
        }
        busy
    }

    /// At the end: counts what other cores handed over and nobody will take.
    pub fn refuse_handed(&mut self, cx: &mut Cx<'_>) {
        for ring in &mut self.handed {
            while let Ok(handed) = ring.pop() {
                if let HandOver::Datagram(_) = handed {
                    cx.state.counters.handed_in.add(1);
                    cx.state.counters.dropped(Drop::Stopping);
                }
            }
        }
    }

    pub fn is_empty(&self) -> bool {
        self.commands.is_empty() && self.ops.is_empty() && self.handed.iter().all(rtrb::Consumer::is_empty)
    }

    /// Keeps application threads supplied with empty buffers, while the pool can spare them.
    #[inline]
    pub fn refill_credits(&mut self, cx: &mut Cx<'_>) {
        if self.credits.is_full() || !cx.state.above_reserve {
            return;
        }
        for _ in 0..CREDITS_BURST {
            if self.credits.is_full() {
                break;
            }
            let Some(mbuf) = cx.pool.alloc() else { break };
            let _ = self.credits.push(mbuf);
        }
        self.credits_wq.0.notify(Event::Writable, cx.guard, &Barrier::publish());
    }
}

/// Runs an engine's own request; true: stop.
fn op_run(cx: &mut Cx<'_>, op: Op) -> bool {
    match op {
        Op::Send { from, to, payload } => {
            // The ledger has the reason if it fails.
            let _ = cx.send(from, to, payload);
        }
        Op::Flush(id) => {
            if let Some(socket) = cx.socket(id) {
                cx.notify(socket);
            }
        }
        Op::Capture { tap, reply } => {
            let before = std::mem::replace(&mut cx.state.tap, tap);
            // Fails only if nobody waits for it any more; then it is freed here.
            let _ = reply.try_send(before);
        }
        Op::Stop => return true,
    }
    false
}

fn take_over<H: Handler>(cx: &mut Cx<'_>, handler: &mut H, handed: HandOver) {
    match handed {
        HandOver::Datagram(datagram) => {
            cx.state.counters.handed_in.add(1);
            cx.deliver_late(handler, datagram);
        }
        HandOver::Unreachable(notice) => cx.notice(handler, notice),
        HandOver::Update(update) => {
            let CoreState { stack, out, .. } = &mut *cx.state;
            stack.apply(cx.now, update, cx.pool, out);
        }
    }
}
