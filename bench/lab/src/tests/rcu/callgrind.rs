//! Which instructions a program executed inside some of its functions, and how often: counted by valgrind's callgrind, spelt
//! out by objdump. Everything called from those functions is in it, libraries too.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

use crate::fault::{Context, Fault, Result, ensure};
use crate::ns::Netns;
use crate::proc::Cmd;
use crate::step::Cx;

/// One instruction that was executed.
#[derive(Debug, PartialEq)]
pub struct Instruction {
    /// As objdump writes it: `lock incl 0x9c(%rbx)`.
    pub text: String,
    /// The program or library that it is in.
    pub object: String,
    /// Where in the object.
    pub address: u64,
    /// The function that it is in, as the linker knows it.
    pub function: String,
    /// How often it was executed.
    pub times: u64,
}

/// A function in a program's symbol table.
pub struct Symbol {
    /// Where it begins.
    pub address: u64,
    /// As the linker knows it.
    pub mangled: String,
    /// As people know it, without the hash.
    pub readable: String,
}

/// The functions of a program.
pub fn symbols(cx: &Cx<'_>, program: &Path) -> Result<Vec<Symbol>> {
    let list = |how: &str| -> Result<String> {
        Ok(Cmd::new("nm").args(["--no-sort", "--defined-only", how]).arg(program).quiet().ok(cx)?.stdout)
    };
    // `0000000000a0430 T name`, the same line in both.
    let (mangled, readable) = (list("--no-demangle")?, list("--demangle")?);
    let pairs = mangled.lines().zip(readable.lines()).filter_map(|(mangled, readable)| {
        let address = u64::from_str_radix(mangled.split(' ').next()?, 16).ok()?;
        let name = |line: &str| Some(line.splitn(3, ' ').nth(2)?.to_string());
        Some(Symbol { address, mangled: name(mangled)?, readable: name(readable)? })
    });
    Ok(pairs.collect())
}

/// Runs `command` and counts what it executes inside `functions`, from the moment when it enters `start` (mangled names).
/// Also yields what it printed.
pub fn run(
    cx: &Cx<'_>,
    name: &str,
    command: &Cmd,
    start: &str,
    functions: &[String],
) -> Result<(Vec<Instruction>, String)> {
    let (counts, told) = profile(cx, name, command, start, functions, None)?;
    Ok((spell_out(cx, counts)?, told))
}

/// The same, inside a namespace if one is given, and only how many instructions they are.
pub fn count(
    cx: &Cx<'_>,
    name: &str,
    command: &Cmd,
    start: &str,
    functions: &[String],
    ns: Option<&Netns>,
) -> Result<(u64, String)> {
    let (counts, told) = profile(cx, name, command, start, functions, ns)?;
    Ok((counts.values().map(|count| count.times).sum(), told))
}

/// How many instructions a program executes from its start to its end, in all its threads.
pub fn total(cx: &Cx<'_>, name: &str, command: &Cmd) -> Result<u64> {
    let profile = cx.dir.join(format!("{name}.callgrind"));
    let out = format!("--callgrind-out-file={}", profile.display());
    command.clone().under(["valgrind", "--quiet", "--tool=callgrind", &out].map(String::from)).ok(cx)?;
    let text = fs::read_to_string(&profile).context(|| format!("read {}", profile.display()))?;
    let summary = text.lines().find_map(|line| line.strip_prefix("summary: ")?.trim().parse().ok());
    summary.ok_or_else(|| Fault::Check(format!("{}: it has no summary", profile.display())))
}

fn profile(
    cx: &Cx<'_>,
    name: &str,
    command: &Cmd,
    start: &str,
    functions: &[String],
    ns: Option<&Netns>,
) -> Result<(Counts, String)> {
    let profile = cx.dir.join(format!("{name}.callgrind"));
    let mut words = vec!["valgrind".to_string(), "--quiet".into(), "--tool=callgrind".into()];
    let plain = ["--dump-instr=yes", "--demangle=no", "--compress-strings=no", "--compress-pos=no"];
    words.extend(plain.map(String::from));
    words.extend(["--collect-atstart=no".to_string(), format!("--zero-before={start}")]);
    words.push(format!("--callgrind-out-file={}", profile.display()));
    words.extend(functions.iter().map(|function| format!("--toggle-collect={function}")));
    let mut command = command.clone().under(words);
    if let Some(ns) = ns {
        command = command.under(["ip", "netns", "exec", ns.name()]);
    }
    let output = command.ok(cx)?;
    let text = fs::read_to_string(&profile).context(|| format!("read {}", profile.display()))?;
    let counts = parse(&text)
        .map_err(|line| Fault::Check(format!("{}: not understood: {line}", profile.display())))?;
    Ok((counts, output.stdout))
}

/// A profile, its addresses not yet looked up: by object and address in it.
type Counts = BTreeMap<(String, u64), Count>;

#[derive(Debug, Default, PartialEq)]
struct Count {
    function: String,
    times: u64,
}

/// Reads callgrind's format 1, uncompressed: positions `0xADDRESS LINE`, one event. The error is the line that is no part of it.
fn parse(profile: &str) -> std::result::Result<Counts, String> {
    let mut counts = Counts::new();
    let (mut object, mut function) = ("", "");
    let mut lines = profile.lines();
    while let Some(line) = lines.next() {
        let wrong = || line.to_string();
        if let Some((key, value)) = line.split_once('=') {
            match key {
                "ob" => object = value,
                "fn" => function = value,
                // What the callee took follows: it has lines of its own.
                "calls" => _ = lines.next(),
                "fl" | "fi" | "fe" | "cob" | "cfi" | "cfl" | "cfn" => {}
                // Of the header: the command that was run, and its words.
                _ if key.starts_with("cmd: ") => {}
                _ => return Err(wrong()),
            }
        } else if let Some(words) = line.strip_prefix("0x") {
            let mut words = words.split(' ');
            let mut next = || words.next().ok_or_else(wrong);
            let address = u64::from_str_radix(next()?, 16).map_err(|_| wrong())?;
            let (_line, times) = (next()?, next()?.parse::<u64>().map_err(|_| wrong())?);
            let count = counts.entry((object.into(), address));
            count.or_insert_with(|| Count { function: function.into(), times: 0 }).times += times;
        }
    }
    Ok(counts)
}

/// Looks every address up in the disassembly of its object.
fn spell_out(cx: &Cx<'_>, counts: Counts) -> Result<Vec<Instruction>> {
    let mut executed = Vec::new();
    let mut last = String::new();
    let mut code = HashMap::new();
    for ((object, address), Count { function, times }) in counts {
        if object != last {
            code = disassemble(cx, &object)?;
            last.clone_from(&object);
        }
        let text = code.get(&address).cloned();
        let text = text.ok_or_else(|| {
            let what = format!("{address:#x} of {object} ({function}) was executed {times} times");
            Fault::Check(format!("{what}, but objdump has no such address"))
        })?;
        executed.push(Instruction { text, object, address, function, times });
    }
    Ok(executed)
}

/// An object's instructions by address.
fn disassemble(cx: &Cx<'_>, object: &str) -> Result<HashMap<u64, String>> {
    ensure!(object.starts_with('/'), "code was executed that belongs to no file: {object:?}");
    let told = Cmd::new("objdump").args(["--disassemble", "--no-show-raw-insn", object]).quiet().ok(cx)?;
    Ok(told.stdout.lines().filter_map(instruction_of).collect())
}

/// `   dd582:\tlock orl $0x0,-0x40(%rsp)`.
fn instruction_of(line: &str) -> Option<(u64, String)> {
    let (address, text) = line.split_once(":\t")?;
    Some((u64::from_str_radix(address.trim(), 16).ok()?, text.trim().to_string()))
}

impl Instruction {
    /// Where it is in the source: innermost first, what was inlined into what; without the standard library's own lines.
    pub fn places(&self, cx: &Cx<'_>) -> Result<String> {
        let address = format!("{:#x}", self.address);
        let words =
            ["--inlines", "--functions", "--demangle", "--pretty-print", "--exe", &self.object, &address];
        let told = Cmd::new("addr2line").args(words).quiet().ok(cx)?.stdout;
        let frames: Vec<&str> = told.lines().map(|line| line.trim_start_matches(" (inlined by) ")).collect();
        let ours: Vec<&str> = frames.iter().filter(|frame| !frame.contains(" at /rustc/")).copied().collect();
        let root = format!("{}/", cx.host.root.display());
        Ok(if ours.is_empty() { frames.join(" < ") } else { ours.join(" < ") }.replace(&root, ""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROFILE: &str = "\
# callgrind format
version: 1
positions: instr line
events: Ir
summary: 35

ob=/bin/a
fl=/src/core.rs
fn=receive
0x10 7 2
fi=/src/wq.rs
0x14 9 3
fe=/src/core.rs
cob=/lib/c.so
cfi=/src/mem.c
cfn=memcpy
calls=4 0x99 1
0x18 8 26
0x18 8 4

ob=/lib/c.so
fl=/src/mem.c
fn=memcpy
0x99 1 4
0x14 9 1
";

    #[test]
    fn a_profile_is_read() {
        let counts = parse(PROFILE).unwrap();
        let told: Vec<_> = counts
            .iter()
            .map(|((object, address), count)| {
                (object.as_str(), *address, count.function.as_str(), count.times)
            })
            .collect();
        let expected = [
            ("/bin/a", 0x10, "receive", 2),
            ("/bin/a", 0x14, "receive", 3),
            ("/bin/a", 0x18, "receive", 4),
            ("/lib/c.so", 0x14, "memcpy", 1),
            ("/lib/c.so", 0x99, "memcpy", 4),
        ];
        assert_eq!(told, expected);
        assert_eq!(parse("jump=1/2 0x10 5"), Err("jump=1/2 0x10 5".into()));
        assert_eq!(parse("0x10 7"), Err("0x10 7".into()));
    }

    #[test]
    fn a_disassembly_is_read() {
        let line = "   dd582:\tlock orl $0x0,-0x40(%rsp)";
        assert_eq!(instruction_of(line), Some((0xdd582, "lock orl $0x0,-0x40(%rsp)".into())));
        assert_eq!(instruction_of("00000000000dd580 <receive>:"), None);
        assert_eq!(instruction_of("Disassembly of section .text:"), None);
    }
}
