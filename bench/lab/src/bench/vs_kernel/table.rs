//! All figures as text: a line for each arm, a column for each measure.

use super::measure::{Measure, human};
use super::results::Results;

/// Short heads of the columns, in the order of [`Measure::ALL`].
const HEADS: [&str; 11] = [
    "echoes/s",
    "calls/s",
    "trip us",
    "call us",
    "bulk MB/s",
    "Rx MB/s",
    "echo knee",
    "call knee",
    "CPU s/M",
    "CPU s/M calls",
    "start ms",
];

/// The table, medians over the rounds; `-` where there is nothing.
pub fn table(results: &Results) -> String {
    let mut rows = vec![[vec!["arm".to_string()], HEADS.map(String::from).to_vec()].concat()];
    for arm in &results.arms {
        let cell = |measure: Measure| arm.median(measure).map_or("-".into(), human);
        let cells = Measure::ALL.into_iter().map(cell);
        rows.push([arm.spec.name.to_string()].into_iter().chain(cells).collect());
    }
    align(&rows)
}

/// Columns as wide as their widest cell: the first to the left, the others to the right.
pub fn align(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).enumerate();
        let cells = cells.map(|(at, (cell, width))| match at {
            0 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_string() + "\n"
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::super::results::tests::results;
    use super::*;

    #[test]
    fn each_arm_has_a_line_and_what_is_missing_a_dash() {
        let text = table(&results(Measure::Echo, &[2e6, 4e6, 3e6], &[5e5; 3], &[1e5; 3]));
        let lines: Vec<Vec<&str>> = text
            .lines()
            .map(|line| line.split("  ").map(str::trim).filter(|c| !c.is_empty()).collect())
            .collect();
        assert_eq!(lines[0][..3], ["arm", "echoes/s", "calls/s"]);
        assert_eq!(lines[3][..3], ["memory:", "3.00 M", "-"]);
        assert_eq!(lines.iter().map(Vec::len).collect::<Vec<_>>(), [1 + Measure::ALL.len(); 4]);
    }
}
