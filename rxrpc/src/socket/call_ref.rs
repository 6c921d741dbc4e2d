//! References on a call: who may hold one, and what the last one does.
//!
//! A call is kept by exactly five kinds of holder, and by each at most once, so the set of references is a set of bits
//! and not a number. That makes two flags of the protocol between core and reader *be* the reference they stand for:
//! "linked on a receive queue" is [`ReceiveQueue`]'s bit and "queued for the core" is [`Work`]'s. Neither can be set
//! without its [`CallRef`], and neither can be put twice, on whatever error path.
//!
//! Memory is another matter: an `Arc` keeps it readable for those who still look (a view, a reader that lost a race)
//! after the last reference is gone. It plays the part that the grace period plays in a kernel.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use super::call_shared::CallShared;

/// One kind of holder. Sealed: the list below is the whole of it.
pub(crate) trait Holder: 'static {
    /// The holder's bit in [`Holders`].
    const BIT: u8;
}

macro_rules! holders {
    ($($(#[$doc:meta])* $name:ident = $bit:expr, $letter:expr;)*) => {
        $($(#[$doc])* pub(crate) enum $name {}
        impl Holder for $name { const BIT: u8 = 1 << $bit; })*
        const LETTERS: &[(u8, char)] = &[$((1 << $bit, $letter)),*];
    };
}

holders! {
    /// The user-ID tree of the call's socket.
    UserId = 0, 'U';
    /// The ring of charged accepts, on the core that the charge was given to.
    AcceptQueue = 1, 'A';
    /// A service or client with the call in progress: the handle that the user has.
    Service = 2, 'S';
    /// A run of the call's work on its core, queued and not yet started.
    Work = 3, 'W';
    /// An entry on the receive queue of the call's socket.
    ReceiveQueue = 4, 'R';
}

/// Who holds a call just now.
#[derive(Default)]
pub(crate) struct Holders(AtomicU8);

impl Holders {
    /// The holders as a view prints them: `US---`.
    pub(crate) fn letters(&self) -> String {
        let held = self.0.load(Ordering::Relaxed);
        LETTERS.iter().map(|&(bit, letter)| if held & bit != 0 { letter } else { '-' }).collect()
    }
}

/// One reference, named by its holder. Dropping it puts it; the last one cleans the call up.
pub(crate) struct CallRef<H: Holder> {
    call: Arc<CallShared>,
    holder: PhantomData<H>,
}

impl<H: Holder> CallRef<H> {
    /// The first reference of a new call.
    pub(crate) fn first(call: Arc<CallShared>) -> Self {
        let before = call.holders.0.swap(H::BIT, Ordering::Relaxed);
        assert_eq!(before, 0, "a call is born without references");
        CallRef { call, holder: PhantomData }
    }

    /// A further reference, for another holder. `None`: that holder has one already.
    ///
    /// Taking one requires one: only a call that somebody holds can be passed on.
    pub(crate) fn share<K: Holder>(&self) -> Option<CallRef<K>> {
        hold(&self.call)
    }

    /// Passes this reference along to another holder. `None`: that one has a reference already, and this one is put.
    pub(crate) fn pass<K: Holder>(self) -> Option<CallRef<K>> {
        self.share()
    }

    /// The call's memory, without a reference.
    pub(crate) fn shared(&self) -> &Arc<CallShared> {
        &self.call
    }
}

/// Takes a reference for `K` on a call that somebody else holds. `None`: `K` has one, or nobody holds the call any
/// more.
///
/// AcqRel, pairs with itself in [`CallRef::drop`]: whoever publishes something and then finds the bit set, published
/// it before the holder clears the bit and looks; whoever finds it clear queues the call again. So nothing is missed,
/// and nothing is queued twice.
pub(crate) fn hold<K: Holder>(call: &Arc<CallShared>) -> Option<CallRef<K>> {
    let mut held = call.holders.0.load(Ordering::Relaxed);
    loop {
        if held == 0 {
            return None;
        }
        let with = held | K::BIT;
        // A compare-exchange even where the bit is set already: the store is what publishes to its holder.
        match call.holders.0.compare_exchange_weak(held, with, Ordering::AcqRel, Ordering::Relaxed) {
            Ok(_) if held & K::BIT != 0 => return None,
            Ok(_) => return Some(CallRef { call: call.clone(), holder: PhantomData }),
            Err(now) => held = now,
        }
    }
}

impl<H: Holder> Drop for CallRef<H> {
    fn drop(&mut self) {
        let before = self.call.holders.0.fetch_and(!H::BIT, Ordering::AcqRel);
        debug_assert!(before & H::BIT != 0, "a reference is put once");
        if before == H::BIT {
            self.call.clean_up();
        }
    }
}

impl<H: Holder> Deref for CallRef<H> {
    type Target = CallShared;

    fn deref(&self) -> &CallShared {
        &self.call
    }
}

impl<H: Holder> fmt::Debug for CallRef<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CallRef({})", self.call.holders.letters())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;
    use std::sync::mpsc;
    use std::thread;

    use super::*;
    use crate::socket::SocketId;
    use crate::socket::budget::ReadAccount;
    use crate::socket::call_shared::{CallLedger, CoreHalf, NewCall};
    use crate::socket::completion::CallEnd;

    fn call(ledger: &Arc<CallLedger>) -> CoreHalf {
        let new = NewCall {
            user_id: 1,
            by_id: true,
            socket: SocketId { slot: 0, generation: 0 },
            core: 0,
            receive_buffer: 16,
            send_buffer: 16,
            calls_max: 1,
            unread_budget: 1 << 20,
            core_account: &Arc::new(ReadAccount::default()),
            ledger,
        };
        CallShared::halves(new).unwrap()
    }

    #[test]
    fn a_holder_holds_a_call_once() {
        let half = call(&Arc::default());
        let named = CallRef::<UserId>::first(half.shared.clone());
        let queued = named.share::<Work>().unwrap();
        assert!(named.share::<Work>().is_none());
        assert_eq!(half.shared.holders.letters(), "U--W-");
        // Passing a reference to a holder that has one puts it.
        let linked = named.share::<ReceiveQueue>().unwrap();
        assert!(linked.pass::<Work>().is_none());
        assert_eq!(half.shared.holders.letters(), "U--W-");
        drop(queued);
        assert!(hold::<Work>(&half.shared).is_some());
        half.shared.complete(CallEnd::SocketClosed);
        half.shared.mark_released();
    }

    #[test]
    fn the_last_reference_cleans_up_at_once() {
        let ledger = Arc::<CallLedger>::default();
        let half = call(&ledger);
        let named = CallRef::<UserId>::first(half.shared.clone());
        let queued = named.share::<Work>().unwrap();
        assert_eq!(ledger.live(), 1);
        half.shared.complete(CallEnd::SocketClosed);
        assert!(half.shared.mark_released());
        assert!(!half.shared.mark_released(), "released once");
        drop(named);
        assert_eq!(ledger.live(), 1);
        drop(queued);
        // Its memory is still there for those who look; the call is not.
        assert_eq!(ledger.live(), 0);
        assert!(hold::<Work>(&half.shared).is_none());
    }

    #[test]
    #[should_panic(expected = "before a socket operation released it")]
    fn a_call_that_was_not_released_has_a_reference() {
        let half = call(&Arc::default());
        half.shared.complete(CallEnd::SocketClosed);
        drop(CallRef::<UserId>::first(half.shared.clone()));
    }

    #[test]
    #[should_panic(expected = "before it was complete")]
    fn a_call_that_is_not_complete_has_a_reference() {
        let half = call(&Arc::default());
        half.shared.mark_released();
        drop(CallRef::<UserId>::first(half.shared.clone()));
    }

    /// One side publishes and links, the other unlinks and looks: whatever was published is seen, and the queue never
    /// holds the call twice.
    #[test]
    fn nothing_published_is_missed_between_link_and_unlink() {
        const ROUNDS: u64 = 100_000;
        let half = call(&Arc::default());
        let named = CallRef::<UserId>::first(half.shared.clone());
        let published = AtomicU64::new(0);
        let (queue, reader) = mpsc::sync_channel::<CallRef<ReceiveQueue>>(1);
        thread::scope(|scope| {
            scope.spawn(|| {
                let queue = queue;
                for round in 1..=ROUNDS {
                    published.store(round, Ordering::Relaxed);
                    if let Some(link) = named.share() {
                        queue.try_send(link).expect("the call is on the queue once at most");
                    }
                }
            });
            let mut seen = 0;
            for link in reader {
                drop(link);
                seen = published.load(Ordering::Relaxed);
            }
            assert_eq!(seen, ROUNDS);
        });
        half.shared.complete(CallEnd::SocketClosed);
        half.shared.mark_released();
    }
}
