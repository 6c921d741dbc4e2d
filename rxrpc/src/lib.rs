//! RxRPC: a sans-IO protocol core and, above it, an AF_RXRPC-like socket API on engine sockets.
#![forbid(unsafe_code)]

pub mod wire;
