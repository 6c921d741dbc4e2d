//! `af_xdp:IFACE[,queues=N][,ring=ENTRIES][,mode=native|skb][,copy=1][,busy_poll=USEC][,from=FD]`: a Linux interface through
//! AF_XDP, shared with the kernel.
//!
//! A program of our own ([`program`]), loaded by bpf(2) without clang or a loader, redirects frames for the engine's addresses to
//! sockets whose memory is the pools' own: the kernel, or a driver with zero copy, writes into the buffers that `rx_burst` hands
//! out. All else stays the kernel's, which goes on using the interface. An address that the kernel has too is refused: its
//! frames would go to one of the two. The program is attached by a link, which is gone with the process, however it ends.
//!
//! What was chosen and why is in [`PortInfo::notes`]: native or SKB mode, zero copy or not, busy poll.
//!
//! Every receive queue of the interface needs a socket, or what arrives on it goes to the kernel; `ethtool -L IFACE combined N`
//! sets their number. A veth delivers frames of a kernel's socket by flow, frames of XDP by the sender's CPU or queue: so no promise is
//! made that one flow stays on one queue. Kernel ends of a veth leave checksums and VLAN tags to a device that is not there, and
//! AF_XDP does not tell: `ethtool -K IFACE tx off txvlan off` there.
//!
//! Frames longer than a buffer come and go in segments (XDP_USE_SG, Linux 6.6). Those that a driver merges (LRO, GRO in hardware)
//! must be switched off.
//!
//! Opening needs CAP_NET_RAW, CAP_NET_ADMIN and CAP_BPF. A process without them takes the port from one that has them: see
//! [`hand_over`](crate::hand_over).
//!
//! Deliberately absent: sharing one UMEM between queues (each core's pool is its own), hardware metadata, transmit offloads, and
//! programs of others beside ours on the interface.

mod asm;
mod bpf;
mod program;
mod queue;
mod ring;
mod socket;
mod takeover;
mod umem;

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::interface::Interface;
use super::{FRAME_OVERHEAD, interface};
use crate::counters::QueueStats;
use crate::header::DATA_ROOM;
use crate::mac::MacAddr;
use crate::pool::PoolHandle;
use crate::port::{
    Capabilities, LinkState, OpenOptions, Port, PortError, PortInfo, PortStats, Queue, QueuesOnce,
};
use crate::region::Region;
use crate::url::Url;
use bpf::{Mode, Steering};
use queue::{Bound, SEGMENTS_MAX, Shared, XdpQueue};
use socket::Binding;

pub use takeover::hand_over;

const RING_DEFAULT: u32 = 2048;
/// The largest MTU whose frames fit the segments that the kernel copies together.
const MTU_MAX: usize = SEGMENTS_MAX * DATA_ROOM - FRAME_OVERHEAD;
const BUSY_POLL_BUDGET: i32 = 64;

pub(crate) fn open(url: Url<'_>, options: &OpenOptions) -> Result<Box<dyn Port>, PortError> {
    let name = url.head("IFACE")?.to_owned();
    if let Some(fd) = url.number("from", 0..=i32::MAX as u64)? {
        url.finish()?;
        return takeover::open(&url, &name, fd as i32);
    }
    let settings = Settings::read(&url)?;
    url.finish()?;
    Ok(Box::new(XdpPort::open(&url, &name, settings, options)?))
}

/// What the URL says.
#[derive(Clone, Copy)]
struct Settings {
    queues: Option<usize>,
    entries: u32,
    mode: Option<Mode>,
    copy: bool,
    /// For so many microseconds the kernel may poll the device in our system calls.
    busy_poll: Option<i32>,
}

impl Settings {
    fn read(url: &Url<'_>) -> Result<Settings, PortError> {
        let entries = url.number("ring", 64..=1 << 15)?.map_or(RING_DEFAULT, |n| n as u32);
        if !entries.is_power_of_two() {
            return Err(url.bad(format!("ring={entries}"), "write a power of two from 64 to 32768".into()));
        }
        let mode = match url.take("mode") {
            None => None,
            Some("native") => Some(Mode::Native),
            Some("skb") => Some(Mode::Skb),
            Some(other) => return Err(url.bad(format!("mode={other}"), "write native or skb".into())),
        };
        Ok(Settings {
            queues: url.number("queues", 1..=64)?.map(|n| n as usize),
            entries,
            mode,
            copy: url.number("copy", 0..=1)? == Some(1),
            busy_poll: url.number("busy_poll", 1..=1_000_000)?.map(|n| n as i32),
        })
    }
}

/// The interface and the program on it, for as long as the port or one of its queues needs them.
struct Attachment {
    steering: Steering,
    _link: OwnedFd,
}

struct XdpPort {
    url: String,
    interface: Interface,
    index: i32,
    mac: MacAddr,
    mtu: usize,
    mode: Mode,
    settings: Settings,
    attachment: Arc<Attachment>,
    once: QueuesOnce,
    rx_queues: usize,
    notes: Vec<String>,
    shared: Vec<Arc<Shared>>,
}

impl XdpPort {
    fn open(
        url: &Url<'_>,
        name: &str,
        settings: Settings,
        options: &OpenOptions,
    ) -> Result<XdpPort, PortError> {
        let interface = Interface::new(name)?;
        let index = interface.index()?;
        let Some(mac) = interface.mac()? else {
            let what = format!("{name} is not an Ethernet interface");
            return Err(url.bad(what, "use a physical, veth, tap or bridge interface".to_owned()));
        };
        let mtu = interface.mtu()?.min(MTU_MAX);
        refuse_shared(&options.addresses)?;
        let rx_queues = interface.rx_queues()?;
        let once = QueuesOnce::new(url, rx_queues);
        let explain = |source| explain(url.text(), source);
        let steering = Steering::load(rx_queues, &options.addresses).map_err(explain)?;
        let mut notes = Vec::new();
        let (link, mode) = attach(&steering, index, settings.mode, &mut notes)
            .map_err(|source| explain_attach(url.text(), name, source))?;
        let settings = Settings { queues: settings.queues.or(Some(options.queues.max(1))), ..settings };
        let attachment = Arc::new(Attachment { steering, _link: link });
        let url = url.text().to_owned();
        let shared = Vec::new();
        Ok(XdpPort {
            url,
            interface,
            index,
            mac,
            mtu,
            mode,
            settings,
            attachment,
            once,
            rx_queues,
            notes,
            shared,
        })
    }

    fn frame_max(&self) -> usize {
        self.mtu + FRAME_OVERHEAD
    }

    /// A socket on queue `queue` whose memory is `region`, known to the program.
    fn bind(&mut self, queue: u32, region: &Region) -> Result<Bound, PortError> {
        let explain = |source| explain(&self.url, source);
        let entries = self.settings.entries;
        let socket = socket::create(region, entries)
            .map_err(|source| explain_memory(&self.url, region.len(), source))?;
        let busy_poll = self.settings.busy_poll;
        let busy_poll = busy_poll.map(|time| socket::busy_poll(&socket, time, BUSY_POLL_BUDGET));
        socket::buffer_sends(&socket);
        let segments = self.frame_max() > DATA_ROOM;
        let try_zero_copy = self.mode == Mode::Native && !self.settings.copy;
        let binding = Binding { interface: self.index, queue, try_zero_copy, segments };
        let refused =
            socket::bind(&socket, binding).map_err(|source| explain_bind(&self.url, queue, source))?;
        self.attachment.steering.add(queue, &socket).map_err(explain)?;
        let zero_copy = socket::is_zero_copy(&socket);
        if queue == 0 {
            self.notes.push(match refused {
                _ if zero_copy => "zero copy: the driver uses the pools' buffers themselves".to_owned(),
                Some(why) => format!("no zero copy ({why}): the kernel copies each frame"),
                None => "no zero copy, though the driver agreed to it".to_owned(),
            });
            self.notes.push(match &busy_poll {
                None => "busy poll: not asked for (busy_poll=USEC)".to_owned(),
                Some(Ok(())) => {
                    "busy poll: on; it has an effect once frames come from a NAPI context".to_owned()
                }
                Some(Err(error)) => format!("busy poll: refused ({error})"),
            });
        }
        let busy_poll = matches!(busy_poll, Some(Ok(())));
        let (interface, frame_max) = (self.index, self.frame_max());
        Ok(Bound { socket, entries, interface, queue, zero_copy, segments, frame_max, busy_poll })
    }

    /// Refuses numbers of queues that the interface does not have, and notes those that nobody will read.
    fn check_queues(&mut self, n: usize) -> Result<(), PortError> {
        self.once.check(n).map_err(|error| match error {
            PortError::Queues { url, wanted, max } if wanted > max => PortError::BadOption {
                url,
                what: format!("{wanted} wanted, and {} has {max} receive queues", self.interface.name()),
                mend: format!(
                    "ethtool -L {} combined {wanted} (a veth: rx {wanted} tx {wanted}), or use fewer cores",
                    self.interface.name()
                ),
            },
            other => other,
        })?;
        if n < self.rx_queues {
            let name = self.interface.name();
            self.notes.push(format!(
                "{n} of {} receive queues are read; frames on the others go to the kernel: ethtool -L {name} combined {n}",
                self.rx_queues
            ));
        }
        Ok(())
    }
}

impl Port for XdpPort {
    fn info(&self) -> PortInfo {
        let mut notes = self.notes.clone();
        if self.settings.busy_poll.is_some() {
            let napi = self.shared.iter().any(|shared| shared.napi().is_some());
            notes.push(format!(
                "busy poll: frames {} from a NAPI context",
                if napi { "come" } else { "do not come yet" }
            ));
        }
        let mtu = self.interface.mtu().map_or(0, |mtu| mtu.min(self.mtu));
        info(&self.url, self.mac, mtu, self.once.max(), self.interface.speed_mbps(), notes)
    }

    fn open_queues(&mut self, pools: &[PoolHandle]) -> Result<Vec<Box<dyn Queue>>, PortError> {
        self.check_queues(pools.len())?;
        let mut queues: Vec<Box<dyn Queue>> = Vec::new();
        let mut shared = Vec::new();
        for (number, pool) in pools.iter().enumerate() {
            let bound = self.bind(number as u32, pool.region())?;
            let queue = XdpQueue::new(bound, pool, self.attachment.clone())
                .map_err(|source| explain(&self.url, source))?;
            shared.push(queue.shared());
            queues.push(Box::new(queue));
        }
        self.once.done();
        self.shared = shared;
        Ok(queues)
    }

    fn link(&self) -> LinkState {
        self.interface.link()
    }

    fn stats(&self) -> PortStats {
        sum(&self.shared)
    }
}

fn sum(shared: &[Arc<Shared>]) -> PortStats {
    let mut sum = QueueStats::default();
    for shared in shared {
        sum.merge(&shared.stats());
    }
    sum
}

fn info(
    url: &str,
    mac: MacAddr,
    mtu: usize,
    queues_max: usize,
    speed_mbps: Option<u32>,
    notes: Vec<String>,
) -> PortInfo {
    let capabilities = Capabilities { wait_fd: true, spreads_flows: false, rx_checksum: false };
    let driver = "af_xdp";
    PortInfo { speed_mbps, capabilities, notes, ..PortInfo::in_process(url, driver, mac, mtu, queues_max) }
}

/// Attaches in the driver, or else above it; notes which, and why.
fn attach(
    steering: &Steering,
    index: i32,
    wish: Option<Mode>,
    notes: &mut Vec<String>,
) -> io::Result<(OwnedFd, Mode)> {
    let attempt = |mode| socket::patiently(|| steering.attach(index, mode));
    let why = match wish {
        Some(Mode::Skb) => "as asked for".to_owned(),
        _ => match attempt(Mode::Native) {
            Ok(link) => {
                notes.push("native mode: the program runs in the driver".to_owned());
                return Ok((link, Mode::Native));
            }
            Err(error) if wish.is_some() || is_final(&error) => return Err(error),
            Err(error) => format!("native mode refused: {error}"),
        },
    };
    let link = attempt(Mode::Skb)?;
    notes.push(format!("SKB mode ({why}): the program runs after the kernel made a packet of each frame"));
    Ok((link, Mode::Skb))
}

/// What SKB mode would not mend.
fn is_final(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EPERM | libc::EACCES | libc::EBUSY | libc::EEXIST | libc::ENODEV)
    )
}

/// Refuses addresses that the kernel has in this namespace: it would never see their frames.
fn refuse_shared(addresses: &[IpAddr]) -> Result<(), PortError> {
    let kernels = interface::addresses()?;
    match kernels.into_iter().find(|(_, address)| addresses.contains(address)) {
        Some((interface, address)) => Err(PortError::KernelHasAddress { address, interface }),
        None => Ok(()),
    }
}

fn explain(url: &str, source: io::Error) -> PortError {
    match source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => PortError::Permission {
            what: url.to_owned(),
            capability: "CAP_NET_RAW, CAP_NET_ADMIN and CAP_BPF",
            setcap: "cap_net_raw,cap_net_admin,cap_bpf",
        },
        Some(libc::EAFNOSUPPORT) => PortError::BadOption {
            url: url.to_owned(),
            what: "this kernel has no AF_XDP".into(),
            mend: "use one with CONFIG_XDP_SOCKETS=y, or af_packet:".into(),
        },
        _ => PortError::Io { what: format!("opening {url:?}"), source },
    }
}

fn explain_attach(url: &str, name: &str, source: io::Error) -> PortError {
    match source.raw_os_error() {
        Some(libc::EBUSY | libc::EEXIST) => PortError::Taken {
            url: url.to_owned(),
            mend: "another XDP program is attached; end its process, or `ip link set dev IFACE xdp off`",
        },
        Some(libc::ENODEV) => PortError::NoSuchInterface { name: name.to_owned() },
        _ => explain(url, source),
    }
}

fn explain_bind(url: &str, queue: u32, source: io::Error) -> PortError {
    match source.raw_os_error() {
        Some(libc::EBUSY) => PortError::Taken {
            url: url.to_owned(),
            mend: "another AF_XDP socket is bound to the queue; end its process (`bpftool net` and `ss --xdp` name it)",
        },
        Some(libc::EINVAL | libc::EOPNOTSUPP) => PortError::BadOption {
            url: url.to_owned(),
            what: format!("queue {queue} cannot be bound with this MTU ({source})"),
            mend: "frames longer than a buffer (MTU over 1770) need Linux 6.6 and a driver with multi-buffer XDP; lower the MTU".into(),
        },
        _ => explain(url, source),
    }
}

fn explain_memory(url: &str, bytes: usize, source: io::Error) -> PortError {
    match source.raw_os_error() {
        Some(libc::ENOBUFS | libc::ENOMEM | libc::EAGAIN) => PortError::BadOption {
            url: url.to_owned(),
            what: format!("{} MiB of packet buffers exceed the limit on locked memory", bytes >> 20),
            mend: "ulimit -l unlimited (LimitMEMLOCK=infinity in a unit), cap_ipc_lock, or fewer buffers"
                .into(),
        },
        _ => explain(url, source),
    }
}
