//! The curves as one picture: rates above, memory below, a column for each axis.

use std::error::Error;

use plotters::coord::Shift;
use plotters::prelude::*;

use super::Measured;
use super::axis::{Axis, Cost};
use super::growth::count;
use crate::bench::machine::Machine;
use crate::bench::stats::Spread;
use crate::bench::vs_kernel::{KERNEL_COLOUR, OUR_COLOUR, human};
use crate::fault::{Fault, Result};

const SIZE: (u32, u32) = (1500, 640);

type Drawn = std::result::Result<(), Box<dyn Error>>;

/// One row of panels.
struct Row {
    title: &'static str,
    figure: fn(&Cost) -> f64,
    colour: RGBColor,
}

const ROWS: [Row; 2] = [
    Row { title: "a second", figure: |cost| cost.per_second, colour: OUR_COLOUR },
    Row { title: "memory, MB", figure: |cost| cost.resident_bytes / 1e6, colour: KERNEL_COLOUR },
];

/// All curves, both axes of each on log scales.
pub fn curves(points: &[Measured], machine: &Machine, seed: u64) -> Result<String> {
    let mut svg = String::new();
    let mut drawn = || -> Drawn {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let rounds = points.iter().map(|point| point.rounds.len()).max().unwrap_or(0);
        let note = format!(
            "Cost curves over memory:, log scales: medians of {rounds} rounds, whiskers min..max. {}, kernel {}, seed {seed}",
            machine.cpu, machine.kernel
        );
        let area = area.titled(&note, ("sans-serif", 17))?;
        let panels = area.split_evenly((ROWS.len(), Axis::ALL.len()));
        for (at, panel) in panels.iter().enumerate() {
            let (row, axis) = (&ROWS[at / Axis::ALL.len()], Axis::ALL[at % Axis::ALL.len()]);
            draw(panel, points, row, axis)?;
        }
        area.present()?;
        Ok(())
    };
    drawn().map_err(|error| Fault::Check(format!("draw the cost curves: {error}")))?;
    Ok(svg)
}

fn draw(area: &DrawingArea<SVGBackend<'_>, Shift>, points: &[Measured], row: &Row, axis: Axis) -> Drawn {
    let along: Vec<(f64, Spread)> = points
        .iter()
        .filter(|point| point.axis == axis)
        .filter_map(|point| Some((point.n as f64, point.spread(row.figure)?)))
        .filter(|(_, spread)| spread.min > 0.0)
        .collect();
    let (Some(first), Some(last)) = (along.first(), along.last()) else { return Ok(()) };
    let low = along.iter().map(|(_, spread)| spread.min).fold(f64::INFINITY, f64::min);
    let high = along.iter().map(|(_, spread)| spread.max).fold(0.0, f64::max);
    let unit = if row.title == "a second" { axis.unit() } else { row.title };
    let mut chart = ChartBuilder::on(area)
        .caption(format!("{unit} by {}", axis.title()), ("sans-serif", 15))
        .margin(8)
        .x_label_area_size(26)
        .y_label_area_size(52)
        .build_cartesian_2d(
            (first.0 * 0.8..last.0 * 1.25).log_scale(),
            (low * 0.6..high * 1.8).log_scale(),
        )?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_label_formatter(&|n| if *n >= 1.0 { count(n.round() as u64) } else { String::new() })
        .y_label_formatter(&|figure| human(*figure))
        .label_style(("sans-serif", 12))
        .draw()?;
    let line: Vec<(f64, f64)> = along.iter().map(|(n, spread)| (*n, spread.median)).collect();
    chart.draw_series([PathElement::new(line.clone(), row.colour.stroke_width(3))])?;
    chart.draw_series(along.iter().map(|(n, Spread { median, min, max })| {
        ErrorBar::new_vertical(*n, *min, *median, *max, BLACK.stroke_width(1), 6)
    }))?;
    let label = ("sans-serif", 12).into_text_style(area);
    chart.draw_series(
        line.iter().map(|(n, figure)| Text::new(human(*figure), (*n, figure * 1.35), label.clone())),
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_axis_has_a_panel_of_rates_and_one_of_memory() {
        let measured = |axis, n| Measured {
            axis,
            n,
            rounds: vec![Cost { per_second: 2.5e6, resident_bytes: 4.2e8, before_bytes: 1e8 }; 3],
        };
        let points: Vec<Measured> =
            Axis::ALL.into_iter().flat_map(|axis| [measured(axis, 1), measured(axis, 2)]).collect();
        let svg = curves(&points, &Machine::describe(), 7).unwrap();
        assert!(svg.contains("echoes/s by sockets") && svg.contains("memory, MB by cores"));
        assert!(svg.matches("2.50 M").count() >= 10 && svg.matches("420").count() >= 10, "{svg}");
    }
}
