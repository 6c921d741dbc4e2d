//! The control thread: one for all memif interfaces of the process, alive while there is any.
//!
//! It listens, connects, speaks with peers, and takes connections down. A client whose server is not there tries again ten times a second,
//! and once a second when the server told it to go; it waits for an answer as long as the server lives. A client that does not finish the
//! handshake in two seconds is dropped. Nothing here ever waits for a peer. Ports are opened and
//! closed under the same lock; queues never take it.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use super::bell::Bell;
use super::handshake::{ClientSide, Connection, Progress, Refusal, ServerSide, hello};
use super::interface::{Claim, Interface};
use super::memory::Memory;
use super::message::Message;
use super::socket::{self, Address, Received};
use crate::time::{Clock, Instant};

/// Clients of one socket that have not finished the handshake.
const PENDING_MAX: usize = 32;
/// Messages that a peer may have said at once: it should have waited for an answer.
const MESSAGES_MAX: usize = 64;
const HANDSHAKE: Duration = Duration::from_secs(2);
const RETRY: Duration = Duration::from_millis(100);
/// After DISCONNECT. DPDK's server says it when its port is closed, and crashes when it is called within the next moments.
const RETRY_TOLD: Duration = Duration::from_secs(1);
/// Why it ended, when nothing is to be said to the peer: it is gone, or said DISCONNECT itself.
const GONE: Refusal = "the peer is gone";
const TOLD: Refusal = "the peer disconnected";

/// Why an interface could not be opened.
pub(super) enum JoinError {
    /// The socket has an interface with this id already.
    IdTaken,
    /// No socket.
    Listen(io::Error),
    /// No thread, or nothing to wake it.
    Thread(io::Error),
}

#[derive(Default)]
struct Control {
    listeners: Vec<Listener>,
    clients: Vec<Client>,
    /// Memory of connections that are over, which queues may still hold. Unmapped here and not by a core.
    fading: Vec<Arc<Memory>>,
    running: bool,
}

fn control() -> MutexGuard<'static, Control> {
    static CONTROL: OnceLock<Mutex<Control>> = OnceLock::new();
    CONTROL.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the control thread sleeps on.
fn bell() -> io::Result<&'static Bell> {
    static BELL: OnceLock<Bell> = OnceLock::new();
    if BELL.get().is_none() {
        // Two may make one; one is kept.
        let _ = BELL.set(Bell::new()?);
    }
    Ok(BELL.get().expect("just set"))
}

/// Has the control thread look around: queues are open, or one found its peer broken.
pub(super) fn wake() {
    if let Ok(bell) = bell() {
        bell.ring();
    }
}

/// Brings an interface to life; a server listens from now on.
pub(super) fn join(interface: &Arc<Interface>) -> Result<(), JoinError> {
    bell().map_err(JoinError::Thread)?;
    let mut control = control();
    if interface.config.server {
        control.serve(interface)?;
    } else {
        control.clients.push(Client::new(interface.clone()));
    }
    if !control.running {
        let spawned = std::thread::Builder::new().name("memif".into()).spawn(run);
        if let Err(error) = spawned {
            control.remove(interface);
            return Err(JoinError::Thread(error));
        }
        control.running = true;
    }
    drop(control);
    wake();
    Ok(())
}

/// Ends an interface, and tells its peer.
pub(super) fn leave(interface: &Arc<Interface>) {
    control().remove(interface);
    wake();
}

impl Control {
    fn serve(&mut self, interface: &Arc<Interface>) -> Result<(), JoinError> {
        let config = &interface.config;
        let known = self.listeners.iter_mut().find(|listener| listener.address == config.address);
        match known {
            Some(listener) if listener.interfaces.iter().any(|other| other.config.id == config.id) => {
                return Err(JoinError::IdTaken);
            }
            Some(listener) => listener.interfaces.push(interface.clone()),
            None => {
                let socket =
                    socket::listen(&config.address).and_then(listen_to).map_err(JoinError::Listen)?;
                let (address, interfaces) = (config.address.clone(), vec![interface.clone()]);
                self.listeners.push(Listener { address, socket, interfaces, peers: Vec::new() });
            }
        }
        Ok(())
    }

    fn remove(&mut self, interface: &Arc<Interface>) {
        const WHY: Refusal = "interface closed";
        let fading = &mut self.fading;
        if let Some(at) = self.clients.iter().position(|client| Arc::ptr_eq(&client.interface, interface)) {
            self.clients.swap_remove(at).end(WHY, fading);
        }
        self.listeners.retain_mut(|listener| {
            let before = listener.interfaces.len();
            listener.interfaces.retain(|other| !Arc::ptr_eq(other, interface));
            if listener.interfaces.len() < before {
                let (gone, stay) =
                    std::mem::take(&mut listener.peers).into_iter().partition(|peer| peer.is_of(interface));
                listener.peers = stay;
                gone.into_iter().for_each(|peer: Peer| peer.end(WHY, fading));
            }
            if listener.interfaces.is_empty() {
                socket::unlink(&listener.address);
            }
            !listener.interfaces.is_empty()
        });
    }

    /// How many milliseconds may pass before something has to be done.
    fn timeout(&self, now: Instant) -> i32 {
        let peers = self.listeners.iter().flat_map(|listener| &listener.peers);
        let due = self.clients.iter().filter_map(Client::due).chain(peers.filter_map(|peer| peer.deadline));
        let fading = (!self.fading.is_empty()).then_some(now + RETRY);
        let next = due.chain(fading).min().map(|at| at.saturating_duration_since(now));
        // Rounded up, so as not to spin through the last millisecond.
        next.map_or(-1, |left| left.as_millis() as i32 + 1)
    }

    /// Looks at everything there is: dozens of sockets at most, and seldom.
    fn look_around(&mut self, now: Instant) {
        for listener in &mut self.listeners {
            listener.look(now, &mut self.fading);
        }
        for client in &mut self.clients {
            client.look(now, &mut self.fading);
        }
        self.fading.retain(|memory| Arc::strong_count(memory) > 1);
    }
}

fn run() {
    let Ok(bell) = bell() else { return };
    loop {
        let mut control = control();
        let now = Clock::now();
        control.look_around(now);
        if control.listeners.is_empty() && control.clients.is_empty() && control.fading.is_empty() {
            control.running = false;
            return;
        }
        let timeout = control.timeout(now);
        drop(control);
        bell.wait(timeout);
    }
}

/// Wakes the control thread when something comes.
fn listen_to(socket: OwnedFd) -> io::Result<OwnedFd> {
    bell()?.add(&socket)?;
    Ok(socket)
}

/// A connection that stands.
struct Live {
    interface: Arc<Interface>,
    _claim: Option<Claim>,
    memory: Arc<Memory>,
    wakers: Vec<OwnedFd>,
}

impl Live {
    fn begin(
        interface: Arc<Interface>,
        claim: Option<Claim>,
        connection: Connection,
    ) -> Result<Live, Refusal> {
        let Connection { links, memory, wakers } = connection;
        for (mailbox, waker) in interface.queues().iter().zip(&wakers) {
            mailbox.bell().add(waker).map_err(|_| "interrupt fd cannot be waited for")?;
        }
        interface.connect(links);
        Ok(Live { interface, _claim: claim, memory, wakers })
    }

    fn end(self, fading: &mut Vec<Arc<Memory>>) {
        self.interface.disconnect();
        for (mailbox, waker) in self.interface.queues().iter().zip(&self.wakers) {
            mailbox.bell().remove(waker);
        }
        fading.push(self.memory);
    }

    /// Said by a peer that is connected.
    fn input(&self, message: &Message) -> Result<(), Refusal> {
        match message {
            Message::Disconnect { .. } => Err(TOLD),
            _ => Err("Unexpected message"),
        }
    }

    fn check(&self) -> Result<(), Refusal> {
        if self.interface.is_broken() { Err("a ring's index is out of its range") } else { Ok(()) }
    }
}

fn refuse(socket: &OwnedFd, why: Refusal) {
    if ![GONE, TOLD].contains(&why) {
        socket::send(socket, &Message::Disconnect { reason: why.into() }, None);
    }
}

/// A server's socket, its interfaces by id, and who is connected.
struct Listener {
    address: Address,
    socket: OwnedFd,
    interfaces: Vec<Arc<Interface>>,
    peers: Vec<Peer>,
}

/// A client of ours.
struct Peer {
    socket: OwnedFd,
    stage: Stage,
    /// When the handshake has to be over.
    deadline: Option<Instant>,
}

enum Stage {
    /// HELLO was said.
    Greeted,
    /// INIT was accepted.
    Adding(Box<ServerSide>),
    Live(Live),
}

impl Listener {
    fn look(&mut self, now: Instant, fading: &mut Vec<Arc<Memory>>) {
        let mut pending = self.peers.iter().filter(|peer| peer.deadline.is_some()).count();
        while pending < PENDING_MAX
            && let Some(socket) = socket::accept(&self.socket)
        {
            if let Ok(socket) = listen_to(socket)
                && socket::send(&socket, &hello(), None)
            {
                self.peers.push(Peer { socket, stage: Stage::Greeted, deadline: Some(now + HANDSHAKE) });
                pending += 1;
            }
        }
        for mut peer in std::mem::take(&mut self.peers) {
            match peer.look(&self.interfaces, now) {
                Ok(()) => self.peers.push(peer),
                Err(why) => peer.end(why, fading),
            }
        }
    }
}

impl Peer {
    fn is_of(&self, interface: &Arc<Interface>) -> bool {
        match &self.stage {
            Stage::Greeted => false,
            Stage::Adding(side) => Arc::ptr_eq(side.interface(), interface),
            Stage::Live(live) => Arc::ptr_eq(&live.interface, interface),
        }
    }

    fn end(self, why: Refusal, fading: &mut Vec<Arc<Memory>>) {
        refuse(&self.socket, why);
        if let Stage::Live(live) = self.stage {
            live.end(fading);
        }
    }

    fn look(&mut self, interfaces: &[Arc<Interface>], now: Instant) -> Result<(), Refusal> {
        for turn in 0.. {
            match socket::receive(&self.socket) {
                Received::Nothing => break,
                _ if turn == MESSAGES_MAX => return Err("too many messages at once"),
                Received::Closed => return Err(GONE),
                Received::Garbage => return Err("Unknown message type or size"),
                Received::Message(message, fd) => {
                    let answer = self.input(interfaces, message, fd)?;
                    if !socket::send(&self.socket, &answer, None) {
                        return Err(GONE);
                    }
                }
            }
        }
        if let Stage::Live(live) = &self.stage {
            live.check()?;
        }
        if self.deadline.is_some_and(|deadline| now > deadline) { Err("too slow") } else { Ok(()) }
    }

    fn input(
        &mut self,
        interfaces: &[Arc<Interface>],
        message: Message,
        fd: Option<OwnedFd>,
    ) -> Result<Message, Refusal> {
        match (std::mem::replace(&mut self.stage, Stage::Greeted), message) {
            (Stage::Greeted, Message::Init(init)) => {
                let with_id = |interface: &&Arc<Interface>| interface.config.id == init.id;
                // An interface without queues is not there yet.
                let interface = interfaces.iter().find(with_id).filter(|found| !found.queues().is_empty());
                let claim = Claim::new(interface.ok_or("ID not found")?).ok_or("Already connected")?;
                self.stage = Stage::Adding(Box::new(ServerSide::new(claim, &init)?));
            }
            (Stage::Adding(side), Message::Connect { .. }) => {
                let (claim, connection) = side.connect()?;
                let interface = claim.interface().clone();
                self.stage = Stage::Live(Live::begin(interface, Some(claim), connection)?);
                self.deadline = None;
                return Ok(Message::Connected { interface: "rxline".into() });
            }
            (Stage::Adding(mut side), message) => {
                side.add(message, fd)?;
                self.stage = Stage::Adding(side);
            }
            (Stage::Live(live), message) => {
                let outcome = live.input(&message);
                self.stage = Stage::Live(live);
                outcome?;
            }
            _ => return Err("Unexpected message"),
        }
        Ok(Message::Ack)
    }
}

/// A client's interface, and where it stands with its server.
struct Client {
    interface: Arc<Interface>,
    retry: Instant,
    talk: Option<Talk>,
}

/// Without a deadline: DPDK's server panics when a client that it was slow to accept has given up meanwhile.
struct Talk {
    socket: OwnedFd,
    stage: ClientStage,
}

enum ClientStage {
    /// The handshake; `None` only while a message is looked at.
    Shaking(Option<ClientSide>),
    Live(Live),
}

impl Client {
    fn new(interface: Arc<Interface>) -> Client {
        Client { interface, retry: Instant::ZERO, talk: None }
    }

    fn due(&self) -> Option<Instant> {
        match &self.talk {
            Some(_) => None,
            None => (!self.interface.queues().is_empty()).then_some(self.retry),
        }
    }

    fn look(&mut self, now: Instant, fading: &mut Vec<Arc<Memory>>) {
        if self.talk.is_none() && !self.interface.queues().is_empty() && now >= self.retry {
            self.retry = now + RETRY;
            let stage = ClientStage::Shaking(Some(ClientSide::Expecting(self.interface.clone())));
            if let Ok(socket) = socket::connect(&self.interface.config.address).and_then(listen_to) {
                self.talk = Some(Talk { socket, stage });
            }
        }
        if let Some(talk) = &mut self.talk
            && let Err(why) = talk.look()
        {
            self.hang_up(why, fading);
            self.retry = now + if why == TOLD { RETRY_TOLD } else { RETRY };
        }
    }

    fn hang_up(&mut self, why: Refusal, fading: &mut Vec<Arc<Memory>>) {
        if let Some(talk) = self.talk.take() {
            refuse(&talk.socket, why);
            if let ClientStage::Live(live) = talk.stage {
                live.end(fading);
            }
        }
    }

    fn end(mut self, why: Refusal, fading: &mut Vec<Arc<Memory>>) {
        self.hang_up(why, fading);
    }
}

impl Talk {
    fn look(&mut self) -> Result<(), Refusal> {
        for turn in 0.. {
            match socket::receive(&self.socket) {
                Received::Nothing => break,
                _ if turn == MESSAGES_MAX => return Err("too many messages at once"),
                Received::Closed => return Err(GONE),
                Received::Garbage => return Err("Unknown message type or size"),
                Received::Message(message, _fd) => self.input(message)?,
            }
        }
        match &self.stage {
            ClientStage::Live(live) => live.check(),
            ClientStage::Shaking(_) => Ok(()),
        }
    }

    fn input(&mut self, message: Message) -> Result<(), Refusal> {
        let side = match &mut self.stage {
            ClientStage::Live(live) => return live.input(&message),
            ClientStage::Shaking(side) => side.take(),
        };
        if let Message::Disconnect { .. } = message {
            return Err(TOLD);
        }
        let (next, progress) = side.ok_or("Unexpected message")?.input(message)?;
        match progress {
            Progress::Say((message, fd)) => {
                self.stage = ClientStage::Shaking(next);
                let fd = fd.as_ref().map(AsRawFd::as_raw_fd);
                if !socket::send(&self.socket, &message, fd) {
                    return Err(GONE);
                }
            }
            Progress::Connected(interface, connection) => {
                self.stage = ClientStage::Live(Live::begin(interface, None, connection)?);
            }
        }
        Ok(())
    }
}
