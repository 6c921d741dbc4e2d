//! The control socket of a process that works: engines over memory, calls, and clients who behave and who do not.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use control::protocol::{Ask, Cursor, REQUEST_MAX};
use control::rows::{CallRow, ConnRow, LocalRow, PeerRow};
use control::{Asker, CaptureWish, Control, FrameFate, Sources};
use engine::Engine;
use rxperf::load::LoadConfig;
use rxperf::{LoadRun, ServiceRun, Verify, Work};
use rxrpc::{PAGE_ROWS, RxExt, ServiceId};

const SERVER: &str = "192.0.2.10:7009";
const LONG: Duration = Duration::from_secs(30);

fn server() -> SocketAddr {
    SERVER.parse().unwrap()
}

fn builder(wire: &str, name: &str, address: &str) -> engine::Builder {
    Engine::builder().name(name).port(format!("memory:{wire}")).address(address)
}

/// A server, a load that has not begun, and their control socket.
struct Stage {
    control: Control,
    load: LoadRun,
    service: ServiceRun,
}

impl Stage {
    fn new(wire: &str, calls_max: Option<u64>, connections: usize) -> Self {
        let config = LoadConfig {
            server: server(),
            work: Work::rpc(64, 64),
            verify: Verify::Digest,
            upgrade: false,
            in_flight: 4 * connections,
            gap: Duration::ZERO,
            connections,
            calls_max,
            call_timeout: LONG,
            seed: 1,
            congestion: Default::default(),
        };
        let service =
            ServiceRun::start(builder(wire, "server", "192.0.2.10/24"), 1, 4096, &[server()]).unwrap();
        let load = LoadRun::start(builder(wire, "client", "192.0.2.20/24"), 1, 4096, config).unwrap();
        let sources = Sources::new("test", [service.rx_viewer(), load.rx_viewer()]);
        let loopback = "127.0.0.1:0".parse().unwrap();
        let control = Control::serve(Some(&path(wire)), Some(loopback), sources).unwrap();
        Stage { control, load, service }
    }

    fn asker(&self) -> Asker {
        Asker::connect(self.control.path().unwrap()).unwrap()
    }

    fn stream(&self) -> UnixStream {
        let stream = UnixStream::connect(self.control.path().unwrap()).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream
    }

    fn end(self) {
        let path = self.control.path().unwrap().clone();
        drop(self.control);
        assert!(!path.exists(), "the socket's file is gone with it");
        for report in [self.load.shutdown(), self.service.shutdown()] {
            assert_eq!(report.leaks(), Vec::<String>::new());
        }
    }
}

fn path(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("rxl-control-{name}-{}.sock", std::process::id()))
}

/// Every row of a listing.
fn all<T: serde::de::DeserializeOwned>(asker: &mut Asker, ask: Ask) -> Vec<T> {
    let (mut rows, mut next) = (Vec::new(), Some(Cursor::default()));
    while let Some(from) = next {
        let page = asker.rows(ask, from).unwrap();
        rows.extend(page.rows);
        next = page.next;
    }
    rows
}

#[test]
fn what_is_shown_is_what_was_done() {
    const CALLS: u64 = 1000;
    let mut stage = Stage::new("done", Some(CALLS), 100);
    stage.load.begin();
    assert!(stage.load.wait_over(LONG));
    let mut asker = stage.asker();
    let hello = asker.hello().unwrap();
    assert_eq!((hello.command.as_str(), hello.pid, hello.engines.len()), ("test", std::process::id(), 2));

    // A hundred connections, which take several pages, each there once at either end.
    let conns: Vec<ConnRow> = all(&mut asker, Ask::Conns);
    for (engine, role) in [("server", "service"), ("client", "client")] {
        let cids: Vec<u32> =
            conns.iter().filter(|c| c.engine == engine && c.role == role).map(|c| c.cid).collect();
        let distinct: BTreeSet<u32> = cids.iter().copied().collect();
        assert_eq!(cids.len(), distinct.len(), "a connection was shown twice at the {engine}");
        assert!(
            cids.len() > 2 * PAGE_ROWS,
            "{} connections at the {engine}: too few for several pages",
            cids.len()
        );
    }
    let calls_of = |engine: &str| -> u64 {
        let numbers = conns.iter().filter(|conn| conn.engine == engine).flat_map(|conn| conn.call_numbers);
        numbers.map(u64::from).sum()
    };
    assert_eq!((calls_of("server"), calls_of("client")), (CALLS, CALLS), "call numbers of all channels");

    let peers: Vec<PeerRow> = all(&mut asker, Ask::Peers);
    let at_client = peers.iter().find(|peer| peer.engine == "client").unwrap();
    assert_eq!(at_client.remote, SERVER);
    assert!(at_client.rtt_us.is_some() && at_client.packets_sent >= CALLS, "{at_client:?}");
    let locals: Vec<LocalRow> = all(&mut asker, Ask::Locals);
    let served = locals.iter().find(|local| local.local == SERVER).unwrap();
    assert_eq!((served.engine.as_str(), served.services[0].service), ("server", 147));

    let snapshot = asker.snapshot().unwrap();
    let [at_server, at_client] = ["server", "client"].map(|name| {
        let engine = snapshot.engines.iter().find(|engine| engine.engine == name).unwrap();
        engine.cores[0].clone()
    });
    let (server_rx, client_rx) = (at_server.rx.unwrap(), at_client.rx.unwrap());
    assert_eq!((server_rx.calls_accepted, client_rx.calls_begun), (CALLS, CALLS));
    assert_eq!((client_rx.calls_succeeded, client_rx.calls_failed, client_rx.calls), (CALLS, 0, 0));
    assert_eq!(at_server.received, at_server.consumed + at_server.drops.values().sum::<u64>());
    assert!(at_server.turns >= at_server.busy_turns && at_server.buffers == 4096);

    let metrics = asker.metrics().unwrap();
    let series = parse(&metrics);
    let calls = &series["rxline_rx_calls_accepted_total{engine=\"server\",core=\"0\"}"];
    assert_eq!(*calls, CALLS as f64);
    stage.end();
}

#[test]
fn a_call_in_progress_shows_both_its_halves() {
    let theirs = builder("halves", "server", "192.0.2.10/24").start_rx().unwrap();
    let ours = builder("halves", "client", "192.0.2.20/24").start_rx().unwrap();
    let service = theirs.rx().bind(SERVER, ServiceId(147)).unwrap();
    let client = ours.rx().client().unwrap();
    let path = path("halves");
    let sources = Sources::new("test", [theirs.rx_viewer(), ours.rx_viewer()]);
    let control = Control::serve(Some(&path), None, sources).unwrap();
    let mut asker = Asker::connect(&path).unwrap();
    assert_eq!(all::<CallRow>(&mut asker, Ask::Calls), []);

    let mut call = client.call(server(), ServiceId(147)).unwrap();
    call.send(b"hello").unwrap();
    let accepted = service.accept().unwrap();
    let until = Instant::now() + LONG;
    let rows = loop {
        let rows: Vec<CallRow> = all(&mut asker, Ask::Calls);
        let told = rows.iter().any(|row| row.role == "service" && row.unread_bytes == Some(5));
        if told && rows.len() == 2 {
            break rows;
        }
        assert!(Instant::now() < until, "{rows:?}");
    };
    let [at_server, at_client] =
        ["server", "client"].map(|name| rows.iter().find(|row| row.engine == name).unwrap());
    assert_eq!((at_client.state.as_str(), at_server.state.as_str()), ("client_send", "service_receive"));
    assert_eq!(
        (at_server.cid, at_server.call, at_server.epoch),
        (at_client.cid, at_client.call, at_client.epoch)
    );
    assert_eq!((at_client.remote.as_str(), at_server.local.as_str()), (SERVER, SERVER));
    assert_eq!((at_client.user_id, at_client.bytes_sent, at_server.bytes_received), (None, 5, 5));
    for row in [at_server, at_client] {
        let refs = row.refs.as_ref().unwrap();
        assert!(refs.contains('S'), "the handle holds it: {refs}");
    }

    accepted.abort(42);
    let until = Instant::now() + LONG;
    loop {
        let rows: Vec<CallRow> = all(&mut asker, Ask::Calls);
        if let [row] = &rows[..]
            && row.completion.as_deref() == Some("remote_abort")
        {
            assert_eq!(
                (row.abort_code, row.engine.as_str(), row.state.as_str()),
                (Some(42), "client", "complete")
            );
            break;
        }
        assert!(Instant::now() < until, "{rows:?}");
    }
    drop((call, service, client));
    let reports = [theirs.shutdown(), ours.shutdown()];
    // The engines are gone, and the socket says so.
    assert_eq!(all::<CallRow>(&mut asker, Ask::Calls), []);
    assert_eq!(asker.snapshot().unwrap().engines, []);
    drop(control);
    for report in reports {
        assert_eq!(report.leaks(), Vec::<String>::new());
    }
}

/// The next line, without its end.
fn line(reader: &mut impl BufRead) -> String {
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    line
}

#[test]
fn nonsense_is_answered_clearly_and_too_much_of_it_ends_the_conversation() {
    let stage = Stage::new("nonsense", None, 2);
    let mut stream = stage.stream();
    let mut answers = BufReader::new(stream.try_clone().unwrap());
    stream.write_all(b"GET / HTTP/1.1\n\n\xff\xfe\n{\"v\":7}\n{\"v\":1,\"ask\":\"hello\"}\n").unwrap();
    for (code, count) in [("bad_request", 3), ("unsupported_version", 1)] {
        for _ in 0..count {
            let answer = line(&mut answers);
            assert!(answer.contains(&format!("\"code\":\"{code}\"")), "{answer}");
        }
    }
    assert!(
        line(&mut answers).contains("\"command\":\"test\""),
        "and a good request is answered all the same"
    );

    // Longer than a request may be, in one piece and in many.
    for piece in [REQUEST_MAX + 100, 100] {
        let mut stream = stage.stream();
        let mut sent = 0;
        while sent <= REQUEST_MAX && stream.write_all(&vec![b'x'; piece]).is_ok() {
            sent += piece;
        }
        let mut answers = BufReader::new(stream);
        let answer = line(&mut answers);
        assert!(answer.contains("\"code\":\"too_long\"") && answer.contains("4096"), "{answer}");
        let end = answers.read(&mut [0]);
        assert!(
            matches!(end, Ok(0)) || matches!(&end, Err(error) if error.kind() == ErrorKind::ConnectionReset)
        );
    }

    // Whoever asks and says that this was all is answered.
    let mut stream = stage.stream();
    stream.write_all(b"{\"v\":1,\"ask\":\"top\"}\n").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut all = String::new();
    stream.read_to_string(&mut all).unwrap();
    assert!(all.starts_with("{\"v\":1,\"answer\":{") && all.ends_with("}\n"), "{all}");
    stage.end();
}

#[test]
fn a_hundred_silent_clients_harm_nobody() {
    let mut stage = Stage::new("silent", Some(500), 2);
    let silent: Vec<_> = (0..100)
        .map(|n| {
            let mut stream = stage.stream();
            // Some have begun a request, some have asked and do not read; none goes on.
            match n % 3 {
                0 => {}
                1 => stream.write_all(b"{\"v\":1,").unwrap(),
                _ => (0..50).for_each(|_| drop(stream.write(b"{\"v\":1,\"ask\":\"metrics\"}\n"))),
            }
            stream
        })
        .collect();
    let web: Vec<_> =
        (0..100).map(|_| TcpStream::connect(stage.control.metrics().unwrap()).unwrap()).collect();
    let began = Instant::now();
    for _ in 0..10 {
        stage.asker().snapshot().unwrap();
        assert!(http(&stage, "GET /metrics HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 200 OK\r\n"));
    }
    assert!(began.elapsed() < Duration::from_secs(10), "{:?} for ten honest clients", began.elapsed());
    stage.load.begin();
    assert!(stage.load.wait_over(LONG), "the load goes on");
    assert_eq!(stage.load.summary().failed, 0);
    drop((silent, web));
    stage.end();
}

/// Calls in `time`.
fn rate(load: &LoadRun, time: Duration) -> u64 {
    let before = load.sum(|figures| &figures.ended);
    std::thread::sleep(time);
    load.sum(|figures| &figures.ended) - before
}

#[test]
fn the_rate_stays_while_somebody_looks() {
    let mut stage = Stage::new("rate", None, 8);
    stage.load.begin();
    let (mut alone, mut watched) = (Vec::new(), Vec::new());
    let window = Duration::from_millis(200);
    for _ in 0..5 {
        alone.push(rate(&stage.load, window));
        let mut asker = stage.asker();
        let looks = std::sync::atomic::AtomicBool::new(true);
        std::thread::scope(|scope| {
            let looking = scope.spawn(|| {
                while looks.load(std::sync::atomic::Ordering::Relaxed) {
                    all::<ConnRow>(&mut asker, Ask::Conns);
                    all::<CallRow>(&mut asker, Ask::Calls);
                    asker.snapshot().unwrap();
                    // A hundred times as often as `rxline top`.
                    std::thread::sleep(Duration::from_millis(10));
                }
            });
            watched.push(rate(&stage.load, window));
            looks.store(false, std::sync::atomic::Ordering::Relaxed);
            looking.join().unwrap();
        });
    }
    alone.sort_unstable();
    watched.sort_unstable();
    println!("calls in {window:?}: {alone:?} alone, {watched:?} watched");
    assert!(alone[2] > 0 && watched[2] * 2 > alone[2], "{alone:?} calls alone, {watched:?} watched");
    stage.load.stop();
    assert!(stage.load.wait_over(LONG));
    stage.end();
}

fn http(stage: &Stage, request: &str) -> String {
    let mut stream = TcpStream::connect(stage.control.metrics().unwrap()).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    response
}

#[test]
fn prometheus_reads_what_is_served() {
    let mut stage = Stage::new("prometheus", Some(50), 2);
    stage.load.begin();
    assert!(stage.load.wait_over(LONG));
    let response = http(&stage, "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("Content-Type: text/plain; version=0.0.4"), "{head}");
    let series = parse(body);
    assert_eq!(series["rxline_rx_calls_begun_total{engine=\"client\",core=\"0\"}"], 50.0);
    assert_eq!(series["rxline_core_drops_total{engine=\"client\",core=\"0\",reason=\"runt\"}"], 0.0);
    assert!(series.keys().any(|name| name.starts_with("rxline_rcu_grace_period_seconds{quantile=\"0.99\"}")));
    assert!(http(&stage, "GET / HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404 "));
    let endless = format!("GET /{}", "x".repeat(REQUEST_MAX - 5));
    assert!(http(&stage, &endless).starts_with("HTTP/1.1 431 "));
    stage.end();
}

/// Reads Prometheus text as strictly as the format is written down: HELP and TYPE once and before the series of a family,
/// the series of a family together, no series twice, names and values well formed.
fn parse(text: &str) -> BTreeMap<String, f64> {
    let (mut series, mut families) = (BTreeMap::new(), BTreeSet::new());
    let mut family: Option<(String, String)> = None;
    let mut helped = None;
    assert!(text.ends_with('\n'));
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, words) = help.split_once(' ').expect(line);
            assert!(!words.is_empty() && families.insert(name.to_string()), "{name} twice");
            helped = Some(name.to_string());
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').expect(line);
            assert_eq!(helped.take().as_deref(), Some(name), "HELP comes before TYPE");
            assert!(["counter", "gauge"].contains(&kind), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            family = Some((name.to_string(), kind.to_string()));
        } else {
            let (name, value) = line.rsplit_once(' ').expect(line);
            let value: f64 = value.parse().expect(line);
            let (base, labels) =
                name.split_once('{').map_or((name, None), |(base, labels)| (base, Some(labels)));
            assert_eq!(Some(base), family.as_ref().map(|family| family.0.as_str()), "{line}");
            assert!(
                base.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
            );
            if let Some(labels) = labels {
                let labels = labels.strip_suffix('}').expect(line);
                for label in labels.split("\",") {
                    let (label, value) = label.split_once("=\"").expect(line);
                    assert!(label.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{line}");
                    assert!(!value.trim_end_matches('"').contains('"'), "{line}");
                }
            }
            assert!(value.is_finite() && value >= 0.0, "{line}");
            assert!(series.insert(name.to_string(), value).is_none(), "{name} twice");
        }
    }
    series
}

#[test]
fn a_capture_shows_every_frame_and_ends_with_its_client() {
    const CALLS: u64 = 500;
    let mut stage = Stage::new("capture", Some(CALLS), 4);
    let mut asker = stage.asker();
    let wish = CaptureWish { engine: Some("server".into()), ..CaptureWish::default() };
    let started = asker.capture(wish.clone()).unwrap();
    assert_eq!((started.cores, &*started.ports), (1, &["memory:capture".to_owned()][..]));
    let before = ledger_of(&mut stage.asker(), "server");
    stage.load.begin();
    assert!(stage.load.wait_over(LONG));
    // Both ends are at rest once nothing more is received.
    let (mut frames, mut received, until) = (Vec::new(), 0, Instant::now() + LONG);
    while received < ledger_of(&mut stage.asker(), "server") - before || received == 0 {
        assert!(Instant::now() < until, "{received} frames came");
        let page = asker.captured().unwrap();
        assert_eq!((page.missed, page.over), (vec![vec![0]], false));
        received += page.frames.iter().filter(|frame| frame.fate != FrameFate::Sent).count() as u64;
        frames.extend(page.frames);
    }
    let port = 7009u16.to_be_bytes();
    let calls =
        frames.iter().filter(|frame| frame.fate == FrameFate::Received && frame.bytes[36..38] == port);
    assert!(calls.count() as u64 >= CALLS, "each call is a packet at the least");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
    let old = now - frames[0].at_ns;
    assert!(old < LONG.as_nanos() as u64, "the first frame is {old} ns old");

    let busy = stage.asker().capture(wish.clone()).unwrap_err().to_string();
    assert!(busy.contains("one at a time"), "{busy}");
    drop(asker);
    let mut next = stage.asker();
    let until = Instant::now() + LONG;
    while next.capture(wish.clone()).is_err() {
        assert!(Instant::now() < until, "the capture outlived its client");
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(next);
    stage.end();
}

/// Frames that an engine has received.
fn ledger_of(asker: &mut Asker, engine: &str) -> u64 {
    let top = asker.snapshot().unwrap();
    let of = top.engines.iter().find(|found| found.engine == engine).unwrap();
    of.cores.iter().map(|core| core.received).sum()
}

#[test]
fn a_capture_that_cannot_be_is_refused_by_name() {
    let stage = Stage::new("capture-no", Some(1), 1);
    let wish = || CaptureWish { engine: Some("client".into()), ..CaptureWish::default() };
    for (wish, names) in [
        (CaptureWish::default(), "there are 2 engines; choose one of server, client"),
        (CaptureWish { engine: Some("x".into()), ..wish() }, "no engine \"x\""),
        (CaptureWish { port: Some("eth0".into()), ..wish() }, "0 or memory:capture-no"),
        (CaptureWish { filter: Some("port".into()), ..wish() }, "a port is missing"),
    ] {
        let error = stage.asker().capture(wish).unwrap_err().to_string();
        assert!(error.contains(names), "{error}");
    }
    let error = stage.asker().captured().unwrap_err().to_string();
    assert!(error.contains("ask for \"capture\" first"), "{error}");
    let mut asker = stage.asker();
    asker.capture(wish()).unwrap();
    // Whom its client leaves without a word is forgotten; here the engine goes first.
    stage.end();
    assert!(asker.captured().is_err());
}
