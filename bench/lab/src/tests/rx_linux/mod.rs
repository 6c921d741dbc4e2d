//! The Linux kernel's own Rx, AF_RXRPC, in a guest: our server for its clients, and its server for ours.
//!
//! bench/arms/afrxrpc.c is both in the guest. It and `rxline rxperf` speak one protocol and verify each byte of every request and
//! reply. All packets are captured and read by tshark at the end, and no ABORT is on the wire but those that a check wanted.

mod checks;
mod place;

use crate::fault::Result;
use crate::step::Cx;
use place::{Family, Place};

/// Security index 0.
pub fn none(cx: &Cx<'_>) -> Result {
    let mut place = Place::make(cx)?;
    let capture = place.capture(cx)?;
    // The guest's kernel gives that call up after twenty seconds of silence: the other checks run meanwhile.
    checks::our_server_restarts(cx, &mut place)?;
    for family in Family::BOTH {
        checks::calls_from_the_guest(&mut place, family)?;
        checks::calls_to_the_guest(cx, &mut place, family)?;
    }
    checks::aborts_from_the_guest(&mut place)?;
    checks::aborts_to_the_guest(cx, &mut place)?;
    checks::an_upgrade_that_we_do_not_offer(&mut place)?;
    checks::the_guest_closes(cx, &mut place)?;
    checks::we_close(cx, &mut place)?;
    checks::the_guest_restarts(cx, &mut place)?;
    checks::the_call_of_before_has_ended(cx, &mut place)?;
    place.stop(cx, capture)
}
