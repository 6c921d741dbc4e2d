//! Identifiers of the endpoint's objects: a slot of a slab and the generation that lived in it.
//!
//! They are plain `Copy` values. One that outlives its object is merely unknown from then on: a slot's next tenant has
//! another generation, so no identifier ever comes to mean another object.

use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name {
            slot: u32,
            generation: u32,
        }

        impl $name {
            /// Position in the endpoint's table; dense, reused by later objects.
            pub fn slot(self) -> usize {
                self.slot as usize
            }
        }

        impl crate::slab::Key for $name {
            fn new(slot: u32, generation: u32) -> Self {
                Self { slot, generation }
            }
            fn parts(self) -> (u32, u32) {
                (self.slot, self.generation)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({}.{})"), self.slot, self.generation)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}.{}", self.slot, self.generation)
            }
        }
    };
}

id!(
    /// A call, from `begin` or `Incoming` until `release`.
    CallId
);
id!(
    /// A connection; the protocol's business, shown in views.
    ConnId
);
id!(
    /// What is known of a remote address: round trip, MTU, counters.
    PeerId
);
id!(
    /// A local address that the endpoint serves.
    LocalId
);
id!(
    /// The connections that carry one user's calls to one service.
    BundleId
);
