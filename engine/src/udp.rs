//! Plain UDP: the handler whose sockets are read by threads, tasks or event loops, or served by a closure on the core.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use pmd::{DATA_ROOM, Mbuf};

use crate::control::{BindError, CommandSender, CoreLink, Op, SocketHandle};
use crate::cx::Cx;
use crate::engine::Engine;
use crate::handler::{Handler, Outcome};
use crate::ring::SendError;
use crate::socket::Socket;
use crate::stack::{Datagram, NetError};
use crate::wq::SocketWq;

/// Bytes of the addresses that [`pack`] puts in front of a payload: family, ports, and two addresses with their scopes.
const PACKED: usize = 1 + 2 + 2 + 2 * (16 + 4);

/// Writes the addresses into the headroom that the headers left, so that a queue of datagrams is a list of buffers.
pub(crate) fn pack(datagram: Datagram) -> Option<Mbuf> {
    let Datagram { local, peer, mut payload } = datagram;
    let room = payload.prepend(PACKED)?;
    room[0] = if local.is_ipv4() { 4 } else { 6 };
    for (i, addr) in [local, peer].into_iter().enumerate() {
        room[1 + 2 * i..][..2].copy_from_slice(&addr.port().to_be_bytes());
        let place = &mut room[5 + 20 * i..][..20];
        match addr {
            SocketAddr::V4(addr) => place[..4].copy_from_slice(&addr.ip().octets()),
            SocketAddr::V6(addr) => {
                place[..16].copy_from_slice(&addr.ip().octets());
                place[16..].copy_from_slice(&addr.scope_id().to_be_bytes());
            }
        }
    }
    Some(payload)
}

/// The opposite of [`pack`].
fn unpack(mut payload: Mbuf) -> Datagram {
    let room = payload.data();
    let addr = |i: usize| {
        let port = u16::from_be_bytes([room[1 + 2 * i], room[2 + 2 * i]]);
        let place = &room[5 + 20 * i..][..20];
        let word = |at: usize| <[u8; 4]>::try_from(&place[at..at + 4]).expect("four bytes");
        if room[0] == 4 {
            return SocketAddr::new(IpAddr::V4(Ipv4Addr::from(word(0))), port);
        }
        let ip = Ipv6Addr::from(<[u8; 16]>::try_from(&place[..16]).expect("sixteen bytes"));
        SocketAddr::V6(SocketAddrV6::new(ip, port, 0, u32::from_be_bytes(word(16))))
    };
    let (local, peer) = (addr(0), addr(1));
    payload.advance(PACKED);
    Datagram { local, peer, payload }
}

/// A closure that takes a socket's datagrams on the core.
type Service = Box<dyn FnMut(&mut Cx<'_>, &Socket, Datagram) -> Outcome + Send>;

/// The handler of a plain UDP engine.
#[derive(Default)]
pub struct UdpHandler {
    /// By cookie; cookie 0 means the socket's readers.
    services: Vec<Option<Service>>,
}

/// What [`Udp`] tells the cores.
pub enum UdpCommand {
    #[doc(hidden)]
    Serve { cookie: u64, service: ServiceBox, ready: mpsc::SyncSender<()> },
    #[doc(hidden)]
    Stop { cookie: u64 },
}

#[doc(hidden)]
pub struct ServiceBox(Service);

impl Handler for UdpHandler {
    type Command = UdpCommand;
    const REFUSALS: &'static [&'static str] = &["service_gone"];

    fn input(&mut self, cx: &mut Cx<'_>, socket: &Socket, datagram: Datagram) -> Outcome {
        if socket.cookie() == 0 {
            return cx.deliver(socket, datagram);
        }
        match self.services.get_mut(socket.cookie() as usize) {
            Some(Some(service)) => service(cx, socket, datagram),
            _ => Outcome::Refused(0),
        }
    }

    fn unreachable(&mut self, cx: &mut Cx<'_>, socket: &Socket, peer: SocketAddr, error: NetError) {
        socket.set_error(peer, error);
        cx.notify(socket);
    }

    fn command(&mut self, _cx: &mut Cx<'_>, command: UdpCommand) {
        match command {
            UdpCommand::Serve { cookie, service: ServiceBox(service), ready } => {
                let at = cookie as usize;
                if self.services.len() <= at {
                    self.services.resize_with(at + 1, || None);
                }
                self.services[at] = Some(service);
                // The channel has room for every core; nobody listens any more if binding failed.
                let _ = ready.try_send(());
            }
            UdpCommand::Stop { cookie } => {
                if let Some(service) = self.services.get_mut(cookie as usize) {
                    *service = None;
                }
            }
        }
    }
}

/// Plain UDP on an engine: see [`Engine::udp`].
pub struct Udp<'e> {
    engine: &'e Engine<UdpHandler>,
}

/// Cookies of services that are gone, and the last new one.
#[derive(Default)]
struct Cookies {
    free: Vec<u64>,
    last: u64,
}

impl Engine<UdpHandler> {
    /// Plain UDP sockets.
    pub fn udp(&self) -> Udp<'_> {
        Udp { engine: self }
    }
}

impl Udp<'_> {
    /// Binds a socket for threads and tasks. Port 0 means any free port.
    pub fn bind(&self, addr: SocketAddr) -> Result<UdpSocket, BindError> {
        Ok(UdpSocket { handle: self.engine.bind(addr, 0)? })
    }

    /// Binds a socket that hears only `peer`, and is told when `peer` cannot be reached.
    pub fn connect(&self, addr: SocketAddr, peer: SocketAddr) -> Result<UdpSocket, BindError> {
        Ok(UdpSocket { handle: self.engine.bind_connected(addr, peer, 0)? })
    }

    /// As [`connect`](Self::connect), on a port such that the replies come to core `core`: `addr` is one of the engine's, its port 0.
    pub fn connect_on(
        &self,
        core: usize,
        addr: SocketAddr,
        peer: SocketAddr,
    ) -> Result<UdpSocket, BindError> {
        Ok(UdpSocket { handle: self.engine.bind_on(core, addr, peer, 0)? })
    }

    /// Serves a socket on the cores themselves: a clone of `service` on each core takes the datagrams of the flows that the core
    /// owns. It must not block.
    pub fn serve<F>(&self, addr: SocketAddr, service: F) -> Result<UdpService, BindError>
    where
        F: FnMut(&mut Cx<'_>, &Socket, Datagram) -> Outcome + Clone + Send + 'static,
    {
        let cores: Vec<_> = (0..self.engine.cores()).map(|core| self.engine.commands(core)).collect();
        let cookie = {
            let mut cookies = lock(&COOKIES);
            cookies.free.pop().unwrap_or_else(|| {
                cookies.last += 1;
                cookies.last
            })
        };
        let (ready, installed) = mpsc::sync_channel(cores.len());
        let mut bound = UdpService { cookie, handle: None, cores };
        for core in &bound.cores {
            let service = ServiceBox(Box::new(service.clone()));
            let serve = UdpCommand::Serve { cookie, service, ready: ready.clone() };
            core.send(serve).map_err(|_| BindError::Stopped)?;
        }
        drop(ready);
        // Published only when every core has it.
        bound.cores.iter().try_for_each(|_| installed.recv()).map_err(|_| BindError::Stopped)?;
        bound.handle = Some(self.engine.bind(addr, cookie)?);
        Ok(bound)
    }
}

static COOKIES: Mutex<Cookies> = Mutex::new(Cookies { free: Vec::new(), last: 0 });

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A socket served on the cores; dropping it closes the socket.
pub struct UdpService {
    cookie: u64,
    handle: Option<SocketHandle>,
    cores: Vec<CommandSender<UdpCommand>>,
}

impl UdpService {
    /// The address it is bound to, the port filled in.
    pub fn local_addr(&self) -> SocketAddr {
        self.handle.as_ref().expect("set for as long as a user has it").local_addr()
    }
}

impl Drop for UdpService {
    fn drop(&mut self) {
        self.handle = None;
        for core in &self.cores {
            // A stopped core has dropped the service already.
            let _ = core.send(UdpCommand::Stop { cookie: self.cookie });
        }
        lock(&COOKIES).free.push(self.cookie);
    }
}

/// Why nothing was received.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RecvError {
    /// Nothing waits.
    #[error("nothing to receive now")]
    WouldBlock,
    /// Nothing came in time.
    #[error("nothing was received in time")]
    TimedOut,
    /// The socket or its engine is closed, and nothing is left to read.
    #[error("the socket is closed")]
    Closed,
    /// The network says that an earlier datagram to `peer` did not arrive.
    #[error("{peer}: {error}")]
    Unreachable {
        /// Whom it was for.
        peer: SocketAddr,
        /// Why.
        error: NetError,
    },
}

/// Why nothing was sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum UdpSendError {
    /// The core has not caught up with what was sent before.
    #[error("the core is busy with earlier datagrams: try again, or use the blocking send_to")]
    WouldBlock,
    /// A datagram holds 65,507 bytes at most.
    #[error("{len} bytes do not fit a UDP datagram, which holds 65507: send less")]
    TooBig {
        /// What was given, bytes.
        len: usize,
    },
    /// The socket or its engine is closed.
    #[error("the socket is closed")]
    Closed,
}

/// The largest UDP payload over IPv4, bytes.
const PAYLOAD_MAX: usize = 65_507;

/// A UDP socket for threads (blocking), tasks (`poll_`) and event loops (eventfd). `&self` everywhere: threads may share it.
pub struct UdpSocket {
    handle: SocketHandle,
}

impl UdpSocket {
    /// The address it is bound to, the port filled in.
    pub fn local_addr(&self) -> SocketAddr {
        self.handle.local_addr()
    }

    /// Has `wq` woken in place of the socket's own wait queue: see [`SocketHandle::graft`].
    pub fn graft(&self, wq: Arc<SocketWq>) -> bool {
        self.handle.graft(wq)
    }

    /// Closes the socket for everyone who shares it; who waits for a datagram is told.
    pub fn close(&self) {
        self.handle.close();
    }

    /// Receives the next datagram into `buffer`, blocking. Returns its length in full, which is more than `buffer` holds if it was cut.
    pub fn recv_from(&self, buffer: &mut [u8]) -> Result<(usize, SocketAddr), RecvError> {
        self.recv_until(None, buffer)
    }

    /// As [`recv_from`](Self::recv_from), for at most `timeout`.
    pub fn recv_timeout(
        &self,
        timeout: Duration,
        buffer: &mut [u8],
    ) -> Result<(usize, SocketAddr), RecvError> {
        self.recv_until(Some(Instant::now() + timeout), buffer)
    }

    fn recv_until(
        &self,
        deadline: Option<Instant>,
        buffer: &mut [u8],
    ) -> Result<(usize, SocketAddr), RecvError> {
        match self.try_recv_from(buffer) {
            Err(RecvError::WouldBlock) => {}
            result => return result,
        }
        let received = self.handle.wait(deadline, || self.attempt(buffer));
        received.unwrap_or(Err(if self.handle.socket().is_closed() {
            RecvError::Closed
        } else {
            RecvError::TimedOut
        }))
    }

    /// Receives the next datagram if one waits.
    pub fn try_recv_from(&self, buffer: &mut [u8]) -> Result<(usize, SocketAddr), RecvError> {
        if let Some(result) = self.attempt(buffer) {
            return result;
        }
        self.handle.arm_event(|| self.handle.socket().is_readable());
        Err(RecvError::WouldBlock)
    }

    /// The asynchronous form: the task is woken when it is worth another try.
    pub fn poll_recv_from(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<Result<(usize, SocketAddr), RecvError>> {
        let received = self.handle.poll(cx, || self.attempt(buffer));
        received.map(|received| received.unwrap_or(Err(RecvError::Closed)))
    }

    /// As [`recv_from`](Self::recv_from), as a future.
    pub async fn recv_from_async(&self, buffer: &mut [u8]) -> Result<(usize, SocketAddr), RecvError> {
        std::future::poll_fn(|cx| self.poll_recv_from(cx, buffer)).await
    }

    /// A datagram, an error of the network, or the end; `None`: nothing now.
    fn attempt(&self, buffer: &mut [u8]) -> Option<Result<(usize, SocketAddr), RecvError>> {
        if let Some(mbuf) = self.handle.take() {
            let Datagram { peer, payload, .. } = unpack(mbuf);
            payload.copy_to(0, buffer);
            return Some(Ok((payload.len(), peer)));
        }
        let socket = self.handle.socket();
        if let Some((peer, error)) = socket.take_error().filter(|_| socket.peer().is_some()) {
            return Some(Err(RecvError::Unreachable { peer, error }));
        }
        socket.is_closed().then_some(Err(RecvError::Closed))
    }

    /// Readable when [`try_recv_from`](Self::try_recv_from) is worth calling; call that until it says `WouldBlock`, which arms the
    /// event anew.
    pub fn event_fd(&self) -> io::Result<OwnedFd> {
        let wq = self.handle.wq().ok_or(io::ErrorKind::NotConnected)?;
        let fd = wq.event_fd()?.try_clone_to_owned()?;
        self.handle.arm_event(|| self.handle.socket().is_readable());
        Ok(fd)
    }

    /// Sends a datagram, blocking while the core is busy with earlier ones.
    pub fn send_to(&self, payload: &[u8], peer: SocketAddr) -> Result<(), UdpSendError> {
        let credits = &self.link(peer).credits_wq;
        let attempt = || match self.try_send_to(payload, peer) {
            Err(UdpSendError::WouldBlock) => None,
            result => Some(result),
        };
        credits.wait(None, attempt).unwrap_or(Err(UdpSendError::Closed))
    }

    /// Sends a datagram if the core can take it now. The payload is copied once, into a buffer of the core's.
    pub fn try_send_to(&self, payload: &[u8], peer: SocketAddr) -> Result<(), UdpSendError> {
        if payload.len() > PAYLOAD_MAX {
            return Err(UdpSendError::TooBig { len: payload.len() });
        }
        if self.handle.socket().is_closed() {
            return Err(UdpSendError::Closed);
        }
        let link = self.link(peer);
        let payload = {
            let mut credits = lock(&link.credits);
            let gone = if credits.is_abandoned() { UdpSendError::Closed } else { UdpSendError::WouldBlock };
            copy_in(&mut credits, payload).ok_or(gone)?
        };
        let from = self.handle.local_addr();
        match link.ops.try_send(Op::Send { from, to: peer, payload }) {
            Ok(()) => Ok(()),
            Err(SendError::Full(_)) => Err(UdpSendError::WouldBlock),
            Err(SendError::Stopped(_)) => Err(UdpSendError::Closed),
        }
    }

    /// The core that owns the flow sends for it, so that a flow's datagrams keep their order.
    fn link(&self, peer: SocketAddr) -> &CoreLink {
        let sockets = self.handle.sockets();
        &sockets.cores[sockets.ownership.owner(self.handle.local_addr(), peer)]
    }
}

/// Copies `payload` into empty buffers, if there are enough.
fn copy_in(credits: &mut rtrb::Consumer<Mbuf>, payload: &[u8]) -> Option<Mbuf> {
    let wanted = payload.len().div_ceil(DATA_ROOM).max(1);
    if credits.slots() < wanted {
        return None;
    }
    let mut chunks = payload.chunks(DATA_ROOM);
    let mut fill = || {
        let mut mbuf = credits.pop().ok()?;
        let chunk = chunks.next().unwrap_or(&[]);
        mbuf.append(chunk.len())?.copy_from_slice(chunk);
        Some(mbuf)
    };
    let mut first = fill()?;
    for _ in 1..wanted {
        first.chain(fill()?);
    }
    Some(first)
}
