//! `pmd/examples/forward.rs` in a guest: every frame goes back to where it came from.

use std::path::PathBuf;
use std::time::Duration;

use pmd::Rss;
use serde::Deserialize;

use crate::cargo::cargo;
use crate::fault::{Fault, Result, ensure, tail};
use crate::guest::Guest;
use crate::step::Cx;

/// Builds it, with these features of pmd.
pub fn build(cx: &Cx<'_>, features: &str) -> Result<PathBuf> {
    let build = ["build", "--release", "--locked", "--package", "pmd", "--example", "forward", "--features"];
    cargo(cx).args(build).arg(features).run_to_log(cx)?;
    Ok(cx.host.target().join("release/examples/forward"))
}

/// One that runs.
pub struct Forward {
    name: String,
}

/// What it prints at its end.
#[derive(Debug, Deserialize)]
pub struct Report {
    /// How often a thread slept until the device woke it.
    pub sleeps: u64,
    /// Whether the port's link was up at the end.
    pub up: Vec<bool>,
    /// How the port chooses a queue, if it says so.
    pub rss: Vec<Option<Choice>>,
    /// Buffers that did not come home.
    pub buffers_out: u64,
    /// The port's counters.
    pub ports: Vec<Counters>,
    /// One for each thread.
    pub queues: Vec<Thread>,
}

/// `pmd::Rss`.
#[derive(Debug, Deserialize)]
pub struct Choice {
    key: Vec<u8>,
    table: Vec<u16>,
    udp_ports: bool,
}

impl Choice {
    /// As pmd has it.
    pub fn rss(&self) -> Result<Rss> {
        let key = self.key[..].try_into();
        let key = key.map_err(|_| Fault::Check(format!("a Toeplitz key of {} bytes", self.key.len())))?;
        Ok(Rss { key, table: self.table.clone(), udp_ports: self.udp_ports })
    }
}

/// Of a queue, or of all of them.
#[derive(Debug, Deserialize)]
pub struct Counters {
    /// Frames received.
    pub rx_frames: u64,
    /// Frames sent.
    pub tx_frames: u64,
}

/// One thread, which polls one queue.
#[derive(Debug, Deserialize)]
pub struct Thread {
    /// Its queue.
    pub ports: Vec<Counters>,
    /// Frames that came with a tag taken off.
    pub vlans: u64,
    /// What the NIC said of the frames' checksums.
    pub checksums: Checksums,
}

/// How many frames of each kind.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
pub struct Checksums {
    /// Nothing was said.
    pub unknown: u64,
    /// Right.
    pub good: u64,
    /// Wrong.
    pub bad: u64,
}

impl Forward {
    /// Starts it with these words, and waits until its port is open. `name` tells several of one guest apart.
    pub fn start(cx: &Cx<'_>, guest: &mut Guest<'_>, name: &str, words: &str) -> Result<Forward> {
        // What an earlier one of that name said must be gone before this one is listened to.
        guest.sh(&format!(
            "rm -f /share/{name}.json /share/{name}.err
            RUST_BACKTRACE=1 /share/forward {words} --json > /share/{name}.json 2> /share/{name}.err &
            echo $! > /tmp/{name}.pid"
        ))?;
        let forward = Forward { name: name.into() };
        let ready = cx.wait_for("forward opens its port", Duration::from_secs(60), || {
            let said = guest.shared(&format!("{name}.err"));
            if said.lines().any(|line| line == "ready") {
                return Ok(Some(()));
            }
            let refused = said.contains("forward: ") && said.ends_with('\n');
            ensure!(!refused, "forward refuses to start: {said}");
            guest.must_be_well()?;
            Ok(None)
        });
        cx.log.block(&guest.shared(&format!("{name}.err")));
        ready.map(|()| forward)
    }

    /// An error if it ended.
    pub fn must_live(&self, guest: &mut Guest<'_>) -> Result {
        let name = &self.name;
        let (status, _) = guest.run(&format!("kill -0 $(cat /tmp/{name}.pid)"), Duration::from_secs(10))?;
        let said = guest.shared(&format!("{name}.err"));
        ensure!(status == 0, "forward ended by itself:\n{}", tail(&said, 20));
        Ok(())
    }

    /// CPU time that it used so far: clock ticks, of which there are 100 a second, in /proc/PID/stat.
    pub fn cpu_seconds(&self, guest: &mut Guest<'_>) -> Result<f64> {
        let stat = guest.sh(&format!("cat /proc/$(cat /tmp/{}.pid)/stat", self.name))?;
        let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
        Ok(ticks as f64 / 100.0)
    }

    /// Kills it, without a chance to put anything right.
    pub fn kill(self, guest: &mut Guest<'_>) -> Result {
        self.end(guest, "KILL")
    }

    /// Ends it; its report.
    pub fn stop(self, guest: &mut Guest<'_>) -> Result<Report> {
        self.must_live(guest)?;
        let name = self.name.clone();
        self.end(guest, "TERM")?;
        let told = guest.shared(&format!("{name}.json"));
        let report: Report = serde_json::from_str(told.trim()).map_err(|error| {
            let said = guest.shared(&format!("{name}.err"));
            Fault::Check(format!("forward's report is {told:?}: {error}\n{}", tail(&said, 20)))
        })?;
        guest.log(&told);
        ensure!(report.buffers_out == 0, "{} buffers did not come home", report.buffers_out);
        Ok(report)
    }

    fn end(self, guest: &mut Guest<'_>, signal: &str) -> Result {
        let name = &self.name;
        let wait = format!(
            "pid=$(cat /tmp/{name}.pid); kill -{signal} $pid
            while kill -0 $pid 2> /dev/null; do usleep 50000; done"
        );
        guest.sh(&wait).map(drop)
    }
}
