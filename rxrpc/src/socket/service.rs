//! [`Service`]: a bound address that takes calls for one service.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::ServiceId;
use super::api::{Api, Local, lock};
use super::call::{Call, poll};
use super::command::{Charge, SocketCommand};
use super::completion::CallEnd;
use super::error::{AcceptFailed, BindFailed, CallFailed};
use super::inline::{InlineService, ServedCall};
use super::socket_shared::SocketShared;
use crate::{Role, Security, ServiceConfig};

/// A bound address with a service, whose calls threads and tasks take.
///
/// Calls are accepted ahead of time: for each core as many as the backlog says are charged, and each that is taken is
/// charged again. Dropping a service closes it, which releases all its calls and aborts those in progress.
pub struct Service {
    api: Arc<Api>,
    socket: Arc<SocketShared>,
    local: Arc<Local>,
    security: Security,
    /// Charged accepts on each core that no call has used yet.
    charged: Mutex<Vec<usize>>,
}

impl Service {
    pub(super) fn bind(
        api: &Arc<Api>,
        local: Arc<Local>,
        service: ServiceId,
        security: Security,
    ) -> Result<Self, BindFailed> {
        let config = ServiceConfig {
            backlog: api.config.backlog,
            auto_charge: false,
            security: security.clone(),
            ..ServiceConfig::new(service.0)
        };
        let socket = api.open_socket(Some(local.addr()), Some(config), None)?;
        let charged = Mutex::new(vec![0; api.cores.len()]);
        let service = Service { api: api.clone(), socket, local, security, charged };
        service.charge();
        Ok(service)
    }

    /// Says how callers prove who they are. With [`Security::none`], which is also the default, they do not.
    ///
    /// The service is bound anew with it: calls that came in since `bind` are aborted, and none that was not asked for the proof is
    /// ever seen.
    pub fn security(self, security: Security) -> Result<Self, BindFailed> {
        if security == self.security {
            return Ok(self);
        }
        let (api, local, service) = (self.api.clone(), self.local.clone(), ServiceId(self.socket.service));
        drop(self);
        Self::bind(&api, local, service, security)
    }

    /// Lets clients that ask for an upgrade have service `to` instead of this one, if somebody offers that on the same address;
    /// `None` ends it. Holds for connections that begin from here on.
    pub fn set_upgrade(&self, to: Option<ServiceId>) -> Result<(), BindFailed> {
        self.api.set_upgrade(&self.socket, to)
    }

    /// The bound address.
    pub fn local_addr(&self) -> SocketAddr {
        self.local.addr()
    }

    /// Brings the charged accepts of every core up to the backlog, as far as there may be calls.
    fn charge(&self) {
        self.socket.wants_calls.store(false, Ordering::SeqCst);
        if !self.charge_all() {
            // A call may have ended before the core could see that we want one.
            self.socket.wants_calls.store(true, Ordering::SeqCst);
            self.charge_all();
        }
    }

    /// False: the limit on calls stopped it. Cores take turns, so that the limit does not go to the first ones.
    fn charge_all(&self) -> bool {
        let mut charged = lock(&self.charged);
        let mut full = false;
        while !full {
            full = true;
            for (core, charged) in charged.iter_mut().enumerate() {
                if *charged == self.api.config.backlog {
                    continue;
                }
                match self.charge_one(core) {
                    Ok(()) => *charged += 1,
                    Err(error) => return !matches!(error, CallFailed::TooManyCalls { .. }),
                }
                full = false;
            }
        }
        true
    }

    fn charge_one(&self, core: usize) -> Result<(), CallFailed> {
        let half = self.api.new_call(&self.socket, None, core)?;
        match self.api.tell(core, SocketCommand::Charge(Charge::new(half))) {
            true => Ok(()),
            false => Err(CallFailed::Ended(CallEnd::CoreGone)),
        }
    }

    /// Takes the next call, if there is one.
    pub fn try_accept(&self) -> Result<Option<Call>, AcceptFailed> {
        loop {
            let Some(link) = self.socket.queue().pop() else { break };
            let shared = link.shared();
            if shared.is_released() {
                continue;
            }
            if shared.lingering.load(Ordering::Acquire) {
                if shared.completion.get().is_some() {
                    self.api.release_id(&self.socket, shared.user_id(), 0);
                    self.charge();
                }
                continue;
            }
            let core = shared.core;
            let Some(peer) = shared.peer.get() else { continue };
            let Some(held) = link.pass() else { continue };
            lock(&self.charged)[core] -= 1;
            self.charge();
            return Ok(Some(Call::new(held, self.api.clone(), Role::Service, peer)));
        }
        if self.socket.wants_calls.load(Ordering::Relaxed) {
            self.charge();
        }
        if self.socket.is_closed() {
            Err(AcceptFailed::Closed)
        } else if self.socket.is_dead() {
            Err(AcceptFailed::Shutdown)
        } else {
            Ok(None)
        }
    }

    /// Waits for the next call.
    pub fn accept(&self) -> Result<Call, AcceptFailed> {
        self.accept_until(None)
    }

    /// Waits for the next call, for so long at most.
    pub fn accept_timeout(&self, timeout: Duration) -> Result<Call, AcceptFailed> {
        self.accept_until(Some(Instant::now() + timeout))
    }

    fn accept_until(&self, deadline: Option<Instant>) -> Result<Call, AcceptFailed> {
        let accepted = self.socket.readable.wait(deadline, || self.try_accept().transpose());
        accepted.unwrap_or(Err(AcceptFailed::TimedOut))
    }

    /// Waits for the next call, as a future.
    pub async fn accept_async(&self) -> Result<Call, AcceptFailed> {
        poll(|cx| self.socket.readable.poll(cx, || self.try_accept().transpose())).await
    }

    /// The calls as they come in, until the service is closed or the engine shut down.
    pub fn incoming(&self) -> impl Iterator<Item = Call> + '_ {
        std::iter::from_fn(|| self.accept().ok())
    }

    /// A file descriptor that is readable when [`try_accept`](Self::try_accept) may find something, for an event loop
    /// of your own. Call `try_accept` until it returns `None`, then [`arm`](Self::arm), before you poll it again.
    pub fn event_fd(&self) -> std::io::Result<std::os::fd::BorrowedFd<'_>> {
        self.socket.readable.event_fd()
    }

    /// Asks for one signal on [`event_fd`](Self::event_fd).
    pub fn arm(&self) {
        self.socket.readable.arm_event(|| !self.socket.queue().is_empty() || self.socket.is_dead());
    }

    /// Closes the service, as dropping it does: who waits for a call is told, all its calls are released, those in
    /// progress aborted. Waits until every core knows.
    pub fn close(&self) {
        self.api.close_socket(&self.socket);
    }

    /// Answers calls on the cores from here on, each when its request is complete, with no thread in between.
    ///
    /// `answer` runs on every core: it must not block. The service recharges itself.
    pub fn serve(
        self,
        answer: impl Fn(&mut ServedCall<'_, '_>) + Send + Sync + 'static,
    ) -> Result<InlineServing, BindFailed> {
        let (api, local, service) = (self.api.clone(), self.local.clone(), self.socket.service);
        let security = self.security.clone();
        drop(self);
        let config = ServiceConfig { backlog: api.config.backlog, security, ..ServiceConfig::new(service) };
        let inline = InlineService { answer: Arc::new(answer), request_max: api.config.inline_request_max };
        let socket = api.open_socket(Some(local.addr()), Some(config), Some(inline))?;
        Ok(InlineServing { api, socket, local })
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.close();
    }
}

/// A service that the cores answer. Dropping it closes it.
pub struct InlineServing {
    api: Arc<Api>,
    socket: Arc<SocketShared>,
    local: Arc<Local>,
}

impl InlineServing {
    /// The bound address.
    pub fn local_addr(&self) -> SocketAddr {
        self.local.addr()
    }
}

impl Drop for InlineServing {
    fn drop(&mut self) {
        self.api.close_socket(&self.socket);
    }
}
