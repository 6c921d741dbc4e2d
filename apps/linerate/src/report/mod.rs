//! `--report DIR`: what a run was and what it found, for people (one page that needs nothing else) and for programs (JSON and CSV).
//!
//! | file | |
//! |---|---|
//! | index.html | the page, its plots inside; no script, no network |
//! | report.json | everything; names are stable and have their units |
//! | rates.csv | a line for each interval and port |
//! | throughput.csv loss.csv latency.csv back_to_back.csv trials.csv | what RFC 2544 found |
//!
//! Deliberately absent: comparing reports.

use std::time::{SystemTime, UNIX_EPOCH};

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::bottleneck::Verdict;
use crate::figures::{PortFigures, Snapshot};
use crate::rfc2544;
use crate::view::Rates;
use crate::view::rates::PortRates;

mod csv;
mod html;
mod place;
mod plots;

pub use place::{Place, PlaceError};

/// By which a report of ours is known again.
pub const FORMAT: &str = "rxline linerate report 1";
/// Intervals that are kept; of a longer run each kept one stands for several.
const SERIES_MAX: usize = 2000;

/// A run, from its beginning to its end.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// [`FORMAT`].
    pub format: &'static str,
    /// Of rxline.
    pub version: &'static str,
    /// What the run did: forward, txonly, rfc2544.
    pub mode: String,
    /// The command as it was given.
    pub command: Vec<String>,
    /// When it began, in seconds since 1970.
    pub began_unix_seconds: u64,
    /// What it ran on.
    pub machine: Machine,
    /// The ports.
    pub ports: Vec<PortEntry>,
    /// The whole run as one interval, rates without the wait for the last frames; `null` if there were no two looks at it.
    pub total: Option<Rates>,
    /// Who was in the way, over the whole run.
    pub bottleneck: Option<Verdict>,
    /// The run in intervals.
    pub rates: Vec<Rates>,
    /// What was found; `null` in other modes.
    pub rfc2544: Option<rfc2544::Results>,
    /// What a reader should know besides.
    pub notes: Vec<String>,
    #[serde(skip)]
    first: Option<Snapshot>,
    #[serde(skip)]
    last: Option<Snapshot>,
    #[serde(skip)]
    sent: Option<Snapshot>,
    #[serde(skip)]
    kept: Option<Snapshot>,
    #[serde(skip)]
    stride: usize,
    #[serde(skip)]
    seen: usize,
}

/// A port as it was opened.
#[derive(Clone, Debug, Serialize)]
pub struct PortEntry {
    /// Its URL.
    pub url: String,
    /// The driver's name.
    pub driver: String,
    /// Line rate; `null` where the port has none.
    pub line_rate_bits_per_second: Option<u64>,
    /// What an operator should know of how it runs.
    pub notes: Vec<String>,
}

impl PortEntry {
    /// What it is, without its figures.
    pub fn of(port: &PortFigures) -> PortEntry {
        PortEntry {
            url: port.url.clone(),
            driver: port.driver.to_owned(),
            line_rate_bits_per_second: port.bits_per_second,
            notes: port.notes.clone(),
        }
    }
}

/// What the run ran on, as the kernel describes it.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// The processor's name.
    pub cpu: String,
    /// CPUs that this process may use.
    pub cpus: usize,
    /// The kernel's release.
    pub kernel: String,
}

impl Machine {
    fn describe() -> Machine {
        let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let cpuinfo = text("/proc/cpuinfo");
        let name = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
        Machine {
            cpu: name.map_or_else(String::new, |(_, name)| name.trim().to_owned()),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: text("/proc/sys/kernel/osrelease").trim().to_owned(),
        }
    }
}

impl Report {
    /// A report of a run that begins now, as this command.
    pub fn new(mode: &str, command: impl IntoIterator<Item = String>) -> Report {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Report {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION"),
            mode: mode.to_owned(),
            command: command.into_iter().collect(),
            began_unix_seconds: now.as_secs(),
            machine: Machine::describe(),
            ports: Vec::new(),
            total: None,
            bottleneck: None,
            rates: Vec::new(),
            rfc2544: None,
            notes: Vec::new(),
            first: None,
            last: None,
            sent: None,
            kept: None,
            stride: 1,
            seen: 0,
        }
    }

    /// Takes a look at the run into the report. Looks come in their order; however long the run, what is kept of them has a limit.
    pub fn look(&mut self, snapshot: &Snapshot) {
        if self.first.is_none() {
            self.ports = snapshot.ports.iter().map(PortEntry::of).collect();
            self.first = Some(snapshot.clone());
            self.kept = Some(snapshot.clone());
        } else {
            self.seen += 1;
            if self.seen.is_multiple_of(self.stride) {
                self.keep(snapshot);
            }
        }
        self.last = Some(snapshot.clone());
    }

    /// A look at the moment from which nothing is sent any more. What comes later counts, and its time does not: a wait makes no rate lower.
    pub fn sending_ended(&mut self, snapshot: &Snapshot) {
        self.look(snapshot);
        self.sent = Some(snapshot.clone());
    }

    fn keep(&mut self, snapshot: &Snapshot) {
        if self.rates.len() == SERIES_MAX {
            // From now on only every other one; those there are stay, as every other one too.
            let mut keep = false;
            self.rates.retain(|_| {
                keep = !keep;
                !keep
            });
            self.stride *= 2;
        }
        if let Some(kept) = self.kept.replace(snapshot.clone()) {
            self.rates.push(Rates::between(&kept, snapshot));
        }
    }

    /// The run is over: sums it up.
    pub fn finish(&mut self) {
        if let (Some(first), Some(last)) = (&self.first, &self.last) {
            let mut total = Rates::between(first, last);
            self.bottleneck = Some(total.bottleneck.clone());
            if let Some(sent) = &self.sent {
                let sending = Rates::between(first, sent);
                total.interval_seconds = sending.interval_seconds;
                for (port, sending) in total.ports.iter_mut().zip(sending.ports) {
                    *port = PortRates { drops: std::mem::take(&mut port.drops), ..sending };
                }
            }
            self.total = Some(total);
        }
    }

    /// Of marked frames, over the whole run.
    fn latency(&self) -> Option<&Histogram<u64>> {
        self.last.as_ref().map(|last| &last.latency).filter(|latency| !latency.is_empty())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::rfc2544::{Options, Progress, Results};
    use crate::view::rates::tests::snapshot;

    /// A report with everything in it, and names that mean harm.
    pub(crate) fn report() -> Report {
        let command = ["rxline", "linerate", "--tx", "<script>alert('1')</script>"];
        let mut report = Report::new("rfc2544", command.map(str::to_owned));
        (0..10).for_each(|second| report.look(&snapshot(second)));
        report.rfc2544 = Some(results());
        report.notes.push("</style><b>a note & \"more\"".into());
        report.finish();
        report
    }

    fn results() -> Results {
        let options = Options {
            frame_bytes: vec![64, 512, 1518],
            latency_trials: 2,
            back_to_back_trials: 2,
            ..Options::new(10_000_000_000)
        };
        let mut model = rfc2544::model::Model { queue: 100, ..rfc2544::model::Model::carrying(2e6) };
        rfc2544::run(&mut model, &options, &mut |_: &Progress| {}).0
    }

    #[test]
    fn a_long_run_keeps_a_bounded_number_of_intervals_that_cover_it() {
        let mut report = Report::new("forward", []);
        (0..9001).for_each(|second| report.look(&snapshot(second)));
        report.finish();
        let intervals = &report.rates;
        assert!((SERIES_MAX / 2..=SERIES_MAX).contains(&intervals.len()), "{}", intervals.len());
        assert!(intervals.windows(2).all(|pair| pair[0].elapsed_seconds < pair[1].elapsed_seconds));
        assert!(intervals.last().unwrap().elapsed_seconds > 8990.0);
        assert_eq!(report.total.unwrap().interval_seconds, 9000.0);
    }

    #[test]
    fn waiting_for_the_last_frames_makes_no_rate_lower() {
        let mut report = Report::new("generate", []);
        report.look(&snapshot(0));
        report.sending_ended(&snapshot(4));
        let wait = Snapshot { elapsed: snapshot(6).elapsed, ..snapshot(4) };
        report.look(&wait);
        report.finish();
        let total = report.total.unwrap();
        assert_eq!((total.interval_seconds, total.ports[0].total.rx_frames_per_second), (4.0, 2e6));
        assert_eq!(report.rates.iter().map(|rates| rates.interval_seconds).collect::<Vec<_>>(), [4.0, 2.0]);
    }

    #[test]
    fn json_has_stable_names_with_units() {
        let json = serde_json::to_value(report()).unwrap();
        assert_eq!(json["format"], FORMAT);
        assert_eq!(json["ports"][1]["line_rate_bits_per_second"], serde_json::Value::Null);
        assert_eq!(json["rates"][0]["ports"][0]["total"]["rx_frames_per_second"], 2e6);
        assert_eq!(json["total"]["latency"]["p50_ns"], 1000);
        assert_eq!(json["rfc2544"]["sizes"][2]["frame_bytes"], 1518);
        assert_eq!(json["rfc2544"]["sizes"][2]["throughput"][0]["limit"], "line_rate");
    }
}
