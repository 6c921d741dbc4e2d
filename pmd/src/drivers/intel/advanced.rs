//! What the 82576 and its successors share with the 82599 and its own: advanced descriptors for sending.
//!
//! 82576 datasheet 7.2.2.3 and 7.2.2.4, 82599 datasheet 7.2.3.2.3 and 7.2.3.2.4.

use super::chip::{TxOffload, TxPiece};

// Bits of the second word's lower half.
const CONTEXT: u64 = 2 << 20;
const DATA: u64 = 3 << 20;
const LAST: u64 = 1 << 24;
const INSERT_FCS: u64 = 1 << 25;
const ADVANCED: u64 = 1 << 29;
const INSERT_VLAN: u64 = 1 << 30;
/// In a context: the packet is IPv4, its layer 4 is TCP.
const IPV4: u64 = 1 << 10;
const TCP: u64 = 1 << 11;
// Bits of the second word's upper half.
/// Finish the layer-4 checksum, whose field has the pseudo-header's sum.
const FINISH_L4: u64 = 1 << (32 + 9);
/// "Check context" (82599): the context is the one with index 0.
const CHECK_CONTEXT: u64 = 1 << (32 + 7);
const FRAME_LEN_SHIFT: u32 = 32 + 14;

/// The context descriptor: where headers are, and the tag.
#[inline]
pub(crate) fn tx_context(offload: TxOffload) -> [u64; 2] {
    let vlan = u64::from(offload.vlan.unwrap_or(0)) << 16;
    match offload.checksum {
        None => [vlan | 14 << 9, CONTEXT | ADVANCED],
        Some(plan) => {
            let kind = if plan.ipv4 { IPV4 } else { 0 } | if plan.tcp { TCP } else { 0 };
            [vlan | (plan.l2 as u64) << 9 | plan.l3 as u64, CONTEXT | ADVANCED | kind]
        }
    }
}

/// The descriptor of a piece.
#[inline]
pub(crate) fn tx_data(piece: TxPiece, offload: TxOffload) -> [u64; 2] {
    let mut word =
        piece.len as u64 | DATA | ADVANCED | INSERT_FCS | (piece.frame_len as u64) << FRAME_LEN_SHIFT;
    if piece.last {
        word |= LAST;
    }
    if offload.vlan.is_some() {
        word |= INSERT_VLAN | CHECK_CONTEXT;
    }
    if offload.checksum.is_some() {
        word |= FINISH_L4 | CHECK_CONTEXT;
    }
    [piece.iova, word]
}
