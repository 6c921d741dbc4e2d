//! How many instructions the drivers execute for a frame in `tx_burst` and in `rx_burst`, everything that they call included, and that it does
//! not grow: counted by callgrind, the same on any machine, however busy.
//!
//! A line of [`DRIVERS`] for each. pmd's example `driver_bursts` sends 64-byte frames in bursts of 32 from one port to the other, in a
//! namespace that has a veth pair and two bridged taps. What the kernel executes is not in it.

use std::path::PathBuf;

use crate::cargo::cargo;
use crate::fault::{Fault, Result, ensure};
use crate::net::{finish, veth};
use crate::ns::Netns;
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
    /// Instructions a frame: in `tx_burst` of the first, in `rx_burst` of the second; without a limit where that end is another driver's.
    /// A fifth or so above what it took when the guard was set; who makes it take fewer lowers it.
    most: [Option<u64>; 2],
}

const DRIVERS: &[Driver] = &[
    Driver {
        name: "memory",
        urls: ["memory:guard", "memory:guard"],
        queue: "memory::MemoryQueue",
        most: [Some(20), Some(19)],
    },
    Driver {
        name: "null",
        urls: ["null:rx=64", "null:rx=64"],
        queue: "null::NullQueue",
        most: [Some(33), Some(74)],
    },
    Driver {
        name: "memif client to server",
        urls: ["memif:@rxline-guard-c", "memif:@rxline-guard-c,role=server"],
        queue: "memif::queue::MemifQueue",
        most: [Some(96), Some(134)],
    },
    Driver {
        name: "memif server to client",
        urls: ["memif:@rxline-guard-s,role=server", "memif:@rxline-guard-s"],
        queue: "memif::queue::MemifQueue",
        most: [Some(136), Some(133)],
    },
    Driver {
        name: "sim around memory",
        urls: ["sim:@memory:guard", "sim:@memory:guard"],
        queue: "sim::SimQueue",
        most: [Some(520), Some(510)],
    },
    Driver {
        name: "af_packet",
        urls: ["af_packet:v0", "af_packet:v1"],
        queue: "af_packet::PacketQueue",
        most: [Some(140), Some(184)],
    },
    Driver {
        name: "af_xdp",
        urls: ["af_xdp:v0", "af_xdp:v1"],
        queue: "af_xdp::queue::XdpQueue<A>",
        most: [Some(202), Some(107)],
    },
    Driver { name: "tap", urls: ["tap:t0", "tap:t1"], queue: "tap::TapQueue", most: [Some(130), Some(180)] },
    Driver {
        name: "pcap recording",
        urls: ["pcap:tx=guard.pcap", "null:rx=64"],
        queue: "pcap::PcapQueue",
        most: [Some(265), None],
    },
    // Of what the one before recorded.
    Driver {
        name: "pcap replay",
        urls: ["null:rx=64", "pcap:rx=guard.pcap,pace=max"],
        queue: "pcap::PcapQueue",
        most: [None, Some(366)],
    },
];

/// See the module.
pub fn instructions(cx: &Cx<'_>) -> Result {
    let build = ["build", "--release", "--locked", "--package", "pmd", "--example", "driver_bursts"];
    cargo(cx).args(build).run_to_log(cx)?;
    let program = Program::load(cx, cx.host.target().join("release/examples/driver_bursts"))?;
    let ns = wires(cx)?;
    let mut too_many = Vec::new();
    for driver in DRIVERS {
        driver.guard(cx, &program, &ns, &mut too_many)?;
    }
    ensure!(too_many.is_empty(), "{}", too_many.join("\n  "));
    Ok(())
}

/// A namespace with the veth pair `v0`, `v1` and the taps `t0`, `t1`, whose bridge learns nothing: all frames are from one address to itself.
fn wires(cx: &Cx<'_>) -> Result<Netns> {
    let ns = Netns::create(cx, "bursts")?;
    veth(cx, (&ns, "v0"), (&ns, "v1"))?;
    finish(cx, &ns, "v0")?;
    finish(cx, &ns, "v1")?;
    ns.ip(cx, "link add br0 type bridge ageing_time 0 mcast_snooping 0")?;
    ns.ip(cx, "link set br0 up")?;
    for tap in ["t0", "t1"] {
        ns.ip(cx, &format!("tuntap add dev {tap} mode tap"))?;
        ns.ip(cx, &format!("link set {tap} master br0 up"))?;
    }
    Ok(ns)
}

/// What is counted, and its functions.
struct Program {
    path: PathBuf,
    symbols: Vec<Symbol>,
}

impl Program {
    fn load(cx: &Cx<'_>, path: PathBuf) -> Result<Program> {
        Ok(Program { symbols: callgrind::symbols(cx, &path)?, path })
    }

    /// All functions of this name: one, or one for each type that a generic one is made for.
    fn functions(&self, wanted: &str) -> Result<Vec<String>> {
        let found = self.symbols.iter().filter(|symbol| symbol.readable == wanted);
        let found: Vec<String> = found.map(|symbol| symbol.mangled.clone()).collect();
        ensure!(!found.is_empty(), "{}: no function {wanted}", self.path.display());
        Ok(found)
    }
}

impl Driver {
    fn guard(&self, cx: &Cx<'_>, program: &Program, ns: &Netns, too_many: &mut Vec<String>) -> Result {
        for (what, most) in ["tx_burst", "rx_burst"].into_iter().zip(self.most) {
            let Some(most) = most else { continue };
            let each = self.count(cx, program, ns, what)?;
            cx.log.line(format!("{}: {what}: {each} instructions a frame, at most {most}", self.name));
            if each > most {
                let name = self.name;
                too_many
                    .push(format!("{name}: {each} instructions a frame in {what}, and {most} is the most"));
            }
        }
        Ok(())
    }

    fn count(&self, cx: &Cx<'_>, program: &Program, ns: &Netns, what: &str) -> Result<u64> {
        let functions =
            program.functions(&format!("<pmd::drivers::{} as pmd::port::Queue>::{what}", self.queue))?;
        let start = program.functions(STEADY)?;
        let command = Cmd::new(&program.path).args(self.urls).arg(FRAMES.to_string()).cwd(&cx.dir);
        let file = format!("{}-{what}", self.name.replace(' ', "-"));
        let (total, told) = callgrind::count(cx, &file, &command, &start[0], &functions, ns)?;
        let frames = if what == "tx_burst" { "sent=" } else { "received=" };
        let frames = told.split_whitespace().find_map(|word| word.strip_prefix(frames)?.parse::<u64>().ok());
        let frames = frames.filter(|frames| *frames >= FRAMES);
        let frames = frames.ok_or_else(|| Fault::Check(format!("{}: {told:?} are not all", self.name)))?;
        // A frame takes some: its address is stored, at least.
        ensure!(total >= frames, "{}: {total} instructions for {frames} frames are not all", self.name);
        Ok(total.div_ceil(frames))
    }
}
