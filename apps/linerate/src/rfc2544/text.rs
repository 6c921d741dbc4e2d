//! Results as text for a terminal or a pipe.

use std::fmt::Write;

use super::{Limit, Results, SizeResults, Verdict};
use crate::units::{bits, nanos, percent, pps};

/// All of them, a paragraph for each size.
pub fn text(results: &Results) -> String {
    let mut text = format!(
        "RFC 2544 on a link of {}; sizes with FCS, rates with preamble and gap\n",
        bits(results.options.line_rate_bits_per_second as f64)
    );
    results.sizes.iter().for_each(|size| add(&mut text, size));
    text
}

fn add(out: &mut String, size: &SizeResults) {
    let mut line = |text: String| {
        // Writing to a String does not fail.
        let _ = writeln!(out, "{text}");
    };
    let line_rate = pps(size.line_rate_frames_per_second);
    line(format!("\n{} bytes (line rate {line_rate})", size.frame_bytes));
    for found in &size.throughput {
        let name = match found.tolerance_percent {
            0.0 => "throughput (NDR, no loss)".to_owned(),
            tolerance => format!("throughput (PDR, {})", percent(tolerance)),
        };
        let parts = found.frames_per_second.zip(found.bits_per_second).zip(found.line_rate_percent);
        let value = match parts {
            Some(((rate, on_wire), part)) => {
                format!("{}, {}, {} of line rate", pps(rate), bits(on_wire), percent(part))
            }
            None => "none: every rate failed".to_owned(),
        };
        let more = if found.limit == Limit::Generator { ", the device may do more" } else { "" };
        line(format!(
            "  {name:<28} {value}; limited by {}{more}; {} trials",
            found.limit.name(),
            found.trials
        ));
    }
    if let Some(found) = &size.latency {
        let all = &found.all;
        let [min, p50, p99, p99_9, max] =
            [all.min_ns, all.p50_ns, all.p99_ns, all.p99_9_ns, all.max_ns].map(|value| nanos(value as f64));
        let tagged = found.tagged_mean_ns.map_or("none arrived".to_owned(), nanos);
        line(format!(
            "  {:<28} {tagged} (tagged frames' mean); min {min} p50 {p50} p99 {p99} p99.9 {p99_9} max {max}",
            format!("latency at {}", pps(found.frames_per_second)),
        ));
    }
    for point in &size.loss_curve {
        let (offered, lost) = (percent(point.offered_percent), percent(point.loss_percent));
        let what = match point.verdict {
            Verdict::NotOffered => {
                format!(
                    "not offered: the generator sent {} and {lost} of that was lost",
                    percent(point.sent_percent)
                )
            }
            _ => format!("{lost} lost"),
        };
        line(format!("  {:<28} {what}", format!("frame loss at {offered}")));
    }
    if let Some(found) = &size.back_to_back {
        let value = match (found.frames, found.frames_min, found.frames_max) {
            (Some(mean), Some(least), Some(most)) => {
                let buffer = found.buffer_frames.map(|frames| format!("; buffers {frames:.0} frames"));
                format!("{mean:.1} frames ({least} to {most}){}", buffer.unwrap_or_default())
            }
            _ => "not known".to_owned(),
        };
        let searches = found.searches;
        line(format!(
            "  {:<28} {value}; limited by {}; {searches} searches",
            "back-to-back",
            found.limit.name()
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::super::model::Model;
    use super::super::{Options, run};
    use super::*;

    #[test]
    fn everything_that_was_found_is_in_the_text() {
        let options = Options {
            frame_bytes: vec![64],
            latency_trials: 2,
            back_to_back_trials: 2,
            loss_step: 0.25,
            ..Options::new(10_000_000_000)
        };
        let mut model = Model { queue: 100, generator: 12e6, ..Model::carrying(7_440_476.0) };
        let text = text(&run(&mut model, &options, &mut |_| {}).0);
        for expected in [
            "64 bytes (line rate 14.9 Mpps)",
            "throughput (NDR, no loss)    7.4",
            "of line rate; limited by device under test;",
            "throughput (PDR, 0.50 %)     7.4",
            "100 us (tagged frames' mean); min 100 us p50 100 us",
            "frame loss at 100 %          38.0 % lost",
            "frame loss at 75.0 %         33.3 % lost",
            "frame loss at 50.0 %         0 % lost",
            "frame loss at 25.0 %         0 % lost",
            "back-to-back                 not known; limited by generator",
        ] {
            assert!(text.contains(expected), "{expected:?} is not in\n{text}");
        }
        let mut able = Model { queue: 100, ..Model::carrying(7_440_476.0) };
        let text = super::text(&run(&mut able, &options, &mut |_| {}).0);
        assert!(
            text.contains("back-to-back                 199.0 frames (199 to 199); buffers 99 frames"),
            "{text}"
        );
        let mut lost = Model { loss: 0.5, ..Model::carrying(1e9) };
        let text = super::text(&run(&mut lost, &options, &mut |_| {}).0);
        assert!(text.contains("none: every rate failed"), "{text}");
    }
}
