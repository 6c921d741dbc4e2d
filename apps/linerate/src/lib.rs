//! `rxline linerate`: an app that tells the truth about a NIC.
//!
//! | | |
//! |---|---|
//! | [`template`], [`values`] | what frames look like; made from prepared bytes and sums |
//! | [`mark`], [`track`] | by what a frame is known again, and what became of a stream of them |
//! | [`rate`] | how fast: a token bucket |
//! | [`traffic`], [`replay`] | senders and receivers of frames, without ports, threads or clock |
//! | [`forward`], [`answer`] | what is done to frames of others |
//! | [`handler`], [`run`] | all of it on cores of the engine, and seen from other threads ([`counters`], [`figures`]) |
//! | [`rfc2544`] | trials, and the searches that choose them |
//! | [`bottleneck`] | who is in the way of more |
//! | [`view`], [`report`], [`summary`], [`cli`] | what is shown, written and said of it |
//!
//! A run of one's own, over memory:
//!
//! ```
//! use linerate::run::{Load, Run, RunConfig};
//! use linerate::template::Template;
//! use std::time::Duration;
//!
//! let ports = vec!["memory:lib-example".to_owned(); 2];
//! let config = RunConfig { ports, cpus: vec![], buffers: 4096, mtu: None, idle: Default::default(), seed: 1 };
//! let mut run = Run::start(&config)?;
//! let load = Load {
//!     template: Template { sizes: "imix".parse()?, ..Template::default() },
//!     peer: None,
//!     rate: "20kpps".parse()?,
//!     duration: None,
//!     frames: Some(1000),
//!     one_way: true,
//! };
//! run.generate(&load)?;
//! assert!(run.wait_over(Duration::from_secs(20)) && run.wait_arrived(Duration::from_secs(20)));
//! let seen = run.snapshot();
//! assert_eq!((seen.marked.sent, seen.marked.received, seen.marked.reordered), (1000, 1000, 0));
//! assert_eq!(seen.ports[1].queues[0].rx_frames, 1000);
//! assert!(run.shutdown().leaks().is_empty());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Deliberately absent: TCP, and protocols that need a partner's state; those are other testers' work.
#![forbid(unsafe_code)]

pub mod answer;
pub mod bottleneck;
pub mod cli;
pub mod counters;
pub mod figures;
mod flow_args;
pub mod forward;
pub mod handler;
mod headers;
pub mod line_rate;
pub mod mark;
pub mod rate;
pub mod replay;
pub mod report;
pub mod rfc2544;
pub mod run;
pub mod summary;
pub mod template;
pub mod track;
pub mod traffic;
pub mod units;
pub mod values;
pub mod view;
