//! Cores and sockets on top of `pmd`: the packet loop, the network stack and socket tables. Knows no RPC.
//!
//! An [`Engine`] is a set of cores that poll the queues of some ports. What runs on a core is a [`Handler`]; plain UDP is one
//! ([`UdpHandler`]). The loop is in `core.rs` and fits one screen.
//!
//! ```no_run
//! use engine::{Engine, Outcome};
//! let engine = Engine::builder().port("tap:echo0").address("192.0.2.10/24").start()?;
//! let echo = engine.udp().serve("192.0.2.10:7".parse()?, |cx, socket, datagram| {
//!     match cx.send(socket.local(), datagram.peer, datagram.payload) {
//!         Ok(()) => Outcome::Delivered,
//!         Err(reason) => Outcome::Dropped(reason),
//!     }
//! })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#[doc(hidden)]
pub mod bench;
mod builder;
mod capture;
mod control;
mod core;
mod cx;
mod engine;
mod figures;
mod flow;
mod handler;
mod idle;
mod inbox;
mod input;
mod ledger;
#[cfg(all(test, loom))]
mod models;
mod owner;
mod poll;
pub mod rcu;
mod ring;
mod socket;
pub mod stack;
mod start_error;
pub mod stats;
mod sync;
mod table;
pub mod timer;
mod udp;
mod wires;
pub mod wq;

pub use builder::{Builder, CORES_MAX};
pub use capture::{Capture, CaptureConfig, CaptureError, CapturedFrame, Fate, SNAPLEN_MAX, SNAPLEN_MIN};
pub use control::{BindError, CommandSender, SocketHandle};
pub use cx::Cx;
pub use engine::{Binder, Engine, Report};
pub use figures::{CoreStats, EngineStats, PortView, Viewer};
pub use handler::{CoreInfo, Handler, Outcome, REFUSALS_MAX};
pub use idle::{BadIdle, Idle};
pub use ledger::Ledger;
pub use owner::{Ownership, Steering};
pub use pmd;
pub use pmd::{BURST, Burst, Clock, Instant, Mbuf, MbufList, NoBuffers, Pool};
pub use ring::SendError;
pub use socket::{Socket, SocketId};
pub use stack::{Datagram, IpNet, NetError, Stack};
pub use start_error::StartError;
pub use stats::{Drop, DropCounts};
pub use timer::{TimerId, TimerWheel, TimersFull};
pub use udp::{RecvError, Udp, UdpCommand, UdpHandler, UdpSendError, UdpService, UdpSocket};
