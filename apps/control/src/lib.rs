//! The control socket: how other programs look into a running rxline.
//!
//! A long-running command serves a Unix stream socket ([`serve`](Control::serve)) on a thread of its own; `rxline rx` and
//! `rxline top` ask there ([`Asker`]). Requests and answers are lines of JSON ([`protocol`]), and a Prometheus server may
//! ask for the same figures over HTTP ([`prometheus`]). Nothing here is on the data path: counters are read where cores
//! write them, and objects are looked at page by page by the core that owns them ([`rxrpc::RxViewer`]).
//!
//! Everything has a limit: clients, the length of a request, rows of an answer, and the time that a client may take.
//!
//! Deliberately absent: commands that change anything. A capture costs the cores a copy of each frame while it lasts, and ends with
//! its client ([`CaptureWish`]). Who may look is decided by the file's mode and the peer's
//! credentials: the same user, or root.
#![forbid(unsafe_code)]

mod args;
mod asker;
mod capturing;
mod client;
pub mod filter;
mod http;
mod place;
pub mod prometheus;
pub mod protocol;
pub mod rows;
mod server;
pub mod snapshot;
mod sources;
mod wish;

pub use args::{AskArgs, ServeArgs};
pub use asker::{AskError, Asker};
pub use capturing::{CaptureStarted, CapturedPage, FrameFate, FrameRow};
pub use place::{PlaceError, default_directory};
pub use server::{Control, ServeError};
pub use snapshot::Snapshot;
pub use sources::Sources;
pub use wish::CaptureWish;
