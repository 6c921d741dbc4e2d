//! Where a core's time goes, by perf's samples: there is no other clock in a virtual machine.

use crate::fault::{Fault, Result};
use crate::proc::Cmd;
use crate::step::Cx;

/// Functions with less of the time are left out.
const LEAST_PERCENT: f64 = 2.0;
/// The parts of the program by the names that their functions begin with. Inlined code counts where it is inlined.
const PARTS: [(&str, &str); 4] = [
    ("rxrpc", "rxrpc: the protocol"),
    ("engine", "engine: loop, stack, sockets"),
    ("pmd", "pmd: buffers, driver"),
    ("micro", "micro: the service itself"),
];

/// Runs the program once more and prints what its CPU did. `rate`: how often a second it does what it is there for.
pub fn print(cx: &Cx<'_>, program: &Cmd, cpu: usize, rate: f64) -> Result {
    let functions = sample(cx, program, &[cpu])?;
    println!(
        "  where CPU {cpu} spends the {:.0} ns of each call (samples of perf; inlined code counts where it is inlined):",
        1e9 / rate
    );
    for (name, percent) in parts(&functions) {
        println!("    {percent:5.1} %  {name}");
    }
    for (percent, name) in functions.iter().filter(|(percent, _)| *percent >= LEAST_PERCENT) {
        println!("      {percent:5.1} %  {name}");
    }
    Ok(())
}

/// What these CPUs do while the command runs: each function's share of the samples in per cent.
pub fn sample(cx: &Cx<'_>, command: &Cmd, cpus: &[usize]) -> Result<Vec<(f64, String)>> {
    let data = cx.dir.join("perf.data");
    let cpus: Vec<String> = cpus.iter().map(usize::to_string).collect();
    // Of all CPUs: the program may be mapped on another one than it is measured on, and without its mappings it has no names.
    let words = ["record", "-q", "-a", "-e", "cpu-clock", "-F", "1999", "-o"];
    Cmd::new("perf").args(words).arg(&data).arg("--").args(command.words()).ok(cx)?;
    let report = Cmd::new("perf").args(["report", "-q", "--stdio", "--no-children", "--sort", "sym", "-C"]);
    let report = report.arg(cpus.join(",")).arg("-i");
    functions(&report.arg(&data).ok(cx)?.stdout)
}

/// The report's lines: `    12.34%  [.] name`.
fn functions(report: &str) -> Result<Vec<(f64, String)>> {
    let line = |line: &str| {
        let (percent, rest) = line.trim().split_once('%')?;
        let name = rest.trim().split_once("] ")?.1.trim();
        Some((percent.parse().ok()?, without_hash(name).to_owned()))
    };
    let functions: Vec<_> = report.lines().filter_map(line).collect();
    if functions.is_empty() {
        return Err(Fault::Check(format!("perf reports no function: {report:?}")));
    }
    Ok(functions)
}

/// Names of the older mangling end with `::h` and 16 digits.
fn without_hash(name: &str) -> &str {
    match name.rsplit_once("::h") {
        Some((name, hash)) if hash.len() == 16 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()) => name,
        _ => name,
    }
}

/// What each part has of the time, and what is of none of them.
fn parts(functions: &[(f64, String)]) -> Vec<(&'static str, f64)> {
    let part = |name: &str| {
        let found =
            PARTS.iter().filter_map(|(prefix, words)| Some((name.find(&format!("{prefix}::"))?, *words)));
        found.min().map_or("others: memcpy, the kernel, whatever is in C", |(_, words)| words)
    };
    let mut parts: Vec<(&'static str, f64)> = Vec::new();
    for (percent, name) in functions {
        let name = part(name);
        match parts.iter_mut().find(|(known, _)| *known == name) {
            Some((_, sum)) => *sum += percent,
            None => parts.push((name, *percent)),
        }
    }
    parts.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = "
    40.00%  [.] <rxrpc::handler::RxHandler<micro::rx::serve::Echo> as engine::Handler>::input::h0123456789abcdef
    30.50%  [.] engine::core::Core<H>::turn
    20.00%  [.] <hashbrown::raw::RawTable<rxrpc::conn::ConnKey>>::find
     9.50%  [k] clear_page_rep
";

    #[test]
    fn functions_are_read_and_their_hashes_left_out() {
        let functions = functions(REPORT).unwrap();
        assert_eq!(functions.len(), 4);
        assert_eq!(
            functions[0].1,
            "<rxrpc::handler::RxHandler<micro::rx::serve::Echo> as engine::Handler>::input"
        );
        assert_eq!(functions[1], (30.5, "engine::core::Core<H>::turn".into()));
    }

    #[test]
    fn a_function_belongs_to_the_part_that_its_name_has_first() {
        let parts = parts(&functions(REPORT).unwrap());
        assert_eq!(parts[0], ("rxrpc: the protocol", 60.0));
        assert_eq!(parts[1], ("engine: loop, stack, sockets", 30.5));
        assert!(parts[2].0.starts_with("others"));
    }

    #[test]
    fn a_report_without_functions_is_a_failure() {
        assert!(functions("nothing\n").is_err());
    }
}
