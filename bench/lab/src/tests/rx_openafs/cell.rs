//! The same commands against a cell through the gateway and against a copy of it without, and people with tickets from a KDC.

use std::time::Duration;

use crate::bench::arms;
use crate::fault::{Fault, Result, ensure};
use crate::figures::Figures;
use crate::gateway::{Gateway, Plan};
use crate::net::{FRONT, Net, Wire, server};
use crate::openafs::VLDB;
use crate::openafs::client::{Answer, Client, must_equal};
use crate::openafs::kdc::Kdc;
use crate::openafs::keys::Keys;
use crate::openafs::script::Line;
use crate::openafs::seed;
use crate::openafs::servers::Servers;
use crate::proc::Cmd;
use crate::step::Cx;
use crate::tshark::{Aborts, Capture, Captured};

/// How a client shows who it is: `-noauth`, `-localauth`, `-encrypt`.
pub type Proof = &'static [&'static str];

/// What was seen at the gateway.
pub struct Seen {
    pub figures: Figures,
    /// The clients' side, every packet in order.
    pub front: Captured,
    /// The servers' side, the same.
    pub back: Captured,
}

/// Runs `script` with each proof through the gateway and against a copy of the same cell; answers and aborts are the same.
pub fn compare(
    cx: &Cx<'_>,
    plan: &Plan,
    keys: Option<&Keys>,
    proofs: &[Proof],
    script: impl Fn(usize) -> Vec<Line>,
) -> Result<Seen> {
    let databases = seed::databases(cx)?;
    let net = Net::build(cx, Wire::AfPacket, 2)?;
    let start = |index: usize, name| {
        Servers::start_with(cx, &net.servers[index], name, server(index), Some(&databases), keys)
    };
    let (mut served, mut copy) = (start(0, "served")?, start(1, "copy")?);
    let gateway = Gateway::start(cx, &net, plan)?;
    served.ready(cx)?;
    copy.ready(cx)?;

    let ask = |client: Client<'_>, name: &str, number: usize| -> Result<Vec<Answer>> {
        let client = match keys {
            Some(keys) => client.with_keys(keys, proofs[number])?,
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
        let name = format!("gateway{number}");
        let answers = ask(Client::new(cx, &net.client, &name, FRONT)?, &name, number)?;
        must_equal(&format!("through the gateway, {:?}", proofs[number]), &answers, expected)?;
    }
    let figures = gateway.stop(cx)?;
    let [front, back] = captures.map(|capture| capture.stop(cx));
    let seen = Seen { figures, front: front?, back: back? };
    seen.must_have(cx, &aborts)?;
    Ok(seen)
}

impl Seen {
    /// No packet is malformed, and these calls were aborted, on both sides.
    fn must_have(&self, cx: &Cx<'_>, aborts: &Aborts) -> Result {
        for (captured, side) in [(&self.front, "front"), (&self.back, "back")] {
            captured.must_be_clean(cx)?;
            let seen = captured.aborts(cx)?;
            ensure!(seen == *aborts, "{side}: aborts {seen:?} instead of {aborts:?}");
        }
        Ok(())
    }
}

/// Who asks the listener for its version is answered by the gateway.
fn version(cx: &Cx<'_>, net: &Net) -> Result {
    let (host, port) = (FRONT.to_string(), VLDB.0.to_string());
    let told = net.client.cmd("rxdebug").args(["-servers", &host, "-port", &port, "-version"]).ok(cx)?.stdout;
    ensure!(told.contains("AFS version: rxline "), "rxdebug -version said {told:?}");
    Ok(())
}

/// With tickets from a real KDC, at rxkad's three levels: an administrator locks a volume's entry and unlocks it, anybody reads that,
/// and somebody else may not. `plan` is told the service's keys and the KDC, whose `admin` has a ticket in its cache. Then an
/// administrator makes a group, whose owner is returned.
pub fn people(cx: &Cx<'_>, plan: impl FnOnce(&Keys, &Kdc<'_>) -> Plan) -> Result<(Seen, String)> {
    let program = arms::afs_ticket(cx)?;
    let databases = seed::databases(cx)?;
    let net = Net::build(cx, Wire::AfPacket, 2)?;
    let kdc = Kdc::start(cx, &net.client, &["admin", "guest"])?;
    for who in ["admin", "guest"] {
        kdc.log_in(cx, who)?;
    }
    kdc.cmd_as("admin", Cmd::new("kvno").arg("afs/lab.test")).ok(cx)?;
    let keys = Keys::of_keytab(cx, "keys-kdc", &kdc.keytab(), 1)?;
    let mut served =
        Servers::start_with(cx, &net.servers[0], "served", server(0), Some(&databases), Some(&keys))?;
    let gateway = Gateway::start(cx, &net, &plan(&keys, &kdc))?;
    served.ready(cx)?;
    // Whoever makes a group must be known; who makes them known is at the server's side.
    let local = Client::new(cx, &net.direct, "local", server(0))?.with_keys(&keys, &["-localauth"])?;
    tell(cx, &local, "pts", "createuser -name admin")?;
    let [front_tap, back_tap] = net.taps();
    let captures = [Capture::start(cx, front_tap, "front")?, Capture::start(cx, back_tap, "back")?];
    let reader = Client::new(cx, &net.client, "reader", FRONT)?;
    let locked = || -> Result<bool> {
        Ok(tell(cx, &reader, "vos", "listvldb -locked")?.lines().any(|line| line.trim() == "vol.3"))
    };
    let entry = tell(cx, &reader, "vos", "listvldb -name vol.3")?;
    let volume = entry.split("RWrite: ").nth(1).and_then(|rest| rest.split_whitespace().next());
    let volume = volume.ok_or_else(|| Fault::Check(format!("no volume in {entry:?}")))?.to_string();
    let ask = |who: &str, level: &str, what: &str, argument: &str| -> Result<bool> {
        let asked = Cmd::new(&program).args([&FRONT.to_string(), "lab.test", level, what, argument]);
        let told = kdc.cmd_as(who, asked).limit(Duration::from_secs(30)).run(cx)?;
        cx.log.line(format!("{who} at level {level}, {what}: {}{}", told.stdout.trim(), told.stderr.trim()));
        Ok(told.status.success())
    };
    for level in ["0", "1", "2"] {
        ensure!(!ask("guest", level, "lock", &volume)?, "level {level}: a stranger may lock");
        ensure!(ask("admin", level, "lock", &volume)?, "level {level}: the administrator may not lock");
        ensure!(locked()?, "level {level}: vol.3 is not locked");
        ensure!(ask("admin", level, "unlock", &volume)?, "level {level}: the administrator may not unlock");
        ensure!(!locked()?, "level {level}: vol.3 is still locked");
    }
    ensure!(ask("admin", "2", "group", "admin:made")?, "the administrator may not make a group");
    let figures = gateway.stop(cx)?;
    let [front, back] = captures.map(|capture| capture.stop(cx));
    let seen = Seen { figures, front: front?, back: back? };
    let told = tell(cx, &local, "pts", "examine -nameorid admin:made")?;
    let owner = told.split("owner: ").nth(1).and_then(|rest| rest.split(',').next()).unwrap_or_default();
    Ok((seen, owner.to_string()))
}

fn tell(cx: &Cx<'_>, client: &Client<'_>, tool: &'static str, words: &str) -> Result<String> {
    let args = words.split_whitespace().map(String::from).collect();
    Ok(client.cmd(&Line { tool, args, stdin: String::new() }).ok(cx)?.stdout)
}
