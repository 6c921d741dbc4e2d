//! Wakes the owner of a queue from another thread of this process, at no cost to a sender whose peer is awake.
//!
//! The sender publishes its frames and then looks whether the owner sleeps; the owner says that it will sleep and then looks for frames. Each
//! must see what the other did first, which takes a barrier on both sides. A sender would pay its barrier with every burst (17 ns) and the
//! owner sleeps seldom, after many idle turns, so the owner pays for both: membarrier(2) has every running thread of the process pass
//! a barrier while the owner waits. Where the system has no membarrier there are no bells, and owners nap.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering, compiler_fence};

/// `MEMBARRIER_CMD_PRIVATE_EXPEDITED` and `MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED` of linux/membarrier.h.
const PRIVATE_EXPEDITED: libc::c_int = 1 << 3;
const REGISTER: libc::c_int = 1 << 4;

/// One queue's bell.
pub(crate) struct Doorbell {
    asleep: AtomicBool,
    fd: OwnedFd,
}

impl Doorbell {
    /// `None`: the system has no membarrier, or no file descriptor left.
    pub(crate) fn new() -> Option<Doorbell> {
        static REGISTERED: OnceLock<bool> = OnceLock::new();
        if !*REGISTERED.get_or_init(|| membarrier(REGISTER)) {
            return None;
        }
        // SAFETY: eventfd takes no pointer, and what it returns is nobody else's.
        let fd = unsafe {
            let fd = libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK);
            (fd >= 0).then(|| OwnedFd::from_raw_fd(fd))?
        };
        Some(Doorbell { asleep: AtomicBool::new(false), fd })
    }

    /// The sender, after it published frames: wakes the owner if it sleeps.
    #[inline]
    pub(crate) fn ring(&self) {
        // Pairs with the membarrier in `arm`: that makes this fence a barrier of the CPU when it matters.
        compiler_fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed) {
            self.wake();
        }
    }

    #[cold]
    fn wake(&self) {
        let one = 1u64.to_ne_bytes();
        // SAFETY: eight bytes that live as long as the call. A full counter (EAGAIN) wakes as well.
        let _ = unsafe { libc::write(self.fd.as_raw_fd(), one.as_ptr().cast(), 8) };
    }

    /// The owner: from here on [`ring`](Self::ring) wakes it. It must look for frames once more before it sleeps. False: it must not sleep,
    /// because no barrier could be had.
    pub(crate) fn arm(&self) -> bool {
        self.asleep.store(true, Ordering::Relaxed);
        // Pairs with the compiler fence in `ring`. Every sender's look at `asleep` is either behind this and sees it set, or before this
        // and so are its frames, which the owner's next look finds.
        membarrier(PRIVATE_EXPEDITED)
    }

    /// The owner, awake again.
    pub(crate) fn disarm(&self) {
        // It is the owner alone who sets it.
        if !self.asleep.load(Ordering::Relaxed) {
            return;
        }
        self.asleep.store(false, Ordering::Relaxed);
        let mut count = [0u8; 8];
        // SAFETY: room for eight bytes that lives as long as the call.
        let _ = unsafe { libc::read(self.fd.as_raw_fd(), count.as_mut_ptr().cast(), 8) };
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn membarrier(command: libc::c_int) -> bool {
    // SAFETY: membarrier takes no pointer.
    unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) == 0 }
}
