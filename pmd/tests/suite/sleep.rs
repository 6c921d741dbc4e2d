//! An owner that sleeps on its queue's file descriptor is woken by what comes, whenever it comes.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::{Duration, Instant as Wall};

use pmd::{Burst, Clock, Pool};

use super::{ETHERTYPE, End, Wire, bytes, frame, open, send};

/// Longer than any device takes, emulated ones on a busy machine included.
const PATIENCE: Duration = Duration::from_secs(10);
const ROUNDS: usize = 20;

pub fn readable_within(fd: BorrowedFd<'_>, time: Duration) -> bool {
    let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one pollfd that lives as long as the call.
    unsafe { libc::poll(&mut poll, 1, time.as_millis() as i32) == 1 }
}

pub fn a_sleeping_owner_is_woken(wire: &Wire, pool: &mut Pool) {
    let (mut a, mut b) = open(wire, pool);
    for end in [&a, &b] {
        let (tells, told) = (end.port.info().capabilities.wait_fd, end.queue.wait_fd().is_some());
        assert_eq!(tells, told, "{}: a wait_fd is there if its port says so", end.port.info().url);
    }
    for round in 0..ROUNDS {
        woken(&mut a, &mut b, pool, round);
        woken(&mut b, &mut a, pool, round);
    }
}

/// A frame comes before the queue is armed in one round, and after it in the next.
fn woken(from: &mut End, to: &mut End, pool: &mut Pool, round: usize) {
    if to.queue.wait_fd().is_none() {
        return;
    }
    let url = to.port.info().url;
    drain_until_asleep(to, pool);
    let early = round.is_multiple_of(2);
    if early {
        to.queue.disarm();
        assert!(send(from, pool.copy_from(&frame(round, 300)).unwrap()));
    }
    let asleep = if early { to.queue.arm() } else { true };
    if !early {
        assert!(send(from, pool.copy_from(&frame(round, 300)).unwrap()));
    }
    let start = Wall::now();
    let mut awake = !asleep;
    while !awake {
        assert!(start.elapsed() < PATIENCE, "{url}: round {round}: nothing woke it");
        // The far end is polled: that is what moves frames that a timed wire still holds.
        from.queue.rx_burst(Clock::now(), pool, &mut Burst::new());
        awake = readable_within(to.queue.wait_fd().unwrap(), Duration::from_millis(2));
    }
    to.queue.disarm();
    while !arrived(to, pool, round) {
        assert!(start.elapsed() < PATIENCE, "{url}: round {round}: woken for nothing");
        from.queue.rx_burst(Clock::now(), pool, &mut Burst::new());
    }
}

/// Takes what waits, until the queue may be slept on.
fn drain_until_asleep(end: &mut End, pool: &mut Pool) {
    let start = Wall::now();
    loop {
        while end.queue.rx_burst(Clock::now(), pool, &mut Burst::new()) > 0 {}
        if end.queue.arm() {
            return;
        }
        end.queue.disarm();
        assert!(start.elapsed() < PATIENCE, "{}: something waits for ever", end.port.info().url);
    }
}

fn arrived(end: &mut End, pool: &mut Pool, round: usize) -> bool {
    let mut burst = Burst::new();
    end.queue.rx_burst(Clock::now(), pool, &mut burst);
    burst.retain(|mbuf| mbuf.data().get(12..14) == Some(&ETHERTYPE));
    burst.iter().any(|mbuf| bytes(mbuf) == frame(round, 300))
}
