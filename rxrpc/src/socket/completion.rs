//! How a call ended, and the cell that says so once.

use crate::sync::{AtomicU64, Ordering};
use crate::{Completion, NetError, Timeout};

/// How a call ended, as its user sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CallEnd {
    /// The protocol ended it: done, aborted, timed out.
    #[error("{0}")]
    Protocol(Completion),
    /// The call never began: a limit of the endpoint (the call's error names it), or no local address to call from.
    #[error("the call could not begin")]
    NotBegun,
    /// Its socket was closed.
    #[error("the call's socket was closed")]
    SocketClosed,
    /// The engine was shut down.
    #[error("the engine was shut down")]
    CoreGone,
}

impl CallEnd {
    /// Whether the call did what it was for.
    pub fn is_success(self) -> bool {
        self == CallEnd::Protocol(Completion::Succeeded)
    }
}

/// Written once, read by anybody. One word holds all of a [`CallEnd`], so who reads "complete" reads the rest with it.
///
/// Only whoever owns the call's core half writes it ([`CoreHalf::complete`](super::call_shared::CoreHalf::complete)), so the first
/// end stands without a locked instruction.
#[derive(Default)]
pub(crate) struct CompletionCell(AtomicU64);

const COMPLETE: u64 = 1 << 63;

impl CompletionCell {
    /// True: this end stands. False: an earlier one does.
    ///
    /// Release: pairs with the Acquire in [`get`](Self::get); all that the call received is visible with its end.
    pub(crate) fn set(&self, end: CallEnd) -> bool {
        let first = self.0.load(Ordering::Relaxed) == 0;
        if first {
            self.0.store(pack(end), Ordering::Release);
        }
        first
    }

    /// The cell of the next call.
    pub(super) fn reset(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    /// How the call ended, once it has.
    pub(crate) fn get(&self) -> Option<CallEnd> {
        unpack(self.0.load(Ordering::Acquire))
    }
}

const fn word(kind: u8, value: u32) -> u64 {
    COMPLETE | (kind as u64) << 32 | value as u64
}

fn pack(end: CallEnd) -> u64 {
    match end {
        CallEnd::Protocol(Completion::Succeeded) => word(0, 0),
        CallEnd::Protocol(Completion::RemoteAbort(code)) => word(1, code as u32),
        CallEnd::Protocol(Completion::LocalAbort(code)) => word(2, code as u32),
        CallEnd::Protocol(Completion::NetworkError(error)) => word(3, net_error_number(error)),
        CallEnd::Protocol(Completion::TimedOut(Timeout::Dead)) => word(4, 0),
        CallEnd::Protocol(Completion::TimedOut(Timeout::Idle)) => word(4, 1),
        CallEnd::Protocol(Completion::TimedOut(Timeout::Hard)) => word(4, 2),
        CallEnd::Protocol(Completion::Busy) => word(5, 0),
        CallEnd::NotBegun => word(6, 0),
        CallEnd::SocketClosed => word(7, 0),
        CallEnd::CoreGone => word(8, 0),
    }
}

fn unpack(word: u64) -> Option<CallEnd> {
    if word & COMPLETE == 0 {
        return None;
    }
    let value = word as u32;
    Some(match (word >> 32) as u8 {
        0 => CallEnd::Protocol(Completion::Succeeded),
        1 => CallEnd::Protocol(Completion::RemoteAbort(value as i32)),
        2 => CallEnd::Protocol(Completion::LocalAbort(value as i32)),
        3 => CallEnd::Protocol(Completion::NetworkError(NET_ERRORS[value as usize])),
        4 => CallEnd::Protocol(Completion::TimedOut(match value {
            0 => Timeout::Dead,
            1 => Timeout::Idle,
            _ => Timeout::Hard,
        })),
        5 => CallEnd::Protocol(Completion::Busy),
        6 => CallEnd::NotBegun,
        7 => CallEnd::SocketClosed,
        _ => CallEnd::CoreGone,
    })
}

const NET_ERRORS: [NetError; 5] = [
    NetError::PortUnreachable,
    NetError::HostUnreachable,
    NetError::NetworkUnreachable,
    NetError::Prohibited,
    NetError::TooLarge,
];

fn net_error_number(error: NetError) -> u32 {
    // An exhaustive match, so that a new error cannot be forgotten here.
    match error {
        NetError::PortUnreachable => 0,
        NetError::HostUnreachable => 1,
        NetError::NetworkUnreachable => 2,
        NetError::Prohibited => 3,
        NetError::TooLarge => 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_survives_its_word() {
        let mut ends = vec![
            CallEnd::Protocol(Completion::Succeeded),
            CallEnd::Protocol(Completion::Busy),
            CallEnd::NotBegun,
            CallEnd::SocketClosed,
            CallEnd::CoreGone,
        ];
        for code in [0, 1, -1, i32::MIN, i32::MAX] {
            ends.push(CallEnd::Protocol(Completion::RemoteAbort(code)));
            ends.push(CallEnd::Protocol(Completion::LocalAbort(code)));
        }
        ends.extend(NET_ERRORS.map(|error| CallEnd::Protocol(Completion::NetworkError(error))));
        for timeout in [Timeout::Dead, Timeout::Idle, Timeout::Hard] {
            ends.push(CallEnd::Protocol(Completion::TimedOut(timeout)));
        }
        for end in ends {
            let cell = CompletionCell::default();
            assert_eq!(cell.get(), None);
            assert!(cell.set(end));
            assert_eq!(cell.get(), Some(end));
        }
    }

    #[test]
    fn the_first_end_stands() {
        let cell = CompletionCell::default();
        assert!(cell.set(CallEnd::Protocol(Completion::RemoteAbort(7))));
        assert!(!cell.set(CallEnd::CoreGone));
        assert_eq!(cell.get(), Some(CallEnd::Protocol(Completion::RemoteAbort(7))));
    }
}
