//! Registers of the 82599 (Intel 82599 10 GbE Controller Datasheet, chapter 8; the section stands with each group). The X540 and X550 have
//! the same ones where nothing else is said.

// 8.2.3.1 and 8.2.3.2, general and EEPROM.

/// Device control.
pub(crate) const CTRL: usize = 0x0000;
/// No more requests to memory, as a preparation of a reset.
pub(crate) const CTRL_MASTER_DISABLE: u32 = 1 << 2;
/// Both resets: of the link and of the rest.
pub(crate) const CTRL_RESET: u32 = 1 << 3 | 1 << 26;
/// Device status.
pub(crate) const STATUS: usize = 0x0008;
/// Which of the chip's ports this is: two bits.
pub(crate) const STATUS_PORT_SHIFT: u32 = 2;
pub(crate) const STATUS_MASTER_ENABLED: u32 = 1 << 19;
/// Extended device control.
pub(crate) const CTRL_EXT: usize = 0x0018;
/// No snooping is disabled: DMA is coherent.
pub(crate) const CTRL_EXT_SNOOP: u32 = 1 << 16;
/// EEPROM control: what it says has been read into the registers.
pub(crate) const EEC: usize = 0x1_0010;
pub(crate) const EEC_AUTO_READ_DONE: u32 = 1 << 9;
/// EEPROM management control: firmware has configured port 0, and port 1 in the bit that follows.
pub(crate) const EEMNGCTL: usize = 0x1_0110;
pub(crate) const EEMNGCTL_DONE: u32 = 1 << 18;

// 8.2.3.5, interrupts; a bit for each of the first 16 vectors.

/// Cause: cleared by writing ones.
pub(crate) const EICR: usize = 0x0800;
/// Auto clear.
pub(crate) const EIAC: usize = 0x0810;
/// Throttle, a register for each vector.
pub(crate) const EITR: usize = 0x0820;
/// Mask set.
pub(crate) const EIMS: usize = 0x0880;
/// Mask clear.
pub(crate) const EIMC: usize = 0x0888;
/// Auto mask.
pub(crate) const EIAM: usize = 0x0890;
/// General purpose interrupt enable.
pub(crate) const GPIE: usize = 0x0898;
pub(crate) const GPIE_MSIX: u32 = 1 << 4;
/// A vector that fires is masked by itself, as EIAM says.
pub(crate) const GPIE_AUTO_MASK: u32 = 1 << 30;
pub(crate) const GPIE_PENDING_BITS: u32 = 1 << 31;
/// Vector allocation: two queues to a register, each a byte for receiving and one for sending.
pub(crate) const IVAR: usize = 0x0900;
pub(crate) const IVAR_VALID: u32 = 0x80;

// 8.2.3.7 and 8.2.3.8, receive.

/// Filter control.
pub(crate) const FCTRL: usize = 0x5080;
pub(crate) const FCTRL_MULTICAST_PROMISCUOUS: u32 = 1 << 8;
pub(crate) const FCTRL_UNICAST_PROMISCUOUS: u32 = 1 << 9;
pub(crate) const FCTRL_BROADCAST: u32 = 1 << 10;
/// Checksum control.
pub(crate) const RXCSUM: usize = 0x5000;
/// The descriptor has the hash instead of a packet checksum.
pub(crate) const RXCSUM_HASH: u32 = 1 << 13;
/// Multicast, VLAN and unicast filter tables.
pub(crate) const MTA: usize = 0x5200;
pub(crate) const VFTA: usize = 0xa000;
pub(crate) const PFUTA: usize = 0xf400;
/// Registers of each of these tables.
pub(crate) const TABLE: usize = 128;
/// Receive address 0: low, and high with "valid".
pub(crate) const RAL0: usize = 0xa200;
pub(crate) const RAH0: usize = 0xa204;
pub(crate) const RAH_VALID: u32 = 1 << 31;
/// Multiple receive queues command: RSS, and what it hashes.
pub(crate) const MRQC: usize = 0x5818;
pub(crate) const MRQC_RSS: u32 = 1;
pub(crate) const MRQC_TCP_V4: u32 = 1 << 16;
pub(crate) const MRQC_V4: u32 = 1 << 17;
pub(crate) const MRQC_V6: u32 = 1 << 20;
pub(crate) const MRQC_TCP_V6: u32 = 1 << 21;
pub(crate) const MRQC_UDP_V4: u32 = 1 << 22;
pub(crate) const MRQC_UDP_V6: u32 = 1 << 23;
/// Redirection table, four entries to a register: the first 128.
pub(crate) const RETA: usize = 0x5c00;
/// The X550's other 384.
pub(crate) const ERETA: usize = 0xee80;
/// The hash's key: 40 bytes.
pub(crate) const RSSRK: usize = 0x5c80;
/// Receive control.
pub(crate) const RXCTRL: usize = 0x3000;
pub(crate) const RXCTRL_ENABLE: u32 = 1 << 0;
/// Receive DMA control.
pub(crate) const RDRXCTL: usize = 0x2f00;
pub(crate) const RDRXCTL_STRIP_CRC: u32 = 1 << 1;
/// The DMA engine is ready after a reset.
pub(crate) const RDRXCTL_READY: u32 = 1 << 3;
/// Has to be cleared.
pub(crate) const RDRXCTL_FIRST_SIZE: u32 = 0x1f << 17;
/// Have to be set.
pub(crate) const RDRXCTL_SET: u32 = 1 << 25 | 1 << 26;
/// Security receive control, and its state: the path that frames take is held while receiving is turned on.
pub(crate) const SECRXCTRL: usize = 0x8d00;
pub(crate) const SECRXCTRL_HOLD: u32 = 1 << 1;
pub(crate) const SECRXSTAT: usize = 0x8d04;
pub(crate) const SECRXSTAT_HELD: u32 = 1 << 0;
/// Queue `n`'s registers begin at these, with this distance.
pub(crate) const RX_QUEUES: usize = 0x1000;
pub(crate) const TX_QUEUES: usize = 0x6000;
pub(crate) const QUEUE_STRIDE: usize = 0x40;
/// Receive only: DCA control, of which bit 12 has to be cleared.
pub(crate) const DCA_RXCTRL: usize = 0x0c;
pub(crate) const DCA_RXCTRL_CLEAR: u32 = 1 << 12;
/// Receive only: kind of descriptor, size of a buffer in KB.
pub(crate) const SRRCTL: usize = 0x14;
pub(crate) const SRRCTL_ADVANCED: u32 = 1 << 25;
/// Drop where there is no descriptor, so that one queue does not hold up the others.
pub(crate) const SRRCTL_DROP: u32 = 1 << 28;
/// RXDCTL or TXDCTL.
pub(crate) const CONTROL: usize = 0x28;
pub(crate) const QUEUE_ENABLE: u32 = 1 << 25;
/// Receive only: tags are taken out.
pub(crate) const QUEUE_VME: u32 = 1 << 30;

// 8.2.3.9 and 8.2.3.10, transmit.

/// Transmit DMA control. Its upper half is the Ethertype of tags, 0x8100 from the start.
pub(crate) const DMATXCTL: usize = 0x4a80;
pub(crate) const DMATXCTL_ENABLE: u32 = 1 << 0;
/// Arbiter control: off while what follows is set.
pub(crate) const RTTDCS: usize = 0x4900;
pub(crate) const RTTDCS_ARBITER_OFF: u32 = 1 << 6;
/// Bytes that may be requested at once, in 256s: all, since there is one traffic class.
pub(crate) const DTXMXSZRQ: usize = 0x8100;
pub(crate) const DTXMXSZRQ_ALL: u32 = 0xfff;

// 8.2.3.22, MAC.

/// Highlander control 0.
pub(crate) const HLREG0: usize = 0x4240;
pub(crate) const HLREG0_ADD_CRC: u32 = 1 << 0;
pub(crate) const HLREG0_STRIP_CRC: u32 = 1 << 1;
pub(crate) const HLREG0_JUMBO: u32 = 1 << 2;
pub(crate) const HLREG0_PAD: u32 = 1 << 10;
/// Longest frame, check sequence included but no tags, in its upper half.
pub(crate) const MAXFRS: usize = 0x4268;
pub(crate) const MAXFRS_SHIFT: u32 = 16;
/// Auto negotiation control: what the EEPROM chose stays, but for this.
pub(crate) const AUTOC: usize = 0x42a0;
pub(crate) const AUTOC_RESTART: u32 = 1 << 12;
/// Link status.
pub(crate) const LINKS: usize = 0x42a4;
pub(crate) const LINKS_UP: u32 = 1 << 30;
/// Two bits: 10 (X550), 100, 1000, 10000 Mb/s.
pub(crate) const LINKS_SPEED_SHIFT: u32 = 28;

// 8.2.3.23, statistics: cleared by reading.

/// CRC errors.
pub(crate) const CRCERRS: usize = 0x4000;
/// Missed packets of each of the 8 packet buffers.
pub(crate) const MPC: usize = 0x3fa0;
/// Receive length errors.
pub(crate) const RLEC: usize = 0x4040;
/// Fragments, oversized frames, jabber.
pub(crate) const RFC: usize = 0x40a8;
pub(crate) const ROC: usize = 0x40ac;
pub(crate) const RJC: usize = 0x40b0;
/// Packets that a queue dropped for want of descriptors, of the first 16 queues.
pub(crate) const QPRDC: usize = 0x1430;
