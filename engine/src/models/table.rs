//! The socket table: look-ups while others insert, remove and use places again (rows A2, C6).

use std::sync::Arc;

use loom::cell::UnsafeCell;
use loom::thread;

use super::check;
use super::domain::Domain;
use crate::flow::{Flow, FlowHash};
use crate::rcu;
use crate::socket::SocketId;
use crate::table::Table;

/// A value that loom watches: it reports a read that is not after the publication or not before the free.
struct Watched(UnsafeCell<u16>);

// SAFETY: that its accesses do not race is what loom checks.
unsafe impl Sync for Watched {}

impl Watched {
    fn new(number: u16) -> Arc<Self> {
        Arc::new(Watched(UnsafeCell::new(number)))
    }

    fn number(&self) -> u16 {
        // SAFETY: what is being checked.
        self.0.with(|number| unsafe { *number })
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        // SAFETY: as above.
        self.0.with_mut(|number| unsafe { *number = 0 });
    }
}

struct Shared {
    domain: Domain,
    table: Table<Watched>,
}

impl Shared {
    /// A table in which every flow has the same hash.
    fn new(slots: usize) -> Arc<Self> {
        let table = Table::with_hash(FlowHash::worst(), slots).unwrap();
        Arc::new(Shared { domain: Domain::new(), table })
    }

    fn bind(&self, number: u16) -> SocketId {
        let id = self.table.reserve().expect("a slot is free");
        self.table.publish(id, &flow(number), KIND, Watched::new(number));
        id
    }

    /// As `Sockets::close`, but for who waits for the grace period.
    fn close(&self, number: u16, id: SocketId) {
        let unpublished = self.table.unpublish(id, &flow(number), KIND);
        self.domain.synchronize();
        // SAFETY: the grace period of the model's only reader has passed.
        self.table.recycle(unsafe { unpublished.quiesced() });
    }

    /// What a look-up finds is the flow's or nothing.
    fn look_up(&self, number: u16) -> bool {
        let pin = rcu::pin();
        let found = self.table.lookup(&flow(number), pin.guard());
        found.inspect(|found| assert_eq!(found.number(), number, "another's socket")).is_some()
    }

    fn get(&self, id: SocketId, number: u16) -> bool {
        let pin = rcu::pin();
        let found = self.table.get(id, pin.guard());
        found.inspect(|found| assert_eq!(found.number(), number, "another's socket")).is_some()
    }
}

/// Unconnected, to one of our addresses.
const KIND: usize = crate::flow::UNCONNECTED;

fn flow(port: u16) -> Flow {
    Flow::new(([10, 0, 0, 1], port).into(), None)
}

#[test]
fn what_is_found_is_whole() {
    check("table::what_is_found_is_whole", None, || {
        let shared = Shared::new(1);
        let theirs = shared.clone();
        let core = thread::spawn(move || {
            let _reader = theirs.domain.reader();
            let found = theirs.look_up(1);
            let named = theirs.get(SocketId { slot: 0, generation: 0 }, 1);
            assert!(named || !found, "found by its flow, and then not by its name");
        });
        shared.bind(1);
        core.join().unwrap();
        assert!(shared.look_up(1));
    });
}

/// The one slot there is changes hands: a core gets the first socket, or none, and never the second; and reads neither after it was freed.
#[test]
fn a_slot_changes_hands() {
    check("table::a_slot_changes_hands", Some(3), || {
        let shared = Shared::new(1);
        let first = shared.bind(1);
        let theirs = shared.clone();
        let core = thread::spawn(move || {
            let mut reader = theirs.domain.reader();
            for _ in 0..2 {
                theirs.look_up(1);
                theirs.get(first, 1);
                reader.quiescent();
            }
        });
        shared.close(1, first);
        shared.bind(2);
        core.join().unwrap();
        assert!(shared.look_up(2) && !shared.look_up(1) && !shared.get(first, 1));
    });
}

/// Of three buckets of a chain the one in the middle is emptied, taken off and linked again: what is behind it is found all the time.
#[test]
fn what_stays_is_found_while_its_chain_changes() {
    check("table::what_stays_is_found_while_its_chain_changes", Some(3), || {
        let shared = Shared::new(16);
        let ids: Vec<_> = (1..=15).map(|number| shared.bind(number)).collect();
        let theirs = shared.clone();
        let core = thread::spawn(move || {
            let mut reader = theirs.domain.reader();
            for _ in 0..2 {
                assert!(theirs.look_up(8), "it was bound all the time");
                reader.quiescent();
            }
        });
        shared.close(15, ids[14]);
        shared.bind(16);
        core.join().unwrap();
        assert!(shared.look_up(16) && !shared.look_up(15));
    });
}
