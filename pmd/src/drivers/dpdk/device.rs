//! An ethdev: plugged in by its devargs, configured for our pools, started; stopped, closed and unplugged when the last of its
//! queues and its port are dropped.

use std::borrow::Cow;
use std::ffi::{CStr, CString, c_int, c_void};
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dpdk_sys as sys;
use sys::rte_eth_dev_info;

use super::super::FRAME_OVERHEAD;
use super::super::interface::Interface;
use super::eal::{self, Eal};
use super::frame::TxChecksums;
use super::log;
use super::mempool::Mempool;
use crate::header::DATA_ROOM;
use crate::mac::MacAddr;
use crate::mbuf::BURST;
use crate::pool::PoolHandle;
use crate::port::{LinkState, PortError};
use crate::rss::{RSS_KEY_LEN, Rss};

/// Whether this names a PCI device (`0000:01:00.0` or `01:00.0`, with or without the bus before and options behind it).
pub(super) fn is_pci(devargs: &str) -> bool {
    let name = devargs.rsplit('@').next().unwrap_or_default();
    let name = name.split(',').next().unwrap_or_default();
    let name = name.strip_prefix("dpdk:").unwrap_or(name);
    let name = name.strip_prefix("pci:").unwrap_or(name);
    let (bus, function) = name.rsplit_once('.').unwrap_or((name, ""));
    let hex = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_hexdigit());
    bus.contains(':') && hex(function) && bus.split(':').all(hex)
}

/// The devargs, with what a driver has to be told so that its frames fit into our buffers. net_af_packet's slots are of 2048 bytes, and it
/// takes them for contiguous, so that they have to fill their blocks: 16 of 1792 bytes fill seven pages, and hold 1760 each.
fn fitting(devargs: &str) -> Cow<'_, str> {
    let chosen = ["framesz=", "blocksz="].iter().any(|key| devargs.contains(key));
    match devargs.starts_with("net_af_packet") && !chosen {
        true => format!("{devargs},framesz=1792,blocksz=28672").into(),
        false => devargs.into(),
    }
}

/// A plugged-in device.
pub(super) struct Device {
    url: String,
    pub port: u16,
    pub info: rte_eth_dev_info,
    /// The Linux interface under it, which drivers in software do not watch.
    interface: Option<Interface>,
    /// Set by DPDK's interrupt thread when it is pulled out; from then on nothing is asked of it.
    gone: Box<AtomicBool>,
    /// Receives RTE_ETH_EVENT_INTR_RMV.
    watched: bool,
    plugged: bool,
    /// Written under the lock of `Eal`.
    started: AtomicBool,
    /// Pools that it may hold buffers of.
    pub pools: Vec<Arc<Mempool>>,
    /// How it spreads flows, since it was started: some devices forget it when they are stopped.
    pub rss: Option<Rss>,
    pub mtu: usize,
}

// SAFETY: what `info` points to is DPDK's, constant while the device is plugged in, and not followed but under the lock of `Eal`.
unsafe impl Send for Device {}
// SAFETY: as for Send; all that changes after the start is `gone`.
unsafe impl Sync for Device {}

/// What a device is started with.
pub(super) struct Start<'a> {
    pub pools: &'a [PoolHandle],
    pub rss_key: Option<[u8; RSS_KEY_LEN]>,
    pub promiscuous: bool,
    /// Slots of each receive ring and each transmit ring; the device's choice without.
    pub ring: Option<u16>,
}

/// What it does for us.
#[derive(Clone, Copy, Default)]
pub(super) struct Abilities {
    pub several_segments: bool,
    pub checksums: TxChecksums,
}

impl Device {
    /// Plugs it in.
    pub(super) fn open(
        eal: &mut Eal,
        url: &str,
        devargs: &str,
        mtu: Option<usize>,
    ) -> Result<Device, PortError> {
        in_its_place(devargs.starts_with(MEMIF), || Device::probe(eal, url, devargs, mtu))
    }

    fn probe(eal: &mut Eal, url: &str, devargs: &str, mtu: Option<usize>) -> Result<Device, PortError> {
        let name = devargs.split(',').next().unwrap_or_default();
        let text = |text: &str| {
            CString::new(text).map_err(|_| PortError::BadOption {
                url: url.into(),
                what: "there is a zero byte in it".into(),
                mend: "write it without".into(),
            })
        };
        let (devargs, name) = (text(&fitting(devargs))?, text(name)?);
        let mut port = 0;
        // SAFETY: live strings, and a place for the number.
        unsafe {
            if sys::rte_eth_dev_get_port_by_name(name.as_ptr(), &mut port) == 0 {
                let mend = "close it first, or count on: net_ring1 is another device than net_ring0";
                return Err(PortError::Taken { url: url.into(), mend });
            }
            let error = sys::rte_dev_probe(devargs.as_ptr());
            if error != 0 {
                return Err(log::refused(url, "plugging the device in", error));
            }
            let error = sys::rte_eth_dev_get_port_by_name(name.as_ptr(), &mut port);
            if error != 0 {
                return Err(log::refused(url, "finding the port that the device made", error));
            }
        }
        eal.devices += 1;
        let mut device = Device {
            url: url.into(),
            port,
            // SAFETY: plain data, for which zeroes are valid; filled in below.
            info: unsafe { MaybeUninit::zeroed().assume_init() },
            interface: None,
            gone: Box::new(AtomicBool::new(false)),
            watched: false,
            plugged: true,
            started: AtomicBool::new(false),
            pools: Vec::new(),
            rss: None,
            mtu: 0,
        };
        match device.look(mtu) {
            Ok(()) => Ok(device),
            Err(error) => {
                device.unplug(eal);
                Err(error)
            }
        }
    }

    fn look(&mut self, mtu: Option<usize>) -> Result<(), PortError> {
        // SAFETY: the port exists; places for what is asked.
        unsafe {
            let error = sys::rte_eth_dev_info_get(self.port, &mut self.info);
            if error != 0 {
                return Err(log::refused(&self.url, "asking the device what it is", error));
            }
            let mut now = 0;
            sys::rte_eth_dev_get_mtu(self.port, &mut now);
            self.mtu = mtu.unwrap_or(usize::from(now));
            let on_removal = self.gone.as_ptr().cast::<c_void>();
            let event = sys::rte_eth_event_type_RTE_ETH_EVENT_INTR_RMV;
            self.watched =
                sys::rte_eth_dev_callback_register(self.port, event, Some(removed), on_removal) == 0;
        }
        self.interface = self.find_interface();
        let (min, max) = (usize::from(self.info.min_mtu), usize::from(self.info.max_mtu));
        if max > 0 && !(min..=max).contains(&self.mtu) {
            return Err(PortError::BadOption {
                url: self.url.clone(),
                what: format!("an MTU of {}", self.mtu),
                mend: format!("this device takes {min} to {max}: dpdk:mtu=N@DEVARGS"),
            });
        }
        Ok(())
    }

    pub(super) fn mac(&self) -> MacAddr {
        let mut mac = sys::rte_ether_addr::default();
        // SAFETY: a place for the address; an error leaves zeroes there.
        unsafe { sys::rte_eth_macaddr_get(self.port, &mut mac) };
        MacAddr(mac.addr_bytes)
    }

    /// DPDK's name of the driver.
    pub(super) fn driver(&self) -> String {
        if self.info.driver_name.is_null() {
            return String::new();
        }
        // SAFETY: a constant string of the driver, which stays loaded.
        unsafe { CStr::from_ptr(self.info.driver_name) }.to_string_lossy().into_owned()
    }

    #[inline]
    pub(super) fn is_gone(&self) -> bool {
        // Relaxed: nothing else is published with it. A burst that is on its way finds what a device that is pulled out has.
        self.gone.load(Ordering::Relaxed)
    }

    fn find_interface(&self) -> Option<Interface> {
        // A tap's other half may move to another namespace and is still there.
        if self.info.if_index == 0 || self.driver() == "net_tap" {
            return None;
        }
        let mut name = [0; libc::IF_NAMESIZE];
        // SAFETY: room for a name of any length, which ends in zero.
        let name = unsafe {
            if libc::if_indextoname(self.info.if_index, name.as_mut_ptr()).is_null() {
                return None;
            }
            CStr::from_ptr(name.as_ptr())
        };
        Interface::new(name.to_str().ok()?).ok()
    }

    /// Whether it is there. Asks the device, which `is_gone` does not.
    pub(super) fn is_there(&self) -> bool {
        let index = self.info.if_index as i32;
        let deleted = |interface: &Interface| interface.index().map_or(true, |now| now != index);
        // SAFETY: the port exists until we unplug it.
        let removed = || unsafe { sys::rte_eth_dev_is_removed(self.port) } == 1;
        if !self.is_gone() && (self.interface.as_ref().is_some_and(deleted) || removed()) {
            self.gone.store(true, Ordering::Relaxed);
        }
        !self.is_gone()
    }

    /// Whether frames can pass, and how fast, in Mb/s.
    pub(super) fn link(&self) -> (LinkState, Option<u32>) {
        let mut mbps = 0;
        // SAFETY: the port exists until we unplug it; a place for the speed.
        let up = self.is_there() && unsafe { sys::rxl_link(self.port, &mut mbps) } == 1;
        let carrier = self.interface.as_ref().is_none_or(|interface| interface.link() == LinkState::Up);
        match up && carrier {
            true => (LinkState::Up, Some(mbps).filter(|&mbps| mbps > 0)),
            false => (LinkState::Down, None),
        }
    }

    /// Configures a receive and a transmit queue for each pool and starts them.
    pub(super) fn start(&mut self, eal: &mut Eal, start: &Start<'_>) -> Result<Abilities, PortError> {
        in_its_place(self.driver() == MEMIF, || self.configure_and_start(eal, start))
    }

    fn configure_and_start(&mut self, eal: &mut Eal, start: &Start<'_>) -> Result<Abilities, PortError> {
        let n = start.pools.len() as u16;
        let (mut conf, abilities) = self.configuration(n)?;
        // The key that `configuration` was given has to live until the device has it.
        let mut key = start.rss_key.map(|key| wide_key(&key, self.info.hash_key_size));
        if let Some(key) = &mut key {
            conf.rx_adv_conf.rss_conf.rss_key = key.as_mut_ptr();
            conf.rx_adv_conf.rss_conf.rss_key_len = key.len() as u8;
        }
        // SAFETY: a whole configuration, copied by the call, as is the key.
        let error = unsafe { sys::rte_eth_dev_configure(self.port, n, n, &conf) };
        self.must(error, "configuring the device")?;
        // SAFETY: configured and stopped. Devices that cannot choose have what they have, which is then the interface's.
        let error = unsafe { sys::rte_eth_dev_set_mtu(self.port, self.mtu as u16) };
        if error != 0 && error != -libc::ENOTSUP {
            self.must(error, "setting the MTU")?;
        }
        self.set_up_queues(eal, start, n, &conf)?;
        // SAFETY: configured, with all its queues set up; as for the rest of this function.
        unsafe {
            let error = sys::rte_eth_dev_start(self.port);
            self.must(error, "starting the device")?;
            self.started.store(true, Ordering::Relaxed);
            if start.promiscuous {
                let error = sys::rte_eth_promiscuous_enable(self.port);
                self.must(error, "receiving frames to any address (promisc=1)")?;
            }
            // Neighbour discovery is multicast. Devices that cannot be told receive it anyway.
            sys::rte_eth_allmulticast_enable(self.port);
        }
        self.rss = self.ask_rss();
        Ok(abilities)
    }

    fn configuration(&self, n: u16) -> Result<(sys::rte_eth_conf, Abilities), PortError> {
        // SAFETY: plain data, for which zeroes are valid and mean defaults.
        let mut conf: sys::rte_eth_conf = unsafe { MaybeUninit::zeroed().assume_init() };
        let (rx, tx) = (self.info.rx_offload_capa, self.info.tx_offload_capa);
        let wanted = sys::RXL_RX_IPV4_CKSUM | sys::RXL_RX_UDP_CKSUM | sys::RXL_RX_TCP_CKSUM;
        conf.rxmode.mtu = self.mtu as u32;
        conf.rxmode.offloads = rx & wanted;
        if self.mtu + FRAME_OVERHEAD > DATA_ROOM {
            if rx & sys::RXL_RX_SCATTER == 0 && !CHAINS_UNASKED.contains(&self.driver().as_str()) {
                return Err(PortError::BadOption {
                    url: self.url.clone(),
                    what: format!(
                        "an MTU of {}: this device receives into one buffer of {DATA_ROOM} bytes",
                        self.mtu
                    ),
                    mend: format!("choose at most {}: dpdk:mtu=N@DEVARGS", DATA_ROOM - FRAME_OVERHEAD),
                });
            }
            conf.rxmode.offloads |= rx & sys::RXL_RX_SCATTER;
        }
        conf.txmode.offloads = tx & (sys::RXL_TX_MULTI_SEGS | sys::RXL_TX_UDP_CKSUM | sys::RXL_TX_TCP_CKSUM);
        let hashes = self.hashes();
        if n > 1 && hashes != 0 {
            conf.rxmode.mq_mode = sys::rte_eth_rx_mq_mode_RTE_ETH_MQ_RX_RSS;
            conf.rxmode.offloads |= rx & sys::RXL_RX_RSS_HASH;
            conf.rx_adv_conf.rss_conf.rss_hf = hashes;
        }
        // SAFETY: `dev_flags` points to a constant of the device, plugged in.
        let flags = unsafe { self.info.dev_flags.as_ref() }.copied().unwrap_or(0);
        conf.intr_conf.set_lsc(u32::from(flags & sys::RXL_DEV_INTR_LSC != 0));
        conf.intr_conf.set_rmv(u32::from(flags & sys::RXL_DEV_INTR_RMV != 0));
        let checksums =
            TxChecksums { udp: tx & sys::RXL_TX_UDP_CKSUM != 0, tcp: tx & sys::RXL_TX_TCP_CKSUM != 0 };
        Ok((conf, Abilities { several_segments: tx & sys::RXL_TX_MULTI_SEGS != 0, checksums }))
    }

    /// What it can hash of what we would have hashed.
    pub(super) fn hashes(&self) -> u64 {
        let wanted = sys::RXL_RSS_IPV4 | sys::RXL_RSS_IPV6 | sys::RXL_RSS_TCP | sys::RXL_RSS_UDP;
        self.info.flow_type_rss_offloads & wanted
    }

    fn set_up_queues(
        &mut self,
        eal: &mut Eal,
        start: &Start<'_>,
        n: u16,
        conf: &sys::rte_eth_conf,
    ) -> Result<(), PortError> {
        // A ring may keep as many buffers as it has slots: at most half of the smallest pool.
        let smallest = start.pools.iter().map(PoolHandle::capacity).min().unwrap_or(0);
        let half = u16::try_from(smallest / 2).unwrap_or(u16::MAX);
        let rx_wish = start.ring.unwrap_or(RING).min(half.max(1));
        let (mut rx_slots, mut tx_slots) = (rx_wish, start.ring.unwrap_or(RING));
        // SAFETY: places for the numbers, which are brought within the device's limits.
        let error = unsafe { sys::rte_eth_dev_adjust_nb_rx_tx_desc(self.port, &mut rx_slots, &mut tx_slots) };
        self.must(error, "choosing the size of its rings")?;
        for (index, handle) in (0..n).zip(start.pools) {
            let pool = eal.mempool(&self.url, handle)?;
            self.map(&pool)?;
            self.pools.push(pool.clone());
            let mut rx = self.info.default_rxconf;
            rx.offloads = conf.rxmode.offloads & self.info.rx_queue_offload_capa;
            let mut tx = self.info.default_txconf;
            tx.offloads = conf.txmode.offloads & self.info.tx_queue_offload_capa;
            // SAFETY: configured for `n` queues; the mempool lives as long as we hold it, which is until the device is closed.
            unsafe {
                let error = sys::rte_eth_rx_queue_setup(self.port, index, rx_slots, 0, &rx, pool.raw());
                self.must(error, &format!("setting up receive queue {index}"))?;
                let error = sys::rte_eth_tx_queue_setup(self.port, index, tx_slots, 0, &tx);
                self.must(error, &format!("setting up transmit queue {index}"))?;
            }
        }
        Ok(())
    }

    /// Shows the pool's memory to a device that reaches it by itself.
    fn map(&self, pool: &Mempool) -> Result<(), PortError> {
        let region = pool.handle().region();
        let base = region.base().as_ptr();
        // SAFETY: the region is registered (`Eal::mempool`) and mapped until we unmap it.
        let error =
            unsafe { sys::rte_dev_dma_map(self.info.device, base.cast(), pool.first_iova(), region.len()) };
        // SAFETY: it reads a variable of this thread.
        if error == 0 || unsafe { sys::rxl_errno() } == libc::ENOTSUP {
            return Ok(());
        }
        // SAFETY: as above.
        self.must(-unsafe { sys::rxl_errno() }, "mapping the pool for the device")
    }

    fn must(&self, error: c_int, what: &str) -> Result<(), PortError> {
        if error >= 0 { Ok(()) } else { Err(log::refused(&self.url, what, error)) }
    }

    /// How it spreads flows, as it says itself.
    fn ask_rss(&self) -> Option<Rss> {
        if self.pools.len() < 2 || self.hashes() == 0 {
            return None;
        }
        let mut wide = vec![0; RSS_KEY_LEN.max(usize::from(self.info.hash_key_size))];
        let mut conf = sys::rte_eth_rss_conf {
            rss_key: wide.as_mut_ptr(),
            rss_key_len: wide.len() as u8,
            ..Default::default()
        };
        let entries = usize::from(self.info.reta_size);
        if !entries.is_power_of_two() {
            return None;
        }
        let mut groups = vec![sys::rte_eth_rss_reta_entry64::default(); entries.div_ceil(64)];
        for group in &mut groups {
            group.mask = u64::MAX;
        }
        // SAFETY: room for the longest key and for the whole table.
        let errors = unsafe {
            [
                sys::rte_eth_dev_rss_hash_conf_get(self.port, &mut conf),
                sys::rte_eth_dev_rss_reta_query(self.port, groups.as_mut_ptr(), entries as u16),
            ]
        };
        if errors != [0, 0] {
            return None;
        }
        let table = groups.iter().flat_map(|group| group.reta).take(entries).collect();
        // What counts of a longer key is as much as there is to hash.
        let key = wide[..RSS_KEY_LEN].try_into().ok()?;
        Some(Rss { key, table, udp_ports: conf.rss_hf & sys::RXL_RSS_UDP == sys::RXL_RSS_UDP })
    }

    /// Stops it, so that every buffer that it held goes home. The lock of `Eal` is held.
    fn halt(&self) {
        if self.started.swap(false, Ordering::Relaxed) {
            self.drain();
            // SAFETY: started, and no queue of ours polls it any more. What a device that was pulled out says to it changes nothing.
            unsafe { sys::rte_eth_dev_stop(self.port) };
        }
    }

    /// Stops, closes and unplugs it, and lets go of its pools.
    fn unplug(&mut self, eal: &mut Eal) {
        // SAFETY: no queue of ours polls it any more: they hold the device, and it is being dropped. Each call is in the state that it
        // wants; errors (of a device that was pulled out) leave nothing to be done.
        unsafe {
            self.halt();
            if self.watched {
                let event = sys::rte_eth_event_type_RTE_ETH_EVENT_INTR_RMV;
                let on_removal = self.gone.as_ptr().cast::<c_void>();
                sys::rte_eth_dev_callback_unregister(self.port, event, Some(removed), on_removal);
            }
            sys::rte_eth_dev_close(self.port);
            for pool in self.pools.drain(..) {
                // One of ours, one of the registry's: nobody else has it, and the device's view goes with this device.
                if Arc::strong_count(&pool) == 2 {
                    let region = pool.handle().region();
                    let base = region.base().as_ptr();
                    sys::rte_dev_dma_unmap(self.info.device, base.cast(), pool.first_iova(), region.len());
                }
            }
            sys::rte_dev_remove(self.info.device);
        }
        self.plugged = false;
        eal.devices -= 1;
        eal.sweep();
    }

    /// net_ring forgets the frames that its rings hold when it is closed. Bounded by what its rings have room for.
    fn drain(&self) {
        if self.driver() != "net_ring" {
            return;
        }
        for queue in 0..self.pools.len() as u16 {
            for _ in 0..RING_FRAMES_MAX / BURST {
                let mut frames = [std::ptr::null_mut(); BURST];
                // SAFETY: room for so many; the device is started, and nobody else polls it.
                let n = unsafe { sys::rxl_rx_burst(self.port, queue, frames.as_mut_ptr(), BURST as u16) };
                if n == 0 {
                    break;
                }
                // SAFETY: these are whole frames that are ours now.
                unsafe { sys::rte_pktmbuf_free_bulk(frames.as_mut_ptr(), u32::from(n)) };
            }
        }
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        if self.plugged {
            let mut eal = eal::lock();
            let eal = &mut *eal;
            in_its_place(self.driver() == MEMIF, || self.unplug(eal));
        }
    }
}

/// A device whose queues are open: it is stopped with the last of them, though the port may stay.
pub(super) struct Running(pub Arc<Device>);

impl Drop for Running {
    fn drop(&mut self) {
        let _eal = eal::lock();
        in_its_place(self.0.driver() == MEMIF, || self.0.halt());
    }
}

/// Its control runs on DPDK's interrupt thread, where peers come and go, and is not kept apart from whoever opens or closes one of its devices
/// (22.11: it then reads what it has freed). So that is done on the same thread.
const MEMIF: &str = "net_memif";

fn in_its_place<R: Send>(memif: bool, work: impl FnOnce() -> R + Send) -> R {
    if memif { eal::on_interrupt_thread(work) } else { work() }
}

/// Slots of a ring, where the URL does not say.
const RING: u16 = 1024;
/// Most frames that a ring of net_ring holds.
const RING_FRAMES_MAX: usize = 1 << 16;
/// Drivers that chain buffers as they need them, without an offload by the name of it.
const CHAINS_UNASKED: &[&str] = &["net_memif", "net_ring", "net_pcap"];

/// `key`, as long as the device wants it.
fn wide_key(key: &[u8; RSS_KEY_LEN], len: u8) -> Vec<u8> {
    let mut wide = key.to_vec();
    wide.resize(RSS_KEY_LEN.max(usize::from(len)), 0);
    wide
}

/// On DPDK's interrupt thread: the device is being pulled out.
unsafe extern "C" fn removed(
    _port: u16,
    _event: sys::rte_eth_event_type,
    gone: *mut c_void,
    _detail: *mut c_void,
) -> c_int {
    // SAFETY: it is the flag of a device, which unregisters this before it goes.
    unsafe { &*gone.cast::<AtomicBool>() }.store(true, Ordering::Relaxed);
    0
}
