//! A UDP socket by the burst: received into the pool's own buffers, sent from them.

use std::io::{IoSlice, IoSliceMut};
use std::net::{SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;

use arrayvec::ArrayVec;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, recvmmsg};
use pmd::{Hugepages, Instant, Mbuf, Pool, PoolConfig};
use rustix::io::Errno as SendErrno;
use rustix::net::addr::SocketAddrArg;
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, sendmmsg, sockopt};
use rxrpc::Endpoint;

/// Datagrams in a system call.
const BURST: usize = 32;
/// Segments of a packet of ours: its head and its payload.
const SEGMENTS: usize = 4;
/// Buffers of the pool.
pub const BUFFERS: usize = 16_384;
/// What the kernel may hold for us: several windows.
const SOCKET_BUFFER: usize = 8 << 20;

/// A socket, and the buffers that the next datagrams are written into.
pub struct Socket {
    udp: UdpSocket,
    pool: Pool,
    headers: MultiHeaders<SockaddrIn>,
    next: [Mbuf; BURST],
    staged: ArrayVec<(SocketAddr, Mbuf), BURST>,
}

impl Socket {
    /// Bound to an IPv4 address of the kernel's; port 0: any.
    pub fn bind(addr: SocketAddr) -> Socket {
        let udp = UdpSocket::bind(addr).expect("an address of this machine's, and a free port");
        udp.set_nonblocking(true).expect("a socket can poll");
        // Root may have what it asks for, others what the system gives to everybody.
        if sockopt::set_socket_recv_buffer_size_force(&udp, SOCKET_BUFFER).is_err() {
            sockopt::set_socket_recv_buffer_size(&udp, SOCKET_BUFFER).expect("a size is only a wish");
        }
        let config = PoolConfig { hugepages: Hugepages::Try, ..PoolConfig::new("udp", BUFFERS) };
        let mut pool = config.build().expect("memory").claim();
        let next = std::array::from_fn(|_| empty(&mut pool));
        Socket { udp, pool, headers: MultiHeaders::preallocate(BURST, None), next, staged: ArrayVec::new() }
    }

    pub fn local_addr(&self) -> SocketAddr {
        self.udp.local_addr().expect("it is bound")
    }

    pub fn pool(&mut self) -> &mut Pool {
        &mut self.pool
    }

    /// Takes a burst of what has come.
    pub fn receive(&mut self, mut take: impl FnMut(&mut Pool, SocketAddr, Mbuf)) {
        let mut iovs = self.next.each_mut().map(|mbuf| [IoSliceMut::new(mbuf.data_mut())]);
        let fd = self.udp.as_raw_fd();
        let came: ArrayVec<(usize, SocketAddr), BURST> =
            match recvmmsg(fd, &mut self.headers, iovs.iter_mut(), MsgFlags::MSG_DONTWAIT, None) {
                Ok(came) => came.map(|one| (one.bytes, from(one.address))).collect(),
                // What was sent before to a port that nobody had.
                Err(Errno::EAGAIN | Errno::EINTR | Errno::ECONNREFUSED) => return,
                Err(error) => panic!("recvmmsg: {error}"),
            };
        for ((bytes, from), slot) in came.into_iter().zip(&mut self.next) {
            let mut packet = std::mem::replace(slot, empty(&mut self.pool));
            packet.truncate(bytes);
            take(&mut self.pool, from, packet);
        }
    }

    /// Sends a burst of what the endpoint has. Whether it was a whole one.
    pub fn send(&mut self, now: Instant, endpoint: &mut Endpoint) -> bool {
        let staged = &mut self.staged;
        endpoint.transmit(now, &mut self.pool, &mut |_, _, to, packet| {
            staged.push((to, packet));
            !staged.is_full()
        });
        let whole = self.staged.is_full();
        let addresses: ArrayVec<_, BURST> = self.staged.iter().map(|(to, _)| to.as_any()).collect();
        let iovs: ArrayVec<ArrayVec<IoSlice<'_>, SEGMENTS>, BURST> =
            self.staged.iter().map(|(_, packet)| packet.segments().map(IoSlice::new).collect()).collect();
        let mut controls: [SendAncillaryBuffer<'_, '_, '_>; BURST] = Default::default();
        let mut messages: ArrayVec<MMsgHdr<'_>, BURST> = (addresses.iter().zip(&iovs).zip(&mut controls))
            .map(|((to, iov), control)| MMsgHdr::new_with_addr(to, iov, control))
            .collect();
        let mut sent = 0;
        while sent < messages.len() {
            match sendmmsg(&self.udp, &mut messages[sent..], SendFlags::DONTWAIT) {
                Ok(some) => sent += some,
                // The socket is full until the device has sent some, or a port that nobody had was told of now.
                Err(SendErrno::AGAIN | SendErrno::NOBUFS | SendErrno::INTR | SendErrno::CONNREFUSED) => {}
                Err(error) => panic!("sendmmsg: {error}"),
            }
        }
        drop(messages);
        drop(iovs);
        self.staged.clear();
        whole
    }
}

/// A buffer as long as there is room in it.
fn empty(pool: &mut Pool) -> Mbuf {
    let mut mbuf = pool.alloc().expect("the endpoint leaves a quarter of the pool");
    let room = mbuf.tailroom();
    mbuf.append(room).expect("as much as there is");
    mbuf
}

fn from(address: Option<SockaddrIn>) -> SocketAddr {
    SocketAddrV4::from(address.expect("UDP has one")).into()
}
