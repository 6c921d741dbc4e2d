//! `rxline capture` of a running service on veth: the file has every frame that its ledger counts, and each drop's reason.

use std::net::{Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;

use crate::cargo::build_rxline;
use crate::fault::{Context, Result, ensure};
use crate::net::{finish, veth};
use crate::ns::Netns;
use crate::proc::{Cmd, Running};
use crate::step::Cx;
use crate::tshark::Captured;

const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 62, 1, 1);
/// Where nobody listens.
const CLOSED: u16 = 9;
/// Datagrams to that port.
const STRAY: u64 = 300;
const PINGS: u64 = 200;

/// What the service counts.
#[derive(Clone, Copy, Debug)]
struct Counts {
    received: u64,
    no_socket: u64,
    transmitted: u64,
}

/// A service, a kernel that talks to it, and captures of it.
pub fn capture(cx: &Cx<'_>) -> Result {
    let rxline = build_rxline(cx)?;
    let (ours, theirs) = (Netns::create(cx, "service")?, Netns::create(cx, "client")?);
    veth(cx, (&ours, "v0"), (&theirs, "v0"))?;
    finish(cx, &ours, "v0")?;
    finish(cx, &theirs, "v0")?;
    theirs.ip(cx, "addr add 10.62.1.2/24 dev v0")?;
    let socket = std::env::temp_dir().join(format!("rxl-capture-{}.sock", cx.host.suffix));
    let args = ["rxperf", "server", "--port", "af_packet:v0", "--address", "10.62.1.1/24", "--control"];
    let mut service = ours.cmd(&rxline).args(args).arg(&socket).start(cx, "service")?;
    cx.wait_for("the service's control socket", Duration::from_secs(20), || {
        service.must_live()?;
        Ok(socket.exists().then_some(()))
    })?;
    let at = At { cx, rxline: &rxline, socket: &socket };
    everything(&at, &theirs)?;
    filtered(&at, &theirs)?;
    service.signal(Signal::TERM)?;
    service.wait(cx, Duration::from_secs(20)).map(drop)
}

struct At<'a> {
    cx: &'a Cx<'a>,
    rxline: &'a Path,
    socket: &'a Path,
}

impl At<'_> {
    /// A capture, once it runs.
    fn start(&self, name: &str, args: &[&str]) -> Result<(Running, PathBuf)> {
        let file = self.cx.dir.join(format!("{name}.pcapng"));
        let cmd = Cmd::new(self.rxline).arg("capture").args(args).arg("--control").arg(self.socket);
        let mut running = cmd.arg("-o").arg(&file).start(self.cx, name)?;
        self.cx.wait_for("the capture's file", Duration::from_secs(10), || {
            running.must_live()?;
            Ok(std::fs::metadata(&file).is_ok_and(|meta| meta.len() > 0).then_some(()))
        })?;
        Ok((running, file))
    }

    fn counts(&self) -> Result<Counts> {
        let args = ["top", "--prometheus", "--control"];
        let told = Cmd::new(self.rxline).args(args).arg(self.socket).ok(self.cx)?.stdout;
        let value = |name: &str, label: &str| -> u64 {
            let named = told.lines().filter(|line| line.starts_with(name) && line.contains(label));
            named.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
        };
        let received = value("rxline_core_received_frames_total{", "");
        ensure!(
            told.contains("rxline_port_transmit_frames_total{"),
            "no frames of ports in the metrics:\n{told}"
        );
        Ok(Counts {
            received,
            no_socket: value("rxline_core_drops_total{", "reason=\"no_socket\""),
            transmitted: value("rxline_port_transmit_frames_total{", ""),
        })
    }
}

/// Everything, while pings are answered and datagrams go astray.
fn everything(at: &At<'_>, client: &Netns) -> Result {
    let cx = at.cx;
    let before = at.counts()?;
    let (mut running, file) = at.start("everything", &[])?;
    let pings = PINGS.to_string();
    let args = ["-A", "-q", "-n", "-c", &pings, "-W", "2", &SERVICE.to_string()];
    let told = client.cmd("ping").args(args).ok(cx)?.stdout;
    ensure!(told.contains(" 0% packet loss"), "ping lost some while we captured:\n{told}");
    stray(client, STRAY)?;
    let after = cx.wait_for("all stray datagrams are counted", Duration::from_secs(10), || {
        let now = at.counts()?;
        Ok((now.no_socket - before.no_socket == STRAY).then_some(now))
    })?;
    cx.pause(Duration::from_millis(500))?;
    running.signal(Signal::INT)?;
    let status = running.wait(cx, Duration::from_secs(20))?;
    ensure!(status.success(), "the capture ended with {}: {}", crate::proc::words(status), running.stderr());

    let captured = Captured::of(file);
    captured.must_be_clean(cx)?;
    let rows = captured.fields(cx, "frame", &["frame.packet_flags", "frame.comment", "icmp.type"])?;
    let count = |test: &dyn Fn(&[String]) -> bool| rows.iter().filter(|row| test(row)).count() as u64;
    let inbound = count(&|row| row[0].ends_with("01"));
    let outbound = count(&|row| row[0].ends_with("02"));
    let dropped = count(&|row| row[1] == "dropped: no_socket");
    let echoed = count(&|row| row[0].ends_with("02") && row[2] == "0");
    cx.log.line(format!(
        "{before:?} {after:?}: {inbound} in, {outbound} out, {dropped} dropped, {echoed} echoed"
    ));
    ensure!(
        inbound == after.received - before.received,
        "{inbound} in the file came in, of {after:?} - {before:?}"
    );
    ensure!(
        outbound == after.transmitted - before.transmitted,
        "{outbound} in the file went out, of {after:?} - {before:?}"
    );
    ensure!((dropped, echoed) == (STRAY, PINGS), "{dropped} have their reason, {echoed} echoes were sent");
    ensure!(running.stderr().contains(&format!("{STRAY} dropped")), "it said {:?}", running.stderr());
    Ok(())
}

/// Drops of one port alone, cut short, until there are enough.
fn filtered(at: &At<'_>, client: &Netns) -> Result {
    let cx = at.cx;
    let filter = format!("udp and dst port {CLOSED} and src host 10.62.1.2");
    let args = ["--drops", "--snaplen", "96", "--count", "50", "--filter", &filter];
    let (mut running, file) = at.start("filtered", &args)?;
    client.cmd("ping").args(["-A", "-q", "-n", "-c", "20", &SERVICE.to_string()]).ok(cx)?;
    stray(client, 60)?;
    let status = running.wait(cx, Duration::from_secs(20))?;
    ensure!(status.success(), "it ended with {}: {}", crate::proc::words(status), running.stderr());
    let names = ["frame.comment", "udp.dstport", "frame.cap_len", "frame.len"];
    let rows = Captured::of(file).fields(cx, "frame", &names)?;
    let want = ["dropped: no_socket".to_owned(), CLOSED.to_string(), "96".into(), "242".into()];
    ensure!(
        rows.len() == 50 && rows.iter().all(|row| row[..] == want),
        "{} rows, {:?}",
        rows.len(),
        rows.first()
    );
    Ok(())
}

/// Datagrams of 200 bytes from a kernel socket to where nobody listens.
fn stray(client: &Netns, n: u64) -> Result {
    client.within(|| {
        let socket = UdpSocket::bind("10.62.1.2:0").context(|| "a UDP socket".into())?;
        for _ in 0..n {
            socket.send_to(&[0x5a; 200], (SERVICE, CLOSED)).context(|| "send".into())?;
            std::thread::sleep(Duration::from_micros(200));
        }
        Ok(())
    })
}
