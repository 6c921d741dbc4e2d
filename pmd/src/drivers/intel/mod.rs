//! Intel's Ethernet controllers, driven from user space through VFIO.
//!
//! | URL | chips |
//! |---|---|
//! | `e1000e:PCI` | 82574L |
//! | `igb:PCI` | 82576, I350 (copper) |
//! | `ixgbe:PCI` | 82599, X540, X550: not yet run on hardware |
//!
//! What the chips have in common stands here: a ring of received frames ([`rx`]), one of frames to send ([`tx`]), the queue of both
//! ([`queue`]), the port around it ([`port`]), and the registers that are alike ([`common`]). What they do not is behind [`chip::Chip`]: each chip's registers are in its
//! `regs.rs`, with the section of the datasheet that describes them, and how they are used is in its `mod.rs`.
//!
//! A device is not trusted with more than the IOMMU gives it: what it writes into descriptors is checked before use, every
//! wait for it is bounded, and it is kept from all memory before any of that goes back to where it came from.
//!
//! Deliberately absent: flow control, segmentation offload, SR-IOV, wake on LAN, fibre and backplane variants of the 1 Gb/s chips.

mod advanced;
mod bar;
#[cfg(test)]
mod bursts;
mod bus;
mod chip;
mod common;
pub(crate) mod e1000e;
pub(crate) mod error;
pub(crate) mod igb;
pub(crate) mod ixgbe;
mod phy;
mod port;
mod queue;
mod ring;
mod rx;
#[cfg(test)]
mod tests;
mod tx;
mod vfio;
