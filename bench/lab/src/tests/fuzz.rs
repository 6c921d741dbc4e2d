//! Frames that nobody should send, thrown at a gateway that serves.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pmd::{Burst, Clock, OpenOptions, PoolConfig};

use crate::fault::{Context, Fault, Result, ensure};
use crate::frames::{Frames, Target};
use crate::gateway::{Gateway, Plan};
use crate::net::{CLIENT, FRONT, FRONT6, Net, Wire, server};
use crate::ns::Netns;
use crate::openafs::client::{Client, must_equal};
use crate::openafs::servers::Servers;
use crate::openafs::{PROTECTION, VLDB, script, seed};
use crate::process_figures::{open_files, resident};
use crate::step::Cx;
use crate::tshark::Capture;

const FRAMES: u64 = 200_000;

/// No panic, no leak, the ledger closes, and real calls are answered as ever all the while.
pub fn fuzz(cx: &Cx<'_>) -> Result {
    let databases = seed::databases(cx)?;
    let net = Net::build(cx, Wire::AfPacket, 1)?;
    let mut servers = Servers::start(cx, &net.servers[0], "served", server(0), Some(&databases))?;
    let mut gateway = Gateway::start(cx, &net, &Plan::openafs(&[server(0)]))?;
    servers.ready(cx)?;
    let client = Client::new(cx, &net.client, "gateway", FRONT)?;
    let reads = script::reads();
    let expected = client.run(cx, "before", &reads)?;
    let (memory, files) = (resident(gateway.pid())?, open_files(gateway.pid())?);
    let received = gateway.figures(cx)?.ledger.received;

    let seed =
        std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    cx.log.line(format!("{FRAMES} frames; again with SEED={seed} cargo lab test fuzz"));
    let honest = Capture::of(cx, (&net.client, "cli0"), "honest", &format!("host {CLIENT}"))?;
    let over = AtomicBool::new(false);
    let rounds = std::thread::scope(|scope| {
        let thrower = scope.spawn(|| {
            let thrown = throw(cx, &net.client, seed);
            over.store(true, Ordering::Release);
            thrown
        });
        let mut rounds = 0;
        while !over.load(Ordering::Acquire) {
            let answers = client.run(cx, "meanwhile", &reads)?;
            must_equal("while frames were thrown", &answers, &expected)?;
            gateway.must_live()?;
            rounds += 1;
        }
        thrower.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok(rounds)
    })?;
    ensure!(rounds > 0, "no real calls were made meanwhile");
    cx.log.line(format!("{rounds} rounds of real calls were answered meanwhile"));

    let figures = gateway.figures(cx)?;
    let arrived = figures.ledger.received - received;
    ensure!(arrived >= FRAMES, "only {arrived} frames arrived");
    ensure!(!figures.drops.is_empty(), "nothing of this was dropped by name");
    cx.log.line(format!("drops: {:?}", figures.drops));
    let grown = resident(gateway.pid())?.saturating_sub(memory);
    ensure!(grown < 32 << 20, "resident memory grew by {grown} bytes");
    let files_now = open_files(gateway.pid())?;
    ensure!(files_now == files, "{files} file descriptors before, {files_now} after");
    honest.stop(cx)?; // kept, for whoever has to find out why a real call was slow
    let answers = client.run(cx, "after", &reads)?;
    must_equal("after the frames", &answers, &expected)?;
    gateway.stop(cx)?.must_close()
}

/// Sends them from the client's interface, in bursts, at a pace that the receiving ring can take.
fn throw(cx: &Cx<'_>, ns: &Netns, seed: u64) -> Result {
    let target = Target {
        mac: gateway_mac(cx, ns)?,
        address: FRONT,
        address6: FRONT6.parse::<std::net::Ipv6Addr>().expect("an address").octets(),
        ports: [VLDB.0, PROTECTION.0],
        client: CLIENT,
    };
    ns.within(|| {
        let broken = |error: &dyn std::fmt::Display| Fault::Check(format!("af_packet in the lab: {error}"));
        let mut port =
            pmd::open("af_packet:cli0", &OpenOptions::default()).map_err(|error| broken(&error))?;
        let pool = PoolConfig::new("fuzz", 1024).build().map_err(|error| broken(&error))?;
        let mut queue =
            port.open_queues(&[pool.handle()]).map_err(|error| broken(&error))?.pop().expect("one queue");
        let (mut pool, mut frames) = (pool.claim(), Frames::new(seed, target));
        let (mut burst, mut left) = (Burst::new(), FRAMES);
        while left > 0 || !burst.is_empty() {
            cx.check()?;
            while left > 0 && !burst.is_full() {
                burst.push(pool.copy_from(&frames.next_frame()).expect("more buffers than a burst needs"));
                left -= 1;
            }
            queue.tx_burst(Clock::now(), &mut burst);
            std::thread::sleep(Duration::from_micros(500));
        }
        Ok(())
    })
}

/// As the client's kernel has learned it.
fn gateway_mac(cx: &Cx<'_>, ns: &Netns) -> Result<[u8; 6]> {
    let told = ns.cmd("ip").args(["-j", "neigh", "show", &FRONT.to_string()]).ok(cx)?.stdout;
    let entries: serde_json::Value = serde_json::from_str(&told)
        .map_err(std::io::Error::from)
        .context(|| format!("`ip -j neigh` said {told:?}"))?;
    let text = entries[0]["lladdr"].as_str().unwrap_or_default();
    let bytes: Vec<u8> = text.split(':').filter_map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
    let mac = <[u8; 6]>::try_from(bytes);
    mac.map_err(|_| Fault::Check(format!("the client's kernel knows no MAC address of {FRONT}: {told:?}")))
}
