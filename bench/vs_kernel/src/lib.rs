//! What kernel sockets and our ports do with the same work: UDP echo, and Rx calls by the same protocol core.
//!
//! Each run is one side of one arm and prints one JSON object: [`figures::Loaded`] of a load, [`figures::Served`] of a server, both of
//! [`figures::Paired`]. The lab builds the program, gives it its CPUs and draws the order of the runs; by hand it is good for looking at one
//! figure.
//!
//! ```text
//! generator   when requests are due, what became of them, latencies: no clock, no I/O
//! wire/       datagrams in and out, a burst at a time: kernel sockets in five ways, and a port of pmd
//! udp/, rx/   servers on wires (the kernel's), and loads on wires (all)
//! engines     our servers: engines with sockets in their table, with Rx on their cores
//! ```
//!
//! **What is compared is the server.** Every load is the same program: one thread that polls, on a wire of any kind. On veth one and the same
//! load can drive each server; it should be the fastest one that the server's end understands, and its own ceiling be known. Our servers are the
//! product: engines, with the whole stack and the socket table. The load on a port is not: it is a bare queue and as little of ARP, IP and UDP as
//! one peer needs (`wire/port`), so that over `memory:` it is not the load that is measured.
//!
//! **Latency** is from the time at which a request was *meant* to be made, which in an open loop does not depend on what became of those before:
//! a server that stalls for a second shows in a second's worth of requests. Requests that were due and have no answer when the run ends are in the
//! percentiles with the time they had waited by then; their counts are `unsent` and `lost`.
//!
//! Deliberately absent: comparisons, bars, and anything that decides what a figure means.

pub mod args;
pub mod arm;
pub mod cli;
mod engines;
pub mod figures;
pub mod generator;
mod loading;
mod meter;
pub mod run;
mod rx;
mod serving;
pub mod stop;
mod trouble;
mod udp;
mod wire;

pub use trouble::Trouble;
