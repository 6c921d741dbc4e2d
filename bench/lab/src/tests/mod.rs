//! Every check, in the order in which they run.

use std::time::Duration;

use crate::step::Step;

mod openafs;

const fn minutes(minutes: u64) -> Duration {
    Duration::from_secs(60 * minutes)
}

/// All of them.
pub const ALL: &[Step] = &[Step {
    name: "openafs/peers",
    about: "without us: two copies of one cell answer the whole script alike, and tshark finds nothing",
    limit: minutes(3),
    run: openafs::peers,
}];
