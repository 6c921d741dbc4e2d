//! Reading a TOML document with its places: every complaint names line and column, the value and the mend.
//!
//! Serde's derive stops at the first error and keeps no places after it; here the parsed tree is walked by hand,
//! so that one run of `--check` reports everything that is wrong.

use std::fmt;
use std::ops::{Range, RangeInclusive};
use std::str::FromStr;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// One thing that is wrong with a configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Counted from 1.
    pub line: usize,
    /// In characters, counted from 1.
    pub column: usize,
    /// What is wrong, with the value.
    pub what: String,
    /// How to mend it.
    pub mend: String,
}

/// Everything that is wrong with a configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// As it was given on the command line.
    pub file: String,
    /// At least one, in the order of the file.
    pub problems: Vec<Problem>,
}

impl std::error::Error for ConfigError {}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.problems.iter().enumerate() {
            let Problem { line, column, what, mend } = problem;
            let newline = if at == 0 { "" } else { "\n" };
            if *line == 0 {
                write!(f, "{newline}{}: {what}\n    mend: {mend}", self.file)?;
            } else {
                write!(f, "{newline}{}:{line}:{column}: {what}\n    mend: {mend}", self.file)?;
            }
        }
        Ok(())
    }
}

/// A value and where it stands.
pub(super) type Value<'t> = Spanned<DeValue<'t>>;

/// The text being read, and the complaints so far.
pub(super) struct Source<'t> {
    text: &'t str,
    problems: Vec<Problem>,
}

impl<'t> Source<'t> {
    /// The document's root table; syntax errors become problems.
    pub fn parse(text: &'t str) -> (Self, Spanned<DeTable<'t>>) {
        let (root, errors) = DeTable::parse_recoverable(text);
        let mut source = Self { text, problems: Vec::new() };
        for error in errors {
            let span = error.span().unwrap_or(0..0);
            source.problem(
                span,
                error.message().to_string(),
                "write it as TOML 1.0 has it (https://toml.io)",
            );
        }
        (source, root)
    }

    pub fn problem(&mut self, span: Range<usize>, what: impl Into<String>, mend: impl Into<String>) {
        let (line, column) = self.place(span.start);
        self.problems.push(Problem { line, column, what: what.into(), mend: mend.into() });
    }

    pub fn is_sound(&self) -> bool {
        self.problems.is_empty()
    }

    pub fn into_problems(mut self) -> Vec<Problem> {
        self.problems.sort_by_key(|problem| (problem.line, problem.column));
        self.problems
    }

    fn place(&self, offset: usize) -> (usize, usize) {
        let before = self.text.get(..offset).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }

    /// The source text of a value, for messages: its first line, at most 60 characters.
    fn quote(&self, span: Range<usize>) -> String {
        let text = self.text.get(span).unwrap_or("").lines().next().unwrap_or("");
        text.chars().take(60).collect()
    }

    // Kinds of values. Each returns None after a complaint.

    pub fn string<'v>(&mut self, key: &str, value: &'v Value<'t>) -> Option<&'v str> {
        let text = value.get_ref().as_str();
        if text.is_none() {
            self.wrong_kind(key, value, "a string in quotes");
        }
        text
    }

    pub fn boolean(&mut self, key: &str, value: &Value<'t>) -> Option<bool> {
        let truth = value.get_ref().as_bool();
        if truth.is_none() {
            self.wrong_kind(key, value, "true or false");
        }
        truth
    }

    pub fn integer(&mut self, key: &str, value: &Value<'t>, range: RangeInclusive<u64>) -> Option<u64> {
        let Some(integer) = value.get_ref().as_integer() else {
            self.wrong_kind(key, value, "a whole number");
            return None;
        };
        let number = u64::from_str_radix(integer.as_str(), integer.radix()).ok();
        let number = number.filter(|number| range.contains(number));
        if number.is_none() {
            let (low, high) = (range.start(), range.end());
            let quoted = self.quote(value.span());
            self.problem(
                value.span(),
                format!("`{key} = {quoted}` is out of range"),
                format!("from {low} to {high}"),
            );
        }
        number
    }

    /// A string that stands for something else; `shape` says what it must look like.
    pub fn parsed<T: FromStr>(&mut self, key: &str, value: &Value<'t>, shape: &str) -> Option<T> {
        let text = self.string(key, value)?;
        let parsed = text.parse().ok();
        if parsed.is_none() {
            self.problem(
                value.span(),
                format!("`{key} = \"{text}\"` cannot be read"),
                format!("write {shape}"),
            );
        }
        parsed
    }

    /// One of a few words.
    pub fn word<T: Copy>(&mut self, key: &str, value: &Value<'t>, words: &[(&str, T)]) -> Option<T> {
        let text = self.string(key, value)?;
        if let Some((_, meaning)) = words.iter().find(|(word, _)| *word == text) {
            return Some(*meaning);
        }
        let names: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let what = format!("`{key} = \"{text}\"` is not one of its words");
        self.problem(value.span(), what, did_you_mean(text, &names));
        None
    }

    pub fn array<'v>(&mut self, key: &str, value: &'v Value<'t>) -> &'v [Value<'t>] {
        match value.get_ref().as_array() {
            Some(array) => array,
            None => {
                self.wrong_kind(key, value, "a list in [brackets]");
                &[]
            }
        }
    }

    pub fn section<'v>(&mut self, name: &str, value: &'v Value<'t>) -> Option<Section<'v, 't>> {
        match value.get_ref().as_table() {
            Some(table) => {
                Some(Section { name: name.to_string(), table, span: value.span(), known: Vec::new() })
            }
            None => {
                self.wrong_kind(name, value, "a table");
                None
            }
        }
    }

    fn wrong_kind(&mut self, key: &str, value: &Value<'t>, wanted: &str) {
        let kind = match value.get_ref() {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "a whole number",
            DeValue::Float(_) => "a number with a fraction",
            DeValue::Boolean(_) => "a boolean",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        let quoted = self.quote(value.span());
        self.problem(value.span(), format!("`{key} = {quoted}` is {kind}"), format!("write {wanted}"));
    }
}

/// One table of the document; knows which of its keys were asked for, so that the others can be complained about.
pub(super) struct Section<'v, 't> {
    pub name: String,
    table: &'v DeTable<'t>,
    pub span: Range<usize>,
    known: Vec<&'static str>,
}

impl<'v, 't> Section<'v, 't> {
    pub fn root(table: &'v Spanned<DeTable<'t>>) -> Self {
        Self { name: "the file".into(), table: table.get_ref(), span: 0..0, known: Vec::new() }
    }

    pub fn get(&mut self, key: &'static str) -> Option<&'v Value<'t>> {
        self.known.push(key);
        self.table.get(key)
    }

    /// As `get`, and a complaint if it is not there; `example` is a line that would mend it.
    pub fn require(
        &mut self,
        source: &mut Source<'t>,
        key: &'static str,
        example: &str,
    ) -> Option<&'v Value<'t>> {
        let value = self.get(key);
        if value.is_none() {
            source.problem(
                self.span.clone(),
                format!("{} has no `{key}`", self.name),
                format!("add `{example}`"),
            );
        }
        value
    }

    pub fn integer(
        &mut self,
        source: &mut Source<'t>,
        key: &'static str,
        range: RangeInclusive<u64>,
    ) -> Option<u64> {
        self.get(key).and_then(|value| source.integer(key, value, range))
    }

    /// `[[key]]` written any number of times.
    pub fn sections(&mut self, source: &mut Source<'t>, key: &'static str) -> Vec<Section<'v, 't>> {
        let Some(value) = self.get(key) else { return Vec::new() };
        let name = format!("[[{key}]]");
        if value.get_ref().is_table() {
            let what = format!("`[{key}]` is one table where there may be several");
            source.problem(value.span(), what, format!("write `[[{key}]]`"));
            return Vec::new();
        }
        source.array(key, value).iter().filter_map(|item| source.section(&name, item)).collect()
    }

    /// Complains about every key that nobody asked for.
    pub fn finish(self, source: &mut Source<'t>) {
        for (key, _) in self.table.iter() {
            let text: &str = key.get_ref();
            if !self.known.contains(&text) {
                let what = format!("{} has no key `{text}`", self.name);
                source.problem(key.span(), what, did_you_mean(text, &self.known));
            }
        }
    }
}

/// "did you mean `x`?" where something is near, else the list of what there is.
pub(super) fn did_you_mean(given: &str, known: &[&str]) -> String {
    let near = known.iter().map(|word| (distance(given, word), word)).min();
    match near {
        Some((away, word)) if away <= 1 + word.len() / 4 => format!("did you mean `{word}`?"),
        _ if known.is_empty() => "remove it: nothing goes here".to_string(),
        _ => format!("use one of: {}", known.join(", ")),
    }
}

/// Levenshtein's edit distance, in characters.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let substitute = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = substitute.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}
