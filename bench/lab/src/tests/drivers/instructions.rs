//! How many instructions the drivers execute for a frame in `tx_burst` and in `rx_burst`, everything that they call included, and that it does
//! not grow: counted by callgrind, the same on any machine, however busy.
//!
//! A line for each. 64-byte frames go in bursts of 32 from one port to the other: pmd's example `driver_bursts` sends them, in a namespace that
//! has a veth pair and two bridged taps. What the kernel executes is not in it; what DPDK's own device does is. Intel's chips are not
//! here: a test of pmd's has their queues, and writes the descriptors back as they would.

use std::path::PathBuf;

use crate::cargo::{cargo, test_programs};
use crate::fault::{Fault, Result, ensure};
use crate::net::{finish, veth};
use crate::ns::Netns;
use crate::proc::Cmd;
use crate::step::Cx;
use crate::tests::rcu::callgrind::{self, Symbol};

/// Frames of a run.
const FRAMES: u64 = 20_480;

/// A way for frames, and the most that they may cost on it.
struct Driver {
    name: &'static str,
    /// Tell the program what to do: two URLs, frames go from the first to the second; or a test.
    words: &'static [&'static str],
    /// The queue's type in pmd::drivers.
    queue: &'static str,
    /// Instructions a frame: in `tx_burst` of the first, in `rx_burst` of the second; without a limit where that end is another driver's.
    /// A fifth or so above what it took when the guard was set; who makes it take fewer lowers it.
    most: [Option<u64>; 2],
}

const DRIVERS: &[Driver] = &[
    Driver {
        name: "memory",
        words: &["memory:guard", "memory:guard"],
        queue: "memory::MemoryQueue",
        most: [Some(20), Some(19)],
    },
    Driver {
        name: "null",
        words: &["null:rx=64", "null:rx=64"],
        queue: "null::NullQueue",
        most: [Some(33), Some(74)],
    },
    Driver {
        name: "memif client to server",
        words: &["memif:@rxline-guard-c", "memif:@rxline-guard-c,role=server"],
        queue: "memif::queue::MemifQueue",
        most: [Some(96), Some(134)],
    },
    Driver {
        name: "memif server to client",
        words: &["memif:@rxline-guard-s,role=server", "memif:@rxline-guard-s"],
        queue: "memif::queue::MemifQueue",
        most: [Some(136), Some(133)],
    },
    Driver {
        name: "sim around memory",
        words: &["sim:@memory:guard", "sim:@memory:guard"],
        queue: "sim::SimQueue",
        most: [Some(520), Some(510)],
    },
    Driver {
        name: "af_packet",
        words: &["af_packet:v0", "af_packet:v1"],
        queue: "af_packet::PacketQueue",
        most: [Some(140), Some(184)],
    },
    Driver {
        name: "af_xdp",
        words: &["af_xdp:v0", "af_xdp:v1"],
        queue: "af_xdp::queue::XdpQueue<A>",
        most: [Some(202), Some(107)],
    },
    Driver {
        name: "tap",
        words: &["tap:t0", "tap:t1"],
        queue: "tap::TapQueue",
        most: [Some(130), Some(180)],
    },
    Driver {
        name: "pcap recording",
        words: &["pcap:tx=guard.pcap", "null:rx=64"],
        queue: "pcap::PcapQueue",
        most: [Some(265), None],
    },
    // Of what the one before recorded.
    Driver {
        name: "pcap replay",
        words: &["null:rx=64", "pcap:rx=guard.pcap,pace=max"],
        queue: "pcap::PcapQueue",
        most: [None, Some(366)],
    },
];

/// With the feature `dpdk`.
const DPDK: &[Driver] = &[Driver {
    name: "dpdk net_null",
    words: &["dpdk:net_null0,size=64", "dpdk:net_null1,size=64"],
    queue: "dpdk::queue::DpdkQueue",
    most: [Some(195), Some(99)],
}];

/// Tests.
const INTEL: &[Driver] = &[
    Driver {
        name: "igb",
        words: &["drivers::intel::bursts::igb"],
        queue: CHIP,
        most: [Some(431), Some(226)],
    },
    Driver {
        name: "e1000e",
        words: &["drivers::intel::bursts::e1000e"],
        queue: CHIP,
        most: [Some(442), Some(226)],
    },
    Driver {
        name: "ixgbe",
        words: &["drivers::intel::bursts::ixgbe"],
        queue: CHIP,
        most: [Some(431), Some(226)],
    },
];
const CHIP: &str = "intel::queue::IntelQueue<C>";

/// See the module.
pub fn instructions(cx: &Cx<'_>) -> Result {
    let ns = wires(cx)?;
    let mut too_many = Vec::new();
    let mut guard = |program: &Program, drivers: &[Driver]| {
        drivers.iter().try_for_each(|driver| driver.guard(cx, program, &ns, &mut too_many))
    };
    guard(&Program::example(cx, &[])?, DRIVERS)?;
    // In the place of the one before.
    guard(&Program::example(cx, &["--features", "dpdk"])?, DPDK)?;
    guard(&Program::unit_tests(cx)?, INTEL)?;
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
    /// It enters this one once it is warm.
    steady: &'static str,
    /// Behind a driver's words.
    words: Vec<String>,
}

impl Program {
    fn example(cx: &Cx<'_>, features: &[&str]) -> Result<Program> {
        let build = ["build", "--release", "--locked", "--package", "pmd", "--example", "driver_bursts"];
        cargo(cx).args(build).args(features).run_to_log(cx)?;
        let path = cx.host.target().join("release/examples/driver_bursts");
        let symbols = callgrind::symbols(cx, &path)?;
        Ok(Program {
            path,
            symbols,
            steady: "driver_bursts::steady_from_here",
            words: vec![FRAMES.to_string()],
        })
    }

    fn unit_tests(cx: &Cx<'_>) -> Result<Program> {
        let build = ["test", "--release", "--locked", "--package", "pmd", "--lib", "--no-run"];
        let built = cargo(cx).args(build).arg("--message-format=json").quiet().ok(cx)?;
        let (_, path) = test_programs(&built.stdout)?.remove(0);
        let symbols = callgrind::symbols(cx, &path)?;
        let words = ["--exact", "--nocapture"].map(String::from).into();
        Ok(Program { path, symbols, steady: "pmd::drivers::intel::bursts::steady_from_here", words })
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
        let start = program.functions(program.steady)?;
        let command = Cmd::new(&program.path).args(self.words).args(&program.words).cwd(&cx.dir);
        let file = format!("{}-{what}", self.name.replace(' ', "-"));
        let (total, told) = callgrind::count(cx, &file, &command, &start[0], &functions, Some(ns))?;
        let frames = if what == "tx_burst" { "sent=" } else { "received=" };
        let frames = told.split_whitespace().find_map(|word| word.strip_prefix(frames)?.parse::<u64>().ok());
        let frames = frames.filter(|frames| *frames >= FRAMES);
        let frames = frames.ok_or_else(|| Fault::Check(format!("{}: {told:?} are not all", self.name)))?;
        // A frame takes some: its address is stored, at least.
        ensure!(total >= frames, "{}: {total} instructions for {frames} frames are not all", self.name);
        Ok(total.div_ceil(frames))
    }
}
