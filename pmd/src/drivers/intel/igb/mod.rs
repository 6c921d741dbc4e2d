//! `igb:PCI[,queues=N][,mtu=N][,ring=N][,promisc=1][,vlan=strip]`: Intel 82576 and I350, copper ports.
//!
//! The order of initialisation is that of the 82576 datasheet, 4.5. Frames up to 1788 bytes (MTU 1766) come in one buffer, longer ones in
//! pieces of 1 KB: the chips count buffers in KB, ours hold 1792 bytes, and RLPML keeps longer frames out.

mod regs;

use std::time::Duration;

use self::regs::*;
use super::advanced;
use super::bar::{Bar, GONE};
use super::chip::{Chip, Link, RingAt, Setup, TxOffload, TxPiece};
use super::common::{self, TAIL};
use super::phy;
use crate::header::DATA_ROOM;
use crate::mac::MacAddr;
use crate::port::{OpenOptions, Port, PortError};
use crate::rss::Rss;
use crate::url::Url;

/// Bytes of the Ethernet frame check sequence.
const FCS: usize = 4;
const QUEUE_START: Duration = Duration::from_millis(10);
const I350: u16 = 0x1521;

pub(crate) fn open(url: Url<'_>, options: &OpenOptions) -> Result<Box<dyn Port>, PortError> {
    super::port::open::<Igb>(url, options)
}

/// An 82576 or I350.
pub(crate) struct Igb {
    i350: bool,
}

#[inline]
fn rx(queue: usize) -> usize {
    RX_QUEUES + QUEUE_STRIDE * queue
}

#[inline]
fn tx(queue: usize) -> usize {
    TX_QUEUES + QUEUE_STRIDE * queue
}

impl Chip for Igb {
    const DRIVER: &'static str = "igb";
    const DEVICES: &'static [(u16, &'static str)] = &[
        (0x10c9, "82576"),
        (0x10e8, "82576 quad"),
        (0x1526, "82576 ET2 quad"),
        (0x150a, "82576NS"),
        (I350, "I350"),
    ];
    const MTU_MAX: usize = 9216;
    const RX_L4_BAD: u32 = 1 << 29;
    const DROPS: &'static [&'static str] =
        &["rx_missed", "rx_no_descriptor", "rx_crc_error", "rx_wrong_length"];

    fn of(device: u16) -> Igb {
        Igb { i350: device == I350 }
    }

    fn queues_max(&self) -> usize {
        if self.i350 { 8 } else { 16 }
    }

    fn reset(&self, bar: &Bar) -> Result<(), (&'static str, u64)> {
        self.mask_interrupts(bar);
        bar.write(RCTL, 0);
        bar.write(TCTL, TCTL_PAD);
        bar.read(STATUS);
        // What is under way ends first.
        std::thread::sleep(Duration::from_millis(10));
        bar.set(CTRL, CTRL_RESET);
        std::thread::sleep(Duration::from_millis(3));
        if !bar.wait(CTRL, CTRL_RESET, 0, Duration::from_millis(100)) {
            return Err(("its reset", 100));
        }
        // Firmware gives the PHY its configuration. Boards without an EEPROM never say that it is done.
        let done = EEMNGCTL_DONE << self.port(bar);
        bar.wait(EEMNGCTL, done, done, Duration::from_millis(100));
        self.mask_interrupts(bar);
        Ok(())
    }

    fn mac(&self, bar: &Bar) -> MacAddr {
        common::read_mac(bar, RAL0)
    }

    fn setup(&self, bar: &Bar, setup: &Setup) {
        for table in [MTA, VFTA, UTA] {
            (0..TABLE).for_each(|index| bar.write(table + 4 * index, 0));
        }
        bar.set(RAH0, RAH_VALID);
        let vlan = if setup.strip_vlan { CTRL_VME } else { 0 };
        let control = bar.read(CTRL) & !(CTRL_FORCED | CTRL_PAUSE | CTRL_VME);
        bar.write(CTRL, control | CTRL_SLU | vlan);
        bar.write(RLPML, (setup.frame_max + FCS) as u32);
        bar.write(RXCSUM, RXCSUM_IP | RXCSUM_L4 | RXCSUM_HASH);
        common::write_rss(bar, RSSRK, RETA, 0, &self.rss(setup));
        let fields = MRQC_TCP_V4 | MRQC_V4 | MRQC_V6 | MRQC_TCP_V6 | MRQC_UDP_V4 | MRQC_UDP_V6;
        bar.write(MRQC, MRQC_RSS | fields);
        // What was counted before is not ours.
        self.drops(bar, self.queues_max(), &mut [0; Self::DROPS.len()]);
    }

    fn rx_buffer(frame_max: usize) -> usize {
        if frame_max + FCS <= DATA_ROOM { 2048 } else { 1024 }
    }

    fn start_rx(&self, bar: &Bar, ring: RingAt, setup: &Setup) -> bool {
        let at = rx(ring.queue);
        write_ring(bar, at, ring);
        let drop = if setup.queues > 1 { SRRCTL_DROP } else { 0 };
        let kilobytes = (Self::rx_buffer(setup.frame_max) / 1024) as u32;
        bar.write(at + SRRCTL, kilobytes | SRRCTL_ADVANCED | drop);
        // Thresholds: fetch descriptors when fewer than 8 are there and 8 can be had; write each back at once.
        bar.write(at + CONTROL, 8 | 8 << 8 | 1 << 16 | QUEUE_ENABLE);
        bar.wait(at + CONTROL, QUEUE_ENABLE, QUEUE_ENABLE, QUEUE_START)
    }

    fn start_tx(&self, bar: &Bar, ring: RingAt) -> bool {
        let at = tx(ring.queue);
        write_ring(bar, at, ring);
        // Thresholds: as for receiving, but reports (0) when asked for.
        bar.write(at + CONTROL, 8 | 1 << 8 | QUEUE_ENABLE);
        bar.wait(at + CONTROL, QUEUE_ENABLE, QUEUE_ENABLE, QUEUE_START)
    }

    fn go(&self, bar: &Bar, setup: &Setup) {
        bar.write(TCTL, TCTL_ENABLE | TCTL_PAD | TCTL_COLLISIONS | TCTL_RETRANSMIT_LATE);
        let promiscuous = if setup.promiscuous { RCTL_UNICAST_PROMISCUOUS } else { 0 };
        // All multicast: the groups (neighbour discovery has one for each address) are told apart by the stack.
        let accept = RCTL_BROADCAST | RCTL_MULTICAST_PROMISCUOUS | promiscuous;
        bar.write(RCTL, RCTL_ENABLE | accept | RCTL_LONG_PACKETS | RCTL_STRIP_CRC);
        self.negotiate(bar);
    }

    fn halt(&self, bar: &Bar) {
        self.mask_interrupts(bar);
        bar.write(RCTL, 0);
        bar.write(TCTL, TCTL_PAD);
        bar.set(CTRL, CTRL_RESET);
        std::thread::sleep(Duration::from_millis(3));
        bar.read(STATUS);
    }

    #[inline]
    fn rx_tail(queue: usize) -> usize {
        rx(queue) + TAIL
    }

    #[inline]
    fn tx_tail(queue: usize) -> usize {
        tx(queue) + TAIL
    }

    fn link(&self, bar: &Bar) -> Link {
        match bar.read(STATUS) {
            GONE => Link::Gone,
            status if status & STATUS_LINK_UP == 0 => Link::Down,
            status => Link::Up([10, 100, 1000, 1000][(status >> STATUS_SPEED_SHIFT & 3) as usize]),
        }
    }

    fn route_interrupts(&self, bar: &Bar, queues: usize) {
        bar.write(GPIE, GPIE_NON_SELECTIVE | GPIE_MSIX | GPIE_AUTO_MASK | GPIE_PENDING_BITS);
        let all = (1 << queues) - 1;
        bar.write(EIAC, all);
        bar.write(EIAM, all);
        for queue in 0..queues {
            let (register, shift) = self.ivar_of(queue);
            let others = bar.read(register) & !(0xff << shift);
            bar.write(register, others | (IVAR_VALID | queue as u32) << shift);
            bar.write(EITR + 4 * queue, 0);
        }
    }

    fn arm(&self, bar: &Bar, queue: usize) {
        // A cause from before would fire at once; what it told of is found by looking.
        bar.write(EICR, 1 << queue);
        bar.write(EIMS, 1 << queue);
        bar.read(STATUS);
    }

    fn disarm(&self, bar: &Bar, queue: usize) {
        bar.write(EIMC, 1 << queue);
    }

    fn rss(&self, setup: &Setup) -> Rss {
        let rss = Rss::spread(setup.rss_key, setup.queues);
        debug_assert_eq!(rss.table.len(), RETA_ENTRIES);
        rss
    }

    fn drops(&self, bar: &Bar, queues: usize, sums: &mut [u64]) {
        let read = |register| u64::from(bar.read(register));
        sums[0] += read(MPC);
        sums[1] += (0..queues).map(|queue| read(rx(queue) + RQDPC)).sum::<u64>();
        sums[2] += read(CRCERRS);
        sums[3] += [RFC, ROC, RJC].into_iter().map(read).sum::<u64>();
    }

    #[inline]
    fn tx_context(offload: TxOffload) -> Option<[u64; 2]> {
        Some(advanced::tx_context(offload))
    }

    #[inline]
    fn tx_data(piece: TxPiece, offload: TxOffload) -> [u64; 2] {
        advanced::tx_data(piece, offload)
    }
}

/// Tells of a ring, with its queue off.
fn write_ring(bar: &Bar, at: usize, ring: RingAt) {
    bar.write(at + CONTROL, 0);
    common::write_ring(bar, at, ring);
}

impl Igb {
    /// Which of the chip's ports this is.
    fn port(&self, bar: &Bar) -> u32 {
        bar.read(STATUS) >> STATUS_PORT_SHIFT & 3
    }

    fn mask_interrupts(&self, bar: &Bar) {
        bar.write(EIMC, u32::MAX);
        bar.write(IMC, u32::MAX);
        bar.read(STATUS);
    }

    /// Register and shift of a receiving queue's entry in the vector allocation (7.3.1.2 of either datasheet).
    fn ivar_of(&self, queue: usize) -> (usize, u32) {
        match self.i350 {
            true => (IVAR + 4 * (queue / 2), 16 * (queue as u32 % 2)),
            false => (IVAR + 4 * (queue % 8), 16 * (queue as u32 / 8)),
        }
    }

    /// Powers the PHY up and has it negotiate again: after a reset the link stays down until then.
    fn negotiate(&self, bar: &Bar) {
        let phy = SYNC_PHY[self.port(bar) as usize];
        lock(bar, phy);
        phy::negotiate(bar);
        unlock(bar, phy);
    }
}

/// How long firmware or another port's driver may hold a semaphore. After that it is taken all the same: its holder has died with it.
const SEMAPHORE_LIMIT: Duration = Duration::from_millis(50);

/// Takes a resource that firmware uses too (82576 datasheet, 4.5.12).
fn lock(bar: &Bar, resource: u32) {
    for _ in 0..SEMAPHORE_LIMIT.as_millis() {
        let taken = with_semaphore(bar, || {
            let sync = bar.read(SW_FW_SYNC);
            let free = sync & (resource | resource << 16) == 0;
            if free {
                bar.write(SW_FW_SYNC, sync | resource);
            }
            free
        });
        if taken {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn unlock(bar: &Bar, resource: u32) {
    with_semaphore(bar, || bar.clear(SW_FW_SYNC, resource));
}

/// Runs `body` while neither firmware nor another driver changes SW_FW_SYNC.
fn with_semaphore<T>(bar: &Bar, body: impl FnOnce() -> T) -> T {
    bar.wait(SWSM, SWSM_SOFTWARE, 0, SEMAPHORE_LIMIT);
    for _ in 0..SEMAPHORE_LIMIT.as_millis() {
        bar.set(SWSM, SWSM_FIRMWARE);
        if bar.read(SWSM) & SWSM_FIRMWARE != 0 {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let result = body();
    bar.clear(SWSM, SWSM_SOFTWARE | SWSM_FIRMWARE);
    result
}
