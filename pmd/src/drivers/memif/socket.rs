//! The control socket: AF_UNIX, SOCK_SEQPACKET, in the file system or, written `@NAME`, in the abstract name space.
//!
//! No call here ever waits, whatever the peer did to the socket: each says MSG_DONTWAIT or SOCK_NONBLOCK by itself.

use std::ffi::OsStr;
use std::io;
use std::mem::{offset_of, size_of};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use super::message::{MESSAGE_LEN, Message};

/// File descriptors that a peer's message may carry; any beyond are closed by the kernel.
const FDS_MAX: usize = 4;
/// Peers that may wait to be accepted.
const BACKLOG: i32 = 16;

/// Where a socket is: as in the URL.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Address(String);

impl Address {
    /// `None` when it is too long for the system.
    pub(super) fn new(text: &str) -> Option<Address> {
        // One byte less than sun_path has, for the zero at the end.
        let max = size_of::<libc::sockaddr_un>() - offset_of!(libc::sockaddr_un, sun_path) - 1;
        (!text.is_empty() && text != "@" && text.len() <= max).then(|| Address(text.to_owned()))
    }

    /// The file, unless it is abstract.
    fn path(&self) -> Option<&Path> {
        (!self.0.starts_with('@')).then(|| Path::new(OsStr::from_bytes(self.0.as_bytes())))
    }

    /// As DPDK writes it: all of a path's structure, and of an abstract name just the name.
    fn raw(&self) -> (libc::sockaddr_un, libc::socklen_t) {
        // SAFETY: sockaddr_un is plain data, for which zeroes are valid.
        let mut raw: libc::sockaddr_un = unsafe { std::mem::zeroed() };
        raw.sun_family = libc::AF_UNIX as libc::sa_family_t;
        for (to, from) in raw.sun_path.iter_mut().zip(self.0.bytes()) {
            *to = from as libc::c_char;
        }
        let mut len = size_of::<libc::sockaddr_un>();
        if self.path().is_none() {
            raw.sun_path[0] = 0;
            len = offset_of!(libc::sockaddr_un, sun_path) + self.0.len();
        }
        (raw, len as libc::socklen_t)
    }
}

fn socket() -> io::Result<OwnedFd> {
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: a plain system call.
    let fd = unsafe { libc::socket(libc::AF_UNIX, kind, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the fd was just created, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Listens. A file that a killed process left behind is replaced; one that somebody listens on is `AddrInUse`.
pub(super) fn listen(address: &Address) -> io::Result<OwnedFd> {
    let socket = socket()?;
    let (raw, len) = address.raw();
    let bind = || {
        // SAFETY: `raw` is a sockaddr_un of which `len` bytes are valid.
        check(unsafe { libc::bind(socket.as_raw_fd(), std::ptr::from_ref(&raw).cast(), len) })
    };
    match bind() {
        Err(error) if error.raw_os_error() == Some(libc::EADDRINUSE) && is_left_over(address) => {
            unlink(address);
            bind()?;
        }
        other => other?,
    }
    // SAFETY: a plain system call on our socket.
    check(unsafe { libc::listen(socket.as_raw_fd(), BACKLOG) })?;
    Ok(socket)
}

/// A socket's file that nobody listens on.
fn is_left_over(address: &Address) -> bool {
    let is_socket =
        |path: &Path| std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket());
    address.path().is_some_and(is_socket)
        && connect(address).is_err_and(|error| error.raw_os_error() == Some(libc::ECONNREFUSED))
}

/// Removes the file of a socket that we listened on.
pub(super) fn unlink(address: &Address) {
    if let Some(path) = address.path() {
        // Whoever removed it before us was right, too.
        let _ = std::fs::remove_file(path);
    }
}

/// Connects, or says at once why not.
pub(super) fn connect(address: &Address) -> io::Result<OwnedFd> {
    let socket = socket()?;
    let (raw, len) = address.raw();
    // SAFETY: `raw` is a sockaddr_un of which `len` bytes are valid.
    check(unsafe { libc::connect(socket.as_raw_fd(), std::ptr::from_ref(&raw).cast(), len) })?;
    Ok(socket)
}

/// The next peer that waits, if any.
pub(super) fn accept(listener: &OwnedFd) -> Option<OwnedFd> {
    let (null, flags) = (std::ptr::null_mut(), libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC);
    // SAFETY: no address is asked for.
    let fd = unsafe { libc::accept4(listener.as_raw_fd(), null, std::ptr::null_mut(), flags) };
    // SAFETY: a new fd that nothing else owns.
    (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Room for the file descriptors of one message, aligned as the kernel wants it.
#[repr(align(8))]
struct Ancillary([u8; 64]);
const _: () = {
    // SAFETY: arithmetic only.
    assert!(unsafe { libc::CMSG_SPACE((FDS_MAX * size_of::<RawFd>()) as u32) } as usize <= 64);
};

/// Sends a message, with a file descriptor or without. False: the peer is gone, or does not read.
pub(super) fn send(socket: &OwnedFd, message: &Message, fd: Option<RawFd>) -> bool {
    let mut bytes = message.encode();
    let mut iov = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    let mut ancillary = Ancillary([0; 64]);
    // SAFETY: msghdr is plain data, for which zeroes are valid.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    (header.msg_iov, header.msg_iovlen) = (&raw mut iov, 1);
    if let Some(fd) = fd {
        let len = size_of::<RawFd>() as u32;
        header.msg_control = ancillary.0.as_mut_ptr().cast();
        // SAFETY: `ancillary` has room for one control message with several fds, so that the first exists, and its data.
        unsafe {
            header.msg_controllen = libc::CMSG_SPACE(len) as _;
            let control = libc::CMSG_FIRSTHDR(&raw const header);
            (*control).cmsg_level = libc::SOL_SOCKET;
            (*control).cmsg_type = libc::SCM_RIGHTS;
            (*control).cmsg_len = libc::CMSG_LEN(len) as _;
            libc::CMSG_DATA(control).cast::<RawFd>().write_unaligned(fd);
        }
    }
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the header points at `bytes` and `ancillary`, which live until the call is over.
    unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const header, flags) == MESSAGE_LEN as isize }
}

/// What came.
pub(super) enum Received {
    /// A message, and the first file descriptor that came along.
    Message(Message, Option<OwnedFd>),
    /// Nothing yet.
    Nothing,
    /// The peer closed, or died.
    Closed,
    /// No message of ours.
    Garbage,
}

/// Receives a message. All file descriptors but the first are closed.
pub(super) fn receive(socket: &OwnedFd) -> Received {
    let mut bytes = [0u8; MESSAGE_LEN];
    let mut iov = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    let mut ancillary = Ancillary([0; 64]);
    // SAFETY: msghdr is plain data, for which zeroes are valid.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    (header.msg_iov, header.msg_iovlen) = (&raw mut iov, 1);
    (header.msg_control, header.msg_controllen) = (ancillary.0.as_mut_ptr().cast(), ancillary.0.len() as _);
    let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    // SAFETY: the header points at `bytes` and `ancillary`, with their lengths.
    let got = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, flags) };
    if got < 0 {
        let kind = io::Error::last_os_error().kind();
        let again = [io::ErrorKind::WouldBlock, io::ErrorKind::Interrupted].contains(&kind);
        return if again { Received::Nothing } else { Received::Closed };
    }
    let fd = take_fds(&header);
    if got == 0 {
        return Received::Closed;
    }
    match Message::decode(&bytes) {
        Some(message) if got == MESSAGE_LEN as isize && header.msg_flags & libc::MSG_TRUNC == 0 => {
            Received::Message(message, fd)
        }
        _ => Received::Garbage,
    }
}

/// Owns every file descriptor that came with a message, and keeps the first.
fn take_fds(header: &libc::msghdr) -> Option<OwnedFd> {
    let mut first = None;
    // SAFETY: the kernel filled the control buffer in and set its length; the macros stay within it. Each fd in an
    // SCM_RIGHTS message is new and ours.
    unsafe {
        let mut control = libc::CMSG_FIRSTHDR(header);
        while !control.is_null() {
            if (*control).cmsg_level == libc::SOL_SOCKET && (*control).cmsg_type == libc::SCM_RIGHTS {
                let bytes = (*control).cmsg_len as usize - libc::CMSG_LEN(0) as usize;
                let fds = libc::CMSG_DATA(control).cast::<RawFd>();
                for i in 0..bytes / size_of::<RawFd>() {
                    let fd = OwnedFd::from_raw_fd(fds.add(i).read_unaligned());
                    first.get_or_insert(fd);
                }
            }
            control = libc::CMSG_NXTHDR(header, control);
        }
    }
    first
}
