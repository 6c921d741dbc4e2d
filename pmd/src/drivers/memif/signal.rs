//! Tells a peer that sleeps, without ever waiting for it.
//!
//! A write(2) to an eventfd waits while its count is full, unless the file is a nonblocking one; and the file is the peer's as well, who can
//! fill the count and change that flag at any moment. What the kernel adds by itself when an I/O has completed never waits. So the peer
//! is told by an I/O of ours that is over at once: a read of no bytes from an empty file (io_submit(2), IOCB_FLAG_RESFD).

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

/// `struct iocb` of linux/aio_abi.h, little-endian.
#[repr(C)]
#[derive(Default)]
struct Iocb {
    data: u64,
    key: u32,
    rw_flags: u32,
    opcode: u16,
    priority: i16,
    fd: u32,
    buffer: u64,
    bytes: u64,
    offset: i64,
    reserved: u64,
    flags: u32,
    result_fd: u32,
}

/// `IOCB_CMD_PREAD` and `IOCB_FLAG_RESFD`.
const READ: u16 = 0;
const TELL_RESULT_FD: u32 = 1;
/// `struct io_event`: four words.
type Event = [u64; 4];
/// One is under way at a time; the kernel rounds up.
const EVENTS: usize = 4;

/// A peer's eventfd, and the means to add to it.
pub(super) struct Signal {
    peer: OwnedFd,
    empty: OwnedFd,
    context: libc::c_ulong,
}

impl Signal {
    /// Fails for what is no eventfd, and where the system gives no more contexts (`fs.aio-max-nr`).
    pub(super) fn new(peer: OwnedFd) -> io::Result<Signal> {
        // SAFETY: a plain system call; what it returns is nobody else's.
        let empty = unsafe { libc::memfd_create(c"rxline-signal".as_ptr(), libc::MFD_CLOEXEC) };
        if empty < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: as above.
        let empty = unsafe { OwnedFd::from_raw_fd(empty) };
        let mut context: libc::c_ulong = 0;
        // SAFETY: the kernel writes one word.
        if unsafe { libc::syscall(libc::SYS_io_setup, EVENTS, &raw mut context) } < 0 {
            return Err(io::Error::last_os_error());
        }
        let signal = Signal { peer, empty, context };
        signal.submit()?;
        Ok(signal)
    }

    /// Adds one to the count, if there is room: a full count wakes as well.
    #[cold]
    pub(super) fn raise(&self) {
        // It was possible once, and nothing is ever under way when it begins.
        let _ = self.submit();
    }

    fn submit(&self) -> io::Result<()> {
        let number = |fd: RawFd| fd as u32;
        let mut read = Iocb {
            opcode: READ,
            fd: number(self.empty.as_raw_fd()),
            flags: TELL_RESULT_FD,
            result_fd: number(self.peer.as_raw_fd()),
            ..Iocb::default()
        };
        let mut list = [&raw mut read];
        let mut events = [Event::default(); EVENTS];
        // SAFETY: the list has one entry, which is complete; a read of no bytes needs no buffer.
        let submitted =
            unsafe { libc::syscall(libc::SYS_io_submit, self.context, 1usize, list.as_mut_ptr()) };
        let error = io::Error::last_os_error();
        let none = ptr::null_mut::<libc::timespec>();
        // SAFETY: there is room for as many events as are asked for. Asking for at least none does not wait.
        unsafe {
            libc::syscall(libc::SYS_io_getevents, self.context, 0usize, EVENTS, events.as_mut_ptr(), none)
        };
        if submitted < 0 { Err(error) } else { Ok(()) }
    }
}

impl Drop for Signal {
    fn drop(&mut self) {
        // SAFETY: the context is ours; nothing is under way.
        unsafe { libc::syscall(libc::SYS_io_destroy, self.context) };
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Write};
    use std::os::fd::AsFd;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::drivers::memif::bell::eventfd;

    fn count(fd: impl AsFd) -> u64 {
        let mut count = [0; 8];
        File::from(fd.as_fd().try_clone_to_owned().unwrap()).read_exact(&mut count).unwrap();
        u64::from_ne_bytes(count)
    }

    #[test]
    fn adds_one_each_time() {
        let peers = eventfd().unwrap();
        let signal = Signal::new(peers.try_clone().unwrap()).unwrap();
        assert_eq!(count(&peers), 1, "once to see that it can be done");
        (0..1000).for_each(|_| signal.raise());
        assert_eq!(count(&peers), 1000);
    }

    #[test]
    fn does_not_wait_for_a_peer_that_filled_its_count_and_made_it_blocking() {
        let peers = eventfd().unwrap();
        let signal = Signal::new(peers.try_clone().unwrap()).unwrap();
        count(&peers);
        let mut file = File::from(peers.try_clone().unwrap());
        file.write_all(&(u64::MAX - 1).to_ne_bytes()).unwrap();
        // SAFETY: a plain system call on a descriptor of ours.
        assert_eq!(unsafe { libc::fcntl(peers.as_raw_fd(), libc::F_SETFL, libc::O_RDWR) }, 0);
        let begun = Instant::now();
        std::thread::scope(|scope| {
            let raising = scope.spawn(|| (0..1000).for_each(|_| signal.raise()));
            while !raising.is_finished() && begun.elapsed() < Duration::from_secs(5) {
                std::thread::sleep(Duration::from_millis(1));
            }
            let waited = !raising.is_finished();
            // Lets it go on if it does wait, so that the test ends.
            assert!(count(&peers) >= u64::MAX - 1);
            assert!(!waited, "it waits for the peer");
        });
    }

    #[test]
    fn only_eventfds_are_taken() {
        let file = File::open("/dev/null").unwrap();
        assert!(Signal::new(file.into()).is_err());
    }
}
