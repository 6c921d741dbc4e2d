//! `memif:PATH[,role=server|client][,id=N][,queues=N][,ring=N][,buffer=N][,secret=TEXT][,mtu=N]`: shared memory with another process.
//!
//! Speaks memif 2.0 as DPDK's net_memif and VPP do. PATH is the control socket, `@NAME` one in the abstract name space. The *server* (VPP:
//! master) listens there, for any number of interfaces with an `id` each; the *client* (slave) connects, and makes the memory:
//! `ring` slots (a power of two) of `buffer` bytes for each queue and direction. Queue n of one side talks with queue n of
//! the other; both must have the same number. Without `role` it is the client. A `secret` must be the same on both sides.
//!
//! The link is up while a peer is connected; until then, frames sent are dropped by name. Connecting and connecting again is
//! the business of a control thread. Buffers that a peer held when it died were shared memory and no mbuf of ours: nothing is lost.
//!
//! Each frame is copied once, out of or into shared memory. The other process is not trusted: it may write anything there, at any time,
//! and send any message. It can make us lose frames, by name, or end its connection, and nothing else. Deliberately
//! absent: the modes IP and punt/inject, zero copy (it would let the peer write into frames that we are reading), regions on
//! hugepages (`memory.rs` says why), and metadata.
//!
//! Sources: DPDK 22.11 `drivers/net/memif` and its guide, doc/guides/nics/memif.rst; VPP `src/plugins/memif`.

mod bell;
mod control;
mod copy;
mod handshake;
#[cfg(test)]
mod hostile;
mod interface;
mod memory;
mod message;
mod queue;
mod receive;
mod ring;
mod signal;
mod slots;
mod socket;
mod transmit;

use std::io;
use std::sync::Arc;

use self::control::JoinError;
use self::handshake::{QUEUES_MAX, memory_len};
use self::interface::{Config, Interface};
use self::message::SECRET_LEN;
use self::queue::MemifQueue;
use self::ring::LOG2_SLOTS_MAX;
use self::socket::Address;
use super::{DROP_OVERSIZE, DROP_RUNT, FRAME_OVERHEAD};
use crate::counters::Counters;
use crate::mac::MacAddr;
use crate::pool::PoolHandle;
use crate::port::{
    Capabilities, LinkState, MTU_DEFAULT, MTU_MAX, OpenOptions, Port, PortError, PortInfo, PortStats, Queue,
    QueuesOnce,
};
use crate::url::Url;

const RING_DEFAULT: u64 = 1024;
const BUFFER_DEFAULT: u64 = 2048;

/// Frames that are lost, by their place in [`DROPS`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Lost {
    LinkDown = 2,
    /// An empty ring has no room for it.
    Unfit = 3,
    Runt = 4,
    Oversize = 5,
    /// A descriptor points outside its region, or a frame has no end.
    BadDescriptor = 6,
    /// Counted apart.
    NoBuffer,
}

const DROPS: &[&str] = &[
    DROP_RUNT.1,
    DROP_OVERSIZE.1,
    "tx_link_down",
    "tx_ring_too_small",
    "rx_runt",
    "rx_oversize",
    "rx_bad_descriptor",
];

pub(crate) fn open(url: Url<'_>, options: &OpenOptions) -> Result<Box<dyn Port>, PortError> {
    let path = url.head("PATH")?;
    let server = match url.take("role") {
        Some("server" | "master") => true,
        None | Some("client" | "slave") => false,
        Some(other) => {
            return Err(url.bad(format!("role={other}"), "write role=server or role=client".into()));
        }
    };
    let id = url.number("id", 0..=u64::from(u32::MAX))?.unwrap_or(0) as u32;
    let queues = url.number("queues", 1..=QUEUES_MAX as u64)?.map_or(options.queues.max(1), |n| n as usize);
    let ring = url.number("ring", 2..=1 << LOG2_SLOTS_MAX)?.unwrap_or(RING_DEFAULT);
    if !ring.is_power_of_two() {
        return Err(
            url.bad(format!("ring={ring}"), format!("write a power of two, as {}", ring.next_power_of_two()))
        );
    }
    let buffer = url.number("buffer", 64..=1 << 16)?.unwrap_or(BUFFER_DEFAULT) as u32;
    let mtu = url.number("mtu", 68..=MTU_MAX as u64)?.map(|n| n as usize);
    let secret = secret(&url)?;
    url.finish()?;
    let log2_slots = ring.trailing_zeros() as u8;
    let bytes = memory_len(queues, log2_slots, buffer);
    if bytes as u64 > memory::BYTES_MAX {
        let what = format!("queues={queues}, ring={ring} and buffer={buffer} make {bytes} bytes");
        return Err(url.bad(what, "write smaller ones: a region has at most 4 GiB".into()));
    }
    let Some(address) = Address::new(path) else {
        return Err(url.bad(format!("{path:?} is no socket's path"), "write 1 to 107 bytes, or @NAME".into()));
    };
    let config = Config { address, server, id, log2_slots, buffer_len: buffer, secret };
    let membership = Membership::join(&url, path, config)?;
    let mac = MacAddr::local_from(&format!("memif:{path}/{id}/{server}"));
    let mtu = mtu.or(options.mtu).unwrap_or(MTU_DEFAULT);
    let once = QueuesOnce::new(&url, queues);
    let url = url.text().to_owned();
    Ok(Box::new(MemifPort { url, mac, mtu, once, membership, counters: Vec::new() }))
}

fn secret(url: &Url<'_>) -> Result<[u8; SECRET_LEN], PortError> {
    let mut secret = [0; SECRET_LEN];
    if let Some(text) = url.take("secret") {
        // DPDK keeps the last byte zero.
        if text.is_empty() || text.len() >= SECRET_LEN {
            return Err(url.bad("secret".into(), format!("write 1 to {} bytes", SECRET_LEN - 1)));
        }
        secret[..text.len()].copy_from_slice(text.as_bytes());
    }
    Ok(secret)
}

/// An interface that the control thread knows, until its port and its queues are gone.
struct Membership(Arc<Interface>);

impl Membership {
    fn join(url: &Url<'_>, path: &str, config: Config) -> Result<Arc<Membership>, PortError> {
        let interface = Arc::new(Interface::new(config));
        let error = match control::join(&interface) {
            Ok(()) => return Ok(Arc::new(Membership(interface))),
            Err(error) => error,
        };
        let url = url.text().to_owned();
        Err(match error {
            JoinError::IdTaken => PortError::Taken {
                url,
                mend: "this process has an interface with that id there; write another id=",
            },
            JoinError::Listen(source) if source.kind() == io::ErrorKind::AddrInUse => PortError::Taken {
                url,
                mend: "another process listens there; connect to it with role=client, or end it",
            },
            JoinError::Listen(source) => PortError::Io { what: format!("listening at {path:?}"), source },
            JoinError::Thread(source) => PortError::Io { what: "memif's control thread".into(), source },
        })
    }

    fn interface(&self) -> &Interface {
        &self.0
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        control::leave(&self.0);
    }
}

struct MemifPort {
    url: String,
    mac: MacAddr,
    mtu: usize,
    once: QueuesOnce,
    membership: Arc<Membership>,
    counters: Vec<Arc<Counters>>,
}

impl Port for MemifPort {
    fn info(&self) -> PortInfo {
        let info = PortInfo::in_process(&self.url, "memif", self.mac, self.mtu, self.once.max());
        PortInfo { capabilities: Capabilities { wait_fd: true, ..Capabilities::default() }, ..info }
    }

    fn open_queues(&mut self, pools: &[PoolHandle]) -> Result<Vec<Box<dyn Queue>>, PortError> {
        self.once.check(pools.len())?;
        let opened = self.membership.interface().open_queues(pools.len());
        opened.map_err(|source| PortError::Io { what: "an epoll set for each queue".into(), source })?;
        self.once.done();
        self.counters = pools.iter().map(|_| Counters::new(DROPS)).collect();
        control::wake();
        let queue = |(index, counters): (usize, &Arc<Counters>)| {
            let frame_max = self.mtu + FRAME_OVERHEAD;
            let queue = MemifQueue::new(self.membership.clone(), index as u16, frame_max, counters.clone());
            Box::new(queue) as Box<dyn Queue>
        };
        Ok(self.counters.iter().enumerate().map(queue).collect())
    }

    fn link(&self) -> LinkState {
        if self.membership.interface().is_up() { LinkState::Up } else { LinkState::Down }
    }

    fn stats(&self) -> PortStats {
        super::sum(&self.counters)
    }
}
