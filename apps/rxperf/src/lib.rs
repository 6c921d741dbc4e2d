//! rxperf: a server that takes and gives bytes, and a load that asks it to and verifies the answers.
//!
//! The protocol is the one of OpenAFS's and Linux's rxperf (UDP 7009, service 147), so that either side can be theirs.
//! `protocol`, `payload`, `server_call` and `client_call` are state machines over bytes and know neither packets nor
//! time; `service` and `load` put them on the polling core, and [`ServiceRun`] and [`LoadRun`]
//! run them on engines of their own.
//!
//! What ours add: the payload is not zeros. A request's bytes are drawn from a seed of the call, and a reply's bytes
//! from a digest of the whole request, so that a byte lost, doubled, swapped or put into the wrong call anywhere on the
//! way there or back shows in the reply. Peers that send zeros are checked for zeros; see [`client_call::Verify`].
#![forbid(unsafe_code)]

pub mod cli;
pub mod client_call;
mod figures;
pub mod load;
pub mod payload;
pub mod protocol;
mod run;
pub mod server_call;
pub mod service;
mod summary;

pub use client_call::{ClientCall, Verify, WrongReply};
pub use figures::Counter;
pub use protocol::{Op, Refusal, SERVICE, UDP_PORT, Work};
pub use run::{LoadRun, RunError, Service, ServiceRun};
pub use server_call::ServerCall;
pub use summary::{Latency, Summary};
