//! Memory that waits for a grace period is bounded. The cap is the process's, so this is a process of its own.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use engine::Engine;
use engine::rcu::{self, Reader};

const CAP: usize = 64 << 10;
const OBJECT: usize = 1 << 10;

/// One test at a time, with nothing retired and the cap set.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    rcu::set_retired_cap(CAP);
    rcu::barrier();
    alone
}

/// A core that is slow: it passes a quiescent state each millisecond.
fn slow_core(stop: &AtomicBool) {
    let mut reader = Reader::register("slow core");
    while !stop.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_millis(1));
        reader.quiescent();
    }
}

#[test]
fn retired_bytes_exceed_the_cap_by_one_object_per_writer_at_most() {
    const WRITERS: usize = 4;
    let _alone = alone();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| slow_core(&stop));
        let writers: Vec<_> = (0..WRITERS)
            .map(|_| scope.spawn(|| (0..200).for_each(|_| rcu::retire([0u8; OBJECT], OBJECT))))
            .collect();
        let mut most = 0;
        while writers.iter().any(|writer| !writer.is_finished()) {
            most = most.max(rcu::retired_bytes());
        }
        stop.store(true, Ordering::Relaxed);
        assert!(most >= CAP / 4, "the cap was never near: {most} bytes at most");
        assert!(most <= CAP + WRITERS * OBJECT, "{most} bytes were retired at once, the cap is {CAP}");
    });
    rcu::barrier();
    assert_eq!(rcu::retired_bytes(), 0);
}

/// While a reader holds up the grace period, a core goes on and is told that there is no room; afterwards there is.
#[test]
fn a_core_is_refused_at_the_cap_and_never_waits() {
    let _alone = alone();
    let held = rcu::pin();
    let object = Arc::new([0u8; OBJECT]);
    let core = thread::spawn(move || {
        let mut core = Reader::register("core");
        let taken = (0..100_000).take_while(|_| core.retire(object.clone(), OBJECT).is_ok()).count();
        assert!(taken > 0 && taken * OBJECT <= CAP, "{taken} objects of {OBJECT} bytes, the cap is {CAP}");
        assert!(!core.split().1.has_room(OBJECT));
        taken
    });
    // It ends although no grace period can.
    let taken = core.join().expect("the core was refused and went on");
    assert!(rcu::retired_bytes() >= taken * OBJECT);
    drop(held);
    rcu::barrier();
    assert_eq!(rcu::retired_bytes(), 0);
}

#[test]
fn sockets_that_are_bound_and_closed_without_end_stay_within_the_cap() {
    let _alone = alone();
    let engine =
        Engine::builder().port("memory:cap").address("192.0.2.1/24").core_count(2).port("null:").start();
    // One queue a core on every port; the cores' turns are the quiescent states that writers wait for.
    let engine = engine.unwrap();
    let mut most = 0;
    for _ in 0..5000 {
        let sockets: Vec<_> =
            (0..4).map(|i| engine.bind("192.0.2.1:0".parse().unwrap(), i).unwrap()).collect();
        drop(sockets);
        most = most.max(rcu::retired_bytes());
    }
    assert!(most > CAP / 8, "the cap was never near: {most} bytes at most");
    assert!(most <= 2 * CAP, "{most} bytes were retired at once, the cap is {CAP}");
    assert_eq!(engine.shutdown().leaks(), Vec::<String>::new());
}
