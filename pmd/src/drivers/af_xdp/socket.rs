//! A socket of AF_XDP: its options, its binding to a queue, the system calls that wake the kernel.
//!
//! See Documentation/networking/af_xdp.rst and include/uapi/linux/if_xdp.h.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use super::ring::{Ring, Which};
use crate::drivers::packet_ring::set;
use crate::header::STRIDE;
use crate::region::Region;

/// For so long a queue may still be taken by a socket that was just closed: the kernel lets go of it on a thread of its own.
pub(crate) const BUSY_MAX: Duration = Duration::from_secs(2);

const SEND_BUFFER: i32 = 8 << 20;

// include/uapi/asm-generic/socket.h
const SO_BUSY_POLL: libc::c_int = 46;
const SO_INCOMING_NAPI_ID: libc::c_int = 56;
const SO_PREFER_BUSY_POLL: libc::c_int = 69;
const SO_BUSY_POLL_BUDGET: libc::c_int = 70;

/// What to bind with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Binding {
    /// Index of the interface.
    pub interface: i32,
    /// Its queue.
    pub queue: u32,
    /// The driver may use the buffers themselves.
    pub try_zero_copy: bool,
    /// Frames may be longer than a buffer.
    pub segments: bool,
}

/// The rings of a socket.
pub(crate) struct Rings {
    pub rx: Ring<libc::xdp_desc>,
    pub tx: Ring<libc::xdp_desc>,
    pub fill: Ring<u64>,
    pub completion: Ring<u64>,
}

/// A socket whose memory is registered and whose rings have `entries` entries each; not bound.
pub(crate) fn create(region: &Region, entries: u32) -> io::Result<OwnedFd> {
    // SAFETY: a plain system call.
    let fd = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the fd was just made and nothing else owns it.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let memory = libc::xdp_umem_reg {
        addr: region.base().as_ptr() as u64,
        len: (region.len() / STRIDE * STRIDE) as u64,
        chunk_size: STRIDE as u32,
        headroom: 0,
        flags: 0,
        tx_metadata_len: 0,
    };
    set(fd, libc::SOL_XDP, libc::XDP_UMEM_REG, &memory)?;
    for ring in
        [libc::XDP_UMEM_FILL_RING, libc::XDP_UMEM_COMPLETION_RING, libc::XDP_RX_RING, libc::XDP_TX_RING]
    {
        set(fd, libc::SOL_XDP, ring, &entries)?;
    }
    Ok(socket)
}

/// Maps the rings of a socket that was created with `entries` entries.
pub(crate) fn map(socket: &OwnedFd, entries: u32) -> io::Result<Rings> {
    let fd = socket.as_raw_fd();
    // SAFETY: plain data, for which zeroes are valid.
    let mut offsets: libc::xdp_mmap_offsets = unsafe { std::mem::zeroed() };
    get(fd, libc::SOL_XDP, libc::XDP_MMAP_OFFSETS, &mut offsets)?;
    Ok(Rings {
        rx: Ring::map(fd, Which::Rx, entries, offsets.rx)?,
        tx: Ring::map(fd, Which::Tx, entries, offsets.tx)?,
        fill: Ring::map(fd, Which::Fill, entries, offsets.fr)?,
        completion: Ring::map(fd, Which::Completion, entries, offsets.cr)?,
    })
}

/// Binds; waits while the queue is still being let go of. `Ok(None)`: with zero copy. `Ok(Some(why))`: the kernel copies.
pub(crate) fn bind(socket: &OwnedFd, binding: Binding) -> io::Result<Option<String>> {
    let segments = if binding.segments { libc::XDP_USE_SG } else { 0 };
    let flags = libc::XDP_USE_NEED_WAKEUP | segments;
    let mut refused = "not asked for".to_owned();
    if binding.try_zero_copy {
        match patiently(|| bind_once(socket, binding, flags | libc::XDP_ZEROCOPY)) {
            Ok(()) => return Ok(None),
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => return Err(error),
            Err(error) => refused = error.to_string(),
        }
    }
    patiently(|| bind_once(socket, binding, flags | libc::XDP_COPY))?;
    Ok(Some(refused))
}

fn bind_once(socket: &OwnedFd, binding: Binding, flags: u16) -> io::Result<()> {
    let address = libc::sockaddr_xdp {
        sxdp_family: libc::AF_XDP as u16,
        sxdp_flags: flags,
        sxdp_ifindex: binding.interface as u32,
        sxdp_queue_id: binding.queue,
        sxdp_shared_umem_fd: 0,
    };
    let len = size_of::<libc::sockaddr_xdp>() as libc::socklen_t;
    // SAFETY: `address` is a sockaddr_xdp and `len` its size.
    match unsafe { libc::bind(socket.as_raw_fd(), std::ptr::from_ref(&address).cast(), len) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Tries again while the answer is EBUSY, for [`BUSY_MAX`] at most.
pub(crate) fn patiently<T>(mut attempt: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let begun = Instant::now();
    loop {
        match attempt() {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && begun.elapsed() < BUSY_MAX => {
                std::thread::sleep(Duration::from_millis(1));
            }
            other => return other,
        }
    }
}

/// Waits until the kernel has let go of a queue whose socket was closed: until another socket can be bound to it. Whether that
/// could be seen.
pub(crate) fn wait_released(interface: i32, queue: u32) -> bool {
    let binding = Binding { interface, queue, try_zero_copy: false, segments: false };
    let probe = || -> io::Result<()> {
        let page = Region::private(STRIDE * 2, crate::region::Hugepages::Never)
            .map_err(|error| io::Error::other(error.to_string()))?;
        let socket = create(&page, 1)?;
        patiently(|| bind_once(&socket, binding, libc::XDP_COPY))
    };
    match probe() {
        Ok(()) => true,
        // The interface is gone, and the binding with it.
        Err(error) => error.raw_os_error() == Some(libc::ENODEV),
    }
}

/// Asks the kernel to poll the device from our own system calls. The queue's NAPI id, if it has one; or why it cannot be.
pub(crate) fn busy_poll(socket: &OwnedFd, microseconds: i32, budget: i32) -> io::Result<()> {
    let fd = socket.as_raw_fd();
    set(fd, libc::SOL_SOCKET, SO_PREFER_BUSY_POLL, &1i32)?;
    set(fd, libc::SOL_SOCKET, SO_BUSY_POLL, &microseconds)?;
    set(fd, libc::SOL_SOCKET, SO_BUSY_POLL_BUDGET, &budget)
}

/// Lets the socket have more frames on their way than the default of about 200; best effort, for it takes CAP_NET_ADMIN.
pub(crate) fn buffer_sends(socket: &OwnedFd) {
    let _ = set(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, &SEND_BUFFER);
}

/// The NAPI context that the last frame came from; `None` while there was none, or the device has none to poll.
pub(crate) fn napi(socket: &OwnedFd) -> Option<u32> {
    let mut id = 0u32;
    get(socket.as_raw_fd(), libc::SOL_SOCKET, SO_INCOMING_NAPI_ID, &mut id).ok()?;
    (id != 0).then_some(id)
}

/// What the kernel counted for this socket since it was made.
pub(crate) fn statistics(socket: &OwnedFd) -> io::Result<libc::xdp_statistics> {
    // SAFETY: plain data, for which zeroes are valid.
    let mut statistics: libc::xdp_statistics = unsafe { std::mem::zeroed() };
    get(socket.as_raw_fd(), libc::SOL_XDP, libc::XDP_STATISTICS, &mut statistics)?;
    Ok(statistics)
}

/// Whether the driver uses the buffers themselves.
pub(crate) fn is_zero_copy(socket: &OwnedFd) -> bool {
    let mut options = libc::xdp_options { flags: 0 };
    get(socket.as_raw_fd(), libc::SOL_XDP, libc::XDP_OPTIONS, &mut options).is_ok()
        && options.flags & libc::XDP_OPTIONS_ZEROCOPY != 0
}

fn get<T: Copy>(fd: RawFd, level: libc::c_int, name: libc::c_int, value: &mut T) -> io::Result<()> {
    let mut len = size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes into `value`, plain data.
    match unsafe { libc::getsockopt(fd, level, name, std::ptr::from_mut(value).cast(), &mut len) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Has the kernel look at the transmit ring; the error as a number, 0 for none.
#[inline]
pub(crate) fn kick_tx(fd: RawFd) -> i32 {
    // SAFETY: no data and no address.
    let sent = unsafe { libc::sendto(fd, std::ptr::null(), 0, libc::MSG_DONTWAIT, std::ptr::null(), 0) };
    if sent < 0 { io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO) } else { 0 }
}

/// Has the kernel look at the fill ring, or poll the device.
#[inline]
pub(crate) fn kick_rx(fd: RawFd) {
    let (nothing, none) = (std::ptr::null_mut(), std::ptr::null_mut());
    // Its error says that nothing was there, or that the link is down, which sending and `Port::link` tell.
    // SAFETY: no buffer and no address.
    unsafe { libc::recvfrom(fd, nothing, 0, libc::MSG_DONTWAIT, none, std::ptr::null_mut()) };
}
