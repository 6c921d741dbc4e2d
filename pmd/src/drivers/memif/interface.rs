//! An interface: what the control thread and the queues have in common.
//!
//! When a peer connects, the control thread leaves each queue its new rings in a mailbox, one atomic pointer that the queue looks at
//! every burst; when the peer is gone, it leaves there that there are none. So the data path takes no lock, and memory is unmapped when
//! the last queue has let go of it.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};
use std::sync::{Arc, OnceLock};

use super::bell::Bell;
use super::message::SECRET_LEN;
use super::receive::Receiver;
use super::slots::{Lent, Own};
use super::socket::Address;
use super::transmit::Sender;

/// How an interface was opened.
#[derive(Debug)]
pub(super) struct Config {
    pub address: Address,
    pub server: bool,
    pub id: u32,
    pub log2_slots: u8,
    pub buffer_len: u32,
    /// All zeroes: none.
    pub secret: [u8; SECRET_LEN],
}

/// What the control thread and the queues share.
pub(super) struct Interface {
    pub config: Config,
    /// A peer is connected. Relaxed everywhere: the rings themselves come by mailbox.
    up: AtomicBool,
    /// A queue found an index that cannot be: the control thread is to end the connection.
    broken: AtomicBool,
    /// See [`Claim`].
    claimed: AtomicBool,
    /// For each queue; there once they are open.
    queues: OnceLock<Box<[Mailbox]>>,
}

impl Interface {
    pub(super) fn new(config: Config) -> Interface {
        let no = || AtomicBool::new(false);
        Interface { config, up: no(), broken: no(), claimed: no(), queues: OnceLock::new() }
    }

    pub(super) fn open_queues(&self, n: usize) -> io::Result<()> {
        let mailboxes = (0..n).map(|_| Mailbox::new()).collect::<io::Result<Box<[Mailbox]>>>()?;
        assert!(self.queues.set(mailboxes).is_ok(), "queues are opened once");
        Ok(())
    }

    /// None before they are open.
    pub(super) fn queues(&self) -> &[Mailbox] {
        self.queues.get().map_or(&[], |queues| queues)
    }

    pub(super) fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }

    /// Gives each queue its rings.
    pub(super) fn connect(&self, links: Vec<Link>) {
        debug_assert_eq!(links.len(), self.queues().len());
        self.broken.store(false, Ordering::Relaxed);
        for (mailbox, link) in self.queues().iter().zip(links) {
            link.start();
            mailbox.post(Some(link));
        }
        self.up.store(true, Ordering::Relaxed);
    }

    /// Takes the rings away.
    pub(super) fn disconnect(&self) {
        self.up.store(false, Ordering::Relaxed);
        self.queues().iter().for_each(|mailbox| mailbox.post(None));
    }

    pub(super) fn report_broken(&self) {
        self.broken.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }
}

/// A server's interface that a client talks to; no other can, as long as this lives.
pub(super) struct Claim(Arc<Interface>);

impl Claim {
    pub(super) fn new(interface: &Arc<Interface>) -> Option<Claim> {
        // Relaxed: only the control thread claims, under its lock.
        (!interface.claimed.swap(true, Ordering::Relaxed)).then(|| Claim(interface.clone()))
    }

    pub(super) fn interface(&self) -> &Arc<Interface> {
        &self.0
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.0.claimed.store(false, Ordering::Relaxed);
    }
}

/// The rings of one queue.
pub(super) enum Link {
    Client(Receiver<Own>, Sender<Own>),
    Server(Receiver<Lent>, Sender<Lent>),
}

impl Link {
    pub(super) fn start(&self) {
        match self {
            Link::Client(receiver, _) => receiver.start(),
            Link::Server(receiver, _) => receiver.start(),
        }
    }
}

/// Where a queue finds its rings, and what it sleeps on.
pub(super) struct Mailbox {
    /// Null: no news.
    news: AtomicPtr<Option<Link>>,
    bell: Bell,
}

impl Mailbox {
    fn new() -> io::Result<Mailbox> {
        Ok(Mailbox { news: AtomicPtr::default(), bell: Bell::new()? })
    }

    fn post(&self, news: Option<Link>) {
        let news = Box::into_raw(Box::new(news));
        // AcqRel: pairs with itself and with `take`; what was not fetched is ours again.
        drop(Self::owned(self.news.swap(news, Ordering::AcqRel)));
        self.bell.ring();
    }

    /// Whether there is news.
    #[inline]
    pub(super) fn has_news(&self) -> bool {
        // Relaxed: `take` synchronises.
        !self.news.load(Ordering::Relaxed).is_null()
    }

    /// The queue's rings from now on; `None` without news.
    #[cold]
    pub(super) fn take(&self) -> Option<Box<Option<Link>>> {
        // Acquire: pairs with the swap in `post`.
        Self::owned(self.news.swap(std::ptr::null_mut(), Ordering::Acquire))
    }

    fn owned(news: *mut Option<Link>) -> Option<Box<Option<Link>>> {
        // SAFETY: what is not null came from `Box::into_raw` in `post`, and a swap hands it to one owner.
        (!news.is_null()).then(|| unsafe { Box::from_raw(news) })
    }

    pub(super) fn bell(&self) -> &Bell {
        &self.bell
    }
}

impl Drop for Mailbox {
    fn drop(&mut self) {
        drop(Self::owned(*self.news.get_mut()));
    }
}
