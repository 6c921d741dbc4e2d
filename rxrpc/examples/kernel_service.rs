//! A service that lives on the core, by the interface that Linux gives to services in the kernel: accepts charged with numbers of
//! its own, notifications, data step by step. A client of the same kind calls it; a `memory:` port joins the two.
//!
//! `cargo run --release -p rxrpc --example kernel_service [TEXT]`

use rxrpc::engine::Engine;
use rxrpc::kernel::{Calls, KernelApp, KernelService};
use rxrpc::{CallId, CallOptions, EndpointConfig, LocalId, RxControl, RxHandler, Target};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::mpsc;

const SERVICE: u16 = 147;

/// Answers each request with itself. Ten accepts are charged, as numbers 0 to 9; a number is charged again when its call is over.
#[derive(Default)]
struct Echo {
    local: LocalId,
    calls: HashMap<u64, Work>,
}

#[derive(Default)]
struct Work {
    request: Vec<u8>,
    whole: bool,
    sent: Option<usize>,
}

impl KernelService for Echo {
    type Command = ();

    fn opened(&mut self, calls: &mut Calls<'_, '_>, local: LocalId, _: SocketAddr) {
        self.local = local;
        calls.listen(local, SERVICE, 10).expect("a new service");
        (0..10).for_each(|user| calls.charge_accept(local, SERVICE, user).expect("within the backlog"));
    }

    fn notify(&mut self, calls: &mut Calls<'_, '_>, call: CallId, user: u64) {
        if calls.completion(call).is_some() {
            self.calls.remove(&user);
            calls.end_call(call);
            calls.charge_accept(self.local, SERVICE, user).expect("its place is free");
            return;
        }
        let work = self.calls.entry(user).or_default();
        let mut part = [0; 4_096];
        while !work.whole
            && let Ok(read) = calls.recv_data(call, &mut part)
        {
            work.request.extend_from_slice(&part[..read.bytes]);
            work.whole = !read.more;
            if read.bytes == 0 {
                break;
            }
        }
        let sent = work.sent.unwrap_or(0);
        // What finds no room now is sent when the next notification says that there is some.
        if work.whole
            && work.sent != Some(work.request.len())
            && let Ok(taken) = calls.send_data(call, &work.request[sent..], false)
        {
            work.sent = Some(sent + taken);
        }
    }

    fn command(&mut self, _: &mut Calls<'_, '_>, (): ()) {}
}

/// Asks, and passes the answer on to the thread that wants it.
struct Ask {
    answers: mpsc::Sender<String>,
    reply: Vec<u8>,
}

impl KernelService for Ask {
    type Command = (SocketAddr, String);

    fn command(&mut self, calls: &mut Calls<'_, '_>, (server, text): Self::Command) {
        let options = CallOptions { user: 7, tx_length: Some(text.len() as u64), ..CallOptions::default() };
        let call = calls.begin_call(None, Target::new(server, SERVICE), options).expect("a client port");
        calls.send_data(call, text.as_bytes(), false).expect("a new call takes data");
    }

    fn notify(&mut self, calls: &mut Calls<'_, '_>, call: CallId, user: u64) {
        let mut part = [0; 4_096];
        while let Ok(read) = calls.recv_data(call, &mut part) {
            self.reply.extend_from_slice(&part[..read.bytes]);
            if read.bytes == 0 {
                break;
            }
        }
        if let Some(completion) = calls.completion(call) {
            let (text, srtt) = (String::from_utf8_lossy(&self.reply), calls.peer(call).and_then(|p| p.srtt));
            let _ = self.answers.send(format!("call {user} {completion}: {text} (srtt {srtt:?})"));
            calls.end_call(call);
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let text = std::env::args().nth(1).unwrap_or("hello".into());
    let engine = |address| Engine::builder().port("memory:kernel_service").address(address);
    let config = EndpointConfig::for_pool(1_024);

    let here = config.clone();
    let server = engine("192.0.2.10/24")
        .start_with(move |core| RxHandler::new(here.clone(), core.seed, KernelApp::new(Echo::default())))?;
    let open = server.open("192.0.2.10:7009".parse()?)?;

    let (answers, answer) = mpsc::channel();
    let client = engine("192.0.2.20/24").core_count(1).start_with(move |core| {
        let service = Ask { answers: answers.clone(), reply: Vec::new() };
        RxHandler::new(config.clone(), core.seed, KernelApp::new(service))
    })?;
    let _ports = client.open_clients()?;
    client.tell(0, (open.addr(), text)).map_err(|_| "the client has stopped")?;
    println!("{}", answer.recv()?);
    Ok(())
}
