//! Registers of the 82576 (Intel 82576EB Gigabit Ethernet Controller Datasheet, chapter 8; the section stands with each group).
//! The I350's are the same where nothing else is said (Intel Ethernet Controller I350 Datasheet, chapter 8).

// 8.2, general registers.

/// Device control.
pub(crate) const CTRL: usize = 0x0000;
/// Set link up: the link follows the PHY.
pub(crate) const CTRL_SLU: u32 = 1 << 6;
/// Speed and duplex are forced, not negotiated.
pub(crate) const CTRL_FORCED: u32 = 1 << 11 | 1 << 12;
pub(crate) const CTRL_RESET: u32 = 1 << 26;
/// Pause frames, received and sent.
pub(crate) const CTRL_PAUSE: u32 = 1 << 27 | 1 << 28;
/// 802.1Q: tags are taken out of received frames.
pub(crate) const CTRL_VME: u32 = 1 << 30;

/// Device status.
pub(crate) const STATUS: usize = 0x0008;
pub(crate) const STATUS_LINK_UP: u32 = 1 << 1;
/// Which of the chip's ports this is: two bits.
pub(crate) const STATUS_PORT_SHIFT: u32 = 2;
/// Two bits: 10, 100, 1000, 1000 Mb/s.
pub(crate) const STATUS_SPEED_SHIFT: u32 = 6;

/// EEPROM management control: firmware has configured port 0, and the others in the bits that follow.
pub(crate) const EEMNGCTL: usize = 0x1010;
pub(crate) const EEMNGCTL_DONE: u32 = 1 << 18;

// 8.6, semaphores.

/// Software semaphore: reading takes the first bit.
pub(crate) const SWSM: usize = 0x5b50;
pub(crate) const SWSM_SOFTWARE: u32 = 1 << 0;
pub(crate) const SWSM_FIRMWARE: u32 = 1 << 1;
/// Which resources software (low half) and firmware (high half) hold.
pub(crate) const SW_FW_SYNC: usize = 0x5b5c;
/// The PHYs of ports 0 to 3 in it.
pub(crate) const SYNC_PHY: [u32; 4] = [1 << 1, 1 << 2, 1 << 5, 1 << 6];

// 8.8, interrupts.

/// Interrupt mask clear, of the causes before MSI-X.
pub(crate) const IMC: usize = 0x150c;
/// General purpose interrupt enable.
pub(crate) const GPIE: usize = 0x1514;
pub(crate) const GPIE_NON_SELECTIVE: u32 = 1 << 0;
/// A vector for each cause.
pub(crate) const GPIE_MSIX: u32 = 1 << 4;
/// A vector that fires is masked by itself, as EIAM says.
pub(crate) const GPIE_AUTO_MASK: u32 = 1 << 30;
pub(crate) const GPIE_PENDING_BITS: u32 = 1 << 31;
/// Extended interrupt mask set; a bit for each vector here and in the next three.
pub(crate) const EIMS: usize = 0x1524;
/// Extended interrupt mask clear.
pub(crate) const EIMC: usize = 0x1528;
/// Extended interrupt auto clear.
pub(crate) const EIAC: usize = 0x152c;
/// Extended interrupt auto mask.
pub(crate) const EIAM: usize = 0x1530;
/// Extended interrupt cause: cleared by writing ones.
pub(crate) const EICR: usize = 0x1580;
/// Interrupt throttle, a register for each vector.
pub(crate) const EITR: usize = 0x1680;
/// Interrupt vector allocation: bytes, whose order differs between the chips.
pub(crate) const IVAR: usize = 0x1700;
pub(crate) const IVAR_VALID: u32 = 0x80;

// 8.10, receive.

/// Receive control.
pub(crate) const RCTL: usize = 0x0100;
pub(crate) const RCTL_ENABLE: u32 = 1 << 1;
pub(crate) const RCTL_UNICAST_PROMISCUOUS: u32 = 1 << 3;
pub(crate) const RCTL_MULTICAST_PROMISCUOUS: u32 = 1 << 4;
pub(crate) const RCTL_LONG_PACKETS: u32 = 1 << 5;
pub(crate) const RCTL_BROADCAST: u32 = 1 << 15;
pub(crate) const RCTL_STRIP_CRC: u32 = 1 << 26;
/// Receive checksum control: what is verified.
pub(crate) const RXCSUM: usize = 0x5000;
pub(crate) const RXCSUM_IP: u32 = 1 << 8;
pub(crate) const RXCSUM_L4: u32 = 1 << 9;
/// The descriptor has the hash instead of a packet checksum.
pub(crate) const RXCSUM_HASH: u32 = 1 << 13;
/// Longest frame received, check sequence included, when RCTL allows long ones.
pub(crate) const RLPML: usize = 0x5004;
/// Multicast, VLAN and unicast filter tables.
pub(crate) const MTA: usize = 0x5200;
pub(crate) const VFTA: usize = 0x5600;
pub(crate) const UTA: usize = 0xa000;
/// Registers of each of these tables.
pub(crate) const TABLE: usize = 128;
/// Receive address 0: low, and high with "valid".
pub(crate) const RAL0: usize = 0x5400;
pub(crate) const RAH0: usize = 0x5404;
pub(crate) const RAH_VALID: u32 = 1 << 31;
/// Multiple receive queues command: RSS, and what it hashes.
pub(crate) const MRQC: usize = 0x5818;
pub(crate) const MRQC_RSS: u32 = 2;
pub(crate) const MRQC_TCP_V4: u32 = 1 << 16;
pub(crate) const MRQC_V4: u32 = 1 << 17;
pub(crate) const MRQC_V6: u32 = 1 << 20;
pub(crate) const MRQC_TCP_V6: u32 = 1 << 21;
pub(crate) const MRQC_UDP_V4: u32 = 1 << 22;
pub(crate) const MRQC_UDP_V6: u32 = 1 << 23;
/// Redirection table, four entries to a register.
pub(crate) const RETA: usize = 0x5c00;
pub(crate) const RETA_ENTRIES: usize = 128;
/// The hash's key: 40 bytes.
pub(crate) const RSSRK: usize = 0x5c80;

// 8.10 and 8.12, a queue's registers, which begin at these.

pub(crate) const RX_QUEUES: usize = 0xc000;
pub(crate) const TX_QUEUES: usize = 0xe000;
pub(crate) const QUEUE_STRIDE: usize = 0x40;
/// Split and replication receive control: kind of descriptor, size of a buffer in KB.
pub(crate) const SRRCTL: usize = 0x0c;
pub(crate) const SRRCTL_ADVANCED: u32 = 1 << 25;
/// Drop where there is no descriptor, so that one queue does not hold up the others.
pub(crate) const SRRCTL_DROP: u32 = 1 << 31;
/// RXDCTL or TXDCTL: thresholds, and on or off.
pub(crate) const CONTROL: usize = 0x28;
pub(crate) const QUEUE_ENABLE: u32 = 1 << 25;
/// Receive only: packets dropped for want of descriptors.
pub(crate) const RQDPC: usize = 0x30;

// 8.12, transmit.

/// Transmit control.
pub(crate) const TCTL: usize = 0x0400;
pub(crate) const TCTL_ENABLE: u32 = 1 << 1;
pub(crate) const TCTL_PAD: u32 = 1 << 3;
/// Collision threshold, of no effect in full duplex: its default.
pub(crate) const TCTL_COLLISIONS: u32 = 15 << 4;
pub(crate) const TCTL_RETRANSMIT_LATE: u32 = 1 << 24;

// 8.18, statistics: cleared by reading.

/// CRC errors.
pub(crate) const CRCERRS: usize = 0x4000;
/// Missed packets: no room in the receive FIFO.
pub(crate) const MPC: usize = 0x4010;
/// Fragments, oversized frames, jabber.
pub(crate) const RFC: usize = 0x40a8;
pub(crate) const ROC: usize = 0x40ac;
pub(crate) const RJC: usize = 0x40b0;
