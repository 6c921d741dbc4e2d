//! [`RxSocket`]: the AF_RXRPC vocabulary. One socket, many calls, each under an ID of the user's own.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::ServiceId;
use super::api::{Api, Local, lock};
use super::call::poll;
use super::call_io;
use super::call_ref::{CallRef, ReceiveQueue, UserId, Work};
use super::call_shared::{CallShared, CoreHalf};
use super::command::{Charge, SocketCommand};
use super::error::{AcceptFailed, BindFailed, CallFailed};
use super::message::Message;
use super::socket_shared::SocketShared;
use crate::{CallOptions, CallTimeouts, ServiceConfig, Target};

/// A socket whose calls go by user IDs and whose reader is told of all of them: for programs with a loop of their own.
///
/// A call exists from [`call`](Self::call) or [`charge`](Self::charge) until its terminal [`Message`] was received, or
/// [`release`](Self::release) or [`reject`](Self::reject) gave it up. From that moment its ID is free.
/// Dropping the socket closes it: all its calls are released, incomplete ones aborted.
pub struct RxSocket {
    pub(super) api: Arc<Api>,
    pub(super) socket: Arc<SocketShared>,
    local: Option<Arc<Local>>,
    core: usize,
    exclusive: AtomicBool,
    charges: Mutex<Charges>,
}

/// Accepts charged and not used yet, of at most `backlog`.
struct Charges {
    backlog: usize,
    charged: usize,
    next_core: usize,
}

impl RxSocket {
    pub(super) fn open(
        api: &Arc<Api>,
        local: Option<Arc<Local>>,
        service: Option<(ServiceId, usize)>,
    ) -> Result<Self, BindFailed> {
        let backlog = service.map_or(0, |(_, backlog)| backlog);
        let config = service.map(|(id, backlog)| ServiceConfig {
            backlog,
            auto_charge: false,
            ..ServiceConfig::new(id.0)
        });
        let socket = api.open_socket(local.as_ref().map(|local| local.addr()), config, None)?;
        let charges = Mutex::new(Charges { backlog, charged: 0, next_core: 0 });
        let exclusive = AtomicBool::new(false);
        Ok(RxSocket { api: api.clone(), socket, local, core: api.next_core(), exclusive, charges })
    }

    /// The bound address; a socket that only calls has none.
    pub fn local_addr(&self) -> Option<std::net::SocketAddr> {
        self.local.as_ref().map(|local| local.addr())
    }

    // ---- calls ----

    /// Charges an accept: the next call that comes in gets this user ID. The cores take turns, so a service on several
    /// cores wants several accepts charged on each.
    pub fn charge(&self, user_id: u64) -> Result<(), CallFailed> {
        let mut charges = lock(&self.charges);
        if charges.backlog == 0 {
            return Err(CallFailed::NotListening);
        }
        if charges.charged == charges.backlog {
            return Err(CallFailed::BacklogFull { backlog: charges.backlog });
        }
        let core = charges.next_core;
        let (half, ()) = self.name_call(user_id, core, |_| ())?;
        charges.next_core = (core + 1) % self.api.cores.len();
        charges.charged += 1;
        drop(charges);
        self.api.tell(core, SocketCommand::Charge(Charge::new(half)));
        Ok(())
    }

    /// Begins a call under this user ID.
    pub fn call(&self, user_id: u64, target: Target, mut options: CallOptions) -> Result<(), CallFailed> {
        options.exclusive |= self.exclusive.load(Ordering::Relaxed);
        let length = options.tx_length.take();
        let (half, work) = self.name_call(user_id, self.core, |shared| {
            // Nothing was sent yet on a call that nobody knows.
            let _ = call_io::declare(shared, length);
            CallRef::<Work>::take(shared)
        })?;
        let work = work.expect("nobody knew the call");
        self.api.begin(half, work, target, options)
    }

    /// Gives every call that begins from here on a connection of its own: EXCLUSIVE_CONNECTION. For single calls there is
    /// [`CallOptions::exclusive`].
    pub fn set_exclusive(&self, exclusive: bool) {
        self.exclusive.store(exclusive, Ordering::Relaxed);
    }

    /// Lets clients that ask for an upgrade have service `to` instead of this socket's, if a socket offers that on the same
    /// address; `None` ends it. Holds for connections that begin from here on: UPGRADEABLE_SERVICE.
    pub fn set_upgrade(&self, to: Option<ServiceId>) -> Result<(), BindFailed> {
        self.api.set_upgrade(&self.socket, to)
    }

    /// Changes the time limits of a call in progress, all three at once; the hard one counts from now: SET_CALL_TIMEOUT.
    pub fn set_call_timeouts(&self, user_id: u64, timeouts: CallTimeouts) -> Result<(), CallFailed> {
        let shared = self.find(user_id)?;
        self.api.set_timeouts(&shared, timeouts);
        Ok(())
    }

    /// Declares how many bytes will be sent on a call, before the first of them: TX_LENGTH. The last packet is marked exactly,
    /// the data ends by itself with the last byte, and more or less than that is refused.
    pub fn set_tx_length(&self, user_id: u64, bytes: u64) -> Result<(), CallFailed> {
        call_io::declare(&*self.find(user_id)?, Some(bytes))
    }

    /// The service that a server's answer named to a call that asked for an upgrade, as soon as some of the reply is here.
    pub fn upgraded(&self, user_id: u64) -> Result<Option<ServiceId>, CallFailed> {
        let service = self.find(user_id)?.upgraded.load(Ordering::Relaxed);
        Ok((service != 0).then_some(ServiceId(service as u16)))
    }

    /// Makes a call and puts it into the user-ID tree, if the ID is free. `before` that nobody knows the call.
    fn name_call<T>(
        &self,
        user_id: u64,
        core: usize,
        before: impl FnOnce(&Arc<CallShared>) -> T,
    ) -> Result<(Box<CoreHalf>, T), CallFailed> {
        let mut ids = self.socket.ids();
        if ids.contains_key(&user_id) {
            return Err(CallFailed::UserIdInUse(user_id));
        }
        // Under the tree's lock: close marks the socket before it takes the tree, so it finds the call or we find it closed.
        let half = self.api.new_call(&self.socket, Some(user_id), core)?;
        let held = CallRef::<UserId>::take(&half.shared).expect("a new call has no holder");
        let before = before(&half.shared);
        ids.insert(user_id, held);
        Ok((half, before))
    }

    pub(super) fn find(&self, user_id: u64) -> Result<Arc<CallShared>, CallFailed> {
        let ids = self.socket.ids();
        ids.get(&user_id).map(|held| held.shared().clone()).ok_or(CallFailed::UnknownUserId(user_id))
    }

    /// Sends bytes of a call, waiting for room; `more` false ends this side's data.
    pub fn send(&self, user_id: u64, mut bytes: &[u8], more: bool) -> Result<(), CallFailed> {
        let shared = self.find(user_id)?;
        while !bytes.is_empty() {
            let put = shared.writable.wait(None, || call_io::try_put(&self.api, &shared, bytes).transpose());
            bytes = &bytes[put.unwrap_or(Err(CallFailed::TimedOut))?..];
            if more || !bytes.is_empty() {
                self.api.queue_work(&shared);
            }
        }
        if !more {
            let ended = call_io::finish(&shared);
            self.api.queue_work(&shared);
            ended?;
        }
        Ok(())
    }

    /// Sends as many bytes as there is room for, and says how many; the data ends with them if `more` is false and all
    /// of them were taken.
    pub fn try_send(&self, user_id: u64, bytes: &[u8], more: bool) -> Result<usize, CallFailed> {
        let shared = self.find(user_id)?;
        let put = call_io::try_put(&self.api, &shared, bytes)?.unwrap_or(0);
        let ended = if !more && put == bytes.len() { call_io::finish(&shared) } else { Ok(()) };
        self.api.queue_work(&shared);
        ended.map(|()| put)
    }

    /// Aborts a call. Its terminal message follows.
    pub fn abort(&self, user_id: u64, code: i32) -> Result<(), CallFailed> {
        let shared = self.find(user_id)?;
        shared.request_abort(code);
        self.api.queue_work(&shared);
        Ok(())
    }

    /// Refuses a call that came in: aborts and releases it. No message follows.
    pub fn reject(&self, user_id: u64, code: i32) -> Result<(), CallFailed> {
        let shared = self.find(user_id)?;
        let accept = shared.is_charged() || shared.peer.get().is_some();
        if !self.api.release_id(&self.socket, user_id, code) {
            return Err(CallFailed::UnknownUserId(user_id));
        }
        if accept && !shared.announced.swap(true, Ordering::Relaxed) {
            lock(&self.charges).charged -= 1;
        }
        Ok(())
    }

    /// Gives a call up, in whatever state it is; an incomplete one is aborted. No message follows.
    pub fn release(&self, user_id: u64) -> Result<(), CallFailed> {
        self.reject(user_id, crate::code::USER_ABORT)
    }

    // ---- messages ----

    /// The next message, if there is one. Data goes into `out`; what has no room there is the next message.
    pub fn try_recv(&self, out: &mut [u8]) -> Result<Option<Message>, AcceptFailed> {
        loop {
            let Some(link) = self.socket.queue().pop() else { break };
            if link.is_released() {
                continue;
            }
            if let Some(message) = self.message_of(link, out) {
                return Ok(Some(message));
            }
        }
        if self.socket.is_closed() {
            Err(AcceptFailed::Closed)
        } else if self.socket.is_dead() {
            Err(AcceptFailed::Shutdown)
        } else {
            Ok(None)
        }
    }

    /// What there is to say of a call. Queues it again if that is not all.
    fn message_of(&self, link: CallRef<ReceiveQueue>, out: &mut [u8]) -> Option<Message> {
        let shared = link.shared();
        let user_id = shared.user_id();
        if let Some(peer) = shared.peer.get()
            && !shared.announced.swap(true, Ordering::Relaxed)
        {
            lock(&self.charges).charged -= 1;
            self.renotify(link);
            return Some(Message::NewCall { user_id, peer });
        }
        if !shared.end_told.load(Ordering::Relaxed) {
            match call_io::try_recv(&self.api, shared, out) {
                Ok(Some(bytes)) => {
                    let end = bytes == 0 || call_io::is_at_end(shared);
                    shared.end_told.store(end, Ordering::Relaxed);
                    self.renotify(link);
                    return Some(Message::Data { user_id, bytes, end });
                }
                Ok(None) => {}
                Err(_) => return self.terminal(shared),
            }
        }
        self.terminal(shared)
    }

    /// The terminal message, if the call is complete and nothing is left to read. Releases the call.
    fn terminal(&self, shared: &CallShared) -> Option<Message> {
        let end = shared.completion.get()?;
        let is_client = shared.peer.get().is_none();
        // A client's call has succeeded when its endpoint has the reply; its reader may have some of it yet to come.
        if end.is_success() && is_client && !shared.end_told.load(Ordering::Relaxed) {
            return None;
        }
        // Another reader may have been faster.
        let user_id = shared.user_id();
        self.api.release_id(&self.socket, user_id, 0).then(|| Message::terminal(user_id, end))
    }

    /// Queues a call again of which a reader left something behind.
    fn renotify(&self, link: CallRef<ReceiveQueue>) {
        if call_io::is_readable(&link) || link.completion.get().is_some() {
            self.socket.queue().put_back(link);
            self.socket.readable.wake_all();
        }
    }

    /// Waits for the next message.
    pub fn recv(&self, out: &mut [u8]) -> Result<Message, AcceptFailed> {
        self.recv_until(None, out)
    }

    /// Waits for the next message, for so long at most.
    pub fn recv_timeout(&self, timeout: Duration, out: &mut [u8]) -> Result<Message, AcceptFailed> {
        self.recv_until(Some(Instant::now() + timeout), out)
    }

    fn recv_until(&self, deadline: Option<Instant>, out: &mut [u8]) -> Result<Message, AcceptFailed> {
        let message = self.socket.readable.wait(deadline, || self.try_recv(out).transpose());
        message.unwrap_or(Err(AcceptFailed::TimedOut))
    }

    /// Waits for the next message, as a future.
    pub async fn recv_async(&self, out: &mut [u8]) -> Result<Message, AcceptFailed> {
        poll(|cx| self.socket.readable.poll(cx, || self.try_recv(out).transpose())).await
    }

    /// Closes the socket, as dropping it does: who waits for a message is told, all its calls are released, those in
    /// progress aborted. Waits until every core knows.
    pub fn close(&self) {
        self.api.close_socket(&self.socket);
    }
}

impl Drop for RxSocket {
    fn drop(&mut self) {
        self.close();
    }
}
