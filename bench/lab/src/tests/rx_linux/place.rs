//! The guest, our programs, and the bridge between them.
//!
//! ```text
//!  guest: e1000e under the kernel's driver -- guest0 -- br0 -- srv4, srv6: rxline rxperf server
//!                                                        `---- cli4, cli6: rxline rxperf client
//! ```
//!
//! Each is a tap, in one namespace that has no address of its own.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Signal;
use serde::Deserialize;

use crate::bench::arms;
use crate::cargo::build_rxline;
use crate::fault::{Fault, Result, ensure, tail};
use crate::guest::{Guest, Kit, Nic, Peer};
use crate::ns::Netns;
use crate::proc::{Cmd, Running, words};
use crate::rxperf;
use crate::step::Cx;
use crate::tshark::{Aborts, Capture, Captured};

/// rxperf's port, its service, and the one that the guest upgrades it to.
pub const PORT: u16 = 7009;
pub const SERVICE: u16 = 147;
pub const UPGRADED: u16 = 148;

/// Calls of 10 MB through a NIC that is emulated by one thread.
const LIMIT: Duration = Duration::from_secs(60);

/// Which IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub const BOTH: [Family; 2] = [Family::V4, Family::V6];

    /// The digit in the names of its taps and files.
    fn digit(self) -> char {
        match self {
            Family::V4 => '4',
            Family::V6 => '6',
        }
    }

    fn pick(self, v4: &'static str, v6: &'static str) -> &'static str {
        match self {
            Family::V4 => v4,
            Family::V6 => v6,
        }
    }

    /// The guest's address.
    pub fn guest(self) -> &'static str {
        self.pick("10.62.0.2", "fd62::2")
    }

    /// Our server's address.
    pub fn server(self) -> &'static str {
        self.pick("10.62.0.10", "fd62::10")
    }

    fn client(self) -> &'static str {
        self.pick("10.62.0.20", "fd62::20")
    }

    fn prefix(self) -> &'static str {
        self.pick("24", "64")
    }
}

/// How the servers of a family are started, ours and the guest's.
#[derive(Clone, Default)]
pub struct Serving {
    /// Further arguments of ours.
    pub ours: Vec<String>,
    /// Environment of the guest's.
    pub guests: String,
    /// Both offer [`UPGRADED`] to clients that ask.
    pub upgrades: bool,
}

/// What the guest's client is asked to do.
#[derive(Clone, Copy)]
pub struct Work<'a> {
    /// Bytes of each request and reply.
    pub bytes: (usize, usize),
    /// Calls, one after the other.
    pub calls: usize,
    /// What is done to them; see bench/arms/afrxrpc.c.
    pub mode: &'a str,
    /// Its environment.
    pub env: &'a str,
}

impl Work<'_> {
    /// So many calls of so many bytes each way.
    pub fn calls(calls: usize, bytes: usize) -> Work<'static> {
        Work { bytes: (bytes, bytes), calls, mode: "", env: "" }
    }
}

/// What the guest's client says at its end.
#[derive(Clone, Debug, Deserialize)]
pub struct Told {
    /// Calls with a right reply.
    pub verified: u64,
    /// Others.
    pub failed: u64,
    /// How the last one ended.
    pub end: String,
    /// The service that answered it.
    pub service: u16,
}

/// What our server says at its end.
#[derive(Clone, Debug, Deserialize)]
pub struct Served {
    /// Calls whose reply the client has.
    pub served: u64,
    /// Others.
    pub failed: u64,
    /// Packets that it threw away, by name.
    pub drops: BTreeMap<String, u64>,
}

/// All of it.
pub struct Place<'a> {
    /// How servers are started from now on.
    pub serving: [Serving; 2],
    servers: [Option<Running>; 2],
    /// The guest.
    pub guest: Guest<'a>,
    rxline: PathBuf,
    /// ABORTs that have to be on the wire, and those that may.
    expected: Aborts,
    possible: Aborts,
    // Dropped last, after the programs in it.
    lan: Netns,
}

impl<'a> Place<'a> {
    /// Boots the guest, starts servers on both sides, of each family.
    pub fn make(cx: &'a Cx<'a>, serving: [Serving; 2]) -> Result<Place<'a>> {
        let rxline = build_rxline(cx)?;
        let program = arms::portable(cx, "afrxrpc")?;
        let kit = Kit::obtain(cx)?;
        let lan = Netns::create(cx, "lan")?;
        lan.ip(cx, "link add br0 type bridge mcast_snooping 0")?;
        lan.ip(cx, "link set br0 up")?;
        for tap in ["srv4", "srv6", "cli4", "cli6"] {
            lan.ip(cx, &format!("tuntap add dev {tap} mode tap"))?;
            join(cx, &lan, tap)?;
        }
        let nics = [Nic { model: "e1000e", peer: Peer::Tap("guest0") }];
        let mut guest = Guest::boot_in(cx, &kit, &nics, &lan)?;
        join(cx, &lan, "guest0")?;
        guest.give(&program)?;
        set_up(&mut guest)?;
        let mut place = Place {
            serving,
            servers: [None, None],
            guest,
            rxline,
            expected: Aborts::new(),
            possible: Aborts::new(),
            lan,
        };
        for family in Family::BOTH {
            place.serve(cx, family)?;
            place.guest_serves(cx, family)?;
        }
        Ok(place)
    }

    /// Captures all that the guest sends and receives.
    pub fn capture(&self, cx: &Cx<'_>) -> Result<Capture> {
        Capture::start(cx, (&self.lan, "guest0"), "guest")
    }

    /// An ABORT with this code may be on the wire. Linux keeps a client's to itself while the server has acknowledged all that was sent.
    pub fn allow_abort(&mut self, code: i64) {
        *self.possible.entry(code).or_default() += 1;
    }

    /// An ABORT with this code is on the wire.
    pub fn expect_abort(&mut self, code: i64) {
        *self.expected.entry(code).or_default() += 1;
    }

    /// Starts our server.
    pub fn serve(&mut self, cx: &Cx<'_>, family: Family) -> Result {
        let digit = family.digit();
        let (port, address) = (format!("tap:srv{digit}"), format!("{}/{}", family.server(), family.prefix()));
        let server = self.lan.cmd(&self.rxline).args(["rxperf", "server", "--port", &port]);
        let serving = &self.serving[family as usize];
        let upgrade = UPGRADED.to_string();
        let upgrade: &[&str] = if serving.upgrades { &["--upgrade-to", &upgrade] } else { &[] };
        let server = server.args(["--address", &address, "--json"]).args(&serving.ours).args(upgrade);
        let server = server.env("RUST_BACKTRACE", "1");
        let mut server = server.start(cx, &format!("rxperf-server{digit}"))?;
        cx.wait_for("our server's first figures", Duration::from_secs(10), || {
            server.must_live()?;
            Ok(server.stdout().contains('\n').then_some(()))
        })?;
        self.servers[family as usize] = Some(server);
        Ok(())
    }

    /// Our server.
    pub fn server(&mut self, family: Family) -> &mut Running {
        self.servers[family as usize].as_mut().expect("a server that was not stopped")
    }

    /// SIGTERM to our server; what it served. It has to clean up behind itself.
    pub fn stop_server(&mut self, cx: &Cx<'_>, family: Family) -> Result<Served> {
        let mut server = self.servers[family as usize].take().expect("a server that was not stopped");
        server.must_live()?;
        server.signal(Signal::TERM)?;
        let status = server.wait(cx, Duration::from_secs(20))?;
        let (printed, complaints) = (server.stdout(), server.stderr());
        cx.log.block(&tail(&printed, 1));
        cx.log.block(&complaints);
        ensure!(status.success(), "our server ended with {}", words(status));
        json(&printed)
    }

    /// SIGKILL.
    pub fn kill_server(&mut self, family: Family) {
        self.servers[family as usize] = None;
    }

    /// Starts the guest's server.
    pub fn guest_serves(&mut self, cx: &Cx<'_>, family: Family) -> Result {
        let (digit, address) = (family.digit(), family.guest());
        let Serving { guests, upgrades, .. } = &self.serving[family as usize];
        let upgraded = if *upgrades { UPGRADED.to_string() } else { String::new() };
        self.guest.sh(&format!(
            "rm -f /share/server{digit}.out
            {guests} /share/afrxrpc server {address} {PORT} {SERVICE} {upgraded} > /share/server{digit}.out 2>&1 &
            echo $! > /tmp/server{digit}.pid"
        ))?;
        cx.wait_for("the guest serves", Duration::from_secs(10), || {
            let said = self.guest_said(family);
            ensure!(said.is_empty() || said.starts_with("serving"), "the guest's server says {said}");
            Ok(said.starts_with("serving").then_some(()))
        })
    }

    /// SIGKILL to the guest's server; its kernel closes the socket.
    pub fn kill_guests_server(&mut self, family: Family) -> Result {
        let digit = family.digit();
        self.guest
            .sh(&format!(
                "pid=$(cat /tmp/server{digit}.pid); kill -KILL $pid
                while kill -0 $pid 2> /dev/null; do usleep 20000; done"
            ))
            .map(drop)
    }

    /// Takes the guest off the bridge. What it sends is still captured.
    pub fn unplug(&self, cx: &Cx<'_>) -> Result {
        self.lan.ip(cx, "link set guest0 nomaster")
    }

    /// And back.
    pub fn plug(&self, cx: &Cx<'_>) -> Result {
        join(cx, &self.lan, "guest0")
    }

    /// What the guest's server said since it was started.
    pub fn guest_said(&self, family: Family) -> String {
        self.guest.shared(&format!("server{}.out", family.digit()))
    }

    /// The guest's client calls our server.
    pub fn call_from_guest(&mut self, family: Family, work: Work<'_>) -> Result<Told> {
        self.guest_calls(family.server(), work)
    }

    /// The guest's client calls its own server.
    pub fn guest_to_itself(&mut self, family: Family, work: Work<'_>) -> Result<Told> {
        self.guest_calls(family.guest(), work)
    }

    fn guest_calls(&mut self, server: &str, work: Work<'_>) -> Result<Told> {
        let command = guest_client(server, work);
        let (status, printed) = self.guest.run(&command, LIMIT)?;
        ensure!(status == 0, "the guest's client ended with {status}: {printed}");
        json(&printed)
    }

    /// The same in the background; what it says is in the file `name` of the share.
    pub fn call_from_guest_meanwhile(&mut self, name: &str, request: usize, mode: &str) -> Result {
        let command =
            guest_client(Family::V4.server(), Work { bytes: (request, 1), calls: 1, mode, env: "" });
        self.guest.sh(&format!("{command} > /share/{name} 2>&1 &")).map(drop)
    }

    /// Waits until a client in the background has said something that `wanted` takes.
    pub fn wait_said<T>(
        &self,
        cx: &Cx<'_>,
        name: &str,
        limit: Duration,
        wanted: impl Fn(&str) -> Option<T>,
    ) -> Result<T> {
        let what = format!("a word of the guest's client in {name}");
        cx.wait_for(&what, limit, || Ok(wanted(&self.guest.shared(name))))
    }

    /// Our client calls the guest's server.
    pub fn to_guest(&self, family: Family, (request, reply): (usize, usize), more: &[&str]) -> Cmd {
        let digit = family.digit();
        let (port, address) = (format!("tap:cli{digit}"), format!("{}/{}", family.client(), family.prefix()));
        let server = family.pick("10.62.0.2:7009", "[fd62::2]:7009");
        let client = self.lan.cmd(&self.rxline).args(["rxperf", "client", "--port", &port]);
        let client = client.args(["--address", &address, "--server", server, "--op", "rpc", "--json"]);
        let client = client.args(["--request-bytes", &request.to_string()]);
        let client = client.args(["--reply-bytes", &reply.to_string()]).args(more);
        client.env("RUST_BACKTRACE", "1").limit(LIMIT)
    }

    /// The last words of all, and what tshark says of the packets; our servers' figures, and the packets for further checks.
    pub fn stop(mut self, cx: &Cx<'_>, capture: Capture) -> Result<([Served; 2], Captured)> {
        let mut served = Vec::new();
        for family in Family::BOTH {
            let last = self.stop_server(cx, family)?;
            ensure!(last.served > 0, "our server of {family:?} served nothing: {last:?}");
            served.push(last);
            self.kill_guests_server(family)?;
        }
        let captured = capture.stop(cx)?;
        let packets = captured.must_be_clean(cx)?;
        let aborts = captured.aborts(cx)?;
        cx.log.line(format!("{packets} packets; aborts (code, calls) {aborts:?}"));
        self.judge(&aborts)?;
        self.guest.stop()?;
        Ok((served.try_into().expect("two families"), captured))
    }

    /// Each ABORT that was expected, and no other.
    fn judge(&self, aborts: &Aborts) -> Result {
        let Place { expected, possible, .. } = self;
        let of = |map: &Aborts, code: &i64| map.get(code).copied().unwrap_or(0);
        for code in aborts.keys().chain(expected.keys()) {
            let (seen, least) = (of(aborts, code), of(expected, code));
            let holds = seen >= least && seen <= least + of(possible, code);
            ensure!(
                holds,
                "aborts (code, calls) {aborts:?}: expected {expected:?}, and possibly {possible:?}"
            );
        }
        Ok(())
    }
}

/// Onto the bridge.
fn join(cx: &Cx<'_>, lan: &Netns, tap: &str) -> Result {
    lan.ip(cx, &format!("link set {tap} master br0"))?;
    lan.ip(cx, &format!("link set {tap} up"))
}

/// The guest's NIC and modules. What the cipher of rxkad is made of has to be there before rxrpc; clients seal their tickets through
/// algif_skcipher.
fn set_up(guest: &mut Guest<'_>) -> Result {
    guest
        .sh("set -e
        load fcrypt pcbc des_generic algif_skcipher rxrpc e1000e
        echo 0 > /proc/sys/net/ipv6/conf/eth0/accept_dad
        echo 0 > /proc/sys/net/ipv6/conf/eth0/router_solicitations
        ip address add 10.62.0.2/24 dev eth0
        ip link set eth0 up
        ip address add fd62::2/64 dev eth0
        until [ $(cat /sys/class/net/eth0/carrier) = 1 ]; do usleep 50000; done")
        .map(drop)
}

fn guest_client(server: &str, work: Work<'_>) -> String {
    let Work { bytes: (request, reply), calls, mode, env } = work;
    format!("{env} /share/afrxrpc client {server} {PORT} {SERVICE} {request} {reply} {calls} {mode}")
}

/// The JSON object in the last line of what a program printed.
pub fn json<T: for<'t> Deserialize<'t>>(printed: &str) -> Result<T> {
    let last = printed.lines().last().unwrap_or_default();
    serde_json::from_str(last).map_err(|error| Fault::Check(format!("a last line {last:?}: {error}")))
}

/// The report of one of our clients, whatever its status.
pub fn report(cx: &Cx<'_>, client: &Cmd) -> Result<rxperf::Report> {
    rxperf::report(&client.run(cx)?.stdout)
}
