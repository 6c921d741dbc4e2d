//! Rates as one line of text, for a pipe.

use super::rates::{PortRates, Rates};
use crate::units::{bits, nanos, percent, pps};

/// One line for an interval.
pub fn line(rates: &Rates) -> String {
    let mut parts = vec![format!("{:.1} s", rates.elapsed_seconds)];
    parts.extend(rates.ports.iter().map(port));
    if let Some(marked) = rates.marked.filter(|marked| marked.missing_frames > 0) {
        parts.push(format!("missing {} ({})", marked.missing_frames, percent(marked.missing_percent)));
    }
    if let Some(latency) = &rates.latency {
        let [p50, p99, max] =
            [latency.p50_ns, latency.p99_ns, latency.max_ns].map(|value| nanos(value as f64));
        parts.push(format!("latency p50 {p50} p99 {p99} max {max}"));
    }
    parts.push(format!("bottleneck {}", rates.bottleneck.who.name()));
    parts.join(" | ")
}

fn port(port: &PortRates) -> String {
    let total = &port.total;
    let way = |frames: f64, on_wire: f64, part: Option<f64>| match part {
        _ if frames == 0.0 => "-".to_owned(),
        Some(part) => format!("{} {} {}", pps(frames), bits(on_wire), percent(part)),
        None => format!("{} {}", pps(frames), bits(on_wire)),
    };
    let rx = way(total.rx_frames_per_second, total.rx_bits_per_second, total.rx_line_rate_percent);
    let tx = way(total.tx_frames_per_second, total.tx_bits_per_second, total.tx_line_rate_percent);
    let dropped: u64 = port.drops.values().sum();
    let dropped = if dropped > 0 { format!(" dropped {dropped}") } else { String::new() };
    format!("{} rx {rx} tx {tx}{dropped}", port.url)
}

#[cfg(test)]
mod tests {
    use super::super::rates::tests::snapshot;
    use super::*;

    #[test]
    fn a_line_has_it_all() {
        let line = line(&Rates::between(&snapshot(2), &snapshot(3)));
        assert_eq!(
            line,
            "3.0 s | memory:a rx 2.00 Mpps 1.34 Gbit/s 13.4 % tx 2.00 Mpps 1.34 Gbit/s 13.4 % dropped 3 \
             | memory:<b> rx 2.00 Mpps 1.34 Gbit/s tx 2.00 Mpps 1.34 Gbit/s dropped 3 \
             | missing 21 (0.000700 %) | latency p50 1000 ns p99 1000 ns max 50.0 us | bottleneck nobody"
        );
    }
}
