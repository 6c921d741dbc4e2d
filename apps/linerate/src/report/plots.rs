//! The plots of a report, as SVG to be put into a page. Nothing from outside is in them: ports are numbered, and the page says which is which.

use hdrhistogram::Histogram;
use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;

use super::Report;
use crate::figures::LatencyFigures;
use crate::rfc2544::{Results, SizeResults};
use crate::units::{bits, nanos, pps};

const SIZE: (u32, u32) = (960, 420);
/// Of an axis without a reason for another number.
const LABELS: usize = 11;
const GREY: RGBColor = RGBColor(130, 130, 130);
/// Colours that are told apart by everybody (Okabe and Ito).
const COLOURS: [RGBColor; 8] = [
    RGBColor(0, 114, 178),
    RGBColor(230, 120, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 20, 30),
    RGBColor(86, 180, 233),
    RGBColor(204, 121, 167),
    RGBColor(150, 140, 20),
    RGBColor(60, 60, 60),
];

pub(super) type Drawn<T = ()> = Result<T, Box<dyn std::error::Error>>;
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;
type Points = Vec<(f64, f64)>;

/// Of the names of curves, to the right of their plot.
const NAMES_WIDTH: i32 = 150;

/// A curve, and how it is drawn.
struct Curve {
    name: String,
    points: Points,
    colour: RGBColor,
    /// With marks at its points.
    marks: bool,
}

impl Curve {
    fn new(name: impl Into<String>, points: Points, colour: usize, marks: bool) -> Curve {
        Curve { name: name.into(), points, colour: COLOURS[colour % COLOURS.len()], marks }
    }

    fn grey(name: impl Into<String>, points: Points) -> Curve {
        Curve { name: name.into(), points, colour: GREY, marks: false }
    }
}

/// What the axes are.
struct Axes<'f> {
    x: std::ops::Range<f64>,
    y: std::ops::Range<f64>,
    x_name: &'f str,
    y_name: &'f str,
    /// Labels of the x axis; of these, where it is given, one for each whole number.
    x_label: &'f dyn Fn(&f64) -> String,
    x_labels: usize,
    y_label: &'f dyn Fn(&f64) -> String,
    y_labels: usize,
}

/// Draws curves on axes; `None` if there is nothing to draw.
fn draw(axes: &Axes<'_>, curves: &[Curve]) -> Drawn<Option<String>> {
    if curves.iter().all(|curve| curve.points.is_empty()) {
        return Ok(None);
    }
    let mut svg = String::new();
    {
        let area: Area<'_> = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        // A single curve is what the axis says.
        let plot = if curves.len() > 1 {
            let (plot, beside) = area.split_horizontally(SIZE.0 as i32 - NAMES_WIDTH);
            names(&beside, curves)?;
            plot
        } else {
            area.clone()
        };
        let mut chart: Chart<'_, '_> = ChartBuilder::on(&plot)
            .margin(12)
            .x_label_area_size(42)
            .y_label_area_size(90)
            .build_cartesian_2d(axes.x.clone(), axes.y.clone())?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .x_desc(axes.x_name)
            .y_desc(axes.y_name)
            .x_labels(axes.x_labels)
            .x_label_formatter(axes.x_label)
            .y_label_formatter(axes.y_label)
            .y_labels(axes.y_labels)
            .axis_desc_style(("sans-serif", 15))
            .label_style(("sans-serif", 14))
            .draw()?;
        let widths = widths(curves.len());
        curves.iter().zip(widths).try_for_each(|(curve, width)| add(&mut chart, curve, width))?;
        area.present()?;
    }
    Ok(Some(svg))
}

/// Of lines, in the order in which they are drawn: where one lies on another, both are seen.
fn widths(count: usize) -> impl Iterator<Item = u32> {
    (0..count).rev().map(move |above| if count <= 4 { 2 + 2 * above as u32 } else { 2 })
}

/// Which curve is which, from the top to the bottom.
fn names(area: &Area<'_>, curves: &[Curve]) -> Drawn {
    for ((at, curve), width) in curves.iter().enumerate().zip(widths(curves.len())) {
        let y = 24 + 20 * at as i32;
        area.draw(&PathElement::new([(4, y), (26, y)], curve.colour.stroke_width(width)))?;
        area.draw(&Text::new(curve.name.clone(), (34, y - 6), ("sans-serif", 14)))?;
    }
    Ok(())
}

fn add<'a, 'b: 'a>(chart: &mut Chart<'a, 'b>, curve: &Curve, width: u32) -> Drawn {
    let style = curve.colour.stroke_width(width);
    chart.draw_series(std::iter::once(PathElement::new(curve.points.clone(), style)))?;
    if curve.marks {
        let filled = curve.colour.filled();
        chart.draw_series(curve.points.iter().map(|&point| Circle::new(point, 3 + width / 2, filled)))?;
    }
    Ok(())
}

fn highest<'c>(curves: impl IntoIterator<Item = &'c Curve>) -> f64 {
    let points = curves.into_iter().flat_map(|curve| &curve.points);
    let most = points.map(|(_, y)| *y).fold(0.0, f64::max);
    if most > 0.0 { most } else { 1.0 }
}

/// Throughput against frame size, beside line rate.
pub(super) fn throughput(results: &Results) -> Drawn<Option<String>> {
    let mut curves = Vec::new();
    for (i, tolerance) in results.options.tolerances.iter().enumerate() {
        let found = |size: &SizeResults| size.throughput.get(i).and_then(|found| found.bits_per_second);
        let name =
            if *tolerance == 0.0 { "no loss".into() } else { format!("loss up to {} %", tolerance * 100.0) };
        curves.push(Curve::new(name, by_size(results, found), i, true));
    }
    if curves.iter().all(|curve| curve.points.is_empty()) {
        return Ok(None);
    }
    let line_rate = results.options.line_rate_bits_per_second as f64;
    let last = results.sizes.len() as f64 - 0.5;
    curves.push(Curve::grey("line rate", vec![(-0.5, line_rate), (last, line_rate)]));
    let scale =
        Scale { range: 0.0..line_rate * 1.1, name: "on the wire", label: &|y| bits(*y), labels: LABELS };
    sized(results, scale, &curves)
}

/// A colour, a name, and which figure.
type Figure<'n> = (usize, &'n str, fn(&LatencyFigures) -> u64);

/// Percentiles of latency against frame size; on a logarithmic scale where they are far apart.
pub(super) fn latency(results: &Results) -> Drawn<Option<String>> {
    let curve = |(i, name, of): Figure<'_>| {
        let figure = |size: &SizeResults| size.latency.as_ref().map(|found| of(&found.all).max(1) as f64);
        Curve::new(name, by_size(results, figure), i, true)
    };
    let figures: [Figure<'_>; 4] = [
        (3, "max", |found| found.max_ns),
        (2, "p99.9", |found| found.p99_9_ns),
        (1, "p99", |found| found.p99_ns),
        (0, "p50", |found| found.p50_ns),
    ];
    let mut curves = figures.map(curve);
    let all = || curves.iter().flat_map(|curve| curve.points.iter().map(|(_, y)| *y));
    if all().next().is_none() {
        return Ok(None);
    }
    let (low, high) = (all().fold(f64::INFINITY, f64::min), all().fold(0.0, f64::max));
    if high < 10.0 * low {
        let scale = Scale { range: 0.0..high * 1.1, name: "latency", label: &|y| nanos(*y), labels: LABELS };
        return sized(results, scale, &curves);
    }
    curves.iter_mut().flat_map(|curve| &mut curve.points).for_each(|(_, y)| *y = y.log10());
    let decades = low.log10().floor()..high.log10().ceil();
    let labels = (decades.end - decades.start) as usize + 1;
    let label = |y: &f64| nanos(10f64.powf(*y));
    sized(results, Scale { range: decades, name: "latency, log scale", label: &label, labels }, &curves)
}

fn by_size(results: &Results, of: impl Fn(&SizeResults) -> Option<f64>) -> Points {
    let points = results.sizes.iter().enumerate();
    points.filter_map(|(at, size)| Some((at as f64, of(size)?))).collect()
}

/// What the y axis is.
struct Scale<'f> {
    range: std::ops::Range<f64>,
    name: &'f str,
    label: &'f dyn Fn(&f64) -> String,
    labels: usize,
}

/// Against frame sizes, evenly spaced.
fn sized(results: &Results, scale: Scale<'_>, curves: &[Curve]) -> Drawn<Option<String>> {
    let sizes = &results.sizes;
    let label = |x: &f64| {
        let whole = x.round();
        let size = sizes.get(whole as usize).filter(|_| (x - whole).abs() < 1e-6 && whole >= 0.0);
        size.map_or(String::new(), |size| size.frame_bytes.to_string())
    };
    let axes = Axes {
        x: -0.5..sizes.len() as f64 - 0.5,
        y: scale.range,
        x_name: "frame size [bytes, FCS included]",
        y_name: scale.name,
        x_label: &label,
        x_labels: 2 * sizes.len() + 1,
        y_label: scale.label,
        y_labels: scale.labels,
    };
    draw(&axes, curves)
}

/// What is lost against what is offered, a curve for each size.
pub(super) fn loss(results: &Results) -> Drawn<Option<String>> {
    let curve = |(i, size): (usize, &SizeResults)| {
        let points = size.loss_curve.iter().map(|point| (point.sent_percent, point.loss_percent)).collect();
        Curve::new(format!("{} bytes", size.frame_bytes), points, i, true)
    };
    let curves: Vec<Curve> = results.sizes.iter().enumerate().map(curve).collect();
    let most = highest(&curves);
    let digits = if most < 1.0 { 4 } else { 0 };
    let axes = Axes {
        x: 0.0..105.0,
        y: 0.0..most * 1.1,
        x_name: "offered [per cent of line rate]",
        y_name: "lost",
        x_label: &|x| format!("{x:.0}"),
        x_labels: 12,
        y_label: &|y| format!("{y:.digits$} %"),
        y_labels: LABELS,
    };
    draw(&axes, &curves)
}

/// Rates over the run, in and out, a pair of curves for each port: each interval's mean as a step.
pub(super) fn rates(report: &Report) -> Drawn<Option<String>> {
    let mut curves = Vec::new();
    for (i, _) in report.ports.iter().enumerate() {
        let way = |of: fn(&crate::view::rates::QueueRates) -> f64| -> Points {
            let step = |rates: &crate::view::Rates| {
                let rate = of(&rates.ports.get(i)?.total);
                let end = rates.elapsed_seconds;
                Some([(end - rates.interval_seconds, rate), (end, rate)])
            };
            report.rates.iter().filter_map(step).flatten().collect()
        };
        curves.push(Curve::new(
            format!("port {i} out"),
            way(|total| total.tx_frames_per_second),
            2 * i,
            false,
        ));
        curves.push(Curve::new(
            format!("port {i} in"),
            way(|total| total.rx_frames_per_second),
            2 * i + 1,
            false,
        ));
    }
    curves.retain(|curve| curve.points.iter().any(|(_, y)| *y > 0.0));
    let end = report.rates.last().map_or(1.0, |rates| rates.elapsed_seconds);
    let begin = report.rates.first().map_or(0.0, |rates| rates.elapsed_seconds - rates.interval_seconds);
    let axes = Axes {
        x: begin..end.max(begin + 1e-3),
        y: 0.0..highest(&curves) * 1.1,
        x_name: "time since the run began [s]",
        y_name: "frames a second",
        x_label: &|x| format!("{x:.1}"),
        x_labels: 12,
        y_label: &|y| pps(*y),
        y_labels: LABELS,
    };
    draw(&axes, &curves)
}

/// A distribution of latencies: the value at each percentile, the last ones spread out.
pub(super) fn distribution(latency: &Histogram<u64>) -> Drawn<Option<String>> {
    // A frame is the finest that the tail can show.
    let nines = (latency.len().max(10) as f64).log10();
    let point = |step: u32| {
        let x = nines * f64::from(step) / 200.0;
        (x, latency.value_at_quantile(1.0 - 10f64.powf(-x)) as f64)
    };
    let curves = [Curve::new("latency", (0..=200).map(point).collect(), 0, false)];
    let label = |x: &f64| match *x {
        x if (x - x.round()).abs() > 1e-6 => String::new(),
        x if x < 0.5 => "0 %".to_owned(),
        x => format!("{:.*} %", (x as usize).saturating_sub(2), 100.0 - 100.0 / 10f64.powf(x.round())),
    };
    let axes = Axes {
        x: 0.0..nines,
        y: 0.0..highest(&curves) * 1.1,
        x_name: "frames that took no longer",
        y_name: "latency",
        x_label: &label,
        x_labels: nines.ceil() as usize + 1,
        y_label: &|y| nanos(*y),
        y_labels: LABELS,
    };
    draw(&axes, &curves)
}

#[cfg(test)]
mod tests {
    use super::super::tests::report;
    use super::*;

    #[test]
    fn each_plot_has_its_curves_and_axes() {
        let report = report();
        let results = report.rfc2544.as_ref().unwrap();
        let has = |svg: Drawn<Option<String>>, expected: &[&str]| {
            let svg = svg.unwrap().unwrap();
            assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
            for text in expected {
                assert!(svg.contains(text), "{text:?} is not in the plot");
            }
        };
        has(throughput(results), &["line rate", "no loss", "loss up to 0.5 %", "1518", "10.0 Gbit/s"]);
        has(loss(results), &["64 bytes", "512 bytes", "per cent of line rate"]);
        has(latency(results), &["p50", "p99.9", "max", "100 us"]);
        has(rates(&report), &["port 0 out", "port 1 in", "2.00 Mpps"]);
        has(distribution(report.latency().unwrap()), &["90 %", "99 %", "50.0 us"]);
    }

    #[test]
    fn without_figures_there_is_no_plot() {
        let mut report = report();
        report.rates.clear();
        let mut results = report.rfc2544.take().unwrap();
        results.sizes.clear();
        for svg in [throughput(&results), loss(&results), latency(&results), rates(&report)] {
            assert!(svg.unwrap().is_none());
        }
    }
}
