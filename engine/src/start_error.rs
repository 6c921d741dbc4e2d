//! What can be wrong with an engine that is to be started: each error names the value and the mend.

use std::io;

use pmd::{PoolError, PortError, RegionError};

use crate::builder::{CORES_MAX, POOL_MIN};
use crate::stack::ConfigError;

/// Why an engine did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is nothing to receive from.
    #[error(
        "the engine has no port: add one with .port(\"memory:NAME\"), \"tap:NAME\", \"af_packet:IFACE\", .."
    )]
    NoPort,
    /// An address or route was given before any port.
    #[error("{what} was given before any port: call .port(..) first, then what belongs to it")]
    BeforePort {
        /// What was given.
        what: String,
    },
    /// Not an address with a prefix length.
    #[error(
        "{value:?} is not an address with its prefix length: write it as \"192.0.2.10/24\" or \"2001:db8::1/64\""
    )]
    BadAddress {
        /// What was given.
        value: String,
    },
    /// Not an address of a gateway.
    #[error("{value:?} is not a gateway's address: write it as \"192.0.2.1\" or \"fe80::1\"")]
    BadGateway {
        /// What was given.
        value: String,
    },
    /// Not a destination.
    #[error("{value:?} is not a prefix to route: write it as \"198.51.100.0/24\"")]
    BadPrefix {
        /// What was given.
        value: String,
    },
    /// No cores, or too many.
    #[error("{cores} cores; an engine has 1 to {CORES_MAX}")]
    Cores {
        /// What was given.
        cores: usize,
    },
    /// The process may not use that CPU.
    #[error(
        "CPU {cpu} is not one that this process may use ({allowed:?}): name one of these in .cores(..), or use .core_count(..)"
    )]
    NoSuchCpu {
        /// What was given.
        cpu: usize,
        /// What there is.
        allowed: Vec<usize>,
    },
    /// The pool is too small to work with.
    #[error("a pool of {buffers} buffers a core is too small: give .pool_buffers({POOL_MIN}) or more")]
    PoolTooSmall {
        /// What was given.
        buffers: usize,
    },
    /// Two ports each come with the memory that the pools must lie on.
    #[error("{url:?} brings its memory along, and so does another port: give such ports an engine each")]
    TwoMemories {
        /// The second of them.
        url: String,
    },
    /// A port did not open.
    #[error(transparent)]
    Port(#[from] PortError),
    /// A pool could not be made.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// The table for the sockets could not be made.
    #[error("no table for {sockets_max} sockets: {source}; lower .sockets_max(), or raise ulimit -v")]
    Table {
        /// The limit on sockets.
        sockets_max: usize,
        /// What the system said.
        source: RegionError,
    },
    /// The addresses and routes do not make a stack.
    #[error(transparent)]
    Stack(#[from] ConfigError),
    /// The system refused a thread or an eventfd.
    #[error("the system refused a thread or an eventfd: {0}; raise ulimit -u or -n")]
    System(#[from] io::Error),
    /// The handler could not be built.
    #[error("building the handler of core {core} panicked: {message}")]
    Handler {
        /// Which core.
        core: usize,
        /// What it said.
        message: String,
    },
}
