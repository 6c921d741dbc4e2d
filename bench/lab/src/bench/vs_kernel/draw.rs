//! The figures as pictures: a bar for each arm, and latency against load. Each is one SVG that needs nothing else.

use std::error::Error;

use plotters::coord::Shift;
use plotters::prelude::*;

use super::arms::Whose;
use super::curve::Point;
use super::measure::{Measure, Work, human};
use super::results::{ArmResults, Results, Summary};
use crate::bench::machine::Machine;
use crate::bench::stats::{Interval, Spread};
use crate::fault::{Fault, Result};

/// Ours.
pub const OUR_COLOUR: RGBColor = RGBColor(0, 114, 178);
/// The kernel's.
pub const KERNEL_COLOUR: RGBColor = RGBColor(230, 140, 0);
/// Ours and the kernel's along a curve: dark to light.
const OURS: [RGBColor; 5] = [
    RGBColor(0, 60, 120),
    RGBColor(0, 114, 178),
    RGBColor(86, 180, 233),
    RGBColor(0, 158, 115),
    RGBColor(110, 200, 160),
];
const KERNELS: [RGBColor; 7] = [
    RGBColor(110, 30, 0),
    RGBColor(213, 94, 0),
    RGBColor(230, 159, 0),
    RGBColor(204, 51, 17),
    RGBColor(150, 110, 60),
    RGBColor(240, 200, 60),
    RGBColor(204, 121, 167),
];

const BARS: (u32, u32) = (760, 400);
const CURVES: (u32, u32) = (1180, 520);
const OVERVIEW: (u32, u32) = (1500, 620);
const NAMES_WIDTH: u32 = 270;

type Drawn = std::result::Result<(), Box<dyn Error>>;
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Rates of both works, and the echo's latency against load: the one picture to show.
pub fn overview(results: &Results, machine: &Machine) -> Result<String> {
    picture("the overview", OVERVIEW, |area| {
        let note = format!(
            "rxline beside kernel sockets, log scales: medians of {} rounds, whiskers 95 %. Two CPUs: load and server. {}, kernel {}, seed {}",
            results.pairs, machine.cpu, machine.kernel, results.seed
        );
        let area = area.titled(&note, ("sans-serif", 17))?;
        let (bars, curve) = area.split_horizontally(880);
        let (echo, calls) = bars.split_horizontally(575);
        bar_chart(&echo, results, Measure::Echo, NAMES_WIDTH)?;
        bar_chart(&calls, results, Measure::Calls, 10)?;
        curve_chart(&curve, results, Work::Echo, |point| point.p99_us, "99th percentile")
    })
}

/// One measure of all arms; nothing if none has it.
pub fn bars(results: &Results, measure: Measure) -> Result<Option<String>> {
    if results.arms.iter().all(|arm| arm.median(measure).is_none()) {
        return Ok(None);
    }
    picture(measure.kind().title, BARS, |area| bar_chart(area, results, measure, NAMES_WIDTH)).map(Some)
}

/// Median and tail of one work's latency against load, side by side; nothing if no arm has a curve.
pub fn curves(results: &Results, work: Work) -> Result<Option<String>> {
    if results.arms.iter().all(|arm| arm.curve(work).is_empty()) {
        return Ok(None);
    }
    let draw = |area: &Area<'_>| -> Drawn {
        let halves = area.split_evenly((1, 2));
        curve_chart(&halves[0], results, work, |point| point.p50_us, "median")?;
        curve_chart(&halves[1], results, work, |point| point.p99_us, "99th percentile")
    };
    picture(work.title(), CURVES, draw).map(Some)
}

fn picture(what: &str, size: (u32, u32), draw: impl FnOnce(&Area<'_>) -> Drawn) -> Result<String> {
    let mut svg = String::new();
    let drawn = || -> Drawn {
        let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        area.fill(&WHITE)?;
        draw(&area)?;
        area.present()?;
        Ok(())
    };
    drawn().map_err(|error| Fault::Check(format!("draw {what}: {error}")))?;
    Ok(svg)
}

/// Horizontal bars on a log scale, the arms from top to bottom as in the table.
fn bar_chart(area: &Area<'_>, results: &Results, measure: Measure, names_width: u32) -> Drawn {
    let kind = measure.kind();
    let summaries: Vec<Option<Summary>> =
        results.arms.iter().map(|arm| arm.summary(measure, results.seed)).collect();
    let all = summaries.iter().flatten();
    let Some((low, high)) = bounds(all.flat_map(|summary| [summary.spread.min, summary.spread.max])) else {
        return Ok(());
    };
    // A bar of the least still has a length, and the longest room for its figure.
    let (low, high) = (low / 2.0, high * 5.0);
    let count = results.arms.len();
    let row = |at: usize| (count - 1 - at) as f64;
    let mut chart = ChartBuilder::on(area)
        .caption(format!("{} [{}]", kind.title, kind.unit), ("sans-serif", 17))
        .margin(10)
        .x_label_area_size(34)
        .y_label_area_size(names_width)
        .build_cartesian_2d((low..high).log_scale(), -0.6..count as f64 - 0.4)?;
    let name = |y: &f64| {
        let at = count as f64 - 1.0 - y;
        let arm = (at.fract().abs() < 1e-6).then(|| results.arms.get(at.round() as usize)).flatten();
        arm.filter(|_| names_width > 50).map_or(String::new(), |arm| arm.spec.name.into())
    };
    chart
        .configure_mesh()
        .disable_y_mesh()
        .light_line_style(TRANSPARENT)
        .x_label_formatter(&|x| human(*x))
        .y_labels(2 * count)
        .y_label_formatter(&name)
        .label_style(("sans-serif", 14))
        .draw()?;
    for (at, (arm, summary)) in results.arms.iter().zip(&summaries).enumerate() {
        let Some(Summary { spread: Spread { median, .. }, interval }) = *summary else { continue };
        let colour = if arm.spec.whose == Whose::Ours { OUR_COLOUR } else { KERNEL_COLOUR };
        let bar = [(low, row(at) - 0.36), (median, row(at) + 0.36)];
        chart.draw_series([Rectangle::new(bar, colour.filled())])?;
        let mut end = median;
        if let Some(Interval { low, high }) = interval {
            let style = BLACK.stroke_width(1);
            chart.draw_series([PathElement::new([(low, row(at)), (high, row(at))], style)])?;
            let ends = [low, high]
                .map(|end| PathElement::new([(end, row(at) - 0.18), (end, row(at) + 0.18)], style));
            chart.draw_series(ends)?;
            end = high;
        }
        let label = ("sans-serif", 14).into_text_style(area);
        chart.draw_series([Text::new(human(median), (end * 1.12, row(at) + 0.28), label)])?;
    }
    Ok(())
}

/// Latency against what was answered, both on log scales, a line for each arm.
fn curve_chart(
    area: &Area<'_>,
    results: &Results,
    work: Work,
    latency: fn(&Point) -> f64,
    which: &str,
) -> Drawn {
    let curves: Vec<(&ArmResults, Vec<(f64, f64)>)> = results
        .arms
        .iter()
        .map(|arm| {
            let points = arm.curve(work).iter().map(|point| (point.answered, latency(point))).collect();
            (arm, points)
        })
        .collect();
    let all = || curves.iter().flat_map(|(_, points)| points);
    let (Some(x), Some(y)) = (bounds(all().map(|point| point.0)), bounds(all().map(|point| point.1))) else {
        return Ok(());
    };
    // Room for the legend on the right.
    let right = x.1 * 1.3 * (x.1 / x.0).powf(0.6);
    let mut chart = ChartBuilder::on(area)
        .caption(format!("{}: {which} of latency against load", work.title()), ("sans-serif", 17))
        .margin(10)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d((x.0 * 0.8..right).log_scale(), (y.0 * 0.7..y.1 * 1.5).log_scale())?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_label_formatter(&|x| human(*x))
        .y_label_formatter(&|y| human(*y))
        .x_desc("answered a second")
        .y_desc("us from the intended time of sending")
        .axis_desc_style(("sans-serif", 14))
        .label_style(("sans-serif", 13))
        .draw()?;
    let mut seen = [0, 0];
    for (arm, points) in &curves {
        let (palette, side): (&[RGBColor], usize) =
            if arm.spec.whose == Whose::Ours { (&OURS, 0) } else { (&KERNELS, 1) };
        let colour = palette[seen[side] % palette.len()];
        seen[side] += 1;
        let width = if side == 0 { 3 } else { 2 };
        let line = PathElement::new(points.clone(), colour.stroke_width(width));
        chart
            .draw_series([line])?
            .label(arm.spec.name)
            .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 18, y)], colour.stroke_width(width)));
        chart.draw_series(points.iter().map(|point| Circle::new(*point, 3, colour.filled())))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.2))
        .label_font(("sans-serif", 12))
        .draw()?;
    Ok(())
}

/// The least and the most of what a log scale can show.
fn bounds(figures: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    let figures = figures.filter(|figure| figure.is_finite() && *figure > 0.0);
    figures.fold(None, |bounds, figure| {
        let (low, high) = bounds.unwrap_or((figure, figure));
        Some((low.min(figure), high.max(figure)))
    })
}

#[cfg(test)]
mod tests {
    use super::super::curve::tests::point;
    use super::super::results::tests::results;
    use super::*;

    #[test]
    fn every_arm_has_its_bar_and_its_figure() {
        let results = results(Measure::Echo, &[10.4e6; 5], &[0.52e6; 5], &[0.1e6; 5]);
        let svg = bars(&results, Measure::Echo).unwrap().unwrap();
        for text in ["memory:", "kernel: mmsg", "kernel: blocking", "10.4 M", "520 k", "100 k"] {
            assert!(svg.contains(text), "no {text:?} in\n{svg}");
        }
        assert!(bars(&results, Measure::Bulk).unwrap().is_none());
    }

    #[test]
    fn curves_are_drawn_where_there_are_some() {
        let mut results = results(Measure::Echo, &[10.4e6; 5], &[0.52e6; 5], &[0.1e6; 5]);
        assert!(curves(&results, Work::Echo).unwrap().is_none());
        for turn in &mut results.arms[2].turns {
            turn.curves.insert(Work::Echo, vec![point(10.0, 10.0, 5.0, 9.0), point(90.0, 90.0, 7.0, 40.0)]);
        }
        let svg = curves(&results, Work::Echo).unwrap().unwrap();
        assert!(svg.matches("<circle").count() >= 4 && svg.contains("99th percentile"), "{svg}");
        let overview = overview(&results, &Machine::describe()).unwrap();
        assert!(overview.starts_with("<svg") && overview.contains("seed 7"));
    }

    #[test]
    fn bounds_leave_out_what_has_no_logarithm() {
        assert_eq!(bounds([3.0, 0.0, 1.0, f64::NAN, -1.0].into_iter()), Some((1.0, 3.0)));
        assert_eq!(bounds([0.0].into_iter()), None);
    }
}
