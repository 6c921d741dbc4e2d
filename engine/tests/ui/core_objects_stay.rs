//! What belongs to a core does not leave its thread.

use engine::rcu::{Reader, pin};
use engine::{Cx, Pool};

fn is_send<T: Send>(_: T) {}

fn reader(reader: Reader) {
    std::thread::spawn(move || drop(reader));
}

fn pool(pool: Pool) {
    std::thread::spawn(move || drop(pool));
}

fn cx(cx: &mut Cx<'_>) {
    is_send(cx);
}

fn main() {
    is_send(pin());
    is_send(pin().guard());
}
