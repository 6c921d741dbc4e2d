//! A call as a picture: sequence numbers against time with ACKs and losses, windows, round trips.
//!
//! One SVG that needs nothing else. The direction that is drawn is the one with more payload; where we are its receiver, the ACKs are
//! ours and the windows are those of the other direction's replies.

use crate::line::{Ack, Event, Packet};
use crate::read::{Trace, TracedCallLog};
use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use std::path::{Path, PathBuf};

const SIZE: (u32, u32) = (1280, 1040);
/// Heights of the upper two panels; the third has the rest.
const SEQUENCE_HEIGHT: u32 = 560;
const WINDOW_HEIGHT: u32 = 230;
/// Marks of one kind: of more, every so manieth is drawn.
const MARKS_MAX: usize = 12_000;

const BLUE: RGBColor = RGBColor(0, 114, 178);
const ORANGE: RGBColor = RGBColor(230, 120, 0);
const RED: RGBColor = RGBColor(204, 20, 30);
const GREEN: RGBColor = RGBColor(0, 140, 90);
const GREY: RGBColor = RGBColor(130, 130, 130);

/// Why there is no picture.
#[derive(Debug, thiserror::Error)]
#[error("cannot draw {}: {what}", path.display())]
pub struct PlotError {
    path: PathBuf,
    what: String,
}

type Drawn<T = ()> = Result<T, Box<dyn std::error::Error>>;
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;
/// Seconds since the call's first event, and a value.
type Points = Vec<(f64, f64)>;

/// Everything that is drawn.
#[derive(Debug, Default)]
struct Curves {
    /// We are the sender of what is drawn.
    ours: bool,
    /// Packets at their first transmission, as far as is known, and at others.
    data: Points,
    again: Points,
    /// The last packet acknowledged for good, and the last one that the window admits.
    hard: Points,
    edge: Points,
    /// Packets acknowledged softly: when, from, to.
    soft: Vec<(f64, f64, f64)>,
    lost: Points,
    timeouts: Points,
    congestion: Points,
    peer: Points,
    in_flight: Points,
    rtt: Points,
    smoothed: Points,
    timeout: Points,
    seconds: f64,
    /// The call's beginning and end, in words.
    title: String,
}

/// Draws a call of a log.
pub fn plot(trace: &Trace, call: &TracedCallLog, path: &Path) -> Result<(), PlotError> {
    draw(&Curves::of(trace, call), path)
        .map_err(|error| PlotError { path: path.into(), what: error.to_string() })
}

impl Curves {
    fn of(trace: &Trace, call: &TracedCallLog) -> Self {
        let count = |sent: bool| {
            let of = |(_, event): &&(u64, Event)| match event {
                Event::Sent(packet) => sent && packet.is_data(),
                Event::Received(packet) => !sent && packet.is_data(),
                _ => false,
            };
            call.events.iter().filter(of).count()
        };
        let mut curves = Self { ours: count(true) >= count(false), ..Self::default() };
        let begun = call.events.first().map_or(0, |(t, _)| *t);
        let (mut who, mut end, mut next) = (String::new(), "not ended in the log".to_string(), 1);
        for (t, event) in &call.events {
            let at = t.saturating_sub(begun) as f64 / 1e9;
            curves.seconds = at;
            match event {
                Event::Begun { role, peer, service } => {
                    who = format!("{role} of service {service}, peer {peer}")
                }
                Event::Ended { completion, .. } => end.clone_from(completion),
                Event::Sent(packet) => curves.packet(at, packet, curves.ours, &mut next),
                Event::Received(packet) => curves.packet(at, packet, !curves.ours, &mut next),
                _ => curves.state(at, event),
            }
        }
        let missing =
            if trace.missing > 0 { format!("; {} events missing", trace.missing) } else { String::new() };
        curves.title = format!("{}: call {} ({who}), {end}{missing}", trace.program, call.name);
        curves
    }

    /// A datagram; `forward`: in the direction that is drawn.
    fn packet(&mut self, at: f64, packet: &Packet, forward: bool, next: &mut u32) {
        match (packet.seq, &packet.ack) {
            (Some(seq), _) if forward => {
                for seq in seq..seq.saturating_add(u32::from(packet.packets)) {
                    let points = if seq < *next { &mut self.again } else { &mut self.data };
                    points.push((at, f64::from(seq)));
                    // A receiver cannot tell a packet sent again from one that was overtaken.
                    *next = if self.ours { (*next).max(seq.saturating_add(1)) } else { 1 };
                }
            }
            (None, Some(ack)) if !forward => self.ack(at, ack),
            _ => {}
        }
    }

    fn ack(&mut self, at: f64, ack: &Ack) {
        let last = f64::from(ack.first.saturating_sub(1));
        // One that was overtaken by a later one says nothing.
        if self.hard.last().is_some_and(|(_, before)| last < *before) {
            return;
        }
        step(&mut self.hard, at, last);
        if let Some(window) = ack.window {
            step(&mut self.edge, at, last + f64::from(window));
        }
        let mut signs = ack.soft.bytes().enumerate().peekable();
        while let Some((from, sign)) = signs.next() {
            if sign != b'+' {
                continue;
            }
            let mut to = from;
            while let Some((here, _)) = signs.next_if(|(_, sign)| *sign == b'+') {
                to = here;
            }
            let seq = |n: usize| f64::from(ack.first) + n as f64;
            self.soft.push((at, seq(from), seq(to)));
        }
    }

    fn state(&mut self, at: f64, event: &Event) {
        let acked = self.hard.last().map_or(0.0, |(_, seq)| *seq);
        match event {
            Event::Lost { .. } => self.lost.push((at, acked)),
            Event::TimedOut { .. } => self.timeouts.push((at, acked)),
            Event::Windows { congestion, peer, in_flight } => {
                step(&mut self.congestion, at, f64::from(*congestion));
                step(&mut self.peer, at, f64::from(*peer));
                step(&mut self.in_flight, at, f64::from(*in_flight));
            }
            Event::Rtt { sample_us, smoothed_us, timeout_us, .. } => {
                self.rtt.push((at, sample_us / 1e3));
                step(&mut self.smoothed, at, smoothed_us / 1e3);
                step(&mut self.timeout, at, timeout_us / 1e3);
            }
            _ => {}
        }
    }
}

/// A value that holds until the next one. What does not change adds no point.
fn step(points: &mut Points, at: f64, value: f64) {
    match points.last().copied() {
        Some((_, before)) if before == value => {}
        Some((_, before)) => points.extend([(at, before), (at, value)]),
        None => points.push((at, value)),
    }
}

fn draw(curves: &Curves, path: &Path) -> Drawn {
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let area = area.titled(&curves.title, ("sans-serif", 18))?;
    let (top, rest) = area.split_vertically(SEQUENCE_HEIGHT);
    let (middle, bottom) = rest.split_vertically(WINDOW_HEIGHT);
    sequence(curves, &top)?;
    windows(curves, &middle)?;
    round_trips(curves, &bottom)?;
    area.present()?;
    Ok(())
}

/// The upper panel.
fn sequence(curves: &Curves, area: &Area<'_>) -> Drawn {
    let highest = top(&[&curves.data, &curves.again, &curves.hard]);
    let (sent, acks) = if curves.ours { ("sent", "ACKs received") } else { ("received", "ACKs sent") };
    let mut chart = panel(curves, area, highest, &format!("sequence number (DATA {sent})"))?;
    // The window lies far above a short call: it must not decide the scale.
    line(&mut chart, curves, &within(&curves.edge, highest * 1.05), GREY, "receive window's end")?;
    line(&mut chart, curves, &curves.hard, GREEN, &format!("acknowledged for good ({acks})"))?;
    let thick = GREEN.mix(0.35).stroke_width(2);
    let soft =
        thin(&curves.soft).map(|&(at, from, to)| PathElement::new([(at, from - 0.4), (at, to + 0.4)], thick));
    if !curves.soft.is_empty() {
        chart
            .draw_series(soft)?
            .label("acknowledged softly")
            .legend(move |(x, y)| PathElement::new([(x + 6, y - 6), (x + 6, y + 6)], thick));
    }
    dots(&mut chart, &curves.data, BLUE, 2, &format!("DATA {sent}"))?;
    crosses(&mut chart, &curves.lost, RED, "found lost")?;
    crosses(&mut chart, &curves.timeouts, MAGENTA, "retransmission timeout")?;
    // Often where a loss is: on top of it.
    dots(&mut chart, &curves.again, ORANGE, 3, "DATA sent again")?;
    legend(&mut chart, SeriesLabelPosition::LowerRight)
}

fn windows(curves: &Curves, area: &Area<'_>) -> Drawn {
    if curves.congestion.is_empty() {
        return nothing(area, "no window changed: no ACK for anything sent was taken");
    }
    let highest = top(&[&curves.congestion, &curves.in_flight, &curves.peer]);
    let mut chart = panel(curves, area, highest, "packets")?;
    line(&mut chart, curves, &curves.peer, GREY, "peer's receive window")?;
    line(&mut chart, curves, &curves.in_flight, ORANGE, "in flight")?;
    line(&mut chart, curves, &curves.congestion, BLUE, "congestion window")?;
    legend(&mut chart, SeriesLabelPosition::UpperRight)
}

fn round_trips(curves: &Curves, area: &Area<'_>) -> Drawn {
    if curves.rtt.is_empty() {
        return nothing(area, "no round trip was measured");
    }
    let highest = top(&[&curves.rtt, &curves.smoothed]);
    let mut chart = panel(curves, area, highest, "round trip [ms]")?;
    // A timeout is often a hundred round trips: drawn where that does not hide them.
    line(&mut chart, curves, &within(&curves.timeout, highest * 1.05), GREY, "retransmission timeout")?;
    line(&mut chart, curves, &curves.smoothed, GREEN, "smoothed")?;
    dots(&mut chart, &curves.rtt, BLUE, 2, "measured")?;
    legend(&mut chart, SeriesLabelPosition::UpperRight)
}

fn top(all: &[&Points]) -> f64 {
    let most = all.iter().flat_map(|points| points.iter()).map(|(_, value)| *value).fold(0.0, f64::max);
    if most > 0.0 { most } else { 1.0 }
}

/// The part of a curve that is not above `limit`.
fn within(points: &Points, limit: f64) -> Points {
    points.iter().copied().filter(|(_, value)| *value <= limit).collect()
}

/// Axes from zero to a little more than `highest`.
fn panel<'a, 'b>(curves: &Curves, area: &'a Area<'b>, highest: f64, axis: &str) -> Drawn<Chart<'a, 'b>> {
    let seconds = if curves.seconds > 0.0 { curves.seconds } else { 1e-6 };
    let mut chart = ChartBuilder::on(area)
        .margin(10)
        .x_label_area_size(38)
        .y_label_area_size(70)
        .build_cartesian_2d(0.0..seconds * 1.01, 0.0..highest * 1.08)?;
    let (unit, scale) = if seconds < 0.02 { ("ms", 1e3) } else { ("s", 1.0) };
    let digits = if seconds * scale < 2.0 { 3 } else { 1 };
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc(format!("time since the call's first event [{unit}]"))
        .y_desc(axis)
        .x_label_formatter(&|x| format!("{:.digits$}", x * scale))
        .y_label_formatter(&|y| if highest < 5.0 { format!("{y:.2}") } else { format!("{y:.0}") })
        .axis_desc_style(("sans-serif", 15))
        .label_style(("sans-serif", 14))
        .draw()?;
    Ok(chart)
}

/// A curve, and its last value until the call's end.
fn line(chart: &mut Chart<'_, '_>, curves: &Curves, points: &Points, colour: RGBColor, label: &str) -> Drawn {
    let Some(&(_, last)) = points.last() else { return Ok(()) };
    let path: Points = points.iter().copied().chain([(curves.seconds, last)]).collect();
    chart
        .draw_series([PathElement::new(path, colour.stroke_width(1))])?
        .label(label)
        .legend(move |(x, y)| PathElement::new([(x, y), (x + 12, y)], colour.stroke_width(2)));
    Ok(())
}

fn dots(chart: &mut Chart<'_, '_>, points: &Points, colour: RGBColor, size: i32, label: &str) -> Drawn {
    if points.is_empty() {
        return Ok(());
    }
    let style = colour.filled();
    let every = points.len().div_ceil(MARKS_MAX);
    let label = if every > 1 { format!("{label} (1 of {every})") } else { label.to_string() };
    chart
        .draw_series(thin(points).map(|&point| Circle::new(point, size, style)))?
        .label(label)
        .legend(move |(x, y)| Circle::new((x + 6, y), size + 1, style));
    Ok(())
}

fn crosses(chart: &mut Chart<'_, '_>, points: &Points, colour: RGBColor, label: &str) -> Drawn {
    if points.is_empty() {
        return Ok(());
    }
    let style = colour.stroke_width(2);
    chart
        .draw_series(thin(points).map(|&point| Cross::new(point, 5, style)))?
        .label(label)
        .legend(move |(x, y)| Cross::new((x + 6, y), 5, style));
    Ok(())
}

fn thin<T>(marks: &[T]) -> impl Iterator<Item = &T> {
    marks.iter().step_by(marks.len().div_ceil(MARKS_MAX).max(1))
}

fn legend<'a, 'b: 'a>(chart: &mut Chart<'a, 'b>, position: SeriesLabelPosition) -> Drawn {
    chart
        .configure_series_labels()
        .position(position)
        .background_style(WHITE.mix(0.85))
        .border_style(BLACK.mix(0.3))
        .label_font(("sans-serif", 14))
        .draw()?;
    Ok(())
}

/// A panel without curves.
fn nothing(area: &Area<'_>, why: &str) -> Drawn {
    let style = ("sans-serif", 16).into_text_style(area).color(&GREY);
    area.draw_text(why, &style, (90, 60))?;
    Ok(())
}
