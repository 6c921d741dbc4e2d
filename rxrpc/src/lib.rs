//! RxRPC: the protocol core of an Rx endpoint, and the socket API above it.
//!
//! Two engines in one process, joined by a `memory:` port; a service on one, a client on the other:
//!
//! ```
//! use rxrpc::engine::Engine;
//! use rxrpc::{Security, ServiceId, RxExt};
//!
//! let engine = Engine::builder().port("memory:doc").address("192.0.2.10/24").start_rx()?;
//! let service = engine.rx().bind("192.0.2.10:7009", ServiceId(147))?.security(Security::none())?;
//! std::thread::spawn(move || {
//!     for mut call in service.incoming() {
//!         let request = call.read_all()?;
//!         call.reply(&[b"hello, ", &request[..]].concat())?;
//!     }
//!     Ok::<(), rxrpc::socket::CallFailed>(())
//! });
//!
//! let theirs = Engine::builder().port("memory:doc").address("192.0.2.20/24").start_rx()?;
//! let client = theirs.rx().client()?;
//! let reply = client.request("192.0.2.10:7009".parse()?, ServiceId(147), b"world")?;
//! assert_eq!(reply, b"hello, world");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! From the bottom up: [`Endpoint`] is all that one core knows of Rx. It is sans-IO: no clock, no thread, no socket.
//! [`RxHandler`] puts it on a core of an engine together with an [`App`], which runs on the core as well. [`socket`] is
//! such an app: it serves threads and tasks. [`kernel`] is another: what Linux gives to services in the kernel, for services on a core.
//!
//! Deliberately absent from the endpoint: endpoints that follow a peer from address to address (epochs with the high
//! bit set are matched like any other).
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
mod keep_alive;
pub mod kernel;
mod local;
mod locals;
mod loss;
mod output;
mod output_data;
mod output_jumbo;
mod path_mtu;
mod peer;
mod probe;
mod rack;
mod recv_queue;
mod rtt;
pub mod security;
mod send_queue;
mod shared;
mod slab;
pub mod socket;
mod stats;
mod sync;
mod timer;
mod trace;
mod transfer;
mod upgrade;
mod viewer;
mod views;
pub mod wire;

pub use app::{App, Claim, Gate, Rx};
pub use config::{CallOptions, CallTimeouts, EndpointConfig, PACKET_PAYLOAD, ServiceConfig, Target};
pub use congestion::CongestionAlgorithm;
pub use control::{ClientPorts, OpenError, OpenLocal, RxControl};
pub use endpoint::Endpoint;
pub use engine;
pub use error::{
    BeginError, CallError, Completion, ListenError, LocalError, NetError, RxDrop, Timeout, code,
};
pub use event::Event;
pub use handler::{BURSTS_PER_TURN, EVENTS_PER_TURN, Look, RxCommand, RxHandler};
pub use id::{BundleId, CallId, ConnId, LocalId, PeerId};
pub use security::{Credentials, Identity, Level, Security, ServerKeys, Token};
pub use socket::{Call, Client, RxEngine, RxExt, RxSocket, Service, ServiceId, SocketApp, SocketConfig};
pub use stats::{PACKET_TYPES, RxStats};
pub use trace::{
    Happened, TraceEvent, TraceReader, TraceSink, TracedAck, TracedCall, TracedPacket, trace_ring,
};
pub use transfer::Recv;
pub use viewer::{Page, RxViewer, SharedCall, ViewError};
pub use views::{
    CallState, CallView, ConnView, LocalView, PAGE_ROWS, PAGE_SLOTS, PeerView, RelayView, Role, RxFigures,
};
