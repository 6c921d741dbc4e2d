//! The socket table at three sizes.

use super::super::compare::{Bar, Comparison};
use super::super::rounds::Rounds;
use super::{Head, Programs};
use crate::fault::Result;
use crate::proc::Cmd;

/// ns per datagram.
const HOT: Bar = Bar::Within(15.0);
/// ns per datagram.
const COLD: Bar = Bar::Within(60.0);
/// Of what it takes in the smallest table.
const FLAT: Bar = Bar::AtMost(1.5);

const LOOK_UP: &str = "as many plain as connected sockets in the table, all IPv4; hot: 32 flows over and over, cold: random ones out of all; \
    bursts of 32, a quiescent state after each on our side; a datagram of a plain socket is looked for among the connected ones first, \
    on either side; CPU time from the list of numbers from which addresses are made to the sockets; ours with a keyed hash, rte_hash with \
    its CRC; the median of 5 passes of 524,288 datagrams inside the program";
const WRITE: &str = "CPU time of the calling thread for one of 1000 plain sockets more, bound one after the other and then closed, in a table \
    of that size; waiting for the grace period is not in it; the median of 5 times 1000; compared with ours in the smallest table";

/// A size: plain sockets, of which there are as many connected ones besides; and the names of its arms and lines.
struct Size {
    pairs: &'static str,
    ours: &'static str,
    theirs: &'static str,
    /// Hot plain, hot connected, cold plain, cold connected.
    lookups: [&'static str; 4],
}

const SIZES: [Size; 3] = [
    Size {
        pairs: "1000",
        ours: "table of 1 k",
        theirs: "rte_hash of 1 k",
        lookups: [
            "rcu-lookup 1 k, hot plain",
            "rcu-lookup 1 k, hot connected",
            "rcu-lookup 1 k, cold plain",
            "rcu-lookup 1 k, cold connected",
        ],
    },
    Size {
        pairs: "100000",
        ours: "table of 100 k",
        theirs: "rte_hash of 100 k",
        lookups: [
            "rcu-lookup 100 k, hot plain",
            "rcu-lookup 100 k, hot connected",
            "rcu-lookup 100 k, cold plain",
            "rcu-lookup 100 k, cold connected",
        ],
    },
    Size {
        pairs: "1000000",
        ours: "table of 1 M",
        theirs: "rte_hash of 1 M",
        lookups: [
            "rcu-lookup 1 M, hot plain",
            "rcu-lookup 1 M, hot connected",
            "rcu-lookup 1 M, cold plain",
            "rcu-lookup 1 M, cold connected",
        ],
    },
];

const LOOKUPS: [(&str, Bar); 4] =
    [("hot_plain_ns", HOT), ("hot_connected_ns", HOT), ("cold_plain_ns", COLD), ("cold_connected_ns", COLD)];

/// Look-ups beside rte_hash's, by size; then binding and closing in the largest table beside the smallest.
pub fn lines(programs: &Programs<'_>, rounds: &mut Rounds) -> Result<Vec<Comparison>> {
    let cpu = programs.on(1);
    let mut commands = Vec::new();
    for size in &SIZES {
        commands.push((size.ours, Cmd::new(&programs.micro).args(["lookup", size.pairs, &cpu])));
        commands.push((size.theirs, Cmd::new(&programs.hash).args([size.pairs, &cpu])));
    }
    let told = programs.measure_with_cycle(rounds, commands)?;
    let mut lines = Vec::new();
    for Size { ours, theirs, lookups, .. } in &SIZES {
        for (what, (key, bar)) in lookups.iter().zip(LOOKUPS) {
            let head = Head { what, unit: "CPU ns/datagram", boundary: LOOK_UP };
            let (ours, theirs) = (told.side(ours, ours, key)?, told.side(theirs, theirs, key)?);
            lines.push(told.line(&head, ours, theirs, Some(bar))?);
        }
    }
    let [small, .., large] = SIZES;
    for (what, key) in [("rcu-bind", "bind_ns"), ("rcu-close", "close_ns")] {
        let head = Head { what, unit: "CPU ns/socket", boundary: WRITE };
        let (large, small) =
            (told.side(large.ours, large.ours, key)?, told.side(small.ours, small.ours, key)?);
        lines.push(told.line(&head, large, small, Some(FLAT))?);
    }
    Ok(lines)
}
