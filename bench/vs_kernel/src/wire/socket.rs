//! What the kernel's UDP sockets have in common: how they are bound, how they wait, and which errors are none.

use std::io;
use std::net::{SocketAddr, SocketAddrV4};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use pmd::{Hugepages, Mbuf, Pool, PoolConfig};
use rustix::event::epoll;
use rustix::io::Errno;
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{AddressFamily, SocketType, bind, connect, getsockname, socket};
use rustix::time::Timespec;

use super::{Bind, End};
use crate::Trouble;
use crate::args::Wait;
use crate::arm::{Arm, Kernel};

/// What the kernel may hold for us: several windows.
const SOCKET_BUFFER: usize = 8 << 20;

/// What libc does not have, from asm-generic/socket.h and linux/sock_diag.h.
pub const SO_BUSY_POLL: libc::c_int = 46;
pub const SO_PREFER_BUSY_POLL: libc::c_int = 69;
const SO_MEMINFO: libc::c_int = 55;
const SK_MEMINFO_VARS: usize = 9;

/// A bound socket and the buffers for its datagrams.
pub struct Socket {
    pub fd: OwnedFd,
    pub local: SocketAddr,
    /// It is connected: what is sent needs no address.
    pub connected: bool,
    pub pool: Pool,
    pub may_sleep: bool,
    sleeper: Sleeper,
}

/// How a thread waits for its socket.
enum Sleeper {
    /// In the call that receives, which ends after so long.
    InReceive(Duration),
    /// In epoll.
    Epoll(OwnedFd),
}

/// Where a thread waits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum SleepIn {
    Receive,
    Epoll,
}

impl Socket {
    /// A socket as the arms have it. Root may have as large a buffer as it asks for, others what the system gives to everybody.
    pub fn bind(to: &Bind<'_>, sleep_in: SleepIn) -> Result<Socket, Trouble> {
        let fail = |what: &str, error: Errno| Trouble::system(format!("{what} {}", to.local), error.into());
        let fd = socket(AddressFamily::INET, SocketType::DGRAM, None)
            .map_err(|error| fail("open a UDP socket for", error))?;
        if sockopt::set_socket_recv_buffer_size_force(&fd, SOCKET_BUFFER).is_err() {
            sockopt::set_socket_recv_buffer_size(&fd, SOCKET_BUFFER)
                .map_err(|error| fail("size the buffer of", error))?;
        }
        if *to.arm == Arm::Kernel(Kernel::ReusePort) {
            sockopt::set_socket_reuseport(&fd, true).map_err(|error| fail("share", error))?;
        }
        bind(&fd, &to.local).map_err(|error| fail("bind", error))?;
        if let Some(peer) = to.peer {
            connect(&fd, &peer).map_err(|error| fail(&format!("connect to {peer} from"), error))?;
        }
        let local = getsockname(&fd).map_err(|error| fail("name", error))?;
        let local = SocketAddrV4::try_from(local).map_err(|error| fail("name", error))?.into();
        let sleeper = match sleep_in {
            SleepIn::Receive => Sleeper::InReceive(Duration::ZERO),
            SleepIn::Epoll => Sleeper::Epoll(watch(&fd).map_err(|error| fail("watch", error))?),
        };
        Ok(Socket {
            fd,
            local,
            connected: to.peer.is_some(),
            pool: pool(to)?,
            may_sleep: to.wait == Wait::Sleep,
            sleeper,
        })
    }

    /// Before a call that receives: whether it may block, and then for up to `wait` or 10 ms more. Where epoll is slept in, that is done here.
    pub fn sleep(&mut self, wait: Duration) -> io::Result<bool> {
        if !self.may_sleep || wait.is_zero() {
            return Ok(false);
        }
        match &mut self.sleeper {
            Sleeper::InReceive(set) => {
                // In steps, so that it is hardly ever changed.
                let wanted = Duration::from_millis(10 * (wait.as_millis() as u64 / 10).clamp(1, 10));
                if *set != wanted {
                    sockopt::set_socket_timeout(&self.fd, Timeout::Recv, Some(wanted))?;
                    *set = wanted;
                }
                Ok(true)
            }
            Sleeper::Epoll(epoll) => {
                let timeout = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: wait.subsec_nanos().into() };
                let mut events = [std::mem::MaybeUninit::uninit(); 1];
                match epoll::wait(epoll, &mut events, Some(&timeout)) {
                    Ok(_) | Err(Errno::INTR) => Ok(false),
                    Err(error) => Err(error.into()),
                }
            }
        }
    }

    /// A buffer as long as there is room in it.
    pub fn empty(&mut self) -> Mbuf {
        let mut mbuf = self
            .pool
            .alloc()
            .expect("more buffers than a burst, and the endpoint leaves a quarter of the pool");
        let room = mbuf.tailroom();
        mbuf.append(room).expect("as much as there is");
        mbuf
    }

    /// Sets an option of the socket level that no crate has: an int.
    pub fn set_option(&self, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
        let len = size_of::<libc::c_int>() as libc::socklen_t;
        // SAFETY: `value` is an int that lives for the length of the call, and `len` its size.
        let rc = unsafe {
            libc::setsockopt(self.fd.as_raw_fd(), libc::SOL_SOCKET, option, (&raw const value).cast(), len)
        };
        if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

impl End for Socket {
    fn pool(&mut self) -> &mut Pool {
        &mut self.pool
    }

    fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// What the kernel dropped because the socket's buffer was full.
    fn dropped(&self) -> u64 {
        let mut words = [0u32; SK_MEMINFO_VARS];
        let mut len = size_of_val(&words) as libc::socklen_t;
        // SAFETY: `words` is as long as `len` says, and both live for the length of the call.
        let rc = unsafe {
            let words = words.as_mut_ptr().cast();
            libc::getsockopt(self.fd.as_raw_fd(), libc::SOL_SOCKET, SO_MEMINFO, words, &raw mut len)
        };
        if rc == 0 { words[libc::SK_MEMINFO_DROPS as usize].into() } else { 0 }
    }
}

fn watch(fd: impl AsFd) -> Result<OwnedFd, Errno> {
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, fd, epoll::EventData::new_u64(0), epoll::EventFlags::IN)?;
    Ok(epoll)
}

/// The buffers of a wire, claimed by the calling thread.
pub fn pool(to: &Bind<'_>) -> Result<Pool, Trouble> {
    let config = PoolConfig { hugepages: Hugepages::Try, ..PoolConfig::new("wire", to.buffers) };
    Ok(config.build().map_err(|error| Trouble::Machine(error.to_string()))?.claim())
}

/// Whether a call that received nothing is one to be made again: nothing there, a signal, or what was sent before to a port that nobody had.
pub fn is_idle(error: Errno) -> bool {
    matches!(error, Errno::AGAIN | Errno::INTR | Errno::CONNREFUSED)
}

/// Whether a call that sent nothing is one to be made again: the socket is full until the device has sent some.
pub fn is_full(error: Errno) -> bool {
    matches!(error, Errno::AGAIN | Errno::NOBUFS | Errno::INTR | Errno::CONNREFUSED)
}
