//! The Linux kernel's own Rx, AF_RXRPC, in a guest: our server for its clients, and its server for ours.
//!
//! bench/arms/afrxrpc.c is both in the guest. It and `rxline rxperf` speak one protocol and verify each byte of every request and
//! reply. All packets are captured and read by tshark at the end, and no ABORT is on the wire but those that a check wanted.

mod checks;
mod place;
mod rxkad;

use crate::fault::Result;
use crate::step::Cx;
use place::{Family, Place, Serving};

/// Security index 0. Over IPv6 both sides offer an upgrade of the service.
pub fn none(cx: &Cx<'_>) -> Result {
    let upgrades = Serving { upgrades: true, ..Serving::default() };
    let mut place = Place::make(cx, [Serving::default(), upgrades])?;
    let capture = place.capture(cx)?;
    // The guest's kernel gives that call up after twenty seconds of silence: the other checks run meanwhile.
    checks::our_server_restarts(cx, &mut place)?;
    for family in Family::BOTH {
        checks::calls_from_the_guest(&mut place, family)?;
        checks::calls_to_the_guest(cx, &mut place, family)?;
    }
    checks::aborts_from_the_guest(&mut place)?;
    checks::aborts_to_the_guest(cx, &mut place)?;
    checks::upgrades(cx, &mut place)?;
    checks::an_upgrade_by_the_guest(cx, &mut place)?;
    checks::the_guest_closes(cx, &mut place)?;
    checks::we_close(cx, &mut place)?;
    checks::the_guest_restarts(cx, &mut place)?;
    checks::the_call_of_before_has_ended(cx, &mut place)?;
    place.stop(cx, capture).map(drop)
}

/// Security index 2: both kernels know the service's DES key, and clients make their tickets from it. Over IPv4 servers take any level, over
/// IPv6 ours takes calls that are encrypted, and both sides offer an upgrade of the service.
pub fn rxkad(cx: &Cx<'_>) -> Result {
    let keys = rxkad::Keys::write(cx)?;
    let mut place = Place::make(cx, rxkad::servers(&keys))?;
    let capture = place.capture(cx)?;
    let mut sealed = rxkad::Sealed::new();
    rxkad::every_level(cx, &mut place, &keys, &mut sealed)?;
    rxkad::upgrades(&mut place, &mut sealed)?;
    rxkad::aborts(cx, &mut place, &keys, &mut sealed)?;
    rxkad::proofs_that_we_refuse(&mut place, &mut sealed)?;
    rxkad::proofs_that_the_guest_refuses(cx, &mut place, &keys, &mut sealed)?;
    let (served, captured) = place.stop(cx, capture)?;
    rxkad::refusals_were_counted(&served)?;
    rxkad::levels_on_the_wire(cx, &captured, &sealed)
}
