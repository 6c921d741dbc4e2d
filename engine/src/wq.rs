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
//! The waker takes no lock and runs no locked instruction unless somebody sleeps, and its one barrier serves a whole burst.
//! Sleepers are threads (a futex), tasks (a `Waker`) and event loops (an eventfd); they pay for joining and leaving.
//!
//! Owned by a socket through one RCU pointer, or embedded where the owner's lifetime is fixed.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use arrayvec::ArrayVec;
use rustix::event::{EventfdFlags, eventfd};

use crate::rcu::ReadGuard;
use crate::sync::{AtomicU32, Futex, Mutex, Ordering, fence};

/// One sleeping thread; the count is in the bits below [`TASKS`].
const THREAD: u32 = 1;
/// Some task waits.
const TASKS: u32 = 1 << 30;
/// The event loop waits.
const EVENT: u32 = 1 << 31;
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

/// A wait queue.
#[derive(Default)]
pub struct SocketWq {
    /// Who waits: a count of threads and two flags. Zero: nobody.
    interest: AtomicU32,
    /// Changes with every wake-up of threads.
    round: Futex,
    tasks: Mutex<ArrayVec<Waker, TASKS_MAX>>,
    event: OnceLock<OwnedFd>,
}

impl SocketWq {
    /// Whether anybody waits. Only inside a read section and after the barrier: the types say so.
    #[inline]
    pub fn has_sleeper(&self, _guard: ReadGuard<'_>, _barrier: &Barrier) -> bool {
        self.interest.load(Ordering::Relaxed) != 0
    }

    /// Wakes whoever waits.
    #[inline]
    pub fn wake(&self, guard: ReadGuard<'_>, barrier: &Barrier) {
        if self.has_sleeper(guard, barrier) {
            self.wake_sleepers();
        }
    }

    /// As [`wake`](Self::wake), for control threads, which bring their own barrier.
    pub fn wake_all(&self) {
        fence(Ordering::SeqCst);
        if self.interest.load(Ordering::Relaxed) != 0 {
            self.wake_sleepers();
        }
    }

    #[cold]
    fn wake_sleepers(&self) {
        let interest = self.interest.load(Ordering::Relaxed);
        if interest & EVENT != 0 {
            self.interest.fetch_and(!EVENT, Ordering::Relaxed);
            self.signal_event();
        }
        if interest & TASKS != 0 {
            let tasks = {
                let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
                self.interest.fetch_and(!TASKS, Ordering::Relaxed);
                std::mem::take(&mut *tasks)
            };
            tasks.into_iter().for_each(Waker::wake);
        }
        if interest & !(EVENT | TASKS) != 0 {
            self.round.advance();
        }
    }

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
            self.interest.fetch_sub(THREAD, Ordering::Relaxed);
            if result.is_some() || expired {
                return result;
            }
        }
    }

    /// The asynchronous form: registers the task if `condition` yields nothing.
    pub fn poll<R>(&self, cx: &mut Context<'_>, mut condition: impl FnMut() -> Option<R>) -> Poll<R> {
        if let Some(result) = condition() {
            return Poll::Ready(result);
        }
        self.register(cx.waker());
        self.join(TASKS);
        condition().map_or(Poll::Pending, Poll::Ready)
    }

    fn register(&self, waker: &Waker) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        if tasks.iter().any(|task| task.will_wake(waker)) {
            return;
        }
        let oldest = if tasks.is_full() { tasks.pop_at(0) } else { None };
        tasks.push(waker.clone());
        drop(tasks);
        oldest.into_iter().for_each(Waker::wake);
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rcu;
    use rustix::time::Timespec;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicUsize};
    use std::thread;

    #[test]
    fn a_timed_wait_ends_and_leaves_no_trace() {
        let wq = SocketWq::default();
        let before = Instant::now();
        assert_eq!(wq.wait(Some(before + Duration::from_millis(5)), || None::<()>), None);
        assert!(before.elapsed() >= Duration::from_millis(5));
        assert!(!wq.has_sleeper(rcu::pin().guard(), &Barrier::publish()));
    }

    /// The waker publishes once per round and never again: a lost wake-up would hang the sleeper, which the deadline turns into a failure.
    #[test]
    fn no_wake_up_is_lost_between_threads() {
        let wq = Arc::new(SocketWq::default());
        let (ping, pong) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (wq2, ping2, pong2) = (wq.clone(), ping.clone(), pong.clone());
        const ROUNDS: usize = 20_000;
        let sleeper = thread::spawn(move || {
            for round in 1..=ROUNDS {
                let deadline = Instant::now() + Duration::from_secs(10);
                let seen =
                    wq2.wait(Some(deadline), || (ping2.load(Ordering::Relaxed) >= round).then_some(()));
                assert!(seen.is_some(), "lost the wake-up of round {round}");
                pong2.store(round, Ordering::Release);
            }
        });
        for round in 1..=ROUNDS {
            ping.store(round, Ordering::Relaxed);
            let pin = rcu::pin();
            wq.wake(pin.guard(), &Barrier::publish());
            drop(pin);
            while pong.load(Ordering::Acquire) < round {
                if sleeper.is_finished() {
                    break;
                }
                thread::yield_now();
            }
        }
        sleeper.join().unwrap();
    }

    #[test]
    fn tasks_are_woken_once_and_the_oldest_gives_way() {
        struct Count(AtomicUsize);
        impl std::task::Wake for Count {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }
        let wq = SocketWq::default();
        let counts: Vec<_> = (0..TASKS_MAX + 1).map(|_| Arc::new(Count(AtomicUsize::new(0)))).collect();
        for count in &counts {
            let waker = Waker::from(count.clone());
            for _ in 0..2 {
                assert!(wq.poll(&mut Context::from_waker(&waker), || None::<()>).is_pending());
            }
        }
        assert_eq!(counts[0].0.load(Ordering::SeqCst), 1, "the oldest gave way");
        wq.wake_all();
        wq.wake_all();
        assert!(counts.iter().all(|count| count.0.load(Ordering::SeqCst) == 1));
    }

    #[test]
    fn the_eventfd_is_signalled_once_per_arming() {
        let wq = SocketWq::default();
        let condition = AtomicBool::new(false);
        wq.event_fd().unwrap();
        let readable = || {
            let mut fds = [rustix::event::PollFd::new(wq.event.get().unwrap(), rustix::event::PollFlags::IN)];
            rustix::event::poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() == 1
        };
        wq.wake_all();
        assert!(!readable(), "nobody armed it");
        wq.arm_event(|| condition.load(Ordering::SeqCst));
        assert!(!readable());
        wq.wake_all();
        assert!(readable());
        condition.store(true, Ordering::SeqCst);
        wq.arm_event(|| condition.load(Ordering::SeqCst));
        assert!(readable(), "the condition held when it was armed");
    }
}
