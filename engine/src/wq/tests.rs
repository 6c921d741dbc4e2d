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
            let seen = wq2.wait(Some(deadline), || (ping2.load(Ordering::Relaxed) >= round).then_some(()));
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

/// Counts what it is told.
#[derive(Default)]
struct Told([AtomicUsize; 4]);

impl Told {
    fn counts(&self) -> [usize; 4] {
        self.0.each_ref().map(|count| count.load(Ordering::SeqCst))
    }
}

/// Readable, writable, error, state: how often a callback on the queue is told of each.
fn told(wq: &SocketWq) -> Arc<Told> {
    let told = Arc::new(Told::default());
    let theirs = told.clone();
    wq.call_on(move |event| {
        theirs.0[event as usize].fetch_add(1, Ordering::SeqCst);
    });
    told
}

fn notify(wq: &SocketWq, event: Event) {
    wq.notify(event, rcu::pin().guard(), &Barrier::publish());
}

#[test]
fn errors_and_state_changes_always_reach_listeners_and_room_only_when_asked_for() {
    let wq = SocketWq::default();
    let told = told(&wq);
    for event in [Event::Readable, Event::Error, Event::State] {
        (0..3).for_each(|_| notify(&wq, event));
    }
    assert_eq!(told.counts(), [3, 0, 3, 3]);
    (0..3).for_each(|_| notify(&wq, Event::Writable));
    assert_eq!(told.counts(), [3, 0, 3, 3], "nobody asked for room");
    wq.ask_space();
    (0..3).for_each(|_| notify(&wq, Event::Writable));
    assert_eq!(told.counts(), [3, 1, 3, 3], "exactly once");
    wq.call_nobody();
    notify(&wq, Event::Error);
    assert_eq!(told.counts(), [3, 1, 3, 3]);
    assert!(!wq.has_sleeper(rcu::pin().guard(), &Barrier::publish()));
}

#[test]
fn listeners_hear_nothing_of_data_while_a_thread_waits_and_everything_when_it_leaves() {
    let wq = SocketWq::default();
    wq.event_fd().unwrap();
    wq.arm_event(|| false);
    let told = told(&wq);
    // While a thread looks at its condition it is in the queue: as good as asleep.
    let waited = wq.wait(None, || {
        notify(&wq, Event::Readable);
        notify(&wq, Event::Readable);
        assert_eq!(told.counts(), [0; 4], "told although a thread waits");
        notify(&wq, Event::Error);
        assert_eq!(told.counts(), [0, 0, 1, 0], "errors are told all the same");
        Some(())
    });
    assert_eq!(waited, Some(()));
    assert_eq!(told.counts(), [1, 0, 1, 0], "what the thread may have left behind is told, once");
    notify(&wq, Event::Readable);
    assert_eq!(told.counts(), [2, 0, 1, 0], "no thread waits any more");
}

/// A core never waits for a task that registers: with the list locked, wake-ups return at once, and whoever held it does what was due.
#[test]
fn a_waker_does_not_wait_for_the_list_of_tasks() {
    struct Flag(AtomicBool);
    impl std::task::Wake for Flag {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    let wq = Arc::new(SocketWq::default());
    let task = Arc::new(Flag(AtomicBool::new(false)));
    let waker = Waker::from(task.clone());
    assert!(wq.poll(&mut Context::from_waker(&waker), || None::<()>).is_pending());
    let held = wq.tasks.get().unwrap().list.lock().unwrap();
    let (theirs, (done, hear)) = (wq.clone(), std::sync::mpsc::channel());
    thread::spawn(move || {
        notify(&theirs, Event::Readable);
        let _ = done.send(());
    });
    hear.recv_timeout(Duration::from_secs(10)).expect("the waker waits for a lock");
    assert!(!task.0.load(Ordering::SeqCst));
    drop(held);
    let other = Waker::from(Arc::new(Flag(AtomicBool::new(false))));
    assert!(wq.poll(&mut Context::from_waker(&other), || None::<()>).is_pending());
    assert!(task.0.load(Ordering::SeqCst), "who has the lock next wakes in the waker's place");
}

/// Tasks register and are woken from two sides at full speed; a lost wake-up would leave one pending for good.
#[test]
fn no_wake_up_of_a_task_is_lost() {
    struct Unpark(thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    const ROUNDS: usize = 5_000;
    let (wq, round) = (SocketWq::default(), AtomicUsize::new(0));
    let reached: [AtomicUsize; 2] = Default::default();
    thread::scope(|scope| {
        let tasks = reached.each_ref().map(|reached| {
            let (wq, round) = (&wq, &round);
            scope.spawn(move || {
                let waker = Waker::from(Arc::new(Unpark(thread::current())));
                for next in 1..=ROUNDS {
                    let is_due = || (round.load(Ordering::Relaxed) >= next).then_some(());
                    while wq.poll(&mut Context::from_waker(&waker), is_due).is_pending() {
                        let begun = Instant::now();
                        thread::park_timeout(Duration::from_secs(10));
                        assert!(begun.elapsed() < Duration::from_secs(9), "lost the wake-up of round {next}");
                    }
                    reached.store(next, Ordering::Release);
                }
            })
        });
        for next in 1..=ROUNDS {
            round.store(next, Ordering::Relaxed);
            notify(&wq, Event::Readable);
            while reached.iter().any(|reached| reached.load(Ordering::Acquire) < next)
                && !tasks.iter().any(|task| task.is_finished())
            {
                thread::yield_now();
            }
        }
    });
}

#[test]
fn every_event_wakes_threads_tasks_that_asked_and_event_loops() {
    for event in [Event::Readable, Event::Writable, Event::Error, Event::State] {
        let (wq, ready) = (SocketWq::default(), AtomicBool::new(false));
        thread::scope(|scope| {
            let sleeper = scope.spawn(|| {
                let deadline = Instant::now() + Duration::from_secs(5);
                wq.wait(Some(deadline), || ready.load(Ordering::SeqCst).then_some(()))
            });
            // Asleep, or about to be: the protocol has to cope with both.
            while !wq.has_sleeper(rcu::pin().guard(), &Barrier::publish()) {
                thread::yield_now();
            }
            thread::sleep(Duration::from_millis(2));
            ready.store(true, Ordering::SeqCst);
            let told_at = Instant::now();
            notify(&wq, event);
            assert_eq!(sleeper.join().unwrap(), Some(()));
            assert!(told_at.elapsed() < Duration::from_secs(4), "{event:?} woke nobody");
        });
        let told = told(&wq);
        wq.ask_space();
        notify(&wq, event);
        assert_eq!(told.counts().iter().sum::<usize>(), 1, "{event:?} told nobody");
    }
}
