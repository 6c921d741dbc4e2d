//! The calls in progress on a core, two by two. All room is allocated at the start.

use pmd::{Instant, Mbuf};
use rxrpc::CallId;

/// Which half of a pair a call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Backend,
}

/// A client's call and the backend's call that carries it on.
pub(crate) struct Pair {
    pub client: CallId,
    /// None once it was released.
    pub call: Option<CallId>,
    /// Index of the server.
    pub backend: usize,
    pub request: Flow,
    pub reply: Flow,
    /// When the last of the request was handed to the backend's call.
    pub request_ended_at: Option<Instant>,
    /// Whether the first of the reply has come.
    pub responded: bool,
    /// The backend's call has the gateway's own proof.
    pub proven: bool,
}

/// One direction of a pair.
#[derive(Default)]
pub(crate) struct Flow {
    /// A buffer that found no room, and whether more follows it.
    pub held: Option<(Mbuf, bool)>,
    /// Something was taken from the sending side.
    pub taken: bool,
    /// Everything, the end included, was taken from the sending side.
    pub all_taken: bool,
    /// Everything, the end included, was given to the receiving side; or it wants no more.
    pub ended: bool,
    /// Bytes given to the receiving side.
    pub given: u64,
}

impl Pair {
    pub fn new(client: CallId, call: CallId, backend: usize, proven: bool) -> Self {
        Self {
            client,
            call: Some(call),
            backend,
            request: Flow::default(),
            reply: Flow::default(),
            request_ended_at: None,
            responded: false,
            proven,
        }
    }
}

/// A slab of pairs. Both calls carry their pair's index and side as their user number; both are released when the pair is
/// removed and no event names a released call, so an index that an event brings is a live pair's.
pub(crate) struct Pairs {
    slots: Vec<Option<Pair>>,
    vacant: Vec<usize>,
}

impl Pairs {
    pub fn with_capacity(pairs: usize) -> Self {
        Self { slots: (0..pairs).map(|_| None).collect(), vacant: (0..pairs).rev().collect() }
    }

    /// The user number of a call: never 0, which is what calls of nobody have.
    pub fn user(index: usize, side: Side) -> u64 {
        (index as u64 + 1) << 1 | u64::from(side == Side::Backend)
    }

    /// The pair that a user number names.
    pub fn find(&self, user: u64) -> Option<(usize, Side)> {
        let index = (user >> 1).checked_sub(1)? as usize;
        let side = if user & 1 == 0 { Side::Client } else { Side::Backend };
        self.slots.get(index)?.as_ref().map(|_| (index, side))
    }

    pub fn len(&self) -> usize {
        self.slots.len() - self.vacant.len()
    }

    pub fn is_full(&self) -> bool {
        self.vacant.is_empty()
    }

    /// Where the next pair will be. There must be room.
    pub fn vacant(&self) -> usize {
        *self.vacant.last().expect("asked is_full before")
    }

    pub fn insert(&mut self, index: usize, pair: Pair) {
        assert_eq!(self.vacant.pop(), Some(index), "the place that `vacant` named");
        self.slots[index] = Some(pair);
    }

    /// A live pair.
    pub fn get_mut(&mut self, index: usize) -> &mut Pair {
        self.slots[index].as_mut().expect("a live pair")
    }

    pub fn remove(&mut self, index: usize) -> Pair {
        let pair = self.slots[index].take().expect("a live pair");
        self.vacant.push(index);
        pair
    }

    /// Of all live pairs, as they are now.
    pub fn indices(&self) -> Vec<usize> {
        (0..self.slots.len()).filter(|index| self.slots[*index].is_some()).collect()
    }
}
