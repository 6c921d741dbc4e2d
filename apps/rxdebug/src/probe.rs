//! Questions and answers.

use rxrpc::wire::debug::{
    Connection, DebugError, DebugKind, DebugReply, DebugRequest, Peer, REPLY_LEN_MAX, RxStatistics, Stats,
};
use rxrpc::wire::{HEADER_LEN, Header, PacketType, parse_version};
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

/// The most records that a list may have before it is taken for endless.
pub const LIST_MAX: u32 = 1 << 20;

/// How long to wait for an answer, and how often to ask again.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Wait for one answer.
    pub timeout: Duration,
    /// Questions before giving up; at least 1.
    pub tries: u32,
}

/// Asks one server.
#[derive(Debug)]
pub struct Probe {
    socket: UdpSocket,
    server: SocketAddr,
    patience: Patience,
    /// Number of the last question, which its answer repeats.
    number: u32,
}

impl Probe {
    /// Gets ready to ask `server`. Nothing is sent yet.
    pub fn open(server: SocketAddr, patience: Patience) -> Result<Self, ProbeError> {
        let any = match server {
            SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
        };
        let socket = UdpSocket::bind(any)
            .and_then(|socket| socket.connect(server).map(|()| socket))
            .map_err(|error| ProbeError::Socket { server, error })?;
        // OpenAFS's starts at 100 too; the number only has to differ from question to question.
        Ok(Self { socket, server, patience, number: 100 })
    }

    /// The server's version string.
    pub fn version(&mut self) -> Result<String, ProbeError> {
        self.ask(PacketType::Version, &[0]).map(|body| parse_version(&body))
    }

    /// Basic figures.
    pub fn stats(&mut self) -> Result<Stats, ProbeError> {
        match self.record(DebugKind::Stats, 0)? {
            DebugReply::Stats(stats) => Ok(stats),
            _ => Err(self.unsupported("statistics")),
        }
    }

    /// All counters.
    pub fn rx_statistics(&mut self) -> Result<RxStatistics, ProbeError> {
        match self.record(DebugKind::RxStatistics, 0)? {
            DebugReply::RxStatistics(stats) => Ok(stats),
            _ => Err(self.unsupported("counters")),
        }
    }

    /// Connections: those in use, or all.
    pub fn connections(&mut self, all: bool) -> Result<Vec<Connection>, ProbeError> {
        let kind = if all { DebugKind::AnyConnection } else { DebugKind::Connection };
        self.list("connections", kind, |reply| match reply {
            DebugReply::Connection(conn) => Some(Some(conn)),
            DebugReply::NoConnection => Some(None),
            _ => None,
        })
    }

    /// All peers.
    pub fn peers(&mut self) -> Result<Vec<Peer>, ProbeError> {
        self.list("peers", DebugKind::Peer, |reply| match reply {
            DebugReply::Peer(peer) => Some(Some(peer)),
            DebugReply::NoPeer => Some(None),
            _ => None,
        })
    }

    /// Asks for records until there are no more. `pick` returns `None` for a reply of no list.
    fn list<T>(
        &mut self,
        what: &'static str,
        kind: DebugKind,
        pick: impl Fn(DebugReply) -> Option<Option<T>>,
    ) -> Result<Vec<T>, ProbeError> {
        let mut records = Vec::new();
        for index in 0..LIST_MAX {
            let reply = self.record(kind, index)?;
            match pick(reply).ok_or_else(|| self.unsupported(what))? {
                Some(record) => records.push(record),
                None => return Ok(records),
            }
        }
        Err(ProbeError::Endless { server: self.server, what })
    }

    fn record(&mut self, kind: DebugKind, index: u32) -> Result<DebugReply, ProbeError> {
        let body = self.ask(PacketType::Debug, &DebugRequest::new(kind, index).to_bytes())?;
        DebugReply::parse(kind, &body).map_err(|error| ProbeError::Unreadable { server: self.server, error })
    }

    /// Sends a question until it is answered, and returns the answer's body.
    fn ask(&mut self, packet_type: PacketType, body: &[u8]) -> Result<Vec<u8>, ProbeError> {
        self.number += 1;
        let header = DebugRequest::header(packet_type, self.number);
        let question = [header.to_bytes().as_slice(), body].concat();
        for _ in 0..self.patience.tries {
            self.socket.send(&question).map_err(|error| self.socket_error(error))?;
            if let Some(answer) = self.wait_for(&header)? {
                return Ok(answer);
            }
        }
        let Patience { timeout, tries } = self.patience;
        Err(ProbeError::NoAnswer { server: self.server, tries, timeout })
    }

    /// Waits for the answer to `question` and passes over everything else. `None`: the time is up.
    fn wait_for(&self, question: &Header) -> Result<Option<Vec<u8>>, ProbeError> {
        let deadline = Instant::now() + self.patience.timeout;
        // A byte more than any answer has, so that what is longer than it should be can be told.
        let mut packet = [0; HEADER_LEN + REPLY_LEN_MAX + 1];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.socket.set_read_timeout(Some(left)).map_err(|error| self.socket_error(error))?;
            match self.socket.recv(&mut packet) {
                Ok(len) => match Header::parse(&packet[..len]) {
                    Ok((header, body)) if is_answer(&header, question) => return Ok(Some(body.to_vec())),
                    _ => continue,
                },
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return Ok(None);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.socket_error(error)),
            }
        }
    }

    fn socket_error(&self, error: io::Error) -> ProbeError {
        let server = self.server;
        match error.kind() {
            ErrorKind::ConnectionRefused => ProbeError::NothingListens { server },
            _ => ProbeError::Socket { server, error },
        }
    }

    fn unsupported(&self, what: &'static str) -> ProbeError {
        ProbeError::Unsupported { server: self.server, what }
    }
}

fn is_answer(header: &Header, question: &Header) -> bool {
    !header.from_client() && header.packet_type == question.packet_type && header.call == question.call
}

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// Silence.
    #[error(
        "{server} did not answer (asked {tries} times, waited {timeout:?} each time): is it an Rx server, and reachable?"
    )]
    NoAnswer {
        /// Who was asked.
        server: SocketAddr,
        /// How often.
        tries: u32,
        /// How long each time.
        timeout: Duration,
    },
    /// The host says that the port is closed.
    #[error("nothing listens on {server}: is the server running, and is it that port?")]
    NothingListens {
        /// Who was asked.
        server: SocketAddr,
    },
    /// The server does not know this kind of question.
    #[error("{server} cannot tell its {what}: it is older than that part of the protocol")]
    Unsupported {
        /// Who was asked.
        server: SocketAddr,
        /// For what.
        what: &'static str,
    },
    /// The answer makes no sense.
    #[error("{server} answered what cannot be read: {error}")]
    Unreadable {
        /// Who was asked.
        server: SocketAddr,
        /// What is wrong with it.
        error: DebugError,
    },
    /// A list without an end.
    #[error("{server} lists more than {LIST_MAX} {what}: given up")]
    Endless {
        /// Who was asked.
        server: SocketAddr,
        /// For what.
        what: &'static str,
    },
    /// Our own side failed.
    #[error("cannot ask {server}: {error}")]
    Socket {
        /// Who was to be asked.
        server: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
}
