//! The row table's tests, without their mutations: those are `cargo lab models --mutants`.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::cargo::{cargo, count_passed};
use crate::fault::{Fault, Result, ensure};
use crate::rows::{Line, Table};
use crate::step::Cx;

const BUILD_LIMIT: Duration = Duration::from_secs(900);
/// One row's test.
const LIMIT: Duration = Duration::from_secs(60);

/// Every row has a line, and every line's test passes. Models are left to `cargo lab models`, which takes its time.
pub fn rows(cx: &Cx<'_>) -> Result {
    let table = Table::read(&cx.host.root)?;
    let lines = table.lines(&[])?;
    let build = ["test", "--locked", "--no-run", "--quiet", "--package", "engine", "--package", "rxrpc"];
    cargo(cx).args(build).limit(BUILD_LIMIT).run_to_log(cx)?;
    let (mut ended, mut report) = (BTreeMap::new(), String::new());
    for line in &lines {
        let outcome = match ended.get(&line.test) {
            Some(outcome) => *outcome,
            None => {
                let outcome = run(cx, line)?;
                ended.insert(&line.test, outcome);
                outcome
            }
        };
        let text = format!("{:<4} {outcome:<7} {}", line.row, line.statement);
        cx.log.line(&text);
        report.push_str(&format!("\n    {text}"));
    }
    println!("{report}");
    let failed: Vec<&str> =
        lines.iter().filter(|line| ended[&line.test] == "FAILED").map(|line| line.test.as_str()).collect();
    ensure!(failed.is_empty(), "these tests of rows fail:\n  {}", failed.join("\n  "));
    Ok(())
}

fn run(cx: &Cx<'_>, line: &Line) -> Result<&'static str> {
    if line.is_model {
        return Ok("model");
    }
    let test = cargo(cx).args(["test", "--locked", "--quiet"]).args(line.test_args());
    let limit = if line.may_not_build { BUILD_LIMIT } else { LIMIT };
    match test.limit(limit).run(cx) {
        Ok(output) if output.status.success() => {
            ensure!(count_passed(&output.stdout) > 0, "row {}: `{}` matches no test", line.row, line.test);
            Ok("passes")
        }
        Ok(_) | Err(Fault::TimedOut { .. }) => Ok("FAILED"),
        Err(fault) => Err(fault),
    }
}
