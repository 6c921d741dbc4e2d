//! The rxperf programs of the rx benches: who serves and who calls, on which wire.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;

use crate::bench::arms::{self, pinned};
use crate::cargo::build_rxline;
use crate::fault::{Context, Result, ensure};
use crate::gateway::RXPERF;
use crate::ns::Netns;
use crate::proc::{Cmd, Running, words};
use crate::step::Cx;

/// Programs, and the key that those with security share.
pub struct Programs {
    rxline: PathBuf,
    afs: PathBuf,
    vs_kernel: PathBuf,
    key_file: PathBuf,
}

/// One way to do Rx.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// `rxline rxperf` on a port of this driver.
    Port(&'static str),
    /// The same protocol core on a kernel UDP socket.
    Udp,
    /// OpenAFS's Rx library, with its own window or another one.
    OpenAfs(Option<&'static str>),
}

/// Security of calls.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// None.
    None,
    /// rxkad, everything encrypted.
    Encrypt,
}

/// Where one side of a wire is. The kernel and rxline have an address each on the interface.
pub struct End<'a> {
    /// The namespace.
    pub ns: &'a Netns,
    /// The interface.
    pub interface: String,
    /// The kernel's address.
    pub kernel: Ipv4Addr,
    /// rxline's address.
    pub own: Ipv4Addr,
    /// The CPU of what runs there.
    pub cpu: usize,
}

impl Programs {
    /// Builds them.
    pub fn build(cx: &Cx<'_>) -> Result<Programs> {
        let key_file = cx.dir.join("KeyFile");
        // One key, with number 4: each is a word, big-endian.
        let key = [0x80, 0xb6, 0xa7, 0xcd, 0x7a, 0x9d, 0xad, 0xb6];
        std::fs::write(&key_file, [&[0, 0, 0, 1, 0, 0, 0, 4][..], &key].concat())
            .context(|| format!("write {}", key_file.display()))?;
        let (rxline, afs, vs_kernel) = (build_rxline(cx)?, arms::afs_rxperf(cx)?, arms::vs_kernel(cx)?);
        Ok(Programs { rxline, afs, vs_kernel, key_file })
    }

    fn key_file(&self) -> &Path {
        &self.key_file
    }

    /// Starts a server and waits until it answers. `tune` are further words for `rxline`.
    pub fn serve(
        &self,
        cx: &Cx<'_>,
        peer: Peer,
        at: &End<'_>,
        class: Class,
        tune: &[&str],
    ) -> Result<Running> {
        let name = format!("server-{}", at.interface);
        let server = match peer {
            Peer::Port(driver) => {
                let words = ["rxperf", "server", "--json"];
                let server = Cmd::new(&self.rxline).args(words).args(port(driver, at)).args(tune);
                self.secured(server, class)
            }
            Peer::Udp => {
                let [address, cpu] = [at.kernel.to_string(), at.cpu.to_string()];
                let words = ["serve", "rx", "mmsg", "--wait", "spin", "--address", &address, "--cpus", &cpu];
                Cmd::new(&self.vs_kernel).args(words)
            }
            Peer::OpenAfs(window) => {
                pinned(self.openafs_secured(self.openafs(window).arg("server"), class), at.cpu)
            }
        };
        let mut server = within(at.ns, server).start(cx, &name)?;
        cx.wait_for("the server is ready", Duration::from_secs(10), || {
            server.must_live()?;
            let ready = match peer {
                // Its first figures: from then on nobody is told that the port has no socket.
                Peer::Port(_) => server.stdout().contains('\n'),
                Peer::Udp | Peer::OpenAfs(_) => at.ns.has_udp_socket(RXPERF.0)?,
            };
            Ok(ready.then_some(()))
        })?;
        Ok(server)
    }

    /// Ends a server; ours ends well only if it leaked nothing. OpenAFS's has no end but by a signal.
    pub fn end(&self, cx: &Cx<'_>, peer: Peer, mut server: Running) -> Result {
        server.must_live()?;
        if let Peer::OpenAfs(_) = peer {
            return Ok(());
        }
        server.signal(Signal::TERM)?;
        let status = server.wait(cx, Duration::from_secs(20))?;
        ensure!(status.success(), "the rxperf server ended with {}: {}", words(status), server.stderr());
        Ok(())
    }

    /// So many calls at once of 64 bytes there and `reply` back, one after the other, for so long.
    pub fn calls(&self, peer: Peer, from: &End<'_>, to: &End<'_>, load: &Load, class: Class) -> Cmd {
        let Load { in_flight, reply_bytes, seconds } = *load;
        let [seconds, in_flight, reply] =
            [seconds as usize, in_flight, reply_bytes].map(|word| word.to_string());
        let client = match peer {
            Peer::Port(driver) => {
                let connections = load.in_flight.div_ceil(4).to_string();
                let words =
                    ["--in-flight", &in_flight, "--connections", &connections, "--reply-bytes", &reply];
                let client = self.our_client(driver, from, to).args(words).args(["--seconds", &seconds]);
                self.secured(client, class)
            }
            Peer::Udp => {
                let [server, cpu] = [to.kernel.to_string(), from.cpu.to_string()];
                let words =
                    ["--mode", "closed", "--warm-up-seconds", "0", "--cpu", &cpu, "--seconds", &seconds];
                let client = Cmd::new(&self.vs_kernel).args(["load", "rx", "mmsg", &server]).args(words);
                client.args(["--in-flight", &in_flight, "--reply-bytes", &reply])
            }
            Peer::OpenAfs(window) => {
                let client = self.openafs(window).args(["client", &to.kernel.to_string()]);
                let client = client.args([&*seconds, &*in_flight, "64", &*reply]);
                pinned(self.openafs_secured(client, class), from.cpu)
            }
        };
        within(from.ns, client).limit(Duration::from_secs(load.seconds + 40))
    }

    /// One call that receives without an end until the time is up: then the client says how many bytes came in how many seconds.
    pub fn stream(&self, peer: Peer, from: &End<'_>, to: &End<'_>, seconds: u64) -> Cmd {
        let time = seconds.to_string();
        let client = match peer {
            Peer::Port(driver) => {
                let patience = (seconds + 30).to_string();
                let words =
                    ["--op", "recv", "--reply-bytes", "4000000000", "--in-flight", "1", "--connections", "1"];
                let client = self.our_client(driver, from, to).args(words);
                client.args(["--seconds", &time, "--cut", "--timeout", &patience])
            }
            Peer::OpenAfs(window) => {
                pinned(self.openafs(window).args(["stream", &to.kernel.to_string(), &time]), from.cpu)
            }
            Peer::Udp => unreachable!("no bench has it so"),
        };
        within(from.ns, client)
    }

    fn our_client(&self, driver: &str, from: &End<'_>, to: &End<'_>) -> Cmd {
        let server = SocketAddrV4::new(to.own, RXPERF.0).to_string();
        let words = ["rxperf", "client", "--json", "--server", &server];
        Cmd::new(&self.rxline).args(words).args(port(driver, from))
    }

    fn openafs(&self, window: Option<&str>) -> Cmd {
        let openafs = Cmd::new(&self.afs);
        window.map_or(openafs.clone(), |window| openafs.args(["window", window]))
    }

    fn secured(&self, ours: Cmd, class: Class) -> Cmd {
        match class {
            Class::None => ours,
            Class::Encrypt => ours.args(["--security", "rxkad:encrypt", "--keyfile"]).arg(self.key_file()),
        }
    }

    fn openafs_secured(&self, theirs: Cmd, class: Class) -> Cmd {
        match class {
            Class::None => theirs,
            Class::Encrypt => theirs.arg("encrypt").arg(self.key_file()),
        }
    }
}

/// One load.
pub struct Load {
    /// Calls at once, four to a connection.
    pub in_flight: usize,
    /// Bytes of each reply.
    pub reply_bytes: usize,
    /// For how long.
    pub seconds: u64,
}

fn port(driver: &str, at: &End<'_>) -> [String; 6] {
    let (url, address) = (format!("{driver}:{}", at.interface), format!("{}/24", at.own));
    ["--port".into(), url, "--address".into(), address, "--cores".into(), at.cpu.to_string()]
}

fn within(ns: &Netns, command: Cmd) -> Cmd {
    command.under(["ip", "netns", "exec", ns.name()])
}
