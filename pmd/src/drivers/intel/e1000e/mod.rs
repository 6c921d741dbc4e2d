//! `e1000e:PCI[,queues=N][,mtu=N][,ring=N][,promisc=1][,vlan=strip]`: Intel 82574L.
//!
//! The order of initialisation is that of the 82574 datasheet, 4.6. Received frames are described by extended descriptors (7.1.5), sent ones
//! by context and data descriptors (7.2.10). It has two queues; its hash does not look at UDP ports, so that all datagrams between
//! two hosts are of one queue. Frames longer than 1522 bytes come in pieces of 1 KB.

mod regs;

use std::time::Duration;

use self::regs::*;
use super::bar::{Bar, GONE};
use super::chip::{Chip, Link, RingAt, Setup, TxOffload, TxPiece};
use super::common::{self, TAIL};
use super::phy;
use crate::mac::MacAddr;
use crate::port::{OpenOptions, Port, PortError};
use crate::rss::Rss;
use crate::url::Url;

/// Longest frame, without its check sequence, that is taken without [`RCTL_LONG_PACKETS`]: MTU 1500, with the room that drivers here leave
/// for two tags.
const SHORT_MAX: usize = 1522;
/// How long firmware may own the PHY.
const OWNER_LIMIT: Duration = Duration::from_millis(50);

pub(crate) fn open(url: Url<'_>, options: &OpenOptions) -> Result<Box<dyn Port>, PortError> {
    super::port::open::<E1000e>(url, options)
}

/// An 82574L.
pub(crate) struct E1000e;

#[inline]
fn rx(queue: usize) -> usize {
    RX_QUEUES + QUEUE_STRIDE * queue
}

#[inline]
fn tx(queue: usize) -> usize {
    TX_QUEUES + QUEUE_STRIDE * queue
}

impl Chip for E1000e {
    const DRIVER: &'static str = "e1000e";
    const DEVICES: &'static [(u16, &'static str)] = &[(0x10d3, "82574L")];
    const MTU_MAX: usize = 9000;
    const RX_L4_BAD: u32 = 1 << 29;
    const DROPS: &'static [&'static str] = &["rx_missed", "rx_crc_error", "rx_wrong_length"];

    fn of(_device: u16) -> E1000e {
        E1000e
    }

    fn queues_max(&self) -> usize {
        2
    }

    fn reset(&self, bar: &Bar) -> Result<(), (&'static str, u64)> {
        bar.write(IMC, u32::MAX);
        bar.write(RCTL, 0);
        bar.write(TCTL, TCTL_PAD);
        bar.read(STATUS);
        // What is under way ends first.
        std::thread::sleep(Duration::from_millis(10));
        own_phy(bar);
        bar.set(CTRL, CTRL_RESET);
        std::thread::sleep(Duration::from_millis(3));
        disown_phy(bar);
        if !bar.wait(CTRL, CTRL_RESET, 0, Duration::from_millis(100)) {
            return Err(("its reset", 100));
        }
        // Boards without an EEPROM never say that it is read.
        bar.wait(EECD, EECD_AUTO_READ_DONE, EECD_AUTO_READ_DONE, Duration::from_millis(100));
        bar.write(IMC, u32::MAX);
        Ok(())
    }

    fn mac(&self, bar: &Bar) -> MacAddr {
        common::read_mac(bar, RAL0)
    }

    fn setup(&self, bar: &Bar, setup: &Setup) {
        for table in [MTA, VFTA] {
            (0..TABLE).for_each(|index| bar.write(table + 4 * index, 0));
        }
        bar.set(RAH0, RAH_VALID);
        let vlan = if setup.strip_vlan { CTRL_VME } else { 0 };
        let control = bar.read(CTRL) & !(CTRL_FORCED | CTRL_PAUSE | CTRL_VME);
        bar.write(CTRL, control | CTRL_SLU | vlan);
        bar.write(VET, 0x8100);
        bar.write(RXCSUM, RXCSUM_IP | RXCSUM_L4 | RXCSUM_HASH);
        bar.set(RFCTL, RFCTL_EXTENDED);
        common::write_rss(bar, RSSRK, RETA, RETA_QUEUE_SHIFT, &self.rss(setup));
        bar.write(MRQC, MRQC_RSS | MRQC_TCP_V4 | MRQC_V4 | MRQC_V6);
        // What was counted before is not ours.
        self.drops(bar, self.queues_max(), &mut [0; Self::DROPS.len()]);
    }

    fn rx_buffer(frame_max: usize) -> usize {
        if frame_max <= SHORT_MAX { 2048 } else { 1024 }
    }

    fn start_rx(&self, bar: &Bar, ring: RingAt, _setup: &Setup) -> bool {
        common::write_ring(bar, rx(ring.queue), ring);
        // Thresholds: write each descriptor back at once.
        bar.write(rx(ring.queue) + CONTROL, CONTROL_DESCRIPTORS | 1 << 16);
        true
    }

    fn start_tx(&self, bar: &Bar, ring: RingAt) -> bool {
        common::write_ring(bar, tx(ring.queue), ring);
        bar.write(tx(ring.queue) + CONTROL, CONTROL_DESCRIPTORS | CONTROL_COUNT | 1 << 8 | 8);
        true
    }

    fn go(&self, bar: &Bar, setup: &Setup) {
        bar.write(TCTL, TCTL_ENABLE | TCTL_PAD | TCTL_COLLISIONS);
        let promiscuous = if setup.promiscuous { RCTL_UNICAST_PROMISCUOUS } else { 0 };
        // All multicast: the groups (neighbour discovery has one for each address) are told apart by the stack.
        let accept = RCTL_BROADCAST | RCTL_MULTICAST_PROMISCUOUS | promiscuous;
        let long = if setup.frame_max > SHORT_MAX { RCTL_LONG_PACKETS | RCTL_BUFFERS_1K } else { 0 };
        bar.write(RCTL, RCTL_ENABLE | accept | long | RCTL_STRIP_CRC);
        own_phy(bar);
        phy::negotiate(bar);
        disown_phy(bar);
    }

    fn halt(&self, bar: &Bar) {
        bar.write(IMC, u32::MAX);
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
        bar.set(CTRL_EXT, CTRL_EXT_AUTO_MASK | CTRL_EXT_PENDING_BITS);
        let vectors = (0..queues as u32).map(|queue| (IVAR_VALID | queue) << (4 * queue)).sum();
        bar.write(IVAR, vectors);
        // Nothing to throttle: each is asked for, once.
        (0..queues).for_each(|vector| bar.write(EITR + 4 * vector, 0));
        let all = (0..queues).map(|queue| CAUSE_RX_QUEUE << queue).sum();
        bar.write(EIAC, all);
        bar.write(IAM, all);
    }

    fn arm(&self, bar: &Bar, queue: usize) {
        // A cause from before would fire at once; what it told of is found by looking.
        bar.write(ICR, CAUSE_RX_QUEUE << queue);
        bar.write(IMS, CAUSE_RX_QUEUE << queue);
        bar.read(STATUS);
    }

    fn disarm(&self, bar: &Bar, queue: usize) {
        bar.write(IMC, CAUSE_RX_QUEUE << queue);
    }

    fn rss(&self, setup: &Setup) -> Rss {
        Rss { udp_ports: false, ..Rss::spread(setup.rss_key, setup.queues) }
    }

    fn drops(&self, bar: &Bar, _queues: usize, sums: &mut [u64]) {
        let read = |register| u64::from(bar.read(register));
        sums[0] += read(MPC);
        sums[1] += read(CRCERRS);
        sums[2] += [RFC, ROC, RJC].into_iter().map(read).sum::<u64>();
    }

    #[inline]
    fn tx_context(offload: TxOffload) -> Option<[u64; 2]> {
        let plan = offload.checksum?;
        let start = plan.l2 + plan.l3;
        let field = start + if plan.tcp { 16 } else { 6 };
        // From the start of layer 4 to the end (0), into the field. The IP part is there, but not asked for.
        let layer4 = (start as u64) << 32 | (field as u64) << 40;
        let ip = plan.l2 as u64 | (plan.l2 as u64 + 10) << 8 | (start as u64 - 1) << 16;
        let kind = if plan.tcp { CONTEXT_TCP } else { 0 } | if plan.ipv4 { CONTEXT_IPV4 } else { 0 };
        Some([layer4 | ip, EXTENDED | kind])
    }

    #[inline]
    fn tx_data(piece: TxPiece, offload: TxOffload) -> [u64; 2] {
        let mut word = piece.len as u64 | DATA | EXTENDED | INSERT_FCS;
        if piece.last {
            word |= LAST;
        }
        if let Some(tag) = offload.vlan {
            word |= INSERT_VLAN | u64::from(tag) << 48;
        }
        if offload.checksum.is_some() {
            word |= FINISH_L4;
        }
        [piece.iova, word]
    }
}

// Bits of a sent descriptor's second word (7.2.10): a context's is DTYP 0, data's is 1.
const DATA: u64 = 1 << 20;
const LAST: u64 = 1 << 24;
const INSERT_FCS: u64 = 1 << 25;
const EXTENDED: u64 = 1 << 29;
const INSERT_VLAN: u64 = 1 << 30;
const CONTEXT_TCP: u64 = 1 << 24;
const CONTEXT_IPV4: u64 = 1 << 25;
const FINISH_L4: u64 = 1 << 41;

/// Keeps firmware from the PHY, during a reset too (82574 datasheet, 10.2.2.17). After the limit it is taken all the same.
fn own_phy(bar: &Bar) {
    for _ in 0..OWNER_LIMIT.as_millis() {
        bar.set(EXTCNF_CTRL, EXTCNF_SOFTWARE_OWNS);
        if bar.read(EXTCNF_CTRL) & EXTCNF_SOFTWARE_OWNS != 0 {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn disown_phy(bar: &Bar) {
    bar.clear(EXTCNF_CTRL, EXTCNF_SOFTWARE_OWNS);
}
