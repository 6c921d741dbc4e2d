//! What doctor found: lines in groups, as text and as JSON.

use std::fmt::{self, Write};

use serde::Serialize;

/// How a thing stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// As it should be.
    Ok,
    /// Works, but slower, or not for every port.
    Warning,
    /// A port that was named cannot work so.
    Problem,
}

/// One line. Its names (`group`, `name`) stay what they are; its texts may change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it belongs to: `memory`, `rights`, `cpus`, `system`, `pci`, `interfaces`, `dpdk`.
    pub group: &'static str,
    /// What was looked at: `hugepages`.
    pub name: &'static str,
    /// Of which one, where there are several: an interface, a PCI address, a capability.
    pub of: Option<String>,
    /// How it stands.
    pub state: State,
    /// In words.
    pub text: String,
    /// The command, or the boot option, that mends it.
    pub mend: Option<String>,
}

/// All of them, in the order in which they are shown.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// The lines.
    pub findings: Vec<Finding>,
}

/// Collects the findings of one group.
pub(crate) struct Group<'a> {
    report: &'a mut Report,
    group: &'static str,
}

impl Group<'_> {
    pub fn ok(&mut self, name: &'static str, of: Option<&str>, text: impl Into<String>) {
        self.add(name, of, State::Ok, text.into(), None);
    }

    /// `state` is a warning or a problem, and `mend` what to do.
    pub fn bad(
        &mut self,
        name: &'static str,
        of: Option<&str>,
        state: State,
        text: impl Into<String>,
        mend: impl Into<String>,
    ) {
        self.add(name, of, state, text.into(), Some(mend.into()));
    }

    fn add(
        &mut self,
        name: &'static str,
        of: Option<&str>,
        state: State,
        text: String,
        mend: Option<String>,
    ) {
        let of = of.map(str::to_owned);
        self.report.findings.push(Finding { group: self.group, name, of, state, text, mend });
    }
}

impl Report {
    pub(crate) fn group(&mut self, group: &'static str) -> Group<'_> {
        Group { report: self, group }
    }

    /// How many lines stand so.
    pub fn count(&self, state: State) -> usize {
        self.findings.iter().filter(|finding| finding.state == state).count()
    }

    /// The report as one JSON object.
    pub fn json(&self) -> String {
        let value = serde_json::json!({
            "v": 1,
            "ok": self.count(State::Ok),
            "warnings": self.count(State::Warning),
            "problems": self.count(State::Problem),
            "findings": self.findings,
        });
        format!("{value:#}\n")
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            State::Ok => "ok",
            State::Warning => "warning",
            State::Problem => "PROBLEM",
        })
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Finding { name, of, state, text, mend, .. } = self;
        write!(f, "  {state:<8} {}", name.replace('_', " "))?;
        if let Some(of) = of {
            write!(f, " {of}")?;
        }
        writeln!(f, ": {text}")?;
        for line in mend.iter().flat_map(|mend| mend.lines()) {
            writeln!(f, "           mend: {line}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut last = "";
        for finding in &self.findings {
            if finding.group != last {
                writeln!(f, "{}", finding.group)?;
                last = finding.group;
            }
            write!(f, "{finding}")?;
        }
        let [ok, warnings, problems] = [State::Ok, State::Warning, State::Problem].map(|s| self.count(s));
        f.write_char('\n')?;
        writeln!(f, "{ok} ok, {}, {}", counted(warnings, "warning"), counted(problems, "problem"))
    }
}

fn counted(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}
