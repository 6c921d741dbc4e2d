//! Nothing read under a pin outlives the pin.

use engine::rcu::{RcuCell, pin};

fn main() {
    let cell = RcuCell::new(std::sync::Arc::new(7));
    let pinned = pin();
    let seven = cell.load(pinned.guard());
    drop(pinned);
    assert_eq!(seven, Some(&7));
}
