//! Memory and NICs: hugepage regions, packet buffers that go home by themselves, and poll-mode drivers.
//!
//! Almost all `unsafe` of the project lives here. The data path takes no lock, executes no locked instruction and
//! allocates nothing: a core polls its own [`Queue`]s with its own [`Pool`], 32 packets at a time.
//!
//! ```
//! use pmd::{Burst, Clock, OpenOptions, PoolConfig};
//!
//! // Buffers: on hugepages if there are any; stats().hugepages() tells.
//! let mut pool = PoolConfig::new("example", 256).build()?.claim();
//! // Two ends of a wire inside this process; `af_packet:eth0` or `tap:rx0` are opened alike.
//! let mut left = pmd::open("memory:example", &OpenOptions::default())?;
//! let mut right = pmd::open("memory:example", &OpenOptions::default())?;
//! let pools = [pool.handle()];
//! let mut left_queue = left.open_queues(&pools)?.remove(0);
//! let mut right_queue = right.open_queues(&pools)?.remove(0);
//!
//! let now = Clock::now();
//! let mut burst = Burst::new();
//! burst.extend(pool.copy_from(&[0x02; 60]));
//! left_queue.tx_burst(now, &mut burst);
//! right_queue.rx_burst(now, &mut pool, &mut burst);
//! assert_eq!(burst[0].data(), [0x02; 60]);
//! burst.clear(); // its buffer goes home
//! assert_eq!(pool.available(), 256);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Ports, by URL: `memory:` and `null:` inside the process, `memif:` to another, `af_packet:`, `af_xdp:` and `tap:` for Linux interfaces, `pcap:` for capture files,
//! `sim:` around any other, for delay, loss and worse, and `igb:`, `e1000e:`, `ixgbe:` for Intel's NICs on VFIO. How each is meant is written at the top of its file in `drivers/`.
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
mod rss;
pub mod time;
mod url;

pub use core_slot::{CORE_SLOTS, CoreSlot, CoreSlotError};
pub use drivers::af_xdp::hand_over;
pub use drivers::intel::error::DeviceError;
pub use header::{DATA_ROOM, HEADROOM, STRIDE};
pub use mac::{MacAddr, MacParseError};
pub use mbuf::{BURST, Burst, Checksum, Mbuf, Meta};
pub use mbuf_list::MbufList;
pub use pool::{NoBuffers, Pool, PoolConfig, PoolError, PoolHandle, PoolSeed};
pub use port::{
    Capabilities, Drops, LinkState, MTU_DEFAULT, MTU_MAX, OpenOptions, Port, PortError, PortInfo, PortStats,
    Queue, QueueStats, drivers, open,
};
pub use region::{Hugepages, Region, RegionError};
pub use rss::{RSS_KEY_LEN, Rss, Toeplitz, rss_key};
pub use time::{Clock, Instant};
