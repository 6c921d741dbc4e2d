//! What is measured of an arm, and what its figures are: units, what exactly was counted, and which way is better.

use std::collections::BTreeMap;

use serde::Serialize;

use super::curve::Point;

/// One kind of figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// UDP echoes a second at saturation.
    Echo,
    /// Their CPU time.
    EchoCpu,
    /// Rx calls a second at saturation.
    Calls,
    /// Their CPU time.
    CallsCpu,
    /// One datagram there and back.
    RoundTrip,
    /// One Rx call after another.
    CallTime,
    /// Datagrams one way.
    Bulk,
    /// Replies of a megabyte.
    RxBulk,
    /// The echo rate at the knee.
    EchoKnee,
    /// The call rate at the knee.
    CallsKnee,
    /// From exec until it can answer.
    ColdStart,
}

/// Which way is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    More,
    Less,
}

/// What is the same for all figures of a kind.
pub struct Kind {
    /// As tables and sentences call it.
    pub title: &'static str,
    pub unit: &'static str,
    pub better: Better,
    /// What exactly was counted, and where.
    pub boundary: &'static str,
}

impl Measure {
    /// All of them, in the order of the report.
    pub const ALL: [Measure; 11] = [
        Measure::Echo,
        Measure::Calls,
        Measure::RoundTrip,
        Measure::CallTime,
        Measure::Bulk,
        Measure::RxBulk,
        Measure::EchoKnee,
        Measure::CallsKnee,
        Measure::EchoCpu,
        Measure::CallsCpu,
        Measure::ColdStart,
    ];

    /// What its figures are.
    pub fn kind(self) -> Kind {
        use Better::{Less, More};
        let (title, unit, better, boundary) = match self {
            Measure::Echo => (
                "UDP echo at saturation",
                "echoes/s",
                More,
                "datagrams of 64 bytes that came back to the load with every byte right, a second; closed loop, 256 in flight, measured for 0.6 \
                 seconds after a warm-up that does not count",
            ),
            Measure::EchoCpu => (
                "CPU for UDP echo",
                "CPU s/M echoes",
                Less,
                "CPU seconds of the whole machine, interrupts and both ends included, while the saturation rate was measured, for each \
                 million echoes; what polls takes whole CPUs",
            ),
            Measure::Calls => (
                "Rx calls at saturation",
                "calls/s",
                More,
                "calls of 64 bytes there and 64 back that ended with every byte of the reply right, a second; closed loop, 128 in flight; the same protocol \
                 core on every arm, no security",
            ),
            Measure::CallsCpu => {
                ("CPU for Rx calls", "CPU s/M calls", Less, "as for UDP echo, for each million calls")
            }
            Measure::RoundTrip => (
                "UDP round trip",
                "us",
                Less,
                "one datagram of 64 bytes at a time, there and back, both ends the same way, polling where the arm does; the median of all \
                 round trips",
            ),
            Measure::CallTime => (
                "Rx call, one at a time",
                "us",
                Less,
                "one call of 64 bytes there and 64 back at a time; the median of all calls",
            ),
            Measure::Bulk => (
                "UDP bulk",
                "MB/s",
                More,
                "echoes of 1,400 bytes that came back with every byte right, MB of payload a second one way, both ends the same way; GSO and GRO \
                 pass many of them at once",
            ),
            Measure::RxBulk => (
                "Rx bulk",
                "MB/s",
                More,
                "replies of 1 MB, two calls at once, every byte verified by the client; both ends the same way",
            ),
            Measure::EchoKnee => (
                "UDP echo at the knee",
                "echoes/s",
                More,
                "the highest offered rate of the latency-load curve up to which at least 98 % was answered and the median stayed \
                 within ten times that at the lowest load; none where not even the lowest load was carried so; open loop, Poisson \
                 arrivals, latency from the intended time of sending",
            ),
            Measure::CallsKnee => ("Rx calls at the knee", "calls/s", More, "as for UDP echo, with calls"),
            Measure::ColdStart => (
                "cold start",
                "ms",
                Less,
                "from the exec of the server's process until it can answer, by its own clock",
            ),
        };
        Kind { title, unit, better, boundary }
    }
}

/// What is asked for along a latency-load curve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// UDP echo.
    Echo,
    /// Rx calls.
    Calls,
}

impl Work {
    /// Both.
    pub const ALL: [Work; 2] = [Work::Echo, Work::Calls];

    /// In words.
    pub fn title(self) -> &'static str {
        match self {
            Work::Echo => "UDP echo",
            Work::Calls => "Rx calls",
        }
    }

    /// The rate at saturation, CPU for it, and the knee.
    pub fn measures(self) -> [Measure; 3] {
        match self {
            Work::Echo => [Measure::Echo, Measure::EchoCpu, Measure::EchoKnee],
            Work::Calls => [Measure::Calls, Measure::CallsCpu, Measure::CallsKnee],
        }
    }
}

/// What one arm came to in one round.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Turn {
    /// Figures.
    pub figures: BTreeMap<Measure, f64>,
    /// Points of the curves, by rising load.
    pub curves: BTreeMap<Work, Vec<Point>>,
    /// What could not be measured, and why.
    pub faults: Vec<String>,
}

/// A figure as people like to read it: three digits that mean something, with k, M or G.
pub fn human(figure: f64) -> String {
    let scaled = [(1e9, "G"), (1e6, "M"), (1e4, "k")].into_iter().find(|(size, _)| figure.abs() >= *size);
    let (figure, suffix) = match scaled {
        Some((1e4, suffix)) => (figure / 1e3, suffix),
        Some((size, suffix)) => (figure / size, suffix),
        None => (figure, ""),
    };
    let digits = match figure.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        _ => 2,
    };
    let space = if suffix.is_empty() { "" } else { " " };
    format!("{figure:.digits$}{space}{suffix}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_three_digits_that_mean_something() {
        let told = [0.0, 0.514, 4.249, 38.14, 512.3, 9_876.0, 38_140.0, 2_512_000.0, 1.4e10].map(human);
        assert_eq!(told, ["0.00", "0.51", "4.25", "38.1", "512", "9876", "38.1 k", "2.51 M", "14.0 G"]);
    }

    #[test]
    fn every_measure_is_listed_once() {
        let mut listed = Measure::ALL.to_vec();
        listed.sort();
        listed.dedup();
        assert_eq!(listed.len(), Measure::ALL.len());
        let titles: std::collections::BTreeSet<_> =
            listed.iter().map(|measure| measure.kind().title).collect();
        assert_eq!(titles.len(), listed.len());
    }
}
