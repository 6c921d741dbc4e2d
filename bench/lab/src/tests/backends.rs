//! Servers that are equals: both used, a slow one less, a dead one not at all, a returned one again.

use std::time::Duration;

use crate::fault::{Result, ensure};
use crate::figures::{Backend, Figures};
use crate::gateway::{Gateway, Plan};
use crate::net::{FRONT, Net, Wire, server};
use crate::openafs::client::{Client, must_equal};
use crate::openafs::servers::Servers;
use crate::openafs::{script, seed};
use crate::process_figures::open_files;
use crate::rxperf::{self, Load};
use crate::step::Cx;

/// Two copies of one cell: many readers at once get the same answers, and both copies work.
pub fn share(cx: &Cx<'_>) -> Result {
    let databases = seed::databases(cx)?;
    let net = Net::build(cx, Wire::AfPacket, 2)?;
    let mut one = Servers::start(cx, &net.servers[0], "one", server(0), Some(&databases))?;
    let mut two = Servers::start(cx, &net.servers[1], "two", server(1), Some(&databases))?;
    one.ready(cx)?;
    two.ready(cx)?;
    let gateway = Gateway::start(cx, &net, &Plan::openafs(&[server(0), server(1)]))?;
    let reads = script::reads();
    let expected = Client::new(cx, &net.direct, "direct", server(0))?.run(cx, "direct", &reads)?;
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..6)
            .map(|number| {
                let (net, reads, expected) = (&net, &reads, &expected);
                scope.spawn(move || {
                    let name = format!("reader{number}");
                    let client = Client::new(cx, &net.client, &name, FRONT)?;
                    (0..10).try_for_each(|_| must_equal(&name, &client.run(cx, &name, reads)?, expected))
                })
            })
            .collect();
        let joined = readers
            .into_iter()
            .map(|reader| reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        joined.collect::<Result<Vec<()>>>()
    })?;
    let figures = gateway.stop(cx)?;
    figures.must_close()?;
    for pair in figures.backends.chunks(2) {
        let [a, b] = [pair[0].given(), pair[1].given()];
        cx.log.line(format!("{} took {a} calls, {} took {b}", pair[0].address, pair[1].address));
        ensure!(a.min(b) * 4 > a + b, "one copy got less than a quarter of the calls: {a} and {b}");
    }
    Ok(())
}

/// One backend answers ten times as slowly: it gets less than a fifth of the calls.
pub fn slow(cx: &Cx<'_>) -> Result {
    let net = Net::build(cx, Wire::AfPacket, 2)?;
    let _fast = rxperf::serve(cx, &net.servers[0], 0, "")?;
    let _slow = rxperf::serve(cx, &net.servers[1], 1, "sim:seed=7,delay=5ms@")?;
    let backends = [rxperf::address(0), rxperf::address(1)];
    let gateway = Gateway::start(cx, &net, &Plan::rxperf(&backends))?;
    let load = rxperf::load(cx, &net.client, &Load { in_flight: 16, seconds: 5, reply_bytes: 64 })?;
    let report = rxperf::report(&load.ok(cx)?.stdout)?;
    let figures = gateway.stop(cx)?;
    figures.must_close()?;
    let [fast, slow] = [backend(&figures, 0)?, backend(&figures, 1)?];
    cx.log.line(format!("{report:?}; fast {fast}, slow {slow}"));
    ensure!(report.failed == 0, "calls failed: {report:?}");
    ensure!(slow > 0, "the slow one got nothing at all");
    ensure!(slow * 5 < fast + slow, "the slow one got {slow} of {} calls", fast + slow);
    Ok(())
}

/// One of two is killed in mid-load, and comes back later.
pub fn killed(cx: &Cx<'_>) -> Result {
    const IN_FLIGHT: usize = 16;
    let net = Net::build(cx, Wire::AfPacket, 2)?;
    let stays = rxperf::serve(cx, &net.servers[0], 0, "")?;
    let dies = rxperf::serve(cx, &net.servers[1], 1, "")?;
    let mut gateway = Gateway::start(cx, &net, &Plan::rxperf(&[rxperf::address(0), rxperf::address(1)]))?;
    let files = open_files(gateway.pid())?;
    let load = Load { in_flight: IN_FLIGHT, seconds: 12, reply_bytes: 20_000 };
    let mut load = rxperf::load(cx, &net.client, &load)?.start(cx, "load")?;

    cx.pause(Duration::from_secs(2))?;
    let before = gateway.figures(cx)?;
    ensure!(backend(&before, 1)? > 0, "the one to die had no calls: {before:?}");
    drop(dies); // SIGKILL
    gateway.wait_alive(cx, 1)?;
    cx.log.line("the killed one is left out");
    let without = gateway.figures(cx)?;
    cx.pause(Duration::from_secs(1))?;
    let later = gateway.figures(cx)?;
    ensure!(backend(&later, 0)? > backend(&without, 0)?, "the other took no calls");
    ensure!(backend(&later, 1)? == backend(&without, 1)?, "the dead one was given calls");

    let back = rxperf::serve(cx, &net.servers[1], 1, "")?;
    gateway.wait_alive(cx, 2)?;
    cx.wait_for("the returned one is used", Duration::from_secs(5), || {
        Ok((backend(&gateway.figures(cx)?, 1)? > backend(&later, 1)?).then_some(()))
    })?;

    load.wait(cx, Duration::from_secs(45))?;
    let report = rxperf::report(&load.stdout())?;
    cx.log.line(format!("{report:?}"));
    ensure!(report.verified > 0, "no call succeeded");
    let mut after = gateway.figures(cx)?;
    // Those in progress at the kill, and the few begun before it was noticed.
    let lost = after.calls.backend_failed;
    ensure!(lost > 0 && lost as usize <= 4 * IN_FLIGHT, "{lost} calls were lost with the backend");
    ensure!(report.failed == lost, "{lost} calls were lost, and the client saw {} fail", report.failed);
    let clear = report.failures.keys().all(|why| why.contains("-1") || why.contains("CALL_DEAD"));
    ensure!(clear && !report.failures.is_empty(), "calls failed with other codes: {:?}", report.failures);
    for _ in 0..20 {
        if after.calls.in_progress == 0 {
            break;
        }
        after = gateway.figures(cx)?;
    }
    let files_now = open_files(gateway.pid())?;
    ensure!(files_now == files, "{files} file descriptors before, {files_now} after");
    drop((stays, back));
    gateway.stop(cx)?.must_close()
}

/// Calls that a backend was given so far.
fn backend(figures: &Figures, index: usize) -> Result<u64> {
    figures.backend(rxperf::address(index)).map(Backend::given)
}
