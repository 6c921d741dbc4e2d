//! Whether anybody sleeps may be asked only inside a read section and behind a barrier.

use engine::rcu::pin;
use engine::wq::{Barrier, SocketWq};

fn after_the_section(wq: &SocketWq) -> bool {
    let pinned = pin();
    let guard = pinned.guard();
    drop(pinned);
    wq.has_sleeper(guard, &Barrier::publish())
}

fn without_a_section(wq: &SocketWq) -> bool {
    wq.has_sleeper(&Barrier::publish())
}

fn main() {
    let wq = SocketWq::default();
    after_the_section(&wq);
    without_a_section(&wq);
}
