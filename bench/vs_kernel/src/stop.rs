//! The flag that ends a run: set by SIGINT and SIGTERM, or by whoever has it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::Trouble;

/// See the module's head.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// One that signals set.
    pub fn on_signals() -> Result<Stop, Trouble> {
        let stop = Stop::default();
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            signal_hook::flag::register(signal, stop.0.clone())
                .map_err(|error| Trouble::system("catch SIGINT and SIGTERM".into(), error))?;
        }
        Ok(stop)
    }

    /// Ends it.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it shall end.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Sets the flag when it goes.
pub struct SetOnDrop(pub Stop);

impl Drop for SetOnDrop {
    fn drop(&mut self) {
        self.0.set();
    }
}
