//! The PHY of the 1 Gb/s chips, reached through the MAC's MDIC register (82576 datasheet 8.2.4, 82574 datasheet 10.2.2.7).

use std::time::Duration;

use super::bar::Bar;

/// Management data interface.
const MDIC: usize = 0x0020;
const MDIC_REGISTER_SHIFT: u32 = 16;
/// The internal PHY's address. (The I350 takes it from MDICNFG.)
const MDIC_PHY: u32 = 1 << 21;
const MDIC_WRITE: u32 = 1 << 26;
const MDIC_READ: u32 = 2 << 26;
const MDIC_READY: u32 = 1 << 28;
const MDIC_ERROR: u32 = 1 << 30;
/// An access takes 64 us.
const MDIC_LIMIT: Duration = Duration::from_millis(10);

/// PHY control (IEEE 802.3, 22.2.4.1).
const CONTROL: u32 = 0;
const RESTART_NEGOTIATION: u16 = 1 << 9;
const POWER_DOWN: u16 = 1 << 11;
const NEGOTIATE: u16 = 1 << 12;

/// Powers the PHY up and has it negotiate again: after a reset the link stays down until then. Whoever shares the PHY is
/// kept away by the caller.
pub(crate) fn negotiate(bar: &Bar) {
    let control = read(bar, CONTROL).unwrap_or(0) & !POWER_DOWN;
    write(bar, CONTROL, control | NEGOTIATE | RESTART_NEGOTIATION);
}

fn read(bar: &Bar, register: u32) -> Option<u16> {
    bar.write(MDIC, register << MDIC_REGISTER_SHIFT | MDIC_PHY | MDIC_READ);
    let ready = bar.wait(MDIC, MDIC_READY, MDIC_READY, MDIC_LIMIT);
    let answer = bar.read(MDIC);
    (ready && answer & MDIC_ERROR == 0).then_some(answer as u16)
}

fn write(bar: &Bar, register: u32, value: u16) {
    bar.write(MDIC, u32::from(value) | register << MDIC_REGISTER_SHIFT | MDIC_PHY | MDIC_WRITE);
    bar.wait(MDIC, MDIC_READY, MDIC_READY, MDIC_LIMIT);
}
