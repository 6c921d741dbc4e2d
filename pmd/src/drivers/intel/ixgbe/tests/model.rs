//! A model of the 82599: registers that answer as the datasheet says, and rings that it reads and writes by itself. What a driver does
//! against the datasheet is noted as a fault.

use std::collections::HashMap;
use std::net::SocketAddr;

use super::super::regs::*;
use crate::drivers::intel::bar::GONE;
use crate::drivers::intel::common::{BASE_HIGH, BASE_LOW, HEAD, LENGTH, TAIL};
use crate::drivers::intel::tests::Model;
use crate::rss::Toeplitz;

pub(super) const MAC: [u8; 6] = [0x02, 0x1b, 0x21, 1, 2, 3];
const DONE: u32 = 1;
const END: u32 = 2;

/// A frame that left, and what was asked for it.
#[derive(Debug, PartialEq)]
pub(super) struct Sent {
    pub bytes: Vec<u8>,
    pub vlan: Option<u16>,
    /// Bytes before IP, and of IP, of a frame whose layer-4 checksum it finished.
    pub checksum: Option<(u64, u64)>,
}

#[derive(Default)]
pub(super) struct Chip82599 {
    registers: HashMap<usize, u32>,
    /// Reads that a reset, then the EEPROM, then the link still take.
    resetting: u32,
    starting: u32,
    negotiating: u32,
    context: [u64; 2],
    pieces: Vec<u8>,
    pub sent: Vec<Sent>,
    /// Resets so far.
    pub resets: usize,
    /// It is pulled out.
    pub gone: bool,
    /// Its resets never end.
    pub stuck: bool,
    /// It does not take what is to be sent.
    pub held: bool,
    pub faults: Vec<String>,
}

impl Chip82599 {
    pub(super) fn new() -> Chip82599 {
        let mut chip = Chip82599::default();
        chip.reset();
        (chip.resetting, chip.starting, chip.resets) = (0, 0, 0);
        chip
    }

    fn reset(&mut self) {
        self.registers.clear();
        // What the EEPROM and the datasheet's defaults say.
        self.set(RAL0, u32::from_le_bytes(MAC[..4].try_into().unwrap()));
        self.set(RAH0, u32::from(u16::from_le_bytes(MAC[4..].try_into().unwrap())));
        self.set(DMATXCTL, 0x8100_0000);
        self.set(RDRXCTL, 0x0008_0000);
        (self.resetting, self.starting, self.negotiating) = (3, 5, u32::MAX);
        self.resets += 1;
    }

    pub(super) fn get(&self, register: usize) -> u32 {
        self.registers.get(&register).copied().unwrap_or(0)
    }

    fn set(&mut self, register: usize, value: u32) {
        self.registers.insert(register, value);
    }

    fn fault(&mut self, what: &str, register: usize) {
        self.faults.push(format!("{what} {register:#x}"));
    }

    /// Start of the queue's registers that `register` belongs to, if it does.
    fn queue_of(register: usize) -> Option<usize> {
        let in_queues = |first: usize| (first..first + 16 * QUEUE_STRIDE).contains(&register);
        (in_queues(RX_QUEUES) || in_queues(TX_QUEUES)).then_some(register / QUEUE_STRIDE * QUEUE_STRIDE)
    }

    fn enabled(&self, queue: usize) -> bool {
        self.get(queue + CONTROL) & QUEUE_ENABLE != 0
    }

    fn ring(&self, queue: usize) -> (*mut [u64; 2], u32) {
        let base = u64::from(self.get(queue + BASE_LOW)) | u64::from(self.get(queue + BASE_HIGH)) << 32;
        assert!(
            base != 0 && base % 128 == 0 && self.get(queue + LENGTH).is_multiple_of(128),
            "a ring as 7.1.9 wants it"
        );
        (base as *mut [u64; 2], self.get(queue + LENGTH) / 16)
    }

    fn advance(&mut self, queue: usize) {
        let (_, size) = self.ring(queue);
        self.set(queue + HEAD, (self.get(queue + HEAD) + 1) % size);
    }

    pub(super) fn transmit(&mut self, queue: usize) {
        while !self.held && self.get(queue + HEAD) != self.get(queue + TAIL) {
            let (ring, _) = self.ring(queue);
            let head = self.get(queue + HEAD) as usize;
            // SAFETY: a descriptor of the ring that the driver gave, which it keeps until it drops the device.
            let [address, word] = unsafe { ring.add(head).read_volatile() };
            match word >> 20 & 0xf {
                2 => self.context = [address, word],
                3 => self.take_piece(address, word),
                _ => self.fault("a descriptor of no kind in queue", queue),
            }
            if word & 1 << 27 != 0 {
                // SAFETY: as above.
                unsafe { ring.add(head).write_volatile([0, 1 << 32]) };
            }
            self.advance(queue);
        }
    }

    fn take_piece(&mut self, address: u64, word: u64) {
        let len = word as u16 as usize;
        // SAFETY: memory that the driver says holds a piece of a frame, in this process.
        self.pieces.extend_from_slice(unsafe { std::slice::from_raw_parts(address as *const u8, len) });
        if word & 1 << 24 == 0 {
            return;
        }
        let bytes = std::mem::take(&mut self.pieces);
        if word >> 46 != bytes.len() as u64 || word & 1 << 25 == 0 || bytes.len() < 17 {
            self.fault("a frame with a wrong length, or without check sequence, of bytes", bytes.len());
        }
        let vlan = (word & 1 << 30 != 0).then_some((self.context[0] >> 16) as u16);
        let [places, _] = self.context;
        let checksum = (word & 1 << 41 != 0).then_some((places >> 9 & 0x7f, places & 0x1ff));
        if (vlan.is_some() || checksum.is_some()) && word & 1 << 39 == 0 {
            self.fault("a context that is not asked for, in a frame of bytes", bytes.len());
        }
        self.sent.push(Sent { bytes, vlan, checksum });
    }

    /// A frame on the wire, for which a queue has room; false when it is dropped.
    pub(super) fn receive(&mut self, frame: &[u8]) -> bool {
        let longest = (self.get(MAXFRS) >> MAXFRS_SHIFT) as usize;
        let listening = self.get(RXCTRL) & RXCTRL_ENABLE != 0 && self.get(LINKS) & LINKS_UP != 0;
        if !listening || frame.len() + 4 > longest {
            return false;
        }
        let hash = self.hash(frame);
        let queue = match hash {
            Some(hash) => self.get(RETA + (hash as usize & 0x7c)) >> (8 * (hash & 3)) & 0xff,
            None => 0,
        };
        let at = RX_QUEUES + QUEUE_STRIDE * queue as usize;
        let buffer = (self.get(at + SRRCTL) & 0x1f) as usize * 1024;
        let (_, size) = self.ring(at);
        let free = (self.get(at + TAIL) + size - self.get(at + HEAD)) % size;
        let pieces = frame.chunks(buffer);
        if !self.enabled(at) || (pieces.len() as u32) > free {
            let drops = QPRDC + QUEUE_STRIDE * queue as usize;
            self.set(drops, self.get(drops) + 1);
            return false;
        }
        let last = pieces.len() - 1;
        let hashed = hash.map_or(0, |hash| u64::from(hash) << 32 | 7);
        for (index, piece) in pieces.enumerate() {
            let status = DONE | if index == last { END } else { 0 };
            self.fill(queue as usize, piece, hashed, status, piece.len() as u16);
        }
        true
    }

    /// Writes a descriptor back, whatever it says.
    pub(super) fn fill(&mut self, queue: usize, piece: &[u8], first: u64, status: u32, len: u16) {
        let at = RX_QUEUES + QUEUE_STRIDE * queue;
        let (ring, _) = self.ring(at);
        let head = self.get(at + HEAD) as usize;
        // SAFETY: a descriptor of the driver's ring, and the buffer whose address it wrote there, which is at least as long as
        // the pieces here.
        unsafe {
            let [address, _] = ring.add(head).read_volatile();
            std::ptr::copy_nonoverlapping(piece.as_ptr(), address as *mut u8, piece.len());
            ring.add(head).write_volatile([first, u64::from(status) | u64::from(len) << 32]);
        }
        self.advance(at);
    }

    /// The hash of an IPv4 UDP frame without options.
    fn hash(&self, frame: &[u8]) -> Option<u32> {
        let udp = self.get(MRQC) & (MRQC_RSS | MRQC_UDP_V4) == MRQC_RSS | MRQC_UDP_V4;
        if !udp || frame.get(12..14)? != [8, 0] || *frame.get(23)? != 17 {
            return None;
        }
        let mut key = [0; 40];
        for (index, bytes) in key.chunks_mut(4).enumerate() {
            bytes.copy_from_slice(&self.get(RSSRK + 4 * index).to_le_bytes());
        }
        let side = |ip: usize, port: usize| {
            let ip: [u8; 4] = frame.get(ip..ip + 4)?.try_into().ok()?;
            Some(SocketAddr::from((ip, u16::from_be_bytes(frame.get(port..port + 2)?.try_into().ok()?))))
        };
        Some(Toeplitz::new(&key).hash(side(26, 34)?, side(30, 36)?, true))
    }
}

impl Model for Chip82599 {
    fn read(&mut self, register: usize) -> u32 {
        if self.gone {
            return GONE;
        }
        let value = self.get(register);
        match register {
            CTRL if self.stuck && self.resets > 0 => value | CTRL_RESET,
            CTRL if self.resetting > 0 => {
                self.resetting -= 1;
                value | CTRL_RESET
            }
            EEC => {
                self.starting = self.starting.saturating_sub(1);
                value | if self.starting == 0 { EEC_AUTO_READ_DONE } else { 0 }
            }
            RDRXCTL if self.starting == 0 => value | RDRXCTL_READY,
            EEMNGCTL => EEMNGCTL_DONE,
            STATUS if self.get(CTRL) & CTRL_MASTER_DISABLE == 0 => STATUS_MASTER_ENABLED,
            SECRXSTAT => u32::from(self.get(SECRXCTRL) & SECRXCTRL_HOLD != 0),
            LINKS => {
                self.negotiating =
                    if self.negotiating == u32::MAX { u32::MAX } else { self.negotiating.saturating_sub(1) };
                if self.negotiating == 0 {
                    self.set(LINKS, LINKS_UP | 3 << LINKS_SPEED_SHIFT);
                }
                self.get(LINKS)
            }
            MPC | CRCERRS | RLEC | RFC | ROC | RJC => self.registers.remove(&register).unwrap_or(0),
            drops
                if (QPRDC..QPRDC + 16 * QUEUE_STRIDE).contains(&drops)
                    && drops % QUEUE_STRIDE == QPRDC % QUEUE_STRIDE =>
            {
                self.registers.remove(&register).unwrap_or(0)
            }
            _ => value,
        }
    }

    fn write(&mut self, register: usize, value: u32) {
        if self.gone {
            return;
        }
        if self.resetting > 0 && register != CTRL {
            self.fault("written during a reset:", register);
        }
        if register == CTRL && value & CTRL_RESET != 0 {
            return self.reset();
        }
        if let Some(queue) = Self::queue_of(register) {
            let sends = queue >= TX_QUEUES;
            match register - queue {
                TAIL if value != 0 && !self.enabled(queue) => {
                    self.fault("a tail while the queue is off:", register)
                }
                // A queue for sending starts only while sending is on.
                CONTROL if sends && self.get(DMATXCTL) & DMATXCTL_ENABLE == 0 => {
                    return self.set(register, value & !QUEUE_ENABLE);
                }
                BASE_LOW | BASE_HIGH | LENGTH | HEAD if self.enabled(queue) => {
                    self.fault("written while the queue is on:", register);
                }
                _ => {}
            }
            self.set(register, value);
            if sends && register - queue == TAIL && self.enabled(queue) {
                self.transmit(queue);
            }
            return;
        }
        if register == AUTOC && value & AUTOC_RESTART != 0 {
            self.negotiating = 3;
            return self.set(register, value & !AUTOC_RESTART);
        }
        if register == RXCTRL && value & RXCTRL_ENABLE != 0 && self.get(SECRXCTRL) & SECRXCTRL_HOLD == 0 {
            self.fault("receiving turned on while frames come:", register);
        }
        self.set(register, value);
    }
}
