//! Receiving takes no lock and runs no locked instruction: read off the instructions that are executed.
//!
//! A release build receives over `memory:` under callgrind, which collects in `Core::receive` (from the driver's `rx_burst` to the
//! wake-ups) and in `Core::expire` (what Rx makes of the datagrams, up to its own wake-ups), with all that they call. What is found
//! there may not be `lock`-prefixed, an `xchg` with memory or a barrier, except for one barrier a turn, in which a core takes one
//! burst from its port. `SocketWq::wake_sleepers` is counted apart: it runs only when a thread really sleeps, ends in a
//! system call, and may say so with one locked instruction.
//!
//! Counting begins whenever the program says that it is warm, also in the middle of a core's turn, of which the rest is counted: so
//! both numbers may be one too high ([`CUT`]).
//!
//! The same counts guard against growth: each run may take so many instructions for a datagram or a call and no more. On a busy machine fewer
//! datagrams come in a turn; so a busy turn, with the idle ones around it, has instructions of its own. What the protocol core alone takes is
//! counted without an engine (core_costs.rs), and each hot function by itself (hot_functions.rs).

use std::path::PathBuf;

use crate::cargo::cargo;
use crate::fault::{Fault, Result, ensure};
use crate::proc::Cmd;
use crate::step::Cx;

use super::callgrind::{self, Instruction, Symbol};
use super::{core_costs, hot_functions};

/// Datagrams, or calls, of each run: one thread at a time runs under valgrind, some 4,000 calls a second.
const COUNT: u64 = 20_000;
/// Fewer instructions than this for each datagram or call mean that most were not collected.
const FEWEST: u64 = 200;
/// Where collecting begins and ends.
const REGIONS: [&str; 2] = ["receive", "expire"];
/// The program enters it once it is warm: what its first calls allocate and grow is not steady receiving.
const STEADY: &str = "receive_in_memory::steady_from_here";
/// Wakes threads that sleep.
const WAKE: &str = "engine::wq::SocketWq::wake_sleepers";

/// Barriers and locked instructions of the turn in which counting began, whose beginning was not counted.
const CUT: u64 = 1;

/// What is received, whether its readers sleep, and the most instructions for each datagram or call and for each busy turn: an eighth or more above
/// what it took when the guard was set (1,130 a datagram with 24 in a turn, 1,466 with 10; a call with threads 11,300 to 16,400, as turns in which
/// they have nothing yet count too). Who makes it take fewer lowers it.
const RUNS: [(&str, bool, u64, u64); 4] = [
    ("polled", false, 1_000, 6_500),
    ("blocking", true, 1_000, 6_500),
    ("inline", true, 15_000, 0),
    ("threads", true, 20_000, 0),
];
/// Planted in the program's own code on the core: the check must find each.
const PLANTED: [&str; 3] = ["locked", "exchanging", "fencing"];

/// See the module.
pub fn instructions(cx: &Cx<'_>) -> Result {
    let program = Program::build(cx)?;
    for what in PLANTED {
        let found = program.run(cx, what, COUNT / 20)?.offences(cx)?;
        ensure!(
            !found.is_empty(),
            "`{what}` was planted in the receive path, and this check does not find it"
        );
        cx.log.line(format!("planted `{what}` is found: {}", found.join("; ")));
    }
    let mut offences = Vec::new();
    for (what, sleeps, each, turn) in RUNS {
        let run = program.run(cx, what, COUNT)?;
        let of_this = run.offences(cx)?;
        cx.log.line(format!("{what}: {}", run.summary()));
        of_this.iter().for_each(|offence| cx.log.line(format!("{what}: {offence}")));
        offences.extend(of_this.into_iter().map(|offence| format!("{what}: {offence}")));
        let most = each + turn * run.busy_turns / run.received;
        if run.each() > most {
            offences.push(format!("{what}: {} instructions for each, and {most} is the most", run.each()));
        }
        ensure!((run.wakes > 0) == sleeps, "{what}: {} wake-ups", run.wakes);
    }
    offences.extend(core_costs::check(cx)?);
    offences.extend(hot_functions::check(cx)?);
    ensure!(offences.is_empty(), "on the receive path:\n  {}", offences.join("\n  "));
    Ok(())
}

/// The program under test, and its functions of interest, mangled.
struct Program {
    path: PathBuf,
    steady: Symbol,
    regions: Vec<String>,
    wake: Symbol,
}

impl Program {
    fn build(cx: &Cx<'_>) -> Result<Program> {
        let build =
            ["build", "--release", "--locked", "--package", "rxrpc", "--example", "receive_in_memory"];
        cargo(cx).args(build).run_to_log(cx)?;
        let path = cx.host.target().join("release/examples/receive_in_memory");
        let mut symbols = callgrind::symbols(cx, &path)?;
        let regions: Vec<String> = symbols
            .iter()
            .filter(|symbol| REGIONS.iter().any(|name| is_of_core(&symbol.readable, name)))
            .map(|symbol| symbol.mangled.clone())
            .collect();
        // One of each for the UDP handler and one for Rx's.
        ensure!(
            regions.len() == 2 * REGIONS.len(),
            "these are not Core::receive and Core::expire, twice each: {regions:?}"
        );
        let mut take = |name: &str| {
            let at = symbols.iter().position(|symbol| symbol.readable == name);
            let at = at.ok_or_else(|| Fault::Check(format!("{name} is no function of its own any more")))?;
            Ok(symbols.swap_remove(at))
        };
        Ok(Program { steady: take(STEADY)?, wake: take(WAKE)?, path, regions })
    }

    fn run(&self, cx: &Cx<'_>, what: &str, count: u64) -> Result<Run> {
        let command = Cmd::new(&self.path).arg(what).arg(count.to_string());
        let (executed, told) = callgrind::run(cx, what, &command, &self.steady.mangled, &self.regions)?;
        let figure = |name: &str| -> Result<u64> {
            let value = told.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
            value
                .and_then(|value| value.parse().ok())
                .ok_or_else(|| Fault::Check(format!("no {name} in {told:?}")))
        };
        let received = figure("datagrams")? + figure("calls")?;
        ensure!(received >= count, "{what}: {received} of {count} were received");
        let run = Run::of(executed, &self.wake, figure("busy_turns")?, received);
        ensure!(
            run.total >= received * FEWEST,
            "{what}: {} instructions for {received} are not all",
            run.total
        );
        Ok(run)
    }
}

/// `engine::core::Core<H>::receive`, in either mangling.
fn is_of_core(readable: &str, name: &str) -> bool {
    readable.contains("engine::core::Core<") && readable.ends_with(&format!(">::{name}"))
}

/// What one run executed on the receive path.
struct Run {
    /// Instructions, each as often as it was executed.
    total: u64,
    /// Datagrams and calls.
    received: u64,
    busy_turns: u64,
    /// Calls of the function that wakes, and its locked instructions.
    wakes: u64,
    locked_in_wakes: u64,
    barriers: Vec<Instruction>,
    locked: Vec<Instruction>,
}

impl Run {
    fn of(executed: Vec<Instruction>, wake: &Symbol, busy_turns: u64, received: u64) -> Run {
        let mut run = Run {
            total: 0,
            received,
            busy_turns,
            wakes: 0,
            locked_in_wakes: 0,
            barriers: Vec::new(),
            locked: Vec::new(),
        };
        for instruction in executed {
            let in_wake = instruction.function == wake.mangled;
            if in_wake && instruction.address == wake.address {
                run.wakes = instruction.times;
            }
            run.total += instruction.times;
            match Kind::of(&instruction.text) {
                Kind::Plain => {}
                Kind::Locked if in_wake => run.locked_in_wakes += instruction.times,
                Kind::Locked => run.locked.push(instruction),
                Kind::Barrier => run.barriers.push(instruction),
            }
        }
        run
    }

    fn barriers(&self) -> u64 {
        self.barriers.iter().map(|barrier| barrier.times).sum()
    }

    /// Instructions for each datagram or call.
    fn each(&self) -> u64 {
        self.total / self.received.max(1)
    }

    fn summary(&self) -> String {
        let Run { total, busy_turns, wakes, locked_in_wakes, .. } = self;
        let (barriers, each) = (self.barriers(), self.each());
        format!(
            "{total} instructions, {each} for each, {barriers} barriers in {busy_turns} busy turns, {wakes} wake-ups with {locked_in_wakes} locked"
        )
    }

    fn has_too_many_barriers(&self) -> bool {
        self.barriers() > self.busy_turns + CUT
    }

    fn locks_too_often_in_wakes(&self) -> bool {
        self.locked_in_wakes > self.wakes + CUT
    }

    /// What may not be there, and where it is.
    fn offences(&self, cx: &Cx<'_>) -> Result<Vec<String>> {
        let describe = |instruction: &Instruction| {
            let places = instruction.places(cx)?;
            Ok(format!("{} x `{}` in {places}", instruction.times, instruction.text))
        };
        let mut offences = self.locked.iter().map(describe).collect::<Result<Vec<String>>>()?;
        if self.has_too_many_barriers() {
            let places = self.barriers.iter().map(describe).collect::<Result<Vec<String>>>()?;
            offences.push(format!(
                "more barriers than {} busy turns: {}",
                self.busy_turns,
                places.join(", ")
            ));
        }
        if self.locks_too_often_in_wakes() {
            offences.push(format!("{} locked instructions in {} wake-ups", self.locked_in_wakes, self.wakes));
        }
        Ok(offences)
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Plain,
    Locked,
    Barrier,
}

impl Kind {
    /// Of an instruction in AT&T syntax.
    fn of(text: &str) -> Kind {
        // objdump explains an address behind a `#`.
        let text = text.split('#').next().unwrap_or_default();
        let words: Vec<&str> = text.split_whitespace().collect();
        let operands = words.last().copied().unwrap_or_default();
        if words.contains(&"mfence") || is_empty_lock(&words) {
            Kind::Barrier
        } else if words.contains(&"lock")
            || words.iter().any(|word| word.starts_with("xchg")) && in_memory(operands)
        {
            Kind::Locked
        } else {
            Kind::Plain
        }
    }
}

/// `lock orl $0x0,-0x40(%rsp)` changes nothing: it is how compilers spell a full barrier.
fn is_empty_lock(words: &[&str]) -> bool {
    let [.., "lock", operation, operands] = words else { return false };
    let changes_nothing = ["or", "add"].iter().any(|name| operation.starts_with(name));
    changes_nothing && operands.starts_with("$0x0,") && operands.ends_with("(%rsp)")
}

/// Whether one of two operands is not a register. `xchg` with memory locks without saying so.
fn in_memory(operands: &str) -> bool {
    operands.split(',').any(|operand| !operand.starts_with('%') || operand.contains([':', '(']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_are_told_apart() {
        for text in ["mfence", "lock orl $0x0,-0x40(%rsp)", "lock addq $0x0,(%rsp)"] {
            assert_eq!(Kind::of(text), Kind::Barrier, "{text}");
        }
        let locked = [
            "lock incl 0x9c(%rbx)",
            "lock orl $0x0,-0x40(%rbx)",
            "lock orl $0x1,-0x40(%rsp)",
            "cs lock cmpxchg %rsi,0x1f0(%rdi)",
            "xchg %edx,0x0(%rbp)",
            "xchg   %eax,0x1aea14(%rip)        # 1d4e70 <__abort_msg@@GLIBC_PRIVATE+0x10>",
            "xchg %rax,%fs:0x10",
        ];
        for text in locked {
            assert_eq!(Kind::of(text), Kind::Locked, "{text}");
        }
        for text in
            ["xchg   %ax,%ax", "cmpxchg %rsi,(%rdi)", "mov %rax,(%rsp)", "sfence", "ret", "call 1234 <lock>"]
        {
            assert_eq!(Kind::of(text), Kind::Plain, "{text}");
        }
    }

    #[test]
    fn both_manglings_name_the_core() {
        for readable in
            ["engine::core::Core<H>::receive", "<engine::core::Core<engine::udp::UdpHandler>>::receive"]
        {
            assert!(is_of_core(readable, "receive"), "{readable}");
        }
        assert!(!is_of_core("engine::core::Core<H>::receive::{{closure}}", "receive"));
        assert!(!is_of_core("engine::cx::Cx::receive_burst", "receive"));
    }

    #[test]
    fn barriers_are_counted_against_turns_and_locks_against_wake_ups() {
        let executed = |address, text: &str, function: &str, times| Instruction {
            text: text.into(),
            object: "/bin/a".into(),
            address,
            function: function.into(),
            times,
        };
        let wake = Symbol { address: 0x50, mangled: "wake".into(), readable: "wake".into() };
        let run = |barriers, in_wake, locked| {
            let executed = vec![
                executed(0x10, "mfence", "receive", barriers),
                executed(0x20, "lock incl (%rax)", "receive", locked),
                executed(0x50, "push %rbp", "wake", 5),
                executed(0x51, "lock incl (%rax)", "wake", in_wake),
            ];
            let executed: Vec<_> = executed.into_iter().filter(|instruction| instruction.times > 0).collect();
            let run = Run::of(executed, &wake, 10, 2);
            assert_eq!(run.each(), (barriers + locked + 5 + in_wake) / 2);
            (run.wakes, run.has_too_many_barriers(), run.locks_too_often_in_wakes(), run.locked.len())
        };
        assert_eq!(run(11, 6, 0), (5, false, false, 0));
        assert_eq!(run(12, 5, 0), (5, true, false, 0));
        assert_eq!(run(10, 7, 0), (5, false, true, 0));
        assert_eq!(run(10, 5, 1), (5, false, false, 1));
    }
}
