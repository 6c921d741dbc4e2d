//! OpenAFS's programs as clients of one database server, and what they answered.

use std::fmt::Write;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use crate::fault::{Context, Fault, Result, ensure};
use crate::ns::Netns;
use crate::openafs::keys::{Keys, in_place_of_server_dir};
use crate::openafs::script::Line;
use crate::openafs::write_config;
use crate::proc::{Cmd, words};
use crate::step::Cx;

/// What one command may take, on a bad line too.
const LIMIT: Duration = Duration::from_secs(120);

/// Somebody in a namespace who knows one address.
pub struct Client<'n> {
    ns: &'n Netns,
    config: PathBuf,
    /// Has the cell's keys in its configuration.
    keyed: bool,
    /// How it shows who it is, if it does.
    proof: &'static [&'static str],
}

/// One command and what it printed, timestamps replaced.
#[derive(PartialEq, Eq)]
pub struct Answer {
    command: String,
    text: String,
}

impl<'n> Client<'n> {
    /// A client whose cell has its database server at `server`.
    pub fn new(cx: &Cx<'_>, ns: &'n Netns, name: &str, server: Ipv4Addr) -> Result<Client<'n>> {
        let config = cx.dir.join(format!("config-{name}"));
        write_config(&config, server)?;
        Ok(Client { ns, config, keyed: false, proof: &["-noauth"] })
    }

    /// It has the cell's keys, and makes itself tickets with them as far as `proof` says so: `-localauth`, `-encrypt`.
    pub fn with_keys(mut self, keys: &Keys, proof: &'static [&'static str]) -> Result<Client<'n>> {
        keys.copy_to(&self.config)?;
        (self.keyed, self.proof) = (true, proof);
        Ok(self)
    }

    /// The command of a line, in the client's namespace.
    pub fn cmd(&self, line: &Line) -> Cmd {
        // pts takes -encrypt for a wish to use the kernel's tokens, whatever else it is told.
        let proof = self.proof.iter().filter(|word| line.tool == "vos" || **word != "-encrypt");
        let cmd = Cmd::new(line.tool).args(&line.args).args(proof).arg("-config").arg(&self.config);
        let cmd = if line.tool == "vos" { cmd.arg("-noresolve") } else { cmd };
        let cmd = if self.keyed { in_place_of_server_dir(cmd, &self.config) } else { cmd };
        let cmd = cmd.under(["ip", "netns", "exec", self.ns.name()]);
        cmd.stdin(line.stdin.clone()).limit(LIMIT).quiet()
    }

    /// Runs all of `lines`, whatever each answers.
    pub fn run(&self, cx: &Cx<'_>, name: &str, lines: &[Line]) -> Result<Vec<Answer>> {
        let begun = std::time::Instant::now();
        let mut answers = Vec::with_capacity(lines.len());
        for line in lines {
            cx.check()?;
            let output = self.cmd(line).run(cx)?;
            let mut text = without_times(&output.stdout);
            text += &without_times(&output.stderr);
            let _ = writeln!(text, "[{}]", words(output.status));
            answers.push(Answer { command: line.to_string(), text });
        }
        let path = cx.dir.join(format!("transcript-{name}"));
        let transcript: String =
            answers.iter().map(|Answer { command, text }| format!("$ {command}\n{text}")).collect();
        std::fs::write(&path, transcript).context(|| format!("write {}", path.display()))?;
        let seconds = begun.elapsed().as_secs_f64();
        cx.log.line(format!("{name}: {} commands in {seconds:.1} s", lines.len()));
        Ok(answers)
    }
}

/// An error at the first command that was answered otherwise.
pub fn must_equal(what: &str, got: &[Answer], expected: &[Answer]) -> Result {
    let mut pairs = got.iter().zip(expected);
    if let Some((got, expected)) = pairs.find(|(got, expected)| got != expected) {
        let (at, (got_line, expected_line)) = first_difference(&got.text, &expected.text);
        let command = &got.command;
        return Err(Fault::Check(format!(
            "{what}: `{command}` was answered otherwise, first in line {at}:\n    got      {got_line:?}\n    expected {expected_line:?}"
        )));
    }
    ensure!(got.len() == expected.len(), "{what}: {} answers instead of {}", got.len(), expected.len());
    Ok(())
}

fn first_difference<'t>(a: &'t str, b: &'t str) -> (usize, (&'t str, &'t str)) {
    let (mut a, mut b) = (a.lines(), b.lines());
    for at in 1.. {
        match (a.next(), b.next()) {
            (None, None) => return (at, ("", "")),
            (x, y) if x != y => return (at, (x.unwrap_or("(its end)"), y.unwrap_or("(its end)"))),
            _ => {}
        }
    }
    unreachable!("both texts end")
}

/// Replaces `Sat Nov 21 18:55:54 2026` by `<time>`: the one part of an answer that may differ.
fn without_times(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let mut rest = line;
        while let Some((at, len)) = find_time(rest) {
            out += &rest[..at];
            out += "<time>";
            rest = &rest[at + len..];
        }
        out += rest;
    }
    out
}

/// Where ctime(3)'s 24 characters are.
fn find_time(text: &str) -> Option<(usize, usize)> {
    const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
    const SHAPE: &[u8] = b"Aaa Aaa 99 99:99:99 9999";
    let fits = |window: &[u8]| {
        window.iter().zip(SHAPE).all(|(&byte, &shape)| match shape {
            b'A' => byte.is_ascii_uppercase(),
            b'a' => byte.is_ascii_lowercase(),
            b'9' => byte.is_ascii_digit() || byte == b' ',
            _ => byte == shape,
        })
    };
    let windows = text.as_bytes().windows(SHAPE.len());
    let is_day = |window: &[u8]| DAYS.iter().any(|day| window.starts_with(day.as_bytes()));
    let at = windows.enumerate().find(|(_, window)| is_day(window) && fits(window))?.0;
    Some((at, SHAPE.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_go_and_nothing_else() {
        let text = "Creation    Sat Nov  1 08:55:54 2026\nSat November\n  Sun Feb 28 23:59:59 2027.";
        assert_eq!(without_times(text), "Creation    <time>\nSat November\n  <time>.");
    }

    #[test]
    fn a_difference_in_a_later_line_is_found() {
        let answer = |text: &str| Answer { command: "pts x".into(), text: text.into() };
        let got = [answer("a\nb\n")];
        assert!(must_equal("x", &got, &[answer("a\nb\n")]).is_ok());
        let fault = must_equal("x", &got, &[answer("a\nc\n")]).unwrap_err().to_string();
        assert!(fault.contains("line 2") && fault.contains("\"c\""), "{fault}");
        assert!(must_equal("x", &got, &[]).is_err());
    }
}
