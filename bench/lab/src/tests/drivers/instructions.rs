//! How many instructions the drivers execute for a frame in `tx_burst` and in `rx_burst`, everything that they call included, and that it does
//! not grow: counted by callgrind, the same on any machine, however busy.
//!
//! A line of [`DRIVERS`] for each. pmd's example `driver_bursts` sends 64-byte frames in bursts of 32 from one port to the other.

use std::path::PathBuf;

use crate::cargo::cargo;
use crate::fault::{Fault, Result, ensure};
use crate::proc::Cmd;
use crate::step::Cx;
use crate::tests::rcu::callgrind::{self, Symbol};

/// Frames of a run.
const FRAMES: u64 = 20_480;
/// The program enters it once it is warm.
const STEADY: &str = "driver_bursts::steady_from_here";

/// A way for frames, and the most that they may cost on it.
struct Driver {
    name: &'static str,
    /// Frames go from the first to the second.
    urls: [&'static str; 2],
    /// The queue's type in pmd::drivers.
    queue: &'static str,
    /// Instructions a frame: in `tx_burst` of the first, in `rx_burst` of the second. A fifth or so above what it took when the guard
    /// was set; who makes it take fewer lowers it.
    most: [u64; 2],
}

const DRIVERS: &[Driver] = &[
    Driver {
        name: "memory",
        urls: ["memory:guard", "memory:guard"],
        queue: "memory::MemoryQueue",
        most: [20, 19],
    },
    Driver { name: "null", urls: ["null:rx=64", "null:rx=64"], queue: "null::NullQueue", most: [33, 74] },
    Driver {
        name: "memif client to server",
        urls: ["memif:@rxline-guard-c", "memif:@rxline-guard-c,role=server"],
        queue: "memif::queue::MemifQueue",
        most: [96, 134],
    },
    Driver {
        name: "memif server to client",
        urls: ["memif:@rxline-guard-s,role=server", "memif:@rxline-guard-s"],
        queue: "memif::queue::MemifQueue",
        most: [136, 133],
    },
];

/// See the module.
pub fn instructions(cx: &Cx<'_>) -> Result {
    let build = ["build", "--release", "--locked", "--package", "pmd", "--example", "driver_bursts"];
    cargo(cx).args(build).run_to_log(cx)?;
    let program = cx.host.target().join("release/examples/driver_bursts");
    let symbols = callgrind::symbols(cx, &program)?;
    let mut too_many = Vec::new();
    for driver in DRIVERS {
        for (what, most) in ["tx_burst", "rx_burst"].into_iter().zip(driver.most) {
            let each = driver.count(cx, &program, &symbols, what)?;
            cx.log.line(format!("{}: {what}: {each} instructions a frame, at most {most}", driver.name));
            if each > most {
                too_many.push(format!(
                    "{}: {each} instructions a frame in {what}, and {most} is the most",
                    driver.name
                ));
            }
        }
    }
    ensure!(too_many.is_empty(), "{}", too_many.join("\n  "));
    Ok(())
}

impl Driver {
    fn count(&self, cx: &Cx<'_>, program: &PathBuf, symbols: &[Symbol], what: &str) -> Result<u64> {
        let name = |wanted: &str| {
            let found = symbols.iter().find(|symbol| symbol.readable == wanted);
            found
                .map(|symbol| symbol.mangled.clone())
                .ok_or_else(|| Fault::Check(format!("no function {wanted}")))
        };
        let function = name(&format!("<pmd::drivers::{} as pmd::port::Queue>::{what}", self.queue))?;
        let command = Cmd::new(program).args(self.urls).arg(FRAMES.to_string());
        let file = format!("{}-{what}", self.name.replace(' ', "-"));
        let (executed, told) = callgrind::run(cx, &file, &command, &name(STEADY)?, &[function])?;
        let frames = if what == "tx_burst" { "sent=" } else { "received=" };
        let frames = told.split_whitespace().find_map(|word| word.strip_prefix(frames)?.parse::<u64>().ok());
        let frames = frames.filter(|frames| *frames >= FRAMES);
        let frames = frames.ok_or_else(|| Fault::Check(format!("{}: {told:?} are not all", self.name)))?;
        let total: u64 = executed.iter().map(|instruction| instruction.times).sum();
        // A frame takes some: its address is stored, at least.
        ensure!(total >= frames, "{}: {total} instructions for {frames} frames are not all", self.name);
        Ok(total.div_ceil(frames))
    }
}
