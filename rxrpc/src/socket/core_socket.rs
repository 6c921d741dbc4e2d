//! The sockets of one core, by [`SocketId`].

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use rtrb::Producer;

use super::SocketId;
use super::call_shared::CallName;
use super::command::Charge;
use super::inline::InlineService;
use super::socket_table::SocketTable;
use crate::control::Done;
use crate::{ListenError, LocalId, Rx, ServiceConfig};

/// A socket as it is sent to a core, which has no reference on what threads share of it: it finds that by name. Dropping
/// this tells the socket, if it is still there, that this core serves it no more.
pub struct SocketHalf {
    pub(super) id: SocketId,
    pub(super) sockets: Arc<SocketTable>,
    pub(super) queue: Producer<CallName>,
    /// The bound address; a client has none.
    pub(super) local: Option<SocketAddr>,
    pub(super) service: Option<ServiceConfig>,
    /// Answers on the core; `None`: threads take the calls.
    pub(super) inline: Option<InlineService>,
    pub(super) failed: Arc<OnceLock<ListenError>>,
    pub(super) done: Option<Done>,
}

impl Drop for SocketHalf {
    fn drop(&mut self) {
        self.sockets.with(self.id, |shared| shared.core_left());
    }
}

/// A socket on its core.
pub(super) struct CoreSocket {
    pub(super) half: SocketHalf,
    /// Where it listens, and for which service.
    pub(super) service: Option<(LocalId, u16)>,
    /// Accepts charged with a call each, in the order they were charged.
    pub(super) charged: VecDeque<Charge>,
    /// It is woken at the end of this burst.
    pub(super) touched: bool,
}

impl CoreSocket {
    pub(super) fn id(&self) -> SocketId {
        self.half.id
    }

    /// Puts a call on the socket's receive queue.
    pub(super) fn link(&mut self, call: CallName) {
        // The ring has room for every call that the socket may have, and each is on it once at most.
        let pushed = self.half.queue.push(call);
        debug_assert!(pushed.is_ok(), "a receive ring is as long as its socket may have calls");
    }
}

/// A core's table of sockets.
#[derive(Default)]
pub(super) struct CoreSockets {
    slots: Vec<Option<CoreSocket>>,
}

impl CoreSockets {
    /// The socket of this name; `None`: it is gone.
    pub(super) fn get(&mut self, id: SocketId) -> Option<&mut CoreSocket> {
        self.slots.get_mut(id.slot as usize)?.as_mut().filter(|socket| socket.id() == id)
    }

    /// The socket that listens for a service. A core has a handful of them.
    pub(super) fn listening(&mut self, local: LocalId, service: u16) -> Option<&mut CoreSocket> {
        self.slots.iter_mut().flatten().find(|socket| socket.service == Some((local, service)))
    }

    /// Takes a socket in, and has it listen if it is a service.
    pub(super) fn open(&mut self, rx: &mut Rx<'_>, mut half: SocketHalf) {
        let done = half.done.take();
        let service = match listen(rx, &half) {
            Ok(service) => service,
            Err(error) => {
                let _ = half.failed.set(error);
                return;
            }
        };
        let slot = half.id.slot as usize;
        if slot >= self.slots.len() {
            self.slots.resize_with(slot + 1, || None);
        }
        let backlog = half.service.as_ref().map_or(0, |service| service.backlog);
        debug_assert!(self.slots[slot].is_none(), "a slot is free on every core before it is given again");
        let charged = VecDeque::with_capacity(backlog);
        self.slots[slot] = Some(CoreSocket { half, service, charged, touched: false });
        drop(done);
    }

    /// Takes a socket out; it listens no more.
    pub(super) fn close(&mut self, rx: &mut Rx<'_>, id: SocketId) -> Option<CoreSocket> {
        self.get(id)?;
        let socket = self.slots[id.slot as usize].take()?;
        if let Some((local, service)) = socket.service {
            // Unknown if the address was closed before: then it does not listen either.
            let _ = rx.endpoint.unlisten(local, service);
        }
        Some(socket)
    }
}

fn listen(rx: &mut Rx<'_>, half: &SocketHalf) -> Result<Option<(LocalId, u16)>, ListenError> {
    let (Some(addr), Some(service)) = (half.local, &half.service) else { return Ok(None) };
    let local = local_of(rx, addr)?;
    rx.listen(local, service.clone())?;
    Ok(Some((local, service.service)))
}

/// The local of a socket's bound address.
pub(super) fn local_of(rx: &Rx<'_>, addr: SocketAddr) -> Result<LocalId, ListenError> {
    rx.local(addr).ok_or(ListenError::UnknownLocal)
}
