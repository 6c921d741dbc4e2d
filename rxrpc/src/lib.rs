//! RxRPC: the protocol core of an Rx endpoint, and the socket API above it.
//!
//! [`Endpoint`] is sans-IO and belongs to one core. Deliberately absent from it: clocks, I/O, threads, and endpoints
//! that follow a peer from address to address (epochs with the high bit set are matched like any other).
#![forbid(unsafe_code)]

mod ack;
mod app;
mod call;
mod config;
mod congestion;
mod conn;
mod conn_client;
mod conn_service;
mod control;
mod debug_records;
mod endpoint;
mod error;
mod event;
mod expire;
mod finish;
mod handler;
mod id;
mod input;
mod input_ack;
mod input_data;
mod local;
mod locals;
mod output;
mod peer;
mod probe;
mod recv_queue;
mod rtt;
mod security;
mod send_queue;
mod shared;
mod slab;
pub mod socket;
mod stats;
mod timer;
mod transfer;
mod views;
pub mod wire;

pub use app::{App, Rx};
pub use config::{CallOptions, EndpointConfig, PACKET_PAYLOAD, ServiceConfig, Target};
pub use control::{ClientPorts, OpenError, OpenLocal, RxControl};
pub use endpoint::Endpoint;
pub use error::{
    BeginError, CallError, Completion, ListenError, LocalError, NetError, RxDrop, Timeout, code,
};
pub use event::Event;
pub use handler::{EVENTS_PER_TURN, RxCommand, RxHandler};
pub use id::{BundleId, CallId, ConnId, LocalId, PeerId};
pub use socket::{
    Call, Client, RxEngine, RxSocket, Security, Service, ServiceId, SocketApp, SocketConfig, StartRx,
};
pub use stats::{PACKET_TYPES, RxStats};
pub use transfer::Recv;
pub use views::{CallState, CallView, ConnView, LocalView, PeerView, Role};
