//! The mailbox and the bell.

use std::sync::Arc;

use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::check;
use crate::ring::{Bell, Mailbox};

/// loom's cell reports an access to the slot that the flag did not order.
#[test]
fn a_mailbox_passes_values_in_order() {
    check("ring::a_mailbox_passes_values_in_order", None, || {
        let mailbox = Arc::new(Mailbox::default());
        let theirs = mailbox.clone();
        let producer = thread::spawn(move || {
            for mut value in [1, 2] {
                // SAFETY: this thread is the only producer.
                while let Err(back) = unsafe { theirs.put(Box::new(value)) } {
                    value = *back;
                    thread::yield_now();
                }
            }
        });
        for expected in [1, 2] {
            let value = loop {
                // SAFETY: this thread is the only consumer.
                match unsafe { mailbox.take() } {
                    Some(value) => break value,
                    None => thread::yield_now(),
                }
            };
            assert_eq!(*value, expected);
        }
        producer.join().unwrap();
        assert!(!mailbox.is_full());
    });
}

/// A core that found nothing after it said that it would sleep finds its bell rung.
#[test]
fn no_ring_of_the_bell_is_lost() {
    check("ring::no_ring_of_the_bell_is_lost", None, || {
        let bell = Arc::new(Bell::new().unwrap());
        let work = Arc::new(AtomicBool::new(false));
        let (theirs, their_work) = (bell.clone(), work.clone());
        let sender = thread::spawn(move || {
            their_work.store(true, Ordering::Relaxed);
            theirs.ring();
        });
        bell.prepare();
        let sleeps = !work.load(Ordering::Relaxed);
        sender.join().unwrap();
        assert!(!sleeps || would_wake(&bell), "the core sleeps and has work");
    });
}

/// Whether a core that blocks on the bell returns.
fn would_wake(bell: &Bell) -> bool {
    let fd = PollFd::from_borrowed_fd(bell.fd(), PollFlags::IN);
    poll(&mut [fd], Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) == Ok(1)
}
