//! The interface for services on a core, end to end: two engines in one process, joined by a `memory:` port.

use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use rxrpc::engine::Engine;
use rxrpc::kernel::{Calls, KernelApp, KernelService, PeerData};
use rxrpc::{
    CallError, CallId, CallOptions, CallTimeouts, Completion, EndpointConfig, ListenError, LocalId,
    OpenLocal, RxControl, RxHandler, Target, Timeout,
};

const SERVICE: u16 = 147;
const LONG: Duration = Duration::from_secs(20);

/// What a service was told, and what it found.
#[derive(Debug, PartialEq)]
enum Told {
    Notified { user: u64, data: Vec<u8>, more: bool, completion: Option<Completion>, alive: bool },
    Did(Result<(), String>),
}

/// Does what the test tells it, and tells the test what happens.
struct Puppet {
    told: Sender<(CallId, Told, Option<PeerData>)>,
    serves: bool,
}

type Act = Box<dyn FnOnce(&mut Calls<'_, '_>) -> Result<(), String> + Send>;

impl KernelService for Puppet {
    type Command = Act;

    fn opened(&mut self, calls: &mut Calls<'_, '_>, local: LocalId, _: SocketAddr) {
        if self.serves {
            calls.listen(local, SERVICE, 2).unwrap();
            calls.charge_accept(local, SERVICE, 70).unwrap();
            calls.charge_accept(local, SERVICE, 71).unwrap();
            let full = ListenError::BacklogFull { charged: 2, wanted: 1, backlog: 2 };
            assert_eq!(calls.charge_accept(local, SERVICE, 72), Err(full));
        }
    }

    fn notify(&mut self, calls: &mut Calls<'_, '_>, call: CallId, user: u64) {
        let (mut data, mut more) = (Vec::new(), true);
        let alive = calls.check_life(call);
        while let Ok(Some((part, follows))) = calls.recv_mbuf(call) {
            data.extend_from_slice(part.data());
            more = follows;
        }
        let told = Told::Notified { user, data, more, completion: calls.completion(call), alive };
        let _ = self.told.send((call, told, calls.peer(call)));
    }

    fn command(&mut self, calls: &mut Calls<'_, '_>, act: Act) {
        let did = act(calls);
        let _ = self.told.send((CallId::default(), Told::Did(did), None));
    }
}

struct Side {
    engine: Engine<RxHandler<KernelApp<Puppet>>>,
    told: Receiver<(CallId, Told, Option<PeerData>)>,
}

impl Side {
    fn start(name: &str, address: &str, serves: bool) -> Self {
        let (told, receiver) = channel();
        let builder = Engine::builder().name(name).port(format!("memory:{name}")).address(address);
        let config = EndpointConfig { busy: Duration::from_millis(500), ..EndpointConfig::for_pool(1_024) };
        let engine = builder.core_count(1).pool_buffers(1_024).start_with(move |core| {
            let puppet = Puppet { told: told.clone(), serves };
            RxHandler::new(config.clone(), core.seed, KernelApp::new(puppet))
        });
        Side { engine: engine.unwrap(), told: receiver }
    }

    /// Has the service do something, on its core.
    fn act(&self, act: impl FnOnce(&mut Calls<'_, '_>) -> Result<(), String> + Send + 'static) {
        assert!(self.engine.tell(0, Box::new(act)).is_ok());
        loop {
            if let (_, Told::Did(did), _) = self.told.recv_timeout(LONG).unwrap() {
                return assert_eq!(did, Ok(()));
            }
        }
    }

    /// What the service was told next that is of this kind.
    fn wait(&self, wanted: impl Fn(&Told) -> bool) -> (CallId, Told, Option<PeerData>) {
        loop {
            let told = self.told.recv_timeout(LONG).expect("it was never told");
            if wanted(&told.1) {
                return told;
            }
        }
    }

    fn ended(&self, number: u64) -> (Completion, Vec<u8>) {
        let ended =
            |told: &Told| matches!(told, Told::Notified { user, completion: Some(_), .. } if *user == number);
        match self.wait(ended).1 {
            Told::Notified { completion: Some(completion), data, .. } => (completion, data),
            other => panic!("{other:?}"),
        }
    }
}

struct Pair {
    server: Side,
    client: Side,
    _open: OpenLocal<Act>,
    _ports: rxrpc::ClientPorts<Act>,
}

fn server() -> SocketAddr {
    "192.0.2.10:7009".parse().unwrap()
}

fn pair(name: &str) -> Pair {
    let (server_side, client) =
        (Side::start(name, "192.0.2.10/24", true), Side::start(name, "192.0.2.20/24", false));
    let (open, ports) = (server_side.engine.open(server()).unwrap(), client.engine.open_clients().unwrap());
    Pair { server: server_side, client, _open: open, _ports: ports }
}

/// Begins a call with a request.
fn call(side: &Side, user: u64, request: &'static [u8], more: bool) {
    side.act(move |calls| {
        let options = CallOptions { user, hard_timeout: Some(LONG), ..CallOptions::default() };
        let call = calls.begin_call(None, Target::new(server(), SERVICE), options).unwrap();
        match calls.send_data(call, request, more) {
            Ok(taken) if taken == request.len() => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
}

#[test]
fn calls_come_in_under_the_numbers_of_charged_accepts_and_end_when_they_are_ended() {
    let pair = pair("kernel-numbers");
    for (user, charged) in [(1, 70), (2, 71)] {
        call(&pair.client, user, b"request", false);
        let whole = |told: &Told| matches!(told, Told::Notified { more: false, .. });
        let (id, told, peer) = pair.server.wait(whole);
        let request = b"request".to_vec();
        let expected =
            Told::Notified { user: charged, data: request, more: false, completion: None, alive: true };
        assert_eq!(told, expected);
        assert_eq!(peer.unwrap().addr.ip().to_string(), "192.0.2.20");
        pair.server.act(move |calls| {
            assert!(calls.set_tx_length(id, 5));
            assert_eq!(calls.send_data(id, b"reply", true), Ok(5));
            assert_eq!(calls.send_data(id, b"more", false), Err(CallError::SendEnded));
            Ok(())
        });
        let (call, told, peer) = pair.client.wait(|told| matches!(told, Told::Notified { more: false, .. }));
        let Told::Notified { user: number, data, alive, .. } = told else { panic!() };
        assert_eq!((number, &data[..], alive), (user, &b"reply"[..], true));
        assert_eq!(peer.unwrap().addr, server());
        assert_eq!(pair.server.ended(charged).0, Completion::Succeeded);
        for (side, id) in [(&pair.client, call), (&pair.server, id)] {
            side.act(move |calls| {
                assert!(!calls.check_life(id), "read to its end, and over");
                assert!(calls.end_call(id) && !calls.end_call(id), "once");
                assert!(calls.completion(id).is_none() && calls.peer(id).is_none());
                Ok(())
            });
        }
    }
    // Nobody charged the accepts again.
    call(&pair.client, 3, b"request", false);
    assert_eq!(pair.client.ended(3).0, Completion::Busy);
}

#[test]
fn either_side_can_abort_and_a_call_can_be_given_less_time() {
    let pair = pair("kernel-abort");
    call(&pair.client, 1, b"request", true);
    let (theirs, ..) = pair.server.wait(|told| matches!(told, Told::Notified { user: 70, .. }));
    pair.server.act(move |calls| {
        calls.abort_call(theirs, 55);
        Ok(())
    });
    assert_eq!(pair.client.ended(1).0, Completion::RemoteAbort(55));
    assert_eq!(pair.server.ended(70).0, Completion::LocalAbort(55));

    call(&pair.client, 2, b"request", false);
    let (theirs, ..) = pair.server.wait(|told| matches!(told, Told::Notified { user: 71, .. }));
    pair.server.act(move |calls| {
        let hard = Some(Duration::from_millis(50));
        assert!(calls.set_timeouts(theirs, &CallTimeouts { hard, ..CallTimeouts::default() }));
        Ok(())
    });
    assert_eq!(pair.server.ended(71).0, Completion::TimedOut(Timeout::Hard));
    assert_eq!(pair.client.ended(2).0, Completion::RemoteAbort(rxrpc::code::CALL_TIMEOUT));
}
