//! Nothing read under a core's guard outlives the core's next quiescent state.

use engine::rcu::{RcuCell, Reader};

fn main() {
    let cell = RcuCell::new(std::sync::Arc::new(7));
    let mut reader = Reader::register("core");
    let seven = cell.load(reader.guard());
    reader.quiescent();
    assert_eq!(seven, Some(&7));
}
