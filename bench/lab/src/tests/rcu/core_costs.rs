//! What calls and packets cost the protocol core, without an engine: instructions, which no other load on the machine changes.
//!
//! rxrpc's examples run in one thread under callgrind, each in two lengths; the difference is what a call or a packet takes on both sides
//! together, start-up apart. Who makes it take fewer lowers the limit.

use crate::cargo::cargo;
use crate::fault::{Result, ensure};
use crate::proc::Cmd;
use crate::step::Cx;

use super::callgrind;

/// An example, its argument behind the count, and how many of what it counts are how many calls or packets.
struct Cost {
    example: &'static str,
    argument: &'static str,
    /// Calls, or megabytes, of the short and the long run.
    runs: [u64; 2],
    /// Calls or packets in one of them.
    each: u64,
    /// The most instructions for each: an eighth above what it took when the limit was set.
    most: u64,
}

/// A megabyte is 707 packets of 1,416 bytes, or 711 of the 1,408 that a sealed one carries.
const COSTS: [Cost; 3] = [
    Cost { example: "calls_in_memory", argument: "64", runs: [2_000, 12_000], each: 1, most: 7_950 },
    Cost { example: "bulk_in_memory", argument: "none", runs: [2, 12], each: 707, most: 2_450 },
    Cost { example: "bulk_in_memory", argument: "encrypt", runs: [1, 3], each: 711, most: 102_000 },
];

/// Builds the examples and measures each.
pub fn check(cx: &Cx<'_>) -> Result<Vec<String>> {
    let examples = ["--example", "calls_in_memory", "--example", "bulk_in_memory"];
    cargo(cx).args(["build", "--release", "--locked", "--package", "rxrpc"]).args(examples).run_to_log(cx)?;
    let mut offences = Vec::new();
    for Cost { example, argument, runs: [short, long], each, most } in COSTS {
        let path = cx.host.target().join("release/examples").join(example);
        let total = |count: u64| {
            let command = Cmd::new(&path).args([count.to_string(), argument.to_string()]);
            callgrind::total(cx, &format!("{example}-{argument}-{count}"), &command)
        };
        let (before, after) = (total(short)?, total(long)?);
        ensure!(
            after > before,
            "{example} {argument}: {after} instructions for {long}, {before} for {short}"
        );
        let took = (after - before) / ((long - short) * each);
        cx.log.line(format!("{example} {argument}: {took} instructions for each, and {most} is the most"));
        if took > most {
            offences
                .push(format!("{example} {argument}: {took} instructions for each, and {most} is the most"));
        }
    }
    Ok(offences)
}
