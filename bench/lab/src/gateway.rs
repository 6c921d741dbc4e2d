//! `rxline gateway` as a process of a step: its configuration, its figures, its end.

use std::fs;
use std::net::Ipv4Addr;
use std::time::Duration;

use rustix::process::Signal;

use crate::cargo::{build_rxline, build_rxline_dpdk};
use crate::fault::{Context, Fault, Result, ensure};
use crate::figures::Figures;
use crate::net::{BACK, FRONT, FRONT6, Net, Wire};
use crate::openafs::{PROTECTION, VLDB};
use crate::proc::Running;
use crate::step::Cx;

/// rxperf's port and Rx service.
pub const RXPERF: (u16, u16) = (7009, 147);

/// What a gateway is to do.
pub struct Plan {
    /// Put before the URL of the port towards the clients: `sim:seed=7,loss=0.02@`.
    pub front: String,
    /// Name, port and service of what it serves, and by whom.
    pub pools: Vec<(&'static str, (u16, u16), Vec<Ipv4Addr>)>,
    /// Packet buffers of 2 KiB.
    pub buffers: usize,
    /// What its listeners do: `terminate` or `relay`.
    pub mode: &'static str,
    /// What clients prove to it, and what it proves to servers.
    pub security: Option<Security>,
}

/// Lines of the two security sections.
pub struct Security {
    /// Of each listener.
    pub listener: String,
    /// Of each pool.
    pub pool: String,
}

impl Plan {
    /// Serves OpenAFS's two databases from `backends`.
    pub fn openafs(backends: &[Ipv4Addr]) -> Plan {
        let pools = vec![("vldb", VLDB, backends.to_vec()), ("protection", PROTECTION, backends.to_vec())];
        Plan { front: String::new(), pools, buffers: 65536, mode: "terminate", security: None }
    }

    /// Serves rxperf from `backends`.
    pub fn rxperf(backends: &[Ipv4Addr]) -> Plan {
        Plan { pools: vec![("rxperf", RXPERF, backends.to_vec())], ..Plan::openafs(&[]) }
    }

    /// The configuration file, with the URLs of the ports towards clients and servers.
    pub fn config(&self, (front, back): (&str, &str)) -> String {
        let mut text = format!("cores = [0]\ndrain_seconds = 5\n\n[memory]\nbuffers = {}\n", self.buffers);
        let ports = [
            (format!("{}{front}", self.front), format!("\"{FRONT}/24\", \"{FRONT6}/64\"")),
            (back.to_string(), format!("\"{BACK}/24\"")),
        ];
        for (url, addresses) in ports {
            text += &format!("\n[[port]]\nurl = \"{url}\"\naddresses = [{addresses}]\n");
        }
        for (name, (port, service), backends) in &self.pools {
            let backends: Vec<String> =
                backends.iter().map(|address| format!("\"{address}:{port}\"")).collect();
            let backends = backends.join(", ");
            text += &format!("\n[[pool]]\nname = \"{name}\"\nbackends = [{backends}]\n");
            text += "timeouts = { silence_ms = 3000 }\n";
            text += "probe = { interval_ms = 250, timeout_ms = 250, failures = 3 }\n";
            if let Some(security) = &self.security {
                text += &format!("\n[pool.security]\n{}", security.pool);
            }
            text += &format!("\n[[listener]]\naddress = \"{FRONT}:{port}\"\nmode = \"{}\"\n", self.mode);
            if let Some(security) = &self.security {
                text += &format!("\n[listener.security]\n{}", security.listener);
            }
            text += &format!("\n[[listener.service]]\nids = [{service}]\npool = \"{name}\"\n");
        }
        text
    }
}

/// The last line of `rxline gateway --json`.
#[derive(serde::Deserialize)]
struct Closing {
    leaks: Vec<String>,
    #[serde(flatten)]
    stats: Figures,
}

/// A gateway that runs.
pub struct Gateway {
    process: Running,
}

impl Gateway {
    /// Starts it, joins its ports to the wires, and waits until every backend answered a probe.
    pub fn start(cx: &Cx<'_>, net: &Net, plan: &Plan) -> Result<Gateway> {
        let mut gateway = Gateway::launch(cx, net, plan)?;
        gateway.wait_alive(cx, plan.pools.iter().map(|(_, _, backends)| backends.len()).sum())?;
        Ok(gateway)
    }

    /// The same, without waiting for backends.
    pub fn launch(cx: &Cx<'_>, net: &Net, plan: &Plan) -> Result<Gateway> {
        let rxline = match net.wire {
            Wire::Dpdk => build_rxline_dpdk(cx)?,
            _ => build_rxline(cx)?,
        };
        let path = cx.dir.join("gateway.toml");
        fs::write(&path, plan.config(net.urls())).context(|| format!("write {}", path.display()))?;
        let command = net.gateway.cmd(rxline).arg("gateway").arg("--config").arg(&path).arg("--json");
        let mut gateway = Gateway { process: command.env("RUST_BACKTRACE", "1").start(cx, "gateway")? };
        // With its first figures it has asked its taps, where it made them, for all that it wants to know.
        gateway.figures(cx)?;
        net.attach(cx)?;
        Ok(gateway)
    }

    /// Waits until `count` backends are alive.
    pub fn wait_alive(&mut self, cx: &Cx<'_>, count: usize) -> Result {
        let what = format!("{count} backends alive in the gateway's figures");
        cx.wait_for(&what, Duration::from_secs(20), || {
            self.process.must_live()?;
            let Some(figures) = self.last_figures() else { return Ok(None) };
            Ok((figures.alive() == count).then_some(()))
        })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// An error if it ended.
    pub fn must_live(&mut self) -> Result {
        self.process.must_live()
    }

    /// The figures it prints next.
    pub fn figures(&mut self, cx: &Cx<'_>) -> Result<Figures> {
        let before = self.process.stdout().lines().count();
        cx.wait_for("the gateway prints figures", Duration::from_secs(10), || {
            self.process.must_live()?;
            let text = self.process.stdout();
            let complete = text.ends_with('\n') && text.lines().count() > before;
            Ok(if complete { self.last_figures() } else { None })
        })
    }

    fn last_figures(&self) -> Option<Figures> {
        latest(&self.process.stdout())
    }

    /// SIGTERM; its last figures once it ended, which has to be with exit code 0.
    pub fn stop(mut self, cx: &Cx<'_>) -> Result<Figures> {
        self.process.must_live()?;
        self.process.signal(Signal::TERM)?;
        let status = self.process.wait(cx, Duration::from_secs(20))?;
        cx.log.block(&self.process.stderr());
        let figures = closing(&self.process.stdout())?;
        ensure!(status.success(), "the gateway ended with {}", crate::proc::words(status));
        Ok(figures)
    }
}

/// The figures at the end of all that a gateway printed; it must have cleaned up behind itself.
pub fn closing(printed: &str) -> Result<Figures> {
    let last = printed.lines().last().unwrap_or_default();
    let closing = serde_json::from_str::<Closing>(last);
    let closing = closing
        .map_err(|error| Fault::Check(format!("the gateway's closing report is {last:?}: {error}")))?;
    ensure!(closing.leaks.is_empty(), "the gateway leaks: {}", closing.leaks.join("; "));
    Ok(closing.stats)
}

/// The last whole line of figures among what a gateway printed so far.
pub fn latest(printed: &str) -> Option<Figures> {
    let complete = &printed[..=printed.rfind('\n')?];
    serde_json::from_str(complete.lines().last()?).ok()
}
