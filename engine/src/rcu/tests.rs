//! What the domain as a whole must do. It is the process's, and tests run side by side: none may assume to be alone.

use super::*;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::thread::{self, JoinHandle, ThreadId};

struct Flagged(Arc<AtomicBool>);
impl Drop for Flagged {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Runs `wait` on a thread of its own; whether it ended within ten seconds.
fn ends(wait: impl FnOnce() + Send + 'static) -> bool {
    let (done, hear) = mpsc::channel();
    thread::spawn(move || {
        wait();
        let _ = done.send(());
    });
    hear.recv_timeout(Duration::from_secs(10)).is_ok()
}

/// A reader on a thread of its own that passes a quiescent state whenever it is told to.
fn reader_on_orders(name: &'static str) -> (mpsc::Sender<()>, Receiver<()>, JoinHandle<()>) {
    let (order, orders) = mpsc::channel();
    let (reply, replies) = mpsc::channel();
    let thread = thread::spawn(move || {
        let mut reader = Reader::register(name);
        reply.send(()).unwrap();
        while orders.recv().is_ok() {
            reader.quiescent();
            let _ = reply.send(());
        }
    });
    replies.recv().unwrap();
    (order, replies, thread)
}

#[test]
fn a_replaced_value_outlives_the_reader_and_dies_after_it() {
    let freed = Arc::new(AtomicBool::new(false));
    let cell = RcuCell::new(Arc::new(Flagged(freed.clone())));
    let (order, replies, reader) = reader_on_orders("reader");
    assert!(cell.replace(None));
    thread::sleep(Duration::from_millis(20));
    assert!(!freed.load(Ordering::SeqCst), "freed before the reader was quiescent");
    let freeing = thread::spawn(barrier);
    while !freeing.is_finished() {
        order.send(()).unwrap();
        replies.recv().unwrap();
    }
    assert!(freed.load(Ordering::SeqCst));
    drop(order);
    reader.join().unwrap();
}

#[test]
fn synchronize_waits_for_the_reader_and_for_no_one_offline() {
    let (order, replies, reader) = reader_on_orders("reader");
    let waiting = thread::spawn(synchronize);
    thread::sleep(Duration::from_millis(20));
    assert!(!waiting.is_finished(), "the reader has not been quiescent");
    while !waiting.is_finished() {
        order.send(()).unwrap();
        replies.recv().unwrap();
    }
    drop(order);
    reader.join().unwrap();
}

#[test]
fn an_offline_reader_delays_nobody() {
    let mut reader = Reader::register("sleeper");
    reader.offline();
    assert!(ends(synchronize), "waited for a reader that is offline");
    reader.online();
    assert!(std::panic::catch_unwind(synchronize).is_err(), "waiting for oneself must be refused");
}

#[test]
fn a_pin_holds_off_the_free_like_a_core_does() {
    let freed = Arc::new(AtomicBool::new(false));
    let cell = Arc::new(RcuCell::new(Arc::new(Flagged(freed.clone()))));
    let pins = [pin(), pin()];
    let seen = cell.load(pins[1].guard()).expect("published before");
    let theirs = cell.clone();
    thread::spawn(move || theirs.replace(None)).join().unwrap();
    thread::sleep(Duration::from_millis(20));
    assert!(!seen.0.load(Ordering::SeqCst), "freed under a pin");
    assert!(std::panic::catch_unwind(synchronize).is_err(), "waiting for oneself must be refused");
    drop(pins);
    assert!(ends(barrier));
    assert!(freed.load(Ordering::SeqCst));
}

#[test]
fn what_a_core_retires_is_freed_by_the_control_thread() {
    struct Freed(mpsc::Sender<ThreadId>);
    impl Drop for Freed {
        fn drop(&mut self) {
            let _ = self.0.send(thread::current().id());
        }
    }
    let (tell, hear) = mpsc::channel();
    thread::spawn(move || {
        let mut reader = Reader::register("core");
        for _ in 0..1000 {
            assert!(reader.retire(Arc::new(Freed(tell.clone())), 8).is_ok());
            reader.quiescent();
            reader.nudge();
            // Going to sleep and coming back must not make the core free anything either.
            reader.offline();
            reader.online();
        }
        thread::current().id()
    })
    .join()
    .map(|core| {
        for _ in 0..1000 {
            let freed_on = hear.recv_timeout(Duration::from_secs(10)).expect("what a core retired is freed");
            assert_ne!(freed_on, core, "the core freed memory itself");
        }
    })
    .unwrap();
}

#[test]
fn a_core_that_only_sleeps_still_has_its_objects_freed() {
    let freed = Arc::new(AtomicBool::new(false));
    let mut reader = Reader::register("core");
    reader.retire(Arc::new(Flagged(freed.clone())), 8).ok().expect("there is room");
    reader.offline();
    let patience = std::time::Instant::now() + Duration::from_secs(10);
    while !freed.load(Ordering::SeqCst) {
        assert!(std::time::Instant::now() < patience, "nobody told the control thread");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_destructor_that_panics_or_retires_stops_nobody() {
    struct Chain(u32, Arc<AtomicBool>);
    impl Drop for Chain {
        fn drop(&mut self) {
            match self.0 {
                0 => self.1.store(true, Ordering::SeqCst),
                n => retire(Chain(n - 1, self.1.clone()), 8),
            }
        }
    }
    struct Panics;
    impl Drop for Panics {
        fn drop(&mut self) {
            std::panic::resume_unwind(Box::new("a destructor's own affair"));
        }
    }
    let end = Arc::new(AtomicBool::new(false));
    retire(Panics, 8);
    retire(Chain(3, end.clone()), 8);
    for _ in 0..4 {
        assert!(ends(barrier));
    }
    assert!(end.load(Ordering::SeqCst));
}

#[test]
fn replacing_under_load_never_shows_a_freed_value() {
    let cell = Arc::new(RcuCell::new(Arc::new(vec![0u64; 16])));
    let stop = Arc::new(AtomicBool::new(false));
    let (shared, halt) = (cell.clone(), stop.clone());
    let (tell, begun) = std::sync::mpsc::channel();
    let reader = thread::spawn(move || {
        let mut reader = Reader::register("reader");
        let mut turns = 0u64;
        tell.send(()).unwrap();
        loop {
            let values = shared.load(reader.guard()).expect("never empty");
            assert!(values.iter().all(|v| *v == values[0]), "torn or freed: {values:?}");
            reader.quiescent();
            turns += 1;
            if turns.is_multiple_of(64) {
                reader.offline();
                reader.online();
            }
            if halt.load(Ordering::Relaxed) {
                return turns;
            }
        }
    });
    // A thread may be long in coming; the writer is done in a few milliseconds.
    begun.recv().unwrap();
    for i in 1..20_000u64 {
        cell.replace(Some(Arc::new(vec![i; 16])));
    }
    stop.store(true, Ordering::Relaxed);
    assert!(reader.join().unwrap() > 0);
}

#[test]
fn a_pin_in_a_thread_local_outlives_the_threads_place() {
    use std::cell::RefCell;
    thread_local!(static KEPT: RefCell<Option<Pin>> = const { RefCell::new(None) });
    for _ in 0..100 {
        thread::spawn(|| KEPT.with(|kept| *kept.borrow_mut() = Some(pin()))).join().unwrap();
        thread::spawn(|| {
            drop(pin());
            KEPT.with(|kept| *kept.borrow_mut() = Some(pin()));
        })
        .join()
        .unwrap();
    }
    assert!(ends(synchronize), "a thread that has ended is still waited for");
}

/// A core blocks for a while in the middle of a turn; a writer comes when that has begun already. The length is told within 20 ms
/// on a machine whose CPUs are busy.
#[test]
fn a_stalled_core_is_named_with_the_true_length() {
    const NAME: &str = "stall test/core-3";
    let (tell, hear) = mpsc::channel();
    let core = thread::spawn(move || {
        let mut reader = Reader::register(NAME);
        reader.begin_turn(pmd::Clock::now());
        tell.send(()).unwrap();
        let began = std::time::Instant::now();
        thread::sleep(Duration::from_millis(150));
        reader.quiescent();
        began.elapsed()
    });
    hear.recv().unwrap();
    thread::sleep(Duration::from_millis(50));
    let waiter = thread::spawn(synchronize);
    let patience = std::time::Instant::now() + Duration::from_secs(10);
    let current = loop {
        if let Some(stall) = stats().stalls.into_iter().find(|stall| stall.reader == NAME) {
            break Some(stall);
        }
        if core.is_finished() || std::time::Instant::now() > patience {
            break None;
        }
        thread::sleep(Duration::from_millis(1));
    };
    let current = current.expect("a core that stalls is named while it does");
    assert!(current.length >= Duration::from_millis(50), "it began before anybody waited: {current:?}");
    let stalled = core.join().unwrap();
    waiter.join().unwrap();
    let stats = stats();
    assert!(!stats.stalls.iter().any(|stall| stall.reader == NAME), "it is over");
    let past = stats.past_stalls.iter().find(|past| past.reader == NAME).expect("and remembered");
    assert_eq!(past.count, 1);
    assert!(past.last.abs_diff(stalled) < Duration::from_millis(20), "{stalled:?} is told as {past:?}");
    assert!(stats.synchronize.count > 0 && stats.synchronize.max >= Duration::from_millis(50));
}
