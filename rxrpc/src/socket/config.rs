//! Limits of the socket API.

use crate::EndpointConfig;

/// What sockets of an engine may use. The limits are per socket or per core, as said; memory is taken as it is needed.
#[derive(Clone, Debug)]
pub struct SocketConfig {
    /// The endpoint of each core. Its budgets of buffers are lowered to what the core's pool allows.
    pub endpoint: EndpointConfig,
    /// Sockets of the engine.
    pub sockets_max: usize,
    /// Calls of one socket, charged accepts and calls not released yet included. Linux's limit for a user is 1,000.
    pub calls_max: usize,
    /// Charged accepts of a service on each core: calls that may come in before a thread takes the first. Linux's limit
    /// is 32.
    pub backlog: usize,
    /// Bytes of a call that may lie received and unread in the reader's ring.
    pub receive_buffer: usize,
    /// Bytes of a call that may lie in the writer's ring before the core takes them.
    pub send_buffer: usize,
    /// Bytes that may lie unread in all readers' rings of a core. It also limits the core's calls: one for each 16 KiB.
    pub unread_budget: usize,
    /// The most bytes that `read_all` returns.
    pub read_all_max: usize,
    /// Longest request in bytes that an inline service takes.
    pub inline_request_max: usize,
}

impl Default for SocketConfig {
    fn default() -> Self {
        SocketConfig {
            endpoint: EndpointConfig::default(),
            sockets_max: 4_096,
            calls_max: 1_024,
            backlog: 32,
            receive_buffer: 64 << 10,
            send_buffer: 64 << 10,
            unread_budget: 64 << 20,
            read_all_max: 64 << 20,
            inline_request_max: 1 << 20,
        }
    }
}
