//! The host's end of a guest's cable: a Unix datagram socket, one datagram a frame.
//!
//! Nothing is lost on the way: QEMU takes no frame that the NIC has no room for, and waits while our socket is full. So what
//! does not come back was lost by the driver, or by what is above it.

use std::io::{Error, ErrorKind};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::fault::{Context, Fault, Result};

/// The largest frame that a NIC here is made to send.
pub const FRAME_MAX: usize = 9216;

/// One cable.
pub struct Wire {
    socket: UnixDatagram,
    guest: PathBuf,
}

impl Wire {
    /// The cable of NIC `index`, before QEMU starts.
    pub fn new(folder: &Path, index: usize) -> Result<Wire> {
        let (guest, host) = paths(folder, index);
        let socket = UnixDatagram::bind(&host).context(|| format!("bind {}", host.display()))?;
        socket.set_nonblocking(true).context(|| "wire".into())?;
        Ok(Wire { socket, guest })
    }

    /// What QEMU is told about it.
    pub fn netdev(folder: &Path, index: usize) -> String {
        let (guest, host) = paths(folder, index);
        let (guest, host) = (guest.display(), host.display());
        format!("dgram,id=net{index},local.type=unix,local.path={guest},remote.type=unix,remote.path={host}")
    }

    /// Sends a frame; false: the NIC has no room for it at the moment.
    pub fn send(&self, frame: &[u8]) -> Result<bool> {
        match self.socket.send_to(frame, &self.guest) {
            Ok(_) => Ok(true),
            Err(error) if is_full(&error) => Ok(false),
            Err(source) => Err(Fault::Io { what: "send a frame to the guest".into(), source }),
        }
    }

    /// The next frame from the guest, into `frame`; its length. None: nothing came within `wait`.
    pub fn receive(&self, frame: &mut [u8], wait: Duration) -> Result<Option<usize>> {
        if !wait.is_zero() {
            let wait = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: wait.subsec_nanos().into() };
            // Interrupted or not: what came is read below.
            let _ = poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], Some(&wait));
        }
        match self.socket.recv(frame) {
            Ok(len) => Ok(Some(len)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(source) => Err(Fault::Io { what: "receive a frame from the guest".into(), source }),
        }
    }

    /// Throws away what waits; how many frames.
    pub fn drain(&self) -> Result<usize> {
        let mut frame = [0; FRAME_MAX];
        let mut count = 0;
        while self.receive(&mut frame, Duration::ZERO)?.is_some() {
            count += 1;
        }
        Ok(count)
    }
}

/// The other end's queue of datagrams is full.
fn is_full(error: &Error) -> bool {
    const ENOBUFS: i32 = 105;
    error.kind() == ErrorKind::WouldBlock || error.raw_os_error() == Some(ENOBUFS)
}

/// QEMU's socket and ours.
fn paths(folder: &Path, index: usize) -> (PathBuf, PathBuf) {
    (folder.join(format!("wire{index}.guest")), folder.join(format!("wire{index}.host")))
}
