//! OpenAFS's Rx on the other side: its programs and servers with the gateway between them, its library beside ours.
//!
//! The gateway without any security is in [`super::openafs`]; here is what needs more: the gateway as a relay, and whatever has keys.

mod cell;
pub mod relay;
pub mod rxperf;
pub mod terminate;

use crate::fault::{Result, ensure};
use crate::step::Cx;
use crate::tshark::Captured;

/// Names in volumes that do not exist: only the script of the proof with this number speaks of them.
fn can_be_read(cx: &Cx<'_>, captured: &Captured, number: usize) -> Result<bool> {
    let count = captured.count(cx, &format!("udp contains \"nosuch{number}\""))?;
    cx.log.line(format!("{count} packets name the volume of proof {number}"));
    Ok(count > 0)
}

/// Clients were challenged and have answered, and so many packets at least carried calls under rxkad.
fn must_be_secured(cx: &Cx<'_>, captured: &Captured, handshakes: usize, data: usize) -> Result {
    for (what, filter, least) in [
        ("CHALLENGE", "rx.type == 6", handshakes),
        ("RESPONSE", "rx.type == 7", handshakes),
        ("rxkad DATA", "rx.type == 1 && rx.securityindex == 2", data),
    ] {
        let count = captured.count(cx, filter)?;
        cx.log.line(format!("{count} {what} packets"));
        ensure!(count >= least, "only {count} {what} packets were on the wire");
    }
    Ok(())
}
