//! rxkad between rxline's rxperf and the one on OpenAFS's Rx library (bench/arms/afs_rxperf.c), each as client and as server.

use std::net::SocketAddrV4;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;

use super::must_be_secured;
use crate::bench::arms::{self, number};
use crate::cargo::build_rxline;
use crate::fault::{Result, ensure};
use crate::gateway::RXPERF;
use crate::net::{Net, Wire, server};
use crate::openafs::keys::Keys;
use crate::proc::{Cmd, Running, words};
use crate::rxperf::{address, report};
use crate::step::Cx;
use crate::tshark::Capture;

const LEVELS: [&str; 3] = ["clear", "auth", "encrypt"];
/// Bytes of requests and of replies.
const SIZES: [&str; 4] = ["1", "1411", "5000", "1000000"];
const LIMIT: Duration = Duration::from_secs(60);

/// Who takes part, and the key that all have.
struct Place<'a> {
    cx: &'a Cx<'a>,
    net: Net,
    rxline: &'a Path,
    afs: &'a Path,
    keys: Keys,
}

/// Every byte of every request and reply is verified, in both directions and at each level.
pub fn rxkad(cx: &Cx<'_>) -> Result {
    let (rxline, afs) = (build_rxline(cx)?, arms::afs_rxperf(cx)?);
    let net = Net::build(cx, Wire::AfPacket, 1)?;
    let place = Place { cx, net, rxline: rxline.as_ref(), afs: &afs, keys: Keys::des(cx)? };
    let capture = Capture::start(cx, (&place.net.direct, "v0"), "wire")?;
    for level in LEVELS {
        let server = place.afs_server(level)?;
        for bytes in SIZES {
            place.our_client(level, bytes)?;
        }
        drop(server);
        let server = place.our_server(level)?;
        for bytes in SIZES {
            place.afs_client(level, bytes)?;
        }
        place.end(server)?;
    }
    let captured = capture.stop(cx)?;
    captured.must_be_clean(cx)?;
    // Both clients at each size and level.
    must_be_secured(cx, &captured, 2 * SIZES.len() * LEVELS.len(), 10_000)?;
    let unsecured = captured.count(cx, "rx.type == 1 && rx.securityindex != 2")?;
    ensure!(unsecured == 0, "{unsecured} DATA packets without security");
    ensure!(captured.aborts(cx)?.is_empty(), "calls were aborted: {:?}", captured.aborts(cx)?);
    Ok(())
}

impl Place<'_> {
    fn key_file(&self) -> String {
        self.keys.file().to_string_lossy().into_owned()
    }

    fn afs_server(&self, level: &str) -> Result<Running> {
        let serve = self.net.servers[0].cmd(self.afs).args(["server", level, &self.key_file()]);
        let mut serving = serve.start(self.cx, &format!("afs-server-{level}"))?;
        self.cx.wait_for("OpenAFS's Rx has its socket", Duration::from_secs(10), || {
            serving.must_live()?;
            Ok(self.net.servers[0].has_udp_socket(RXPERF.0)?.then_some(()))
        })?;
        Ok(serving)
    }

    fn our_client(&self, level: &str, bytes: &str) -> Result {
        let to = SocketAddrV4::new(server(0), RXPERF.0).to_string();
        let client = self.ours(&self.net.direct, "client", "10.61.2.20/24", level).args(["--server", &to]);
        let client = client.args(["--request-bytes", bytes, "--reply-bytes", bytes, "--calls", "8"]);
        let told = report(&client.limit(LIMIT).run(self.cx)?.stdout)?;
        self.cx.log.line(format!("our client at level {level}, {bytes} bytes: {told:?}"));
        ensure!(told.verified == 8 && told.failed == 0, "level {level}, {bytes} bytes: {told:?}");
        Ok(())
    }

    fn our_server(&self, level: &str) -> Result<Running> {
        let at = format!("{}/24", address(0));
        let serve = self.ours(&self.net.servers[0], "server", &at, level);
        let mut serving = serve.start(self.cx, &format!("rxperf-server-{level}"))?;
        // Its first figures: from then on nobody is told that the port has no socket.
        self.cx.wait_for("the rxperf server prints figures", Duration::from_secs(10), || {
            serving.must_live()?;
            Ok(serving.stdout().contains('\n').then_some(()))
        })?;
        Ok(serving)
    }

    /// Four threads on one connection, a call each at least.
    fn afs_client(&self, level: &str, bytes: &str) -> Result {
        let to = address(0).to_string();
        let client = self.net.direct.cmd(self.afs).args(["client", &to, "0", "4", bytes, bytes, level]);
        let told = client.arg(self.keys.file()).limit(LIMIT).ok(self.cx)?.stdout;
        self.cx.log.line(format!("OpenAFS's client at level {level}, {bytes} bytes: {}", told.trim()));
        let calls = number(&told, "calls")?;
        ensure!(calls >= 4.0, "level {level}, {bytes} bytes: {calls} calls");
        Ok(())
    }

    fn ours(&self, ns: &crate::ns::Netns, role: &str, address: &str, level: &str) -> Cmd {
        let command = ns.cmd(self.rxline).args(["rxperf", role, "--json", "--port", "af_packet:v0"]);
        let command = command.args(["--address", address, "--security", &format!("rxkad:{level}")]);
        command.args(["--keyfile", &self.key_file()]).env("RUST_BACKTRACE", "1")
    }

    /// Our server ends well only if it leaked nothing.
    fn end(&self, mut server: Running) -> Result {
        server.must_live()?;
        server.signal(Signal::TERM)?;
        let status = server.wait(self.cx, Duration::from_secs(20))?;
        ensure!(status.success(), "the rxperf server ended with {}: {}", words(status), server.stderr());
        Ok(())
    }
}
