//! What people see of an endpoint's objects: plain values, made when somebody looks.

use crate::peer::Peer;
use crate::security::{Identity, Level};
use crate::socket::SocketCallView;
use crate::{CallId, Completion, ConnId, Endpoint, LocalId, PeerId, RxStats, ServiceConfig};
use pmd::Instant;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
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
    /// What threads hold of it, where it belongs to a socket of theirs.
    pub shared: Option<SocketCallView>,
    /// Client or service.
    pub role: Role,
    /// How far it is.
    pub state: CallState,
    /// How it ended, once it has.
    pub completion: Option<Completion>,
    /// The address here.
    pub local: LocalId,
    /// The same as it is written.
    pub local_addr: SocketAddr,
    /// The address there.
    pub peer: SocketAddr,
    /// Service id.
    pub service: u16,
    /// Service, with a class that asks for it: who called.
    pub identity: Option<Arc<Identity>>,
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
    /// Sequence number of the first packet that the peer does not have for good.
    pub tx_first: u32,
    /// Sequence number that is expected next of the peer.
    pub rx_next: u32,
    /// Packets beyond `rx_next` that the peer was told it may send.
    pub receive_window: u32,
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

/// A connection that an app passes on without the endpoint.
#[derive(Clone, Debug)]
pub struct RelayView {
    /// Where the client finds us.
    pub listener: SocketAddr,
    /// The client.
    pub client: SocketAddr,
    /// Our port towards the server.
    pub port: SocketAddr,
    /// The server.
    pub server: SocketAddr,
    /// Epoch.
    pub epoch: u32,
    /// Connection id, with channel 0.
    pub cid: u32,
    /// Which of the two opened it: `Client`, or `Service` for a call back.
    pub opened_by: Role,
    /// Both ends have been heard.
    pub proven: bool,
    /// When a packet of it last crossed, give or take a second.
    pub used: Instant,
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
    /// The same as it is written.
    pub local_addr: SocketAddr,
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
    /// How much rxkad protects; `None`: another class, or the client has not proved who it is.
    pub level: Option<Level>,
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
    /// The same as it is written.
    pub local_addr: SocketAddr,
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
    /// Packets it takes in a jumbogram; 0: as many as a padded PING proves.
    pub jumbo_max: u32,
    /// Packets that a datagram to it may carry: one until a PING of a larger size was answered.
    pub datagram_packets: u32,
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
    /// Connections on it.
    pub conns: usize,
    /// What it offers: each service with the accepts charged.
    pub services: Vec<(ServiceConfig, usize)>,
}

/// How many there are on one core, and what they did.
#[derive(Clone, Debug)]
pub struct RxFigures {
    /// Calls.
    pub calls: usize,
    /// Connections.
    pub conns: usize,
    /// Remote addresses.
    pub peers: usize,
    /// Local addresses.
    pub locals: usize,
    /// Buffers that wait for readers.
    pub unread_buffers: usize,
    /// Buffers that wait to be sent or acknowledged.
    pub send_buffers: usize,
    /// The counters.
    pub stats: RxStats,
}

/// Rows of a page at most: what a core writes down between two packets.
pub const PAGE_ROWS: usize = 32;
/// Table slots that a core looks at for a page at most.
pub const PAGE_SLOTS: usize = 128;

/// Objects of an endpoint page by page: each call looks at a bounded part of a table and pushes at most [`PAGE_ROWS`]
/// rows; into a vector with so much room it allocates nothing (but a local's list of services). `from` is 0 or what the call before returned;
/// `None` is the end. What comes and goes between two pages is seen or not; what is there all along is seen once.
impl Endpoint {
    /// Calls.
    pub fn calls_page(&self, from: usize, rows: &mut Vec<CallView>) -> Option<usize> {
        self.calls.page(from, PAGE_ROWS, PAGE_SLOTS, |_, call| rows.push(call.view(self.addr_of(call.local))))
    }

    /// Connections.
    pub fn conns_page(&self, from: usize, rows: &mut Vec<ConnView>) -> Option<usize> {
        self.conns.page(from, PAGE_ROWS, PAGE_SLOTS, |_, conn| rows.push(conn.view(self.addr_of(conn.local))))
    }

    /// Remote addresses.
    pub fn peers_page(&self, from: usize, rows: &mut Vec<PeerView>) -> Option<usize> {
        self.peers.page(from, PAGE_ROWS, PAGE_SLOTS, |id, peer| rows.push(self.peer_view(id, peer)))
    }

    /// Local addresses.
    pub fn locals_page(&self, from: usize, rows: &mut Vec<LocalView>) -> Option<usize> {
        self.locals.page(from, PAGE_ROWS, PAGE_SLOTS, |id, local| rows.push(local.view(id)))
    }

    /// How many there are.
    pub fn figures(&self) -> RxFigures {
        let (unread_buffers, send_buffers) = self.buffers_held();
        RxFigures {
            calls: self.calls.len(),
            conns: self.conns.len(),
            peers: self.peers.len(),
            locals: self.locals.len(),
            unread_buffers,
            send_buffers,
            stats: self.stats().clone(),
        }
    }

    /// The address of a local, while anything refers to it.
    pub(crate) fn addr_of(&self, local: LocalId) -> SocketAddr {
        self.locals.get(local).map_or(UNKNOWN, |local| local.addr)
    }

    pub(crate) fn peer_view(&self, id: PeerId, peer: &Peer) -> PeerView {
        let config = self.config();
        let rto = peer.rtt.rto(config.initial_rto, config.min_rto, config.max_rto);
        peer.view(id, self.addr_of(peer.local), rto)
    }
}

const UNKNOWN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
