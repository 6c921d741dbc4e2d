//! The gateway as a relay between OpenAFS's programs and servers: what they say to each other crosses unchanged.

use std::time::Duration;

use crate::bench::arms;
use crate::fault::{Context, Fault, Result, ensure};
use crate::figures::Figures;
use crate::gateway::{Gateway, Plan, RXPERF};
use crate::net::{BACK, FRONT, Net, Wire, server};
use crate::openafs::VLDB;
use crate::openafs::client::{Answer, Client, must_equal};
use crate::openafs::kdc::Kdc;
use crate::openafs::keys::Keys;
use crate::openafs::script::{self, Line};
use crate::openafs::seed;
use crate::openafs::servers::Servers;
use crate::proc::Cmd;
use crate::step::Cx;
use crate::tshark::{Capture, Captured};

/// How clients show who they are, and whether what they say can be read on the way.
type Proof = (&'static [&'static str], bool);

fn plan(pools: Plan) -> Plan {
    Plan { mode: "relay", ..pools }
}

/// The whole script without keys, through the relay and against a copy of the same cell.
pub fn openafs(cx: &Cx<'_>) -> Result {
    let lines = [script::changes(), script::reads()].concat();
    let figures = compare(cx, None, &[(&["-noauth"], true)], |_| lines.clone())?;
    // 200 users, and each with a process and so a connection of its own.
    ensure!(figures.relay.connected > 200, "only {} connections crossed", figures.relay.connected);
    Ok(())
}

/// Clients that prove who they are, and encrypt; the gateway has no key.
pub fn rxkad(cx: &Cx<'_>) -> Result {
    for keys in [Keys::des(cx)?, Keys::ext(cx)?] {
        let proofs: [Proof; 3] =
            [(&["-noauth"], true), (&["-localauth"], true), (&["-localauth", "-encrypt"], false)];
        let figures = compare(cx, Some(&keys), &proofs, script::few_changes)?;
        ensure!(figures.relay.connected > 40, "only {} connections crossed", figures.relay.connected);
    }
    Ok(())
}

/// Runs `script` with each proof through the relay and against a copy of the same cell; answers, aborts and every byte of Rx are
/// the same.
fn compare(
    cx: &Cx<'_>,
    keys: Option<&Keys>,
    proofs: &[Proof],
    script: impl Fn(usize) -> Vec<Line>,
) -> Result<Figures> {
    let databases = seed::databases(cx)?;
    let net = Net::build(cx, Wire::AfPacket, 2)?;
    let start = |index: usize, name| {
        Servers::start_with(cx, &net.servers[index], name, server(index), Some(&databases), keys)
    };
    let (mut served, mut copy) = (start(0, "served")?, start(1, "copy")?);
    let gateway = Gateway::start(cx, &net, &plan(Plan::openafs(&[server(0)])))?;
    served.ready(cx)?;
    copy.ready(cx)?;

    let ask = |client: Client<'_>, name: &str, number: usize| -> Result<Vec<Answer>> {
        let client = match keys {
            Some(keys) => client.with_keys(keys, proofs[number].0)?,
            None => client,
        };
        client.run(cx, name, &script(number))
    };
    let direct = Capture::start(cx, (&net.direct, "v0"), "direct")?;
    let mut expected = Vec::new();
    for number in 0..proofs.len() {
        let name = format!("direct{number}");
        expected.push(ask(Client::new(cx, &net.direct, &name, server(1))?, &name, number)?);
    }
    let aborts = direct.stop(cx)?.aborts(cx)?;
    let [front_tap, back_tap] = net.taps();
    let captures = [Capture::start(cx, front_tap, "front")?, Capture::start(cx, back_tap, "back")?];
    version(cx, &net)?;
    for (number, expected) in expected.iter().enumerate() {
        let name = format!("relayed{number}");
        let answers = ask(Client::new(cx, &net.client, &name, FRONT)?, &name, number)?;
        must_equal(&format!("through the relay, {:?}", proofs[number].0), &answers, expected)?;
    }
    let figures = gateway.stop(cx)?;
    let [front, back] = captures.map(|capture| capture.stop(cx));
    let (front, back) = (front?, back?);
    for (captured, side) in [(&front, "front"), (&back, "back")] {
        captured.must_be_clean(cx)?;
        let seen = captured.aborts(cx)?;
        ensure!(seen == aborts, "{side}: aborts {seen:?}, but {aborts:?} without the relay");
    }
    same_bytes(cx, &front, &back, &figures)?;
    if keys.is_some() {
        secured(cx, &front, proofs)?;
    }
    judge(&figures)?;
    Ok(figures)
}

/// Who asks the listener for its version is answered by the gateway.
fn version(cx: &Cx<'_>, net: &Net) -> Result {
    let (host, port) = (FRONT.to_string(), VLDB.0.to_string());
    let told = net.client.cmd("rxdebug").args(["-servers", &host, "-port", &port, "-version"]).ok(cx)?.stdout;
    ensure!(told.contains("AFS version: rxline "), "rxdebug -version said {told:?}");
    Ok(())
}

/// Every byte of Rx that came from one side left on the other, in both directions, and nothing else did.
fn same_bytes(cx: &Cx<'_>, front: &Captured, back: &Captured, figures: &Figures) -> Result {
    let relay = &figures.relay;
    let directions = [
        ("requests", "dst", "src", relay.packets_to_servers),
        ("replies", "src", "dst", relay.packets_to_clients),
    ];
    for (direction, ours, theirs, counted) in directions {
        let clients = front.rx_payloads(cx, &format!("ip.{ours} == {FRONT}"))?;
        let servers = back.rx_payloads(cx, &format!("ip.{theirs} == {BACK}"))?;
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

/// Clients were challenged, and what was to be encrypted cannot be read.
fn secured(cx: &Cx<'_>, front: &Captured, proofs: &[Proof]) -> Result {
    for (what, filter) in [
        ("CHALLENGE", "rx.type == 6"),
        ("RESPONSE", "rx.type == 7"),
        ("rxkad DATA", "rx.type == 1 && rx.securityindex == 2"),
    ] {
        let count = front.count(cx, filter)?;
        cx.log.line(format!("{count} {what} packets"));
        ensure!(count > 20, "only {count} {what} packets crossed");
    }
    for (number, (proof, readable)) in proofs.iter().enumerate() {
        // A volume that does not exist: only this proof's script speaks of it.
        let count = front.count(cx, &format!("udp contains \"nosuch{number}\""))?;
        cx.log.line(format!("{proof:?}: {count} packets name its volume"));
        ensure!((count > 0) == *readable, "{proof:?}: {count} packets name its volume");
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

/// A ticket from a real KDC, at rxkad's three levels: an administrator locks a volume's entry and unlocks it, anybody reads that, and somebody else
/// may not. All of it is the same without the relay.
pub fn kdc(cx: &Cx<'_>) -> Result {
    let program = arms::afs_ticket(cx)?;
    let databases = seed::databases(cx)?;
    let net = Net::build(cx, Wire::AfPacket, 2)?;
    let kdc = Kdc::start(cx, &net.client, &["admin", "guest"])?;
    kdc.log_in(cx, "admin")?;
    kdc.log_in(cx, "guest")?;
    let keys = Keys::of_keytab(cx, "keys-kdc", &kdc.keytab(), 1)?;
    let keys = Some(&keys);
    let mut served = Servers::start_with(cx, &net.servers[0], "served", server(0), Some(&databases), keys)?;
    let gateway = Gateway::start(cx, &net, &plan(Plan::openafs(&[server(0)])))?;
    served.ready(cx)?;
    let [front_tap, back_tap] = net.taps();
    let captures = [Capture::start(cx, front_tap, "front")?, Capture::start(cx, back_tap, "back")?];
    let reader = Client::new(cx, &net.client, "reader", FRONT)?;
    let read = |words: &str| -> Result<String> {
        let args = words.split_whitespace().map(String::from).collect();
        Ok(reader.cmd(&Line { tool: "vos", args, stdin: String::new() }).ok(cx)?.stdout)
    };
    let locked =
        || -> Result<bool> { Ok(read("listvldb -locked")?.lines().any(|line| line.trim() == "vol.3")) };
    let entry = read("listvldb -name vol.3")?;
    let volume = entry.split("RWrite: ").nth(1).and_then(|rest| rest.split_whitespace().next());
    let volume = volume.ok_or_else(|| Fault::Check(format!("no volume in {entry:?}")))?.to_string();
    let ask = |who: &str, level: &str, what: &str| -> Result<bool> {
        let asked = Cmd::new(&program).args([&FRONT.to_string(), "lab.test", level, what, &volume]);
        let told = kdc.cmd_as(who, asked).limit(Duration::from_secs(30)).run(cx)?;
        cx.log.line(format!("{who} at level {level}, {what}: {}{}", told.stdout.trim(), told.stderr.trim()));
        Ok(told.status.success())
    };
    for level in ["0", "1", "2"] {
        ensure!(!ask("guest", level, "lock")?, "level {level}: a stranger may lock");
        ensure!(ask("admin", level, "lock")?, "level {level}: the administrator may not lock");
        ensure!(locked()?, "level {level}: vol.3 is not locked");
        ensure!(ask("admin", level, "unlock")?, "level {level}: the administrator may not unlock");
        ensure!(!locked()?, "level {level}: vol.3 is still locked");
    }
    let figures = gateway.stop(cx)?;
    let [front, back] = captures.map(|capture| capture.stop(cx));
    let (front, back) = (front?, back?);
    front.must_be_clean(cx)?;
    back.must_be_clean(cx)?;
    same_bytes(cx, &front, &back, &figures)?;
    let tickets = front.fields(cx, "rx.type == 7", &["rx.kvno"])?;
    ensure!(tickets.iter().flatten().all(|kvno| kvno == "256"), "tickets of other kinds: {tickets:?}");
    ensure!(tickets.len() >= 9, "only {} RESPONSEs crossed", tickets.len());
    // Three refusals, one at each level, and nothing else.
    let aborts = front.aborts(cx)?;
    ensure!(aborts.values().sum::<usize>() == 3 && aborts.len() == 1, "aborts {aborts:?}");
    judge(&figures)
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
