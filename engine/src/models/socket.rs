//! A socket's queue between its core and a reader that sleeps, with the request for what the mailbox could not hold.

use std::cell::RefCell;
use std::sync::Arc;

use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;
use pmd::{Mbuf, Pool, PoolConfig, STRIDE};

use super::check;
use crate::rcu;
use crate::socket::{CoreToken, Socket, SocketId, tokens};
use crate::sync::Futex;
use crate::table::Key;
use crate::wq::Barrier;

thread_local! {
    /// All threads of a model are one thread of the system's.
    pub static POOL: RefCell<Pool> = RefCell::new(PoolConfig::new("model", 64).build().unwrap().claim());
}

pub fn mbuf(number: u8) -> Mbuf {
    POOL.with_borrow_mut(|pool| pool.copy_from(&[number]).expect("a model holds few"))
}

fn socket() -> (Arc<Socket>, CoreToken) {
    let (engine, mut tokens) = tokens(1);
    let key = Key { local: "10.0.0.1:7".parse().unwrap(), peer: None };
    let id = SocketId { slot: 0, generation: 0 };
    (Arc::new(Socket::new(engine, id, key, 0, 1, 8 * STRIDE as u64)), tokens.remove(0))
}

/// The end of a burst.
fn publish_and_wake(socket: &Socket, token: &mut CoreToken) {
    socket.publish(token);
    let pin = rcu::pin();
    socket.wake(token, pin.guard(), &Barrier::publish());
}

/// What a core's inbox is in the engine: how a reader asks for more. Only exchanges: where stores and exchanges of one atomic meet, loom
/// lets an exchange read what a store has replaced.
#[derive(Default)]
struct Requests {
    wanted: AtomicBool,
    done: AtomicBool,
    bell: Futex,
}

impl Requests {
    fn ask(&self) -> bool {
        self.wanted.swap(true, Ordering::AcqRel);
        self.bell.advance();
        true
    }

    fn finish(&self) {
        self.done.swap(true, Ordering::AcqRel);
        self.bell.advance();
    }

    /// A request that the core did not hear of any more.
    fn is_asked(&self) -> bool {
        self.wanted.swap(false, Ordering::AcqRel)
    }

    /// Sleeps until there is a request; false: the reader has finished.
    fn next(&self) -> bool {
        loop {
            let round = self.bell.value();
            if self.wanted.swap(false, Ordering::AcqRel) {
                return true;
            }
            if self.done.load(Ordering::Acquire) {
                return false;
            }
            self.bell.wait(round, None);
        }
    }
}

/// A core that pushes `bursts` datagrams, one a burst, and from then on does only what it is asked for.
fn run_core(socket: &Socket, mut token: CoreToken, bursts: u8, requests: &Requests) {
    for number in 1..=bursts {
        socket.push(&mut token, mbuf(number)).unwrap();
        publish_and_wake(socket, &mut token);
    }
    while requests.next() {
        socket.touch(&mut token);
        publish_and_wake(socket, &mut token);
    }
}

/// If the core keeps a burst because the mailbox looked full, and the reader does not see that it must ask, both sleep: a deadlock.
#[test]
fn everything_pushed_is_read() {
    check("socket::everything_pushed_is_read", Some(2), || {
        let (socket, token) = socket();
        let requests = Arc::new(Requests::default());
        let (theirs, asked) = (socket.clone(), requests.clone());
        let core = thread::spawn(move || run_core(&theirs, token, 3, &asked));
        let wq = socket.wq_cell().load_owned(rcu::pin().guard()).unwrap();
        for number in [1, 2, 3] {
            let (mbuf, _) = wq.wait(None, || socket.take(|_| requests.ask())).unwrap();
            assert_eq!(mbuf.data(), [number]);
        }
        requests.finish();
        core.join().unwrap();
    });
}

/// The reader is an event loop: it reads until there is nothing, arms the eventfd, and would block.
#[test]
fn an_event_loop_is_told_of_everything() {
    check("socket::an_event_loop_is_told_of_everything", Some(3), || {
        let (socket, token) = socket();
        let requests = Arc::new(Requests::default());
        let wq = socket.wq_cell().load_owned(rcu::pin().guard()).unwrap();
        wq.event_fd().unwrap();
        let (theirs, asked) = (socket.clone(), requests.clone());
        let core = thread::spawn(move || run_core(&theirs, token, 2, &asked));
        let mut read = 0;
        let mut take_all = || {
            while socket.take(|_| requests.ask()).is_some() {
                read += 1
            }
        };
        take_all();
        wq.arm_event(|| socket.is_readable());
        requests.finish();
        core.join().unwrap();
        while super::wq::is_readable(&wq) {
            take_all();
            wq.arm_event(|| socket.is_readable());
        }
        assert!(read == 2 || requests.is_asked(), "{read} of 2 read, and the event loop sleeps");
    });
}
