//! Models of what cores and threads agree on about a call, under loom: see the engine's `models`.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use engine::rcu;
use engine::wq::{Barrier, SocketWq};
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;

use super::completion::{CallEnd, CompletionCell};
use super::link::Link;

/// As in the engine's models; how to run one again is in their output too.
fn check(name: &str, preemptions: Option<usize>, model: impl Fn() + Send + Sync + 'static) {
    let runs = Arc::new(AtomicU64::new(0));
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(preemptions);
    println!(
        "again: RUSTFLAGS=\"--cfg loom\" cargo test -p rxrpc --lib --target-dir target/loom socket::models::{name}"
    );
    let counted = runs.clone();
    builder.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        model();
    });
    println!("model {name}: {} interleavings in all", runs.load(Ordering::Relaxed));
}

/// A call that a core notifies and a reader looks at, with a queue that holds one entry at most.
#[derive(Default)]
struct Notified {
    link: Link,
    entries: AtomicUsize,
    published: AtomicUsize,
}

impl Notified {
    fn queue(&self) {
        assert_eq!(
            self.entries.fetch_add(1, Ordering::AcqRel),
            0,
            "one reference is held, and one entry there"
        );
    }

    /// A core's turn: it publishes something, links the call, and behind the turn's barrier links it again if it was
    /// linked already.
    fn notify(&self, what: usize) {
        self.published.store(what, Ordering::Relaxed);
        if self.link.set() {
            return self.queue();
        }
        let _barrier = Barrier::publish();
        if !self.link.is_set() && self.link.set() {
            self.queue();
        }
    }

    /// A reader takes the entry, if there is one, and looks.
    fn look(&self) -> Option<usize> {
        self.entries.compare_exchange(1, 0, Ordering::AcqRel, Ordering::Relaxed).ok()?;
        self.link.clear_and_look();
        Some(self.published.load(Ordering::Relaxed))
    }
}

/// B12: linked and queued are one thing, and what the reader left unseen is queued again.
#[test]
fn what_a_reader_does_not_see_is_queued_again() {
    check("what_a_reader_does_not_see_is_queued_again", None, || {
        let call = Arc::new(Notified::default());
        let theirs = call.clone();
        let core = thread::spawn(move || {
            for what in [1, 2] {
                theirs.notify(what);
            }
        });
        let mut seen = 0;
        for _ in 0..2 {
            seen = call.look().unwrap_or(seen);
        }
        core.join().unwrap();
        let queued = call.entries.load(Ordering::Acquire);
        assert_eq!(call.link.is_set(), queued == 1, "linked, and not queued");
        assert!(queued == 1 || seen == 2, "saw {seen} of 2, and nothing is queued");
    });
}

#[derive(Default)]
struct Call {
    received: AtomicUsize,
    completion: CompletionCell,
    readable: SocketWq,
}

/// B13: who sees the end sees all that the call received; who waits for it is woken; the first end stands.
#[test]
fn the_end_comes_after_what_was_received() {
    check("the_end_comes_after_what_was_received", None, || {
        let call = Arc::new(Call::default());
        let theirs = call.clone();
        let core = thread::spawn(move || {
            theirs.received.store(7, Ordering::Relaxed);
            assert!(theirs.completion.set(CallEnd::SocketClosed));
            assert!(!theirs.completion.set(CallEnd::CoreGone), "the first stands");
            theirs.readable.wake(rcu::pin().guard(), &Barrier::publish());
        });
        assert_eq!(call.readable.wait(None, || call.completion.get()), Some(CallEnd::SocketClosed));
        assert_eq!(call.received.load(Ordering::Relaxed), 7);
        core.join().unwrap();
    });
}
