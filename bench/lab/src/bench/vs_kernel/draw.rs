//! The figures as pictures: a bar for each arm, and latency against load. Each is one SVG that needs nothing else.

use std::error::Error;

use plotters::coord::Shift;
use plotters::prelude::*;

use super::arms::Whose;
use super::curve::Point;
use super::measure::{Better, Measure, Work, human};
use super::results::{ArmResults, Results, Summary};
use crate::bench::machine::Machine;
use crate::bench::stats::{FIGURES_LEAST, Interval, Spread};
use crate::fault::{Fault, Result};

/// Ours.
pub const OUR_COLOUR: RGBColor = RGBColor(0, 114, 178);
/// The kernel's.
pub const KERNEL_COLOUR: RGBColor = RGBColor(230, 140, 0);
/// Of curves: ours are blue and green, the kernel's the rest.
const OURS: [RGBColor; 5] = [
    RGBColor(0, 60, 120),
    RGBColor(0, 114, 178),
    RGBColor(86, 180, 233),
    RGBColor(0, 158, 115),
    RGBColor(110, 200, 160),
];
const KERNELS: [RGBColor; 7] = [
    RGBColor(130, 70, 20),
    RGBColor(240, 120, 0),
    RGBColor(205, 170, 0),
    RGBColor(204, 20, 30),
    RGBColor(50, 50, 50),
    RGBColor(240, 130, 190),
    RGBColor(130, 60, 170),
];

const GREY: RGBColor = RGBColor(120, 120, 120);

const BARS: (u32, u32) = (760, 400);
const CURVES: (u32, u32) = (1180, 520);
const OVERVIEW: (u32, u32) = (1180, 900);
const NAMES_WIDTH: u32 = 250;
/// Of the names of curves, beside them.
const LEGEND_WIDTH: i32 = 260;

type Drawn = std::result::Result<(), Box<dyn Error>>;
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Rates of both works, and the echo's latency against load: the one picture to show.
pub fn overview(results: &Results, machine: &Machine) -> Result<String> {
    picture("the overview", OVERVIEW, |area| {
        let of = match results.pairs {
            1 => "figures of 1 round".to_string(),
            pairs if pairs < FIGURES_LEAST => format!("medians of {pairs} rounds"),
            pairs => format!("medians of {pairs} rounds, whiskers 95 %"),
        };
        let note = format!(
            "rxline beside kernel sockets: {of}. Two CPUs: load and server. {}, kernel {}, seed {}",
            machine.cpu, machine.kernel, results.seed
        );
        let area = area.titled(&note, ("sans-serif", 16))?;
        let (bars, curve) = area.split_vertically(430);
        let (echo, calls) = bars.split_horizontally(700);
        bar_chart(&echo, results, Measure::Echo, NAMES_WIDTH)?;
        bar_chart(&calls, results, Measure::Calls, 10)?;
        let (curve, beside) = curve.split_horizontally(OVERVIEW.0 as i32 - LEGEND_WIDTH);
        legend(&beside, results)?;
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
        let (charts, beside) = area.split_horizontally(CURVES.0 as i32 - LEGEND_WIDTH);
        legend(&beside, results)?;
        let halves = charts.split_evenly((1, 2));
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
    let less = if kind.better == Better::Less { ", less is better" } else { "" };
    let mut chart = ChartBuilder::on(area)
        .caption(format!("{} [{}{less}]", kind.title, kind.unit), ("sans-serif", 17))
        .margin(10)
        .x_label_area_size(46)
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
        .x_label_formatter(&tick)
        .x_desc("log scale")
        .axis_desc_style(("sans-serif", 13))
        .y_labels(2 * count)
        .y_label_formatter(&name)
        .label_style(("sans-serif", 14))
        .draw()?;
    for (at, (arm, summary)) in results.arms.iter().zip(&summaries).enumerate() {
        let label = ("sans-serif", 14).into_text_style(area);
        let Some(Summary { spread: Spread { median, .. }, interval }) = *summary else {
            chart.draw_series([Text::new("none", (low * 1.05, row(at) + 0.28), label.color(&GREY))])?;
            continue;
        };
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
    let mut chart = ChartBuilder::on(area)
        .caption(format!("{}: {which} of latency against load", work.title()), ("sans-serif", 17))
        .margin(10)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d((x.0 * 0.8..x.1 * 1.3).log_scale(), (y.0 * 0.7..y.1 * 1.5).log_scale())?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_label_formatter(&tick)
        .y_label_formatter(&tick)
        .x_desc("answered a second, log scale")
        .y_desc("us from the intended time of sending, log scale")
        .axis_desc_style(("sans-serif", 14))
        .label_style(("sans-serif", 13))
        .draw()?;
    for ((_, points), look) in curves.iter().zip(looks(results)) {
        chart.draw_series([PathElement::new(points.clone(), look.colour.stroke_width(look.width))])?;
        chart.draw_series(points.iter().map(|point| look.mark(*point)))?;
    }
    Ok(())
}

/// How an arm's curves look: alike in every plot of curves.
struct Look {
    colour: RGBColor,
    width: u32,
    shape: usize,
}

impl Look {
    fn mark<'b, C: Clone + 'static>(&self, at: C) -> DynElement<'static, SVGBackend<'b>, C> {
        let filled = self.colour.filled();
        match self.shape % 3 {
            0 => Circle::new(at, 3, filled).into_dyn(),
            1 => TriangleMarker::new(at, 5, filled).into_dyn(),
            _ => Cross::new(at, 4, self.colour.stroke_width(2)).into_dyn(),
        }
    }
}

/// Of every arm, in their order.
fn looks(results: &Results) -> Vec<Look> {
    let mut seen = [0, 0];
    let look = |arm: &ArmResults| {
        let (palette, side): (&[RGBColor], usize) =
            if arm.spec.whose == Whose::Ours { (&OURS, 0) } else { (&KERNELS, 1) };
        let shape = seen[side];
        seen[side] += 1;
        Look { colour: palette[shape % palette.len()], width: if side == 0 { 3 } else { 2 }, shape }
    };
    results.arms.iter().map(look).collect()
}

/// Which curve is whose.
fn legend(area: &Area<'_>, results: &Results) -> Drawn {
    for (at, (arm, look)) in results.arms.iter().zip(looks(results)).enumerate() {
        let y = 48 + 22 * at as i32;
        area.draw(&PathElement::new([(4, y), (30, y)], look.colour.stroke_width(look.width)))?;
        area.draw(&look.mark((17, y)))?;
        area.draw(&Text::new(arm.spec.name, (38, y - 6), ("sans-serif", 13)))?;
    }
    Ok(())
}

/// A label of a log scale: of the lines between powers of ten only those that have room for one.
fn tick(at: &f64) -> String {
    let lead = at / 10f64.powf((at.log10() + 1e-9).floor());
    if [1.0, 2.0, 5.0].iter().any(|whole| (lead - whole).abs() < 1e-6) { human(*at) } else { String::new() }
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
    fn an_arm_without_a_figure_says_so() {
        let mut results = results(Measure::EchoKnee, &[10.4e6; 5], &[0.52e6; 5], &[0.1e6; 5]);
        results.arms[0].turns.iter_mut().for_each(|turn| turn.figures.clear());
        let svg = bars(&results, Measure::EchoKnee).unwrap().unwrap();
        assert!(svg.contains("none") && svg.contains("log scale"), "{svg}");
    }

    #[test]
    fn labels_of_a_log_scale_do_not_crowd() {
        let told = [1.0, 2000.0, 3000.0, 5000.0, 9000.0, 1e4, 1e6, 7e6].map(|at| tick(&at));
        assert_eq!(told, ["1.00", "2000", "", "5000", "", "10.0 k", "1.00 M", ""]);
    }

    #[test]
    fn bounds_leave_out_what_has_no_logarithm() {
        assert_eq!(bounds([3.0, 0.0, 1.0, f64::NAN, -1.0].into_iter()), Some((1.0, 3.0)));
        assert_eq!(bounds([0.0].into_iter()), None);
    }
}
