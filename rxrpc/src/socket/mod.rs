//! The socket API: Rx for threads and tasks.
//!
//! Three ways to use it, over the same calls:
//! - [`Service`] and [`Client`] hand out a [`Call`] each: blocking, `try_` and `async` forms of everything.
//! - [`Service::serve`] answers on the core itself, with no thread in between.
//! - [`RxSocket`] has the vocabulary of AF_RXRPC: user IDs, charged accepts, typed messages, and what a call may be told
//!   besides: time limits, a declared length, an upgrade of the service, a connection of its own.
//!
//! A call is two objects. Its protocol state belongs to one core's [`Endpoint`](crate::Endpoint); what threads share of
//! it ([`call_shared`]) is reached by handles, queues and views, and is kept by exactly the references listed in
//! [`call_ref`]. It has none on its socket: it names it by [`SocketId`]. Cores and threads pass bytes through rings and
//! never wait for each other; every lock in here is the threads' own.
//!
//! Deliberately absent: challenges that the socket's user answers (AF_RXRPC's out-of-band messages): a connection's security class
//! answers them on its core, from what it was given beforehand. A dead state, timers for dead calls, deferred release: a call is
//! released by a socket operation, once, and then it is gone.

mod api;
mod budget;
mod call;
mod call_io;
mod call_ref;
mod call_shared;
mod call_table;
mod client;
mod command;
mod completion;
mod config;
mod core;
mod core_call;
mod core_socket;
mod error;
mod inline;
mod link;
mod message;
#[cfg(all(test, loom))]
mod models;
mod peer_cell;
mod rx_engine;
mod rx_socket;
mod service;
mod settle;
mod socket_shared;
mod socket_table;
#[cfg(test)]
mod tests;
mod views;

pub use self::command::{Charge, SocketCommand};
pub use self::core::SocketApp;
pub use call::Call;
pub(crate) use call_shared::CallName;
pub use call_shared::{CallPeer, SocketId};
pub(crate) use call_table::CallTable;
pub use client::Client;
pub use completion::CallEnd;
pub use config::SocketConfig;
pub use error::{AcceptFailed, BindFailed, CallFailed};
pub use inline::ServedCall;
pub use message::Message;
pub use rx_engine::{IntoAddr, RxApi, RxEngine, RxExt};
pub use rx_socket::RxSocket;
pub use service::{InlineServing, Service};
pub use views::SocketCallView;

/// The number of a service: what a call is for. 147 is rxperf's, 52 the AFS volume location database's.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ServiceId(pub u16);
