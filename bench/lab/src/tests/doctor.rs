//! `rxline doctor` changes nothing, and what it says mends what it complains about.

use std::path::Path;

use serde_json::Value;

use crate::cargo::build_rxline;
use crate::fault::{Context, Fault, Result, ensure};
use crate::net::veth;
use crate::ns::Netns;
use crate::proc::{Cmd, Output};
use crate::step::Cx;
use crate::tests::workspace::NOBODY;

/// Runs its arguments where every file system is read-only.
const READ_ONLY: &str = "\
findmnt -rno TARGET | tac | while read -r mount; do mount -o remount,bind,ro \"$mount\" 2>/dev/null || :; done
if ( : > /run/rxl-doctor ) 2>/dev/null || ( : > /tmp/rxl-doctor ) 2>/dev/null; then exit 99; fi
exec \"$@\"";

/// As root with everything read-only, as nobody, and before and after each mend.
pub fn doctor(cx: &Cx<'_>) -> Result {
    let rxline = build_rxline(cx)?;
    let ns = Netns::create(cx, "doctor")?;
    veth(cx, (&ns, "w0"), (&ns, "w1"))?;
    ns.ip(cx, "link set w1 up")?;

    let before = state(cx, &ns)?;
    let args = ["unshare", "--mount", "--propagation", "private", "sh", "-c", READ_ONLY, "sh"];
    let looked = Cmd::new(&rxline).args(["doctor", "--json"]).under(args);
    let all = looked.under(["ip", "netns", "exec", ns.name()]).run(cx)?;
    ensure!(all.status.code() == Some(0), "with everything read-only it ends with {:?}", all.status.code());
    let all = report(&all)?;
    ensure!(finding(&all, "interface", "w0")?["state"] == "ok", "w0 is down, and nobody asked for it: {all}");
    ensure!(state(cx, &ns)? == before, "looking changed something");

    strangers(cx, &ns, &rxline)?;
    for (name, of) in [("interface", "w0"), ("veth_checksum", "w0")] {
        mend(cx, &ns, &rxline, name, of)?;
    }
    let (status, now) = look(cx, &ns, &rxline, "af_xdp:w0")?;
    let known = now["findings"].as_array().into_iter().flatten();
    let bad: Vec<_> = known.filter(|finding| finding["state"] == "problem").collect();
    ensure!(status == Some(0) && bad.is_empty(), "after all mends: {bad:?}");
    Ok(())
}

/// Nobody may open packet sockets: for a port that needs one that is a problem, and the mend a command.
fn strangers(cx: &Cx<'_>, ns: &Netns, rxline: &Path) -> Result {
    // A copy where everybody may read it.
    let copy = std::env::temp_dir().join(format!("rxl-doctor-{}", cx.host.suffix));
    std::fs::copy(rxline, &copy).context(|| format!("copy {}", rxline.display()))?;
    let cmd = Cmd::new(&copy).args(["doctor", "--json", "af_packet:w1"]).unprivileged(NOBODY).cwd("/");
    let output = cmd.under(["ip", "netns", "exec", ns.name()]).run(cx);
    let _ = std::fs::remove_file(&copy);
    let output = output?;
    ensure!(output.status.code() == Some(1), "nobody's exit code is {:?}", output.status.code());
    let report = report(&output)?;
    let found = finding(&report, "capability", "CAP_NET_RAW")?;
    ensure!(found["state"] == "problem", "nobody is told {found}");
    let mend = found["mend"].as_str().unwrap_or_default();
    ensure!(mend.starts_with("sudo setcap cap_net_raw+ep /"), "nobody is told {mend:?}");
    Ok(())
}

/// A port on w0 has a problem; the command that doctor names is run as it is, and it has none.
fn mend(cx: &Cx<'_>, ns: &Netns, rxline: &Path, name: &str, of: &str) -> Result {
    let (status, before) = look(cx, ns, rxline, "af_xdp:w0")?;
    let found = finding(&before, name, of)?;
    ensure!(status == Some(1) && found["state"] == "problem", "{name} {of}: {found}");
    let command = found["mend"].as_str().unwrap_or_default();
    let command = command.strip_prefix("sudo ").unwrap_or(command);
    ns.cmd("sh").args(["-c", command]).ok(cx)?;
    let after = look(cx, ns, rxline, "af_xdp:w0")?.1;
    let found = finding(&after, name, of)?;
    ensure!(found["state"] == "ok", "{name} {of} after `{command}`: {found}");
    Ok(())
}

fn look(cx: &Cx<'_>, ns: &Netns, rxline: &Path, target: &str) -> Result<(Option<i32>, Value)> {
    let output = ns.cmd(rxline).args(["doctor", "--json", target]).run(cx)?;
    Ok((output.status.code(), report(&output)?))
}

fn report(output: &Output) -> Result<Value> {
    let parsed = serde_json::from_str(&output.stdout);
    parsed.map_err(|error| Fault::Check(format!("{error} in {:?} {:?}", output.stdout, output.stderr)))
}

fn finding<'a>(report: &'a Value, name: &str, of: &str) -> Result<&'a Value> {
    let mut findings = report["findings"].as_array().into_iter().flatten();
    let found = findings.find(|finding| finding["name"] == name && finding["of"] == of);
    found.ok_or_else(|| Fault::Check(format!("no line {name} {of} in {report}")))
}

/// What doctor looks at and must leave as it is.
fn state(cx: &Cx<'_>, ns: &Netns) -> Result<String> {
    let mut state = ns.cmd("ip").args(["-d", "address"]).ok(cx)?.stdout;
    state += &ns.cmd("ethtool").args(["-k", "w0"]).ok(cx)?.stdout;
    for path in ["/proc/sys/vm/nr_hugepages", "/proc/modules", "/proc/mounts"] {
        state += &std::fs::read_to_string(path).unwrap_or_default();
    }
    Ok(state)
}
