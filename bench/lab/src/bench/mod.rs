//! The benches: ours beside an anchor that runs on the same machine in the same minutes.
//!
//! A bench measures its arms in rounds, every arm once a round in random order, and compares what was measured in the same
//! round. It judges the median of those ratios, never a figure by itself. Deliberately absent: averages, and figures
//! carried over from another run or another machine.

pub mod arms;
mod busy;
mod compare;
mod cost_curve;
mod drivers;
mod machine;
mod memory;
mod plot;
mod profile;
mod rcu;
mod report;
mod rounds;
mod rpc;
mod rx;
mod stats;
mod testpmd;
mod vs_kernel;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use crate::fault::{Context, Fault, Result, ensure};
use crate::host::Host;
use crate::step::Cx;

use compare::Comparison;
use machine::Machine;
use report::{Line, Report};
use rounds::Rounds;

/// One bench.
pub struct Bench {
    /// As `list` shows it: `name`, or `group/name`; naming the group runs all of it.
    pub name: &'static str,
    /// What it compares.
    pub about: &'static str,
    minutes: u64,
    run: Run,
}

/// How a bench measures.
enum Run {
    /// Ours beside an anchor, line by line.
    Compare(fn(&Cx<'_>, &mut Rounds) -> Result<Vec<Comparison>>),
    /// More than lines of a table can say.
    Tell(fn(&Cx<'_>, &mut Rounds) -> Result<Found>),
}

/// What a bench found out.
#[derive(Default)]
pub struct Found {
    /// Lines of the table.
    pub comparisons: Vec<Comparison>,
    /// What is missed besides the bars of those lines, in words.
    pub missed: Vec<String>,
    /// Its own report: names of files and what is in them.
    pub files: Vec<(&'static str, String)>,
}

impl Bench {
    /// Whether `word` asks for this bench: its name, or its group.
    fn is_meant_by(&self, word: &str) -> bool {
        self.name == word || self.name.split('/').next() == Some(word)
    }
}

/// All of them.
pub const ALL: &[Bench] = &[
    Bench {
        name: "buffer-cycle",
        about: "alloc, write 64 B, ring, read, free on one core; against DPDK's rte_ring and rte_mempool in C",
        minutes: 20,
        run: Run::Compare(memory::buffer_cycle),
    },
    Bench {
        name: "drivers/memory",
        about: "forwarding over memory with addresses swapped; against dpdk-testpmd macswap on net_ring",
        minutes: 20,
        run: Run::Compare(memory::forward),
    },
    Bench {
        name: "drivers/af_xdp",
        about: "AF_XDP on veth: forwarding, one way, round trips; against testpmd net_af_xdp, a bare C loop, kernel UDP",
        minutes: 20,
        run: Run::Compare(drivers::af_xdp),
    },
    Bench {
        name: "drivers/dpdk",
        about: "forwarding on DPDK's net_null and net_ring through dpdk:, and on our null:; against dpdk-testpmd on the same devices",
        minutes: 20,
        run: Run::Compare(drivers::dpdk),
    },
    Bench {
        name: "drivers/memif",
        about: "forwarding through memif between two processes; against dpdk-testpmd macswap on net_memif, before the same peer",
        minutes: 20,
        run: Run::Compare(drivers::memif),
    },
    Bench {
        name: "rcu",
        about: "reads, grace periods, dispatch to sockets, lookups; against liburcu, DPDK, crossbeam, locks and counts",
        minutes: 20,
        run: Run::Compare(rcu::rcu),
    },
    Bench {
        name: "rx/veth",
        about: "Rx calls, bulk, and bulk under rxkad over veth, on af_xdp:, af_packet: and UDP sockets; against OpenAFS's Rx library",
        minutes: 20,
        run: Run::Compare(rx::veth),
    },
    Bench {
        name: "rx/memory",
        about: "Rx calls on one serving core over memory:, and where its time goes; against the goal",
        minutes: 10,
        run: Run::Compare(rx::memory),
    },
    Bench {
        name: "rx/path",
        about: "one bulk call at 10 and 50 ms with and without loss; against the protocol's limit, RFC 9438, OpenAFS's Rx and the simulation",
        minutes: 60,
        run: Run::Compare(rx::path),
    },
    Bench {
        name: "rx/shared",
        about: "two bulk calls through one bottleneck; against a fair share",
        minutes: 20,
        run: Run::Compare(rx::shared),
    },
    Bench {
        name: "rx/idle",
        about: "a million idle Rx connections: memory, and calls of active ones; against calls without them",
        minutes: 20,
        run: Run::Compare(rx::idle),
    },
    Bench {
        name: "rxperf",
        about: "Rx calls over veth, directly and through the gateway; against OpenAFS's Rx library",
        minutes: 30,
        run: Run::Compare(rpc::rxperf),
    },
    Bench {
        name: "vs-kernel",
        about: "UDP echo and Rx calls on our ports and on the kernel's sockets at their best: rates, round trips, bulk, latency against load, CPU",
        minutes: 60,
        run: Run::Tell(vs_kernel::vs_kernel),
    },
    Bench {
        name: "vs-kernel/openafs",
        about: "vos and pts against OpenAFS's database servers, through the gateway; against the same without it",
        minutes: 20,
        run: Run::Compare(vs_kernel::openafs),
    },
    Bench {
        name: "cost-curve",
        about: "calls/s and memory against sockets, connections, calls in flight, payload and cores, over memory:",
        minutes: 30,
        run: Run::Tell(cost_curve::cost_curve),
    },
];

/// What to measure and what to do with it.
#[derive(clap::Args)]
pub struct Args {
    /// As `list` shows them; without names, all of them
    names: Vec<String>,

    /// Rounds; each measures ours and the anchor once, in random order
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=1000))]
    pairs: usize,

    /// Seed of the random orders; drawn if not given
    #[arg(long, value_name = "N")]
    seed: Option<u64>,

    /// Keep every figure in this file, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Draw the dispatch figures of `rcu` here, as SVG; beside the JSON file if not given
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,

    /// Put the reports of `vs-kernel` and `cost-curve` into this folder; beside the JSON file if not given
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,

    /// Exit 1 and name each bar that is missed
    #[arg(long)]
    check: bool,
}

/// Measures, prints the table, keeps the figures. A bench that cannot measure is a failure with and without `--check`.
pub fn run(host: &Host, args: &Args) -> Result<ExitCode> {
    let benches = select(ALL, &args.names)?;
    // No more digits than JSON numbers keep exactly everywhere.
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..1 << 32));
    let mut rounds = Rounds::new(args.pairs, seed);
    let mut report = Report {
        machine: Machine::describe(),
        seed,
        pairs: args.pairs,
        comparisons: Vec::new(),
        other_missed: Vec::new(),
        failed: Vec::new(),
    };
    for bench in benches {
        println!("{}: {}", bench.name, bench.about);
        match measure(host, bench, &mut rounds) {
            Ok(found) => {
                report.comparisons.extend(found.comparisons.into_iter().map(Line::from));
                report.other_missed.extend(found.missed);
                args.keep_files(host, &found.files)?;
            }
            Err(Fault::Interrupted) => return Err(Fault::Interrupted),
            Err(fault) => report.failed.push((bench.name.into(), fault.to_string())),
        }
    }
    println!("\n{report}");
    if let Some(path) = &args.json {
        keep(&report, path)?;
    }
    let beside = || args.json.as_ref().map(|path| path.with_extension("svg"));
    if let Some(path) = args.plot.clone().or_else(beside) {
        plot::dispatch(&report, &path)?;
    }
    Ok(verdict(&report, args.check))
}

fn measure(host: &Host, bench: &Bench, rounds: &mut Rounds) -> Result<Found> {
    let cx = Cx::new(host, &format!("bench-{}", bench.name), Duration::from_secs(60 * bench.minutes))?;
    let found = match bench.run {
        Run::Compare(run) => run(&cx, rounds).map(|comparisons| Found { comparisons, ..Found::default() }),
        Run::Tell(run) => run(&cx, rounds),
    };
    if let Err(fault) = &found {
        cx.log.line(format!("FAILED: {fault}"));
        println!("  log: {}", cx.log.path().display());
    }
    found
}

impl Args {
    /// Writes a bench's own report where it was asked for, and where nobody asked beside the logs.
    fn keep_files(&self, host: &Host, files: &[(&'static str, String)]) -> Result {
        let beside = || self.json.as_ref().map(|path| path.parent().unwrap_or(Path::new("")).to_path_buf());
        let dir = self.report.clone().or_else(beside).unwrap_or_else(|| host.work.join("reports"));
        if !files.is_empty() {
            std::fs::create_dir_all(&dir).context(|| format!("create {}", dir.display()))?;
        }
        for (name, text) in files {
            let path = dir.join(name);
            std::fs::write(&path, text).context(|| format!("write {}", path.display()))?;
            println!("  wrote {}", path.display());
        }
        Ok(())
    }
}

fn select<'b>(all: &'b [Bench], names: &[String]) -> Result<Vec<&'b Bench>> {
    for name in names {
        let known = all.iter().any(|bench| bench.is_meant_by(name));
        ensure!(known, "there is no bench `{name}`; `cargo lab list` shows them");
    }
    Ok(all
        .iter()
        .filter(|bench| names.is_empty() || names.iter().any(|name| bench.is_meant_by(name)))
        .collect())
}

fn keep(report: &Report, path: &Path) -> Result {
    let text = serde_json::to_string_pretty(report).expect("finite numbers and text");
    std::fs::write(path, text + "\n").context(|| format!("write {}", path.display()))
}

fn verdict(report: &Report, check: bool) -> ExitCode {
    let missed = report.missed();
    let says = if check { missed.as_slice() } else { &[] };
    for line in says {
        println!("missed: {line}");
    }
    for (name, why) in report.failed.iter().filter(|_| !check) {
        println!("{name} failed: {why}");
    }
    if report.fails(check) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
