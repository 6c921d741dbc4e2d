//! Looking at a trial from another thread, and stopping it.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pmd::Instant;

use crate::counters::{MarkCounters, QueueCounters, histogram};
use crate::figures::{MarkedFigures, PortFigures, Snapshot};

/// Shared by the tester, which tells of each trial's beginning and otherwise only counts, and whoever looks.
#[derive(Debug, Default)]
pub struct Watch {
    stop: Arc<AtomicBool>,
    /// Locked when a trial begins and when somebody looks, never meanwhile.
    current: Mutex<Option<Current>>,
}

#[derive(Debug)]
struct Current {
    number: u64,
    began: Instant,
    queues: Vec<Arc<QueueCounters>>,
    marks: Arc<MarkCounters>,
}

impl Watch {
    /// What ends the tester once it is true.
    pub fn stop(&self) -> &Arc<AtomicBool> {
        &self.stop
    }

    /// A trial begins, and counts here.
    pub(super) fn begin(&self, now: Instant, queues: &[Arc<QueueCounters>], marks: &Arc<MarkCounters>) {
        let mut current = self.current();
        let number = current.as_ref().map_or(0, |current| current.number + 1);
        *current = Some(Current { number, began: now, queues: queues.to_vec(), marks: marks.clone() });
    }

    /// The current trial at `now`, and a number that changes with each; `None` before the first. `ports` is what is known of them; what they
    /// drop is in the trial's result only.
    pub fn look(&self, now: Instant, ports: &[PortFigures]) -> Option<(u64, Snapshot)> {
        let current = self.current();
        let current = current.as_ref()?;
        let queues = current.queues.iter().map(|queue| vec![queue.read(0)]);
        let ports = ports.iter().zip(queues).map(|(port, queues)| PortFigures { queues, ..port.clone() });
        let ports: Vec<PortFigures> = ports.collect();
        let mut latency = histogram();
        let sent = ports.iter().flat_map(|port| &port.queues).map(|queue| queue.tx_frames).sum();
        let mut marked = MarkedFigures { sent, ..MarkedFigures::default() };
        current.marks.read(&mut marked, &mut latency);
        marked.missing = sent.saturating_sub(marked.received + marked.corrupted);
        let elapsed = now - current.began;
        Some((current.number, Snapshot { elapsed, ports, marked, latency }))
    }

    fn current(&self) -> MutexGuard<'_, Option<Current>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
