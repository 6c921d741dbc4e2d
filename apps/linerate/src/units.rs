//! Figures as people read them, with their units.

use std::time::Duration;

/// A rate of frames: 987 pps, 12.3 kpps, 4.56 Mpps.
pub fn pps(rate: f64) -> String {
    scaled(rate, "pps")
}

/// A rate of bits: 12.3 kbit/s, 9.87 Gbit/s.
pub fn bits(rate: f64) -> String {
    scaled(rate, "bit/s")
}

fn scaled(value: f64, unit: &str) -> String {
    let (value, prefix) = match value {
        v if v >= 0.9995e9 => (v / 1e9, "G"),
        v if v >= 0.9995e6 => (v / 1e6, "M"),
        v if v >= 0.9995e3 => (v / 1e3, "k"),
        v => (v, ""),
    };
    let digits = match value {
        _ if prefix.is_empty() => 0,
        v if v < 9.995 => 2,
        v if v < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.digits$} {prefix}{unit}")
}

/// Nanoseconds: 870 ns, 12.3 us, 4.56 ms, 7.89 s.
pub fn nanos(value: f64) -> String {
    let (value, unit) = match value {
        v if v >= 1e9 => (v / 1e9, "s"),
        v if v >= 1e6 => (v / 1e6, "ms"),
        v if v >= 1e4 => (v / 1e3, "us"),
        v => (v, "ns"),
    };
    let digits = match value {
        _ if unit == "ns" => 0,
        v if v < 9.995 => 2,
        v if v < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.digits$} {unit}")
}

/// A length of time: 120 us, 200 ms, 2.5 s, 38 s, 12 min 5 s, 3 h 20 min.
pub fn seconds(duration: Duration) -> String {
    let all = duration.as_secs_f64();
    let whole = all.round() as u64;
    match whole {
        _ if all < 0.9995 => nanos(duration.as_nanos() as f64),
        _ if all < 9.95 => format!("{all:.1} s"),
        0..=119 => format!("{whole} s"),
        120..=7199 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
    }
}

/// A part in per cent, with digits enough to tell it from none and from all: 0, 0.0012, 3.4, 99.997, 100.
pub fn percent(value: f64) -> String {
    let distance = value.min((100.0 - value).abs()).abs();
    match distance {
        0.0 => format!("{value:.0} %"),
        // As good as all of it, whatever a division left.
        d if d < 5e-7 && value > 50.0 => format!("{value:.0} %"),
        d if d >= 1.0 => format!("{value:.1} %"),
        d if d >= 0.1 => format!("{value:.2} %"),
        d if d >= 0.001 => format!("{value:.4} %"),
        _ => format!("{value:.6} %"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_have_three_digits() {
        let text = |rate| pps(rate);
        assert_eq!(text(0.0), "0 pps");
        assert_eq!(text(987.0), "987 pps");
        assert_eq!(text(999.9), "1.00 kpps");
        assert_eq!(text(14_880_952.0), "14.9 Mpps");
        assert_eq!(bits(9.876e9), "9.88 Gbit/s");
    }

    #[test]
    fn times_from_nanoseconds_to_hours() {
        assert_eq!(nanos(870.0), "870 ns");
        assert_eq!(nanos(12_345.0), "12.3 us");
        assert_eq!(nanos(99_999.0), "100 us");
        assert_eq!(nanos(4_560_000.0), "4.56 ms");
        let text = |s: f64| seconds(Duration::from_secs_f64(s));
        assert_eq!(
            [0.00012, 0.2, 2.5, 38.2, 725.0, 12_000.0].map(text),
            ["120 us", "200 ms", "2.5 s", "38 s", "12 min 5 s", "3 h 20 min"]
        );
    }

    #[test]
    fn a_loss_that_is_not_none_does_not_look_like_none() {
        assert_eq!(
            [0.0, 100.0, 0.0012, 3.44, 99.997, 99.999_999_9].map(percent),
            ["0 %", "100 %", "0.0012 %", "3.4 %", "99.9970 %", "100 %"]
        );
    }
}
