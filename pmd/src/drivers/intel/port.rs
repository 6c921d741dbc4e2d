//! The port: a device opened by its PCI address, and the queues made on it.

use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::sync::Arc;

use super::bar::Bar;
use super::bus::{ADDRESS_BITS, Bus};
use super::chip::{Chip, Link, RingAt, Setup};
use super::error::DeviceError;
use super::queue::{DROPS, Device, IntelQueue, QueueParts};
use super::ring::{DESCRIPTOR, Descriptors, Seen};
use super::rx::{RxConfig, RxRing};
use super::tx::{COPY, TxRing};
use super::vfio::{PciAddress, VfioDevice};
use crate::counters::Counters;
use crate::drivers::FRAME_OVERHEAD;
use crate::mac::MacAddr;
use crate::pool::PoolHandle;
use crate::port::{
    Capabilities, LinkState, MTU_DEFAULT, OpenOptions, Port, PortError, PortInfo, PortStats, Queue,
    QueuesOnce,
};
use crate::rss::{RSS_KEY_LEN, Rss};
use crate::url::Url;

const INTEL: u16 = 0x8086;
const RING_DEFAULT: usize = 512;

pub(crate) struct IntelPort<C: Chip> {
    url: String,
    device: Arc<Device<C>>,
    mac: MacAddr,
    mtu: usize,
    ring: usize,
    setup: Setup,
    once: QueuesOnce,
    counters: Vec<Arc<Counters>>,
    notes: Vec<String>,
}

/// What a URL says, beyond the device.
pub(crate) struct Wish {
    pub url: String,
    pub mtu: usize,
    pub ring: usize,
    pub setup: Setup,
    pub once: QueuesOnce,
}

/// Opens `DRIVER:PCI[,queues=N][,mtu=N][,ring=N][,promisc=1][,vlan=strip]`.
pub(crate) fn open<C: Chip>(url: Url<'_>, options: &OpenOptions) -> Result<Box<dyn Port>, PortError> {
    let device_error = |source| PortError::Device { url: url.text().to_owned(), source };
    let address = PciAddress::find(url.head("PCI")?).map_err(device_error)?;
    let known = C::DEVICES.iter().any(|device| address.vendor == INTEL && device.0 == address.device);
    if !known {
        let list: Vec<String> =
            C::DEVICES.iter().map(|(device, name)| format!("{name} (8086:{device:04x})")).collect();
        let (vendor, device, driver) = (address.vendor, address.device, C::DRIVER);
        let pci = address.text.clone();
        let known = list.join(", ");
        return Err(device_error(DeviceError::WrongDevice { pci, vendor, device, driver, known }));
    }
    let chip = C::of(address.device);
    let wish = Wish::read::<C>(&chip, &url, options)?;
    let device = VfioDevice::open(&address).map_err(device_error)?;
    let bar = device.registers().map_err(device_error)?;
    let port = IntelPort::start(chip, bar, Bus::Vfio(device), &address.text, wish);
    Ok(Box::new(port.map_err(device_error)?))
}

impl Wish {
    pub(crate) fn read<C: Chip>(chip: &C, url: &Url<'_>, options: &OpenOptions) -> Result<Wish, PortError> {
        let max = chip.queues_max();
        let queues = url.number("queues", 1..=max as u64)?.map_or(options.queues.max(1), |n| n as usize);
        let mtu = url.number("mtu", 68..=C::MTU_MAX as u64)?.map(|n| n as usize);
        let mtu = mtu.or(options.mtu).unwrap_or(MTU_DEFAULT).min(C::MTU_MAX);
        let ring = url.number("ring", 64..=4096)?.map_or(RING_DEFAULT, |n| (n as usize).next_power_of_two());
        let promiscuous = url.number("promisc", 0..=1)? == Some(1);
        let strip_vlan = match url.take("vlan") {
            None | Some("keep") => false,
            Some("strip") => true,
            Some(other) => {
                return Err(url.bad(format!("vlan={other}"), "write vlan=keep or vlan=strip".into()));
            }
        };
        url.finish()?;
        let rss_key = options.rss_key.unwrap_or_else(random_key);
        let frame_max = mtu + FRAME_OVERHEAD;
        let setup = Setup { queues, frame_max, rss_key, promiscuous, strip_vlan };
        let once = QueuesOnce::new(url, max);
        Ok(Wish { url: url.text().to_owned(), mtu, ring, setup, once })
    }
}

/// A key that nobody can guess, so that nobody can aim at one queue.
fn random_key() -> [u8; RSS_KEY_LEN] {
    let mut key = [0; RSS_KEY_LEN];
    fastrand::fill(&mut key);
    key
}

impl<C: Chip> IntelPort<C> {
    /// Resets the device and makes it a port. Its link comes up with its queues.
    pub(crate) fn start(
        chip: C,
        bar: Bar,
        bus: Bus,
        pci: &str,
        wish: Wish,
    ) -> Result<IntelPort<C>, DeviceError> {
        if chip.link(&bar) == Link::Gone {
            return Err(DeviceError::Gone { pci: pci.to_owned() });
        }
        chip.reset(&bar).map_err(|(what, millis)| DeviceError::Timeout {
            pci: pci.to_owned(),
            what,
            millis,
        })?;
        let mac = chip.mac(&bar);
        if mac == MacAddr::default() || mac.is_multicast() {
            return Err(DeviceError::NoMac { pci: pci.to_owned(), mac: mac.to_string() });
        }
        let Wish { url, mtu, ring, setup, once } = wish;
        let device = Arc::new(Device::new(chip, bar, bus));
        let notes = Vec::new();
        Ok(IntelPort { url, device, mac, mtu, ring, setup, once, counters: Vec::new(), notes })
    }

    fn make_queues(&mut self, pools: &[PoolHandle]) -> Result<Vec<Box<dyn Queue>>, DeviceError> {
        let seen = pools
            .iter()
            .map(|pool| Ok(Seen::new(self.device.bus.map_pool(pool)?)))
            .collect::<Result<Vec<_>, DeviceError>>()?;
        self.setup.queues = pools.len();
        let interrupts = self.connect_interrupts(pools.len())?;
        let mut rings = Vec::new();
        for (queue, pool) in pools.iter().enumerate() {
            let ring = || Ok(Descriptors::new(self.device.bus.alloc(self.ring * DESCRIPTOR)?, self.ring));
            let (received, sent): (Descriptors, Descriptors) = (ring()?, ring()?);
            let places =
                [&received, &sent].map(|ring| RingAt { queue, iova: ring.iova(), size: ring.size() });
            let config = RxConfig {
                queue,
                buffer_len: C::rx_buffer(self.setup.frame_max),
                frame_max: self.setup.frame_max,
                pool_capacity: pool.capacity(),
                memory: seen[queue].clone(),
            };
            let copies = self.device.bus.alloc(self.ring * COPY)?;
            // Its own pool first: that is where most of what it sends lies.
            let mut memory = seen.clone();
            memory.swap(0, queue);
            rings.push((RxRing::new(received, config), TxRing::new(sent, memory, copies), places));
        }
        self.device.bus.start_dma()?;
        let Device { chip, bar, .. } = &*self.device;
        chip.setup(bar, &self.setup);
        for (_, _, [received, sent]) in &rings {
            if !chip.start_rx(bar, *received, &self.setup) || !chip.start_tx(bar, *sent) {
                // Before the rings go.
                chip.halt(bar);
                self.device.bus.stop_dma();
                return Err(self.stuck("starting a queue"));
            }
        }
        chip.route_interrupts(bar, pools.len());
        chip.go(bar, &self.setup);
        self.device.runs(pools.len());
        let mut queues: Vec<Box<dyn Queue>> = Vec::new();
        for ((index, (rx, tx, _)), interrupt) in rings.into_iter().enumerate().zip(interrupts) {
            let counters = Counters::new(DROPS);
            self.counters.push(counters.clone());
            let (frame_max, inserts_vlan) = (self.setup.frame_max, self.setup.strip_vlan);
            let parts = QueueParts { index, rx, tx, counters, frame_max, inserts_vlan, interrupt };
            queues.push(Box::new(IntelQueue::new(self.device.clone(), parts)));
        }
        Ok(queues)
    }

    /// An eventfd for each queue, connected with its vector; none at all where the device has too few.
    fn connect_interrupts(&mut self, queues: usize) -> Result<Vec<Option<OwnedFd>>, DeviceError> {
        let vectors = self.device.bus.vectors()?;
        if vectors < queues {
            self.notes.push(format!("{queues} queues, but {vectors} MSI-X vectors: idle cores cannot sleep"));
            return Ok((0..queues).map(|_| None).collect());
        }
        let eventfds = (0..queues).map(|_| eventfd()).collect::<Result<Vec<_>, _>>()?;
        let fds: Vec<_> = eventfds.iter().map(AsFd::as_fd).collect();
        self.device.bus.connect_vectors(&fds)?;
        Ok(eventfds.into_iter().map(Some).collect())
    }

    fn stuck(&self, what: &'static str) -> DeviceError {
        let pci = self.device.bus.pci().to_owned();
        match self.device.chip.link(&self.device.bar) {
            Link::Gone => DeviceError::Gone { pci },
            _ => DeviceError::Timeout { pci, what, millis: 10 },
        }
    }
}

fn eventfd() -> Result<OwnedFd, DeviceError> {
    // SAFETY: a plain system call.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    if fd < 0 {
        return Err(DeviceError::io("making an eventfd", std::io::Error::last_os_error()));
    }
    // SAFETY: the fd was just made and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

impl<C: Chip> Port for IntelPort<C> {
    fn info(&self) -> PortInfo {
        let speed_mbps = match self.device.chip.link(&self.device.bar) {
            Link::Up(speed) => Some(speed),
            Link::Down | Link::Gone => None,
        };
        let wait_fd = self.device.bus.vectors().is_ok_and(|vectors| vectors >= self.setup.queues);
        PortInfo {
            url: self.url.clone(),
            driver: C::DRIVER,
            mac: self.mac,
            mtu: self.mtu,
            queues_max: self.once.max(),
            speed_mbps,
            capabilities: Capabilities { wait_fd, spreads_flows: true, rx_checksum: true },
            address_bits: ADDRESS_BITS,
            notes: self.notes.clone(),
        }
    }

    fn open_queues(&mut self, pools: &[PoolHandle]) -> Result<Vec<Box<dyn Queue>>, PortError> {
        self.once.check(pools.len())?;
        let queues = self.make_queues(pools);
        let queues = queues.map_err(|source| PortError::Device { url: self.url.clone(), source })?;
        self.once.done();
        Ok(queues)
    }

    fn rss(&self) -> Option<Rss> {
        (!self.counters.is_empty()).then(|| self.device.chip.rss(&self.setup))
    }

    fn link(&self) -> LinkState {
        match self.device.chip.link(&self.device.bar) {
            Link::Up(_) => LinkState::Up,
            Link::Down | Link::Gone => LinkState::Down,
        }
    }

    fn stats(&self) -> PortStats {
        let mut sum = crate::drivers::sum(&self.counters);
        for (name, count) in C::DROPS.iter().zip(self.device.drops()) {
            sum.drops.add(name, count);
        }
        sum
    }
}
