//! `tap:NAME[,queues=N][,mtu=N]`: the wire behind a TAP interface, which is created, or attached to if it exists.
//!
//! The interface NAME is the kernel's end and has the kernel's addresses; this port is the device on the other end of its cable,
//! with a MAC address of its own (locally administered, derived from the name). One system call a frame. The kernel fills in
//! checksums, for no offload is announced. An interface that this port made goes away with it.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::Arc;

use arrayvec::ArrayVec;

use super::interface::Interface;
use super::{DROP_OVERSIZE, DROP_RUNT, FRAME_OVERHEAD, admit, sum};
use crate::checksum;
use crate::counters::{Counters, QueueStats};
use crate::header::DATA_ROOM;
use crate::mac::MacAddr;
use crate::mbuf::{Burst, Mbuf};
use crate::pool::{Pool, PoolHandle};
use crate::port::{
    Capabilities, LinkState, MTU_MAX, OpenOptions, Port, PortError, PortInfo, PortStats, Queue, QueuesOnce,
};
use crate::time::Instant;
use crate::url::Url;

const DROP_LINK_DOWN: usize = 2;
const DROP_TX_ERROR: usize = 3;
const DROP_RX_ERROR: usize = 4;
const DROPS: &[&str] = &[DROP_RUNT.1, DROP_OVERSIZE.1, "tx_link_down", "tx_error", "rx_error"];
/// Segments of the longest frame.
const SEGMENTS: usize = (MTU_MAX + FRAME_OVERHEAD) / DATA_ROOM + 1;

type Vectors = ArrayVec<libc::iovec, SEGMENTS>;

pub(crate) fn open(url: Url<'_>, options: &OpenOptions) -> Result<Box<dyn Port>, PortError> {
    let interface = Interface::new(url.head("NAME")?)?;
    let queues = url.number("queues", 1..=64)?.map_or(options.queues.max(1), |n| n as usize);
    let mtu = url.number("mtu", 68..=MTU_MAX as u64)?.map(|n| n as usize).or(options.mtu);
    url.finish()?;
    let files = (0..queues).map(|_| attach(&url, &interface, queues > 1)).collect::<Result<Vec<_>, _>>()?;
    if let Some(mtu) = mtu {
        interface.set_mtu(mtu)?;
    }
    match interface.up() {
        // An interface that somebody made for us is theirs to bring up.
        Ok(()) | Err(PortError::Permission { .. }) => {}
        Err(error) => return Err(error),
    }
    let mac = own_mac(&interface)?;
    let once = QueuesOnce::new(&url, queues);
    let url = url.text().to_owned();
    Ok(Box::new(TapPort { url, interface, mac, files, once, counters: Vec::new() }))
}

/// An address for our end: not the kernel's.
fn own_mac(interface: &Interface) -> Result<MacAddr, PortError> {
    let mut mac = MacAddr::local_from(&format!("tap:{}", interface.name()));
    if interface.mac()? == Some(mac) {
        mac.0[5] ^= 1;
    }
    Ok(mac)
}

/// A file that is one queue of the interface.
fn attach(url: &Url<'_>, interface: &Interface, several: bool) -> Result<OwnedFd, PortError> {
    // SAFETY: a plain system call with a constant C string.
    let fd =
        unsafe { libc::open(c"/dev/net/tun".as_ptr(), libc::O_RDWR | libc::O_NONBLOCK | libc::O_CLOEXEC) };
    if fd < 0 {
        return Err(explain(url, "opening /dev/net/tun (load the module with: modprobe tun)"));
    }
    // SAFETY: the fd was just opened and nothing else owns it.
    let file = unsafe { OwnedFd::from_raw_fd(fd) };
    let mut request = interface.request()?;
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | if several { libc::IFF_MULTI_QUEUE } else { 0 };
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes one ifreq.
    if unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, std::ptr::from_mut(&mut request)) } < 0 {
        return Err(explain(url, "attaching to the interface"));
    }
    Ok(file)
}

fn explain(url: &Url<'_>, what: &str) -> PortError {
    let source = io::Error::last_os_error();
    match source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => PortError::Permission {
            what: url.text().to_owned(),
            capability: "CAP_NET_ADMIN",
            setcap: "cap_net_admin",
        },
        Some(libc::EBUSY) => PortError::Taken {
            url: url.text().to_owned(),
            mend: "another program is attached to the interface; stop it, or use another name",
        },
        Some(libc::EINVAL) => url.bad(
            "the interface exists and is of another kind".to_owned(),
            "it must be a TAP, made with multi_queue exactly when queues= is more than 1".to_owned(),
        ),
        _ => PortError::Io { what: format!("{:?}: {what}", url.text()), source },
    }
}

struct TapPort {
    url: String,
    interface: Interface,
    mac: MacAddr,
    /// Until the queues are opened.
    files: Vec<OwnedFd>,
    once: QueuesOnce,
    counters: Vec<Arc<Counters>>,
}

impl Port for TapPort {
    fn info(&self) -> PortInfo {
        PortInfo {
            url: self.url.clone(),
            driver: "tap",
            mac: self.mac,
            // An interface that is gone carries nothing.
            mtu: self.interface.mtu().unwrap_or(0),
            queues_max: self.once.max(),
            speed_mbps: None,
            capabilities: Capabilities { wait_fd: true, spreads_flows: true, rx_checksum: false },
            address_bits: 64,
            notes: Vec::new(),
        }
    }

    fn open_queues(&mut self, pools: &[PoolHandle]) -> Result<Vec<Box<dyn Queue>>, PortError> {
        let n = pools.len();
        self.once.check(n)?;
        let frame_max = self.interface.mtu()? + FRAME_OVERHEAD;
        self.once.done();
        // Files beyond `n` are closed: the kernel gives their flows to the others.
        let files = std::mem::take(&mut self.files).into_iter().take(n).enumerate();
        let queue = |(index, file)| {
            let counters = Counters::new(DROPS);
            self.counters.push(counters.clone());
            Box::new(TapQueue { file, index: index as u16, frame_max, counters }) as Box<dyn Queue>
        };
        Ok(files.map(queue).collect())
    }

    fn link(&self) -> LinkState {
        self.interface.link()
    }

    fn stats(&self) -> PortStats {
        sum(&self.counters)
    }
}

struct TapQueue {
    file: OwnedFd,
    index: u16,
    frame_max: usize,
    counters: Arc<Counters>,
}

fn errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)
}

impl TapQueue {
    /// Reads a frame into `mbuf`, which has room for the longest.
    fn read(&self, mbuf: &mut Mbuf) -> Result<usize, i32> {
        let mut vectors = Vectors::new();
        for segment in mbuf.segments_mut() {
            vectors.push(libc::iovec { iov_base: segment.as_mut_ptr().cast(), iov_len: segment.len() });
        }
        // SAFETY: the vectors point at the segments of `mbuf`, borrowed mutably for the call.
        let n = unsafe { libc::readv(self.file.as_raw_fd(), vectors.as_ptr(), vectors.len() as libc::c_int) };
        if n < 0 { Err(errno()) } else { Ok(n as usize) }
    }

    fn write(&self, mbuf: &Mbuf) -> Result<(), i32> {
        let mut vectors = Vectors::new();
        for segment in mbuf.segments() {
            let vector = libc::iovec { iov_base: segment.as_ptr().cast_mut().cast(), iov_len: segment.len() };
            vectors.try_push(vector).map_err(|_| libc::EMSGSIZE)?;
        }
        // SAFETY: the vectors point at the segments of `mbuf`, borrowed for the call, which only reads them.
        let n =
            unsafe { libc::writev(self.file.as_raw_fd(), vectors.as_ptr(), vectors.len() as libc::c_int) };
        if n < 0 { Err(errno()) } else { Ok(()) }
    }
}

impl Queue for TapQueue {
    fn rx_burst(&mut self, _now: Instant, pool: &mut Pool, burst: &mut Burst) -> usize {
        let before = burst.len();
        let mut bytes = 0;
        while !burst.is_full() {
            // Without buffers, frames wait in the interface's queue, which drops and counts at its end.
            let Some(mut mbuf) = pool.alloc_len(self.frame_max) else { break };
            match self.read(&mut mbuf) {
                Ok(len) => {
                    mbuf.truncate(len);
                    mbuf.meta_mut().queue = self.index;
                    bytes += len;
                    burst.push(mbuf);
                }
                Err(libc::EINTR) => {}
                Err(libc::EAGAIN) => break,
                Err(_) => {
                    // The interface is gone.
                    self.counters.dropped(DROP_RX_ERROR, 1);
                    break;
                }
            }
        }
        self.counters.rx(burst.len() - before, bytes);
        burst.len() - before
    }

    fn tx_burst(&mut self, _now: Instant, burst: &mut Burst) -> usize {
        let given = burst.len();
        admit(burst, self.frame_max, &self.counters);
        let mut done = 0;
        while let Some(mbuf) = burst.get_mut(done) {
            checksum::complete(mbuf);
            match self.write(mbuf) {
                Ok(()) => self.counters.tx(1, mbuf.len()),
                Err(libc::EINTR) => continue,
                Err(libc::EAGAIN | libc::ENOBUFS) => {
                    self.counters.tx_full.add(1);
                    break;
                }
                Err(libc::EIO | libc::EBADFD | libc::ENETDOWN) => self.counters.dropped(DROP_LINK_DOWN, 1),
                Err(libc::EMSGSIZE) => self.counters.dropped(DROP_OVERSIZE.0, 1),
                Err(_) => self.counters.dropped(DROP_TX_ERROR, 1),
            }
            done += 1;
        }
        burst.drain(..done);
        given - burst.len()
    }

    fn wait_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.file.as_fd())
    }

    fn stats(&self) -> QueueStats {
        self.counters.snapshot()
    }
}
