//! [`Call`]: a handle on one call, for a thread or a task.

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::{Duration, Instant};

use super::api::Api;
use super::call_io::{self, failure};
use super::call_ref::{CallRef, Service};
use super::call_shared::{CallPeer, CallShared};
use super::completion::CallEnd;
use super::error::CallFailed;
use crate::{CallTimeouts, Completion, Role, code};

/// One call, either way round: bytes out, bytes in, and an end.
///
/// A client sends its request, [`finish`](Self::finish)es it and reads the reply; a service reads the request and
/// [`reply`](Self::reply)s. Each operation comes in three forms: one that blocks the thread, `try_` which never waits,
/// and `_async`, which needs no particular runtime.
///
/// Dropping a call releases it, and aborts it with RX_USER_ABORT if it is still in progress. The exception is a
/// service's call whose reply was finished: that one goes on until the client has all of it.
pub struct Call {
    /// `None` only while the handle is being taken apart.
    held: Option<CallRef<Service>>,
    api: Arc<Api>,
    role: Role,
    peer: CallPeer,
    timeout: Option<Duration>,
    finished: bool,
}

impl Call {
    pub(super) fn new(held: CallRef<Service>, api: Arc<Api>, role: Role, peer: CallPeer) -> Self {
        Call { held: Some(held), api, role, peer, timeout: None, finished: false }
    }

    pub(super) fn shared(&self) -> &Arc<CallShared> {
        self.held.as_ref().expect("a handle holds its call until it is taken apart").shared()
    }

    /// The other end.
    pub fn peer(&self) -> SocketAddr {
        self.peer.addr
    }

    /// The service called. Where a client asked for an upgrade it is the service that the server's answer named, as soon as
    /// some of the reply is here.
    pub fn service(&self) -> u16 {
        match self.shared().upgraded.load(Ordering::Relaxed) {
            0 => self.peer.service,
            upgraded => upgraded as u16,
        }
    }

    /// Whether we called or were called.
    pub fn role(&self) -> Role {
        self.role
    }

    /// How the call ended, once it has.
    pub fn end(&self) -> Option<CallEnd> {
        self.shared().completion.get()
    }

    /// Limits how long each blocking operation may wait from here on; `None`, as it is at first, for as long as the
    /// call lives. The call's own time limits are in [`CallOptions`](crate::CallOptions).
    pub fn set_timeout(&mut self, timeout: Option<Duration>) {
        self.timeout = timeout;
    }

    /// Changes the call's time limits while it is in progress, all three at once; the hard one counts from now.
    pub fn set_call_timeouts(&self, timeouts: CallTimeouts) {
        self.api.set_timeouts(self.shared(), timeouts);
    }

    /// Declares how many bytes this side will send, before the first of them. The last packet is marked exactly, the data
    /// ends by itself with the last byte, and more or less than that is refused.
    pub fn set_tx_length(&mut self, bytes: u64) -> Result<(), CallFailed> {
        call_io::declare(self.shared(), Some(bytes))
    }

    fn deadline(&self) -> Option<Instant> {
        self.timeout.map(|timeout| Instant::now() + timeout)
    }

    // ---- receiving ----

    /// Takes received bytes if there are any: `Some(0)` is the end of the data, `None` means not yet.
    pub fn try_recv(&mut self, out: &mut [u8]) -> Result<Option<usize>, CallFailed> {
        call_io::try_recv(&self.api, self.shared(), out)
    }

    /// Waits for received bytes. 0 is the end of the data.
    pub fn recv(&mut self, out: &mut [u8]) -> Result<usize, CallFailed> {
        let shared = self.shared();
        let wait = || call_io::try_recv(&self.api, shared, out).transpose();
        shared.readable.wait(self.deadline(), wait).unwrap_or(Err(CallFailed::TimedOut))
    }

    /// Waits for received bytes, as a future.
    pub async fn recv_async(&mut self, out: &mut [u8]) -> Result<usize, CallFailed> {
        let (api, shared) = (&self.api, self.shared());
        poll(|cx| shared.readable.poll(cx, || call_io::try_recv(api, shared, out).transpose())).await
    }

    /// Reads until the end of the other side's data, at most the socket's
    /// [`read_all_max`](super::SocketConfig::read_all_max) bytes.
    pub fn read_all(&mut self) -> Result<Vec<u8>, CallFailed> {
        let mut all = Whole::new(self.api.config.read_all_max);
        while !all.add(|part| self.recv(part))? {}
        Ok(all.bytes)
    }

    /// [`read_all`](Self::read_all), as a future.
    pub async fn read_all_async(&mut self) -> Result<Vec<u8>, CallFailed> {
        let mut all = Whole::new(self.api.config.read_all_max);
        loop {
            let part = all.part();
            let read = self.recv_async(part).await;
            if all.add(|_| read)? {
                return Ok(all.bytes);
            }
        }
    }

    // ---- sending ----

    /// Puts bytes into the call, as many as there is room for: `None` if there is none.
    pub fn try_send(&mut self, bytes: &[u8]) -> Result<Option<usize>, CallFailed> {
        let sent = call_io::try_put(&self.api, self.shared(), bytes)?;
        self.api.queue_work(self.shared());
        Ok(sent)
    }

    /// Sends bytes, waiting for room. They are copied once, into the call's ring, from which the core sends.
    pub fn send(&mut self, mut bytes: &[u8]) -> Result<(), CallFailed> {
        let deadline = self.deadline();
        while !bytes.is_empty() {
            let shared = self.shared();
            let put =
                shared.writable.wait(deadline, || call_io::try_put(&self.api, shared, bytes).transpose());
            bytes = &bytes[put.unwrap_or(Err(CallFailed::TimedOut))?..];
            self.api.queue_work(self.shared());
        }
        Ok(())
    }

    /// [`send`](Self::send), as a future.
    pub async fn send_async(&mut self, mut bytes: &[u8]) -> Result<(), CallFailed> {
        while !bytes.is_empty() {
            let shared = self.shared();
            let put = poll(|cx| {
                shared.writable.poll(cx, || call_io::try_put(&self.api, shared, bytes).transpose())
            })
            .await?;
            bytes = &bytes[put..];
            self.api.queue_work(self.shared());
        }
        Ok(())
    }

    /// Ends this side's data. A service's call need not be kept after this.
    pub fn finish(&mut self) -> Result<(), CallFailed> {
        if let Some(end) = self.end().filter(|end| !end.is_success()) {
            return Err(failure(&self.api, self.shared(), end));
        }
        call_io::finish(self.shared())?;
        self.finished = true;
        self.api.queue_work(self.shared());
        Ok(())
    }

    /// Sends all of a service's reply and lets go of the call: it goes on by itself until the client has the reply.
    pub fn reply(mut self, bytes: &[u8]) -> Result<(), CallFailed> {
        let rest = self.put_some(bytes)?;
        self.send(rest)?;
        self.close_reply()
    }

    /// [`reply`](Self::reply), as a future.
    pub async fn reply_async(mut self, bytes: &[u8]) -> Result<(), CallFailed> {
        let rest = self.put_some(bytes)?;
        self.send_async(rest).await?;
        self.close_reply()
    }

    /// Puts what there is room for without telling the core, so that a small reply costs one message and not two.
    fn put_some<'b>(&mut self, bytes: &'b [u8]) -> Result<&'b [u8], CallFailed> {
        let put = call_io::try_put(&self.api, self.shared(), bytes)?.unwrap_or(0);
        if put < bytes.len() {
            self.api.queue_work(self.shared());
        }
        Ok(&bytes[put..])
    }

    fn close_reply(&mut self) -> Result<(), CallFailed> {
        // Dropping a finished service call queues it, which is what tells the core.
        call_io::finish(self.shared())?;
        self.finished = true;
        Ok(())
    }

    // ---- ending ----

    /// Waits until the call has ended: for a client, until it has all of the reply; for a service, until the client has.
    pub fn wait(&mut self) -> Result<(), CallFailed> {
        let shared = self.shared();
        let end = shared.readable.wait(self.deadline(), || shared.completion.get());
        self.succeeded(end.ok_or(CallFailed::TimedOut)?)
    }

    /// [`wait`](Self::wait), as a future.
    pub async fn wait_async(&mut self) -> Result<(), CallFailed> {
        let shared = self.shared();
        let end = poll(|cx| shared.readable.poll(cx, || shared.completion.get())).await;
        self.succeeded(end)
    }

    fn succeeded(&self, end: CallEnd) -> Result<(), CallFailed> {
        match end {
            CallEnd::Protocol(Completion::Succeeded) => Ok(()),
            end => Err(failure(&self.api, self.shared(), end)),
        }
    }

    /// Ends the call with a code that the other side is told. Does nothing to a call that has ended.
    pub fn abort(mut self, code: i32) {
        self.release(code);
    }

    fn release(&mut self, code: i32) {
        if let Some(held) = self.held.take() {
            self.api.release(held, code);
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        // A declared length ends the data by itself.
        let ended = |held: &CallRef<Service>| held.shared().sent_all.load(Ordering::Relaxed);
        let finished = self.finished || self.held.as_ref().is_some_and(ended);
        if finished && self.role == Role::Service {
            if let Some(held) = self.held.take() {
                self.api.linger(held);
            }
        } else {
            self.release(code::USER_ABORT);
        }
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call")
            .field("role", &self.role)
            .field("peer", &self.peer.addr)
            .field("service", &self.peer.service)
            .field("end", &self.end())
            .finish_non_exhaustive()
    }
}

impl std::io::Read for Call {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        if out.is_empty() { Ok(0) } else { Ok(self.recv(out)?) }
    }
}

impl std::io::Write for Call {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.send(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A future from a poll function.
pub(super) fn poll<R>(f: impl FnMut(&mut std::task::Context<'_>) -> Poll<R>) -> impl Future<Output = R> {
    std::future::poll_fn(f)
}

/// Bytes on their way to being all of them.
struct Whole {
    bytes: Vec<u8>,
    /// How many of `bytes` have come; the rest is room.
    len: usize,
    limit: usize,
}

/// How much room a reader makes at first and at least.
const PART: usize = 4 << 10;

impl Whole {
    fn new(limit: usize) -> Self {
        Whole { bytes: Vec::new(), len: 0, limit }
    }

    /// Room for more: doubled whenever it is used up, and a byte beyond the limit, which tells that there is more.
    fn part(&mut self) -> &mut [u8] {
        if self.len == self.bytes.len() {
            let room = (self.len * 2).max(PART).min(self.limit + 1);
            self.bytes.resize(room, 0);
        }
        &mut self.bytes[self.len..]
    }

    /// Reads one more part. True: that was the end.
    fn add(&mut self, read: impl FnOnce(&mut [u8]) -> Result<usize, CallFailed>) -> Result<bool, CallFailed> {
        let read = read(self.part())?;
        self.len += read;
        if self.len > self.limit {
            return Err(CallFailed::TooLong { limit: self.limit });
        }
        if read == 0 {
            self.bytes.truncate(self.len);
        }
        Ok(read == 0)
    }
}
