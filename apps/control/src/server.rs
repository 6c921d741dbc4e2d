//! [`Control`]: the server of the control socket and of `/metrics`: one thread, all clients.
//!
//! The thread blocks in poll(2) and answers one request a client and round, so clients take turns. While it waits for a
//! core (microseconds; a second at most, if the core does not turn), other clients wait, and nobody else does.

use std::io::{self, ErrorKind, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::sockopt::socket_peercred;
use rustix::process::{Uid, geteuid};
use rustix::time::Timespec;

use crate::capturing::Capturing;
use crate::client::{Client, Wish};
use crate::http;
use crate::place::{self, PlaceError, SocketFile};
use crate::prometheus;
use crate::protocol::{self, Ask, ROWS_MAX, Refusal, RefusalCode, Request};
use crate::sources::Sources;

/// Clients of each kind; one more takes the place of whoever was silent longest.
const CLIENTS_MAX: usize = 64;
/// After accept(2) failed (no file descriptor is left), it is tried again this much later.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A process's control socket, served while this lives.
pub struct Control {
    file: Option<SocketFile>,
    metrics: Option<SocketAddr>,
    /// Its end tells the thread to stop.
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

/// Why it could not be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The socket's place.
    #[error("no control socket: {0}")]
    Place(#[from] PlaceError),
    /// The address for `/metrics`.
    #[error("cannot serve metrics on {address}: {source}; give --metrics another address")]
    Metrics {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Threads or file descriptors.
    #[error("no control socket: {0}")]
    System(#[from] io::Error),
}

impl Control {
    /// Serves at `path`, and `/metrics` at `metrics`, whichever are wanted.
    pub fn serve(
        path: Option<&Path>,
        metrics: Option<SocketAddr>,
        sources: Sources,
    ) -> Result<Control, ServeError> {
        let (listener, file) = path.map(place::listen_at).transpose()?.unzip();
        let listen = |address| {
            let tcp = TcpListener::bind(address)?;
            tcp.set_nonblocking(true)?;
            Ok((tcp.local_addr()?, tcp))
        };
        let web = metrics
            .map(|address| listen(address).map_err(|source| ServeError::Metrics { address, source }))
            .transpose()?;
        let (metrics, web) = web.unzip();
        let (stop, stopped) = UnixStream::pair()?;
        let server = Server { sources, listener, web, stopped, clients: Vec::new(), accept_at: None };
        let thread = thread::Builder::new().name("control".into()).spawn(move || server.run())?;
        Ok(Control { file, metrics, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it is served.
    pub fn path(&self) -> Option<&PathBuf> {
        self.file.as_ref().map(|file| &file.path)
    }

    /// Where `/metrics` is served.
    pub fn metrics(&self) -> Option<SocketAddr> {
        self.metrics
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        // The listener has gone with its thread, and its file goes now.
        drop(self.file.take());
    }
}

struct Server {
    sources: Sources,
    listener: Option<UnixListener>,
    web: Option<TcpListener>,
    stopped: UnixStream,
    clients: Vec<Client>,
    /// Nobody is accepted before.
    accept_at: Option<Instant>,
}

impl Server {
    fn run(mut self) {
        loop {
            let ready = match self.wait() {
                Ok(ready) => ready,
                Err(error) => {
                    // Out of memory, or a signal: there is nobody to tell, and no reason to spin.
                    if error.kind() != ErrorKind::Interrupted {
                        thread::sleep(ACCEPT_PAUSE);
                    }
                    continue;
                }
            };
            if ready.stop {
                return;
            }
            let now = Instant::now();
            if self.accept_at.is_some_and(|at| at <= now) {
                self.accept_at = None;
            }
            self.serve_clients(&ready.clients, now);
            if ready.accept {
                self.accept(now);
            }
        }
    }

    /// Blocks until there is something to do.
    fn wait(&self) -> io::Result<Ready> {
        let now = Instant::now();
        let mut fds = vec![PollFd::new(&self.stopped, PollFlags::IN)];
        fds.extend(
            self.clients.iter().map(|client| PollFd::from_borrowed_fd(client.fd(), client.waits_for())),
        );
        if self.accept_at.is_none() {
            fds.extend(self.listener.iter().map(|listener| PollFd::new(listener, PollFlags::IN)));
            fds.extend(self.web.iter().map(|web| PollFd::new(web, PollFlags::IN)));
        }
        let deadlines = self.clients.iter().filter_map(Client::deadline).chain(self.accept_at);
        let due = self.clients.iter().any(Client::is_due).then_some(now);
        let timeout = deadlines.chain(due).min().map(|at| {
            let left = at.saturating_duration_since(now);
            Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() }
        });
        poll(&mut fds, timeout.as_ref())?;
        let mut ready = fds.iter().map(|fd| !fd.revents().is_empty());
        Ok(Ready {
            stop: ready.next() == Some(true),
            clients: ready
                .by_ref()
                .zip(&self.clients)
                .map(|(ready, client)| ready || client.is_due())
                .collect(),
            accept: ready.any(|ready| ready),
        })
    }

    fn serve_clients(&mut self, ready: &[bool], now: Instant) {
        let Server { clients, sources, .. } = self;
        let mut ready = ready.iter();
        clients.retain_mut(|client| {
            let ready = ready.next() == Some(&true);
            let in_time = client.deadline().is_none_or(|at| now < at);
            if ready { serve(client, sources, now).is_ok() } else { in_time }
        });
    }

    fn accept(&mut self, now: Instant) {
        let mut come = Vec::new();
        if let Some(listener) = &self.listener {
            come.extend(taken(listener.accept().map(|(stream, _)| stream)).map(|stream| {
                stream.and_then(|stream| {
                    let peer = socket_peercred(&stream)?.uid;
                    let mut client = Client::unix(stream, now)?;
                    if !may_look(geteuid(), peer) {
                        client.refuse(protocol::line::<()>(Err(not_allowed(peer))), now)?;
                    }
                    Ok(client)
                })
            }));
        }
        if let Some(web) = &self.web {
            let stream = taken(web.accept().map(|(stream, _)| stream));
            come.extend(stream.map(|stream| stream.and_then(|stream| Client::tcp(stream, now))));
        }
        for client in come {
            match client {
                Ok(client) => self.admit(client),
                // No file descriptor is left, or the client has gone again.
                Err(_) => self.accept_at = Some(now + ACCEPT_PAUSE),
            }
        }
    }

    fn admit(&mut self, client: Client) {
        let same = |other: &&mut Client| other.kind == client.kind;
        if self.clients.iter_mut().filter(same).count() >= CLIENTS_MAX {
            let of_kind = self.clients.iter().enumerate().filter(|(_, other)| other.kind == client.kind);
            let silent = of_kind.min_by_key(|(_, other)| other.moved).map(|(at, _)| at);
            silent.map(|at| self.clients.swap_remove(at));
        }
        self.clients.push(client);
    }
}

struct Ready {
    stop: bool,
    /// By client.
    clients: Vec<bool>,
    accept: bool,
}

/// `None`: nobody waits to be accepted.
fn taken<S>(accepted: io::Result<S>) -> Option<io::Result<S>> {
    match accepted {
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        accepted => Some(accepted),
    }
}

/// Whether a process of user `peer` may look into one of user `us`.
fn may_look(us: Uid, peer: Uid) -> bool {
    peer == us || peer.is_root()
}

fn not_allowed(peer: Uid) -> Refusal {
    let message = format!(
        "user {} may not look into a process of user {}: ask as that user or as root",
        peer.as_raw(),
        geteuid().as_raw()
    );
    Refusal::new(RefusalCode::NotAllowed, message)
}

/// Does one thing for a client. An error: it is to be forgotten.
fn serve(client: &mut Client, sources: &Sources, now: Instant) -> io::Result<()> {
    let answer = match client.work(now)? {
        None => return Ok(()),
        Some(Wish::Line(line)) => answer(sources, &mut client.capturing, &line),
        Some(Wish::Http(request)) => http::respond(&request, || prometheus::text(&sources.snapshot())),
    };
    client.answer(answer, Instant::now())
}

/// The answer to a line, as a line.
fn answer(sources: &Sources, capturing: &mut Option<Capturing>, line: &[u8]) -> Vec<u8> {
    let Request { ask, from, rows, capture, .. } = match Request::parse(line) {
        Ok(request) => request,
        Err(refusal) => return protocol::line::<()>(Err(refusal)),
    };
    let (from, rows) = (from.unwrap_or_default(), rows.unwrap_or(ROWS_MAX));
    match ask {
        Ask::Hello => protocol::line(Ok(sources.hello())),
        Ask::Calls => protocol::line(sources.calls(from, rows)),
        Ask::Conns => protocol::line(sources.conns(from, rows)),
        Ask::Relayed => protocol::line(sources.relayed(from, rows)),
        Ask::Peers => protocol::line(sources.peers(from, rows)),
        Ask::Locals => protocol::line(sources.locals(from, rows)),
        Ask::Top => protocol::line(Ok(sources.snapshot())),
        Ask::Metrics => protocol::line(Ok(prometheus::text(&sources.snapshot()))),
        Ask::Capture => {
            // One that it has already is over.
            *capturing = None;
            let started = sources.capture(&capture.unwrap_or_default());
            protocol::line(started.map(|started| capturing.insert(started).started()))
        }
        Ask::Captured => protocol::line(match capturing {
            Some(capturing) => Ok(capturing.page()),
            None => {
                let message = "nothing is captured on this connection: ask for \"capture\" first";
                Err(Refusal::new(RefusalCode::BadRequest, message))
            }
        }),
    }
}

/// Says where a process can be looked into.
impl Control {
    pub(crate) fn announce(&self, command: &str) {
        let mut err = io::stderr().lock();
        if let Some(address) = self.metrics {
            let _ = writeln!(err, "rxline {command}: metrics at http://{address}/metrics");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_user_and_root_may_look() {
        let uid = |raw| Uid::from_raw(raw);
        assert!(may_look(uid(1000), uid(1000)) && may_look(uid(1000), uid(0)) && may_look(uid(0), uid(0)));
        assert!(!may_look(uid(1000), uid(1001)) && !may_look(uid(0), uid(1000)));
    }
}
