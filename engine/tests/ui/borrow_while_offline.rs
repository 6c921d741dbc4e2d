//! Nothing read under a core's guard is there any more when the core has gone offline.

use engine::rcu::{RcuCell, Reader};

fn main() {
    let cell = RcuCell::new(std::sync::Arc::new(7));
    let mut reader = Reader::register("core");
    let seven = cell.load(reader.guard());
    reader.offline();
    assert_eq!(seven, Some(&7));
}
