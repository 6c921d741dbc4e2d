//! Models: the crate's own types under loom, through every interleaving and every value that a relaxed load may see.
//!
//! `cargo lab models` builds them with `--cfg loom` and runs them all. Each is small (two or three threads, one or two items), because the
//! states multiply. What is not modelled: `rtrb`'s rings (theirs), counters (they order nothing), and file descriptors, on which no
//! thread of a model blocks; a model looks at the end whether one that would have blocked was told.

mod close;
pub mod domain;
mod rcu;
mod ring;
mod socket;
mod table;
mod wq;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Runs a model through all its interleavings, but for those with more than `preemptions` switches of thread that were not
/// forced (`None`: no such bound), and says how many there were.
fn check(name: &str, preemptions: Option<usize>, model: impl Fn() + Send + Sync + 'static) {
    let begun = Instant::now();
    let runs = Arc::new(AtomicU64::new(0));
    let _rerun = Rerun { name: name.into(), runs: runs.clone() };
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(preemptions);
    builder.max_branches = 100_000;
    let counted = runs.clone();
    builder.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        model();
    });
    let (runs, seconds) = (runs.load(Ordering::Relaxed), begun.elapsed().as_secs_f64());
    println!("model {name}: {runs} interleavings in {seconds:.1} s");
}

/// Says how to run a failed model again.
struct Rerun {
    name: String,
    runs: Arc<AtomicU64>,
}

impl Drop for Rerun {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let (name, runs) = (&self.name, self.runs.load(Ordering::Relaxed));
            eprintln!(
                "model {name} failed in interleaving {runs}; again, with every step of the last one:\n  \
                 LOOM_LOG=trace LOOM_LOCATION=1 RUSTFLAGS=\"--cfg loom\" cargo test -p engine --lib --target-dir target/loom \
                 models::{name} -- --nocapture"
            );
        }
    }
}
