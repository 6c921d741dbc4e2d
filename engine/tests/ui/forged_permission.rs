//! Nobody makes a permission to read out of nothing.

use engine::rcu::ReadGuard;

fn main() {
    let _guard = ReadGuard { _reader: std::marker::PhantomData };
}
