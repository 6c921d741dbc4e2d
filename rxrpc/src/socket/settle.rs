//! The end of a core's turn: everybody who was touched in it is woken once, behind one barrier; then whatever a thread may just
//! have been doing while the core looked is looked at again.
//!
//! The barrier is the core's half of three agreements with threads, each of which has its own between its store and its load:
//! sleepers ([`SocketWq`](engine::wq::SocketWq)), entries on queues ([`Link`](super::link::Link)), and readers that are
//! behind. What a second look brings is published now and told behind the next turn's barrier: a turn has one.

use engine::wq::Barrier;

use super::SocketId;
use super::call_shared::CallName;
use super::core::{Slot, SocketApp};
use super::core_call::Touch;
use crate::Rx;

/// Who was touched in this turn, each once. The lists keep their memory.
pub(super) struct Touched {
    /// Slots. One that has another tenant by then is touched for nothing.
    calls: Vec<usize>,
    sockets: Vec<SocketId>,
    ended: Vec<CallName>,
    /// The list of the turn before, for the next.
    spare: Vec<usize>,
}

/// Calls and sockets touched in a turn before a list grows.
const ROOM: usize = 256;

impl Touched {
    pub(super) fn new() -> Self {
        let room = || Vec::with_capacity(ROOM);
        Touched {
            calls: room(),
            sockets: Vec::with_capacity(ROOM),
            ended: Vec::with_capacity(ROOM),
            spare: room(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.calls.is_empty() && self.sockets.is_empty() && self.ended.is_empty()
    }

    /// A call's half goes back to the threads: who waits for the call is found by name.
    pub(super) fn ended(&mut self, name: CallName) {
        self.ended.push(name);
    }
}

impl SocketApp {
    /// Notes what there is to do for a call at the end of the turn.
    pub(super) fn touch(&mut self, slot: usize, note: impl FnOnce(&mut Touch)) {
        let Slot::Threads(call) = &mut self.calls[slot] else { return };
        note(&mut call.touched);
        let touched = &mut call.touched;
        let any = touched.wake_reader
            || touched.wake_writer
            || touched.link_again
            || touched.work_again
            || touched.pull_again;
        if any && !std::mem::replace(&mut touched.listed, true) {
            self.touched.calls.push(slot);
        }
    }

    /// Whoever waits for the socket is woken at the end of the turn.
    pub(super) fn touch_socket(&mut self, id: SocketId) {
        let Some(socket) = self.sockets.get(id) else { return };
        if !std::mem::replace(&mut socket.touched, true) {
            self.touched.sockets.push(id);
        }
    }

    /// See the module.
    pub(super) fn settle(&mut self, rx: &mut Rx<'_>) {
        if self.touched.is_empty() {
            return;
        }
        let barrier = Barrier::publish();
        for name in self.touched.ended.drain(..) {
            // Threads may have taken it back already: then they woke whom it concerns.
            if let Some(call) = self.table.get(name, rx.guard) {
                call.readable.wake(rx.guard, &barrier);
                call.writable.wake(rx.guard, &barrier);
            }
        }
        for id in self.touched.sockets.drain(..) {
            if let Some(socket) = self.sockets.get(id) {
                socket.touched = false;
            }
            // Closed meanwhile: whoever closed it woke its sleepers.
            if let Some(socket) = self.published.get(id, rx.guard) {
                socket.readable.wake(rx.guard, &barrier);
            }
        }
        let spare = std::mem::take(&mut self.touched.spare);
        let mut calls = std::mem::replace(&mut self.touched.calls, spare);
        for slot in calls.drain(..) {
            let Some(Slot::Threads(call)) = self.calls.get_mut(slot) else { continue };
            let touched = std::mem::take(&mut call.touched);
            if touched.wake_reader {
                call.half.shared.readable.wake(rx.guard, &barrier);
            }
            if touched.wake_writer {
                call.half.shared.writable.wake(rx.guard, &barrier);
            }
            self.look_again(rx, slot, touched);
        }
        self.touched.spare = calls;
    }

    /// Behind the barrier: a thread that this look misses sees what we published before.
    fn look_again(&mut self, rx: &mut Rx<'_>, slot: usize, touched: Touch) {
        if touched.work_again {
            self.look_at(rx, slot);
        } else if touched.pull_again {
            self.pull(rx, slot);
        }
        if touched.link_again {
            self.link_if_taken(slot);
        }
    }

    /// Links a call that was on the queue and no longer is.
    fn link_if_taken(&mut self, slot: usize) {
        let Slot::Threads(call) = &self.calls[slot] else { return };
        if !call.half.shared.linked.is_set() {
            self.link(slot);
        }
    }
}
