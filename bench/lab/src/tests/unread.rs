//! A thousand calls whose replies nobody reads.

use std::net::SocketAddrV4;
use std::time::Duration;

use crate::fault::{Result, ensure};
use crate::gateway::{Gateway, Plan, RXPERF};
use crate::net::{CLIENT, FRONT, Net, Wire};
use crate::process_figures::resident;
use crate::rawrx::{RudeClient, rxperf_recv};
use crate::rxperf::{self, Load};
use crate::step::Cx;

const CALLS: usize = 1000;
/// Each of them asks for so much.
const REPLY: u32 = 1_000_000;
/// Buffers of the gateway's core: 24 for each of the 2048 calls that may be in progress, and as many again for all together.
const BUFFERS: usize = 65536;
const BUFFERS_PER_CALL: usize = 24;
const CALLS_MAX: usize = 2048;
/// What the process may grow by, beyond packet memory that it had from the start.
const GROWTH: u64 = 24 << 20;

/// Memory stays under its budget, and other calls go on at their normal rate.
pub fn unread(cx: &Cx<'_>) -> Result {
    let net = Net::build(cx, Wire::AfPacket, 1)?;
    let _server = rxperf::serve(cx, &net.servers[0], 0, "")?;
    let plan = Plan { buffers: BUFFERS, ..Plan::rxperf(&[rxperf::address(0)]) };
    let mut gateway = Gateway::start(cx, &net, &plan)?;
    let load = rxperf::load(cx, &net.client, &Load { in_flight: 4, seconds: 5, reply_bytes: 64 })?;
    let normal = rxperf::report(&load.ok(cx)?.stdout)?;
    let before = resident(gateway.pid())?;

    let (meanwhile, rude, peak, held) = std::thread::scope(|scope| {
        let rude = scope.spawn(|| net.client.within(misbehave));
        // The calls are open, and their replies have filled what may be filled.
        cx.pause(Duration::from_secs(2))?;
        let meanwhile = rxperf::report(&load.ok(cx)?.stdout)?;
        let (peak, held) = (resident(gateway.pid())?, gateway.figures(cx)?);
        let rude = rude.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok((meanwhile, rude, peak, held))
    })?;
    cx.log.line(format!("normal {normal:?}\nmeanwhile {meanwhile:?}"));
    cx.log.line(format!("came back to the rude client: {:?}", rude.received));
    cx.log.line(format!("resident {before} bytes, then {peak}; {} buffers held", held.buffers_in_use()));

    ensure!(held.calls.in_progress as usize >= CALLS / 2, "not enough calls were open: {:?}", held.calls);
    ensure!(rude.received.answered >= CALLS * 9 / 10, "few of the calls got anything: {:?}", rude.received);
    ensure!(peak.saturating_sub(before) < GROWTH, "resident memory grew from {before} to {peak} bytes");
    // What each open call has to itself, and what all calls share.
    let budget = (CALLS * BUFFERS_PER_CALL + BUFFERS - CALLS_MAX * BUFFERS_PER_CALL) as u64;
    ensure!(held.buffers_in_use() <= budget, "{} buffers held, {budget} at most", held.buffers_in_use());
    ensure!(meanwhile.failed == 0, "other calls failed: {meanwhile:?}");
    let rate = meanwhile.calls_per_second / normal.calls_per_second;
    ensure!(rate > 0.5, "other calls went on at {rate:.2} of their normal rate");

    // The rude client is gone; its calls have to go as well.
    cx.wait_for("the unread calls end", Duration::from_secs(60), || {
        Ok((gateway.figures(cx)?.calls.in_progress == 0).then_some(()))
    })?;
    gateway.stop(cx)?.must_close()
}

fn misbehave() -> Result<RudeClient> {
    let mut rude = RudeClient::new(CLIENT, SocketAddrV4::new(FRONT, RXPERF.0))?;
    rude.open(CALLS, RXPERF.1, &rxperf_recv(REPLY))?;
    rude.misbehave(Duration::from_secs(10), RXPERF.1)?;
    Ok(rude)
}
