//! RxRPC: the protocol core of an Rx endpoint, and the socket API above it.
//!
//! [`Endpoint`] is sans-IO and belongs to one core. Deliberately absent from it: clocks, I/O, threads, and endpoints
//! that follow a peer from address to address (epochs with the high bit set are matched like any other).
#![forbid(unsafe_code)]
#![allow(dead_code)] // until the core stands

mod config;
mod endpoint;
mod error;
mod event;
mod id;
mod slab;
mod stats;
mod views;
pub mod wire;

pub use config::{CallOptions, EndpointConfig, PACKET_PAYLOAD, ServiceConfig, Target};
pub use endpoint::{Endpoint, Recv};
pub use error::{
    BeginError, CallError, Completion, ListenError, LocalError, NetError, RxDrop, Timeout, code,
};
pub use event::Event;
pub use id::{BundleId, CallId, ConnId, LocalId, PeerId};
pub use stats::{PACKET_TYPES, RxStats};
pub use views::{CallState, CallView, ConnView, LocalView, PeerView, Role};
