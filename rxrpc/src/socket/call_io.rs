//! Reading and writing a call without waiting: what handles and user-ID operations are made of.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use super::api::{Api, lock};
use super::call_shared::{ANY_LENGTH, CallShared};
use super::completion::CallEnd;
use super::error::CallFailed;

/// Takes received bytes. `Some(0)` is the end of the other side's data; `None` says that there is nothing now.
///
/// What came before a call failed is still read, as far as it had reached the ring; then the failure is told.
pub(super) fn try_recv(
    api: &Api,
    shared: &Arc<CallShared>,
    out: &mut [u8],
) -> Result<Option<usize>, CallFailed> {
    let mut ring = lock(&shared.received);
    if shared.is_released() {
        return Err(released(shared));
    }
    // Read before the ring: what they promise is in it.
    let all = shared.received_all.load(Ordering::Acquire);
    let end = shared.completion.get();
    let taken = ring.pop_partial_slice(out).0.len();
    if taken > 0 {
        shared.count_read(taken);
        // Pairs with the barrier of the core's burst: behind it the core sees the room just made, or we see that it gave up.
        fence(Ordering::SeqCst);
        if shared.reader_behind.load(Ordering::Relaxed) {
            api.queue_work(shared);
        }
        return Ok(Some(taken));
    }
    match end {
        _ if all => Ok(Some(0)),
        Some(end) if !end.is_success() => Err(failure(api, shared, end)),
        _ => Ok(None),
    }
}

/// Whether [`try_recv`] would bring anything but `None`.
pub(super) fn is_readable(shared: &CallShared) -> bool {
    let ended = shared.completion.get().is_some_and(|end| !end.is_success());
    ended
        || shared.received_all.load(Ordering::Acquire)
        || shared.is_released()
        || !lock(&shared.received).is_empty()
}

/// Whether all of the other side's data has been taken.
pub(super) fn is_at_end(shared: &CallShared) -> bool {
    // Read before the ring: the last bytes are in it.
    let all = shared.received_all.load(Ordering::Acquire);
    all && lock(&shared.received).is_empty()
}

/// Puts bytes into the send ring, as many as it has room for. `None`: it has none. The core is not told.
pub(super) fn try_put(api: &Api, shared: &CallShared, bytes: &[u8]) -> Result<Option<usize>, CallFailed> {
    let mut ring = lock(&shared.to_send);
    if shared.is_released() {
        return Err(released(shared));
    }
    if let Some(end) = shared.completion.get() {
        return Err(failure(api, shared, end));
    }
    if shared.sent_all.load(Ordering::Relaxed) {
        return Err(CallFailed::SendFinished);
    }
    let (length, before) =
        (shared.tx_length.load(Ordering::Relaxed), shared.bytes_put.load(Ordering::Relaxed));
    if length != ANY_LENGTH && before + bytes.len() as u64 > length {
        return Err(CallFailed::BeyondTxLength { length, bytes: before + bytes.len() as u64 });
    }
    let put = bytes.len() - ring.push_partial_slice(bytes).1.len();
    shared.bytes_put.store(before + put as u64, Ordering::Relaxed);
    if before + put as u64 == length {
        end(shared);
    }
    Ok((put > 0 || bytes.is_empty()).then_some(put))
}

/// Declares how many bytes the user will send in all; nothing was sent yet. The core is not told.
pub(super) fn declare(shared: &CallShared, length: Option<u64>) -> Result<(), CallFailed> {
    let _ring = lock(&shared.to_send);
    let put = shared.bytes_put.load(Ordering::Relaxed);
    if put > 0 || shared.sent_all.load(Ordering::Relaxed) {
        return Err(CallFailed::SendBegun { bytes: put });
    }
    shared.tx_length.store(length.unwrap_or(ANY_LENGTH), Ordering::Relaxed);
    Ok(())
}

/// Says that what is in the send ring is all. The core is not told.
pub(super) fn finish(shared: &CallShared) -> Result<(), CallFailed> {
    let _ring = lock(&shared.to_send);
    let (length, bytes) =
        (shared.tx_length.load(Ordering::Relaxed), shared.bytes_put.load(Ordering::Relaxed));
    if length != ANY_LENGTH && bytes < length {
        return Err(CallFailed::ShortOfTxLength { length, bytes });
    }
    end(shared);
    Ok(())
}

fn end(shared: &CallShared) {
    // Release: pairs with the Acquire in `CoreCall::push`; the last bytes are in the ring.
    shared.sent_all.store(true, Ordering::Release);
}

/// How a call that has ended shows itself to an operation.
pub(super) fn failure(api: &Api, shared: &CallShared, end: CallEnd) -> CallFailed {
    if end == CallEnd::NotBegun {
        // The reason came back with the core's half.
        api.free_ended_of(shared.core);
        if let Some(error) = shared.begin_error() {
            return CallFailed::NotBegun(error);
        }
    }
    CallFailed::Ended(end)
}

fn released(shared: &CallShared) -> CallFailed {
    CallFailed::Ended(shared.completion.get().unwrap_or(CallEnd::SocketClosed))
}
