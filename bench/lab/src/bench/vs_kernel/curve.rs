//! Latency against load: the points of a curve, the median of several curves, and the knee.

use serde::Serialize;

use crate::bench::stats::Spread;

/// At the knee and below it at least so much of what was offered is answered.
const ANSWERED_LEAST: f64 = 0.98;
/// And the median is at most so many times that at the lowest load. Not the 99th percentile: where a machine is taken away for milliseconds now and
/// then, that is high at any load, and says nothing of the server.
const GROWTH_MOST: f64 = 10.0;

/// What was offered, and how long answers took. Latencies are from the intended time of sending, us.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Point {
    /// Of the arm's own rate at saturation in the same round.
    pub load: f64,
    /// A second.
    pub offered: f64,
    /// A second.
    pub answered: f64,
    /// Median.
    pub p50_us: f64,
    /// 99th percentile.
    pub p99_us: f64,
    /// 99.9th percentile.
    pub p999_us: f64,
}

/// The highest offered rate up to which the arm keeps up and latency stays low (see the constants). None: not even the lowest load.
pub fn knee(points: &[Point]) -> Option<f64> {
    let most = points.first()?.p50_us * GROWTH_MOST;
    let holds = |point: &&Point| point.answered >= point.offered * ANSWERED_LEAST && point.p50_us <= most;
    Some(points.iter().take_while(holds).last()?.offered)
}

/// The curve whose every figure is the median over the curves at the same place. Curves of other lengths than the first are left out.
pub fn median(curves: &[&[Point]]) -> Vec<Point> {
    let length = curves.first().map_or(0, |curve| curve.len());
    let alike: Vec<&[Point]> = curves.iter().copied().filter(|curve| curve.len() == length).collect();
    let at = |place: usize| {
        let of = |figure: fn(&Point) -> f64| {
            let figures: Vec<f64> = alike.iter().map(|curve| figure(&curve[place])).collect();
            Spread::of(&figures).map_or(f64::NAN, |spread| spread.median)
        };
        Point {
            load: of(|point| point.load),
            offered: of(|point| point.offered),
            answered: of(|point| point.answered),
            p50_us: of(|point| point.p50_us),
            p99_us: of(|point| point.p99_us),
            p999_us: of(|point| point.p999_us),
        }
    };
    (0..length).map(at).collect()
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn point(offered: f64, answered: f64, p50_us: f64, p99_us: f64) -> Point {
        Point { load: offered / 100.0, offered, answered, p50_us, p99_us, p999_us: 2.0 * p99_us }
    }

    #[test]
    fn the_knee_is_before_latency_takes_off() {
        let points = [
            point(10.0, 10.0, 5.0, 9000.0),
            point(50.0, 50.0, 6.0, 20.0),
            point(80.0, 79.9, 50.0, 90.0),
            point(90.0, 89.9, 51.0, 60.0),
            // What comes later does not bring it back.
            point(95.0, 94.9, 6.0, 20.0),
        ];
        assert_eq!(knee(&points), Some(80.0));
    }

    #[test]
    fn the_knee_is_before_answers_are_missing() {
        let points = [point(10.0, 10.0, 5.0, 8.0), point(50.0, 49.0, 5.0, 8.0), point(80.0, 78.3, 5.0, 8.0)];
        assert_eq!(knee(&points), Some(50.0));
    }

    #[test]
    fn where_even_the_lowest_load_is_too_much_there_is_no_knee() {
        assert_eq!(knee(&[point(10.0, 5.0, 5.0, 8.0)]), None);
        assert_eq!(knee(&[]), None);
    }

    #[test]
    fn the_median_of_curves_is_taken_place_by_place() {
        let curve = |p50| [point(10.0, 10.0, p50, 9.0), point(20.0, 20.0, 2.0 * p50, 9.0)];
        let (one, two, three) = (curve(1.0), curve(30.0), curve(2.0));
        let median = median(&[&one, &two, &three, &one[..1]]);
        assert_eq!(median.iter().map(|point| point.p50_us).collect::<Vec<_>>(), [2.0, 4.0]);
        assert_eq!(median[1].offered, 20.0);
        assert!(super::median(&[]).is_empty());
    }
}
