//! How data crosses threads: the core's inbox, its bell, and the one-slot mailbox behind which socket queues wait.
//!
//! SPSC rings themselves are rtrb's. Producers' sides may take a mutex; the core's side never does.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use rustix::event::{EventfdFlags, eventfd};

use crate::rcu::ReadGuard;
use crate::sync::{AtomicBool, Mutex, Ordering, UnsafeCell, fence};
use crate::wq::{Barrier, Event, SocketWq};

/// Wakes a sleeping core. The core: [`prepare`](Self::prepare), look once more for work, block on [`fd`](Self::fd),
/// [`silence`](Self::silence). Everyone else: publish work, [`ring`](Self::ring).
pub(crate) struct Bell {
    asleep: AtomicBool,
    fd: OwnedFd,
}

impl Bell {
    pub fn new() -> io::Result<Self> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Bell { asleep: AtomicBool::new(false), fd })
    }

    /// Wakes the core if it sleeps. Contains the barrier between the work published before and the test.
    pub fn ring(&self) {
        // Pairs with the fence in `prepare`.
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed) {
            // A full counter (EAGAIN) wakes as well.
            let _ = rustix::io::write(&self.fd, &1u64.to_ne_bytes());
        }
    }

    /// From here on [`ring`](Self::ring) writes to the fd. The caller must look for work once more before it blocks.
    pub fn prepare(&self) {
        self.asleep.store(true, Ordering::Relaxed);
        // Pairs with the fence in `ring`.
        fence(Ordering::SeqCst);
    }

    pub fn silence(&self) {
        self.asleep.store(false, Ordering::Relaxed);
        let mut count = [0u8; 8];
        let _ = rustix::io::read(&self.fd, &mut count);
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Why an item was not taken; it comes back.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError<T> {
    /// The core has not caught up: try again, or use the blocking form.
    #[error("the core's inbox is full: try again later, or use the blocking send")]
    Full(T),
    /// The core has stopped.
    #[error("the core has stopped")]
    Stopped(T),
}

/// The producers' side of a core's inbox. Bounded; producers share a mutex that the core never sees.
pub(crate) struct Inbox<T> {
    /// `None` once closed.
    producer: Mutex<Option<rtrb::Producer<T>>>,
    bell: Arc<Bell>,
    /// Threads that wait for room.
    room: Arc<SocketWq>,
}

/// The core's side.
pub(crate) struct Outlet<T> {
    // Dropped first: whoever `room` then wakes finds the ring abandoned.
    ring: rtrb::Consumer<T>,
    room: WakeOnDrop,
    taken: bool,
}

/// Wakes who waits for a core when the core is gone.
pub(crate) struct WakeOnDrop(pub Arc<SocketWq>);

impl Drop for WakeOnDrop {
    fn drop(&mut self) {
        self.0.wake_all();
    }
}

impl<T> Inbox<T> {
    pub fn new(capacity: usize, bell: Arc<Bell>) -> (Self, Outlet<T>) {
        let (producer, ring) = rtrb::RingBuffer::new(capacity);
        let room = Arc::new(SocketWq::default());
        (
            Inbox { producer: Mutex::new(Some(producer)), bell, room: room.clone() },
            Outlet { ring, room: WakeOnDrop(room), taken: false },
        )
    }

    pub fn try_send(&self, item: T) -> Result<(), SendError<T>> {
        {
            let mut producer = self.producer.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(producer) = producer.as_mut().filter(|producer| !producer.is_abandoned()) else {
                return Err(SendError::Stopped(item));
            };
            producer.push(item).map_err(|rtrb::PushError::Full(item)| SendError::Full(item))?;
        }
        self.bell.ring();
        Ok(())
    }

    /// Blocks until there is room, the core stops, or `deadline` passes.
    pub fn send(&self, item: T, deadline: Option<Instant>) -> Result<(), SendError<T>> {
        let mut waiting = Some(item);
        let result = self.room.wait(deadline, || match self.try_send(waiting.take()?) {
            Err(SendError::Full(item)) => {
                waiting = Some(item);
                None
            }
            done => Some(done),
        });
        result.unwrap_or_else(|| Err(SendError::Full(waiting.expect("not sent, so still here"))))
    }

    /// Refuses everything from here on, and tells those who wait. What was sent before still arrives.
    pub fn close(&self) {
        *self.producer.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.room.wake_all();
    }
}

impl<T> Outlet<T> {
    #[inline]
    pub fn pop(&mut self) -> Option<T> {
        let item = self.ring.pop().ok();
        self.taken |= item.is_some();
        item
    }

    pub fn is_empty(&self) -> bool {
        self.ring.is_empty()
    }

    /// Wakes producers that wait for the room just made.
    #[inline]
    pub fn made_room(&mut self, guard: ReadGuard<'_>) {
        if std::mem::take(&mut self.taken) {
            self.room.0.notify(Event::Writable, guard, &Barrier::publish());
        }
    }
}

/// A single-slot channel between one producer and one consumer, without a locked instruction on either side.
/// Socket queues pass whole lists of buffers through it: a burst becomes one list.
pub(crate) struct Mailbox<T> {
    full: AtomicBool,
    value: UnsafeCell<Option<T>>,
}

// SAFETY: the value moves between threads (T: Send) and is touched by one side at a time: `full` says whose turn it is.
unsafe impl<T: Send> Sync for Mailbox<T> {}

impl<T> Default for Mailbox<T> {
    fn default() -> Self {
        Mailbox { full: AtomicBool::new(false), value: UnsafeCell::new(None) }
    }
}

impl<T> Mailbox<T> {
    /// Whether a value waits.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.full.load(Ordering::Acquire)
    }

    /// Puts a value into the empty slot, or gives it back.
    ///
    /// # Safety
    /// At most one thread at a time may be in `put` of one mailbox.
    #[inline]
    pub unsafe fn put(&self, value: T) -> Result<(), T> {
        // Acquire: pairs with the release in `take`; the consumer is done with the slot.
        if self.full.load(Ordering::Acquire) {
            return Err(value);
        }
        // SAFETY: the slot is empty, so it is the producer's, and the caller is the only producer.
        self.value.with_mut(|slot| unsafe { *slot = Some(value) });
        // Release: pairs with the acquire in `take`.
        self.full.store(true, Ordering::Release);
        Ok(())
    }

    /// Takes the value, if there is one.
    ///
    /// # Safety
    /// At most one thread at a time may be in `take` of one mailbox.
    #[inline]
    pub unsafe fn take(&self) -> Option<T> {
        if !self.full.load(Ordering::Acquire) {
            return None;
        }
        // SAFETY: the slot is full, so it is the consumer's, and the caller is the only consumer.
        let value = self.value.with_mut(|slot| unsafe { (*slot).take() });
        self.full.store(false, Ordering::Release);
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rcu;
    use std::thread;

    #[test]
    fn a_mailbox_passes_every_value_once_and_in_order() {
        let mailbox = Arc::new(Mailbox::default());
        let theirs = mailbox.clone();
        let producer = thread::spawn(move || {
            for mut i in 0..200_000u64 {
                // SAFETY: this thread is the only producer.
                while let Err(back) = unsafe { theirs.put(i) } {
                    i = back;
                    thread::yield_now();
                }
            }
        });
        let mut next = 0;
        while next < 200_000 {
            // SAFETY: this thread is the only consumer.
            match unsafe { mailbox.take() } {
                Some(value) => {
                    assert_eq!(value, next);
                    next += 1;
                }
                None => thread::yield_now(),
            }
        }
        producer.join().unwrap();
        assert!(!mailbox.is_full());
    }

    #[test]
    fn a_full_inbox_refuses_or_blocks_until_there_is_room() {
        let (inbox, mut outlet) = Inbox::new(2, Arc::new(Bell::new().unwrap()));
        inbox.try_send(1).unwrap();
        inbox.try_send(2).unwrap();
        assert_eq!(inbox.try_send(3), Err(SendError::Full(3)));
        assert_eq!(inbox.send(3, Some(Instant::now())), Err(SendError::Full(3)));
        thread::scope(|scope| {
            let sender = scope.spawn(|| inbox.send(3, None));
            while outlet.pop().is_none_or(|item| item != 3) {
                outlet.made_room(rcu::pin().guard());
                thread::yield_now();
            }
            sender.join().unwrap().unwrap();
        });
        inbox.close();
        assert_eq!(inbox.send(4, None), Err(SendError::Stopped(4)));
    }

    #[test]
    fn a_core_that_is_gone_leaves_no_sender_waiting() {
        let (inbox, outlet) = Inbox::new(1, Arc::new(Bell::new().unwrap()));
        inbox.try_send(1).unwrap();
        thread::scope(|scope| {
            let sender = scope.spawn(|| inbox.send(2, None));
            thread::sleep(std::time::Duration::from_millis(5));
            drop(outlet);
            assert_eq!(sender.join().unwrap(), Err(SendError::Stopped(2)));
        });
    }

    /// The core blocks with no timeout; a lost ring would leave it asleep, which the poll's limit turns into a failure.
    #[test]
    fn no_ring_of_the_bell_is_lost() {
        use rustix::event::{PollFd, PollFlags, poll};
        let bell = Arc::new(Bell::new().unwrap());
        let (inbox, mut outlet) = Inbox::new(1, bell.clone());
        const ROUNDS: u64 = 20_000;
        let sender = thread::spawn(move || (0..ROUNDS).for_each(|i| inbox.send(i, None).unwrap()));
        for expected in 0..ROUNDS {
            let item = loop {
                if let Some(item) = outlet.pop() {
                    break item;
                }
                bell.prepare();
                if outlet.is_empty() {
                    let limit = rustix::time::Timespec { tv_sec: 10, tv_nsec: 0 };
                    let woken = poll(&mut [PollFd::from_borrowed_fd(bell.fd(), PollFlags::IN)], Some(&limit))
                        .unwrap();
                    assert_eq!(woken, 1, "the ring for item {expected} was lost");
                }
                bell.silence();
            };
            assert_eq!(item, expected);
            outlet.made_room(rcu::pin().guard());
        }
        sender.join().unwrap();
    }
}
