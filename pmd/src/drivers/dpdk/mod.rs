//! `dpdk:[OPTIONS@]DEVARGS`: any ethdev of DPDK's, a device on the bus or one in software, by DPDK's own name for it. Feature `dpdk`.
//!
//! ```text
//! dpdk:0000:01:00.0                          a NIC bound to vfio-pci
//! dpdk:net_af_packet0,iface=eth0             a device in software, with its arguments
//! dpdk:queues=4,promisc=1@0000:01:00.0       with options of ours
//! dpdk:net_virtio_user0,path=/x,queues=2     this `queues` is the device's own
//! ```
//!
//! What stands before an `@` is ours, the rest goes to DPDK unread: DEVARGS begin with a device's name, which has no `=`, so what begins with
//! `KEY=` begins with options. They are `queues=N`, `mtu=N`, `promisc=1`, and `ring=SLOTS` (of each ring; 1024).
//!
//! EAL is set up once in a process ([`eal`]), from what is known here. Frames are never copied between us and DPDK: our pools are its
//! mempools ([`mempool`]), our headers its mbufs ([`frame`]). The pool of a queue has to be unclaimed, or the caller's own,
//! when the queue is opened: the device's rings are filled from it. Whether the device or its driver copies is its own affair (NICs do
//! not; net_af_packet, net_memif and net_pcap do).
//!
//! Checksums are verified and filled in by the device where it can; several queues get RSS where there is any. A device that is pulled out has
//! its link down from then on, and what is sent to it is dropped by name; so has one whose Linux interface was deleted, once somebody
//! asked for its link or its figures.
//!
//! Not for peers that come and go: DPDK's net_memif (22.11). It unmaps the rings of a peer that leaves on a thread of its own, while a core may
//! be reading them, which ends the process; `memif:` is ours.
//!
//! Deliberately absent: rte_flow, secondary processes, interrupts (a queue has no `wait_fd`: it is polled), VLAN stripping.

mod device;
mod eal;
mod frame;
mod log;
mod mempool;
mod queue;
mod stats;

use std::sync::{Arc, Mutex, PoisonError};

use super::sum;
use crate::counters::Counters;
use crate::pool::PoolHandle;
use crate::port::{
    Capabilities, LinkState, MTU_MAX, OpenOptions, Port, PortError, PortInfo, PortStats, Queue, QueuesOnce,
};
use crate::rss::{RSS_KEY_LEN, Rss};
use crate::url::Url;

use device::{Device, Running, Start};
use queue::DpdkQueue;
use stats::Details;

pub(crate) fn open(url: Url<'_>, options: &OpenOptions) -> Result<Box<dyn Port>, PortError> {
    let (own, devargs) = split(url.rest());
    if devargs.is_empty() {
        let mend = "write dpdk:DEVARGS, as in dpdk:0000:01:00.0 or dpdk:net_af_packet0,iface=eth0".to_owned();
        return Err(url.bad("the device is missing".to_owned(), mend));
    }
    let own = url.narrowed(own);
    let queues = own.number("queues", 1..=1024)?.map_or(options.queues.max(1), |n| n as usize);
    let mtu = own.number("mtu", 68..=MTU_MAX as u64)?.map(|n| n as usize).or(options.mtu);
    let promiscuous = own.number("promisc", 0..=1)? == Some(1);
    let ring = own.number("ring", 64..=1 << 15)?.map(|n| n as u16);
    own.finish()?;

    let mut eal = eal::lock_up(url.text())?;
    let device = Device::open(&mut eal, url.text(), devargs, mtu)?;
    let note = eal.note.clone();
    drop(eal);
    let max = usize::from(device.info.max_rx_queues.min(device.info.max_tx_queues));
    if queues > max {
        let what = format!("{queues} queues of a device that has {max}");
        return Err(url.bad(what, "ask for fewer, or give it more: net_af_packet has qpairs=N".to_owned()));
    }
    Ok(Box::new(DpdkPort {
        url: url.text().to_owned(),
        mac: device.mac(),
        details: Details::of(device.port),
        device: Arc::new(device),
        note,
        rss_key: options.rss_key,
        promiscuous,
        ring,
        once: QueuesOnce::new(&url, queues),
        counters: Vec::new(),
        last_stats: Mutex::default(),
    }))
}

/// Our options, and the devargs; see the top.
fn split(rest: &str) -> (&str, &str) {
    let first = rest.split(',').next().unwrap_or_default();
    match (first.split('@').next().unwrap_or_default().contains('='), rest.split_once('@')) {
        (true, Some((own, devargs))) => (own, devargs),
        (true, None) => (rest, ""),
        (false, _) => ("", rest),
    }
}

struct DpdkPort {
    url: String,
    mac: crate::MacAddr,
    details: Details,
    device: Arc<Device>,
    note: String,
    rss_key: Option<[u8; RSS_KEY_LEN]>,
    promiscuous: bool,
    ring: Option<u16>,
    once: QueuesOnce,
    counters: Vec<Arc<Counters>>,
    /// What the device counted when it was asked last; all there is once it is gone.
    last_stats: Mutex<PortStats>,
}

impl Port for DpdkPort {
    fn info(&self) -> PortInfo {
        PortInfo {
            url: self.url.clone(),
            driver: "dpdk",
            mac: self.mac,
            mtu: self.device.mtu,
            queues_max: self.once.max(),
            speed_mbps: self.device.link().1,
            capabilities: Capabilities {
                wait_fd: false,
                spreads_flows: self.device.hashes() & dpdk_sys::RXL_RSS_UDP != 0,
                rx_checksum: self.device.info.rx_offload_capa & dpdk_sys::RXL_RX_UDP_CKSUM != 0,
            },
            address_bits: 64,
            notes: vec![self.note.clone(), format!("the driver is DPDK's {}", self.device.driver())],
        }
    }

    fn open_queues(&mut self, pools: &[PoolHandle]) -> Result<Vec<Box<dyn Queue>>, PortError> {
        self.once.check(pools.len())?;
        let mut eal = eal::lock_up(&self.url)?;
        let device = Arc::get_mut(&mut self.device).expect("no queue has it yet");
        let (rss_key, promiscuous, ring) = (self.rss_key, self.promiscuous, self.ring);
        let abilities = device.start(&mut eal, &Start { pools, rss_key, promiscuous, ring })?;
        drop(eal);
        self.once.done();
        let running = Arc::new(Running(self.device.clone()));
        let queue = |index: usize| {
            let counters = Counters::new(queue::DROPS);
            self.counters.push(counters.clone());
            let queue = DpdkQueue::new(running.clone(), counters, index as u16, abilities);
            Box::new(queue) as Box<dyn Queue>
        };
        Ok((0..pools.len()).map(queue).collect())
    }

    fn rss(&self) -> Option<Rss> {
        self.device.rss.clone()
    }

    fn link(&self) -> LinkState {
        self.device.link().0
    }

    fn stats(&self) -> PortStats {
        let mut last = self.last_stats.lock().unwrap_or_else(PoisonError::into_inner);
        if self.device.is_there()
            && let Some(now) = stats::of_the_device(self.device.port, &self.details)
        {
            *last = now;
        }
        let mut all = sum(&self.counters);
        all.merge(&last);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_ours_stand_before_an_at() {
        for (rest, want) in [
            ("net_null0", ("", "net_null0")),
            ("net_virtio_user0,path=/x,queues=2", ("", "net_virtio_user0,path=/x,queues=2")),
            ("queues=4,mtu=9000@0000:01:00.0", ("queues=4,mtu=9000", "0000:01:00.0")),
            ("promisc=1@net_memif0,socket=@abstract", ("promisc=1", "net_memif0,socket=@abstract")),
            ("net_memif0,socket=@abstract", ("", "net_memif0,socket=@abstract")),
            ("queues=4", ("queues=4", "")),
        ] {
            assert_eq!(split(rest), want, "{rest}");
        }
    }

    #[test]
    fn pci_devices_are_told_by_their_names() {
        for name in
            ["dpdk:0000:01:00.0", "dpdk:01:00.1,arg=1", "dpdk:queues=2@0000:01:00.0", "dpdk:pci:0000:01:00.0"]
        {
            assert!(device::is_pci(name), "{name}");
        }
        for name in ["dpdk:net_null0", "dpdk:net_af_packet0,iface=eth0.5", "dpdk:"] {
            assert!(!device::is_pci(name), "{name}");
        }
    }
}
