//! Every check, in the order in which they run.

use crate::step::Step;

mod openafs;
mod workspace;

/// All of them. Names, minutes that each may take, what holds when it passes.
pub const ALL: &[Step] = &[
    Step::new("workspace", 15, workspace::workspace)
        .about("`cargo test --workspace` passes as an ordinary user, without any peer"),
    Step::new("privileged", 15, workspace::privileged)
        .about("tests that need root pass in a network namespace of their own"),
    Step::new("openafs/peers", 3, openafs::peers)
        .about("without us: two copies of one cell answer the whole script alike, and tshark finds nothing"),
];
