//! Memory and NICs: hugepage regions, packet buffers that go home by themselves, and poll-mode drivers.
//!
//! Almost all `unsafe` of the project lives here. The data path takes no lock, executes no locked instruction and
//! allocates nothing: a core polls its own [`Queue`]s with its own [`Pool`], 32 packets at a time.
//!
//! Deliberately absent: protocols (the engine's), threads, and any clock but the one in [`time`].

pub mod checksum;
mod core_slot;
mod counters;
mod drivers;
mod header;
mod home;
mod mac;
mod mbuf;
mod mbuf_list;
mod pool;
mod port;
mod region;
pub mod time;
mod url;

pub use core_slot::{CORE_SLOTS, CoreSlot, CoreSlotError};
pub use header::{DATA_ROOM, HEADROOM, STRIDE};
pub use mac::{MacAddr, MacParseError};
pub use mbuf::{BURST, Burst, Checksum, Mbuf, Meta};
pub use mbuf_list::MbufList;
pub use pool::{NoBuffers, Pool, PoolConfig, PoolError, PoolSeed, PoolStats};
pub use port::{
    Capabilities, Drops, LinkState, MTU_DEFAULT, MTU_MAX, OpenOptions, Port, PortError, PortInfo, PortStats,
    Queue, QueueStats, open,
};
pub use region::{Hugepages, Region, RegionError};
pub use time::{Clock, Instant};
