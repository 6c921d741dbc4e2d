//! What the hot functions execute, each by itself: demux, look-up, the buffer cycle, a quiescent state, Rx input of DATA and of an ACK.
//!
//! bench/micro has a function around each that is not inlined (`src/guard.rs`); callgrind counts in it alone. A release build in one thread, so that
//! the counts are the same on any machine, however busy. Who makes one take fewer lowers its limit.

use std::path::Path;

use crate::bench::arms::{micro, number};
use crate::fault::{Fault, Result, ensure};
use crate::proc::Cmd;
use crate::step::Cx;

use super::callgrind::{self, Symbol};

/// Counted is this and what comes after it.
const STEADY: &str = "micro::guard::steady_from_here";
/// How often each is done.
const COUNT: u64 = 4096;

/// What is done, the function around it, and the most instructions for each: some 4 % above what it took when the limit was set
/// (305, 236, 107.6, 5, 698, 5,290: an ACK of a bulk transfer frees what it acknowledges).
struct Hot {
    what: &'static str,
    function: &'static str,
    most: f64,
}

const HOT: [Hot; 6] = [
    Hot { what: "demux", function: "demux_burst", most: 317.0 },
    Hot { what: "lookup", function: "lookup_burst", most: 245.0 },
    Hot { what: "buffer-cycle", function: "cycle_burst", most: 112.0 },
    Hot { what: "quiescent", function: "quiescent", most: 5.0 },
    Hot { what: "input-data", function: "input", most: 726.0 },
    Hot { what: "input-ack", function: "input", most: 5_500.0 },
];

/// Counts each; what takes more than it may.
pub fn check(cx: &Cx<'_>) -> Result<Vec<String>> {
    let program = micro(cx)?;
    let symbols = callgrind::symbols(cx, &program)?;
    let mut offences = Vec::new();
    for hot in HOT {
        let each = count(cx, &program, &symbols, &hot)?;
        let Hot { what, most, .. } = hot;
        let words = format!("{what}: {each:.1} instructions for each, and {most} is the most");
        cx.log.line(&words);
        if each > most {
            offences.push(words);
        }
    }
    Ok(offences)
}

fn count(cx: &Cx<'_>, program: &Path, symbols: &[Symbol], hot: &Hot) -> Result<f64> {
    let command = Cmd::new(program).args(["guard", hot.what, &COUNT.to_string()]);
    let steady = mangled(symbols, STEADY)?;
    let functions = [mangled(symbols, &format!("micro::guard::{}", hot.function))?];
    let (instructions, told) = callgrind::count(cx, hot.what, &command, &steady, &functions, None)?;
    let done = number(&told, "done")?;
    ensure!(done >= COUNT as f64, "{}: done {done} of {COUNT} times", hot.what);
    ensure!(instructions as f64 >= done, "{}: {instructions} instructions for {done} are not all", hot.what);
    Ok(instructions as f64 / done)
}

/// The one function of that name.
fn mangled(symbols: &[Symbol], readable: &str) -> Result<String> {
    let mut found = symbols.iter().filter(|symbol| symbol.readable == readable);
    match (found.next(), found.next()) {
        (Some(symbol), None) => Ok(symbol.mangled.clone()),
        (None, _) => Err(Fault::Check(format!("{readable} is no function of its own any more"))),
        (Some(_), Some(_)) => Err(Fault::Check(format!("there are several functions {readable}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_has_to_be_there_once() {
        let symbol = |readable: &str| Symbol {
            address: 1,
            mangled: format!("_{readable}"),
            readable: readable.into(),
        };
        let symbols = [symbol("a"), symbol("b"), symbol("b")];
        assert_eq!(mangled(&symbols, "a").unwrap(), "_a");
        assert!(mangled(&symbols, "b").is_err() && mangled(&symbols, "c").is_err());
    }
}
