//! memif with DPDK as the other process: our frames go through `dpdk-testpmd`, which swaps their addresses and sends them back. pmd's
//! example `echo_check` sends them, and looks at every byte that returns.
//!
//! DPDK 22.11's own limits shape what is asked. It throws away what arrives while it starts, without `--no-flush-rx`; a ring that
//! is full of frames in several slots is overrun, so that large frames go in small windows; its client connects once, when its port starts;
//! its server crashes now and then when its client vanishes under traffic. So it is testpmd that is killed here. Our
//! own ends killed are in pmd's conformance suite.

use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Signal;

use crate::bench::arms::cpus;
use crate::cargo::cargo;
use crate::fault::{Fault, Result, ensure};
use crate::proc::{Cmd, Running};
use crate::step::Cx;

/// A conversation with testpmd.
struct Talk {
    /// Our role and theirs.
    roles: [&'static str; 2],
    /// Both are told alike.
    id: u32,
    secret: Option<&'static str>,
    queues: usize,
    mtu: usize,
    /// Frames of each queue, each time.
    frames: usize,
    /// Frames under way at once.
    window: usize,
    /// A socket without a file.
    hidden: bool,
}

const PLAIN: Talk = Talk {
    roles: ["client", "server"],
    id: 0,
    secret: None,
    queues: 1,
    mtu: 1500,
    frames: 20_000,
    window: 256,
    hidden: false,
};

const SERVING: [&str; 2] = ["server", "client"];

const TALKS: &[Talk] = &[
    PLAIN,
    Talk { roles: SERVING, hidden: true, ..PLAIN },
    Talk { id: 7, secret: Some("open sesame"), queues: 3, hidden: true, frames: 10_000, ..PLAIN },
    Talk { roles: SERVING, id: 7, secret: Some("open sesame"), queues: 3, frames: 10_000, ..PLAIN },
    Talk { mtu: 9000, window: 64, frames: 5_000, ..PLAIN },
    Talk { roles: SERVING, mtu: 9000, window: 64, frames: 5_000, ..PLAIN },
];

/// See the module. Each talk twice: testpmd is killed and started again in between.
pub fn memif(cx: &Cx<'_>) -> Result {
    let build = ["build", "--release", "--locked", "--package", "pmd", "--example", "echo_check"];
    cargo(cx).args(build).run_to_log(cx)?;
    let program = cx.host.target().join("release/examples/echo_check");
    for (number, talk) in TALKS.iter().enumerate() {
        talk.hold(cx, number, &program)?;
    }
    Ok(())
}

impl Talk {
    fn hold(&self, cx: &Cx<'_>, number: usize, program: &PathBuf) -> Result {
        let name = |what: &str| format!("{what}-{number}");
        let path = cx.dir.join(name("socket"));
        let path = path.to_string_lossy();
        let mut theirs = match self.roles[1] {
            "server" => Some(self.start_testpmd(cx, &name("testpmd"), &path)?),
            _ => None,
        };
        let at = if self.hidden { "@" } else { "" };
        let secret = self.secret.map(|secret| format!(",secret={secret}")).unwrap_or_default();
        let url = format!("memif:{at}{path},role={},id={}{secret}", self.roles[0], self.id);
        let Talk { queues, mtu, frames, window, .. } = self;
        let words = [
            format!("queues={queues}"),
            format!("mtu={mtu}"),
            format!("frames={frames}"),
            format!("window={window}"),
        ];
        let mut ours =
            Cmd::new(program).arg(url).args(words).arg("passes=2").start(cx, &name("echo_check"))?;
        for pass in 1..=2 {
            if theirs.is_none() {
                // A client of DPDK's wants its server to be there.
                cx.pause(Duration::from_millis(300))?;
                ours.must_live()?;
                theirs = Some(self.start_testpmd(cx, &name(&format!("testpmd-{pass}")), &path)?);
            }
            cx.wait_for("every frame to return", Duration::from_secs(30), || {
                if ours.ended()?.is_some_and(|status| !status.success()) {
                    return Err(Fault::Check(format!("{}: {}", name("echo_check"), ours.stderr())));
                }
                Ok(ours.stdout().contains(&format!("pass={pass} ")).then_some(()))
            })?;
            if let Some(mut testpmd) = theirs.take() {
                testpmd.signal(Signal::KILL)?;
                testpmd.wait(cx, Duration::from_secs(5))?;
                if self.roles[1] == "server" {
                    // It leaves its socket, and does not start while that is there.
                    let _ = std::fs::remove_file(&*path);
                }
            }
            if pass == 1 && self.roles[1] == "server" {
                theirs = Some(self.start_testpmd(cx, &name("testpmd-2"), &path)?);
            }
        }
        let status = ours.wait(cx, Duration::from_secs(10))?;
        ensure!(status.success(), "{}: {}", name("echo_check"), ours.stderr());
        let sent = format!("sent={0} returned={0} ", self.frames * self.queues);
        ensure!(ours.stdout().matches(&sent).count() == 2, "not all returned: {}", ours.stdout());
        cx.log.line(ours.stdout());
        Ok(())
    }

    fn start_testpmd(&self, cx: &Cx<'_>, name: &str, path: &str) -> Result<Running> {
        let hidden = if self.hidden { "yes" } else { "no" };
        let secret = self.secret.map(|secret| format!(",secret={secret}")).unwrap_or_default();
        let (role, id, queues) = (self.roles[1], self.id, self.queues);
        let vdev = format!("net_memif0,role={role},id={id},socket={path},socket-abstract={hidden}{secret}");
        let [first, second] = cpus()?;
        let lcores = format!("--lcores=0@{first},1@{second}");
        let eal = "--no-huge --no-pci --no-shconf --no-telemetry -m 256";
        let forward = "--forward-mode=macswap --no-flush-rx --total-num-mbufs=8192 --stats-period=1";
        Cmd::new("dpdk-testpmd")
            .args(eal.split(' '))
            .args([lcores, format!("--vdev={vdev}")])
            .arg("--")
            .args(forward.split(' '))
            .args([format!("--rxq={queues}"), format!("--txq={queues}")])
            .start(cx, name)
    }
}
