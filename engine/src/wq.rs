//! Wait queues: everything a waker touches, in one object.
//!
//! The protocol, both sides with a full barrier between their store and their load:
//!
//! | waker (a core)                    | sleeper                             |
//! |-----------------------------------|-------------------------------------|
//! | publish the condition             | join the queue                      |
//! | [`Barrier::publish`]              | `fence(SeqCst)`                     |
//! | test [`SocketWq::has_sleeper`]    | test the condition, sleep if false  |
//!
//! The waker never waits: it takes no lock, and runs no locked instruction unless somebody sleeps; its one barrier serves a whole burst.
//! *Threads* sleep on the queue itself (a futex). Others are *listeners*, which are told: tasks (a `Waker`) and event loops (an eventfd)
//! once each time they ask, callbacks every time. What they are told depends on the [`Event`]:
//!
//! | event | like Linux's | threads | listeners |
//! |---|---|---|---|
//! | [`Readable`](Event::Readable) | WAITD | woken | told unless a thread waits; then when it leaves, as it may leave something behind |
//! | [`Writable`](Event::Writable) | SPACE | woken | told once after [`ask_space`](SocketWq::ask_space), else not at all |
//! | [`Error`](Event::Error) | IO | woken | told |
//! | [`State`](Event::State) | URG | woken | told |
//!
//! (Rx and UDP have no urgent data. What is urgent here is that the socket's state changed: it was closed, or its wait queue exchanged.)
//!
//! The test for sleepers is part of a read section, because the queue is freed after a grace period; the types say so:
//!
//! ```compile_fail,E0716
//! use engine::{rcu, wq::{Barrier, SocketWq}};
//! let wq = SocketWq::default();
//! let guard = rcu::pin().guard();     // error: the pin ends here
//! wq.has_sleeper(guard, &Barrier::publish());
//! ```
//!
//! A socket reaches its queue through one RCU pointer, so that it can be orphaned and grafted. Where the owner's lifetime is fixed or the
//! owner is itself freed by RCU, the queue is embedded by value and needs no freeing of its own: the rings' `room`, an Rx call's halves.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, OnceLock, PoisonError, TryLockError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use arrayvec::ArrayVec;
use rustix::event::{EventfdFlags, eventfd};

use crate::rcu::{self, RcuCell, ReadGuard};
use crate::sync::{AtomicBool, AtomicU32, Futex, Later, Mutex, Ordering, fence};

/// One sleeping thread; the count of them is in the bits below [`PASS_ON`].
const THREAD: u32 = 1;
const THREADS: u32 = PASS_ON - 1;
/// Listeners were not told because a thread waited: the last one to leave tells them.
const PASS_ON: u32 = 1 << 27;
/// A writer asked to be told of room.
const SPACE: u32 = 1 << 28;
/// There is a callback.
const CALLBACK: u32 = 1 << 29;
/// Some task waits.
const TASKS: u32 = 1 << 30;
/// The event loop waits.
const EVENT: u32 = 1 << 31;
const LISTENERS: u32 = CALLBACK | TASKS | EVENT;

/// Tasks that may wait at once; one more wakes the oldest, which may then join again.
const TASKS_MAX: usize = 8;

/// Proof that a full barrier separates what was published before from the test for sleepers.
pub struct Barrier(());

impl Barrier {
    /// The waker's barrier: one for all sockets touched in a burst.
    #[inline]
    pub fn publish() -> Self {
        // Pairs with the fence in `SocketWq::join`.
        fence(Ordering::SeqCst);
        Barrier(())
    }
}

/// Why a waker comes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// There is something to read.
    Readable,
    /// There is room to write.
    Writable,
    /// An error waits to be told.
    Error,
    /// The socket was closed or its wait queue exchanged.
    State,
}

/// A wait queue.
#[derive(Default)]
pub struct SocketWq {
    /// Who waits: a count of threads, and flags. Zero: nobody.
    interest: AtomicU32,
    /// Changes with every wake-up of threads.
    round: Futex,
    tasks: Later<Tasks>,
    event: OnceLock<OwnedFd>,
    callback: RcuCell<Callback>,
}

struct Callback(Box<dyn Fn(Event) + Send + Sync>);

impl SocketWq {
    // ---- wakers ----

    /// Whether anybody waits. Only inside a read section and after the barrier: the types say so.
    #[inline]
    pub fn has_sleeper(&self, _guard: ReadGuard<'_>, _barrier: &Barrier) -> bool {
        self.interest.load(Ordering::Relaxed) != 0
    }

    /// Wakes whoever waits for something to read, or for whatever else this queue alone stands for.
    #[inline]
    pub fn wake(&self, guard: ReadGuard<'_>, barrier: &Barrier) {
        self.notify(Event::Readable, guard, barrier);
    }

    /// Wakes whoever waits for `event`.
    #[inline]
    pub fn notify(&self, event: Event, guard: ReadGuard<'_>, barrier: &Barrier) {
        if self.has_sleeper(guard, barrier) {
            self.wake_sleepers(event, Some(guard));
        }
    }

    /// Tells everybody that the state changed. For control threads: it brings its own barrier.
    pub fn wake_all(&self) {
        fence(Ordering::SeqCst);
        if self.interest.load(Ordering::Relaxed) != 0 {
            self.wake_sleepers(Event::State, None);
        }
    }

    #[cold]
    fn wake_sleepers(&self, event: Event, guard: Option<ReadGuard<'_>>) {
        let interest = self.interest.load(Ordering::Relaxed);
        if interest & THREADS != 0 {
            self.round.advance();
        }
        if interest & (LISTENERS | SPACE) == 0 {
            return;
        }
        let told = match event {
            Event::Readable => interest & THREADS == 0 || !self.leave_to_thread(),
            Event::Writable => self.take(SPACE),
            Event::Error | Event::State => true,
        };
        if told {
            self.tell_listeners(event, guard);
        }
    }

    /// Has a waiting thread tell the listeners when it leaves; false: none waits any more.
    fn leave_to_thread(&self) -> bool {
        // Release: pairs with the acquire in `leave`: the thread tells of what it can see.
        let before = self.interest.fetch_or(PASS_ON, Ordering::Release);
        before & THREADS != 0 || !self.take(PASS_ON)
    }

    fn tell_listeners(&self, event: Event, guard: Option<ReadGuard<'_>>) {
        if self.take(EVENT) {
            self.signal_event();
        }
        let interest = self.interest.load(Ordering::Relaxed);
        if interest & TASKS != 0
            && let Some(tasks) = self.tasks.get()
        {
            tasks.wake(&self.interest);
        }
        if interest & CALLBACK != 0 {
            match guard {
                Some(guard) => self.call_back(event, guard),
                None => self.call_back(event, rcu::pin().guard()),
            }
        }
    }

    fn call_back(&self, event: Event, guard: ReadGuard<'_>) {
        if let Some(callback) = self.callback.load(guard) {
            (callback.0)(event);
        }
    }

    /// Clears a flag; whether it was set.
    fn take(&self, flag: u32) -> bool {
        self.interest.load(Ordering::Relaxed) & flag != 0
            && self.interest.fetch_and(!flag, Ordering::Relaxed) & flag != 0
    }

    // ---- threads ----

    /// The sleeper's barrier, after it joined.
    fn join(&self, interest: u32) {
        if interest == THREAD {
            self.interest.fetch_add(THREAD, Ordering::Relaxed);
        } else {
            self.interest.fetch_or(interest, Ordering::Relaxed);
        }
        // Pairs with `Barrier::publish`.
        fence(Ordering::SeqCst);
    }

    /// A thread goes; the last one tells the listeners what it was told in their place.
    fn leave(&self) {
        // Acquire: pairs with the release in `leave_to_thread`.
        let before = self.interest.fetch_sub(THREAD, Ordering::Acquire);
        if before & THREADS == THREAD && before & PASS_ON != 0 && self.take(PASS_ON) {
            self.tell_listeners(Event::Readable, None);
        }
    }

    /// Blocks the thread until `condition` yields something or `deadline` passes (`None`). A deadline of `None` never passes.
    pub fn wait<R>(&self, deadline: Option<Instant>, mut condition: impl FnMut() -> Option<R>) -> Option<R> {
        loop {
            let round = self.round.value();
            self.join(THREAD);
            let result = condition();
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let expired = left == Some(Duration::ZERO);
            if result.is_none() && !expired {
                self.round.wait(round, left);
            }
            self.leave();
            if result.is_some() || expired {
                return result;
            }
        }
    }

    // ---- listeners ----

    /// The asynchronous form: registers the task if `condition` yields nothing.
    pub fn poll<R>(&self, cx: &mut Context<'_>, mut condition: impl FnMut() -> Option<R>) -> Poll<R> {
        if let Some(result) = condition() {
            return Poll::Ready(result);
        }
        let tasks = self.tasks.get_or_make();
        tasks.register(cx.waker());
        self.join(TASKS);
        tasks.serve(&self.interest);
        condition().map_or(Poll::Pending, Poll::Ready)
    }

    /// The eventfd for an epoll loop: readable when the condition may hold. Made at the first call.
    pub fn event_fd(&self) -> io::Result<BorrowedFd<'_>> {
        if self.event.get().is_none() {
            let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
            let _ = self.event.set(fd);
        }
        Ok(self.event.get().expect("set above").as_fd())
    }

    /// Asks for one signal on the eventfd, if there is one: called whenever a look at the condition found nothing. Signals at once if
    /// `condition` has come true meanwhile.
    pub fn arm_event(&self, condition: impl FnOnce() -> bool) {
        let Some(fd) = self.event.get() else { return };
        let mut count = [0u8; 8];
        let _ = rustix::io::read(fd, &mut count);
        self.join(EVENT);
        if condition() {
            self.signal_event();
        }
    }

    fn signal_event(&self) {
        if let Some(fd) = self.event.get() {
            // A full counter (EAGAIN) is readable already.
            let _ = rustix::io::write(fd, &1u64.to_ne_bytes());
        }
    }

    /// Has `callback` called for every event from here on, in place of the one before; look at the condition once afterwards. It runs on
    /// whatever thread wakes, most often a core: it must be short and must not block, and no read section may begin a wait in it.
    pub fn call_on(&self, callback: impl Fn(Event) + Send + Sync + 'static) {
        self.callback.replace(Some(Arc::new(Callback(Box::new(callback)))));
        self.join(CALLBACK);
    }

    /// Ends that. A call that has begun may still go on, for a grace period at most.
    pub fn call_nobody(&self) {
        self.interest.fetch_and(!CALLBACK, Ordering::Relaxed);
        self.callback.replace(None);
    }

    /// A writer found no room: listeners are told once when there is some. Look once more afterwards.
    pub fn ask_space(&self) {
        self.join(SPACE);
    }
}

/// The tasks that wait. A core that comes to wake them never waits for the lock: whoever holds it wakes them in the core's place.
#[derive(Default)]
struct Tasks {
    list: Mutex<ArrayVec<Waker, TASKS_MAX>>,
    /// All are to be woken.
    due: AtomicBool,
}

impl Tasks {
    fn wake(&self, interest: &AtomicU32) {
        // Release: pairs with the acquire in `serve`.
        self.due.store(true, Ordering::Release);
        // Pairs with the fences in `SocketWq::join` and `serve`: if the lock is held, its holder sees `due` afterwards.
        fence(Ordering::SeqCst);
        self.serve(interest);
    }

    /// Wakes everybody if that is due. Also called after the lock was released and a full barrier.
    fn serve(&self, interest: &AtomicU32) {
        while self.due.load(Ordering::Relaxed) {
            let mut list = match self.list.try_lock() {
                Ok(list) => list,
                Err(TryLockError::Poisoned(list)) => list.into_inner(),
                Err(TryLockError::WouldBlock) => return,
            };
            self.due.swap(false, Ordering::Acquire);
            interest.fetch_and(!TASKS, Ordering::Relaxed);
            let woken = std::mem::take(&mut *list);
            drop(list);
            woken.into_iter().for_each(Waker::wake);
            // Pairs with the fence in `wake`.
            fence(Ordering::SeqCst);
        }
    }

    fn register(&self, waker: &Waker) {
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        if list.iter().any(|task| task.will_wake(waker)) {
            return;
        }
        let oldest = if list.is_full() { list.pop_at(0) } else { None };
        list.push(waker.clone());
        drop(list);
        oldest.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests;
