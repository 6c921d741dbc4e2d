//! [`Asker`]: the client's side of the control socket.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;

use crate::capturing::{CaptureStarted, CapturedPage};
use crate::place::{self, PlaceError};
use crate::protocol::{Answer, Ask, Cursor, Hello, Outcome, Refusal, Request, Rows, VERSION};
use crate::snapshot::Snapshot;
use crate::wish::CaptureWish;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long a stranger may take to say who he is.
const HELLO_PATIENCE: Duration = Duration::from_secs(2);
/// Bytes of an answer: no server sends more.
const ANSWER_MAX: u64 = 64 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody to ask.
    #[error(
        "no rxline of this user is running (there is no socket in {}): start one, or name its socket with --control PATH",
        directory.display()
    )]
    NotRunning {
        /// Where it was looked for.
        directory: PathBuf,
    },
    /// Several to ask.
    #[error("{} are running: choose one with --control PATH\n{}", candidates.len(), list(candidates))]
    Ambiguous {
        /// Socket, and who it is as far as he says.
        candidates: Vec<(PathBuf, Option<Hello>)>,
    },
    /// The folder of sockets.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// It cannot be reached.
    #[error("{}: {}", path.display(), mend(source))]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It went away in the middle, or says nothing.
    #[error("{}: {}", path.display(), silence(source))]
    Lost {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It refused.
    #[error("{}: {}", path.display(), refusal.message)]
    Refused {
        /// The socket.
        path: PathBuf,
        /// Its words.
        refusal: Refusal,
    },
    /// What it said is not of this protocol.
    #[error("{}: the answer is not what an rxline with protocol version {VERSION} says: {source}", path.display())]
    Garbled {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
}

fn list(candidates: &[(PathBuf, Option<Hello>)]) -> String {
    let line = |(path, hello): &(PathBuf, Option<Hello>)| {
        let who = hello.as_ref().map_or("does not say who it is".into(), |hello| {
            format!("rxline {}, process {}, up {:.0} s", hello.command, hello.pid, hello.uptime_seconds)
        });
        format!("  --control {}   ({who})", path.display())
    };
    candidates.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn mend(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            format!("{error}: only the user who started that rxline, and root, may look into it")
        }
        io::ErrorKind::NotFound => format!("{error}: `--control PATH` names the socket of a running rxline"),
        io::ErrorKind::ConnectionRefused => format!("{error}: the rxline that made this socket has ended"),
        _ => error.to_string(),
    }
}

fn silence(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            format!("no answer within {} s: is the process stopped?", PATIENCE.as_secs())
        }
        io::ErrorKind::UnexpectedEof => "it has ended, or closed the connection".into(),
        _ => error.to_string(),
    }
}

/// A connection to a running rxline.
pub struct Asker {
    path: PathBuf,
    stream: BufReader<UnixStream>,
}

impl Asker {
    /// Connects to the socket of that path, or to the only one that this user's processes serve.
    pub fn find(path: Option<&Path>) -> Result<Self, AskError> {
        match path {
            Some(path) => Self::connect(path),
            None => Self::find_in(&place::default_directory()),
        }
    }

    fn find_in(directory: &Path) -> Result<Self, AskError> {
        let mut living = place::living(directory)?;
        match living.len() {
            0 => Err(AskError::NotRunning { directory: directory.into() }),
            1 => Self::connect(&living.remove(0)),
            _ => {
                let hello = |path: &PathBuf| Self::connect(path).and_then(|mut asker| asker.greet()).ok();
                let candidates = living.into_iter().map(|path| (path.clone(), hello(&path))).collect();
                Err(AskError::Ambiguous { candidates })
            }
        }
    }

    /// Connects to a socket.
    pub fn connect(path: &Path) -> Result<Self, AskError> {
        let connected = UnixStream::connect(path).and_then(|stream| {
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            Ok(stream)
        });
        let stream = connected.map_err(|source| AskError::Connect { path: path.into(), source })?;
        Ok(Asker { path: path.into(), stream: BufReader::new(stream) })
    }

    /// Whose socket it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn greet(&mut self) -> Result<Hello, AskError> {
        let hurry = self.stream.get_ref().set_read_timeout(Some(HELLO_PATIENCE));
        hurry.map_err(|source| AskError::Lost { path: self.path.clone(), source })?;
        self.ask(&Request::new(Ask::Hello))
    }

    /// Who answers.
    pub fn hello(&mut self) -> Result<Hello, AskError> {
        self.ask(&Request::new(Ask::Hello))
    }

    /// All figures.
    pub fn snapshot(&mut self) -> Result<Snapshot, AskError> {
        self.ask(&Request::new(Ask::Top))
    }

    /// All figures as Prometheus text.
    pub fn metrics(&mut self) -> Result<String, AskError> {
        self.ask(&Request::new(Ask::Metrics))
    }

    /// Begins to capture: until this connection ends.
    pub fn capture(&mut self, wish: CaptureWish) -> Result<CaptureStarted, AskError> {
        self.ask(&Request { capture: Some(wish), ..Request::new(Ask::Capture) })
    }

    /// What was captured since the last time.
    pub fn captured(&mut self) -> Result<CapturedPage, AskError> {
        self.ask(&Request::new(Ask::Captured))
    }

    /// A part of a listing: `ask` is `Calls`, `Conns`, `Relayed`, `Peers` or `Locals`, and `T` its row.
    pub fn rows<T: DeserializeOwned>(&mut self, ask: Ask, from: Cursor) -> Result<Rows<T>, AskError> {
        self.ask(&Request { from: Some(from), ..Request::new(ask) })
    }

    fn ask<T: DeserializeOwned>(&mut self, request: &Request) -> Result<T, AskError> {
        let line =
            self.exchange(request).map_err(|source| AskError::Lost { path: self.path.clone(), source })?;
        let answer: Answer<T> = serde_json::from_slice(&line)
            .map_err(|source| AskError::Garbled { path: self.path.clone(), source })?;
        match answer.outcome {
            Outcome::Answer(answer) => Ok(answer),
            Outcome::Error(refusal) => Err(AskError::Refused { path: self.path.clone(), refusal }),
        }
    }

    fn exchange(&mut self, request: &Request) -> io::Result<Vec<u8>> {
        let mut line = serde_json::to_vec(request).expect("plain data");
        line.push(b'\n');
        // One who refuses us may have said so and gone: then what he said is the answer.
        let sent = self.stream.get_mut().write_all(&line);
        let mut answer = Vec::new();
        let got = self.stream.by_ref().take(ANSWER_MAX).read_until(b'\n', &mut answer);
        match (sent, got) {
            (_, Ok(_)) if answer.ends_with(b"\n") => Ok(answer),
            (Err(error), _) | (Ok(()), Err(error)) => Err(error),
            (Ok(()), Ok(_)) => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}
