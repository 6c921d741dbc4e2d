//! What the control thread and idle queues sleep on.
//!
//! Edge-triggered, so that nothing has to be read from what is listened to. A read from a peer's eventfd could wait: the peer can make
//! it a blocking one. And a socket that is full of peers which we do not accept yet would keep us awake.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Events that are forgotten at once; with more, the next wait ends at once.
const EVENTS: usize = 16;

/// An epoll set, and an eventfd in it that is rung from within the process.
pub(super) struct Bell {
    set: OwnedFd,
    news: File,
}

impl Bell {
    pub(super) fn new() -> io::Result<Bell> {
        // SAFETY: plain system call.
        let set = owned(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        let bell = Bell { set, news: File::from(eventfd()?) };
        bell.add(&bell.news)?;
        Ok(bell)
    }

    /// Listens to a file descriptor.
    pub(super) fn add(&self, fd: &impl AsFd) -> io::Result<()> {
        let mut event = libc::epoll_event { events: (libc::EPOLLIN | libc::EPOLLET) as u32, u64: 0 };
        let (set, fd) = (self.set.as_raw_fd(), fd.as_fd().as_raw_fd());
        // SAFETY: `event` lives until the call is over.
        match unsafe { libc::epoll_ctl(set, libc::EPOLL_CTL_ADD, fd, &raw mut event) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Listens to it no more. To be said before a peer's eventfd is closed, for the peer may keep it open; sockets go by themselves.
    pub(super) fn remove(&self, fd: &impl AsFd) {
        let (set, fd) = (self.set.as_raw_fd(), fd.as_fd().as_raw_fd());
        // SAFETY: a plain system call; the event is not looked at.
        unsafe { libc::epoll_ctl(set, libc::EPOLL_CTL_DEL, fd, std::ptr::null_mut()) };
    }

    pub(super) fn ring(&self) {
        // It is ours and does not block; full, it has been rung often enough.
        let _ = (&self.news).write(&1u64.to_ne_bytes());
    }

    /// Sleeps until something happens, for `timeout` milliseconds at most (-1: for ever), and forgets it: 0 does not sleep. Whoever woke
    /// looks at everything that it listens to.
    pub(super) fn wait(&self, timeout: i32) {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; EVENTS];
        // SAFETY: `events` has room for as many as it says. An error (EINTR) is like waking for nothing.
        unsafe { libc::epoll_wait(self.set.as_raw_fd(), events.as_mut_ptr(), EVENTS as i32, timeout) };
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.set.as_fd()
    }
}

/// A new eventfd that blocks nobody.
pub(super) fn eventfd() -> io::Result<OwnedFd> {
    // SAFETY: plain system call.
    owned(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })
}

fn owned(fd: libc::c_int) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the fd was just created, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
