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

    /// What is relayed, over all cores.
    pub fn relay(&self) -> RelayFigures {
        self.cores.iter().fold(RelayFigures::default(), |sum, core| sum.plus(&core.relay.read()))
    }

    /// The sum over all cores.
    pub fn calls(&self) -> CallFigures {
        self.cores.iter().fold(CallFigures::default(), |sum, core| sum.plus(&core.read()))
    }
}

/// Counters of one core, their values at one moment, and the sums of these.
macro_rules! figures {
    ($Counters:ident { $($(#[$more_doc:meta])* $more:ident: $More:ty,)* }, $Figures:ident {
        $($(#[$doc:meta])* $name:ident,)*
    }) => {
        /// One core's counters. On cache lines of its own.
        #[derive(Debug, Default)]
        #[repr(align(64))]
        pub struct $Counters {
            $($(#[$doc])* pub $name: Counter,)*
            $($(#[$more_doc])* pub $more: $More,)*
        }

        /// Their values at one moment.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
        pub struct $Figures { $($(#[$doc])* pub $name: u64,)* }

        impl $Counters {
            /// Their values now.
            pub fn read(&self) -> $Figures {
                $Figures { $($name: self.$name.get(),)* }
            }
        }

        impl $Figures {
            /// The sum, figure by figure.
            pub fn plus(&self, other: &Self) -> Self {
                Self { $($name: self.$name + other.$name,)* }
            }
        }
    };
}

figures! { CoreFigures {
    /// 0: serving. 1: refuses new calls. 2: and has nothing left to say either.
    drain: Counter,
    /// What is relayed.
    relay: RelayCounters,
}, CallFigures {
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
    /// The backend did not take the gateway's own proof; the client was told RX_RESTARTING.
    proof_refused,
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
    /// It had proved who it is, and is nobody whom the listener admits.
    refused_user,
    /// Aborted because the time to drain was up.
    drained,
    /// Bytes of requests that were passed on.
    request_bytes,
    /// Bytes of replies that were passed on.
    reply_bytes,
} }

figures! { RelayCounters {
    /// 1: packets still cross while we drain.
    busy: Counter,
}, RelayFigures {
    /// Clients that have a port towards a server now, counted once for each server.
    clients,
    /// Connections known now.
    connections,
    /// Connections that clients began.
    connected,
    /// Connections that servers began, towards clients.
    called_back,
    /// Connections forgotten: idle for too long, displaced, or left over at the end.
    forgotten,
    /// Of these, to make room for others.
    displaced,
    /// Packets of clients that went on.
    packets_to_servers,
    /// Bytes of Rx in them.
    bytes_to_servers,
    /// Packets of servers that went on.
    packets_to_clients,
    /// Bytes of Rx in them.
    bytes_to_clients,
    /// ABORTs that clients were sent in a server's place.
    aborts,
} }

impl RelayFigures {
    /// Packets that went on, in both directions.
    pub fn packets(&self) -> u64 {
        self.packets_to_servers + self.packets_to_clients
    }

    /// Every connection that began is known or was forgotten. Holds when the cores stand still.
    pub fn closes(&self) -> bool {
        self.connected + self.called_back == self.connections + self.forgotten
    }
}

impl CallFigures {
    /// Calls refused, for whatever reason.
    pub fn refused(&self) -> u64 {
        let Self { refused_dead, refused_busy, refused_limit, refused_draining, refused_user, .. } = self;
        refused_dead + refused_busy + refused_limit + refused_draining + refused_user
    }

    /// Calls that ended otherwise than well, after a backend had been chosen.
    pub fn failed(&self) -> u64 {
        let backend = self.backend_aborted + self.backend_failed + self.proof_refused;
        backend + self.client_aborted + self.client_lost + self.drained
    }

    /// Every call that came in is in progress or has ended in exactly one way. Holds when the cores stand still.
    pub fn closes(&self) -> bool {
        self.accepted == self.in_progress + self.succeeded + self.client_left + self.failed() + self.refused()
    }
}
