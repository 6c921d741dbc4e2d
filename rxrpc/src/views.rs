//! What people see of an endpoint's objects: plain values, made when somebody looks.

use crate::{CallId, Completion, ConnId, LocalId, PeerId, ServiceConfig};
use pmd::Instant;
use std::net::SocketAddr;
use std::time::Duration;

/// Which side of a call or connection we are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Role {
    /// We call.
    #[default]
    Client,
    /// We are called.
    Service,
}

/// How far a call is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum CallState {
    /// A client's call that waits for a place on a connection.
    #[default]
    Waiting,
    /// Client: the request is being sent.
    ClientSend,
    /// Client: all of the request was handed over, no reply yet.
    ClientAwaitReply,
    /// Client: the reply comes in.
    ClientReceive,
    /// Service: the connection is not secured yet, nobody has been told of the call.
    ServiceSecuring,
    /// Service: the request comes in.
    ServiceReceive,
    /// Service: all of the request is here, no reply yet.
    ServiceWork,
    /// Service: the reply is being sent.
    ServiceSend,
    /// Service: all of the reply was handed over and waits to be acknowledged.
    ServiceAwaitAck,
    /// It has ended.
    Complete,
}

/// One call.
#[derive(Clone, Debug)]
pub struct CallView {
    /// Its identifier.
    pub id: CallId,
    /// The user's number for it.
    pub user: u64,
    /// Client or service.
    pub role: Role,
    /// How far it is.
    pub state: CallState,
    /// How it ended, once it has.
    pub completion: Option<Completion>,
    /// The address here.
    pub local: LocalId,
    /// The address there.
    pub peer: SocketAddr,
    /// Service id.
    pub service: u16,
    /// Its connection, while it has one.
    pub conn: Option<ConnId>,
    /// Epoch of the connection; 0 before it has one.
    pub epoch: u32,
    /// Connection id with channel; 0 before it has one.
    pub cid: u32,
    /// Call number on the channel.
    pub number: u32,
    /// When it began.
    pub began: Instant,
    /// Packets handed over and not sent yet.
    pub unsent_packets: usize,
    /// Packets sent and not acknowledged.
    pub unacked_packets: usize,
    /// Congestion window in packets.
    pub congestion_window: u32,
    /// The peer's receive window in packets.
    pub peer_window: u32,
    /// Packets that wait to be read, in order.
    pub unread_packets: usize,
    /// Packets that wait for one before them.
    pub out_of_order_packets: usize,
    /// Payload bytes sent (once each).
    pub bytes_sent: u64,
    /// Payload bytes received in order.
    pub bytes_received: u64,
    /// Retransmissions.
    pub retransmits: u64,
}

/// One connection.
#[derive(Clone, Debug)]
pub struct ConnView {
    /// Its identifier.
    pub id: ConnId,
    /// Client or service.
    pub role: Role,
    /// The address here.
    pub local: LocalId,
    /// The address there.
    pub peer: SocketAddr,
    /// Epoch.
    pub epoch: u32,
    /// Connection id.
    pub cid: u32,
    /// Service id.
    pub service: u16,
    /// Security index.
    pub security: u8,
    /// Serial of the last packet sent.
    pub serial: u32,
    /// The code of a connection abort, once there was one.
    pub error: Option<i32>,
    /// Call numbers of the four channels.
    pub call_numbers: [u32; 4],
    /// Their calls.
    pub calls: [Option<CallId>; 4],
    /// When it last carried a call.
    pub used: Instant,
}

/// One remote address.
#[derive(Clone, Debug)]
pub struct PeerView {
    /// Its identifier.
    pub id: PeerId,
    /// The address here that it talks to.
    pub local: LocalId,
    /// Its address.
    pub peer: SocketAddr,
    /// Connections with it.
    pub conns: usize,
    /// Smoothed round trip; `None` before the first measurement.
    pub rtt: Option<Duration>,
    /// Its mean deviation.
    pub rtt_deviation: Duration,
    /// Retransmission timeout.
    pub rto: Duration,
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

/// One local address.
#[derive(Clone, Debug)]
pub struct LocalView {
    /// Its identifier.
    pub id: LocalId,
    /// The address.
    pub addr: SocketAddr,
    /// What it offers: each service with the accepts charged.
    pub services: Vec<(ServiceConfig, usize)>,
}
