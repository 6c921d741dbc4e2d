//! Rates on a terminal's screen: ports and queues against line rate, bursts by size, drops by name, marked frames, latency, and the verdict.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout as Split, Rect};
use ratatui::style::{Style, Stylize};
use ratatui::text::Line;
use ratatui::widgets::{Paragraph, Row, Table, Wrap};

use super::Scene;
use super::rates::{BURST_CLASSES, PortRates, QueueRates, Rates};
use crate::units::{bits, nanos, percent, pps, seconds};

/// A table, ready to be shown: heads, widths and rows. The first column is on the left, the others on the right.
struct Section {
    heads: Vec<String>,
    rows: Vec<Vec<String>>,
}

/// Draws it.
pub fn draw(frame: &mut Frame<'_>, scene: &Scene<'_>) {
    let sections: Vec<Section> = scene.rates.map(sections).unwrap_or_default();
    let shown: Vec<&Section> = sections.iter().filter(|section| !section.rows.is_empty()).collect();
    let mut heights = vec![Constraint::Length(1), Constraint::Length(2)];
    heights.extend(shown.iter().map(|section| Constraint::Max(section.rows.len() as u16 + 2)));
    heights.extend([Constraint::Max(4), Constraint::Fill(1), Constraint::Length(1)]);
    let areas = Split::vertical(heights).split(frame.area());
    frame.render_widget(Line::from(headline(scene)).bold(), areas[0]);
    frame.render_widget(Line::from(scene.progress.unwrap_or_default()), areas[1]);
    for (section, area) in shown.iter().zip(&areas[2..]) {
        table(frame, section, *area);
    }
    if let Some(rates) = scene.rates {
        let verdict = Paragraph::new(format!("bottleneck  {}", rates.bottleneck.line()));
        frame.render_widget(verdict.wrap(Wrap { trim: true }), areas[shown.len() + 2]);
    } else if scene.progress.is_none() {
        frame.render_widget("the first interval is being measured", areas[1]);
    }
    frame.render_widget(Line::from(" q quit ").dim(), areas[shown.len() + 4]);
}

fn headline(scene: &Scene<'_>) -> String {
    let elapsed = seconds(scene.elapsed);
    let left = scene.left.map(|left| format!("   about {} left", seconds(left))).unwrap_or_default();
    format!("rxline linerate {}   {elapsed}{left}", scene.mode)
}

fn sections(rates: &Rates) -> Vec<Section> {
    vec![ports(rates), bursts(rates), marked(rates), latency(rates), drops(rates)]
}

fn ports(rates: &Rates) -> Section {
    let heads = ["PORT", "CPU", "RX PPS", "RX BIT/S", "RX LINE", "TX PPS", "TX BIT/S", "TX LINE"];
    let more = ["UNSENT/S", "BEHIND/S", "CYCLES"];
    let row = |name: String, queue: &QueueRates, speed: bool| {
        let line = |part: Option<f64>| match part {
            Some(part) => percent(part),
            None if speed => "no speed known".into(),
            None => String::new(),
        };
        vec![
            name,
            queue.cpu.map_or(String::new(), |cpu| cpu.to_string()),
            pps(queue.rx_frames_per_second),
            bits(queue.rx_bits_per_second),
            line(queue.rx_line_rate_percent),
            pps(queue.tx_frames_per_second),
            bits(queue.tx_bits_per_second),
            line(queue.tx_line_rate_percent),
            format!("{:.0}", queue.unsent_per_second),
            format!("{:.0}", queue.behind_per_second),
            queue.cycles_per_frame.map_or("-".into(), |cycles| format!("{cycles:.0}")),
        ]
    };
    let mut rows = Vec::new();
    for port in &rates.ports {
        rows.push(row(port.url.clone(), &port.total, true));
        if port.queues.len() > 1 {
            let queues = port.queues.iter().enumerate();
            rows.extend(queues.map(|(i, queue)| row(format!("  queue {i}"), queue, false)));
        }
    }
    Section { heads: heads.iter().chain(&more).map(|head| head.to_string()).collect(), rows }
}

/// Of each port that polls or sends, what part of its bursts was how large.
fn bursts(rates: &Rates) -> Section {
    let class = |(from, to): (usize, usize)| match from {
        _ if from == to => from.to_string(),
        _ => format!("{from}-{to}"),
    };
    let heads = std::iter::once("BURSTS OF".to_owned()).chain(BURST_CLASSES.map(class));
    let row = |port: &PortRates, way: &str, bursts: &[u64]| {
        let all: u64 = bursts.iter().sum();
        let cells = bursts.iter().map(|n| share(*n, all));
        (all > 0).then(|| std::iter::once(format!("{} {way}", port.url)).chain(cells).collect())
    };
    let both = |port| [row(port, "rx", &port.total.rx_bursts), row(port, "tx", &port.total.tx_bursts)];
    Section { heads: heads.collect(), rows: rates.ports.iter().flat_map(both).flatten().collect() }
}

/// A part in per cent, coarse; a dash for none.
fn share(of: u64, all: u64) -> String {
    match of as f64 * 100.0 / all as f64 {
        0.0 => "-".to_owned(),
        part if part < 0.1 => "<0.1 %".to_owned(),
        part => format!("{part:.1} %"),
    }
}

fn marked(rates: &Rates) -> Section {
    let heads =
        ["MARKED", "SENT", "RECEIVED", "MISSING", "OF ALL", "DUPLICATE", "REORDERED", "LATE", "DAMAGED"];
    let row = rates.marked.map(|marked| {
        let counts = [marked.duplicate_frames, marked.reordered_frames, marked.late_frames];
        let mut row = vec!["in the interval".to_owned()];
        row.extend(
            [marked.sent_frames, marked.received_frames, marked.missing_frames].map(|n| n.to_string()),
        );
        row.push(percent(marked.missing_percent));
        row.extend(counts.map(|n| n.to_string()));
        row.push(marked.corrupted_frames.to_string());
        row
    });
    Section { heads: heads.map(str::to_owned).to_vec(), rows: row.into_iter().collect() }
}

fn latency(rates: &Rates) -> Section {
    let heads = ["LATENCY", "FRAMES", "MIN", "MEAN", "P50", "P99", "P99.9", "MAX"];
    let row = rates.latency.map(|latency| {
        let mut row = vec!["since the beginning".to_owned(), latency.frames.to_string()];
        row.extend([latency.min_ns as f64, latency.mean_ns].map(nanos));
        let rest = [latency.p50_ns, latency.p99_ns, latency.p99_9_ns, latency.max_ns];
        row.extend(rest.map(|value| nanos(value as f64)));
        row
    });
    Section { heads: heads.map(str::to_owned).to_vec(), rows: row.into_iter().collect() }
}

fn drops(rates: &Rates) -> Section {
    let of = |port: &PortRates| {
        let rows = port.drops.iter().map(|(name, n)| vec![format!("{} {name}", port.url), n.to_string()]);
        rows.collect::<Vec<_>>()
    };
    let rows = rates.ports.iter().flat_map(of).collect();
    Section { heads: ["DROPPED IN THE INTERVAL", "FRAMES"].map(str::to_owned).to_vec(), rows }
}

fn table(frame: &mut Frame<'_>, section: &Section, area: Rect) {
    let all = || std::iter::once(&section.heads).chain(&section.rows);
    let width = |column: usize| {
        all().map(|row| row.get(column).map_or(0, |cell| cell.chars().count())).max().unwrap_or(0)
    };
    let widths = (0..section.heads.len()).map(|column| Constraint::Length(width(column) as u16));
    let row = |cells: &Vec<String>| {
        let cells = cells.iter().enumerate().map(|(column, cell)| {
            let line = Line::from(cell.clone());
            if column == 0 { line } else { line.right_aligned() }
        });
        Row::new(cells.collect::<Vec<_>>())
    };
    let heads = row(&section.heads).style(Style::new().reversed());
    let table = Table::new(section.rows.iter().map(row), widths.collect::<Vec<_>>());
    frame.render_widget(table.header(heads).column_spacing(2), area);
}

#[cfg(test)]
mod tests {
    use super::super::rates::tests::snapshot;
    use super::*;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use std::time::Duration;

    fn drawn(scene: &Scene<'_>, (width, height): (u16, u16)) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, scene)).unwrap();
        let buffer = terminal.backend().buffer().clone();
        let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
        (0..height).map(|y| line(y).trim_end().to_owned() + "\n").collect()
    }

    fn scene(rates: Option<&Rates>) -> Scene<'_> {
        Scene {
            mode: "forward",
            rates,
            progress: None,
            elapsed: Duration::from_secs(3),
            left: Some(Duration::from_secs(57)),
        }
    }

    #[test]
    fn all_of_it_is_on_the_screen() {
        let rates = Rates::between(&snapshot(2), &snapshot(3));
        let text = drawn(&scene(Some(&rates)), (160, 40));
        for expected in [
            "rxline linerate forward   3.0 s   about 57 s left",
            "PORT        CPU",
            "memory:a         2.00 Mpps  1.34 Gbit/s          13.4 %  2.00 Mpps  1.34 Gbit/s",
            "no speed known",
            "  queue 1     0  1.00 Mpps   672 Mbit/s",
            "BURSTS OF",
            "89.6 %",
            "MISSING",
            "0.000700 %",
            "since the beginning    1000  1000 ns",
            "memory:<b> rx_ring_full",
            "bottleneck  nobody: all 1000000 frames due were sent",
            " q quit",
        ] {
            assert!(text.contains(expected), "{expected:?} is not in\n{text}");
        }
    }

    #[test]
    fn before_the_first_interval_and_on_any_screen_there_is_no_panic() {
        let rates = Rates::between(&snapshot(2), &snapshot(3));
        assert!(drawn(&scene(None), (80, 24)).contains("the first interval is being measured"));
        for size in [(1, 1), (10, 3), (40, 8), (300, 100)] {
            drawn(&scene(Some(&rates)), size);
        }
    }

    #[test]
    fn progress_of_a_search_is_shown_with_its_time_left() {
        let progress = "64 bytes (1 of 8), throughput: trial 3";
        let text = drawn(&Scene { progress: Some(progress), ..scene(None) }, (100, 10));
        assert!(text.contains(progress) && text.contains("about 57 s left"), "{text}");
    }
}
