//! A UDP socket by the burst: received into the pool's own buffers by recvmmsg(2), sent from them by sendmmsg(2). Waits in epoll, or in the
//! kernel's busy polling.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{SocketAddr, SocketAddrV4};
use std::os::fd::AsRawFd;
use std::time::Duration;

use arrayvec::ArrayVec;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, recvmmsg};
use pmd::{Instant, Mbuf};
use rustix::net::addr::SocketAddrArg;
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, sendmmsg};

use super::socket::{SO_BUSY_POLL, SO_PREFER_BUSY_POLL, SleepIn, Socket, is_full, is_idle};
use super::{BATCH, Batch, Bind, End, Wire};
use crate::Trouble;

/// Segments of a packet of ours: its head and its payload.
pub const SEGMENTS: usize = 4;
/// For so long a thread polls the device's queue in the kernel before it sleeps, microseconds.
const BUSY_POLL_US: libc::c_int = 100;

/// A socket, and the buffers that the next datagrams are written into.
pub struct Mmsg {
    socket: Socket,
    headers: MultiHeaders<SockaddrIn>,
    next: [Mbuf; BATCH],
    /// The last burst was not full: there was no more.
    dry: bool,
}

impl Mmsg {
    /// One that waits in epoll.
    pub fn bind(to: &Bind<'_>) -> Result<Mmsg, Trouble> {
        Ok(Mmsg::on(Socket::bind(to, SleepIn::Epoll)?))
    }

    /// One that waits in recvmmsg, where the kernel polls the device for a while.
    pub fn bind_busy(to: &Bind<'_>) -> Result<Mmsg, Trouble> {
        let socket = Socket::bind(to, SleepIn::Receive)?;
        let options = [(SO_PREFER_BUSY_POLL, 1), (SO_BUSY_POLL, BUSY_POLL_US)];
        let set = options.into_iter().try_for_each(|(option, value)| socket.set_option(option, value));
        match set {
            Ok(()) => Ok(Mmsg::on(socket)),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(Trouble::Machine(format!(
                "busy-poll: SO_BUSY_POLL needs CAP_NET_ADMIN ({error}); run as root, or: sudo setcap cap_net_admin+ep PROGRAM"
            ))),
            Err(error) => Err(Trouble::Machine(format!(
                "busy-poll: SO_BUSY_POLL: {error}; it needs a kernel of 5.11 or later with CONFIG_NET_RX_BUSY_POLL"
            ))),
        }
    }

    fn on(mut socket: Socket) -> Mmsg {
        let next = std::array::from_fn(|_| socket.empty());
        Mmsg { socket, headers: MultiHeaders::preallocate(BATCH, None), next, dry: true }
    }
}

impl Wire for Mmsg {
    fn end(&mut self) -> &mut dyn End {
        &mut self.socket
    }

    fn receive(&mut self, _: Instant, wait: Duration, into: &mut Batch) -> io::Result<()> {
        let blocks = self.dry && self.socket.sleep(wait)?;
        let flags = if blocks { MsgFlags::MSG_WAITFORONE } else { MsgFlags::MSG_DONTWAIT };
        let mut iovs = self.next.each_mut().map(|mbuf| [IoSliceMut::new(mbuf.data_mut())]);
        let fd = self.socket.fd.as_raw_fd();
        let room = into.remaining_capacity();
        let came: ArrayVec<(usize, SocketAddr), BATCH> =
            match recvmmsg(fd, &mut self.headers, iovs.iter_mut().take(room), flags, None) {
                Ok(came) => came.map(|one| (one.bytes, from(one.address))).collect(),
                Err(error) if is_idle(rustix_errno(error)) => ArrayVec::new(),
                Err(error) => return Err(error.into()),
            };
        self.dry = came.len() < room;
        for ((bytes, from), slot) in came.into_iter().zip(&mut self.next) {
            let mut packet = std::mem::replace(slot, self.socket.empty());
            packet.truncate(bytes);
            into.push((from, packet));
        }
        Ok(())
    }

    fn send(&mut self, _: Instant, batch: &mut Batch) -> io::Result<()> {
        let addresses: ArrayVec<_, BATCH> = batch.iter().map(|(to, _)| to.as_any()).collect();
        let iovs: ArrayVec<ArrayVec<IoSlice<'_>, SEGMENTS>, BATCH> =
            batch.iter().map(|(_, packet)| packet.segments().map(IoSlice::new).collect()).collect();
        let mut controls: [SendAncillaryBuffer<'_, '_, '_>; BATCH] =
            std::array::from_fn(|_| Default::default());
        let connected = self.socket.connected;
        let mut messages: ArrayVec<MMsgHdr<'_>, BATCH> = (addresses.iter().zip(&iovs).zip(&mut controls))
            .map(|((to, iov), control)| match connected {
                true => MMsgHdr::new(iov, control),
                false => MMsgHdr::new_with_addr(to, iov, control),
            })
            .collect();
        let mut sent = 0;
        while sent < messages.len() {
            match sendmmsg(&self.socket.fd, &mut messages[sent..], SendFlags::DONTWAIT) {
                Ok(some) => sent += some,
                Err(error) if is_full(error) => break,
                Err(error) => return Err(error.into()),
            }
        }
        drop(messages);
        drop(iovs);
        batch.drain(..sent);
        Ok(())
    }
}

/// The same error as the other crate has it.
pub fn rustix_errno(error: Errno) -> rustix::io::Errno {
    rustix::io::Errno::from_raw_os_error(error as i32)
}

/// Who sent it.
pub fn from(address: Option<SockaddrIn>) -> SocketAddr {
    SocketAddrV4::from(address.expect("UDP has one")).into()
}
