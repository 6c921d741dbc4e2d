//! Services that answer on the core itself: the whole request in, the whole reply out, no thread in between.

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::call_shared::{CallPeer, SocketId};
use crate::{CallId, Identity, Rx, code};

/// What answers an inline service's calls. Every core runs it, so it is `Fn` and shared.
pub(super) type InlineFn = dyn Fn(&mut ServedCall<'_, '_>) + Send + Sync;

/// An inline service as its socket has it.
#[derive(Clone)]
pub(super) struct InlineService {
    pub(super) answer: Arc<InlineFn>,
    /// Longest request in bytes; a longer one is aborted with RX_MSGSIZE.
    pub(super) request_max: usize,
}

/// A call whose request is complete, while its service answers it.
///
/// The core waits meanwhile: compute, do not block. A call left without [`reply`](Self::reply) and
/// [`abort`](Self::abort) is answered with an empty reply.
pub struct ServedCall<'a, 'r> {
    call: &'a mut InlineCall,
    rx: &'a mut Rx<'r>,
}

impl ServedCall<'_, '_> {
    /// The request.
    pub fn request(&self) -> &[u8] {
        &self.call.request
    }

    /// Who called.
    pub fn peer(&self) -> SocketAddr {
        self.call.peer.addr
    }

    /// Who that is, where the service asks for proof.
    pub fn identity(&self) -> Option<&Identity> {
        self.rx.endpoint.identity(self.call.id).map(Arc::as_ref)
    }

    /// The service called.
    pub fn service(&self) -> u16 {
        self.call.peer.service
    }

    /// Appends to the reply, which ends when the service's function returns.
    pub fn reply(&mut self, bytes: &[u8]) {
        self.call.reply.extend_from_slice(bytes);
    }

    /// Passes the request to `answer` and replies with what it returns.
    pub fn answer(&mut self, answer: impl FnOnce(&[u8]) -> Vec<u8>) {
        let reply = answer(&self.call.request);
        self.reply(&reply);
    }

    /// Fails the call with a code that the client is told.
    pub fn abort(&mut self, code: i32) {
        self.rx.abort(self.call.id, code);
    }
}

/// A call of an inline service on its core.
pub(super) struct InlineCall {
    pub(super) id: CallId,
    pub(super) socket: SocketId,
    peer: CallPeer,
    request: Vec<u8>,
    reply: Vec<u8>,
    /// Bytes of the reply that the endpoint has taken.
    sent: usize,
    phase: Phase,
}

#[derive(PartialEq, Eq)]
enum Phase {
    Request,
    Reply,
    Done,
}

/// Buffers of calls that have ended, for the next ones: calls begin and end without allocating.
pub(super) struct Spares(Vec<(Vec<u8>, Vec<u8>)>);

/// Bytes that a buffer has room for at first. One that needs more keeps it for the calls to come.
const ROOM: usize = 4 << 10;

impl Spares {
    pub(super) fn new() -> Self {
        let room = || Vec::with_capacity(ROOM);
        Spares((0..SPARES_MAX).map(|_| (room(), room())).collect())
    }
}

/// Spare buffers kept; a backlog's worth and some.
const SPARES_MAX: usize = 64;

impl InlineCall {
    pub(super) fn new(id: CallId, socket: SocketId, peer: CallPeer, spares: &mut Spares) -> Self {
        let (request, reply) = spares.0.pop().unwrap_or_default();
        InlineCall { id, socket, peer, request, reply, sent: 0, phase: Phase::Request }
    }

    /// Keeps the call's buffers for another.
    pub(super) fn recycle(mut self, spares: &mut Spares) {
        if spares.0.len() < SPARES_MAX {
            self.request.clear();
            self.reply.clear();
            spares.0.push((self.request, self.reply));
        }
    }

    /// More of the request is here; with the last of it the service answers.
    ///
    /// A service that panics fails that call, which is counted in `panicked`; its core goes on.
    pub(super) fn readable(&mut self, rx: &mut Rx<'_>, service: &InlineService, panicked: &AtomicU64) {
        while self.phase == Phase::Request {
            let ready = rx.endpoint.recv_ready(self.id);
            let at = self.request.len();
            if at + ready > service.request_max {
                self.phase = Phase::Done;
                return rx.abort(self.id, code::MSGSIZE);
            }
            self.request.resize(at + ready, 0);
            let Ok(read) = rx.recv(self.id, &mut self.request[at..]) else { return };
            self.request.truncate(at + read.bytes);
            if !read.more {
                self.phase = Phase::Reply;
                let answer = || (service.answer)(&mut ServedCall { call: self, rx });
                if catch_unwind(AssertUnwindSafe(answer)).is_err() {
                    panicked.store(panicked.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
                    self.phase = Phase::Done;
                    return rx.abort(self.id, code::INVALID_OPERATION);
                }
                self.writable(rx);
            } else if read.bytes == 0 {
                return;
            }
        }
    }

    /// The endpoint has room for more of the reply.
    pub(super) fn writable(&mut self, rx: &mut Rx<'_>) {
        if self.phase != Phase::Reply {
            return;
        }
        // An error means that the call has ended: its completion follows.
        let Ok(sent) = rx.send(self.id, &self.reply[self.sent..], false) else { return };
        self.sent += sent;
        if self.sent == self.reply.len() {
            self.phase = Phase::Done;
        }
    }
}
