//! Long transfers: how much arrives in so many round trips.

use crate::common::{Bottleneck, Faults, Net};
use pmd::Instant;
use rxrpc::{CallId, CallOptions, EndpointConfig, Event, PACKET_PAYLOAD, ServiceConfig, Target};
use std::time::Duration;

/// One path, and who sends on it.
#[derive(Clone, Debug)]
pub struct Path {
    pub rtt: Duration,
    pub loss: f64,
    pub bottleneck: Option<Bottleneck>,
    /// Each from an endpoint of its own, all to the same server.
    pub flows: usize,
    pub config: EndpointConfig,
    /// Round trips that it takes.
    pub rounds: u32,
    /// Later flows begin so many round trips after the one before.
    pub stagger: u32,
    pub seed: u64,
}

/// What became of one flow.
#[derive(Clone, Copy, Debug, Default)]
pub struct Flow {
    /// Payload bytes that arrived.
    pub bytes: u64,
    /// Those that arrived in the second half of the time.
    pub late_bytes: u64,
    pub sent: u64,
    pub resent: u64,
    pub timeouts: u64,
}

impl Path {
    /// Megabytes a second of the payload.
    pub fn rate(&self, bytes: u64) -> f64 {
        bytes as f64 / 1e6 / (self.rtt * self.rounds).as_secs_f64()
    }

    /// The protocol's limit: a window of packets in every round trip.
    pub fn limit(&self) -> f64 {
        let window = self.config.transmit_window.min(self.config.receive_window);
        f64::from(window) * PACKET_PAYLOAD as f64 / 1e6 / self.rtt.as_secs_f64()
    }

    pub fn run(&self) -> Vec<Flow> {
        Bulk::new(self).run()
    }
}

const SERVICE: u16 = 7;
/// Flows through one queue that follow a clock to the nanosecond fall into step, and the same one finds it full each time: Floyd and
/// Jacobson, "On Traffic Phase Effects in Packet-Switched Gateways" (1992). As they do, packets are delayed at random
/// by up to what one of this size takes at the bottleneck.
const MTU: u64 = 1_500;

/// The run of one path.
struct Bulk<'a> {
    path: &'a Path,
    net: Net,
    began: Instant,
    calls: Vec<Option<CallId>>,
    flows: Vec<Flow>,
    block: Vec<u8>,
}

impl<'a> Bulk<'a> {
    fn new(path: &'a Path) -> Self {
        let jitter = path.bottleneck.map_or(Duration::ZERO, |link| Duration::from_nanos(link.nanos(MTU)));
        let faults = Faults { loss: path.loss, delay: path.rtt / 2, jitter, ..Faults::default() };
        let configs = vec![path.config.clone(); path.flows + 1];
        let mut net = Net::new(path.seed, faults, configs, 4_096);
        net.bottleneck = path.bottleneck;
        net.nodes[path.flows].listen(ServiceConfig::new(SERVICE));
        let (calls, flows) = (vec![None; path.flows], vec![Flow::default(); path.flows]);
        Self { path, began: net.now, net, calls, flows, block: vec![5; 1 << 16] }
    }

    fn run(mut self) -> Vec<Flow> {
        let end = self.began + self.path.rtt * self.path.rounds;
        while self.net.now < end {
            self.send();
            self.net.step_until(end);
            self.receive();
        }
        for (index, flow) in self.flows.iter_mut().enumerate() {
            let stats = self.net.nodes[index].rx.stats();
            (flow.sent, flow.resent, flow.timeouts) = (stats.data_sent, stats.data_resent, stats.timeouts);
        }
        self.flows
    }

    /// Begins what is due, and gives each call data when it says that it has room: then only, as programs do.
    fn send(&mut self) {
        let to = Target::new(self.net.nodes[self.path.flows].addr, SERVICE);
        for (index, call) in self.calls.iter_mut().enumerate() {
            let begins = self.began + self.path.rtt * (self.path.stagger * index as u32);
            let node = &mut self.net.nodes[index];
            let mut room = false;
            if call.is_none() && begins <= self.net.now {
                *call = Some(node.rx.begin(self.net.now, node.local, to, CallOptions::default()).unwrap());
                room = true;
            }
            let Some(call) = *call else { continue };
            while let Some(event) = node.rx.poll_event() {
                room |= matches!(event, Event::Writable { .. });
            }
            while room {
                let sent = node.rx.send(self.net.now, &mut node.pool, call, &self.block, true).unwrap();
                room = sent == self.block.len();
            }
        }
    }

    /// Reads whatever came, for the flow whose address it came from.
    fn receive(&mut self) {
        let late = self.net.now >= self.began + self.path.rtt * (self.path.rounds / 2);
        let (clients, server) = self.net.nodes.split_at_mut(self.path.flows);
        let server = &mut server[0];
        while let Some(event) = server.rx.poll_event() {
            let call = match event {
                Event::Incoming { call, peer, .. } => {
                    let flow = clients.iter().position(|node| node.addr == peer).unwrap();
                    server.rx.set_user(call, flow as u64);
                    call
                }
                Event::Readable { call } => call,
                other => panic!("{other:?}"),
            };
            let flow = &mut self.flows[server.rx.user(call) as usize];
            while let Some((data, _)) = server.rx.recv_mbuf(self.net.now, call).unwrap() {
                flow.bytes += data.len() as u64;
                flow.late_bytes += if late { data.len() as u64 } else { 0 };
            }
        }
    }
}
