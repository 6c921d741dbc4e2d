//! A queue: the rings that the control thread left it, and what happens without any.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use super::interface::{Interface, Link, Mailbox};
use super::receive::Broken;
use super::{Lost, Membership, control};
use crate::counters::{Counters, QueueStats};
use crate::drivers::admit;
use crate::mbuf::Burst;
use crate::pool::Pool;
use crate::port::Queue;
use crate::time::Instant;

pub(super) struct MemifQueue {
    /// Before the membership: with the last one, nobody holds the memory any more.
    link: Option<Box<Option<Link>>>,
    membership: Arc<Membership>,
    index: u16,
    frame_max: usize,
    counters: Arc<Counters>,
}

impl MemifQueue {
    pub(super) fn new(
        membership: Arc<Membership>,
        index: u16,
        frame_max: usize,
        counters: Arc<Counters>,
    ) -> MemifQueue {
        MemifQueue { link: None, membership, index, frame_max, counters }
    }

    #[inline]
    fn interface(&self) -> &Interface {
        self.membership.interface()
    }

    fn mailbox(&self) -> &Mailbox {
        &self.interface().queues()[usize::from(self.index)]
    }

    /// Looks into the mailbox.
    #[inline]
    fn update(&mut self) {
        if self.mailbox().has_news()
            && let Some(news) = self.mailbox().take()
        {
            self.link = Some(news);
        }
    }

    /// The peer wrote what cannot be: it is listened to no more, and the control thread ends the connection.
    #[cold]
    fn hang_up(&mut self) {
        self.link = None;
        self.interface().report_broken();
        control::wake();
    }
}

impl Queue for MemifQueue {
    fn rx_burst(&mut self, _now: Instant, pool: &mut Pool, burst: &mut Burst) -> usize {
        self.update();
        let received = match self.link.as_deref_mut() {
            Some(Some(Link::Client(receiver, _))) => receiver.burst(pool, burst, &self.counters, self.index),
            Some(Some(Link::Server(receiver, _))) => receiver.burst(pool, burst, &self.counters, self.index),
            _ => return 0,
        };
        match received {
            Ok(n) => n,
            Err(Broken) => {
                self.hang_up();
                0
            }
        }
    }

    fn tx_burst(&mut self, _now: Instant, burst: &mut Burst) -> usize {
        self.update();
        let given = burst.len();
        admit(burst, self.frame_max, &self.counters);
        if burst.is_empty() {
            return given;
        }
        let sent = match self.link.as_deref_mut() {
            Some(Some(Link::Client(_, sender))) => sender.burst(burst, &self.counters),
            Some(Some(Link::Server(_, sender))) => sender.burst(burst, &self.counters),
            _ => {
                self.counters.dropped(Lost::LinkDown as usize, burst.len() as u64);
                burst.clear();
                return given;
            }
        };
        if sent == Err(Broken) {
            self.hang_up();
        }
        given - burst.len()
    }

    fn arm(&mut self) -> bool {
        self.update();
        match self.link.as_deref() {
            Some(Some(Link::Client(receiver, _))) => receiver.arm(),
            Some(Some(Link::Server(receiver, _))) => receiver.arm(),
            // The bell rings when there is news, also news that `update` just missed.
            _ => true,
        }
    }

    fn disarm(&mut self) {
        self.mailbox().bell().wait(0);
        match self.link.as_deref() {
            Some(Some(Link::Client(receiver, _))) => receiver.disarm(),
            Some(Some(Link::Server(receiver, _))) => receiver.disarm(),
            _ => {}
        }
    }

    fn wait_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.mailbox().bell().fd())
    }

    fn stats(&self) -> QueueStats {
        self.counters.snapshot()
    }
}
