//! The checks, in the order in which they run. Each leaves both servers running.

use std::time::Duration;

use super::place::{Family, Place, SERVICE, UPGRADED, Work, json, report};
use crate::fault::{Result, ensure};
use crate::proc::Cmd;
use crate::rxperf::Report;
use crate::step::Cx;

/// Requests of this size are refused by the guest's server, with this code.
pub const SIZE_ABORT: usize = 4241;
/// The reply to a request of this size stops in its middle.
const SIZE_HOLD: usize = 4242;
/// Bytes each way, and calls: less than a packet, just one, one byte more, and many. A request begins with 24 bytes of its own.
const SIZES: [(usize, usize); 5] = [(1, 20), (1388, 5), (1389, 5), (100_000, 3), (10_000_000, 1)];
const SIZES6: [(usize, usize); 3] = [(1, 20), (1389, 5), (1_000_000, 1)];
/// Long enough that its second half cannot be taken for the beginning of a call.
const LONG: usize = 1_000_000;
/// The file that guests' clients wait for in the middle of a call.
const GO: &str = "go";
/// What a call of the guest's to a server that restarted says in the end.
const RESTARTED: &str = "restarted";

fn sizes(family: Family) -> &'static [(usize, usize)] {
    match family {
        Family::V4 => &SIZES,
        Family::V6 => &SIZES6,
    }
}

/// Every byte of every request arrives, and every byte of the replies.
pub fn calls_from_the_guest(place: &mut Place<'_>, family: Family) -> Result {
    for &(bytes, calls) in sizes(family) {
        let told = place.call_from_guest(family, Work::calls(calls, bytes))?;
        let well = told.verified == calls as u64 && told.failed == 0 && told.service == SERVICE;
        ensure!(well, "{calls} calls of {bytes} bytes from the guest, {family:?}: {told:?}");
    }
    Ok(())
}

/// The same the other way, two calls at once.
pub fn calls_to_the_guest(cx: &Cx<'_>, place: &mut Place<'_>, family: Family) -> Result {
    for &(bytes, calls) in sizes(family) {
        let count = calls.to_string();
        let client = place.to_guest(family, (bytes, bytes), &["--calls", &count, "--in-flight", "2"]);
        let report = report(cx, &client)?;
        let services = [(SERVICE, calls as u64)].into();
        let well = report.verified == calls as u64 && report.failed == 0 && report.services == services;
        ensure!(well, "{calls} calls of {bytes} bytes to the guest, {family:?}: {report:?}");
    }
    Ok(())
}

/// Our server refuses a call; the guest's client gives one up.
pub fn aborts_from_the_guest(place: &mut Place<'_>) -> Result {
    let told = place.call_from_guest(Family::V4, Work { mode: "badop", ..Work::calls(1, 100) })?;
    ensure!(told.end == "abort -455", "our server's refusal reached the guest as {told:?}");
    place.expect_abort(-455);
    let told = place.call_from_guest(Family::V4, Work { mode: "abort=77", ..Work::calls(1, LONG) })?;
    ensure!(told.end == "abort 77", "the guest's own abort ended its call so: {told:?}");
    place.allow_abort(77);
    Ok(())
}

/// The guest's server refuses a call; our client gives one up when its time is over, in the middle of the reply.
pub fn aborts_to_the_guest(cx: &Cx<'_>, place: &mut Place<'_>) -> Result {
    let client = place.to_guest(Family::V4, (SIZE_ABORT, 1), &["--calls", "1"]);
    must_fail(&report(cx, &client)?, "aborted by the peer with 4241")?;
    place.expect_abort(SIZE_ABORT as i64);
    let client = place.to_guest(Family::V6, (SIZE_HOLD, LONG), &["--calls", "1", "--timeout", "1"]);
    must_fail(&report(cx, &client)?, "timed out: the call's time limit")?;
    place.expect_abort(-3);
    cx.wait_for("the guest's server is told of the timeout", Duration::from_secs(5), || {
        Ok(place.guest_said(Family::V6).contains("abort -3").then_some(()))
    })
}

/// Calls that ask for an upgrade.
const UPGRADES: u64 = 4;

/// The guest's client asks for an upgrade and gets it over IPv6, where our server offers one; over IPv4 it is served by the service that it
/// called. Likewise ours at the guest's server over IPv4, which offers none.
pub fn upgrades(cx: &Cx<'_>, place: &mut Place<'_>) -> Result {
    // In a packet, and in many.
    for bytes in [100, 50_000] {
        for (family, answers) in [(Family::V4, SERVICE), (Family::V6, UPGRADED)] {
            let told = place.call_from_guest(family, asking(bytes))?;
            let well = told.verified == UPGRADES && told.failed == 0 && told.service == answers;
            ensure!(
                well,
                "calls of {bytes} bytes from the guest that ask for an upgrade, {family:?}: {told:?}"
            );
        }
        let report = report(cx, &ours_asks(place, Family::V4, bytes))?;
        let well = report.failed == 0 && report.services == [(SERVICE, UPGRADES)].into();
        ensure!(well, "calls of {bytes} bytes to the guest that ask for an upgrade in vain: {report:?}");
    }
    Ok(())
}

/// Over IPv6 the guest's server upgrades, and our client fares as the guest's own does.
///
/// Linux 6.12 keeps its answer to itself: once it has upgraded a connection its packets name the old service as before, and it aborts
/// calls whose packets do so, those of its own client too. Where a kernel answers with the new service, that is where our calls have to
/// have gone.
pub fn an_upgrade_by_the_guest(cx: &Cx<'_>, place: &mut Place<'_>) -> Result {
    let own = place.guest_to_itself(Family::V6, asking(100))?;
    let report = report(cx, &ours_asks(place, Family::V6, 100))?;
    cx.log.line(format!("upgraded by the guest: its own client {own:?}, ours {report:?}"));
    if own.service == UPGRADED {
        let well = report.failed == 0 && report.services == [(UPGRADED, UPGRADES)].into();
        ensure!(well, "calls to the guest that ask for an upgrade: {report:?}, and its own {own:?}");
        return Ok(());
    }
    let reason = "aborted by the peer with -5 (RX_PROTOCOL_ERROR)".to_string();
    // The first reply may come before the ABORT.
    let refused = report.failed > 0 && report.failures == [(reason, report.failed)].into();
    let as_its_own = own.failed > 0 && own.end == "abort -5" && refused;
    ensure!(as_its_own, "calls to the guest that ask for an upgrade: {report:?}, and its own {own:?}");
    // Its ABORTs are what our client was told, above. Of a call that it had begun to answer it takes no last ACK, refused or not, and
    // in the end gives it up by another code.
    for _ in 0..report.failed + report.verified {
        place.allow_abort(-5);
        place.allow_abort(-3);
    }
    Ok(())
}

fn asking(bytes: usize) -> Work<'static> {
    Work { mode: "upgrade", ..Work::calls(UPGRADES as usize, bytes) }
}

fn ours_asks(place: &Place<'_>, family: Family, bytes: usize) -> Cmd {
    let calls = UPGRADES.to_string();
    place.to_guest(family, (bytes, bytes), &["--calls", &calls, "--in-flight", "2", "--upgrade"])
}

/// The guest's client closes its socket in the middle of a request; its server is killed in the middle of a reply.
pub fn the_guest_closes(cx: &Cx<'_>, place: &mut Place<'_>) -> Result {
    let told = place.call_from_guest(Family::V4, Work { mode: "close", ..Work::calls(1, LONG) })?;
    ensure!(told.end == "closed", "the guest's client did not close its socket: {told:?}");
    place.allow_abort(-1);

    let client = place.to_guest(Family::V4, (SIZE_HOLD, LONG), &["--calls", "1", "--timeout", "10"]);
    let mut client = client.start(cx, "closed-on")?;
    cx.pause(Duration::from_millis(1000))?;
    client.must_live()?;
    place.kill_guests_server(Family::V4)?;
    client.wait(cx, Duration::from_secs(15))?;
    must_fail(&json(&client.stdout())?, "aborted by the peer with -1 (RX_CALL_DEAD)")?;
    place.expect_abort(-1);
    place.guest_serves(cx, Family::V4)
}

/// Our server ends in the middle of a request: the guest's client is told at once. The next server takes the next call.
pub fn we_close(cx: &Cx<'_>, place: &mut Place<'_>) -> Result {
    pause_in_the_middle(cx, place, "left")?;
    let served = place.stop_server(cx, Family::V4)?;
    place.expect_abort(-6);
    // Refused, aborted by the guest, closed by the guest, and the one that it left.
    ensure!(served.failed == 4, "our server counts other failed calls than four: {served:?}");
    place.guest.write(GO, "")?;
    let told = ended(cx, place, "left", Duration::from_secs(5))?;
    ensure!(told.end == "abort -6", "a call that our server left ended so: {told:?}");
    place.serve(cx, Family::V4)?;
    place.guest.remove(GO)?;
    must_serve(place)
}

/// Our server is killed in the middle of a request, and started again.
pub fn our_server_restarts(cx: &Cx<'_>, place: &mut Place<'_>) -> Result {
    pause_in_the_middle(cx, place, RESTARTED)?;
    place.kill_server(Family::V4);
    place.serve(cx, Family::V4)?;
    place.guest.write(GO, "")?;
    must_serve(place)?;
    place.guest.remove(GO)
}

/// The call of [`our_server_restarts`] was not answered, and did not hang.
pub fn the_call_of_before_has_ended(cx: &Cx<'_>, place: &mut Place<'_>) -> Result {
    let told = ended(cx, place, RESTARTED, Duration::from_secs(30))?;
    let code = told.end.strip_prefix("abort ").and_then(|code| code.parse().ok());
    ensure!(matches!(code, Some(-1 | -3)), "a call to a server that restarted ended so: {told:?}");
    place.allow_abort(code.unwrap_or_default());
    Ok(())
}

/// The guest's server is killed and started again while the cable is out: the new one tells our client, as soon as it asks, that it knows
/// nothing of the call. The next call succeeds.
pub fn the_guest_restarts(cx: &Cx<'_>, place: &mut Place<'_>) -> Result {
    let client = place.to_guest(Family::V4, (SIZE_HOLD, LONG), &["--calls", "1", "--timeout", "10"]);
    let mut client = client.start(cx, "restarted-on")?;
    cx.pause(Duration::from_millis(1000))?;
    client.must_live()?;
    place.unplug(cx)?;
    place.kill_guests_server(Family::V4)?;
    place.guest_serves(cx, Family::V4)?;
    // Its kernel's last word, which goes nowhere.
    place.allow_abort(-1);
    cx.pause(Duration::from_millis(300))?;
    place.plug(cx)?;
    client.wait(cx, Duration::from_secs(15))?;
    // It does not know the call that our client asks about.
    must_fail(&json(&client.stdout())?, "aborted by the peer with -5 (RX_PROTOCOL_ERROR)")?;
    place.expect_abort(-5);
    let report = super::place::report(cx, &place.to_guest(Family::V4, (100, 100), &["--calls", "1"]))?;
    ensure!(report.verified == 1, "the next call to the restarted guest: {report:?}");
    Ok(())
}

/// Starts a call of the guest's that waits for [`GO`] in the middle of its request; returns once our server has that half.
fn pause_in_the_middle(cx: &Cx<'_>, place: &mut Place<'_>, name: &str) -> Result {
    place.call_from_guest_meanwhile(name, LONG, &format!("pause=/share/{GO}"))?;
    place.wait_said(cx, name, Duration::from_secs(20), |said| said.contains("half").then_some(()))?;
    // What is in its kernel's queue is acknowledged within that time.
    cx.pause(Duration::from_millis(500))?;
    place.server(Family::V4).must_live()
}

fn ended(cx: &Cx<'_>, place: &Place<'_>, name: &str, limit: Duration) -> Result<super::place::Told> {
    let last = place.wait_said(cx, name, limit, |said| {
        said.lines().last().filter(|last| last.starts_with('{') && last.ends_with('}')).map(String::from)
    })?;
    cx.log.line(format!("{name}: {last}"));
    json(&last)
}

/// Our server takes calls.
fn must_serve(place: &mut Place<'_>) -> Result {
    let told = place.call_from_guest(Family::V4, Work::calls(2, 100))?;
    ensure!(told.verified == 2, "the new server's first calls: {told:?}");
    Ok(())
}

/// Our client's one call failed, for this reason.
pub fn must_fail(report: &Report, with: &str) -> Result {
    let told = report.verified == 0 && report.failed == 1 && report.failures.contains_key(with);
    ensure!(told, "a call is to fail with `{with}`, and: {report:?}");
    Ok(())
}
