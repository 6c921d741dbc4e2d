//! Why something grows faster than linearly: measured, not known in advance.
//!
//! Both ends of the step run once more under perf, and functions whose time for each call grew are named with how much. Beside it stands what
//! a load from memory costs that waits for the one before it, anywhere in as much memory as there is of the axis's own (as many times what
//! one more takes) at either end: so much slower every look-up becomes by the size of its tables alone.

use std::path::Path;
use std::time::Duration;

use super::axis::{Axis, Cost, POINTS, Point};
use super::growth::{Of, Step};
use crate::bench::arms::figure;
use crate::bench::profile;
use crate::bench::vs_kernel::human;
use crate::fault::{Fault, Result};
use crate::proc::Cmd;
use crate::step::Cx;

/// Functions that are named, and what they must have grown by at least: ns for each call.
const NAMED: usize = 6;
const LEAST_NS: f64 = 2.0;
/// What a chase goes through: no cache has more than the most, and every one has the least.
const CHASE: std::ops::RangeInclusive<f64> = 4096.0..=2e9;

/// What a step was measured with.
pub struct Tools<'t> {
    pub cx: &'t Cx<'t>,
    pub micro: &'t Path,
    pub cpus: [usize; 2],
}

/// Lines below the words of a step: what explains it.
pub fn explain(
    tools: &Tools<'_>,
    step: &Step,
    median: impl Fn(Point) -> Option<Cost>,
) -> Result<Vec<String>> {
    let point = |n| POINTS.iter().copied().find(|point| point.axis == step.axis && point.n == n);
    let (Some(from), Some(to)) = (point(step.from), point(step.to)) else { return Ok(Vec::new()) };
    let (Some(before), Some(after)) = (median(from), median(to)) else { return Ok(Vec::new()) };
    if step.of == Of::Memory {
        let grown = (after.resident_bytes - before.resident_bytes) / (to.n - from.n) as f64;
        let each = before.resident_bytes / from.n as f64;
        return Ok(vec![format!(
            "{} bytes for each that came, {} for each that was there",
            human(grown),
            human(each)
        )]);
    }
    let [ns_before, ns_after] = [before, after].map(|cost| 1e9 / cost.per_second);
    let own = each_takes(step.axis, &median).map(|each| [step.from, step.to].map(|n| n as f64 * each));
    let mut lines = Vec::new();
    if let Some([near, far]) = own {
        lines.push(loads(tools, (near, ns_before), (far, ns_after))?);
    }
    let (less, more) = (sample(tools, from, ns_before)?, sample(tools, to, ns_after)?);
    let grown = grown(&less, &more);
    let named: Vec<String> =
        grown.iter().take(NAMED).map(|(name, ns)| format!("{name} {ns:+.0} ns")).collect();
    let words = if named.is_empty() { "no function alone".into() } else { named.join("; ") };
    lines.push(format!("CPU time for each, both ends (perf): {words}"));
    Ok(lines)
}

/// Bytes that one more of the axis takes, where there are most of them; none where it takes none.
fn each_takes(axis: Axis, median: impl Fn(Point) -> Option<Cost>) -> Option<f64> {
    let mut along = POINTS.iter().copied().filter(|point| point.axis == axis).rev();
    let (most, less) = (along.next()?, along.next()?);
    let grown = median(most)?.resident_bytes - median(less)?.resident_bytes;
    (axis != Axis::Cores && grown > 0.0).then(|| grown / (most.n - less.n) as f64)
}

/// Each is how much memory, and how long an echo or a call takes with it.
fn loads(
    tools: &Tools<'_>,
    (before, ns_before): (f64, f64),
    (after, ns_after): (f64, f64),
) -> Result<String> {
    let chase = |bytes: f64| {
        let bytes = format!("{:.0}", bytes.clamp(*CHASE.start(), *CHASE.end()));
        figure(tools.cx, &Cmd::new(tools.micro).args(["chase", &bytes, &tools.cpus[1].to_string()]), "ns")
    };
    let (near, far) = (chase(before)?, chase(after)?);
    Ok(in_loads([ns_before, ns_after], [before, after], [near, far]))
}

/// How many loads at random the growth is as much as.
fn in_loads([ns_before, ns_after]: [f64; 2], [before, after]: [f64; 2], [near, far]: [f64; 2]) -> String {
    let (more, slower) = (ns_after - ns_before, far - near);
    let mut words = format!(
        "{} ns each became {} ns, while they came to need {} MB of their own instead of {} MB; a load at random takes {} ns in so much, and took {}",
        human(ns_before),
        human(ns_after),
        human(after / 1e6),
        human(before / 1e6),
        human(far),
        human(near)
    );
    if more > 0.0 && slower > 1.0 {
        words += &format!(": the growth is as much as {:.1} such loads that became slower", more / slower);
    } else if more > 0.0 {
        words += ": it is not memory that became slower";
    }
    words
}

/// ns of CPU time for each call, by function, of both ends together.
fn sample(tools: &Tools<'_>, point: Point, ns: f64) -> Result<Vec<(f64, String)>> {
    let cx = tools.cx;
    let mut program = point.command(tools.micro, tools.cpus, 3.0).start(cx, "cost")?;
    cx.wait_for("the program is steady", Duration::from_secs(60), || {
        program.must_live()?;
        Ok(program.stderr().contains("steady").then_some(()))
    })?;
    let shares = profile::sample(cx, &Cmd::new("sleep").arg("1"), &tools.cpus)?;
    let status = program.wait(cx, Duration::from_secs(60))?;
    if !status.success() {
        return Err(Fault::Check(format!("{} under perf failed: {}", point.name, program.stderr())));
    }
    let cpus = tools.cpus.len() as f64;
    Ok(shares.into_iter().map(|(percent, name)| (percent / 100.0 * ns * cpus, name)).collect())
}

/// Functions by how much their time grew, most first.
fn grown(less: &[(f64, String)], more: &[(f64, String)]) -> Vec<(String, f64)> {
    let before = |name: &str| less.iter().filter(|(_, of)| of == name).map(|(ns, _)| ns).sum::<f64>();
    let mut grown: Vec<(String, f64)> = Vec::new();
    for (ns, name) in more {
        match grown.iter_mut().find(|(known, _)| known == name) {
            Some((_, sum)) => *sum += ns,
            None => grown.push((name.clone(), ns - before(name))),
        }
    }
    grown.retain(|(_, ns)| *ns >= LEAST_NS);
    grown.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    grown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_told_in_loads_that_became_slower() {
        let words = in_loads([500.0, 900.0], [30e6, 3e9], [20.0, 100.0]);
        assert!(words.ends_with("the growth is as much as 5.0 such loads that became slower"), "{words}");
        assert!(words.contains("3000 MB of their own instead of 30.0 MB"), "{words}");
        assert!(
            in_loads([500.0, 900.0], [3e9, 3e9], [100.0, 100.0]).ends_with("not memory that became slower")
        );
    }

    #[test]
    fn one_more_takes_what_the_most_take_more_than_the_next() {
        let bytes = |point: Point| Cost {
            per_second: 1.0,
            resident_bytes: 50e6 + 700.0 * point.n as f64,
            before_bytes: 0.0,
        };
        let each = each_takes(Axis::Sockets, |point| Some(bytes(point))).unwrap();
        assert!((each - 700.0).abs() < 1e-6, "{each}");
        assert_eq!(each_takes(Axis::Cores, |point| Some(bytes(point))), None);
        assert_eq!(each_takes(Axis::Payload, |_| None), None);
    }

    #[test]
    fn functions_that_grew_are_named_most_first() {
        let functions = |list: &[(f64, &str)]| {
            list.iter().map(|(ns, name)| (*ns, (*name).to_string())).collect::<Vec<_>>()
        };
        let less = functions(&[(100.0, "find"), (50.0, "send"), (30.0, "poll")]);
        let more = functions(&[(300.0, "find"), (51.0, "send"), (40.0, "new"), (5.0, "poll")]);
        assert_eq!(grown(&less, &more), [("find".to_string(), 200.0), ("new".to_string(), 40.0)]);
    }
}
