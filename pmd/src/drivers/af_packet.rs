//! `af_packet:IFACE[,queues=N][,promisc=1][,ring=SLOTS]`: a Linux interface through AF_PACKET, without unbinding its driver.
//!
//! Received through a TPACKET_V2 ring, transmitted with sendmmsg. Measured on a veth pair, ns a frame of 64 / 1500 bytes:
//!
//! | | receiving core | sender's softirq and system call |
//! |---|---|---|
//! | recvmmsg(32) | 546 / 615 | 1503 / 1622 |
//! | TPACKET_V2 ring | 12 / 87 | 1685 / 2067 |
//! | TPACKET_V3 blocks | 14 / 136 | 1708 / 2105 |
//!
//! V3 also keeps frames for up to 1 ms until a block is full. For transmitting, sendmmsg reached 0.60 and the ring 0.57
//! Mpps; and the ring's slots are given back while a receiver on a veth may still read them.
//!
//! The interface's own network stack must not answer what we answer: leave it without an address (`ip addr flush dev IFACE`), or it
//! sends port unreachables and resets of its own. It still sees every frame.
//!
//! Frames of local senders whose checksum is not filled in are marked `Partial`; a VLAN tag that the kernel took out of a
//! frame is put back; our own transmitted frames are not received. Frames longer than the MTU (a local sender's
//! TCP segments before segmentation) arrive in several segments, whole; a UDP GSO super-datagram is one long datagram
//! here, so senders that use UDP_SEGMENT need `ethtool -K IFACE tx-udp-segmentation off`. With several
//! queues the kernel spreads flows by hash (PACKET_FANOUT). When the interface goes away the link is down and frames sent are dropped by
//! name; one that comes back has to be opened again.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::interface::Interface;
use super::packet_ring::{self, Frame, PacketRing};
use super::packet_send::PacketSender;
use super::{DROP_OVERSIZE, DROP_RUNT, FRAME_OVERHEAD};
use crate::counters::{Counters, QueueStats};
use crate::header::DATA_ROOM;
use crate::mac::MacAddr;
use crate::mbuf::{Burst, Checksum, Mbuf};
use crate::pool::{Pool, PoolHandle};
use crate::port::{
    Capabilities, LinkState, OpenOptions, Port, PortError, PortInfo, PortStats, Queue, QueuesOnce,
};
use crate::time::Instant;
use crate::url::Url;

const RING_DEFAULT: usize = 4096;
/// Bytes that frames too long for a slot may occupy on the socket.
const SOCKET_BUFFER: i32 = 4 << 20;
/// Longest frame that a kernel hands over: a 64 KiB packet and its headers.
const SUPER_FRAME_MAX: usize = 65_535 + FRAME_OVERHEAD;

pub(crate) const DROP_LINK_DOWN: usize = 2;
pub(crate) const DROP_TX_ERROR: usize = 3;
const DROP_TRUNCATED: usize = 4;
const DROP_SUPER_FRAME: usize = 5;
const DROPS: &[&str] =
    &[DROP_RUNT.1, DROP_OVERSIZE.1, "tx_link_down", "tx_error", "rx_truncated", "rx_oversize"];
/// Frames that found no free slot; the kernel counts them.
const RING_FULL: &str = "rx_ring_full";

pub(crate) fn open(url: Url<'_>, options: &OpenOptions) -> Result<Box<dyn Port>, PortError> {
    let interface = Interface::new(url.head("IFACE")?)?;
    let queues = url.number("queues", 1..=64)?.map_or(options.queues.max(1), |n| n as usize);
    let promiscuous = url.number("promisc", 0..=1)? == Some(1);
    let ring = url.number("ring", 64..=1 << 18)?.map_or(RING_DEFAULT, |n| n as usize);
    url.finish()?;
    let index = interface.index()?;
    let Some(mac) = interface.mac()? else {
        let what = format!("{} is not an Ethernet interface", interface.name());
        return Err(url.bad(what, "use a physical, veth, tap or bridge interface".to_owned()));
    };
    // Opened and closed again: to learn now whether we may.
    packet_ring::socket().map_err(|source| explain(&interface, source))?;
    let once = QueuesOnce::new(&url, queues);
    let url = url.text().to_owned();
    Ok(Box::new(PacketPort { url, interface, index, mac, promiscuous, ring, once, shared: Vec::new() }))
}

fn explain(interface: &Interface, source: std::io::Error) -> PortError {
    match source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => PortError::Permission {
            what: format!("af_packet:{}", interface.name()),
            capability: "CAP_NET_RAW",
            setcap: "cap_net_raw",
        },
        _ => PortError::Io { what: format!("an AF_PACKET socket on {:?}", interface.name()), source },
    }
}

struct PacketPort {
    url: String,
    interface: Interface,
    index: i32,
    mac: MacAddr,
    promiscuous: bool,
    ring: usize,
    once: QueuesOnce,
    shared: Vec<Arc<Shared>>,
}

/// What the port reads of a queue.
struct Shared {
    socket: OwnedFd,
    counters: Arc<Counters>,
    ring_full: AtomicU64,
}

impl Shared {
    fn stats(&self) -> QueueStats {
        let dropped = packet_ring::take_drops(&self.socket);
        let total = self.ring_full.fetch_add(dropped, Ordering::Relaxed) + dropped;
        let mut stats = self.counters.snapshot();
        stats.drops.add(RING_FULL, total);
        stats
    }
}

impl PacketPort {
    fn open_queue(&self, index: usize, mtu: usize) -> std::io::Result<PacketQueue> {
        let socket = packet_ring::socket()?;
        let fd = socket.as_raw_fd();
        packet_ring::set(fd, libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, &1i32)?;
        packet_ring::set(fd, libc::SOL_SOCKET, libc::SO_RCVBUF, &SOCKET_BUFFER)?;
        let ring = PacketRing::new(fd, mtu + FRAME_OVERHEAD, self.ring)?;
        packet_ring::listen_wider(fd, self.index, self.promiscuous)?;
        packet_ring::bind(fd, self.index, true)?;
        let sender = PacketSender::new(self.index)?;
        let counters = Counters::new(DROPS);
        let shared = Arc::new(Shared { socket, counters, ring_full: AtomicU64::new(0) });
        Ok(PacketQueue { ring, sender, shared, index: index as u16, frame_max: mtu + FRAME_OVERHEAD })
    }

    fn open_all(&self, n: usize, mtu: usize) -> std::io::Result<Vec<PacketQueue>> {
        let mut queues = (0..n).map(|index| self.open_queue(index, mtu)).collect::<Result<Vec<_>, _>>()?;
        if n > 1 {
            let mut group = None;
            for queue in &queues {
                group = Some(packet_ring::join_fanout(queue.shared.socket.as_raw_fd(), group)?);
            }
            // Until they joined, each received every frame.
            for queue in &mut queues {
                queue.discard_received();
            }
        }
        Ok(queues)
    }
}

impl Port for PacketPort {
    fn info(&self) -> PortInfo {
        PortInfo {
            url: self.url.clone(),
            driver: "af_packet",
            mac: self.mac,
            // An interface that is gone carries nothing.
            mtu: self.interface.mtu().unwrap_or(0),
            queues_max: self.once.max(),
            speed_mbps: self.interface.speed_mbps(),
            capabilities: Capabilities { wait_fd: true, spreads_flows: true, rx_checksum: true },
            address_bits: 64,
            notes: Vec::new(),
        }
    }

    fn open_queues(&mut self, pools: &[PoolHandle]) -> Result<Vec<Box<dyn Queue>>, PortError> {
        let n = pools.len();
        self.once.check(n)?;
        let mtu = self.interface.mtu()?;
        let queues = self.open_all(n, mtu).map_err(|source| explain(&self.interface, source))?;
        self.once.done();
        self.shared = queues.iter().map(|queue| queue.shared.clone()).collect();
        Ok(queues.into_iter().map(|queue| Box::new(queue) as Box<dyn Queue>).collect())
    }

    fn link(&self) -> LinkState {
        self.interface.link()
    }

    fn stats(&self) -> PortStats {
        let mut sum = QueueStats::default();
        for shared in &self.shared {
            sum.merge(&shared.stats());
        }
        sum
    }
}

struct PacketQueue {
    ring: PacketRing,
    sender: PacketSender,
    shared: Arc<Shared>,
    index: u16,
    frame_max: usize,
}

/// What became of a frame at the head of the ring.
enum Taken {
    Packet(Mbuf),
    Dropped,
    /// It stays in the ring until there are buffers.
    Waits,
}

impl PacketQueue {
    fn take(&self, frame: Frame<'_>, pool: &mut Pool) -> Taken {
        let counters = &self.shared.counters;
        let mut mbuf = if frame.bytes.len() == frame.len {
            match pool.copy_from(frame.bytes) {
                Some(mbuf) => mbuf,
                None if frame.len <= DATA_ROOM => return Taken::Waits,
                None => {
                    counters.rx_no_buffer.add(1);
                    return Taken::Dropped;
                }
            }
        } else if frame.on_socket {
            match self.take_from_socket(frame.len, pool) {
                Some(mbuf) => mbuf,
                None => return Taken::Dropped,
            }
        } else {
            counters.dropped(DROP_TRUNCATED, 1);
            return Taken::Dropped;
        };
        if let Some(tag) = frame.vlan {
            put_tag_back(&mut mbuf, tag);
        }
        let meta = mbuf.meta_mut();
        meta.queue = self.index;
        meta.checksum = match frame {
            Frame { checksum_partial: true, .. } => Checksum::Partial,
            Frame { checksum_good: true, .. } => Checksum::Good,
            _ => Checksum::Unknown,
        };
        Taken::Packet(mbuf)
    }

    /// Receives the frame that was too long for its slot: it waits on the socket, whole, in the same order. It is received into
    /// a chain of buffers, or dropped.
    #[cold]
    fn take_from_socket(&self, len: usize, pool: &mut Pool) -> Option<Mbuf> {
        let counters = &self.shared.counters;
        let mbuf = if len <= SUPER_FRAME_MAX { pool.alloc_len(len) } else { None };
        let mut iov = arrayvec::ArrayVec::<libc::iovec, { SUPER_FRAME_MAX / DATA_ROOM + 1 }>::new();
        let mut mbuf = mbuf;
        for segment in mbuf.iter_mut().flat_map(Mbuf::segments_mut) {
            iov.push(libc::iovec { iov_base: segment.as_mut_ptr().cast(), iov_len: segment.len() });
        }
        // SAFETY: msghdr is plain data, for which zeroes are valid.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = iov.as_mut_ptr();
        message.msg_iovlen = iov.len() as _;
        let fd = self.shared.socket.as_raw_fd();
        // SAFETY: the vectors point at the segments of `mbuf`, which lives until after the call. Without any, the frame is read
        // and thrown away.
        let got = unsafe { libc::recvmsg(fd, &mut message, libc::MSG_DONTWAIT | libc::MSG_TRUNC) };
        if mbuf.is_none() {
            match len <= SUPER_FRAME_MAX {
                true => counters.rx_no_buffer.add(1),
                false => counters.dropped(DROP_SUPER_FRAME, 1),
            }
        } else if got != len as isize {
            counters.dropped(DROP_TRUNCATED, 1);
            return None;
        }
        mbuf
    }

    fn discard_received(&mut self) {
        while let Some(frame) = self.ring.peek() {
            if frame.on_socket {
                let mut byte = 0u8;
                let fd = self.shared.socket.as_raw_fd();
                // SAFETY: one byte is written into `byte`; the rest of the frame is thrown away.
                unsafe { libc::recv(fd, std::ptr::from_mut(&mut byte).cast(), 1, libc::MSG_DONTWAIT) };
            }
            self.ring.release();
        }
    }
}

/// Inserts an 802.1Q (or 802.1ad) tag behind the addresses.
fn put_tag_back(mbuf: &mut Mbuf, (tpid, tci): (u16, u16)) {
    if mbuf.data().len() < 12 || mbuf.prepend(4).is_none() {
        return;
    }
    let data = mbuf.data_mut();
    data.copy_within(4..16, 0);
    data[12..14].copy_from_slice(&tpid.to_be_bytes());
    data[14..16].copy_from_slice(&tci.to_be_bytes());
}

impl Queue for PacketQueue {
    fn rx_burst(&mut self, _now: Instant, pool: &mut Pool, burst: &mut Burst) -> usize {
        let before = burst.len();
        let mut bytes = 0;
        while !burst.is_full() {
            let Some(frame) = self.ring.peek() else { break };
            match self.take(frame, pool) {
                Taken::Packet(mbuf) => {
                    bytes += mbuf.len();
                    burst.push(mbuf);
                }
                Taken::Dropped => {}
                Taken::Waits => break,
            }
            self.ring.release();
        }
        self.shared.counters.rx(burst.len() - before, bytes);
        burst.len() - before
    }

    fn tx_burst(&mut self, _now: Instant, burst: &mut Burst) -> usize {
        self.sender.send(burst, self.frame_max, &self.shared.counters)
    }

    fn wait_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.shared.socket.as_fd())
    }

    fn stats(&self) -> QueueStats {
        self.shared.stats()
    }
}
