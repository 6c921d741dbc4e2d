//! Nobody makes the proof of a barrier out of nothing.

use engine::wq::Barrier;

fn main() {
    let _barrier = Barrier(());
}
