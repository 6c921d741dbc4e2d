//! The wait queue (row A5, both directions): whoever joined before the waker's test is woken, whoever joined after sees the condition.

use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use loom::thread;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::check;
use crate::rcu;
use crate::wq::{Barrier, SocketWq};

/// A wait queue and a condition that nothing else orders: both sides look at it with relaxed accesses.
#[derive(Default)]
struct Shared {
    wq: SocketWq,
    ready: AtomicBool,
}

impl Shared {
    /// The waker's side, as a core runs it at the end of a burst.
    fn publish_and_wake(&self) {
        self.ready.store(true, Ordering::Relaxed);
        let pin = rcu::pin();
        self.wq.wake(pin.guard(), &Barrier::publish());
    }

    fn is_ready(&self) -> Option<()> {
        self.ready.load(Ordering::Relaxed).then_some(())
    }
}

/// Counts how often it was woken.
#[derive(Default)]
struct Task(AtomicUsize);

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }
}

/// A lost wake-up leaves the sleeper asleep, which loom reports as a deadlock.
#[test]
fn a_thread_is_woken() {
    check("wq::a_thread_is_woken", None, || {
        let shared = Arc::new(Shared::default());
        let theirs = shared.clone();
        let waker = thread::spawn(move || theirs.publish_and_wake());
        assert_eq!(shared.wq.wait(None, || shared.is_ready()), Some(()));
        waker.join().unwrap();
        assert!(!shared.wq.has_sleeper(rcu::pin().guard(), &Barrier::publish()), "it left");
    });
}

#[test]
fn two_threads_are_woken_by_one() {
    check("wq::two_threads_are_woken_by_one", Some(3), || {
        let shared = Arc::new(Shared::default());
        let sleepers = [shared.clone(), shared.clone()]
            .map(|theirs| thread::spawn(move || theirs.wq.wait(None, || theirs.is_ready())));
        shared.publish_and_wake();
        sleepers.into_iter().for_each(|sleeper| assert_eq!(sleeper.join().unwrap(), Some(())));
    });
}

#[test]
fn a_task_is_woken() {
    check("wq::a_task_is_woken", None, || {
        let shared = Arc::new(Shared::default());
        let theirs = shared.clone();
        let waker = thread::spawn(move || theirs.publish_and_wake());
        let task = Arc::new(Task::default());
        let first =
            shared.wq.poll(&mut Context::from_waker(&Waker::from(task.clone())), || shared.is_ready());
        waker.join().unwrap();
        let woken = task.0.load(Ordering::Acquire);
        assert!(woken <= 1, "woken once at most");
        assert!(first == Poll::Ready(()) || woken == 1, "pending, and nobody woke it");
    });
}

#[test]
fn an_event_loop_is_told() {
    check("wq::an_event_loop_is_told", None, || {
        let shared = Arc::new(Shared::default());
        shared.wq.event_fd().unwrap();
        let theirs = shared.clone();
        let waker = thread::spawn(move || theirs.publish_and_wake());
        shared.wq.arm_event(|| shared.is_ready().is_some());
        waker.join().unwrap();
        assert!(is_readable(&shared.wq), "armed, and nobody signalled it");
    });
}

/// Whether an event loop that blocks on the queue's eventfd returns.
pub fn is_readable(wq: &SocketWq) -> bool {
    let fd = wq.event_fd().unwrap();
    poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))
        == Ok(1)
}

/// A thread and a task wait while two wakers compete: neither waker may take the other's word that everybody was woken.
#[test]
fn mixed_sleepers_are_all_woken() {
    check("wq::mixed_sleepers_are_all_woken", Some(2), || {
        let shared = Arc::new(Shared::default());
        let wakers =
            [shared.clone(), shared.clone()].map(|theirs| thread::spawn(move || theirs.publish_and_wake()));
        let task = Arc::new(Task::default());
        let first =
            shared.wq.poll(&mut Context::from_waker(&Waker::from(task.clone())), || shared.is_ready());
        assert_eq!(shared.wq.wait(None, || shared.is_ready()), Some(()));
        wakers.into_iter().for_each(|waker| waker.join().unwrap());
        assert!(first == Poll::Ready(()) || task.0.load(Ordering::Acquire) == 1, "the task sleeps on");
    });
}
