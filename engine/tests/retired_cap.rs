//! Memory that waits for a grace period is bounded. The cap is the process's, so this is a process of its own.

use engine::{Engine, rcu};

#[test]
fn writers_wait_at_the_cap_instead_of_growing() {
    const CAP: usize = 16 << 10;
    rcu::set_retired_cap(CAP);
    let engine =
        Engine::builder().port("memory:cap").address("192.0.2.1/24").core_count(2).port("null:").start();
    // One queue a core on every port; the cores' turns are the quiescent states that writers wait for.
    let engine = engine.unwrap();
    let mut most = 0;
    for _ in 0..1500 {
        let sockets: Vec<_> =
            (0..16).map(|i| engine.bind("192.0.2.1:0".parse().unwrap(), i).unwrap()).collect();
        drop(sockets);
        most = most.max(rcu::retired_bytes());
    }
    assert!(most > CAP / 4, "the cap was never near: {most} bytes at most");
    assert!(most <= 2 * CAP, "{most} bytes were retired at once, the cap is {CAP}");
    assert_eq!(engine.shutdown().leaks(), Vec::<String>::new());
}
