//! The page: what was found in words, then tables and plots, then what it was found with. One file, without a script.

use super::place::PlaceError;
use super::plots::{self, Drawn};
use super::{PortEntry, Report};
use crate::figures::LatencyFigures;
use crate::rfc2544::{Results, SizeResults, Throughput};
use crate::units::{bits, nanos, percent, pps, seconds};
use crate::view::Rates;

const STYLE: &str = "\
body{font:16px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;color:#1c1c1c;background:#fff}\
h1{font-size:1.6rem}h2{font-size:1.2rem;margin-top:2.2rem}\
table{border-collapse:collapse;font-size:.9rem;margin:.8rem 0}\
th,td{padding:.25rem .7rem;border-bottom:1px solid #ddd;text-align:right;font-variant-numeric:tabular-nums}\
th:first-child,td:first-child{text-align:left}th{background:#f4f4f4}\
td{white-space:nowrap}.words td,.words th{text-align:left;white-space:normal}.words td:first-child{white-space:nowrap}\
.wide,figure{overflow-x:auto}figure{margin:1rem 0}svg{max-width:100%;min-width:35rem;height:auto}code{overflow-wrap:anywhere}.note{color:#555}";

/// The page of a report.
pub(super) fn page(report: &Report) -> Result<String, PlaceError> {
    let mut page = Page { text: String::new() };
    page.text += "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">";
    page.text += "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">";
    // An icon of nothing, so that no browser asks for one.
    page.text += "<link rel=\"icon\" href=\"data:,\">";
    page.text += &format!(
        "<title>rxline linerate {}</title><style>{STYLE}</style></head><body>\n",
        escaped(&report.mode)
    );
    page.text += &format!("<h1>rxline linerate: {}</h1>\n", escaped(&report.mode));
    if let Some(results) = &report.rfc2544 {
        rfc2544(&mut page, results)?;
    }
    if let Some(total) = &report.total {
        run(&mut page, report, total)?;
    }
    about(&mut page, report);
    page.text += "</body></html>\n";
    Ok(page.text)
}

/// Text as HTML shows it, in an element or an attribute.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            '\'' => out += "&#39;",
            c => out.push(c),
        }
    }
    out
}

struct Page {
    text: String,
}

impl Page {
    fn heading(&mut self, text: &str) {
        self.text += &format!("<h2>{}</h2>\n", escaped(text));
    }

    fn paragraph(&mut self, text: &str) {
        self.text += &format!("<p>{}</p>\n", escaped(text));
    }

    fn note(&mut self, text: &str) {
        self.text += &format!("<p class=\"note\">{}</p>\n", escaped(text));
    }

    fn table<const N: usize>(&mut self, heads: [&str; N], rows: impl IntoIterator<Item = [String; N]>) {
        self.table_of("wide", heads, rows);
    }

    /// A table of texts rather than of figures: to the left, and on several lines if need be.
    fn table_of_words<const N: usize>(
        &mut self,
        heads: [&str; N],
        rows: impl IntoIterator<Item = [String; N]>,
    ) {
        self.table_of("wide words", heads, rows);
    }

    fn table_of<const N: usize>(
        &mut self,
        class: &str,
        heads: [&str; N],
        rows: impl IntoIterator<Item = [String; N]>,
    ) {
        let row = |cells: &[String; N], tag: &str| {
            let cells = cells.iter().map(|cell| format!("<{tag}>{}</{tag}>", escaped(cell)));
            format!("<tr>{}</tr>\n", cells.collect::<String>())
        };
        self.text += &format!("<div class=\"{class}\"><table>\n");
        self.text += &row(&heads.map(str::to_owned), "th");
        rows.into_iter().for_each(|cells| self.text += &row(&cells, "td"));
        self.text += "</table></div>\n";
    }

    fn plot(&mut self, what: &'static str, svg: Drawn<Option<String>>) -> Result<(), PlaceError> {
        let svg = svg.map_err(|error| PlaceError::Plot { what, why: error.to_string() })?;
        self.text.extend(svg.map(|svg| format!("<figure>{svg}</figure>\n")));
        Ok(())
    }
}

/// A figure, or a dash.
fn maybe<T>(value: Option<T>, text: impl Fn(T) -> String) -> String {
    value.map_or("–".to_owned(), text)
}

fn rfc2544(page: &mut Page, results: &Results) -> Result<(), PlaceError> {
    for size in &results.sizes {
        page.paragraph(&in_words(size));
    }
    if results.sizes.iter().any(|size| !size.throughput.is_empty()) {
        page.heading("Throughput");
        page.plot("throughput", plots::throughput(results))?;
        let row = |size: &SizeResults, found: &Throughput| {
            [
                size.frame_bytes.to_string(),
                percent(found.tolerance_percent),
                maybe(found.frames_per_second, pps),
                maybe(found.bits_per_second, bits),
                maybe(found.line_rate_percent, percent),
                maybe(found.loss_percent, percent),
                found.limit.name().to_owned(),
                found.trials.to_string(),
            ]
        };
        let heads = [
            "frame",
            "tolerated loss",
            "frames",
            "on the wire",
            "of line rate",
            "lost",
            "limited by",
            "trials",
        ];
        let rows =
            results.sizes.iter().flat_map(|size| size.throughput.iter().map(move |found| row(size, found)));
        page.table(heads, rows);
        page.note(
            "The highest rate at which no more was lost than is tolerated, as it was sent; frame sizes and rates are \
             RFC 2544's, with FCS, preamble and gap. A device with a queue passes a little more than its capacity for as long as the queue fills.",
        );
    }
    loss(page, results)?;
    latency(page, results)?;
    back_to_back(page, results);
    Ok(())
}

/// What was found for a size, in a sentence.
fn in_words(size: &SizeResults) -> String {
    let mut words = format!("Frames of {} bytes: ", size.frame_bytes);
    match size.throughput.first() {
        None => words += "throughput was not asked for",
        Some(found) => match (found.frames_per_second, found.line_rate_percent) {
            (Some(rate), Some(part)) => {
                words += &format!("{} ({} of line rate)", pps(rate), percent(part));
                words += &format!(", limited by the {}", found.limit.name());
            }
            _ => words += "frames were lost at every rate that was tried",
        },
    }
    if let Some(latency) = &size.latency {
        let [p50, p99] = [latency.all.p50_ns, latency.all.p99_ns].map(|value| nanos(value as f64));
        words += &format!("; latency p50 {p50}, p99 {p99}");
    }
    if let Some(frames) = size.back_to_back.as_ref().and_then(|found| found.frames) {
        words += &format!("; {frames:.0} frames back to back");
    }
    words + "."
}

fn loss(page: &mut Page, results: &Results) -> Result<(), PlaceError> {
    if results.sizes.iter().all(|size| size.loss_curve.is_empty()) {
        return Ok(());
    }
    page.heading("Frame loss rate");
    page.plot("the loss curve", plots::loss(results))?;
    let rows = results.sizes.iter().flat_map(|size| {
        size.loss_curve.iter().map(|point| {
            let verdict = match point.verdict {
                crate::rfc2544::Verdict::NotOffered => "not offered: the generator's limit",
                _ => "",
            };
            [
                size.frame_bytes.to_string(),
                percent(point.offered_percent),
                percent(point.sent_percent),
                pps(point.sent_frames_per_second),
                percent(point.loss_percent),
                verdict.to_owned(),
            ]
        })
    });
    page.table(["frame", "offered", "sent", "frames sent", "lost", "remark"], rows);
    page.note("Offered and sent are parts of line rate; lost is of what was sent.");
    Ok(())
}

fn latency(page: &mut Page, results: &Results) -> Result<(), PlaceError> {
    if results.sizes.iter().all(|size| size.latency.is_none()) {
        return Ok(());
    }
    page.heading("Latency at the throughput found");
    page.plot("latency", plots::latency(results))?;
    let rows = results.sizes.iter().filter_map(|size| {
        let found = size.latency.as_ref()?;
        let all = &found.all;
        let [min, p50, p99, p99_9, max] =
            [all.min_ns, all.p50_ns, all.p99_ns, all.p99_9_ns, all.max_ns].map(|value| nanos(value as f64));
        let tagged = maybe(found.tagged_mean_ns, nanos);
        Some([size.frame_bytes.to_string(), pps(found.frames_per_second), tagged, min, p50, p99, p99_9, max])
    });
    page.table(["frame", "rate", "RFC 2544", "min", "p50", "p99", "p99.9", "max"], rows);
    page.note(
        "RFC 2544: the mean over the trials' tagged frames. The others are over all frames. Time stamps are per burst, and include both of our ports.",
    );
    Ok(())
}

fn back_to_back(page: &mut Page, results: &Results) {
    if results.sizes.iter().all(|size| size.back_to_back.is_none()) {
        return;
    }
    page.heading("Back-to-back frames");
    let rows = results.sizes.iter().filter_map(|size| {
        let found = size.back_to_back.as_ref()?;
        Some([
            size.frame_bytes.to_string(),
            maybe(found.frames, |frames| format!("{frames:.1}")),
            maybe(found.frames_min, |frames| frames.to_string()),
            maybe(found.frames_max, |frames| frames.to_string()),
            found.searches.to_string(),
            found.limit.name().to_owned(),
            maybe(found.buffer_frames, |frames| format!("{frames:.0}")),
            maybe(found.buffer_seconds, |time| nanos(time * 1e9)),
        ])
    });
    let heads = ["frame", "frames", "least", "most", "searches", "limited by", "buffer", "buffer time"];
    page.table(heads, rows);
    page.note("Buffer: what burst and throughput imply that the device holds (RFC 9004).");
}

/// What the ports did over the whole run.
fn run(page: &mut Page, report: &Report, total: &Rates) -> Result<(), PlaceError> {
    page.heading("The run");
    if let Some(verdict) = &report.bottleneck {
        page.paragraph(&format!("Bottleneck: {}.", verdict.line()));
    }
    if let Some(marked) = &total.marked {
        page.paragraph(&format!(
            "Of {} marked frames sent {} arrived; {} are missing ({}), {} came again, {} out of order, {} damaged, {} too late to be judged.",
            marked.sent_frames,
            marked.received_frames,
            marked.missing_frames,
            percent(marked.missing_percent),
            marked.duplicate_frames,
            marked.reordered_frames,
            marked.corrupted_frames,
            marked.late_frames
        ));
    }
    page.plot("rates", plots::rates(report))?;
    let rows = total.ports.iter().enumerate().map(|(i, port)| {
        let line = |part: Option<f64>| maybe(part, percent);
        [
            format!("port {i}"),
            pps(port.total.rx_frames_per_second),
            bits(port.total.rx_bits_per_second),
            line(port.total.rx_line_rate_percent),
            pps(port.total.tx_frames_per_second),
            bits(port.total.tx_bits_per_second),
            line(port.total.tx_line_rate_percent),
            maybe(port.total.cycles_per_frame, |cycles| format!("{cycles:.0}")),
            port.drops.values().sum::<u64>().to_string(),
        ]
    });
    let heads = [
        "",
        "in",
        "on the wire",
        "of line rate",
        "out",
        "on the wire",
        "of line rate",
        "cycles a frame",
        "drops",
    ];
    page.table(heads, rows);
    page.note(&format!(
        "Means over {:.1} s. On the wire is with preamble, FCS and gap.",
        total.interval_seconds
    ));
    let drops = total.ports.iter().enumerate().flat_map(|(i, port)| {
        port.drops.iter().map(move |(name, n)| [format!("port {i} {name}"), n.to_string()])
    });
    let drops: Vec<_> = drops.collect();
    if !drops.is_empty() {
        page.table(["dropped", "frames"], drops);
    }
    if let Some(latency) = report.latency() {
        page.heading("Latency");
        if let Some(all) = LatencyFigures::of(latency) {
            let figures = [all.min_ns as f64, all.mean_ns, all.p50_ns as f64, all.p99_ns as f64];
            let cells = [figures.as_slice(), &[all.p99_9_ns as f64, all.max_ns as f64]].concat();
            let row: [String; 7] =
                std::array::from_fn(|i| if i == 0 { all.frames.to_string() } else { nanos(cells[i - 1]) });
            page.table(["frames", "min", "mean", "p50", "p99", "p99.9", "max"], [row]);
        }
        page.plot("the distribution of latency", plots::distribution(latency))?;
        page.note("So many of the marked frames took no longer; the slowest ones are spread out. Time stamps are per burst.");
    }
    Ok(())
}

/// What it was found with.
fn about(page: &mut Page, report: &Report) {
    page.heading("Ports");
    let row = |(i, port): (usize, &PortEntry)| {
        let speed = maybe(port.line_rate_bits_per_second.map(|speed| speed as f64), bits);
        let speed =
            if port.line_rate_bits_per_second.is_some() { speed } else { "no speed known".to_owned() };
        [format!("port {i}"), port.url.clone(), port.driver.clone(), speed, port.notes.join("; ")]
    };
    page.table_of_words(
        ["", "URL", "driver", "line rate", "notes"],
        report.ports.iter().enumerate().map(row),
    );
    page.heading("About this report");
    report.notes.iter().for_each(|note| page.paragraph(note));
    page.text += &format!("<p><code>{}</code></p>\n", escaped(&report.command.join(" ")));
    let machine = &report.machine;
    page.paragraph(&format!(
        "rxline {}, {} UTC, {} ({} CPUs), Linux {}.",
        report.version,
        date(report.began_unix_seconds),
        machine.cpu,
        machine.cpus,
        machine.kernel
    ));
    if let Some(results) = &report.rfc2544 {
        let options = &results.options;
        page.paragraph(&format!(
            "Trials of {}, {} before and {} after each; searches to {} of the rate; {} attempts.",
            seconds(options.trial),
            seconds(options.settle),
            seconds(options.drain),
            percent(options.resolution * 100.0),
            options.attempts
        ));
    }
    page.note("The same figures for programs: report.json and the CSV files beside this page.");
}

/// A date and time as ISO 8601 has them, in UTC.
fn date(unix_seconds: u64) -> String {
    let (mut days, second) = (unix_seconds / 86_400, unix_seconds % 86_400);
    let is_leap =
        |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let mut year = 1970;
    while days >= 365 + u64::from(is_leap(year)) {
        days -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let february = 28 + u64::from(is_leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    let (hour, minute) = (second / 3600, second / 60 % 60);
    format!("{year}-{month:02}-{:02} {hour:02}:{minute:02}:{:02}", days + 1, second % 60)
}

#[cfg(test)]
mod tests {
    use super::super::tests::report;
    use super::*;

    #[test]
    fn nothing_from_outside_becomes_markup() {
        let page = page(&report()).unwrap();
        for harm in ["<script", "</style><b>", "<b>", "<of>", "onload", "http://", "https://"] {
            // The namespace of SVG is a name, not an address that is asked.
            let page = page.replace("http://www.w3.org/2000/svg", "");
            assert!(!page.contains(harm), "{harm:?} is in the page");
        }
        assert!(page.contains("&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;"));
        assert!(page.contains("memory:&lt;b&gt;"));
        assert!(page.contains("a note &lt;of&gt; the &quot;port&quot; &amp; more"));
    }

    #[test]
    fn the_page_has_every_part_and_closes_what_it_opens() {
        let page = page(&report()).unwrap();
        for part in [
            "<h2>Throughput</h2>",
            "<h2>Frame loss rate</h2>",
            "<h2>Latency at the throughput found</h2>",
            "<h2>Back-to-back frames</h2>",
            "<h2>The run</h2>",
            "no speed known",
            "Frames of 64 bytes: 2.00 Mpps (13.4 % of line rate), limited by the device under test",
            "Bottleneck: nobody",
        ] {
            assert!(page.contains(part), "{part:?} is not in the page");
        }
        for tag in ["table", "tr", "td", "th", "p", "h2", "figure", "svg", "div", "html", "body"] {
            let opened =
                page.matches(&format!("<{tag}>")).count() + page.matches(&format!("<{tag} ")).count();
            assert_eq!(opened, page.matches(&format!("</{tag}>")).count(), "{tag}");
        }
        assert_eq!(page.matches("<svg").count(), 5);
    }

    #[test]
    fn a_report_without_anything_is_a_page_all_the_same() {
        let page = page(&Report::new("forward", [])).unwrap();
        assert!(page.contains("<h1>rxline linerate: forward</h1>") && page.ends_with("</body></html>\n"));
    }

    #[test]
    fn dates() {
        assert_eq!(date(0), "1970-01-01 00:00:00");
        assert_eq!(date(951_782_399), "2000-02-28 23:59:59");
        assert_eq!(date(951_782_400), "2000-02-29 00:00:00");
        assert_eq!(date(1_735_689_599), "2024-12-31 23:59:59");
        assert_eq!(date(1_772_323_200), "2026-03-01 00:00:00");
    }
}
