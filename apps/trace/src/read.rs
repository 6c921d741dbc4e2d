//! Reading an event log.

use crate::line::{Event, Line, VERSION};
use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// A line longer than this is none of a log.
const LINE_MAX: u64 = 4096;

/// Why a log cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line.
    #[error("{}, line {number}: {what}", path.display())]
    Line {
        /// Of which file.
        path: PathBuf,
        /// From 1.
        number: usize,
        /// What is wrong with it.
        what: String,
    },
    /// No event of any call.
    #[error("{} holds no event of any call", .0.display())]
    Empty(PathBuf),
    /// A call that was asked for.
    #[error("{} holds no call {call}; `rxline trace summary` lists those that it holds", path.display())]
    NoCall {
        /// Of which file.
        path: PathBuf,
        /// Which call.
        call: CallName,
    },
}

/// A call's name in a log: `EPOCH/CID:CHANNEL:NUMBER`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CallName {
    /// Epoch and connection id in hexadecimal.
    pub conn: String,
    /// 0 to 3.
    pub channel: u8,
    /// On the channel.
    pub number: u32,
}

impl fmt::Display for CallName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.conn, self.channel, self.number)
    }
}

impl FromStr for CallName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("`{text}` is no call: EPOCH/CID:CHANNEL:NUMBER, such as 1a2b3c4d/00000014:0:3");
        let mut parts = text.split(':');
        let (Some(conn), Some(channel), Some(number), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(wrong());
        };
        let channel = channel.parse().map_err(|_| wrong())?;
        Ok(Self { conn: conn.into(), channel, number: number.parse().map_err(|_| wrong())? })
    }
}

/// The events of one call on one core, in order.
#[derive(Clone, Debug)]
pub struct TracedCallLog {
    /// Its name.
    pub name: CallName,
    /// The core.
    pub core: usize,
    /// Nanoseconds, and what happened.
    pub events: Vec<(u64, Event)>,
}

/// An event log in memory.
#[derive(Debug)]
pub struct Trace {
    path: PathBuf,
    /// Who wrote it.
    pub program: String,
    /// Calls, in the order in which they were first heard of.
    pub calls: Vec<TracedCallLog>,
    /// What belongs to no call: events of connections, and questions of strangers.
    pub others: Vec<(u64, Event)>,
    /// Events that are missing.
    pub missing: u64,
}

impl Trace {
    /// Reads a whole file. The first line that is wrong ends it.
    pub fn read(path: &Path) -> Result<Trace, ReadError> {
        let io = |source| ReadError::Io { path: path.into(), source };
        let mut file = BufReader::new(File::open(path).map_err(io)?);
        let mut trace = Trace {
            path: path.into(),
            program: String::new(),
            calls: Vec::new(),
            others: Vec::new(),
            missing: 0,
        };
        let mut index = BTreeMap::new();
        let mut text = Vec::new();
        for number in 1.. {
            text.clear();
            let len = io::Read::take(&mut file, LINE_MAX).read_until(b'\n', &mut text).map_err(io)?;
            if len == 0 {
                break;
            }
            let wrong = |what: String| ReadError::Line { path: path.into(), number, what };
            if text.last() != Some(&b'\n') {
                let what = if len as u64 == LINE_MAX {
                    "it is longer than any event"
                } else {
                    "it has no end: the log was cut off"
                };
                return Err(wrong(what.into()));
            }
            let line: Line = serde_json::from_slice(&text).map_err(|error| wrong(words(&error)))?;
            trace.take(number, line, &mut index).map_err(wrong)?;
        }
        Ok(trace)
    }

    fn take(
        &mut self,
        number: usize,
        line: Line,
        index: &mut BTreeMap<(usize, CallName), usize>,
    ) -> Result<(), String> {
        match (number, &line.event) {
            (1, Event::Start { version: VERSION, program, .. }) => {
                self.program.clone_from(program);
                return Ok(());
            }
            (1, Event::Start { version, .. }) => {
                return Err(format!("it is version {version} of the format; this program reads {VERSION}"));
            }
            (1, _) => return Err("the first line of an event log is the event `start`".into()),
            (_, Event::Start { .. }) => return Err("a second log begins here".into()),
            (_, Event::Overflow { events }) => self.missing += events,
            _ => {}
        }
        let (Some(conn), Some(channel), Some(number @ 1..)) = (line.conn, line.channel, line.call) else {
            self.others.push((line.t, line.event));
            return Ok(());
        };
        let key = (line.core, CallName { conn, channel, number });
        let at = match index.get(&key) {
            // A name that begins again is another client's, or another start of the same one's.
            Some(&at) if !matches!(line.event, Event::Begun { .. }) || self.calls[at].is_bare() => at,
            _ => {
                let log = TracedCallLog { name: key.1.clone(), core: line.core, events: Vec::new() };
                self.calls.push(log);
                index.insert(key, self.calls.len() - 1);
                self.calls.len() - 1
            }
        };
        self.calls[at].events.push((line.t, line.event));
        Ok(())
    }

    /// The call of this name, or without one that with the most payload packets.
    pub fn call(&self, name: Option<&CallName>) -> Result<&TracedCallLog, ReadError> {
        match name {
            Some(name) => self
                .calls
                .iter()
                .rfind(|call| call.name == *name)
                .ok_or_else(|| ReadError::NoCall { path: self.path.clone(), call: name.clone() }),
            // Of equals the first.
            None => self
                .calls
                .iter()
                .rev()
                .max_by_key(|call| call.data())
                .ok_or_else(|| ReadError::Empty(self.path.clone())),
        }
    }
}

impl TracedCallLog {
    /// Payload packets, in both directions.
    pub fn data(&self) -> usize {
        let data =
            |(_, event): &&(u64, Event)| matches!(event, Event::Sent(p) | Event::Received(p) if p.is_data());
        self.events.iter().filter(data).count()
    }

    /// The first packet of a call comes in before the call begins.
    fn is_bare(&self) -> bool {
        !self.events.iter().any(|(_, event)| matches!(event, Event::Begun { .. }))
    }
}

/// serde_json counts lines within what it was given, which is one line.
fn words(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let what = text.rsplit_once(" at line ").map_or(&*text, |(what, _)| what);
    match error.column() {
        0 => what.to_string(),
        column => format!("{what}, at column {column}"),
    }
}
