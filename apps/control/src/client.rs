//! One client of the server: bytes in, requests out; answers in, bytes out. Bounded in both directions.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;

use crate::capturing::Capturing;
use crate::http;
use crate::protocol::{self, REQUEST_MAX, Refusal, RefusalCode};

/// How long a client may take for a request that it began, or to read its answer, without a byte that moves.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Which protocol it speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Lines of JSON.
    Control,
    /// HTTP, for Prometheus.
    Metrics,
}

/// See the module.
pub(crate) struct Client {
    stream: Stream,
    pub kind: Kind,
    /// Bytes of requests; less than one request at rest.
    input: Vec<u8>,
    /// What is left to be written.
    output: Vec<u8>,
    written: usize,
    /// When a byte last moved.
    pub moved: Instant,
    /// Nothing more is read: it ends when the answer is written.
    closing: bool,
    /// What it captures, for as long as it is here.
    pub capturing: Option<Capturing>,
}

enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

/// What a client wants.
pub(crate) enum Wish {
    /// The answer to a line.
    Line(Vec<u8>),
    /// The answer to an HTTP request.
    Http(Vec<u8>),
}

impl Client {
    pub fn unix(stream: UnixStream, now: Instant) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Client::new(Stream::Unix(stream), Kind::Control, now))
    }

    pub fn tcp(stream: TcpStream, now: Instant) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Client::new(Stream::Tcp(stream), Kind::Metrics, now))
    }

    fn new(stream: Stream, kind: Kind, now: Instant) -> Self {
        let (input, output) = (Vec::new(), Vec::new());
        Client { stream, kind, input, output, written: 0, moved: now, closing: false, capturing: None }
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        match &self.stream {
            Stream::Unix(stream) => stream.as_fd(),
            Stream::Tcp(stream) => stream.as_fd(),
        }
    }

    /// What is waited for: nothing is read while an answer is not written, so a client that does not read is not heard.
    pub fn waits_for(&self) -> PollFlags {
        if self.owes() { PollFlags::OUT } else { PollFlags::IN }
    }

    /// Whether there is something to do without a byte that comes: a request that came with another, or the end.
    pub fn is_due(&self) -> bool {
        !self.owes() && (self.closing || self.kind == Kind::Control && self.input.contains(&b'\n'))
    }

    fn owes(&self) -> bool {
        self.written < self.output.len()
    }

    /// Whether it is between two requests.
    pub fn is_idle(&self) -> bool {
        self.kind == Kind::Control && self.input.is_empty() && !self.owes()
    }

    /// When it has taken too long. Who captures costs the cores something, and must keep asking.
    pub fn deadline(&self) -> Option<Instant> {
        (!self.is_idle() || self.capturing.is_some()).then_some(self.moved + PATIENCE)
    }

    /// Moves what can be moved. A whole request is the caller's to answer. An error: it is gone.
    pub fn work(&mut self, now: Instant) -> io::Result<Option<Wish>> {
        self.write(now)?;
        if self.owes() {
            return Ok(None);
        }
        if let Some(wish) = self.next_wish() {
            return Ok(Some(wish));
        }
        if self.closing {
            return Err(ErrorKind::ConnectionAborted.into());
        }
        self.read(now)?;
        match self.next_wish() {
            None if self.closing => Err(ErrorKind::ConnectionAborted.into()),
            None if self.input.len() == REQUEST_MAX => self.refuse_long(now).map(|()| None),
            wish => Ok(wish),
        }
    }

    /// Takes an answer, and writes as much of it as goes.
    pub fn answer(&mut self, answer: Vec<u8>, now: Instant) -> io::Result<()> {
        self.output = answer;
        self.written = 0;
        self.moved = now;
        self.write(now)
    }

    /// Takes the last answer.
    pub fn refuse(&mut self, answer: Vec<u8>, now: Instant) -> io::Result<()> {
        self.closing = true;
        self.input.clear();
        self.answer(answer, now)
    }

    /// A request that fills the room for one and has not come to its end.
    fn refuse_long(&mut self, now: Instant) -> io::Result<()> {
        let what = format!("a request has at most {REQUEST_MAX} bytes");
        let answer = match self.kind {
            Kind::Control => protocol::line::<()>(Err(Refusal::new(RefusalCode::TooLong, what))),
            Kind::Metrics => http::refusal("431 Request Header Fields Too Large", &what),
        };
        self.refuse(answer, now)
    }

    fn next_wish(&mut self) -> Option<Wish> {
        match self.kind {
            Kind::Control => {
                let end = self.input.iter().position(|&byte| byte == b'\n')?;
                let mut line: Vec<u8> = self.input.drain(..=end).collect();
                line.pop();
                Some(Wish::Line(line))
            }
            Kind::Metrics if http::is_whole(&self.input) => {
                self.closing = true;
                Some(Wish::Http(std::mem::take(&mut self.input)))
            }
            Kind::Metrics => None,
        }
    }

    /// Reads up to the end of what a request may be, and no further.
    fn read(&mut self, now: Instant) -> io::Result<()> {
        let mut bytes = [0; REQUEST_MAX];
        let room = REQUEST_MAX - self.input.len();
        match self.stream.read(&mut bytes[..room]) {
            Ok(0) => {
                self.closing = true;
                Ok(())
            }
            Ok(n) => {
                self.input.extend_from_slice(&bytes[..n]);
                self.moved = now;
                Ok(())
            }
            Err(error) if is_later(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn write(&mut self, now: Instant) -> io::Result<()> {
        while self.owes() {
            match self.stream.write(&self.output[self.written..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(n) => {
                    self.written += n;
                    self.moved = now;
                }
                Err(error) if is_later(&error) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        // An answer's memory is not kept for a client that may stay silent from here on.
        self.output = Vec::new();
        self.written = 0;
        Ok(())
    }
}

fn is_later(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

impl Stream {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Unix(stream) => stream.read(bytes),
            Stream::Tcp(stream) => stream.read(bytes),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Unix(stream) => stream.write(bytes),
            Stream::Tcp(stream) => stream.write(bytes),
        }
    }
}
