//! The simulation: endpoints, a bottleneck with a queue, and a wire that loses, delays, duplicates, reorders and corrupts, in
//! virtual time from a seed. `calls` lets two users make random calls and looks that all of them end well; `table` writes down
//! how fast long transfers go, so that each change of congestion behaviour shows as a diff.

#[path = "../common/mod.rs"]
mod common;

mod bulk;
mod calls;
mod mixes;
mod path;
mod table;
