//! The user's side of a call's data: send and receive.

use crate::call::Call;
use crate::endpoint::Endpoint;
use crate::shared::Shared;
use crate::{CallError, CallId, Role};
use pmd::{Instant, Mbuf, Pool};

/// What `recv` brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recv {
    /// Bytes written to the caller's buffer.
    pub bytes: usize,
    /// Whether more may follow. False: that was the end, and all of it has been read.
    pub more: bool,
}

impl Endpoint {
    /// Bytes that `send` would take now. Once it is zero, `want_room` asks for a `Writable` when there is room again.
    pub fn send_room(&self, call: CallId) -> usize {
        self.calls.get(call).map_or(0, |call| call.send_room(&self.shared))
    }

    /// Copies bytes into the call; the direction ends with the first `send` that has `more` false and took everything, or with
    /// the last byte of a declared length. Returns the bytes taken; when that is short, a `Writable` follows. A service's first
    /// `send` ends the request: what has not come yet will not be read.
    pub fn send(
        &mut self,
        now: Instant,
        pool: &mut Pool,
        call: CallId,
        bytes: &[u8],
        more: bool,
    ) -> Result<usize, CallError> {
        let (call, shared) = self.announced(call)?;
        begin_send(call, shared, bytes.len() as u64, more)?;
        let room = call.send_packets_room(shared);
        let (taken, added) = call.send.push_bytes(bytes, call.payload(shared), room, pool);
        shared.queued += added;
        let all = count_down(call, taken);
        if taken < bytes.len() {
            call.want_room(now, shared);
        } else if !more || all {
            call.end_send();
        }
        call.schedule(shared);
        Ok(taken)
    }

    /// The same for a buffer, without a copy where its size allows. `Some`: what found no room; try after `Writable`.
    pub fn send_mbuf(
        &mut self,
        now: Instant,
        pool: &mut Pool,
        call: CallId,
        mut data: Mbuf,
        more: bool,
    ) -> Result<Option<Mbuf>, CallError> {
        let (call, shared) = self.announced(call)?;
        begin_send(call, shared, data.len() as u64, more)?;
        let payload = call.payload(shared);
        let len = data.len();
        let mut left = None;
        while !data.is_empty() {
            let fits_tail = data.segment_count() == 1 && data.len() <= call.send.tail_room(payload);
            if fits_tail {
                call.send.push_bytes(data.data(), payload, 0, pool);
                break;
            }
            if call.send_packets_room(shared) == 0 {
                left = Some(data);
                break;
            }
            match next_packet(data, payload, pool) {
                Ok((packet, rest)) => {
                    call.send.push(packet);
                    shared.queued += 1;
                    match rest {
                        Some(rest) => data = rest,
                        None => break,
                    }
                }
                Err(whole) => {
                    left = Some(whole);
                    break;
                }
            }
        }
        let all = count_down(call, len - left.as_ref().map_or(0, Mbuf::len));
        if left.is_some() {
            call.want_room(now, shared);
        } else if !more || all {
            call.end_send();
        }
        call.schedule(shared);
        Ok(left)
    }

    /// Asks for a `Writable` as soon as `send` would take something, without having anything to send yet.
    pub fn want_room(&mut self, now: Instant, call: CallId) {
        if let Some(call) = self.calls.get_mut(call) {
            call.want_room(now, &mut self.shared);
        }
    }

    /// Reads in-order data.
    pub fn recv(&mut self, _now: Instant, call: CallId, out: &mut [u8]) -> Result<Recv, CallError> {
        let (call, shared) = self.reader(call)?;
        let (bytes, freed, end) = call.recv.read(out);
        shared.unread -= freed;
        after_read(call, shared);
        Ok(Recv { bytes, more: !(end || call.recv.drained()) })
    }

    /// Takes the next packet's payload, without a copy, and whether more may follow. `None`: nothing now. The end may
    /// come with an empty buffer.
    pub fn recv_mbuf(&mut self, _now: Instant, call: CallId) -> Result<Option<(Mbuf, bool)>, CallError> {
        let (call, shared) = self.reader(call)?;
        let Some((data, last)) = call.recv.pop() else { return Ok(None) };
        shared.unread -= data.segment_count();
        after_read(call, shared);
        Ok(Some((data, !last)))
    }

    /// Bytes that `recv` would bring now.
    pub fn recv_ready(&self, call: CallId) -> usize {
        self.calls.get(call).map_or(0, |call| call.recv.ready_bytes())
    }

    /// A call that its user was told of. Before that nobody may read what a stranger claims, nor answer it.
    fn announced(&mut self, id: CallId) -> Result<(&mut Call, &mut Shared), CallError> {
        let call = self.calls.get_mut(id).ok_or(CallError::Unknown(id))?;
        if call.announced { Ok((call, &mut self.shared)) } else { Err(CallError::Unannounced(id)) }
    }

    fn reader(&mut self, id: CallId) -> Result<(&mut Call, &mut Shared), CallError> {
        let (call, shared) = self.announced(id)?;
        match call.completion {
            Some(completion) if completion != crate::Completion::Succeeded => {
                Err(CallError::Ended(completion))
            }
            _ => Ok((call, shared)),
        }
    }
}

/// The reader made room: the peer hears of it if it may be waiting.
fn after_read(call: &mut Call, shared: &mut Shared) {
    if call.window_update_due(shared) {
        call.ack.window_opened();
        call.schedule(shared);
    }
}

/// Takes what was sent off the length that was declared. True: that was all of it.
fn count_down(call: &mut Call, sent: usize) -> bool {
    let left = call.tx_left.as_mut().map(|left| {
        *left -= sent as u64;
        *left
    });
    left == Some(0)
}

/// Whether so many bytes can be sent on the call. A service's first send begins the reply and ends the request.
fn begin_send(call: &mut Call, shared: &mut Shared, bytes: u64, more: bool) -> Result<(), CallError> {
    if let Some(completion) = call.completion {
        return Err(CallError::Ended(completion));
    }
    if call.send_closed {
        return Err(CallError::SendEnded);
    }
    match call.tx_left {
        Some(left) if bytes > left => return Err(CallError::TooLong { left, bytes }),
        Some(left) if bytes < left && !more => return Err(CallError::TooShort { left, bytes }),
        _ => {}
    }
    match call.role {
        Role::Client if call.reply_begun => Err(CallError::ReplyBegun),
        Role::Service if !call.reply_begun => {
            call.reply_begun = true;
            if !call.recv.complete() {
                shared.unread -= call.recv.discard();
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// The next packet of a buffer, and what is left of it. A packet is one segment. `Err`: no buffer to cut or join with.
fn next_packet(mut data: Mbuf, payload: usize, pool: &mut Pool) -> Result<(Mbuf, Option<Mbuf>), Mbuf> {
    if data.segment_count() == 1 && data.len() <= payload {
        return Ok((data, None));
    }
    let Some(mut packet) = pool.alloc() else { return Err(data) };
    let len = data.len().min(payload);
    let room = packet.append(len).expect("a buffer holds a packet");
    data.copy_to(0, room);
    if len == data.len() {
        return Ok((packet, None));
    }
    data.advance(len);
    Ok((packet, Some(data)))
}
