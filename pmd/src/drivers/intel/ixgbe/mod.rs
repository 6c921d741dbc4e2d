//! `ixgbe:PCI[,queues=N][,mtu=N][,ring=N][,promisc=1][,vlan=strip]`: Intel 82599 (X520), X540 and X550.
//!
//! **Not yet run on hardware.** It is written from the datasheets and tested against a model of the registers ([`tests`]): the order of
//! initialisation is that of the 82599 datasheet, 4.6.3 (reset), 4.6.7 (receive) and 4.6.8 (transmit). The link is what the EEPROM configured;
//! it is only negotiated again. Frames up to 1780 bytes come in one buffer, longer ones in pieces of 1 KB.

mod regs;
#[cfg(test)]
mod tests;

use std::time::Duration;

use self::regs::*;
use super::advanced;
use super::bar::{Bar, GONE};
use super::chip::{Chip, Link, RingAt, Setup, TxOffload, TxPiece};
use super::common::{self, TAIL};
use crate::header::DATA_ROOM;
use crate::mac::MacAddr;
use crate::port::{OpenOptions, Port, PortError};
use crate::rss::Rss;
use crate::url::Url;

/// Bytes of the Ethernet frame check sequence, and of two tags, which MAXFRS does not count.
const FCS: usize = 4;
const TAGS: usize = 8;
const QUEUE_START: Duration = Duration::from_millis(10);
/// Entries of the X550's redirection table; the others have 128.
const RETA_X550: u16 = 512;

pub(crate) fn open(url: Url<'_>, options: &OpenOptions) -> Result<Box<dyn Port>, PortError> {
    super::port::open::<Ixgbe>(url, options)
}

/// An 82599, X540 or X550.
pub(crate) struct Ixgbe {
    x550: bool,
}

#[inline]
fn rx(queue: usize) -> usize {
    RX_QUEUES + QUEUE_STRIDE * queue
}

#[inline]
fn tx(queue: usize) -> usize {
    TX_QUEUES + QUEUE_STRIDE * queue
}

impl Chip for Ixgbe {
    const DRIVER: &'static str = "ixgbe";
    const DEVICES: &'static [(u16, &'static str)] = &[
        (0x10fb, "82599 SFP+"),
        (0x10f7, "82599 KX4"),
        (0x10f8, "82599 backplane"),
        (0x10fc, "82599 XAUI"),
        (0x154d, "82599 SFP+ dual"),
        (0x1528, "X540"),
        (0x1560, "X540 single"),
        (0x1563, "X550"),
        (0x15d1, "X550 single"),
    ];
    const MTU_MAX: usize = 9216;
    const RX_L4_BAD: u32 = 1 << 30;
    const DROPS: &'static [&'static str] =
        &["rx_missed", "rx_no_descriptor", "rx_crc_error", "rx_wrong_length"];

    fn of(device: u16) -> Ixgbe {
        Ixgbe { x550: matches!(device, 0x1563 | 0x15d1) }
    }

    fn queues_max(&self) -> usize {
        16
    }

    fn reset(&self, bar: &Bar) -> Result<(), (&'static str, u64)> {
        self.mask_interrupts(bar);
        stop(bar);
        // 5.2.5.3.2: requests to memory end first; where they do not, the reset ends them.
        bar.set(CTRL, CTRL_MASTER_DISABLE);
        bar.wait(STATUS, STATUS_MASTER_ENABLED, 0, Duration::from_millis(100));
        bar.set(CTRL, CTRL_RESET);
        std::thread::sleep(Duration::from_millis(10));
        if !bar.wait(CTRL, CTRL_RESET, 0, Duration::from_millis(100)) {
            return Err(("its reset", 100));
        }
        self.mask_interrupts(bar);
        if !bar.wait(EEC, EEC_AUTO_READ_DONE, EEC_AUTO_READ_DONE, Duration::from_millis(100)) {
            return Err(("reading its EEPROM", 100));
        }
        let done = EEMNGCTL_DONE << (bar.read(STATUS) >> STATUS_PORT_SHIFT & 1);
        // Boards without management firmware never say that it is done.
        bar.wait(EEMNGCTL, done, done, Duration::from_millis(100));
        if !bar.wait(RDRXCTL, RDRXCTL_READY, RDRXCTL_READY, Duration::from_millis(100)) {
            return Err(("the start of its DMA", 100));
        }
        Ok(())
    }

    fn mac(&self, bar: &Bar) -> MacAddr {
        common::read_mac(bar, RAL0)
    }

    fn setup(&self, bar: &Bar, setup: &Setup) {
        for table in [MTA, VFTA, PFUTA] {
            (0..TABLE).for_each(|index| bar.write(table + 4 * index, 0));
        }
        bar.set(RAH0, RAH_VALID);
        bar.set(CTRL_EXT, CTRL_EXT_SNOOP);
        bar.set(HLREG0, HLREG0_ADD_CRC | HLREG0_STRIP_CRC | HLREG0_JUMBO | HLREG0_PAD);
        bar.write(MAXFRS, ((setup.frame_max + FCS) as u32) << MAXFRS_SHIFT);
        let control = bar.read(RDRXCTL) & !RDRXCTL_FIRST_SIZE;
        bar.write(RDRXCTL, control | RDRXCTL_STRIP_CRC | RDRXCTL_SET);
        let promiscuous = if setup.promiscuous { FCTRL_UNICAST_PROMISCUOUS } else { 0 };
        // All multicast: the groups (neighbour discovery has one for each address) are told apart by the stack.
        bar.write(FCTRL, FCTRL_BROADCAST | FCTRL_MULTICAST_PROMISCUOUS | promiscuous);
        bar.write(RXCSUM, RXCSUM_HASH);
        let mut rss = self.rss(setup);
        if self.x550 {
            let beyond = rss.table.split_off(128);
            for (index, queues) in beyond.as_chunks::<4>().0.iter().enumerate() {
                bar.write(ERETA + 4 * index, u32::from_le_bytes(queues.map(|queue| queue as u8)));
            }
        }
        common::write_rss(bar, RSSRK, RETA, 0, &rss);
        let fields = MRQC_TCP_V4 | MRQC_V4 | MRQC_V6 | MRQC_TCP_V6 | MRQC_UDP_V4 | MRQC_UDP_V6;
        bar.write(MRQC, MRQC_RSS | fields);
        bar.set(RTTDCS, RTTDCS_ARBITER_OFF);
        bar.write(DTXMXSZRQ, DTXMXSZRQ_ALL);
        bar.clear(RTTDCS, RTTDCS_ARBITER_OFF);
        // Queues for sending start only while this is on.
        bar.set(DMATXCTL, DMATXCTL_ENABLE);
        // What was counted before is not ours.
        self.drops(bar, self.queues_max(), &mut [0; Self::DROPS.len()]);
    }

    fn rx_buffer(frame_max: usize) -> usize {
        if frame_max + FCS + TAGS <= DATA_ROOM { 2048 } else { 1024 }
    }

    fn start_rx(&self, bar: &Bar, ring: RingAt, setup: &Setup) -> bool {
        let at = rx(ring.queue);
        write_ring(bar, at, ring);
        let drop = if setup.queues > 1 { SRRCTL_DROP } else { 0 };
        let kilobytes = (Self::rx_buffer(setup.frame_max) / 1024) as u32;
        bar.write(at + SRRCTL, kilobytes | SRRCTL_ADVANCED | drop);
        bar.clear(at + DCA_RXCTRL, DCA_RXCTRL_CLEAR);
        let vlan = if setup.strip_vlan { QUEUE_VME } else { 0 };
        bar.write(at + CONTROL, QUEUE_ENABLE | vlan);
        bar.wait(at + CONTROL, QUEUE_ENABLE, QUEUE_ENABLE, QUEUE_START)
    }

    fn start_tx(&self, bar: &Bar, ring: RingAt) -> bool {
        let at = tx(ring.queue);
        write_ring(bar, at, ring);
        // Thresholds (7.2.3.4.1): fetch when fewer than 32 descriptors are there and 1 can be had; reports (0) when asked for.
        bar.write(at + CONTROL, 32 | 1 << 8 | QUEUE_ENABLE);
        bar.wait(at + CONTROL, QUEUE_ENABLE, QUEUE_ENABLE, QUEUE_START)
    }

    fn go(&self, bar: &Bar, _setup: &Setup) {
        // 4.6.7: the path that frames take is held while receiving is turned on.
        bar.set(SECRXCTRL, SECRXCTRL_HOLD);
        bar.wait(SECRXSTAT, SECRXSTAT_HELD, SECRXSTAT_HELD, Duration::from_millis(4));
        bar.set(RXCTRL, RXCTRL_ENABLE);
        bar.clear(SECRXCTRL, SECRXCTRL_HOLD);
        bar.set(AUTOC, AUTOC_RESTART);
    }

    fn halt(&self, bar: &Bar) {
        self.mask_interrupts(bar);
        stop(bar);
        bar.set(CTRL, CTRL_RESET);
        std::thread::sleep(Duration::from_millis(10));
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
        match bar.read(LINKS) {
            GONE => Link::Gone,
            links if links & LINKS_UP == 0 => Link::Down,
            links => Link::Up([10, 100, 1000, 10_000][(links >> LINKS_SPEED_SHIFT & 3) as usize]),
        }
    }

    fn route_interrupts(&self, bar: &Bar, queues: usize) {
        bar.write(GPIE, GPIE_MSIX | GPIE_AUTO_MASK | GPIE_PENDING_BITS);
        let all = (1 << queues) - 1;
        bar.write(EIAC, all);
        bar.write(EIAM, all);
        for queue in 0..queues {
            let (register, shift) = (IVAR + 4 * (queue / 2), 16 * (queue as u32 % 2));
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
        let spread = Rss::spread(setup.rss_key, setup.queues);
        match self.x550 {
            true => {
                Rss { table: (0..RETA_X550).map(|entry| entry % setup.queues as u16).collect(), ..spread }
            }
            false => spread,
        }
    }

    fn drops(&self, bar: &Bar, queues: usize, sums: &mut [u64]) {
        let read = |register| u64::from(bar.read(register));
        sums[0] += (0..8).map(|buffer| read(MPC + 4 * buffer)).sum::<u64>();
        sums[1] += (0..queues).map(|queue| read(QPRDC + QUEUE_STRIDE * queue)).sum::<u64>();
        sums[2] += read(CRCERRS);
        sums[3] += [RLEC, RFC, ROC, RJC].into_iter().map(read).sum::<u64>();
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

/// Both directions off.
fn stop(bar: &Bar) {
    bar.clear(RXCTRL, RXCTRL_ENABLE);
    bar.clear(DMATXCTL, DMATXCTL_ENABLE);
    bar.read(STATUS);
}

impl Ixgbe {
    fn mask_interrupts(&self, bar: &Bar) {
        bar.write(EIMC, 0x7fff_ffff);
        bar.read(STATUS);
    }
}
