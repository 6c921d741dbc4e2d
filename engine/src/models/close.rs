//! A socket is closed while its core receives and a reader sleeps (rows B2, B15 and A9).

use std::sync::Arc;

use loom::thread;
use pmd::STRIDE;

use super::check;
use super::domain::{self, Domain};
use super::socket::{POOL, mbuf};
use crate::flow::FlowHash;
use crate::rcu;
use crate::socket::{self, CoreToken, Socket};
use crate::table::{Key, Table};
use crate::wq::Barrier;

struct Shared {
    domain: Domain,
    table: Table<Socket>,
    key: Key,
}

impl Shared {
    fn new() -> Self {
        let key = Key { local: "10.0.0.1:7".parse().unwrap(), peer: None };
        Shared { domain: Domain::new(), table: Table::with_hash(FlowHash::worst(), 1).unwrap(), key }
    }

    fn bind(&self, engine: u64) -> Arc<Socket> {
        let id = self.table.reserve().unwrap();
        let socket = Arc::new(Socket::new(engine, id, self.key, 0, 1, 8 * STRIDE as u64));
        self.table.publish(id, &self.key.flow(), crate::flow::UNCONNECTED, socket.clone());
        socket
    }

    /// As `Cx` does it: the socket is found anew at the end of the burst.
    fn receive(&self, token: &mut CoreToken) {
        let mut reader = self.domain.reader();
        let pin = rcu::pin();
        if let Some(found) = self.table.lookup(&self.key.flow(), pin.guard()) {
            let id = found.id();
            found.push(token, mbuf(1)).unwrap();
            if let Some(socket) = self.table.get(id, pin.guard()) {
                socket.publish(token);
            }
            let barrier = Barrier::publish();
            if let Some(socket) = self.table.get(id, pin.guard()) {
                socket.wake(token, pin.guard(), &barrier);
            }
        }
        reader.quiescent();
    }

    /// As `Sockets::close`, and then what the control thread does.
    fn close(&self, socket: &Socket) {
        socket.mark_closed();
        let unpublished = self.table.unpublish(socket.id(), &self.key.flow(), crate::flow::UNCONNECTED);
        socket.orphan();
        self.domain.synchronize();
        domain::free_retired();
        // SAFETY: the grace period of the model's only reader has passed.
        let quiesced = unsafe { unpublished.quiesced() };
        socket::drain(&quiesced, |_, _| {});
        self.table.recycle(quiesced);
    }
}

/// The reader hears of the datagram or of the close; the buffer is read or drained, and no buffer stays with a closed socket.
#[test]
fn a_close_wakes_readers_and_leaves_nothing_behind() {
    check("close::a_close_wakes_readers_and_leaves_nothing_behind", Some(3), || {
        let available = POOL.with_borrow_mut(|pool| pool.available());
        let (engine, mut tokens) = socket::tokens(1);
        let mut token = tokens.remove(0);
        let shared = Arc::new(Shared::new());
        let socket = shared.bind(engine);
        let wq = socket.wq_cell().load_owned(rcu::pin().guard()).unwrap();
        let receiving = shared.clone();
        let core = thread::spawn(move || receiving.receive(&mut token));
        let theirs = socket.clone();
        let reader = thread::spawn(move || {
            let told = wq.wait(None, || {
                let taken = theirs.take(|_| true).map(|(mbuf, _)| assert_eq!(mbuf.data(), [1]));
                taken.or_else(|| theirs.is_closed().then_some(()))
            });
            assert_eq!(told, Some(()));
        });
        shared.close(&socket);
        core.join().unwrap();
        reader.join().unwrap();
        assert!(shared.table.reserve().is_some(), "its place is free");
        assert_eq!(POOL.with_borrow_mut(|pool| pool.available()), available, "a buffer stayed behind");
        assert!(!socket.is_readable());
    });
}
