//! The dispatch figures of the rcu bench as a picture: what a packet and a call cost, and how many there are a second, with what holds
//! the socket's object meanwhile, on one CPU and on two.

use std::error::Error;
use std::path::Path;

use plotters::prelude::*;

use super::compare::{Comparison, Side};
use super::report::Report;
use super::stats::Spread;
use crate::fault::{Fault, Result};

const SIZE: (u32, u32) = (1280, 520);
const COLOURS: [RGBColor; 3] = [RGBColor(0, 114, 178), RGBColor(230, 159, 0), RGBColor(204, 51, 17)];
const LEGEND: [&str; 3] = ["RCU: a load under the guard", "Arc: clone + drop", "rwlock: read lock + unlock"];

/// A panel: the beginning of its comparisons' names, its title and its axis.
const PANELS: [(&str, &str, &str); 3] = [
    ("rcu-dispatch", "Cost of a packet (less is better)", "CPU time per packet [ns]"),
    ("rcu-packets", "Packets, all CPUs (more is better)", "packets per second [millions]"),
    ("rcu-calls", "Rx calls, all CPUs (more is better)", "calls per second [thousands]"),
];

/// One bar: the number of its group and its place in it, and what it shows.
struct Column {
    group: usize,
    place: usize,
    spread: Spread,
}

/// Draws the figures, if the report has them: a report of other benches alone leaves no file.
pub fn dispatch(report: &Report, path: &Path) -> Result {
    let panels: Vec<_> = PANELS
        .iter()
        .map(|(prefix, title, axis)| {
            (columns(report.comparisons.iter().map(|line| &**line), prefix), title, axis)
        })
        .collect();
    if panels.iter().any(|(columns, ..)| columns.is_empty()) {
        return Ok(());
    }
    let draw = || -> std::result::Result<(), Box<dyn Error>> {
        let area = SVGBackend::new(path, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let note = format!(
            "Dispatch to one socket shared by all cores: medians of {} rounds, whiskers min..max. {}, kernel {}, seed {}",
            report.pairs, report.machine.cpu, report.machine.kernel, report.seed
        );
        let area = area.titled(&note, ("sans-serif", 17))?;
        for (area, (columns, title, axis)) in area.split_evenly((1, PANELS.len())).iter().zip(&panels) {
            panel(area, columns, title, axis)?;
        }
        area.present()?;
        Ok(())
    };
    draw().map_err(|error| Fault::Check(format!("draw {}: {error}", path.display())))
}

/// The figures of comparisons whose names begin with `prefix`: ours and the anchors, in the order of the table.
fn columns<'c>(comparisons: impl Iterator<Item = &'c Comparison>, prefix: &str) -> Vec<Column> {
    let (mut groups, mut columns): (Vec<&str>, Vec<Column>) = Default::default();
    let mut add = |group: usize, place: usize, side: &Side, scale: f64| {
        if let Some(Spread { median, min, max }) = Spread::of(&side.figures) {
            let spread = Spread { median: median * scale, min: min * scale, max: max * scale };
            columns.push(Column { group, place, spread });
        }
    };
    let mut place = 0;
    for comparison in comparisons.filter(|comparison| comparison.what.split(',').next() == Some(prefix)) {
        let scale = if comparison.unit == "calls/s" { 1e-3 } else { 1.0 };
        if groups.last() != Some(&comparison.what) {
            groups.push(comparison.what);
            place = 0;
            add(groups.len() - 1, place, &comparison.ours, scale);
        }
        place += 1;
        add(groups.len() - 1, place, &comparison.anchor, scale);
    }
    columns
}

fn panel(
    area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    columns: &[Column],
    title: &str,
    axis: &str,
) -> std::result::Result<(), Box<dyn Error>> {
    let top = columns.iter().map(|column| column.spread.max).fold(0.0, f64::max) * 1.45;
    let groups = columns.iter().map(|column| column.group + 1).max().unwrap_or(0);
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 19))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..groups as f64, 0.0..top)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .y_label_formatter(&|y| format!("{y:.0}"))
        .x_labels(2 * groups + 1)
        .x_label_formatter(&|x| match *x {
            0.5 => "1 CPU".into(),
            1.5 => "2 CPUs, the same socket".into(),
            _ => String::new(),
        })
        .y_desc(axis)
        .axis_desc_style(("sans-serif", 16))
        .label_style(("sans-serif", 15))
        .draw()?;
    for (place, (colour, label)) in COLOURS.into_iter().zip(LEGEND).enumerate() {
        let of_place = columns.iter().filter(|column| column.place == place);
        let bars = of_place.clone().map(|column| {
            let (left, right) = (left(column), left(column) + 0.22);
            Rectangle::new([(left, 0.0), (right, column.spread.median)], colour.filled())
        });
        chart
            .draw_series(bars)?
            .label(label)
            .legend(move |(x, y)| Rectangle::new([(x, y - 6), (x + 12, y + 6)], colour.filled()));
        chart.draw_series(of_place.clone().map(|column| {
            let Spread { median, min, max } = column.spread;
            ErrorBar::new_vertical(left(column) + 0.11, min, median, max, BLACK.stroke_width(2), 8)
        }))?;
        let label = ("sans-serif", 14).into_text_style(area);
        chart.draw_series(of_place.map(|column| {
            let Spread { median, max, .. } = column.spread;
            let digits = if median >= 100.0 { 0 } else { 1 };
            Text::new(format!("{median:.digits$}"), (left(column) + 0.02, max + top * 0.045), label.clone())
        }))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.9))
        .border_style(BLACK.mix(0.3))
        .label_font(("sans-serif", 14))
        .draw()?;
    Ok(())
}

fn left(column: &Column) -> f64 {
    column.group as f64 + 0.12 + 0.26 * column.place as f64
}

#[cfg(test)]
mod tests {
    use super::super::compare::tests::comparison;
    use super::*;

    #[test]
    fn ours_is_one_column_beside_its_anchors_and_each_name_a_group() {
        let line = |what, ours, anchor| Comparison { what, ..comparison(&[ours], &[anchor], None) };
        let lines = [
            line("rcu-dispatch, 1 CPU", 60.0, 70.0),
            line("rcu-dispatch, 1 CPU", 60.0, 80.0),
            line("rcu-dispatch, 2 CPUs", 61.0, 100.0),
            line("other", 1.0, 1.0),
        ];
        let columns = columns(lines.iter(), "rcu-dispatch");
        let seen: Vec<_> =
            columns.iter().map(|column| (column.group, column.place, column.spread.median)).collect();
        assert_eq!(seen, [(0, 0, 60.0), (0, 1, 70.0), (0, 2, 80.0), (1, 0, 61.0), (1, 1, 100.0)]);
    }
}
