//! [`RxHandler`]: puts an [`Endpoint`] and an [`App`] on a core of the engine.
//!
//! It owns both and decides nothing: datagrams go to the endpoint, the endpoint's events to the app, and what the
//! endpoint wants sent goes out through the stack.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use arrayvec::ArrayVec;
use engine::{BURST, Cx, Datagram, Handler, Instant, Mbuf, Outcome, REFUSALS_MAX, Socket};

use crate::control::Done;
use crate::locals::{Local, Locals};
use crate::path_mtu::must_stay_whole;
use crate::{
    App, CallId, Claim, Endpoint, EndpointConfig, Gate, NetError, RelayView, Rx, RxDrop, SharedCall,
};

/// Events an app is given in one turn; what is left is the next turn's.
pub const EVENTS_PER_TURN: usize = 256;
/// Bursts that a core sends in one turn, between two looks at what came in.
pub const BURSTS_PER_TURN: usize = 8;

/// Set in the cookie of a port that only the app knows; its tag is below.
pub(crate) const GATE: u64 = 1 << 63;

/// The names of [`RxDrop`] at their places, and an app's behind them. Too many of them do not compile.
const fn refusals(apps: &[&'static str]) -> [&'static str; REFUSALS_MAX] {
    let mut names = [""; REFUSALS_MAX];
    let mut i = 0;
    while i < RxDrop::ALL.len() {
        names[RxDrop::ALL[i] as usize] = RxDrop::ALL[i].name();
        i += 1;
    }
    let mut i = 0;
    while i < apps.len() {
        names[RxDrop::ALL.len() + i] = apps[i];
        i += 1;
    }
    names
}

/// What other threads tell a core that runs Rx.
pub enum RxCommand<C> {
    /// Serve an address.
    #[doc(hidden)]
    Open { cookie: u64, addr: SocketAddr, client: bool, gate: bool, done: Done },
    /// Leave an address.
    #[doc(hidden)]
    Close { cookie: u64, done: Done },
    /// Look at the endpoint.
    #[doc(hidden)]
    Inspect(Inspect),
    /// For the app.
    App(C),
}

/// What a view wants of a core.
pub type Inspect = Box<dyn FnOnce(Look<'_>) + Send>;

/// What a view may look at, on the core and between two packets: nothing is half done, and nothing is freed meanwhile.
#[derive(Clone, Copy)]
pub struct Look<'a> {
    /// The protocol's state.
    pub endpoint: &'a Endpoint,
    /// The name of what threads share of a call.
    pub shared: &'a dyn Fn(CallId) -> Option<SharedCall>,
    /// What the app passes on.
    pub relayed: &'a dyn Fn(usize, &mut Vec<RelayView>) -> Option<usize>,
}

/// Rx on one core: the endpoint, and the app that uses it.
pub struct RxHandler<A: App> {
    endpoint: Endpoint,
    locals: Locals,
    app: A,
    /// The last turn left events over: the next must not wait.
    events_left: bool,
    staged: ArrayVec<(SocketAddr, SocketAddr, Mbuf), BURST>,
    /// When the endpoint is told the time of day next.
    tell_time: Instant,
}

/// The time of day is looked at so often: the system may set it anew.
const TIME_FRESH: Duration = Duration::from_secs(10);

impl<A: App> RxHandler<A> {
    const NAMES: [&'static str; REFUSALS_MAX] = refusals(A::REFUSALS);

    /// An endpoint without addresses, and `app` on it. `seed` decides the epoch and connection ids: give each core and
    /// each start another.
    pub fn new(config: EndpointConfig, seed: u64, app: A) -> Self {
        RxHandler {
            endpoint: Endpoint::new(config, seed),
            locals: Locals::default(),
            app,
            events_left: false,
            staged: ArrayVec::new(),
            tell_time: Instant::ZERO,
        }
    }

    /// The same, with an event log; see [`trace_ring`](crate::trace_ring).
    pub fn traced(mut self, sink: Option<crate::TraceSink>) -> Self {
        self.endpoint.set_trace(sink);
        self
    }

    /// Runs `f` on the app with what it may work with.
    fn with<R>(&mut self, cx: &mut Cx<'_>, f: impl FnOnce(&mut A, &mut Rx<'_>) -> R) -> R {
        let (now, guard) = (cx.now, cx.guard());
        let (pool, steering) = cx.split();
        f(
            &mut self.app,
            &mut Rx { now, pool, endpoint: &mut self.endpoint, steering, guard, locals: &self.locals },
        )
    }

    fn open(&mut self, cx: &mut Cx<'_>, cookie: u64, addr: SocketAddr, client: bool, gate: bool, done: Done) {
        match self.endpoint.add_local(addr) {
            Ok(id) => {
                self.locals.insert(Local { cookie, id, addr, client, gate });
                self.with(cx, |app, rx| app.opened(rx, id, addr));
            }
            Err(_) => done.refuse(),
        }
    }

    fn close(&mut self, cx: &mut Cx<'_>, cookie: u64) {
        // Unknown if it could not be opened on this core.
        let Some(Local { id, addr, .. }) = self.locals.remove(cookie) else { return };
        self.endpoint.remove_local(cx.now, id);
        self.with(cx, |app, rx| app.closed(rx, id, addr));
    }

    /// What the app makes of a datagram at a gate; of an outcome, what the engine counts.
    fn claim(&mut self, cx: &mut Cx<'_>, gate: Gate, datagram: Datagram) -> Claim {
        match self.app.datagram(cx, gate, datagram) {
            Claim::Done(Outcome::Refused(which)) => {
                Claim::Done(Outcome::Refused(RxDrop::ALL.len() as u8 + which))
            }
            claim => claim,
        }
    }

    /// Where a socket's datagrams are shown to the app.
    fn gate(&self, socket: &Socket) -> Option<Gate> {
        let cookie = socket.cookie();
        if cookie & GATE != 0 {
            return Some(Gate::Port(cookie as u32));
        }
        self.locals.by_cookie(cookie).filter(|local| local.gate).map(|local| Gate::Local(local.id))
    }

    fn events(&mut self, cx: &mut Cx<'_>) {
        self.events_left = true;
        for _ in 0..EVENTS_PER_TURN {
            let Some(event) = self.endpoint.poll_event() else {
                self.events_left = false;
                return;
            };
            self.with(cx, |app, rx| app.event(rx, event));
        }
    }
}

/// What the network's answer means for a call; `None`: nothing, but the path may have become narrower.
fn net_error(error: engine::NetError) -> Option<NetError> {
    Some(match error {
        engine::NetError::PortUnreachable | engine::NetError::ProtocolUnreachable => {
            NetError::PortUnreachable
        }
        engine::NetError::HostUnreachable
        | engine::NetError::TimeExceeded
        | engine::NetError::NeighbourUnresolved => NetError::HostUnreachable,
        engine::NetError::NetUnreachable => NetError::NetworkUnreachable,
        engine::NetError::Prohibited => NetError::Prohibited,
        // The stack has learned the path's MTU and sends fragments from here on; jumbograms become smaller.
        engine::NetError::MessageTooBig { .. } => return None,
        engine::NetError::ParameterProblem => return None,
    })
}

impl<A: App> Handler for RxHandler<A> {
    type Command = RxCommand<A::Command>;

    const REFUSALS: &'static [&'static str] = &Self::NAMES;

    /// Nothing else protects calls without security from bits that flip on the way.
    const CHECKSUM_REQUIRED: bool = true;

    fn input(&mut self, cx: &mut Cx<'_>, socket: &Socket, mut datagram: Datagram) -> Outcome {
        let cookie = socket.cookie();
        if cookie & GATE != 0 {
            return match self.claim(cx, Gate::Port(cookie as u32), datagram) {
                Claim::Done(outcome) => outcome,
                Claim::Endpoint(_) => Outcome::Refused(RxDrop::NoLocal as u8),
            };
        }
        let Some(&Local { id, gate, .. }) = self.locals.by_cookie(cookie) else {
            return Outcome::Refused(RxDrop::NoLocal as u8);
        };
        if gate {
            match self.claim(cx, Gate::Local(id), datagram) {
                Claim::Done(outcome) => return outcome,
                Claim::Endpoint(back) => datagram = back,
            }
        }
        match self.endpoint.input(cx.now, cx.pool, id, datagram.peer, datagram.payload) {
            Ok(()) => Outcome::Consumed,
            Err(reason) => Outcome::Refused(reason as u8),
        }
    }

    fn unreachable(&mut self, cx: &mut Cx<'_>, socket: &Socket, peer: SocketAddr, error: engine::NetError) {
        if let Some(gate) = self.gate(socket) {
            self.app.unreachable(cx, gate, peer, error);
        }
        let Some(local) = self.locals.by_cookie(socket.cookie()).map(|local| local.id) else { return };
        match net_error(error) {
            Some(error) => self.endpoint.unreachable(cx.now, local, peer, error),
            None => self.endpoint.path_mtu(cx.now, local, peer, cx.mtu_for(peer)),
        }
    }

    fn command(&mut self, cx: &mut Cx<'_>, command: Self::Command) {
        match command {
            RxCommand::Open { cookie, addr, client, gate, done } => {
                self.open(cx, cookie, addr, client, gate, done);
            }
            RxCommand::Close { cookie, done } => {
                self.close(cx, cookie);
                drop(done);
            }
            RxCommand::Inspect(look) => {
                let app = &self.app;
                look(Look {
                    endpoint: &self.endpoint,
                    shared: &|call| app.shared_call(call),
                    relayed: &|from, rows| app.relayed(from, rows),
                });
            }
            RxCommand::App(command) => self.with(cx, |app, rx| app.command(rx, command)),
        }
    }

    fn expire(&mut self, cx: &mut Cx<'_>) {
        if cx.now >= self.tell_time {
            self.tell_time = cx.now + TIME_FRESH;
            let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            self.endpoint.set_unix_time(cx.now, unix);
        }
        self.endpoint.expire(cx.now);
        self.events(cx);
        self.with(cx, |app, rx| app.expire(rx));
    }

    fn transmit(&mut self, cx: &mut Cx<'_>) {
        // Staged by the burst, because the stack needs the core's buffers as much as the endpoint does.
        for _ in 0..BURSTS_PER_TURN {
            if !self.endpoint.wants_transmit() {
                return;
            }
            let staged = &mut self.staged;
            self.endpoint.transmit(cx.now, cx.pool, &mut |_, from, to, payload| {
                staged.push((from, to, payload));
                !staged.is_full()
            });
            let full = self.staged.is_full();
            for (from, to, payload) in self.staged.drain(..) {
                // What the stack cannot send it drops under a name; for the endpoint it is a loss like any other.
                if must_stay_whole(&payload) && payload.len() > cx.mtu_for(to) {
                    continue;
                }
                let _ = cx.send(from, to, payload);
            }
            if !full {
                return;
            }
        }
    }

    fn next_timeout(&self) -> Option<Instant> {
        if self.events_left || self.endpoint.wants_transmit() {
            return Some(Instant::default());
        }
        [self.endpoint.next_timeout(), self.app.next_timeout()].into_iter().flatten().min()
    }
}
