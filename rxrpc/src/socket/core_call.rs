//! A call of the socket API on its core: moves bytes between the endpoint and the rings of the call's reader and writer.

use std::sync::atomic::Ordering;

use super::SocketId;
use super::budget::ReadBudget;
use super::call_shared::CoreHalf;
use crate::{CallId, Rx};

/// One call in progress: its endpoint state by name, and its core's half of what threads share.
pub(crate) struct CoreCall {
    pub(crate) id: CallId,
    pub(crate) socket: SocketId,
    pub(crate) half: Box<CoreHalf>,
    /// Bytes put into the reader's ring so far.
    given: u64,
    send_ended: bool,
    /// The server's answer is to say which service it is.
    pub(crate) asks_upgrade: bool,
    /// The reader has no room for what there is.
    behind: bool,
    pub(crate) touched: Touch,
}

/// What there is to do for a call at the end of the burst, behind its barrier.
#[derive(Clone, Copy, Default)]
pub(crate) struct Touch {
    /// On the core's list.
    pub(crate) listed: bool,
    pub(crate) wake_reader: bool,
    pub(crate) wake_writer: bool,
    /// It was found linked: perhaps a reader was just taking it off.
    pub(crate) link_again: bool,
    /// Its queued run was taken up: perhaps a thread still found it queued.
    pub(crate) work_again: bool,
    /// It was marked as behind its reader: perhaps the reader had just looked.
    pub(crate) pull_again: bool,
}

impl CoreCall {
    pub(crate) fn new(id: CallId, socket: SocketId, half: Box<CoreHalf>) -> Self {
        let touched = Touch::default();
        CoreCall {
            id,
            socket,
            half,
            given: 0,
            send_ended: false,
            asks_upgrade: false,
            behind: false,
            touched,
        }
    }

    /// Moves what the user wants sent from the writer's ring into the endpoint, as far as that has room. True: the
    /// writer has room again.
    pub(crate) fn push(&mut self, rx: &mut Rx<'_>) -> bool {
        if self.send_ended {
            return self.discard();
        }
        let mut moved = false;
        loop {
            // Acquire: the last bytes are in the ring before the flag says so, hence the flag is read first.
            let all_written = self.half.shared.sent_all.load(Ordering::Acquire);
            let ring = &mut self.half.to_send;
            let chunk = ring.read_chunk(ring.slots()).expect("so many slots are there");
            let (bytes, rest) = chunk.as_slices();
            // Written before the bytes that it counts.
            let declared = self.half.shared.tx_length.load(Ordering::Relaxed);
            let sent = self.half.shared.bytes_sent.load(Ordering::Relaxed);
            let last = rest.is_empty() && (all_written || sent + bytes.len() as u64 == declared);
            if bytes.is_empty() && !last {
                return moved;
            }
            match rx.send(self.id, bytes, !last) {
                Ok(sent) => {
                    let all_sent = sent == bytes.len();
                    chunk.commit(sent);
                    moved |= sent > 0;
                    let total = self.half.shared.bytes_sent.load(Ordering::Relaxed) + sent as u64;
                    self.half.shared.bytes_sent.store(total, Ordering::Relaxed);
                    if !all_sent {
                        // A `Writable` follows.
                        return moved;
                    }
                    if last {
                        self.send_ended = true;
                        return moved;
                    }
                }
                // The call has ended, or the server began its reply and wants no more: the writer must not wait.
                Err(_) => {
                    self.send_ended = true;
                    return self.discard();
                }
            }
        }
    }

    /// Throws away what the writer still brings, once nobody wants it.
    fn discard(&mut self) -> bool {
        let ring = &mut self.half.to_send;
        let unwanted = ring.slots();
        ring.read_chunk(unwanted).expect("so many slots are there").commit_all();
        unwanted > 0
    }

    /// Moves received bytes from the endpoint into the reader's ring, as far as ring and budget have room; the rest
    /// stays in the endpoint and closes the peer's window. True: the reader has something new.
    pub(crate) fn pull(&mut self, rx: &mut Rx<'_>, budget: &mut ReadBudget) -> bool {
        let mut moved = false;
        if self.asks_upgrade && rx.endpoint.recv_ready(self.id) > 0 {
            self.asks_upgrade = false;
            let service = rx.endpoint.service(self.id).unwrap_or(0);
            self.half.shared.upgraded.store(u32::from(service), Ordering::Relaxed);
        }
        while !self.half.shared.received_all.load(Ordering::Relaxed) {
            let ready = rx.endpoint.recv_ready(self.id);
            let room = self.half.received.slots();
            let unread = self.half.received.buffer().capacity() - room;
            let take = ready.min(room).min(budget.allowance(unread));
            let behind = take == 0 && ready > 0;
            if behind != self.behind {
                self.behind = behind;
                // The reader empties its ring, has its fence, and looks at the flag. We look again behind the burst's
                // barrier: one of us sees the other.
                self.half.shared.reader_behind.store(behind, Ordering::Relaxed);
                self.touched.pull_again |= behind;
            }
            if behind {
                break;
            }
            let Ok(read) = self.take_into_ring(rx, take) else { break };
            moved |= read.bytes > 0 || !read.more;
            self.given += read.bytes as u64;
            budget.give(read.bytes);
            self.half.shared.bytes_received.store(self.given, Ordering::Relaxed);
            if !read.more {
                // Release: the bytes before it are in the ring.
                self.half.shared.received_all.store(true, Ordering::Release);
            }
            if read.bytes == 0 {
                break;
            }
        }
        moved
    }

    fn take_into_ring(&mut self, rx: &mut Rx<'_>, take: usize) -> Result<crate::Recv, crate::CallError> {
        let mut chunk = self.half.received.write_chunk(take).expect("so many slots are free");
        let (first, second) = chunk.as_mut_slices();
        let mut read = rx.recv(self.id, first)?;
        if read.more && read.bytes == first.len() && !second.is_empty() {
            let rest = rx.recv(self.id, second)?;
            read = crate::Recv { bytes: read.bytes + rest.bytes, more: rest.more };
        }
        chunk.commit(read.bytes);
        Ok(read)
    }
}
