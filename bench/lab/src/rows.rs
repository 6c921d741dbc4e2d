//! The row table, `bench/lab/rows/ROWS.md`: its form is described there.

use std::fs;
use std::path::{Path, PathBuf};

use crate::fault::{Context, Result, ensure};

const FOLDER: &str = "bench/lab/rows";

/// The rows there must be: a letter and how many.
const ROWS: &[(char, usize)] = &[('A', 11), ('B', 16), ('C', 6)];

/// One line: a statement, a test, and a mutation that the test must notice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// `A5`.
    pub row: String,
    /// What holds.
    pub statement: String,
    /// As it stands in the table.
    pub test: String,
    /// The patch's file name.
    pub mutation: String,
    /// Built with `--cfg loom`.
    pub is_model: bool,
    /// The mutant may fail to build.
    pub may_not_build: bool,
    /// The mutant may run into the time limit.
    pub may_hang: bool,
}

/// All lines.
pub struct Table {
    folder: PathBuf,
    lines: Vec<Line>,
}

impl Table {
    /// Reads it.
    pub fn read(root: &Path) -> Result<Table> {
        let folder = root.join(FOLDER);
        let path = folder.join("ROWS.md");
        let text = fs::read_to_string(&path).context(|| format!("read {}", path.display()))?;
        let mut lines = Vec::new();
        for (at, text) in text.lines().enumerate().filter(|(_, text)| is_line(text)) {
            let line = Line::parse(text);
            ensure!(
                line.is_some(),
                "{}:{}: not | row | statement | test | mutation |",
                path.display(),
                at + 1
            );
            lines.extend(line);
        }
        Ok(Table { folder, lines })
    }

    /// Every row has a line, every line its patch, every patch its line.
    pub fn check(&self) -> Result {
        for row in ROWS.iter().flat_map(|(letter, count)| (1..=*count).map(move |n| format!("{letter}{n}"))) {
            ensure!(self.lines.iter().any(|line| line.row == row), "no line of ROWS.md is about {row}");
        }
        let listed = fs::read_dir(&self.folder).context(|| format!("list {}", self.folder.display()))?;
        let patches: Vec<_> =
            listed.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        for line in &self.lines {
            ensure!(patches.contains(&line.mutation), "{} of row {} is not there", line.mutation, line.row);
        }
        for name in patches.iter().filter(|name| *name != "ROWS.md") {
            let named = self.lines.iter().any(|line| line.mutation == *name);
            ensure!(named, "{FOLDER}/{name} is in no line of the table");
        }
        Ok(())
    }

    /// The lines of the named rows; without names, all, after a check that none is missing.
    pub fn lines(&self, rows: &[String]) -> Result<Vec<Line>> {
        if rows.is_empty() {
            self.check()?;
        }
        for row in rows {
            ensure!(self.lines.iter().any(|line| line.row == *row), "there is no row {row}");
        }
        let wanted = |line: &&Line| rows.is_empty() || rows.contains(&line.row);
        Ok(self.lines.iter().filter(wanted).cloned().collect())
    }
}

/// Lines of the table, without its head.
fn is_line(text: &str) -> bool {
    text.starts_with('|') && !text.starts_with("|---") && !text.starts_with("| row ")
}

impl Line {
    fn parse(text: &str) -> Option<Line> {
        let cells: Vec<_> = text.trim().strip_prefix('|')?.strip_suffix('|')?.split('|').map(cell).collect();
        let [row, statement, test, mutation] = &cells[..] else { return None };
        let (mutation, may_hang) = match mutation.strip_suffix("(hangs)") {
            Some(name) => (cell(name), true),
            None => (mutation.clone(), false),
        };
        let filled = [row, statement, test, &mutation].iter().all(|cell| !cell.is_empty());
        filled.then(|| Line {
            row: row.clone(),
            statement: statement.clone(),
            is_model: test.starts_with("model:"),
            may_not_build: test.starts_with("compile-fail:"),
            test: test.clone(),
            mutation,
            may_hang,
        })
    }

    /// What follows `cargo test`.
    pub fn test_args(&self) -> impl Iterator<Item = &str> {
        let test = self.test.strip_prefix("model:").or(self.test.strip_prefix("compile-fail:"));
        test.unwrap_or(&self.test).split_whitespace()
    }

    /// The package that it tests.
    pub fn package(&self) -> &str {
        self.test_args().skip_while(|arg| *arg != "-p").nth(1).unwrap_or_default()
    }
}

/// A cell's text, out of its code marks.
fn cell(text: &str) -> String {
    text.trim().trim_matches('`').trim().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_to_run_and_what_to_break() {
        let line = Line::parse(
            "| A5 | no wake-up is lost | `model: -p engine --lib models::wq` | `a.patch` (hangs) |",
        )
        .unwrap();
        assert_eq!(line.test_args().collect::<Vec<_>>(), ["-p", "engine", "--lib", "models::wq"]);
        assert_eq!((line.row.as_str(), line.mutation.as_str(), line.package()), ("A5", "a.patch", "engine"));
        assert!(line.is_model && line.may_hang && !line.may_not_build);
        assert_eq!(Line::parse("| A5 | too | few |"), None);
        assert_eq!(Line::parse("| A5 | no test | | a.patch |"), None);
    }
}
