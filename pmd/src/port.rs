//! What a driver offers: a port opened by URL, and its queues.
//!
//! The [`Port`] is the control side. Its [`Queue`]s are the data side: each is owned by one core and moves bursts of
//! packets without locks or allocation. Queues outlive their port; a device is closed when all are dropped.

use std::io;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;

pub use crate::counters::{Drops, QueueStats};
use crate::drivers::intel::error::DeviceError;
use crate::drivers::intel::{e1000e, igb, ixgbe};
use crate::drivers::{af_packet, af_xdp, dpdk, memif, memory, null, pcap, sim, tap};
use crate::mac::MacAddr;
use crate::mbuf::Burst;
use crate::pool::{Pool, PoolHandle};
use crate::region::Region;
use crate::rss::{RSS_KEY_LEN, Rss};
use crate::time::Instant;
use crate::url::Url;

/// Control side of an open device.
pub trait Port: Send {
    /// What it is.
    fn info(&self) -> PortInfo;
    /// Memory that the pools of its queues must lie on, one region for each queue, in their order
    /// ([`PoolConfig::build_on`](crate::PoolConfig::build_on)); handed out once. Empty, as for nearly every port: they may lie anywhere.
    fn memory(&mut self) -> Vec<Region> {
        Vec::new()
    }
    /// Opens one queue for each of these pools, at most `info().queues_max`, once. Queue `i` is to be polled with pool `i`: a device
    /// that reaches memory by itself (DMA, UMEM) is shown these pools and no others. Frames of other pools can be sent all the same;
    /// where the device does not know their memory they are copied, and counted as `tx_copied`.
    fn open_queues(&mut self, pools: &[PoolHandle]) -> Result<Vec<Box<dyn Queue>>, PortError>;
    /// How the device chooses a queue for what it receives, where that can be foretold. Known once the queues are open.
    fn rss(&self) -> Option<Rss> {
        None
    }
    /// Whether frames can pass now.
    fn link(&self) -> LinkState;
    /// Sums over the queues, and what the device itself dropped.
    fn stats(&self) -> PortStats;
}

/// Data side of a device, owned by one core.
pub trait Queue: Send {
    /// Appends received frames to `burst`, as many as it has room for; returns how many. `pool` gives the buffers where
    /// the device needs new ones.
    fn rx_burst(&mut self, now: Instant, pool: &mut Pool, burst: &mut Burst) -> usize;
    /// Takes frames from the front of `burst`; returns how many. What the ring has no room for stays. Frames without a
    /// whole Ethernet header (14 bytes), or longer than the MTU and 22 bytes, are taken and dropped by name.
    fn tx_burst(&mut self, now: Instant, burst: &mut Burst) -> usize;
    /// When `rx_burst` may have something although no fd tells (timed devices).
    fn next_event(&self) -> Option<Instant> {
        None
    }
    /// Called before its owner sleeps on [`wait_fd`](Self::wait_fd): from now on the device tells. False: something waits already, so
    /// do not sleep. Bounded, and followed by [`disarm`](Self::disarm) either way.
    fn arm(&mut self) -> bool {
        true
    }
    /// The owner polls again: the device need not tell any more.
    fn disarm(&mut self) {}
    /// Readable when frames wait, if it was armed; to sleep on.
    fn wait_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
    /// What it did so far.
    fn stats(&self) -> QueueStats;
}

/// What a port is.
#[derive(Clone, Debug)]
pub struct PortInfo {
    /// As it was opened.
    pub url: String,
    /// The driver's name.
    pub driver: &'static str,
    /// The address that frames to us carry.
    pub mac: MacAddr,
    /// Bytes of a layer-3 packet: a frame has up to 14 more, and 4 per VLAN tag.
    pub mtu: usize,
    /// Queues that can be opened.
    pub queues_max: usize,
    /// Line rate, where there is one.
    pub speed_mbps: Option<u32>,
    /// What it can do.
    pub capabilities: Capabilities,
    /// Bits of a DMA address; 64 for devices in software.
    pub address_bits: u32,
    /// What an operator should know of how it runs, a sentence each: which mode was chosen and why, what was probed.
    pub notes: Vec<String>,
}

impl PortInfo {
    /// Of a port that is memory of this process or files: it has no line rate and nothing to wait on.
    pub(crate) fn in_process(
        url: &str,
        driver: &'static str,
        mac: MacAddr,
        mtu: usize,
        queues_max: usize,
    ) -> Self {
        PortInfo {
            url: url.into(),
            driver,
            mac,
            mtu,
            queues_max,
            speed_mbps: None,
            capabilities: Capabilities::default(),
            address_bits: 64,
            notes: Vec::new(),
        }
    }
}

/// What a port can do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// Its queues have a `wait_fd`.
    pub wait_fd: bool,
    /// It spreads flows over its queues, so that one flow stays on one queue.
    pub spreads_flows: bool,
    /// It fills in `Meta::checksum`.
    pub rx_checksum: bool,
}

/// Whether frames can pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// They can.
    Up,
    /// No carrier, no peer, or the device is gone.
    Down,
}

/// What a port did.
pub type PortStats = QueueStats;

/// How to open a port, where its URL does not say otherwise.
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    /// Queues, for a URL without `queues=`; 0 means 1.
    pub queues: usize,
    /// MTU, for devices that have none of their own.
    pub mtu: Option<usize>,
    /// The addresses that the engine has on this port. A port that shares its interface with the kernel takes only frames for these;
    /// without any, all frames.
    pub addresses: Vec<IpAddr>,
    /// Key with which the device shall spread flows over its queues, if it can; its own otherwise.
    pub rss_key: Option<[u8; RSS_KEY_LEN]>,
}

/// MTU of a device in software, unless the options say otherwise.
pub const MTU_DEFAULT: usize = 1500;
/// Largest MTU that can be chosen.
pub const MTU_MAX: usize = 65_535;

/// Why a port could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// No driver of that name.
    #[error("{url:?} names no driver; use one of {known}")]
    UnknownDriver {
        /// The URL.
        url: String,
        /// What there is.
        known: String,
    },
    /// An option is missing, unknown, or has a bad value.
    #[error("{url:?}: {what}; {mend}")]
    BadOption {
        /// The URL.
        url: String,
        /// What is wrong.
        what: String,
        /// What to write.
        mend: String,
    },
    /// Somebody has it.
    #[error("{url:?} is taken: {mend}")]
    Taken {
        /// The URL.
        url: String,
        /// What to do.
        mend: &'static str,
    },
    /// No interface of that name.
    #[error("there is no interface {name:?} in this network namespace; `ip link` lists them")]
    NoSuchInterface {
        /// The name.
        name: String,
    },
    /// One of the engine's addresses is the kernel's as well.
    #[error(
        "{address} is the kernel's own, on {interface:?}: its frames would reach either the kernel or the engine; \
         give the engine another address, or: ip address del {address} dev {interface}"
    )]
    KernelHasAddress {
        /// The address.
        address: IpAddr,
        /// The kernel's interface that has it.
        interface: String,
    },
    /// Not allowed.
    #[error("{what} needs {capability}; run as root, or: sudo setcap {setcap}+ep PROGRAM")]
    Permission {
        /// What was tried.
        what: String,
        /// The capability.
        capability: &'static str,
        /// The same as setcap spells it.
        setcap: &'static str,
    },
    /// More queues than the device has.
    #[error("{url:?} has {max} queues, {wanted} wanted; ask for 1 to {max} (queues= in the URL raises it)")]
    Queues {
        /// The URL.
        url: String,
        /// What was asked for.
        wanted: usize,
        /// What it has.
        max: usize,
    },
    /// Queues are opened once.
    #[error("the queues of {url:?} were opened already; open the port again for new ones")]
    QueuesOpen {
        /// The URL.
        url: String,
    },
    /// A PCI device cannot be driven.
    #[error("{url:?}: {source}")]
    Device {
        /// The URL.
        url: String,
        /// Why, and the mend.
        source: DeviceError,
    },
    /// DPDK refused.
    #[error("{url:?}: {what}: {said}; {mend}")]
    Dpdk {
        /// The URL.
        url: String,
        /// What was tried.
        what: String,
        /// What DPDK said of it.
        said: String,
        /// What to do.
        mend: String,
    },
    /// The system refused.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// The system's reason.
        source: io::Error,
    },
}

impl PortError {
    pub(crate) fn io(what: impl Into<String>) -> PortError {
        PortError::Io { what: what.into(), source: io::Error::last_os_error() }
    }
}

/// The state of a port's queues: opened once, `1..=max` of them.
#[derive(Debug)]
pub(crate) struct QueuesOnce {
    url: String,
    max: usize,
    open: bool,
}

impl QueuesOnce {
    pub(crate) fn new(url: &Url<'_>, max: usize) -> QueuesOnce {
        QueuesOnce { url: url.text().to_owned(), max, open: false }
    }

    pub(crate) fn max(&self) -> usize {
        self.max
    }

    /// Allows `n` queues, or says why not.
    pub(crate) fn check(&self, n: usize) -> Result<(), PortError> {
        let url = self.url.clone();
        if self.open {
            return Err(PortError::QueuesOpen { url });
        }
        if n == 0 || n > self.max {
            return Err(PortError::Queues { url, wanted: n, max: self.max });
        }
        Ok(())
    }

    /// They are open now.
    pub(crate) fn done(&mut self) {
        self.open = true;
    }
}

type Opener = fn(Url<'_>, &OpenOptions) -> Result<Box<dyn Port>, PortError>;

/// Each driver with the form of its URL.
const DRIVERS: &[(&str, &str, Opener)] = &[
    ("memory", "memory:NAME", memory::open),
    ("null", "null:", null::open),
    ("memif", "memif:PATH", memif::open),
    ("af_packet", "af_packet:IFACE", af_packet::open),
    ("af_xdp", "af_xdp:IFACE", af_xdp::open),
    ("dpdk", "dpdk:DEVARGS", dpdk::open),
    ("tap", "tap:NAME", tap::open),
    ("pcap", "pcap:rx=FILE,tx=FILE", pcap::open),
    ("sim", "sim:OPTIONS@URL", sim::open),
    ("igb", "igb:PCI", igb::open),
    ("e1000e", "e1000e:PCI", e1000e::open),
    ("ixgbe", "ixgbe:PCI", ixgbe::open),
];

/// Scheme and form of the URL of each driver in this build.
pub fn drivers() -> impl Iterator<Item = (&'static str, &'static str)> {
    DRIVERS.iter().map(|driver| (driver.0, driver.1))
}

/// Opens a port by its URL; the part before the first colon chooses the driver.
pub fn open(url: &str, options: &OpenOptions) -> Result<Box<dyn Port>, PortError> {
    let parsed = Url::parse(url);
    match DRIVERS.iter().find(|driver| driver.0 == parsed.scheme()) {
        Some((_, _, open)) => open(parsed, options),
        None => {
            let known: Vec<&str> = DRIVERS.iter().map(|driver| driver.1).collect();
            Err(PortError::UnknownDriver { url: url.to_owned(), known: known.join(", ") })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_driver_is_named() {
        let error = open("ring:x", &OpenOptions::default()).err().unwrap().to_string();
        assert!(error.starts_with("\"ring:x\" names no driver; use one of"), "{error}");
    }
}
