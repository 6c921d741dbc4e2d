//! Taking a port from a process that may open it: the sockets, their memory and the link that keeps the program attached.
//!
//! The privileged process opens everything and sends it over a Unix stream socket ([`hand_over`]); it keeps nothing, so that the
//! port is gone when the other process is. That process, which needs no privilege, opens `af_xdp:IFACE,from=FD`, FD being its end of
//! the socket, and builds its pools on [`Port::memory`]. What is sent is some lines of text, and the fds in one SCM_RIGHTS message:
//!
//! ```text
//! rxline-af_xdp 1
//! port 7 02:00:00:00:00:01 1500 2048 0 0 eth0     index, address, MTU, ring entries, segments, busy poll, name
//! queue 33554432 0                                bytes of memory, zero copy; fds: socket, memfd
//! note native mode: the program runs in the driver
//! end
//! ```
//!
//! A driver with zero copy lets go of the memory some time after the socket is closed, which a process without privileges cannot see:
//! there, what the device still held at the end does not come home, and the pool's memory stays mapped.
//!
//! Deliberately absent: handing a port on while frames flow. A process that wants to start anew is given a new port.

use std::io::{self, IoSlice, Read};
use std::mem::size_of;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use super::queue::{Bound, Shared, XdpQueue};
use super::{FRAME_OVERHEAD, Settings, XdpPort, explain, info, sum};
use crate::drivers::interface::Interface;
use crate::header::STRIDE;
use crate::mac::MacAddr;
use crate::pool::PoolHandle;
use crate::port::{LinkState, OpenOptions, Port, PortError, PortInfo, PortStats, Queue, QueuesOnce};
use crate::region::{Hugepages, Region};
use crate::url::Url;

const QUEUES_MAX: usize = 64;
const FDS_MAX: usize = 1 + 2 * QUEUES_MAX;
const TEXT_MAX: usize = 16 << 10;
/// For so long the other process may take to send.
const PATIENCE: Duration = Duration::from_secs(10);
const MAGIC: &str = "rxline-af_xdp 1";

/// Opens the port `af_xdp:IFACE..` with `options.queues` queues and memory for `buffers` buffers each, and gives it to the process at
/// the other end of `to`, which opens it as `af_xdp:IFACE,from=FD`. This process keeps nothing of it.
pub fn hand_over(url: &str, options: &OpenOptions, buffers: usize, to: &UnixStream) -> Result<(), PortError> {
    let url = Url::parse(url);
    if url.scheme() != "af_xdp" {
        return Err(url.bad("only af_xdp ports are handed over".into(), "write af_xdp:IFACE".into()));
    }
    let name = url.head("IFACE")?.to_owned();
    let settings = Settings::read(&url)?;
    url.finish()?;
    let mut port = XdpPort::open(&url, &name, settings, options)?;
    let queues = port.settings.queues.unwrap_or(1);
    port.check_queues(queues)?;
    let mut sockets = Vec::new();
    for queue in 0..queues {
        let region = Region::shared("af_xdp", buffers.max(1) * STRIDE, Hugepages::Try)
            .map_err(|error| url.bad(error.to_string(), "free memory, or use fewer buffers".into()))?;
        sockets.push((port.bind(queue as u32, &region)?, region));
    }
    let text = describe(&port, &sockets);
    let mut fds: Vec<RawFd> = vec![port.attachment._link.as_raw_fd()];
    for (bound, region) in &sockets {
        fds.push(bound.socket.as_raw_fd());
        fds.push(region.fd().expect("a shared region").as_raw_fd());
    }
    send(to, text.as_bytes(), &fds)
        .map_err(|source| PortError::Io { what: format!("handing over {:?}", url.text()), source })
}

fn describe(port: &XdpPort, sockets: &[(Bound, Region)]) -> String {
    let bound = &sockets[0].0;
    let mut text = format!(
        "{MAGIC}\nport {} {} {} {} {} {} {}\n",
        port.index,
        port.mac,
        port.mtu,
        bound.entries,
        u8::from(bound.segments),
        u8::from(bound.busy_poll),
        port.interface.name()
    );
    for (bound, region) in sockets {
        text += &format!("queue {} {}\n", region.len(), u8::from(bound.zero_copy));
    }
    for note in &port.notes {
        text += &format!("note {}\n", note.replace('\n', " "));
    }
    text + "end\n"
}

/// Room for a control message with as many fds as there can be; aligned for its header, which is no longer than 24 bytes.
type Control = [u64; 3 + (FDS_MAX * size_of::<RawFd>()).div_ceil(8)];
const NO_CONTROL: Control = [0; size_of::<Control>() / 8];

fn send(to: &UnixStream, text: &[u8], fds: &[RawFd]) -> io::Result<()> {
    assert!(fds.len() <= FDS_MAX);
    let mut control = NO_CONTROL;
    let mut text = IoSlice::new(text);
    let bytes = size_of_val(fds) as u32;
    // SAFETY: plain data, for which zeroes are valid.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = std::ptr::from_mut(&mut text).cast();
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    // SAFETY: pure arithmetic.
    message.msg_controllen = unsafe { libc::CMSG_SPACE(bytes) } as _;
    // SAFETY: `control` is aligned for a cmsghdr and has room for FDS_MAX fds behind it, at least as many as there are.
    unsafe {
        let header = libc::CMSG_FIRSTHDR(&message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(bytes) as _;
        std::ptr::copy_nonoverlapping(fds.as_ptr().cast(), libc::CMSG_DATA(header), bytes as usize);
    }
    // SAFETY: the message points at `text` and `control`, which live until after the call (IoSlice is an iovec).
    let sent = unsafe { libc::sendmsg(to.as_raw_fd(), &message, libc::MSG_NOSIGNAL) };
    match usize::try_from(sent) {
        Err(_) => Err(io::Error::last_os_error()),
        Ok(sent) if sent < text.len() => Err(io::ErrorKind::WriteZero.into()),
        Ok(_) => Ok(()),
    }
}

/// The text up to its last line, and the fds that came with it.
fn receive(from: &mut UnixStream) -> io::Result<(String, Vec<OwnedFd>)> {
    from.set_read_timeout(Some(PATIENCE))?;
    let mut control = NO_CONTROL;
    let mut text = vec![0u8; TEXT_MAX];
    let mut vector = libc::iovec { iov_base: text.as_mut_ptr().cast(), iov_len: text.len() };
    // SAFETY: plain data, for which zeroes are valid.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &mut vector;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of::<Control>() as _;
    // SAFETY: the message points at `text` and `control`, both alive and as long as it says.
    let got = unsafe { libc::recvmsg(from.as_raw_fd(), &mut message, libc::MSG_CMSG_CLOEXEC) };
    let got = usize::try_from(got).map_err(|_| io::Error::last_os_error())?;
    let mut fds = Vec::new();
    // SAFETY: the kernel filled in the control message; fds in it are new, and nothing else owns them.
    unsafe {
        let header = libc::CMSG_FIRSTHDR(&message);
        if !header.is_null() && (*header).cmsg_type == libc::SCM_RIGHTS {
            let bytes = (*header).cmsg_len as usize - libc::CMSG_LEN(0) as usize;
            for at in 0..bytes / size_of::<RawFd>() {
                let fd = libc::CMSG_DATA(header).cast::<RawFd>().add(at).read_unaligned();
                fds.push(OwnedFd::from_raw_fd(fd));
            }
        }
    }
    text.truncate(got);
    while !text.ends_with(b"\nend\n") && text.len() < TEXT_MAX {
        let mut byte = [0u8; 512];
        match from.read(&mut byte)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => text.extend(&byte[..n]),
        }
    }
    Ok((String::from_utf8_lossy(&text).into_owned(), fds))
}

/// Opens the port that another process hands over through `fd`, which this consumes.
pub(super) fn open(url: &Url<'_>, name: &str, fd: RawFd) -> Result<Box<dyn Port>, PortError> {
    // SAFETY: F_DUPFD only reads the number: a wrong one is an error. The copy is new, and nothing else owns it.
    let copy = unsafe {
        let copy = libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 0);
        if copy < 0 {
            let mend = "inherit one end of a Unix stream socket under this number".to_owned();
            return Err(url.bad(format!("from={fd} is no open file"), mend));
        }
        OwnedFd::from_raw_fd(copy)
    };
    let mut stream = UnixStream::from(copy);
    let (text, fds) = receive(&mut stream).map_err(|source| PortError::Io {
        what: format!("taking {:?} from the process that opened it", url.text()),
        source,
    })?;
    let refused =
        |what: &str| url.bad(what.to_owned(), "have pmd::hand_over of the same version send it".into());
    let port =
        Taken::parse(url, &text, fds).ok_or_else(|| refused("what was handed over is not understood"))?;
    if port.name != name {
        return Err(refused(&format!("{:?} was handed over", port.name)));
    }
    Ok(Box::new(port))
}

struct Taken {
    url: String,
    name: String,
    interface: Option<Interface>,
    index: i32,
    mac: MacAddr,
    mtu: usize,
    entries: u32,
    segments: bool,
    busy_poll: bool,
    link: Arc<OwnedFd>,
    queues: Vec<TakenQueue>,
    notes: Vec<String>,
    once: QueuesOnce,
    shared: Vec<Arc<Shared>>,
}

struct TakenQueue {
    socket: OwnedFd,
    zero_copy: bool,
    /// Until it is handed out.
    region: Option<Region>,
    base: usize,
}

impl Taken {
    fn parse(url: &Url<'_>, text: &str, fds: Vec<OwnedFd>) -> Option<Taken> {
        let mut fds = fds.into_iter();
        let mut lines = text.lines();
        if lines.next()? != MAGIC {
            return None;
        }
        let words: Vec<&str> = lines.next()?.strip_prefix("port ")?.splitn(7, ' ').collect();
        let [index, mac, mtu, entries, segments, busy_poll, name] = words[..] else { return None };
        let link = Arc::new(fds.next()?);
        let (mut queues, mut notes) = (Vec::new(), Vec::new());
        for line in lines {
            match line.split_once(' ') {
                Some(("queue", rest)) => {
                    let (len, zero_copy) = rest.split_once(' ')?;
                    let (socket, memory) = (fds.next()?, fds.next()?);
                    let region = Region::map_shared(memory, len.parse().ok()?).ok()?;
                    let base = region.base().as_ptr() as usize;
                    queues.push(TakenQueue {
                        socket,
                        zero_copy: zero_copy == "1",
                        region: Some(region),
                        base,
                    });
                }
                Some(("note", note)) => notes.push(note.to_owned()),
                _ => break,
            }
        }
        notes.push("taken from a process that opened it".to_owned());
        let entries: u32 = entries.parse().ok()?;
        let fit = entries.is_power_of_two() && !queues.is_empty();
        let once = QueuesOnce::new(url, queues.len());
        fit.then_some(Taken {
            url: url.text().to_owned(),
            name: name.to_owned(),
            interface: Interface::new(name).ok(),
            index: index.parse().ok()?,
            mac: mac.parse().ok()?,
            mtu: mtu.parse().ok()?,
            entries,
            segments: segments == "1",
            busy_poll: busy_poll == "1",
            link,
            queues,
            notes,
            once,
            shared: Vec::new(),
        })
    }
}

impl Port for Taken {
    fn info(&self) -> PortInfo {
        let speed = self.interface.as_ref().and_then(Interface::speed_mbps);
        info(&self.url, self.mac, self.mtu, self.once.max(), speed, self.notes.clone())
    }

    fn memory(&mut self) -> Vec<Region> {
        self.queues.iter_mut().filter_map(|queue| queue.region.take()).collect()
    }

    fn open_queues(&mut self, pools: &[PoolHandle]) -> Result<Vec<Box<dyn Queue>>, PortError> {
        self.once.check(pools.len())?;
        let elsewhere =
            |(queue, pool): (&TakenQueue, &PoolHandle)| queue.base != pool.region().base().as_ptr() as usize;
        if pools.len() < self.queues.len() || self.queues.iter().zip(pools).any(elsewhere) {
            return Err(PortError::BadOption {
                url: self.url.clone(),
                what: format!("its {} queues came with memory of their own", self.queues.len()),
                mend: "open them all, with pools built on Port::memory in that order".into(),
            });
        }
        let mut opened: Vec<Box<dyn Queue>> = Vec::new();
        for (number, (queue, pool)) in std::mem::take(&mut self.queues).into_iter().zip(pools).enumerate() {
            let bound = Bound {
                socket: queue.socket,
                entries: self.entries,
                interface: self.index,
                queue: number as u32,
                zero_copy: queue.zero_copy,
                segments: self.segments,
                frame_max: self.mtu + FRAME_OVERHEAD,
                busy_poll: self.busy_poll,
            };
            let queue =
                XdpQueue::new(bound, pool, self.link.clone()).map_err(|source| explain(&self.url, source))?;
            self.shared.push(queue.shared());
            opened.push(Box::new(queue));
        }
        self.once.done();
        Ok(opened)
    }

    fn link(&self) -> LinkState {
        self.interface.as_ref().map_or(LinkState::Up, Interface::link)
    }

    fn stats(&self) -> PortStats {
        sum(&self.shared)
    }
}
