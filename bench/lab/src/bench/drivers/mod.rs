//! What ports of each kind can do, beside DPDK, C and the kernel on the same wire.
//!
//! Each part is one set of rounds in a file of its own. Ours is pmd's example `forward`, the same program on every kind of port.

use super::compare::Comparison;
use super::memory;
use super::rounds::Rounds;
use crate::fault::Result;
use crate::step::Cx;

/// All parts.
pub fn drivers(cx: &Cx<'_>, rounds: &mut Rounds) -> Result<Vec<Comparison>> {
    let parts: &[fn(&Cx<'_>, &mut Rounds) -> Result<Vec<Comparison>>] = &[memory::forward];
    let mut lines = Vec::new();
    for part in parts {
        lines.extend(part(cx, rounds)?);
    }
    Ok(lines)
}
