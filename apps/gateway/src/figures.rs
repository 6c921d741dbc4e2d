//! What the gateway counts. Each core writes its own, with plain stores; anyone reads them.

use std::sync::Arc;

use crate::balance::Backends;
use crate::config::Config;
use crate::counter::Counter;

/// What all cores of a gateway share: nothing but figures, each with one writer.
#[derive(Debug)]
pub struct Shared {
    /// Health and load of the servers.
    pub backends: Backends,
    /// By core.
    pub cores: Vec<CoreFigures>,
}

impl Shared {
    /// For a gateway of so many cores.
    pub fn new(config: &Config, cores: usize) -> Arc<Self> {
        let figures = (0..cores).map(|_| CoreFigures::default()).collect();
        Arc::new(Self { backends: Backends::new(config, cores), cores: figures })
    }

    /// The sum over all cores.
    pub fn calls(&self) -> CallFigures {
        self.cores.iter().fold(CallFigures::default(), |sum, core| sum.plus(&core.read()))
    }
}

macro_rules! figures {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// One core's counters. On cache lines of its own.
        #[derive(Debug, Default)]
        #[repr(align(64))]
        pub struct CoreFigures {
            $($(#[$doc])* pub $name: Counter,)*
            /// 0: serving. 1: refuses new calls. 2: and has nothing left to say either.
            pub drain: Counter,
        }

        /// Their values at one moment.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
        pub struct CallFigures { $($(#[$doc])* pub $name: u64,)* }

        impl CoreFigures {
            /// Their values now.
            pub fn read(&self) -> CallFigures {
                CallFigures { $($name: self.$name.get(),)* }
            }
        }

        impl CallFigures {
            /// The sum, figure by figure.
            pub fn plus(&self, other: &Self) -> Self {
                Self { $($name: self.$name + other.$name,)* }
            }
        }
    };
}

figures! {
    /// Calls that came in.
    accepted,
    /// Of these, in progress now.
    in_progress,
    /// The client has the whole reply.
    succeeded,
    /// The backend aborted it; the client was told its code.
    backend_aborted,
    /// The backend was lost in mid-call; the client was told RX_CALL_DEAD or RX_CALL_TIMEOUT.
    backend_failed,
    /// The client aborted it; the backend was told its code.
    client_aborted,
    /// The client was lost in mid-call.
    client_lost,
    /// The whole reply was sent and the client left without acknowledging its end, as OpenAFS's commands do that exit with it.
    client_left,
    /// Refused: no backend alive.
    refused_dead,
    /// Refused: every backend has as many calls in flight as it may.
    refused_busy,
    /// Refused: a limit of the gateway's own.
    refused_limit,
    /// Refused: shutting down.
    refused_draining,
    /// Aborted because the time to drain was up.
    drained,
    /// Bytes of requests that were passed on.
    request_bytes,
    /// Bytes of replies that were passed on.
    reply_bytes,
}

impl CallFigures {
    /// Calls refused, for whatever reason.
    pub fn refused(&self) -> u64 {
        self.refused_dead + self.refused_busy + self.refused_limit + self.refused_draining
    }

    /// Calls that ended otherwise than well, after a backend had been chosen.
    pub fn failed(&self) -> u64 {
        self.backend_aborted + self.backend_failed + self.client_aborted + self.client_lost + self.drained
    }

    /// Every call that came in is in progress or has ended in exactly one way. Holds when the cores stand still.
    pub fn closes(&self) -> bool {
        self.accepted == self.in_progress + self.succeeded + self.client_left + self.failed() + self.refused()
    }
}
