//! Figures that Rx tells over the wire: OpenAFS's rxdebug asks us, and ours asks OpenAFS's servers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use serde_json::Value;

use crate::cargo::build_rxline;
use crate::fault::{Fault, Result, ensure};
use crate::gateway::{Gateway, Plan};
use crate::net::{BACK, CLIENT, FRONT, Net, Wire, server};
use crate::ns::Netns;
use crate::openafs::client::Client;
use crate::openafs::servers::Servers;
use crate::openafs::{PROTECTION, script, seed};
use crate::step::Cx;
use crate::tshark::{Capture, Captured, sent};

/// What OpenAFS's rxdebug prints about the gateway is what tshark saw on its two wires.
pub fn of_the_gateway(cx: &Cx<'_>) -> Result {
    let databases = seed::databases(cx)?;
    let net = Net::build(cx, Wire::AfPacket, 1)?;
    let mut servers = Servers::start(cx, &net.servers[0], "served", server(0), Some(&databases))?;
    servers.ready(cx)?;
    let captures = net.taps().map(|tap| Capture::start(cx, tap, tap.1));
    let [front, back] = captures;
    let (front, back) = (front?, back?);
    let gateway = Gateway::start(cx, &net, &Plan::openafs(&[server(0)]))?;
    let version = ask(cx, &net.client, FRONT, &["-version"])?;
    ensure!(version.contains("AFS version: rxline "), "-version said {version:?}");
    // ptserver's replies come without jumbograms, of which tshark would see the first packet alone.
    let lines: Vec<_> = script::reads().into_iter().filter(|line| line.tool == "pts").collect();
    Client::new(cx, &net.client, "gateway", FRONT)?.run(cx, "gateway", &lines)?;
    // Delayed ACKs, and what a server of OpenAFS sends again when one came late: its timer takes up to four seconds.
    cx.pause(Duration::from_secs(5))?;

    let stats = ask(cx, &net.client, FRONT, &["-rxstats", "-noconns"])?;
    let connections = ask(cx, &net.client, FRONT, &["-allconnections"])?;
    let peers = ask(cx, &net.client, FRONT, &["-peers", "-noconns"])?;
    let (front, back) = (front.stop(cx)?, back.stop(cx)?);
    gateway.stop(cx)?.must_close()?;
    compare_counters(cx, &stats, &front, &back)?;
    compare_connections(cx, &connections, &front)?;
    compare_peers(cx, &peers, &front)
}

/// DATA, ACK and ABORT packets, in and out, over both wires.
fn compare_counters(cx: &Cx<'_>, stats: &str, front: &Captured, back: &Captured) -> Result {
    for (head, direction) in [("packets read:", "dst"), ("packets sent:", "src")] {
        let told = counters(stats, head)?;
        for (name, kind) in [("data", 1), ("ack", 2), ("abort", 4)] {
            let filter =
                |address: Ipv4Addr| sent(&format!("rx.type == {kind} && ip.{direction} == {address}"));
            let (front_filter, back_filter) = (filter(FRONT), filter(BACK));
            let seen = front.count(cx, &front_filter)? + back.count(cx, &back_filter)?;
            let told = told.get(name).copied().unwrap_or_default();
            cx.log.line(format!("{head} {name} {told}, seen on the wires {seen}"));
            if told != seen as u64 {
                front.list(cx, &front_filter)?;
                back.list(cx, &back_filter)?;
            }
            ensure!(told == seen as u64, "{head} {name} {told}, but {seen} were on the wires");
            ensure!(kind == 4 || seen > 0, "no {name} packet was on the wires");
        }
    }
    Ok(())
}

/// `Connection from host 10.61.1.2, port 40201, Cuid 9d0db130/a7c303dc`
fn compare_connections(cx: &Cx<'_>, told: &str, front: &Captured) -> Result {
    let from_clients = format!("Connection from host {CLIENT}, port ");
    let told: BTreeSet<String> = told
        .lines()
        .filter_map(|line| line.trim().strip_prefix(&from_clients)?.split_once(", Cuid "))
        .map(|(port, cuid)| format!("{port} {cuid}"))
        .collect();
    // tshark shows an epoch as a date, so the header's first two words are taken as they are.
    let rows = front.fields(cx, &requests(), &["udp.srcport", "udp.payload"])?;
    let seen: BTreeSet<String> = rows.iter().filter_map(|row| port_and_cuid(row)).collect();
    ensure!(!seen.is_empty() && told == seen, "-allconnections told {told:?}, on the wire were {seen:?}");
    Ok(())
}

fn port_and_cuid(row: &[String]) -> Option<String> {
    let [port, payload] = row else { return None };
    let payload = payload.replace(':', "");
    let word = |at: usize| u32::from_str_radix(payload.get(at..at + 8)?, 16).ok();
    Some(format!("{port} {:x}/{:x}", word(0)?, word(8)? & !3))
}

/// DATA from clients.
fn requests() -> String {
    sent(&format!("rx.type == 1 && ip.dst == {FRONT}"))
}

/// `Peer at host 10.61.1.2, port 46732`
fn compare_peers(cx: &Cx<'_>, told: &str, front: &Captured) -> Result {
    let head = format!("Peer at host {CLIENT}, port ");
    let told: BTreeSet<String> =
        told.lines().filter_map(|line| line.trim().strip_prefix(&head)).map(str::to_string).collect();
    let rows = front.fields(cx, &requests(), &["udp.srcport"])?;
    let seen: BTreeSet<String> = rows.into_iter().flatten().collect();
    ensure!(!seen.is_empty(), "no calls were on the wire");
    let missing: Vec<_> = seen.difference(&told).collect();
    ensure!(missing.is_empty(), "-peers left out the ports {missing:?}; it told {told:?}");
    Ok(())
}

/// What `rxline rxdebug` tells of a real server is what OpenAFS's rxdebug tells of it.
pub fn of_openafs(cx: &Cx<'_>) -> Result {
    let databases = seed::databases(cx)?;
    let rxline = build_rxline(cx)?;
    let net = Net::build(cx, Wire::AfPacket, 1)?;
    let mut servers = Servers::start(cx, &net.servers[0], "asked", server(0), Some(&databases))?;
    servers.ready(cx)?;
    Client::new(cx, &net.direct, "direct", server(0))?.run(cx, "direct", &script::reads())?;
    cx.pause(Duration::from_secs(1))?;
    let address = server(0).to_string();
    let ours = |flags: &[&str]| {
        let port = PROTECTION.0.to_string();
        net.direct
            .cmd(&rxline)
            .args(["rxdebug", &address, &port])
            .args(flags)
            .ok(cx)
            .map(|output| output.stdout)
    };

    let version = ask(cx, &net.direct, server(0), &["-version"])?;
    let version = version.lines().find_map(|line| line.strip_prefix("AFS version: ")).unwrap_or("none");
    let told = ours(&["--version"])?;
    ensure!(told.contains(version.trim()), "version {told:?} instead of {version:?}");

    let told = ours(&["--rxstats", "--all-connections", "--peers", "--json"])?;
    let told: Value = serde_json::from_str(&told)
        .map_err(|error| Fault::Check(format!("`rxline rxdebug --json` printed {told:?}: {error}")))?;
    let stats = ask(cx, &net.direct, server(0), &["-rxstats", "-noconns"])?;
    for (head, key) in [("packets read:", "packets_read"), ("packets sent:", "packets_sent")] {
        for (name, expected) in counters(&stats, head)? {
            // Asking is counted, too.
            if name != "debug" && name != "unused" {
                let got = find(&told, key).and_then(|counts| counts[&name].as_u64());
                ensure!(got == Some(expected), "{key} {name}: {got:?} instead of {expected}");
            }
        }
    }
    let connections = ask(cx, &net.direct, server(0), &["-allconnections"])?;
    for (line, key) in
        [(connections, "connections"), (ask(cx, &net.direct, server(0), &["-peers"])?, "peers")]
    {
        let head = if key == "peers" { "Peer at host " } else { "Connection from host " };
        let expected = line.lines().filter(|line| line.trim().starts_with(head)).count();
        let got = told[key].as_array().map_or(0, Vec::len);
        ensure!(expected > 0 && got == expected, "{got} {key} instead of {expected}");
    }
    Ok(())
}

/// OpenAFS's rxdebug.
fn ask(cx: &Cx<'_>, ns: &Netns, host: Ipv4Addr, flags: &[&str]) -> Result<String> {
    let (host, port) = (host.to_string(), PROTECTION.0.to_string());
    let rxdebug = ns.cmd("rxdebug").args([&host, &port]).args(flags).limit(Duration::from_secs(30));
    Ok(rxdebug.ok(cx)?.stdout)
}

/// From `packets read: data 121 ack 140 busy 0 ..`, by name.
fn counters(stats: &str, head: &str) -> Result<BTreeMap<String, u64>> {
    let line = stats.lines().find_map(|line| line.trim().strip_prefix(head));
    let line = line.ok_or_else(|| Fault::Check(format!("-rxstats has no line {head:?}:\n{stats}")))?;
    let words: Vec<&str> = line.split_whitespace().collect();
    let pairs = words.chunks_exact(2).filter_map(|pair| Some((pair[0].to_string(), pair[1].parse().ok()?)));
    Ok(pairs.collect())
}

/// The first value with this key, however deep.
fn find<'v>(value: &'v Value, key: &str) -> Option<&'v Value> {
    let object = value.as_object()?;
    object.get(key).or_else(|| object.values().find_map(|inner| find(inner, key)))
}
