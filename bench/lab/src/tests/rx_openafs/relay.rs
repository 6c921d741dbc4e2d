//! The gateway as a relay between OpenAFS's programs and servers: what they say to each other crosses unchanged.

use std::time::Duration;

use super::cell::{self, Proof, Seen};
use super::{can_be_read, must_be_secured};
use crate::bench::arms;
use crate::fault::{Context, Fault, Result, ensure};
use crate::figures::Figures;
use crate::gateway::{Gateway, Plan, RXPERF};
use crate::net::{BACK, FRONT, Net, Wire, server};
use crate::openafs::keys::Keys;
use crate::openafs::script;
use crate::step::Cx;
use crate::tshark::{Capture, Captured};

fn plan(pools: Plan) -> Plan {
    Plan { mode: "relay", ..pools }
}

/// The whole script without keys, through the relay and against a copy of the same cell.
pub fn openafs(cx: &Cx<'_>) -> Result {
    let lines = [script::changes(), script::reads()].concat();
    let seen = compare(cx, None, &[&["-noauth"]], |_| lines.clone())?;
    // 200 users, and each with a process and so a connection of its own.
    let connected = seen.figures.relay.connected;
    ensure!(connected > 200, "only {connected} connections crossed");
    Ok(())
}

/// Clients that prove who they are, and encrypt; the gateway has no key.
pub fn rxkad(cx: &Cx<'_>) -> Result {
    // And whether what they say can be read on the way.
    const PROOFS: [(Proof, bool); 3] =
        [(&["-noauth"], true), (&["-localauth"], true), (&["-localauth", "-encrypt"], false)];
    for keys in [Keys::des(cx)?, Keys::ext(cx)?] {
        let seen = compare(cx, Some(&keys), &PROOFS.map(|(proof, _)| proof), script::few_changes)?;
        let connected = seen.figures.relay.connected;
        ensure!(connected > 40, "only {connected} connections crossed");
        must_be_secured(cx, &seen.front, 20, 20)?;
        for (number, (proof, readable)) in PROOFS.into_iter().enumerate() {
            ensure!(can_be_read(cx, &seen.front, number)? == readable, "{proof:?}");
        }
    }
    Ok(())
}

/// As [`cell::compare`], and every byte of Rx is the same on both sides.
fn compare(
    cx: &Cx<'_>,
    keys: Option<&Keys>,
    proofs: &[Proof],
    script: impl Fn(usize) -> Vec<script::Line>,
) -> Result<Seen> {
    let seen = cell::compare(cx, &plan(Plan::openafs(&[server(0)])), keys, proofs, script)?;
    same_bytes(cx, &seen.front, &seen.back, &seen.figures)?;
    judge(&seen.figures)?;
    Ok(seen)
}

/// Every byte of Rx that came from one side left on the other, in both directions, and nothing else did.
fn same_bytes(cx: &Cx<'_>, front: &Captured, back: &Captured, figures: &Figures) -> Result {
    let relay = &figures.relay;
    let directions = [
        ("requests", "dst", "src", relay.packets_to_servers),
        ("replies", "src", "dst", relay.packets_to_clients),
    ];
    let of_gateway = back.fields(cx, &format!("ip.src == {BACK}"), &["frame.time_epoch"])?;
    let Some([ended]) = of_gateway.last().map(Vec::as_slice) else {
        return Err(Fault::Check("the gateway sent nothing to its servers".into()));
    };
    for (direction, ours, theirs, counted) in directions {
        let clients = front.rx_payloads(cx, &format!("ip.{ours} == {FRONT}"))?;
        let filter = format!("ip.{theirs} == {BACK}");
        let mut servers = back.rx_payloads(cx, &filter)?;
        // A server may repeat the last packet of a call, whose client is gone, to a gateway that is gone as well.
        let late = back.rx_payloads(cx, &format!("{filter} && frame.time_epoch > {ended}"))?;
        servers.retain(|packet| clients.binary_search(packet).is_ok() || late.binary_search(packet).is_err());
        cx.log.line(format!(
            "{direction}: {} packets on the clients' side, {} on the servers'",
            clients.len(),
            servers.len()
        ));
        ensure!(clients.len() > 20, "only {} packets of {direction} were on the wire", clients.len());
        ensure!(counted == clients.len() as u64, "{counted} packets of {direction} in the gateway's figures");
        let only =
            |a: &[String], b: &[String]| a.iter().filter(|payload| b.binary_search(payload).is_err()).count();
        let (lost, new) = (only(&clients, &servers), only(&servers, &clients));
        ensure!(
            clients == servers,
            "{direction} are not the same on both sides: {lost} of {} on the clients' side alone, {new} of {} on the servers'",
            clients.len(),
            servers.len()
        );
    }
    Ok(())
}

/// Nothing was refused or aborted by the relay, and no call ended there.
fn judge(figures: &Figures) -> Result {
    figures.must_close()?;
    ensure!(figures.calls.accepted == 0, "calls ended at the gateway: {:?}", figures.calls);
    ensure!(figures.relay.aborts == 0, "clients were aborted: {:?}", figures.relay);
    let refused: Vec<_> = figures.drops.iter().filter(|(name, _)| name.starts_with("relay_")).collect();
    ensure!(refused.is_empty(), "packets did not cross: {refused:?}");
    Ok(())
}

/// Tickets from a real KDC cross as they are: the servers see who has them.
pub fn kdc(cx: &Cx<'_>) -> Result {
    let (seen, owner) = cell::people(cx, |_, _| plan(Plan::openafs(&[server(0)])))?;
    ensure!(owner == "admin", "the group that admin made belongs to {owner:?}");
    seen.front.must_be_clean(cx)?;
    seen.back.must_be_clean(cx)?;
    same_bytes(cx, &seen.front, &seen.back, &seen.figures)?;
    let tickets = seen.front.fields(cx, "rx.type == 7", &["rx.kvno"])?;
    ensure!(tickets.iter().flatten().all(|kvno| kvno == "256"), "tickets of other kinds: {tickets:?}");
    ensure!(tickets.len() >= 10, "only {} RESPONSEs crossed", tickets.len());
    // Three refusals, one at each level, and nothing else.
    let aborts = seen.front.aborts(cx)?;
    ensure!(aborts.values().sum::<usize>() == 3 && aborts.len() == 1, "aborts {aborts:?}");
    judge(&seen.figures)
}

/// OpenAFS's own Rx on both sides; the server calls back the address and port that it saw.
pub fn callback(cx: &Cx<'_>) -> Result {
    const CALLS: u64 = 200;
    let program = arms::afs_callback(cx)?;
    let net = Net::build(cx, Wire::AfPacket, 1)?;
    let port = RXPERF.0.to_string();
    let serve = net.servers[0].cmd(&program).args(["server", &port]);
    let _server = serve.start(cx, "server")?;
    let gateway = Gateway::start(cx, &net, &plan(Plan::rxperf(&[server(0)])))?;
    let [front_tap, back_tap] = net.taps();
    let captures = [Capture::start(cx, front_tap, "front")?, Capture::start(cx, back_tap, "back")?];
    // Three clients at once: each is called at a port of its own, or it would answer for another.
    let told = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..3)
            .map(|_| {
                let client =
                    net.client.cmd(&program).args(["client", &FRONT.to_string(), &port, &CALLS.to_string()]);
                scope.spawn(move || client.limit(Duration::from_secs(60)).ok(cx))
            })
            .collect();
        let joined = clients
            .into_iter()
            .map(|client| client.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        joined.collect::<Result<Vec<_>>>()
    })?;
    for output in told {
        cx.log.line(output.stdout.trim());
        let object: serde_json::Value = serde_json::from_str(output.stdout.trim())
            .map_err(std::io::Error::from)
            .context(|| "read a client's figures".into())?;
        ensure!(object["failed"] == 0 && object["called_back"] == CALLS, "a client told {object}");
    }
    let figures = gateway.stop(cx)?;
    let [front, back] = captures.map(|capture| capture.stop(cx));
    let (front, back) = (front?, back?);
    for captured in [&front, &back] {
        captured.must_be_clean(cx)?;
        ensure!(captured.aborts(cx)?.is_empty(), "calls were aborted: {:?}", captured.aborts(cx)?);
    }
    same_bytes(cx, &front, &back, &figures)?;
    judge(&figures)?;
    let relay = &figures.relay;
    // The server makes a connection for each call back.
    ensure!(relay.called_back == 3 * CALLS, "{} connections were begun by the server", relay.called_back);
    let ports = back.fields(
        cx,
        &format!("ip.src == {BACK} && rx.type == 1 && rx.flags.client_init == 1"),
        &["udp.srcport"],
    )?;
    let ports: std::collections::BTreeSet<_> = ports.into_iter().flatten().collect();
    ensure!(ports.len() == 3, "three clients at the ports {ports:?}");
    Ok(())
}
