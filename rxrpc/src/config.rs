//! Limits and times of an endpoint. Every table and queue has its bound here.

use crate::CongestionAlgorithm;
use crate::security::{Credentials, Security};
use std::time::Duration;

/// Payload of a DATA packet on a 1,500-byte path: what OpenAFS sends outside jumbograms, so that a packet passed on stays one packet.
pub const PACKET_PAYLOAD: usize = 1416;

/// What an endpoint may use and how long it waits. The defaults are Linux's and OpenAFS's where they have one.
#[derive(Clone, Debug)]
pub struct EndpointConfig {
    /// Text of VERSION replies, at most 64 bytes.
    pub version: String,

    /// Connections, client and service together.
    pub conns_max: usize,
    /// Of these, service connections whose client has not proved who it is yet. Without security none is.
    pub unsecured_conns_max: usize,
    /// Calls, from their start to their release.
    pub calls_max: usize,
    /// Remote addresses.
    pub peers_max: usize,
    /// Local addresses.
    pub locals_max: usize,
    /// Bundles of client connections.
    pub bundles_max: usize,
    /// Connections of a bundle; each carries four calls at a time.
    pub bundle_conns_max: usize,
    /// Calls that wait for a place in one bundle; beyond it `begin` fails.
    pub bundle_waiting_max: usize,
    /// Answers without a call (aborts, busy, version, debug) that wait to be sent; beyond it they are dropped.
    pub replies_max: usize,
    /// Aborts and BUSYs a second in answer to packets that belong to no connection.
    pub stray_replies_per_second: u32,

    /// Receive window of a call in packets, at most 255: what it may hold unread or out of order.
    pub receive_window: u32,
    /// Buffers that all calls together may hold unread or out of order.
    pub unread_buffers_max: usize,
    /// Packets that each call may hold unread or out of order even when `unread_buffers_max` is used up, so that calls that
    /// nobody reads cannot stop the others. 16 is what peers send before they know our window.
    pub receive_reserve: usize,
    /// Packets that each call may hold for sending even when `send_buffers_max` is used up.
    pub send_reserve: usize,
    /// Packets of a call that wait to be sent or acknowledged. A writer is told of room when a quarter of them is free: what is left
    /// by then should fill the window.
    pub send_packets_max: usize,
    /// Buffers that all calls together may hold for sending.
    pub send_buffers_max: usize,
    /// The most packets in flight on a call, at most 255.
    pub transmit_window: u32,
    /// What decides how many of them there are.
    pub congestion: CongestionAlgorithm,
    /// Payload of our DATA packets in bytes.
    pub packet_payload: usize,
    /// Largest packet we take, Rx header included, in bytes: maxMTU and ifMTU of our ACKs.
    pub mtu: u32,
    /// Packets of a jumbogram that we tell peers we take, at most 47. More than 1 makes OpenAFS send IP fragments; 0 tells Linux
    /// (6.14) that it may find out how many arrive, up to `mtu`.
    pub jumbo_max: u32,
    /// Packets of a jumbogram that we send at most, 1 to 47, where the peer takes them and a padded PING has proved that
    /// datagrams of that size arrive. 1: none are sent, and nothing is probed.
    pub jumbo_send_max: u32,
    /// Packets a call may send in one turn before the next call has its turn.
    pub burst_packets: usize,

    /// An ACK is sent for every so many datagrams that ask for none.
    pub ack_every: u32,
    /// How long an ACK may wait for data to travel with.
    pub delayed_ack: Duration,
    /// How long the last ACK of a client call waits for the next call, which makes it needless.
    pub final_ack: Duration,
    /// Retransmission timeout before the first measurement.
    pub initial_rto: Duration,
    /// Its least value.
    pub min_rto: Duration,
    /// Its greatest value.
    pub max_rto: Duration,
    /// A call whose peer has been silent for so long is over.
    pub dead: Duration,
    /// After so long without a packet from the peer it is pinged.
    pub keep_alive: Duration,
    /// How long a client puts up with BUSY before the call fails.
    pub busy: Duration,
    /// An unused client connection lives for so long.
    pub client_conn_idle: Duration,
    /// An unused service connection lives for so long.
    pub service_conn_idle: Duration,
    /// A peer to which client connections are open and nothing was sent for so long is sent a VERSION packet that asks for no
    /// answer, so that NATs on the way keep their state; 20 s is Linux's. `None`: never.
    pub nat_keep_alive: Option<Duration>,
}

impl Default for EndpointConfig {
    fn default() -> Self {
        Self {
            version: concat!("rxline ", env!("CARGO_PKG_VERSION")).into(),
            conns_max: 65_536,
            unsecured_conns_max: 1_024,
            calls_max: 65_536,
            peers_max: 16_384,
            locals_max: 256,
            bundles_max: 16_384,
            bundle_conns_max: 4,
            bundle_waiting_max: 1_024,
            replies_max: 1_024,
            stray_replies_per_second: 1_000,
            receive_window: 255,
            unread_buffers_max: 8_192,
            receive_reserve: 2,
            send_reserve: 2,
            send_packets_max: 384,
            send_buffers_max: 8_192,
            transmit_window: 255,
            congestion: CongestionAlgorithm::Cubic,
            packet_payload: PACKET_PAYLOAD,
            mtu: 1_444,
            jumbo_max: 1,
            jumbo_send_max: 6,
            burst_packets: 64,
            ack_every: 2,
            delayed_ack: Duration::from_millis(100),
            final_ack: Duration::from_millis(10),
            initial_rto: Duration::from_millis(350),
            min_rto: Duration::from_millis(200),
            max_rto: Duration::from_secs(10),
            dead: Duration::from_secs(20),
            keep_alive: Duration::from_millis(3_333),
            busy: Duration::from_secs(10),
            client_conn_idle: Duration::from_secs(120),
            service_conn_idle: Duration::from_secs(600),
            nat_keep_alive: Some(Duration::from_secs(20)),
        }
    }
}

/// Keep-alives are never sent more often: one for each peer and second is a burden that nobody notices.
const NAT_KEEP_ALIVE_LEAST: Duration = Duration::from_secs(1);

impl EndpointConfig {
    /// The defaults with budgets that leave a quarter of a pool of `buffers` to receiving and transmission.
    pub fn for_pool(buffers: usize) -> Self {
        Self { unread_buffers_max: buffers / 2, send_buffers_max: buffers / 4, ..Self::default() }
    }

    /// Brings every figure into the range that the protocol allows.
    pub(crate) fn clamped(mut self) -> Self {
        self.receive_window = self.receive_window.clamp(1, 255);
        self.transmit_window = self.transmit_window.clamp(1, 255);
        self.send_packets_max = self.send_packets_max.max(1);
        self.packet_payload = self.packet_payload.clamp(1, PACKET_PAYLOAD);
        self.jumbo_max = self.jumbo_max.min(47);
        self.jumbo_send_max = self.jumbo_send_max.clamp(1, 47);
        self.bundle_conns_max = self.bundle_conns_max.max(1);
        self.burst_packets = self.burst_packets.max(1);
        self.ack_every = self.ack_every.max(1);
        self.nat_keep_alive = self.nat_keep_alive.map(|every| every.max(NAT_KEEP_ALIVE_LEAST));
        self
    }
}

/// A service to offer on a local address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceConfig {
    /// Service id.
    pub service: u16,
    /// Calls that may have come in and not been taken yet; Linux's limit is 32. What comes on top is told BUSY.
    pub backlog: usize,
    /// Whether the place of a call is charged again as soon as its `Incoming` has been taken. Otherwise `charge` does.
    pub auto_charge: bool,
    /// How callers prove who they are.
    pub security: Security,
    /// Calls whose client asks for a service upgrade (user status 1) on a new connection go to this service instead, if it
    /// is offered on the same address: their packets name it, and so do later calls of the connection.
    pub upgrade_to: Option<u16>,
}

impl ServiceConfig {
    /// A service with a backlog of 32 that recharges itself, and whose callers prove nothing.
    pub fn new(service: u16) -> Self {
        Self { service, backlog: 32, auto_charge: true, upgrade_to: None, security: Security::none() }
    }
}

/// Whom to call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// The server's address.
    pub peer: std::net::SocketAddr,
    /// Service id.
    pub service: u16,
    /// Calls of the same group share connections; a number of the caller's own choosing.
    pub group: u32,
}

impl Target {
    /// The service at this address, in group 0.
    pub fn new(peer: std::net::SocketAddr, service: u16) -> Self {
        Self { peer, service, group: 0 }
    }
}

/// How long a call may take, by three measures: those of AF_RXRPC's SET_CALL_TIMEOUT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallTimeouts {
    /// The call is over after so long, whatever happens.
    pub hard: Option<Duration>,
    /// The call is over if no byte of it moves in either direction for so long.
    pub idle: Option<Duration>,
    /// The call is over if the peer is silent for so long, its answers to pings included; the endpoint's `dead` where not set.
    pub normal: Option<Duration>,
}

/// How a call begins, who makes it, and how it may end early.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallOptions {
    /// The call is over after so long, whatever happens. Counted from `begin`.
    pub hard_timeout: Option<Duration>,
    /// The call is over if no byte of it moves in either direction for so long.
    pub idle_timeout: Option<Duration>,
    /// The call is over if the peer is silent for so long; the endpoint's `dead` where not set.
    pub dead_timeout: Option<Duration>,
    /// Connections of the bundle, where it is to have another number than the endpoint's default. The first call of a
    /// bundle decides.
    pub bundle_conns_max: Option<usize>,
    /// A connection for this call alone; it goes when the call has ended.
    pub exclusive: bool,
    /// Asks the server for a newer service under the same address. Until its first answer says which service that is, calls
    /// with this option to the same target go one at a time; later ones go to the service it named.
    pub upgrade: bool,
    /// Bytes of the request, where they are known before: its last packet says so exactly, and a request that turns out longer
    /// or shorter is refused.
    pub tx_length: Option<u64>,
    /// The caller's number for the call, as `set_user` would set it.
    pub user: u64,
    /// What proves who calls, and how much is protected. Calls with the same credentials share connections, others do not.
    pub credentials: Option<Credentials>,
}

impl CallOptions {
    /// The time limits.
    pub fn timeouts(&self) -> CallTimeouts {
        CallTimeouts { hard: self.hard_timeout, idle: self.idle_timeout, normal: self.dead_timeout }
    }
}
