//! Rows of the listings, as they pass over the socket. Their names are stable.
//!
//! Numbers of packets and bytes are counts; times are in microseconds or, where they are long, in seconds; `epoch`, `cid`
//! and `call` are the fields of the wire's header.

use std::time::Duration;

use engine::Instant;
use rxrpc::{CallState, CallView, Completion, ConnView, LocalView, PeerView, RelayView, Role};
use serde::{Deserialize, Serialize};

/// A call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CallRow {
    /// Name of the engine.
    pub engine: String,
    /// Core that owns it.
    pub core: usize,
    /// Address here.
    pub local: String,
    /// Address there.
    pub remote: String,
    /// Service id.
    pub service: u16,
    /// Epoch of its connection; 0 before it has one.
    pub epoch: u32,
    /// Connection id with channel; 0 before it has one.
    pub cid: u32,
    /// Call number on the channel.
    pub call: u32,
    /// `client` or `service`.
    pub role: String,
    /// The user's number for it; `null` for a call that goes by a handle.
    pub user_id: Option<u64>,
    /// How far it is; the names are [`STATES`]'s.
    pub state: String,
    /// How it ended, once it has; the names are those of [`completion`].
    pub completion: Option<String>,
    /// The code it was aborted with.
    pub abort_code: Option<i32>,
    /// Who holds a reference, where the call is a socket's: `U` user-ID tree, `A` accept queue, `S` service or client,
    /// `W` queued work, `R` receive queue, `-` for none.
    pub refs: Option<String>,
    /// Sequence number of the first packet that the peer does not have for good.
    pub tx_first: u32,
    /// Packets handed over and not sent yet.
    pub tx_unsent: usize,
    /// Packets sent and not acknowledged.
    pub tx_unacked: usize,
    /// The peer's receive window in packets.
    pub tx_window: u32,
    /// Congestion window in packets.
    pub cwnd: u32,
    /// Retransmissions.
    pub retransmits: u64,
    /// Sequence number expected next.
    pub rx_next: u32,
    /// Packets that the peer may send from there on.
    pub rx_window: u32,
    /// Packets that wait to be read.
    pub rx_unread: usize,
    /// Packets that wait for one before them.
    pub rx_out_of_order: usize,
    /// Bytes with the reader's thread that it has not taken, where the call is a socket's.
    pub unread_bytes: Option<u64>,
    /// Payload bytes sent, once each.
    pub bytes_sent: u64,
    /// Payload bytes received in order.
    pub bytes_received: u64,
    /// Since it began.
    pub age_seconds: f64,
}

/// A connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConnRow {
    /// Name of the engine.
    pub engine: String,
    /// Core that owns it.
    pub core: usize,
    /// Address here.
    pub local: String,
    /// Address there.
    pub remote: String,
    /// Service id.
    pub service: u16,
    /// Epoch.
    pub epoch: u32,
    /// Connection id.
    pub cid: u32,
    /// `client` or `service`.
    pub role: String,
    /// Security index.
    pub security: u8,
    /// Serial of the last packet sent.
    pub serial: u32,
    /// Channels that carry a call now.
    pub active_calls: usize,
    /// Latest call number of each channel.
    pub call_numbers: [u32; 4],
    /// The code of a connection abort.
    pub abort_code: Option<i32>,
    /// Since it last carried a call.
    pub idle_seconds: f64,
}

/// A connection that a gateway relays.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RelayRow {
    /// Name of the engine.
    pub engine: String,
    /// Core that owns it.
    pub core: usize,
    /// The client.
    pub client: String,
    /// Where the client finds us.
    pub listener: String,
    /// Our port towards the server, which is this client's alone there.
    pub port: String,
    /// The server.
    pub server: String,
    /// Epoch.
    pub epoch: u32,
    /// Connection id.
    pub cid: u32,
    /// Who opened it: `client`, or `service` for a call back.
    pub opened_by: String,
    /// Both ends have been heard.
    pub proven: bool,
    /// Since a packet of it last crossed, give or take a second.
    pub idle_seconds: f64,
}

/// A remote address.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeerRow {
    /// Name of the engine.
    pub engine: String,
    /// Core that owns it.
    pub core: usize,
    /// Address here.
    pub local: String,
    /// Address there.
    pub remote: String,
    /// Connections and bundles that refer to it.
    pub conns: usize,
    /// Smoothed round trip; `null` before the first measurement.
    pub rtt_us: Option<u64>,
    /// Its mean deviation.
    pub rtt_deviation_us: u64,
    /// Retransmission timeout.
    pub rto_us: u64,
    /// Largest packet it takes, Rx header included, in bytes.
    pub max_mtu: u32,
    /// Packets it takes in a jumbogram.
    pub jumbo_max: u32,
    /// DATA packets sent, retransmissions not counted.
    pub packets_sent: u64,
    /// Retransmissions.
    pub retransmits: u64,
    /// UDP payload bytes sent.
    pub bytes_sent: u64,
    /// UDP payload bytes received.
    pub bytes_received: u64,
}

/// A local address, as one core has it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LocalRow {
    /// Name of the engine.
    pub engine: String,
    /// Core.
    pub core: usize,
    /// The address.
    pub local: String,
    /// Connections on it.
    pub conns: usize,
    /// What it offers; nothing, if it is there to call from.
    pub services: Vec<ServiceRow>,
}

/// A service on a local address.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceRow {
    /// Service id.
    pub service: u16,
    /// Calls that may come in before anybody takes one.
    pub charged: usize,
    /// At most so many.
    pub backlog: usize,
}

/// Each state: its name over the socket, and the one that Linux's /proc/net/rxrpc/calls has for it.
pub const STATES: &[(CallState, &str, &str)] = &[
    (CallState::Waiting, "waiting", "ClWtConn"),
    (CallState::ClientSend, "client_send", "ClSndReq"),
    (CallState::ClientAwaitReply, "client_await_reply", "ClAwtRpl"),
    (CallState::ClientReceive, "client_receive", "ClRcvRpl"),
    (CallState::ServiceSecuring, "service_securing", "SvSecure"),
    (CallState::ServiceReceive, "service_receive", "SvRcvReq"),
    (CallState::ServiceWork, "service_work", "SvAckReq"),
    (CallState::ServiceSend, "service_send", "SvSndRpl"),
    (CallState::ServiceAwaitAck, "service_await_ack", "SvAwtACK"),
    (CallState::Complete, "complete", "Complete"),
];

/// A completion's name over the socket.
pub fn completion(completion: Completion) -> &'static str {
    match completion {
        Completion::Succeeded => "succeeded",
        Completion::RemoteAbort(_) => "remote_abort",
        Completion::LocalAbort(_) => "local_abort",
        Completion::NetworkError(_) => "network_error",
        Completion::TimedOut(_) => "timed_out",
        Completion::Busy => "busy",
    }
}

/// The user's own number: that of a socket's call, if it has one, or what the app on the core gave it.
fn user_id(call: &CallView) -> Option<u64> {
    const HANDLE: u64 = 1 << 63;
    match &call.shared {
        Some(shared) => (shared.user_id & HANDLE == 0).then_some(shared.user_id),
        None => Some(call.user),
    }
}

fn abort_code(completion: Completion) -> Option<i32> {
    match completion {
        Completion::RemoteAbort(code) | Completion::LocalAbort(code) => Some(code),
        _ => None,
    }
}

fn role(role: Role) -> String {
    match role {
        Role::Client => "client".into(),
        Role::Service => "service".into(),
    }
}

fn state(state: CallState) -> String {
    STATES.iter().find(|known| known.0 == state).map_or("unknown", |known| known.1).into()
}

fn seconds(now: Instant, then: Instant) -> f64 {
    now.saturating_duration_since(then).as_secs_f64()
}

fn us(duration: Duration) -> u64 {
    duration.as_micros() as u64
}

/// Where a row comes from: the engine's name, the core, and the time.
#[derive(Clone, Copy)]
pub(crate) struct Origin<'a> {
    pub engine: &'a str,
    pub core: usize,
    pub now: Instant,
}

impl Origin<'_> {
    pub fn call(self, call: CallView) -> CallRow {
        CallRow {
            engine: self.engine.into(),
            core: self.core,
            local: call.local_addr.to_string(),
            remote: call.peer.to_string(),
            service: call.service,
            epoch: call.epoch,
            cid: call.cid,
            call: call.number,
            role: role(call.role),
            user_id: user_id(&call),
            state: state(call.state),
            completion: call.completion.map(|end| completion(end).into()),
            abort_code: call.completion.and_then(abort_code),
            refs: call.shared.as_ref().map(|shared| shared.holders.clone()),
            tx_first: call.tx_first,
            tx_unsent: call.unsent_packets,
            tx_unacked: call.unacked_packets,
            tx_window: call.peer_window,
            cwnd: call.congestion_window,
            retransmits: call.retransmits,
            rx_next: call.rx_next,
            rx_window: call.receive_window,
            rx_unread: call.unread_packets,
            rx_out_of_order: call.out_of_order_packets,
            unread_bytes: call
                .shared
                .as_ref()
                .map(|shared| shared.bytes_received.saturating_sub(shared.bytes_read)),
            bytes_sent: call.bytes_sent,
            bytes_received: call.bytes_received,
            age_seconds: seconds(self.now, call.began),
        }
    }

    pub fn conn(self, conn: ConnView) -> ConnRow {
        ConnRow {
            engine: self.engine.into(),
            core: self.core,
            local: conn.local_addr.to_string(),
            remote: conn.peer.to_string(),
            service: conn.service,
            epoch: conn.epoch,
            cid: conn.cid,
            role: role(conn.role),
            security: conn.security,
            serial: conn.serial,
            active_calls: conn.calls.iter().flatten().count(),
            call_numbers: conn.call_numbers,
            abort_code: conn.error,
            idle_seconds: seconds(self.now, conn.used),
        }
    }

    pub fn relayed(self, conn: RelayView) -> RelayRow {
        RelayRow {
            engine: self.engine.into(),
            core: self.core,
            client: conn.client.to_string(),
            listener: conn.listener.to_string(),
            port: conn.port.to_string(),
            server: conn.server.to_string(),
            epoch: conn.epoch,
            cid: conn.cid,
            opened_by: role(conn.opened_by),
            proven: conn.proven,
            idle_seconds: seconds(self.now, conn.used),
        }
    }

    pub fn peer(self, peer: PeerView) -> PeerRow {
        PeerRow {
            engine: self.engine.into(),
            core: self.core,
            local: peer.local_addr.to_string(),
            remote: peer.peer.to_string(),
            conns: peer.conns,
            rtt_us: peer.rtt.map(us),
            rtt_deviation_us: us(peer.rtt_deviation),
            rto_us: us(peer.rto),
            max_mtu: peer.max_mtu,
            jumbo_max: peer.jumbo_max,
            packets_sent: peer.packets_sent,
            retransmits: peer.retransmits,
            bytes_sent: peer.bytes_sent,
            bytes_received: peer.bytes_received,
        }
    }

    pub fn local(self, local: LocalView) -> LocalRow {
        let service = |(config, charged): (rxrpc::ServiceConfig, usize)| ServiceRow {
            service: config.service,
            charged,
            backlog: config.backlog,
        };
        LocalRow {
            engine: self.engine.into(),
            core: self.core,
            local: local.addr.to_string(),
            conns: local.conns,
            services: local.services.into_iter().map(service).collect(),
        }
    }
}
