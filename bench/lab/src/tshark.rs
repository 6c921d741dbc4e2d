//! Captures on interfaces, and Wireshark's judgement of every packet in them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;

use crate::fault::{Fault, Result, ensure};
use crate::ns::Netns;
use crate::proc::{Cmd, Running};
use crate::step::Cx;

/// Within that time dumpcap has what is still in the kernel's ring.
const RING: Duration = Duration::from_millis(300);

/// A capture in progress.
pub struct Capture {
    dumpcap: Running,
    file: PathBuf,
}

/// A finished capture.
pub struct Captured {
    file: PathBuf,
}

/// Abort codes, and how many calls each ended. A repeated ABORT of one call counts once.
pub type Aborts = BTreeMap<i64, usize>;

impl Capture {
    /// Captures everything on `interface` into `NAME.pcapng`; returns once it does.
    pub fn start(cx: &Cx<'_>, tap: (&Netns, &str), name: &str) -> Result<Capture> {
        Capture::of(cx, tap, name, "")
    }

    /// Captures what fits a pcap filter.
    pub fn of(cx: &Cx<'_>, (ns, interface): (&Netns, &str), name: &str, filter: &str) -> Result<Capture> {
        let file = cx.dir.join(format!("{name}.pcapng"));
        let dumpcap =
            ns.cmd("dumpcap").args(["-q", "-B", "64", "-i", interface, "-f", filter, "-w"]).arg(&file);
        let mut dumpcap = dumpcap.start(cx, &format!("dumpcap-{name}"))?;
        cx.wait_for("dumpcap captures", Duration::from_secs(10), || {
            dumpcap.must_live()?;
            Ok(dumpcap.stderr().contains("File:").then_some(()))
        })?;
        Ok(Capture { dumpcap, file })
    }

    /// Ends it. An error if the capture itself lost packets: then it proves nothing.
    pub fn stop(mut self, cx: &Cx<'_>) -> Result<Captured> {
        std::thread::sleep(RING);
        self.dumpcap.signal(Signal::INT)?;
        self.dumpcap.wait(cx, Duration::from_secs(10))?;
        let told = self.dumpcap.stderr();
        let figures = told.lines().find_map(|line| line.split_once("received/dropped").map(|(_, rest)| rest));
        let counts = figures.and_then(|rest| rest.split(": ").nth(1)).and_then(|rest| rest.split(' ').next());
        match counts.and_then(|counts| counts.split_once('/')) {
            Some((_, "0")) => Ok(Captured { file: std::mem::take(&mut self.file) }),
            Some((_, lost)) => {
                Err(Fault::Check(format!("dumpcap lost {lost} packets of {}", self.file.display())))
            }
            None => Err(Fault::Check(format!("dumpcap said nothing of its losses: {told}"))),
        }
    }
}

/// What was captured before a check failed is kept, for who must find out what was wrong.
impl Drop for Capture {
    fn drop(&mut self) {
        for wait in [RING, Duration::from_secs(1)] {
            if !matches!(self.dumpcap.ended(), Ok(None)) {
                return;
            }
            std::thread::sleep(wait);
            let _ = self.dumpcap.signal(Signal::INT);
        }
    }
}

impl Captured {
    /// A file that somebody else wrote.
    pub fn of(file: PathBuf) -> Captured {
        Captured { file }
    }

    /// An error if any packet is malformed or has a wrong checksum; how many packets there are.
    pub fn must_be_clean(&self, cx: &Cx<'_>) -> Result<usize> {
        let wrong = "_ws.malformed || ip.checksum.status == \"Bad\" || udp.checksum.status == \"Bad\" \
                     || icmp.checksum.status == \"Bad\" || icmpv6.checksum.status == \"Bad\"";
        let found = tshark(&self.file).args(["-Y", wrong]).ok(cx)?.stdout;
        let count = found.lines().count();
        let first: Vec<&str> = found.lines().take(5).collect();
        let file = self.file.display();
        ensure!(count == 0, "tshark objects to {count} packets of {file}:\n{}", first.join("\n"));
        let checked = "udp.checksum.status == \"Good\"";
        let checked = tshark(&self.file).args(["-Y", checked]).ok(cx)?.stdout.lines().count();
        // Otherwise the filter above could not have found anything.
        ensure!(checked > 0, "tshark checked no UDP checksum of {file}");
        Ok(checked)
    }

    /// Every call's abort code.
    pub fn aborts(&self, cx: &Cx<'_>) -> Result<Aborts> {
        let names = ["rx.abort_code", "rx.epoch", "rx.cid", "rx.callnumber", "udp.srcport", "udp.dstport"];
        let mut calls = BTreeMap::new();
        for row in self.fields(cx, &sent("rx.type == 4"), &names)? {
            let number = row[0].parse::<i64>();
            let number = number.map_err(|_| Fault::Check(format!("tshark printed an ABORT as {row:?}")))?;
            // Some versions print it with its sign, some without.
            calls.insert(row[1..].to_vec(), i64::from(number as u32 as i32));
        }
        let mut aborts = Aborts::new();
        for code in calls.into_values() {
            *aborts.entry(code).or_default() += 1;
        }
        Ok(aborts)
    }

    /// The named fields of every packet that fits a display filter.
    pub fn fields(&self, cx: &Cx<'_>, filter: &str, names: &[&str]) -> Result<Vec<Vec<String>>> {
        let names = names.iter().flat_map(|name| ["-e", name]);
        let told = tshark(&self.file).args(["-Y", filter, "-T", "fields"]).args(names).ok(cx)?.stdout;
        Ok(told.lines().map(|line| line.split('\t').map(str::to_string).collect()).collect())
    }

    /// Puts every packet that fits a display filter into the log, for who must find out what was wrong.
    pub fn list(&self, cx: &Cx<'_>, filter: &str) -> Result {
        let names = ["frame.time_relative", "ip.src", "udp.srcport", "ip.dst", "udp.dstport", "rx.cid"];
        let names = names.iter().chain(&["rx.callnumber", "rx.seq", "rx.serial", "rx.flags"]);
        for row in self.fields(cx, filter, &names.copied().collect::<Vec<_>>())? {
            cx.log.line(row.join(" "));
        }
        Ok(())
    }

    /// The UDP payloads of every packet of Rx that fits a display filter, sorted; those that go between the gateway and its neighbours
    /// (VERSION, DEBUG) are left out.
    pub fn rx_payloads(&self, cx: &Cx<'_>, filter: &str) -> Result<Vec<String>> {
        let filter = sent(&format!("{filter} && rx && rx.type != 13 && rx.type != 8"));
        let mut payloads: Vec<String> =
            self.fields(cx, &filter, &["udp.payload"])?.into_iter().flatten().collect();
        payloads.sort_unstable();
        Ok(payloads)
    }

    /// How many packets fit a display filter.
    pub fn count(&self, cx: &Cx<'_>, filter: &str) -> Result<usize> {
        Ok(tshark(&self.file).args(["-Y", filter]).ok(cx)?.stdout.lines().count())
    }
}

/// Narrows a display filter to packets that were sent themselves: tshark also shows fields of the packet that an ICMP error
/// quotes, so that one reply to a port that its client has left would count as a second packet, in the other direction.
pub fn sent(filter: &str) -> String {
    format!("({filter}) && !icmp && !icmpv6")
}

/// The AFS dissector on top of Rx is off: it takes the first packet of a long call for the whole of it and calls what it
/// misses malformed, between OpenAFS's own programs too. What calls carry is compared byte for byte elsewhere.
fn tshark(file: &Path) -> Cmd {
    let cmd =
        Cmd::new("tshark").args(["-n", "-o", "ip.check_checksum:TRUE", "-o", "udp.check_checksum:TRUE"]);
    let cmd = cmd.args(["-d", "udp.port==7002-7003,rx", "-d", "udp.port==7009,rx"]);
    cmd.args(["--disable-protocol", "afs", "-r"]).arg(file).limit(Duration::from_secs(180)).quiet()
}
