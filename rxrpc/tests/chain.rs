//! A middle box: calls that come in are passed on as they stream, in both directions. All three parties act on events
//! alone, so that a missing `Readable` or `Writable` hangs the test.

mod common;

use common::{Faults, Net, Rerun, pattern, seeds, stretch};
use pmd::Mbuf;
use rxrpc::{CallError, CallId, CallOptions, Completion, EndpointConfig, Event, ServiceConfig, Target};
use std::collections::HashMap;
use std::time::Duration;

const CLIENT: usize = 0;
const BOX: usize = 1;
const SERVER: usize = 2;
const SERVICE: u16 = 7;

/// One direction through the middle box.
struct Flow {
    from: CallId,
    to: CallId,
    /// What found no room.
    stuck: Option<(Mbuf, bool)>,
    ended: bool,
}

struct Chain {
    net: Net,
    request: usize,
    reply: usize,
    /// Bytes that the client has sent and received, by call; the stream is the user number.
    client: HashMap<CallId, (usize, usize, bool)>,
    server: HashMap<CallId, (usize, usize)>,
    /// The box's calls, each with its other half.
    halves: HashMap<CallId, CallId>,
    flows: HashMap<CallId, Flow>,
    ended: HashMap<CallId, Completion>,
    results: Vec<Completion>,
    /// The client stops reading after so many bytes, until told to go on.
    read_limit: usize,
    box_held_max: usize,
}

impl Chain {
    fn new(seed: u64, faults: Faults, request: usize, reply: usize) -> Self {
        let small = EndpointConfig {
            send_packets_max: 40,
            send_buffers_max: 600,
            unread_buffers_max: 1_500,
            ..EndpointConfig::default()
        };
        let configs = vec![EndpointConfig::default(), small, EndpointConfig::default()];
        let mut net = Net::new(seed, faults, configs, 4_096);
        for node in &mut net.nodes[BOX..] {
            node.rx.listen(node.local, ServiceConfig::new(SERVICE)).unwrap();
        }
        Self {
            net,
            request,
            reply,
            client: HashMap::new(),
            server: HashMap::new(),
            halves: HashMap::new(),
            flows: HashMap::new(),
            ended: HashMap::new(),
            results: Vec::new(),
            read_limit: usize::MAX,
            box_held_max: 0,
        }
    }

    fn begin(&mut self) {
        let target = Target::new(self.net.nodes[BOX].addr, SERVICE);
        let node = &mut self.net.nodes[CLIENT];
        let call = node.rx.begin(self.net.now, node.local, target, CallOptions::default()).unwrap();
        self.client.insert(call, (0, 0, false));
        self.client_send(call);
    }

    fn events(&mut self) {
        for at in [CLIENT, BOX, SERVER] {
            while let Some(event) = self.net.nodes[at].rx.poll_event() {
                match at {
                    CLIENT => self.client_event(event),
                    BOX => self.box_event(event),
                    _ => self.server_event(event),
                }
            }
        }
        let (unread, queued) = self.net.nodes[BOX].rx.buffers_held();
        self.box_held_max = self.box_held_max.max(unread + queued);
    }

    fn client_event(&mut self, event: Event) {
        match event {
            Event::Writable { call } => self.client_send(call),
            Event::Readable { call } => self.client_read(call),
            Event::Complete { call, completion } => {
                self.client_read(call);
                if completion == Completion::Succeeded && self.read_limit == usize::MAX {
                    assert_eq!(self.client[&call], (self.request, self.reply, true));
                }
                self.results.push(completion);
                if self.read_limit == usize::MAX {
                    self.net.nodes[CLIENT].rx.release(self.net.now, call);
                }
            }
            other => panic!("{other:?}"),
        }
    }

    fn client_send(&mut self, call: CallId) {
        let (sent, ..) = self.client.get_mut(&call).unwrap();
        let node = &mut self.net.nodes[CLIENT];
        loop {
            let len = (self.request - *sent).min(50_000);
            let (bytes, more) = (stretch(1, *sent, len), *sent + len < self.request);
            match node.rx.send(self.net.now, &mut node.pool, call, &bytes, more) {
                Ok(taken) => {
                    *sent += taken;
                    if taken < len || !more {
                        return;
                    }
                }
                Err(CallError::Ended(_) | CallError::ReplyBegun) => return,
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn client_read(&mut self, call: CallId) {
        let (_, received, ended) = self.client.get_mut(&call).unwrap();
        let node = &mut self.net.nodes[CLIENT];
        while *received < self.read_limit && !*ended {
            match node.rx.recv_mbuf(self.net.now, call) {
                Ok(Some((data, more))) => {
                    check(2, received, &data);
                    *ended = !more;
                }
                Ok(None) | Err(CallError::Ended(_)) => return,
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn box_event(&mut self, event: Event) {
        let target = Target::new(self.net.nodes[SERVER].addr, SERVICE);
        match event {
            Event::Incoming { call, .. } => {
                let node = &mut self.net.nodes[BOX];
                let onward = node.rx.begin(self.net.now, node.local, target, CallOptions::default()).unwrap();
                for (from, to) in [(call, onward), (onward, call)] {
                    self.halves.insert(from, to);
                    self.flows.insert(from, Flow { from, to, stuck: None, ended: false });
                }
            }
            Event::Readable { call } => self.pass_on(call),
            Event::Writable { call } => self.pass_on(self.halves[&call]),
            Event::Complete { call, completion } => {
                self.pass_on(call);
                self.ended.insert(call, completion);
                self.box_end(call, completion);
            }
            other => panic!("{other:?}"),
        }
    }

    /// A half that failed ends the other; both are released when both have ended.
    fn box_end(&mut self, call: CallId, completion: Completion) {
        let other = self.halves[&call];
        if completion != Completion::Succeeded && !self.ended.contains_key(&other) {
            self.net.nodes[BOX].rx.abort(self.net.now, other, completion.abort_code());
        }
        if self.ended.contains_key(&other) {
            for call in [call, other] {
                self.flows.remove(&call);
                assert!(self.net.nodes[BOX].rx.release(self.net.now, call));
            }
        }
    }

    /// Moves what has come in on a call to its other half, as far as there is room.
    fn pass_on(&mut self, from: CallId) {
        let Some(flow) = self.flows.get_mut(&from) else { return };
        let node = &mut self.net.nodes[BOX];
        while !flow.ended {
            let (data, more) = match flow.stuck.take() {
                Some(stuck) => stuck,
                None => match node.rx.recv_mbuf(self.net.now, flow.from) {
                    Ok(Some(next)) => next,
                    Ok(None) | Err(_) => return,
                },
            };
            match node.rx.send_mbuf(self.net.now, &mut node.pool, flow.to, data, more) {
                Ok(None) => flow.ended = !more,
                Ok(Some(left)) => {
                    flow.stuck = Some((left, more));
                    return;
                }
                // The reply has begun, or the other half has ended: nobody wants the rest.
                Err(_) => flow.ended = true,
            }
        }
    }

    fn server_event(&mut self, event: Event) {
        match event {
            Event::Incoming { call, .. } => {
                self.server.insert(call, (0, 0));
            }
            Event::Readable { call } => self.server_read(call),
            Event::Writable { call } => self.server_send(call),
            Event::Complete { call, .. } => {
                self.server.remove(&call);
                assert!(self.net.nodes[SERVER].rx.release(self.net.now, call));
            }
            other => panic!("{other:?}"),
        }
    }

    fn server_read(&mut self, call: CallId) {
        let (received, _) = self.server.get_mut(&call).unwrap();
        let node = &mut self.net.nodes[SERVER];
        while let Ok(Some((data, more))) = node.rx.recv_mbuf(self.net.now, call) {
            check(1, received, &data);
            if !more {
                assert_eq!(*received, self.request);
                return self.server_send(call);
            }
        }
    }

    fn server_send(&mut self, call: CallId) {
        let (_, sent) = self.server.get_mut(&call).unwrap();
        let node = &mut self.net.nodes[SERVER];
        loop {
            let len = (self.reply - *sent).min(9_999);
            let (bytes, more) = (stretch(2, *sent, len), *sent + len < self.reply);
            match node.rx.send(self.net.now, &mut node.pool, call, &bytes, more) {
                Ok(taken) => {
                    *sent += taken;
                    if taken < len || !more {
                        return;
                    }
                }
                Err(_) => return,
            }
        }
    }

    /// Runs until `done`, or for so long in virtual time.
    fn run(&mut self, limit: Duration, done: impl Fn(&Self) -> bool) {
        let end = self.net.now + limit;
        while self.net.now < end {
            self.events();
            if done(self) {
                return;
            }
            let next = self.net.next().map_or(end, |next| next.min(end));
            self.net.step_until(next.max(self.net.now));
        }
    }
}

fn check(stream: u64, at: &mut usize, data: &Mbuf) {
    for &byte in data.segments().flatten() {
        assert_eq!(byte, pattern(stream, *at), "at byte {at} of stream {stream}");
        *at += 1;
    }
}

#[test]
fn calls_stream_through_a_middle_box() {
    for seed in seeds(0..60) {
        let _rerun = Rerun { test: "chain", seed };
        let mut random = fastrand::Rng::with_seed(seed);
        let loss = [0.0, 0.02, 0.1][random.usize(..3)];
        let faults = Faults { loss, duplication: loss / 2.0, reorder: loss, ..Faults::none(300) };
        let (request, reply) = (random.usize(..200_000), random.usize(..200_000));
        let mut chain = Chain::new(seed, faults, request, reply);
        let calls = random.usize(1..20);
        for _ in 0..calls {
            chain.begin();
        }
        chain.run(Duration::from_secs(300), |chain| chain.results.len() == calls);
        assert_eq!(chain.results, vec![Completion::Succeeded; calls]);
        chain.run(Duration::from_secs(60), |chain| chain.ended.len() == 2 * calls && chain.server.is_empty());
        chain.run(Duration::from_secs(2), |_| false);
        chain.net.assert_clean();
    }
}

#[test]
fn a_client_that_stops_reading_stops_the_server() {
    let mut chain = Chain::new(3, Faults::none(300), 10, 4_000_000);
    chain.read_limit = 0;
    chain.begin();
    chain.run(Duration::from_secs(15), |_| false);
    let sent = chain.server.values().next().expect("the server is not done").1;
    assert!(sent < 2_000_000, "{sent} bytes went in with nobody reading");
    assert!(chain.box_held_max <= 700, "the box held {} buffers", chain.box_held_max);
    chain.read_limit = usize::MAX;
    let call = *chain.client.keys().next().unwrap();
    chain.client_read(call);
    chain.run(Duration::from_secs(60), |chain| !chain.results.is_empty());
    assert_eq!(chain.results, [Completion::Succeeded], "and it goes on when the client reads again");
}

#[test]
fn an_abort_passes_through_with_its_code() {
    let mut chain = Chain::new(4, Faults::none(300), 100_000, 10);
    chain.begin();
    chain.run(Duration::from_secs(5), |chain| !chain.server.is_empty());
    let call = *chain.server.keys().next().unwrap();
    chain.net.nodes[SERVER].rx.abort(chain.net.now, call, 4711);
    chain.run(Duration::from_secs(5), |chain| !chain.results.is_empty());
    assert_eq!(chain.results, [Completion::RemoteAbort(4711)]);
}
