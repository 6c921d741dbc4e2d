//! What pmd's driver `dpdk` uses of an installed libdpdk (22.11 or later): declarations made by bindgen from the headers that are
//! installed, and a shim in C for what those headers only have as inline functions.
//!
//! Empty without the feature `link`. Everything here is unsafe and used by pmd alone; no policy is here. `shim/shim.h` holds the
//! layouts relied on, checked against the headers when it is compiled.
//!
//! Deliberately absent: a wrapper that is safe. The driver is that.
#![cfg(feature = "link")]
#![allow(missing_docs, non_camel_case_types, non_snake_case, non_upper_case_globals, reason = "DPDK's names")]
#![allow(clippy::all, clippy::undocumented_unsafe_blocks, reason = "generated")]

include!(concat!(env!("OUT_DIR"), "/bindings.rs"));
