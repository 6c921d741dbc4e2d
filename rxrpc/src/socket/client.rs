//! [`Client`]: calls other people's services.

use std::net::SocketAddr;
use std::sync::Arc;

use super::ServiceId;
use super::api::Api;
use super::call::Call;
use super::call_io;
use super::call_ref::{CallRef, Service, Work};
use super::call_shared::CallPeer;
use super::error::{BindFailed, CallFailed};
use super::socket_shared::SocketShared;
use crate::{CallOptions, Credentials, Role, Target};

/// A socket for calling. Its calls share connections, and run on one core of the engine; clients of an engine take
/// turns at its cores.
///
/// Dropping a client closes it, which releases all its calls and aborts those in progress.
pub struct Client {
    pub(super) api: Arc<Api>,
    pub(super) socket: Arc<SocketShared>,
    core: usize,
    credentials: Option<Credentials>,
}

impl Client {
    pub(super) fn open(api: &Arc<Api>) -> Result<Self, BindFailed> {
        let (socket, core) = (api.open_socket(None, None, None)?, api.next_core());
        Ok(Client { api: api.clone(), socket, core, credentials: None })
    }

    /// The same client with these credentials for all its calls; those that a call brings itself come first.
    #[must_use]
    pub fn credentials(mut self, credentials: Credentials) -> Self {
        self.credentials = Some(credentials);
        self
    }

    /// Begins a call.
    pub fn call(&self, peer: SocketAddr, service: ServiceId) -> Result<Call, CallFailed> {
        self.call_with(Target::new(peer, service.0), CallOptions::default())
    }

    /// Begins a call with options of its own: time limits, an exclusive connection, a service upgrade, a declared length; or in a
    /// group of connections of its own.
    pub fn call_with(&self, target: Target, options: CallOptions) -> Result<Call, CallFailed> {
        Ok(self.begin(target, options, None)?.0)
    }

    /// A whole call: sends the request, waits for the reply and returns it.
    pub fn request(
        &self,
        peer: SocketAddr,
        service: ServiceId,
        request: &[u8],
    ) -> Result<Vec<u8>, CallFailed> {
        let target = Target::new(peer, service.0);
        let (mut call, put) = self.begin(target, CallOptions::default(), Some(request))?;
        if put < request.len() {
            wanted(call.send(&request[put..]).and_then(|()| call.finish()))?;
        }
        call.read_all()
    }

    /// [`request`](Self::request), as a future.
    pub async fn request_async(
        &self,
        peer: SocketAddr,
        service: ServiceId,
        request: &[u8],
    ) -> Result<Vec<u8>, CallFailed> {
        let target = Target::new(peer, service.0);
        let (mut call, put) = self.begin(target, CallOptions::default(), Some(request))?;
        if put < request.len() {
            let sent = call.send_async(&request[put..]).await;
            wanted(sent.and_then(|()| call.finish()))?;
        }
        call.read_all_async().await
    }

    /// Closes the client, as dropping it does: all its calls are released, those in progress aborted. Waits until every
    /// core knows.
    pub fn close(&self) {
        self.api.close_socket(&self.socket);
    }

    /// Begins a call. What there is room for of a whole request goes along with it; returns how much that is.
    fn begin(
        &self,
        target: Target,
        mut options: CallOptions,
        request: Option<&[u8]>,
    ) -> Result<(Call, usize), CallFailed> {
        options.credentials = options.credentials.or_else(|| self.credentials.clone());
        let half = self.api.new_call(&self.socket, None, self.core)?;
        let held = CallRef::<Service>::take(&half.shared).expect("a new call has no holder");
        let work = CallRef::<Work>::take(&half.shared).expect("a new call is not queued");
        let peer = CallPeer { addr: target.peer, service: target.service };
        let call = Call::new(held, self.api.clone(), Role::Client, peer);
        call_io::declare(&half.shared, options.tx_length.take())?;
        let mut put = 0;
        if let Some(request) = request {
            put = call_io::try_put(&self.api, &half.shared, request)?.unwrap_or(0);
            if put == request.len() {
                call_io::finish(&half.shared)?;
            }
        }
        self.api.begin(half, work, target, options)?;
        Ok((call, put))
    }
}

/// A server may reply before it has the whole request: the rest of it is not wanted then, which is no failure.
fn wanted(sent: Result<(), CallFailed>) -> Result<(), CallFailed> {
    match sent {
        Err(CallFailed::Ended(end)) if end.is_success() => Ok(()),
        sent => sent,
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.close();
    }
}
