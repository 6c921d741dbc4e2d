//! References on a call: who may hold one, and what the last one does.
//!
//! A call is kept by exactly five kinds of holder, and by each at most once at a time (a receive queue by its entry and by
//! each reader that took one off it). Every reference is a value, so that no error path can put what it did not get:
//!
//! | holder | reference | made by | put by |
//! |---|---|---|---|
//! | user-ID tree | `CallRef<UserId>` in the tree | a socket operation | a socket operation |
//! | accept queue | the [`CoreHalf`] in a charge | a socket operation | the core, when a call takes it |
//! | service | `CallRef<Service>` in the user's handle | a socket operation | a socket operation |
//! | queued run | `CallRef<Work>`, then its message | a socket operation | the core, before it looks |
//! | receive queue | the entry, then `CallRef<ReceiveQueue>` | the core | the reader |
//!
//! What passes between a core and threads is a [`Link`](super::link::Link) or the core half itself, so a core neither
//! locks nor runs a locked instruction for any of it. One side alone judges which reference was the last, the threads':
//! a core hands its half back when it has no reference left, and under the lock of [`Fate`] the last one cleans up at once.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use super::call_shared::{CallLedger, CallShared, CoreHalf};

/// Who keeps a call, as threads know it.
#[derive(Default)]
pub(crate) struct Fate {
    user_id: bool,
    service: bool,
    /// Readers that took the call off its socket's queue, or put it back there.
    readers: u32,
    /// A reader put it back on the queue.
    put_back: bool,
    /// The core has its half, and whatever references go with it.
    with_core: bool,
    /// The core stopped: what it was sent will not be put.
    core_gone: bool,
    /// The last reference was put.
    cleaned: bool,
    /// What came back from the core, to be recycled with the call.
    half: Option<Box<CoreHalf>>,
    /// Counts the call.
    ledger: Option<Arc<CallLedger>>,
}

impl Fate {
    /// That of a new call, which its maker has in its hand as the core's half.
    pub(super) fn begin(ledger: Arc<CallLedger>) -> Self {
        Fate { with_core: true, ledger: Some(ledger), ..Fate::default() }
    }

    /// Whether there is a call at all.
    pub(super) fn is_live(&self) -> bool {
        self.ledger.is_some()
    }
}

/// One kind of holder whose reference a thread has in its hand. Sealed: the list below is the whole of it.
pub(crate) trait Holder: 'static {
    /// False: this holder has a reference already, or may not have one any more.
    fn take(call: &CallShared, fate: &mut Fate) -> bool;
    fn put(call: &CallShared, fate: &mut Fate);
}

/// The user-ID tree of the call's socket.
pub(crate) enum UserId {}
/// A service or client with the call in progress: the handle that the user has.
pub(crate) enum Service {}
/// A run of the call's work on its core, queued and not yet started.
pub(crate) enum Work {}
/// A reader that took the call off the receive queue of its socket, or put it back there.
pub(crate) enum ReceiveQueue {}

impl Holder for UserId {
    fn take(_: &CallShared, fate: &mut Fate) -> bool {
        !std::mem::replace(&mut fate.user_id, true)
    }
    fn put(_: &CallShared, fate: &mut Fate) {
        fate.user_id = false;
    }
}

impl Holder for Service {
    fn take(_: &CallShared, fate: &mut Fate) -> bool {
        !std::mem::replace(&mut fate.service, true)
    }
    fn put(_: &CallShared, fate: &mut Fate) {
        fate.service = false;
    }
}

impl Holder for Work {
    /// A run is queued for a call that was not released, once: what was published before is seen by it, or by the run
    /// that is queued already.
    fn take(call: &CallShared, fate: &mut Fate) -> bool {
        // Between what the caller published and the look at the link; pairs with the core's barrier after `clear`.
        fence(Ordering::SeqCst);
        fate.with_core && !call.is_released() && call.work.set()
    }
    fn put(call: &CallShared, _: &mut Fate) {
        call.work.clear();
    }
}

impl Holder for ReceiveQueue {
    fn take(_: &CallShared, fate: &mut Fate) -> bool {
        fate.readers += 1;
        true
    }
    fn put(_: &CallShared, fate: &mut Fate) {
        fate.readers -= 1;
    }
}

/// One reference, named by its holder. Dropping it puts it; the last one cleans the call up.
pub(crate) struct CallRef<H: Holder> {
    call: Arc<CallShared>,
    /// Somebody else puts it: the core that it was sent to.
    sent: bool,
    holder: PhantomData<H>,
}

impl<H: Holder> CallRef<H> {
    /// Takes a reference for `H` on a call that somebody holds. `None`: `H` has one, or nobody holds the call any more.
    pub(crate) fn take(call: &Arc<CallShared>) -> Option<Self> {
        let mut fate = call.fate();
        let taken = !fate.cleaned && H::take(call, &mut fate);
        taken.then(|| CallRef { call: call.clone(), sent: false, holder: PhantomData })
    }

    /// Passes this reference along to another holder. `None`: that one has a reference already, and this one is put.
    pub(crate) fn pass<K: Holder>(self) -> Option<CallRef<K>> {
        CallRef::take(&self.call)
    }

    /// The call's memory, without a reference.
    pub(crate) fn shared(&self) -> &Arc<CallShared> {
        &self.call
    }
}

impl CallRef<Work> {
    /// The reference went along with a message: the core puts it.
    pub(crate) fn sent(mut self) {
        self.sent = true;
    }
}

impl CallRef<ReceiveQueue> {
    /// Takes a call off the core's ring: the entry's reference becomes the reader's. From here on what happens links the
    /// call anew, so whoever has this looks at the call afterwards.
    pub(crate) fn unlink(call: &Arc<CallShared>) -> Self {
        let reader = CallRef::take(call).expect("the entry is a reference");
        // Under the lock, so that the one who judges sees the entry or the reader.
        let _fate = call.fate();
        call.linked.clear_and_look();
        reader
    }

    /// Makes this the reference of a place on the readers' own queue. `None`: the call has one there, and this one is put.
    pub(crate) fn put_back(self) -> Option<Self> {
        let there = std::mem::replace(&mut self.call.fate().put_back, true);
        (!there).then_some(self)
    }

    /// The call was taken off the readers' own queue. Before the caller looks at it.
    pub(crate) fn taken_back(&self) {
        self.call.fate().put_back = false;
    }
}

impl<H: Holder> Drop for CallRef<H> {
    fn drop(&mut self) {
        if !self.sent {
            self.call.judge(|fate| H::put(&self.call, fate));
        }
    }
}

impl CallShared {
    /// Puts a reference, and cleans the call up if it was the last.
    fn judge(&self, put: impl FnOnce(&mut Fate)) {
        let mut fate = self.fate();
        put(&mut fate);
        let queued = self.linked.is_set() || self.work.is_set() && !fate.core_gone;
        let held = fate.user_id || fate.service || fate.readers > 0 || fate.with_core || queued;
        if held || std::mem::replace(&mut fate.cleaned, true) {
            return;
        }
        let (half, ledger) = (fate.half.take(), fate.ledger.take());
        drop(fate);
        self.clean_up(half, ledger);
    }

    /// The last reference was put. By now the call is complete and was released; its name means nothing from here on, and its
    /// memory is the next call's or goes through RCU.
    fn clean_up(&self, half: Option<Box<CoreHalf>>, ledger: Option<Arc<CallLedger>>) {
        assert!(self.is_released(), "a call's last reference was put before a socket operation released it");
        assert!(self.completion.get().is_some(), "a call's last reference was put before it was complete");
        self.discard_unread();
        // Release: pairs with the Acquire in `CallTable::get`.
        self.generation.fetch_add(1, Ordering::Release);
        if let Some(home) = self.home.upgrade() {
            home.take_back(self.index, half);
        }
        self.core_account.end_call();
        if let Some(ledger) = ledger {
            ledger.end();
        }
    }

    /// The core put a reference after it had handed its half back: the last one may have been that.
    pub(super) fn core_put(&self) {
        self.judge(|_| ());
    }

    /// The core handed its half back.
    pub(super) fn give_back(half: Box<CoreHalf>) {
        let call = half.shared.clone();
        call.wake_all();
        call.judge(|fate| {
            fate.with_core = false;
            if half.closed {
                call.released.store(true, Ordering::Release);
            }
            fate.half = Some(half);
        });
    }

    /// The core stopped, or never was told. `released`: nobody else is there to do it.
    pub(super) fn core_is_gone(&self, released: bool) {
        self.judge(|fate| {
            (fate.with_core, fate.core_gone) = (false, true);
            if released {
                self.released.store(true, Ordering::Release);
            }
        });
    }

    /// Marks the call released. True: by this caller, who now does what a release takes; false: it was already.
    pub(super) fn mark_released(&self) -> bool {
        let _fate = self.fate();
        !self.released.swap(true, Ordering::AcqRel)
    }

    /// Why the call could not begin, once the core said so.
    pub(super) fn begin_error(&self) -> Option<crate::BeginError> {
        self.fate().half.as_ref()?.begin_error
    }

    /// The holders as a view prints them: `U--W-` for the five of the table above.
    pub(super) fn holders(&self, fate: &Fate) -> String {
        let held = [
            (fate.user_id, 'U'),
            (self.charged.load(Ordering::Relaxed), 'A'),
            (fate.service, 'S'),
            (self.work.is_set(), 'W'),
            (self.linked.is_set() || fate.readers > 0, 'R'),
        ];
        held.into_iter().map(|(held, letter)| if held { letter } else { '-' }).collect()
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
        write!(f, "CallRef({})", self.call.holders(&self.call.fate()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;
    use std::sync::mpsc;
    use std::thread;

    use engine::wq::Barrier;

    use super::*;
    use crate::socket::SocketId;
    use crate::socket::budget::ReadAccount;
    use crate::socket::call_shared::NewCall;
    use crate::socket::call_table::CallTable;
    use crate::socket::completion::CallEnd;

    fn table() -> Arc<CallTable> {
        CallTable::new(0, (16, 16), Arc::new(ReadAccount::new(1 << 20)))
    }

    fn call(table: &Arc<CallTable>, ledger: &Arc<CallLedger>) -> Box<CoreHalf> {
        let socket = SocketId { slot: 0, generation: 0 };
        table.begin(&NewCall { user_id: 1, by_id: true, socket, calls_max: 1, ledger }).unwrap()
    }

    fn holders(call: &CallShared) -> String {
        call.holders(&call.fate())
    }

    #[test]
    fn a_holder_holds_a_call_once() {
        let (table, ledger) = (table(), Arc::default());
        let mut half = call(&table, &ledger);
        let shared = half.shared.clone();
        let named = CallRef::<UserId>::take(&shared).unwrap();
        assert!(CallRef::<UserId>::take(&shared).is_none());
        let queued = CallRef::<Work>::take(&shared).unwrap();
        assert!(CallRef::<Work>::take(&shared).is_none());
        assert_eq!(holders(&shared), "U--W-");
        // Passing a reference to a holder that has one puts it.
        let handle = CallRef::<Service>::take(&shared).unwrap();
        assert!(handle.pass::<Work>().is_none());
        assert_eq!(holders(&shared), "U--W-");
        drop(queued);
        assert_eq!(holders(&shared), "U----");
        assert!(shared.linked.set());
        let reader = CallRef::unlink(&shared);
        assert_eq!(holders(&shared), "U---R");
        // On the readers' own queue it is once.
        let other = CallRef::<ReceiveQueue>::take(&shared).unwrap();
        let reader = reader.put_back().unwrap();
        assert!(other.put_back().is_none());
        reader.taken_back();
        drop(reader);
        assert_eq!(holders(&shared), "U----");
        half.complete(CallEnd::SocketClosed);
        shared.mark_released();
        drop(named);
    }

    #[test]
    fn the_last_reference_cleans_up_at_once() {
        let (table, ledger) = (table(), Arc::default());
        let mut half = call(&table, &ledger);
        let shared = half.shared.clone();
        let named = CallRef::<UserId>::take(&shared).unwrap();
        let reader = CallRef::<ReceiveQueue>::take(&shared).unwrap();
        half.complete(CallEnd::SocketClosed);
        shared.mark_released();
        drop(named);
        CallShared::give_back(half);
        assert_eq!(ledger.live(), 1);
        drop(reader);
        // Its memory is still there for those who look; the call is not.
        assert_eq!(ledger.live(), 0);
        assert!(
            CallRef::<Service>::take(&shared).is_none(),
            "nobody takes a reference on a call that is gone"
        );
    }

    #[test]
    fn an_entry_on_a_queue_keeps_the_call_and_so_does_a_run_on_its_way() {
        let (table, ledger) = (table(), Arc::default());
        let mut half = call(&table, &ledger);
        let shared = half.shared.clone();
        CallRef::<Work>::take(&shared).unwrap().sent();
        assert!(shared.linked.set());
        half.complete(CallEnd::SocketClosed);
        shared.mark_released();
        CallShared::give_back(half);
        assert_eq!(ledger.live(), 1);
        drop(CallRef::unlink(&shared));
        assert_eq!(ledger.live(), 1, "a run is queued");
        // The core puts it, and says so.
        shared.work.clear();
        shared.core_put();
        assert_eq!(ledger.live(), 0);
    }

    #[test]
    #[should_panic(expected = "before a socket operation released it")]
    fn a_call_that_was_not_released_has_a_reference() {
        let (table, ledger) = (table(), Arc::default());
        let mut half = call(&table, &ledger);
        half.complete(CallEnd::SocketClosed);
        CallShared::give_back(half);
    }

    #[test]
    #[should_panic(expected = "before it was complete")]
    fn a_call_that_is_not_complete_has_a_reference() {
        let (table, ledger) = (table(), Arc::default());
        let half = call(&table, &ledger);
        half.shared.mark_released();
        CallShared::give_back(half);
    }

    /// One side publishes and links, the other unlinks and looks: whatever was published is seen, and the queue never
    /// holds the call twice.
    #[test]
    fn nothing_published_is_missed_between_link_and_unlink() {
        const ROUNDS: u64 = 100_000;
        let (table, ledger) = (table(), Arc::default());
        let mut half = call(&table, &ledger);
        let shared = half.shared.clone();
        let published = AtomicU64::new(0);
        let (queue, reader) = mpsc::sync_channel::<()>(1);
        thread::scope(|scope| {
            scope.spawn(|| {
                let queue = queue;
                let link = || {
                    let linked = shared.linked.set();
                    if linked {
                        queue.try_send(()).expect("the call is on the queue once at most");
                    }
                    linked
                };
                for round in 1..=ROUNDS {
                    published.store(round, Ordering::Relaxed);
                    if !link() {
                        Barrier::publish();
                        link();
                    }
                }
            });
            let mut seen = 0;
            for () in reader {
                let link = CallRef::unlink(&half.shared);
                seen = published.load(Ordering::Relaxed);
                drop(link);
            }
            assert_eq!(seen, ROUNDS);
        });
        half.complete(CallEnd::SocketClosed);
        shared.mark_released();
        CallShared::give_back(half);
    }
}
