//! Registers of the 82574L (Intel 82574 GbE Controller Family Datasheet, chapter 10; the section stands with each group).

// 10.2.2, general.

/// Device control.
pub(crate) const CTRL: usize = 0x0000;
/// Set link up: the link follows the PHY.
pub(crate) const CTRL_SLU: u32 = 1 << 6;
/// Speed and duplex are forced, not negotiated.
pub(crate) const CTRL_FORCED: u32 = 1 << 11 | 1 << 12;
pub(crate) const CTRL_RESET: u32 = 1 << 26;
/// Pause frames, received and sent.
pub(crate) const CTRL_PAUSE: u32 = 1 << 27 | 1 << 28;
/// 802.1Q: tags are taken out of received frames, and put into sent ones where their descriptor says so.
pub(crate) const CTRL_VME: u32 = 1 << 30;
/// Device status.
pub(crate) const STATUS: usize = 0x0008;
pub(crate) const STATUS_LINK_UP: u32 = 1 << 1;
/// Two bits: 10, 100, 1000, 1000 Mb/s.
pub(crate) const STATUS_SPEED_SHIFT: u32 = 6;
/// EEPROM control: what it says has been read into the registers.
pub(crate) const EECD: usize = 0x0010;
pub(crate) const EECD_AUTO_READ_DONE: u32 = 1 << 9;
/// Extended device control.
pub(crate) const CTRL_EXT: usize = 0x0018;
/// A vector that fires clears its bits of the mask (IAM).
pub(crate) const CTRL_EXT_AUTO_MASK: u32 = 1 << 24;
/// Pending bits as MSI-X wants them.
pub(crate) const CTRL_EXT_PENDING_BITS: u32 = 1 << 31;
/// VLAN Ethertype, of the tags that are taken out and put in.
pub(crate) const VET: usize = 0x0038;
/// Extended configuration control: who owns the PHY's management interface.
pub(crate) const EXTCNF_CTRL: usize = 0x0f00;
pub(crate) const EXTCNF_SOFTWARE_OWNS: u32 = 1 << 5;

// 10.2.4, interrupts.

/// Interrupt cause: cleared by writing ones.
pub(crate) const ICR: usize = 0x00c0;
/// Interrupt mask set.
pub(crate) const IMS: usize = 0x00d0;
/// Interrupt mask clear.
pub(crate) const IMC: usize = 0x00d8;
/// Interrupt auto clear.
pub(crate) const EIAC: usize = 0x00dc;
/// Interrupt auto mask.
pub(crate) const IAM: usize = 0x00e0;
/// Vectors of the causes: four bits each, the highest being "valid".
pub(crate) const IVAR: usize = 0x00e4;
pub(crate) const IVAR_VALID: u32 = 8;
/// The cause "receive queue 0", and 1 in the bit that follows.
pub(crate) const CAUSE_RX_QUEUE: u32 = 1 << 20;
/// Interrupt throttle, a register for each vector.
pub(crate) const EITR: usize = 0x00e8;

// 10.2.5, receive.

/// Receive control.
pub(crate) const RCTL: usize = 0x0100;
pub(crate) const RCTL_ENABLE: u32 = 1 << 1;
pub(crate) const RCTL_UNICAST_PROMISCUOUS: u32 = 1 << 3;
pub(crate) const RCTL_MULTICAST_PROMISCUOUS: u32 = 1 << 4;
/// Frames longer than 1522 bytes, check sequence included.
pub(crate) const RCTL_LONG_PACKETS: u32 = 1 << 5;
pub(crate) const RCTL_BROADCAST: u32 = 1 << 15;
/// Buffers of 1024 bytes; of 2048 without it.
pub(crate) const RCTL_BUFFERS_1K: u32 = 1 << 16;
pub(crate) const RCTL_STRIP_CRC: u32 = 1 << 26;
/// Queue `n`'s registers begin here, and each has this many bytes.
pub(crate) const RX_QUEUES: usize = 0x2800;
pub(crate) const TX_QUEUES: usize = 0x3800;
pub(crate) const QUEUE_STRIDE: usize = 0x100;
/// RXDCTL or TXDCTL: thresholds.
pub(crate) const CONTROL: usize = 0x28;
/// Thresholds count descriptors, not cache lines.
pub(crate) const CONTROL_DESCRIPTORS: u32 = 1 << 24;
/// Transmit only: count outstanding descriptors, which has to be on.
pub(crate) const CONTROL_COUNT: u32 = 1 << 22;
/// Receive checksum control.
pub(crate) const RXCSUM: usize = 0x5000;
pub(crate) const RXCSUM_IP: u32 = 1 << 8;
pub(crate) const RXCSUM_L4: u32 = 1 << 9;
/// The descriptor has the hash instead of a packet checksum.
pub(crate) const RXCSUM_HASH: u32 = 1 << 13;
/// Receive filter control.
pub(crate) const RFCTL: usize = 0x5008;
/// Extended descriptors.
pub(crate) const RFCTL_EXTENDED: u32 = 1 << 15;
/// Multicast and VLAN filter tables.
pub(crate) const MTA: usize = 0x5200;
pub(crate) const VFTA: usize = 0x5600;
/// Registers of each.
pub(crate) const TABLE: usize = 128;
/// Receive address 0: low, and high with "valid".
pub(crate) const RAL0: usize = 0x5400;
pub(crate) const RAH0: usize = 0x5404;
pub(crate) const RAH_VALID: u32 = 1 << 31;
/// Multiple receive queues command: RSS, and what it hashes. Not UDP.
pub(crate) const MRQC: usize = 0x5818;
pub(crate) const MRQC_RSS: u32 = 1;
pub(crate) const MRQC_TCP_V4: u32 = 1 << 16;
pub(crate) const MRQC_V4: u32 = 1 << 17;
pub(crate) const MRQC_V6: u32 = 1 << 20;
/// Redirection table: 128 bytes, whose highest bit is the queue.
pub(crate) const RETA: usize = 0x5c00;
pub(crate) const RETA_QUEUE_SHIFT: u32 = 7;
/// The hash's key: 40 bytes.
pub(crate) const RSSRK: usize = 0x5c80;

// 10.2.6, transmit.

/// Transmit control.
pub(crate) const TCTL: usize = 0x0400;
pub(crate) const TCTL_ENABLE: u32 = 1 << 1;
pub(crate) const TCTL_PAD: u32 = 1 << 3;
/// Collision threshold and distance of full duplex.
pub(crate) const TCTL_COLLISIONS: u32 = 15 << 4 | 0x3f << 12;

// 10.2.7, statistics: cleared by reading.

/// CRC errors.
pub(crate) const CRCERRS: usize = 0x4000;
/// Missed packets: no room in the receive FIFO.
pub(crate) const MPC: usize = 0x4010;
/// Fragments, oversized frames, jabber.
pub(crate) const RFC: usize = 0x40a8;
pub(crate) const ROC: usize = 0x40ac;
pub(crate) const RJC: usize = 0x40b0;
