//! Tables for programs: RFC 4180, with names of columns that have their units.

use std::fmt::Display;

use super::Report;
use crate::rfc2544::SizeResults;

/// Every file that a report may have.
pub(super) const NAMES: [&str; 6] =
    ["rates.csv", "throughput.csv", "loss.csv", "latency.csv", "back_to_back.csv", "trials.csv"];

/// Each file with its text; none where the report has no such figures.
pub(super) fn tables(report: &Report) -> [(&'static str, Option<String>); 6] {
    let makers: [fn(&Report) -> Table; 6] = [rates, throughput, loss, latency, back_to_back, trials];
    let text = |make: fn(&Report) -> Table| {
        Some(make(report)).filter(|table| table.rows > 0).map(|table| table.text)
    };
    std::array::from_fn(|i| (NAMES[i], text(makers[i])))
}

struct Table {
    text: String,
    rows: usize,
}

impl Table {
    fn new(heads: &str) -> Table {
        Table { text: heads.to_owned() + "\n", rows: 0 }
    }

    fn row(&mut self, cells: &[&dyn Display]) {
        let cells: Vec<String> = cells.iter().map(|cell| quoted(&cell.to_string())).collect();
        debug_assert_eq!(cells.len(), self.text.lines().next().unwrap_or("").split(',').count());
        self.text += &cells.join(",");
        self.text.push('\n');
        self.rows += 1;
    }
}

/// A cell: in quotes where it needs them.
fn quoted(cell: &str) -> String {
    if cell.contains(['"', ',', '\n', '\r']) {
        format!("\"{}\"", cell.replace('"', "\"\""))
    } else {
        cell.to_owned()
    }
}

/// A figure, or nothing where there is none.
struct Maybe<T>(Option<T>);

impl<T: Display> Display for Maybe<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.as_ref().map_or(Ok(()), |value| value.fmt(f))
    }
}

fn rates(report: &Report) -> Table {
    let mut table = Table::new(
        "elapsed_seconds,interval_seconds,port,rx_frames_per_second,rx_bits_per_second,rx_line_rate_percent,\
         tx_frames_per_second,tx_bits_per_second,tx_line_rate_percent,unsent_per_second,behind_per_second,cycles_per_frame,drops",
    );
    for rates in &report.rates {
        for port in &rates.ports {
            let total = &port.total;
            table.row(&[
                &rates.elapsed_seconds,
                &rates.interval_seconds,
                &port.url,
                &total.rx_frames_per_second,
                &total.rx_bits_per_second,
                &Maybe(total.rx_line_rate_percent),
                &total.tx_frames_per_second,
                &total.tx_bits_per_second,
                &Maybe(total.tx_line_rate_percent),
                &total.unsent_per_second,
                &total.behind_per_second,
                &Maybe(total.cycles_per_frame),
                &port.drops.values().sum::<u64>(),
            ]);
        }
    }
    table
}

fn sizes(report: &Report) -> &[SizeResults] {
    report.rfc2544.as_ref().map_or(&[], |results| &results.sizes)
}

fn throughput(report: &Report) -> Table {
    let mut table = Table::new(
        "frame_bytes,tolerance_percent,frames_per_second,bits_per_second,line_rate_percent,loss_percent,limit,trials",
    );
    for size in sizes(report) {
        for found in &size.throughput {
            table.row(&[
                &size.frame_bytes,
                &found.tolerance_percent,
                &Maybe(found.frames_per_second),
                &Maybe(found.bits_per_second),
                &Maybe(found.line_rate_percent),
                &Maybe(found.loss_percent),
                &name(&found.limit),
                &found.trials,
            ]);
        }
    }
    table
}

/// An enum as JSON has it.
fn name(value: &impl serde::Serialize) -> String {
    let json = serde_json::to_value(value).expect("plain data");
    json.as_str().unwrap_or_default().to_owned()
}

fn loss(report: &Report) -> Table {
    let mut table = Table::new(
        "frame_bytes,offered_line_rate_percent,sent_line_rate_percent,sent_frames_per_second,loss_percent,verdict",
    );
    for size in sizes(report) {
        for point in &size.loss_curve {
            table.row(&[
                &size.frame_bytes,
                &point.offered_percent,
                &point.sent_percent,
                &point.sent_frames_per_second,
                &point.loss_percent,
                &name(&point.verdict),
            ]);
        }
    }
    table
}

fn latency(report: &Report) -> Table {
    let mut table = Table::new(
        "frame_bytes,frames_per_second,load_percent,frames,tagged_mean_ns,min_ns,mean_ns,p50_ns,p99_ns,p99_9_ns,max_ns,loss_percent",
    );
    for size in sizes(report) {
        if let Some(found) = &size.latency {
            let all = &found.all;
            table.row(&[
                &size.frame_bytes,
                &found.frames_per_second,
                &found.load_percent,
                &all.frames,
                &Maybe(found.tagged_mean_ns),
                &all.min_ns,
                &all.mean_ns,
                &all.p50_ns,
                &all.p99_ns,
                &all.p99_9_ns,
                &all.max_ns,
                &found.loss_percent,
            ]);
        }
    }
    table
}

fn back_to_back(report: &Report) -> Table {
    let mut table = Table::new(
        "frame_bytes,frames_mean,frames_min,frames_max,searches,limit,buffer_frames,buffer_seconds",
    );
    for size in sizes(report) {
        if let Some(found) = &size.back_to_back {
            table.row(&[
                &size.frame_bytes,
                &Maybe(found.frames),
                &Maybe(found.frames_min),
                &Maybe(found.frames_max),
                &found.searches,
                &name(&found.limit),
                &Maybe(found.buffer_frames),
                &Maybe(found.buffer_seconds),
            ]);
        }
    }
    table
}

fn trials(report: &Report) -> Table {
    let mut table = Table::new(
        "test,frame_bytes,offered_frames_per_second,offered_frames,sent_frames_per_second,sent_frames,unsent_frames,received_frames,\
         loss_percent,duplicate_frames,reordered_frames,corrupted_frames,port_drops,verdict",
    );
    for trial in sizes(report).iter().flat_map(|size| &size.trials) {
        let drops = trial.port_drops.iter().map(|(name, n)| format!("{name} {n}"));
        table.row(&[
            &name(&trial.test),
            &trial.frame_bytes,
            &trial.offered_frames_per_second,
            &trial.offered_frames,
            &trial.sent_frames_per_second,
            &trial.sent_frames,
            &trial.unsent_frames,
            &trial.received_frames,
            &trial.loss_percent,
            &trial.duplicate_frames,
            &trial.reordered_frames,
            &trial.corrupted_frames,
            &drops.collect::<Vec<_>>().join(" "),
            &name(&trial.verdict),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::super::tests::report;
    use super::*;

    #[test]
    fn cells_are_quoted_where_they_need_it() {
        assert_eq!(quoted("memory:a"), "memory:a");
        assert_eq!(quoted("sim:rate=1G,loss=0.1@memory:\"x\""), "\"sim:rate=1G,loss=0.1@memory:\"\"x\"\"\"");
    }

    #[test]
    fn each_table_has_as_many_cells_as_heads_and_the_rows_of_the_report() {
        let report = report();
        for (name, text) in tables(&report) {
            let text = text.unwrap();
            let heads = text.lines().next().unwrap().split(',').count();
            for line in text.lines() {
                // None of these cells has a comma.
                assert_eq!(line.split(',').count(), heads, "{name}: {line}");
            }
        }
        let results = report.rfc2544.as_ref().unwrap();
        let trials: usize = results.sizes.iter().map(|size| size.trials.len()).sum();
        let rows = |i: usize| tables(&report)[i].1.as_ref().unwrap().lines().count() - 1;
        assert_eq!((rows(0), rows(1), rows(5)), (9 * 2, 3 * 2, trials));
    }

    #[test]
    fn what_there_is_not_has_no_file() {
        let mut report = report();
        report.rfc2544 = None;
        report.rates.clear();
        assert!(tables(&report).iter().all(|(_, text)| text.is_none()));
    }
}
