//! Sends datagrams back, on one thread and one wire.

use std::time::Duration;

use pmd::Clock;

use crate::Trouble;
use crate::serving::{Counts, TURNS};
use crate::wire::Wire;

/// So often a sleeping server looks whether it shall end.
const LOOK: Duration = Duration::from_millis(100);

/// Serves until it shall stop.
pub fn echo(wire: &mut dyn Wire, counts: &Counts) -> Result<(), Trouble> {
    while !counts.stopped() {
        for _ in 0..TURNS {
            let (came, left) = wire.echo(Clock::now(), LOOK)?;
            counts.served(came - left);
            counts.failed(left);
            if came == 0 {
                break;
            }
        }
    }
    Ok(())
}
