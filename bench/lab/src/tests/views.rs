//! Looking into running processes: listings, figures and metrics agree with what the processes themselves report, and
//! only their user may look.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::cargo::build_rxline;
use crate::fault::{Context, Fault, Result, ensure};
use crate::proc::Cmd;
use crate::step::Cx;
use crate::tests::workspace::NOBODY;

/// How long the demo that is looked at runs.
const SECONDS: &str = "12";

/// `rxline demo`, which runs a gateway, a load and two services, is asked everything while it works.
pub fn views(cx: &Cx<'_>) -> Result {
    let rxline = build_rxline(cx)?;
    // In a place that everybody may enter: who may look is then the socket's own matter.
    let folder = Folder::open_to_all(cx)?;
    let socket = folder.0.join("demo.sock");
    let demo = Cmd::new(&rxline).args(["demo", "--seconds", SECONDS, "--json", "--control"]).arg(&socket);
    let mut demo = demo.start(cx, "demo")?;
    cx.wait_for("the demo's control socket", Duration::from_secs(20), || {
        demo.must_live()?;
        Ok(socket.exists().then_some(()))
    })?;
    let mode =
        fs::metadata(&socket).context(|| format!("look at {}", socket.display()))?.permissions().mode();
    ensure!(mode & 0o777 == 0o600, "the socket's mode is {:o}", mode & 0o7777);
    cx.pause(Duration::from_secs(2))?;

    let ask = |words: &[&str]| -> Result<String> {
        let asked = Cmd::new(&rxline).args(words).arg("--control").arg(&socket);
        Ok(asked.limit(Duration::from_secs(30)).ok(cx)?.stdout)
    };
    listings(&ask)?;
    let top = rows(&ask(&["top", "--json", "--count", "1"])?)?;
    let engines = top[0]["engines"].as_array().map_or(0, Vec::len);
    ensure!(engines == 4, "top shows {engines} engines");
    let rate = |engine: &Value| engine["cores"][0]["rx"]["succeeded_per_second"].as_f64();
    let idle =
        top[0]["engines"].as_array().into_iter().flatten().filter(|e| rate(e).is_none_or(|r| r <= 0.0));
    ensure!(idle.count() == 0, "top shows engines without a call: {}", top[0]);
    strangers(cx, &rxline, &socket)?;

    // What was counted by now, and at its end by the demo itself.
    let early = calls_of_load(&ask(&["top", "--prometheus"])?)?;
    cx.pause(Duration::from_secs(1))?;
    let late = calls_of_load(&ask(&["top", "--prometheus"])?)?;
    let status = demo.wait(cx, Duration::from_secs(60))?;
    ensure!(status.success(), "the demo ended with {}", crate::proc::words(status));
    let text = demo.stdout();
    let summary: Value = serde_json::from_str(text.lines().last().unwrap_or_default())
        .map_err(|error| Fault::Check(format!("the demo's summary is {text:?}: {error}")))?;
    let all = summary["calls"].as_u64().unwrap_or_default();
    cx.log.line(format!("calls of the load: {early}, then {late}, at the end {all}"));
    ensure!(0 < early && early < late && late <= all, "{early}, {late} and {all} calls do not go together");
    let rate = summary["calls_per_second"].as_f64().unwrap_or_default();
    let seen = (late - early) as f64;
    ensure!((0.2 * rate..5.0 * rate).contains(&seen), "{seen} calls in a second, the demo says {rate}");
    ensure!(!socket.exists(), "the socket's file outlived its process");
    Ok(())
}

/// All four, as JSON and as tables: there is what the demo has open, at both ends.
fn listings(ask: &impl Fn(&[&str]) -> Result<String>) -> Result {
    for what in ["calls", "conns", "peers", "locals"] {
        let table = ask(&["rx", what])?;
        ensure!(table.starts_with("CORE ") && table.lines().count() > 1, "rx {what} printed {table:?}");
        let listed = rows(&ask(&["rx", what, "--json"])?)?;
        let engines: BTreeSet<&str> = listed.iter().filter_map(|row| row["engine"].as_str()).collect();
        ensure!(engines.contains("gateway") && engines.contains("load"), "rx {what} shows only {engines:?}");
    }
    let conns = rows(&ask(&["rx", "conns", "--json"])?)?;
    let of = |engine: &str, role: &str| -> BTreeSet<(u64, u64)> {
        let rows = conns.iter().filter(|row| row["engine"] == engine && row["role"] == role);
        rows.filter_map(|row| Some((row["epoch"].as_u64()?, row["cid"].as_u64()?))).collect()
    };
    let (ours, theirs) = (of("load", "client"), of("gateway", "service"));
    ensure!(!ours.is_empty() && ours == theirs, "the load has {ours:?}, and the gateway knows {theirs:?}");
    let locals = rows(&ask(&["rx", "locals", "--json"])?)?;
    let serves =
        locals.iter().any(|row| row["local"] == "192.0.2.1:7009" && row["services"][0]["service"] == 147);
    ensure!(serves, "no listing of the gateway's service: {locals:?}");
    Ok(())
}

/// Another user is refused by the file's mode; and, if that is opened up, by the process.
fn strangers(cx: &Cx<'_>, rxline: &Path, socket: &Path) -> Result {
    let binary = socket.with_file_name("rxline");
    fs::copy(rxline, &binary).context(|| format!("copy {}", rxline.display()))?;
    let ask = || {
        Cmd::new(&binary).args(["rx", "calls", "--control"]).arg(socket).unprivileged(NOBODY).cwd("/").run(cx)
    };
    let refused = ask()?;
    ensure!(refused.status.code() == Some(3), "a stranger's exit code is {:?}", refused.status.code());
    ensure!(
        refused.stdout.is_empty() && refused.stderr.contains("root"),
        "a stranger is told {:?}",
        refused.stderr
    );
    fs::set_permissions(socket, fs::Permissions::from_mode(0o666)).context(|| "open up the socket".into())?;
    let refused = ask()?;
    fs::set_permissions(socket, fs::Permissions::from_mode(0o600)).context(|| "close the socket".into())?;
    ensure!(refused.status.code() == Some(3), "a stranger's exit code is {:?}", refused.status.code());
    ensure!(refused.stderr.contains("user 65534 may not look"), "a stranger is told {:?}", refused.stderr);
    Ok(())
}

/// One object a line.
fn rows(text: &str) -> Result<Vec<Value>> {
    let rows = text.lines().map(serde_json::from_str).collect::<std::result::Result<Vec<Value>, _>>();
    let rows = rows.map_err(|error| Fault::Check(format!("{error} in {text:?}")))?;
    ensure!(!rows.is_empty(), "nothing was listed");
    Ok(rows)
}

/// From the metrics: calls that the load's only core has ended well.
fn calls_of_load(metrics: &str) -> Result<u64> {
    let name = "rxline_rx_calls_succeeded_total{engine=\"load\",core=\"0\"} ";
    let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.parse().ok());
    value.ok_or_else(|| Fault::Check(format!("no line {name:?} in the metrics")))
}

/// A folder that everybody may enter, gone at the end.
struct Folder(PathBuf);

impl Folder {
    fn open_to_all(cx: &Cx<'_>) -> Result<Folder> {
        let folder = Folder(std::env::temp_dir().join(format!("rxl-views-{}", cx.host.suffix)));
        fs::create_dir(&folder.0).context(|| format!("create {}", folder.0.display()))?;
        fs::set_permissions(&folder.0, fs::Permissions::from_mode(0o755))
            .context(|| format!("open up {}", folder.0.display()))?;
        Ok(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
