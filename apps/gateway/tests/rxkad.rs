//! The gateway with keys, on real engines, over `memory:` wires: clients prove who they are to it, and it does to backends.

#[allow(dead_code, reason = "the other tests use more of it")]
mod common;

use std::path::{Path, PathBuf};

use common::{Net, SERVICE, config_text, gateway_address, parse};
use gateway::Gateway;
use rxrpc::security::{DesKey, rxkad_code};
use rxrpc::socket::{CallFailed, ServedCall};
use rxrpc::{Credentials, Level, Security, ServerKeys, Token};

/// What clients know, and what the backends do.
const FRONT: (u8, [u8; 8]) = (4, *b"\x80\xb6\xa7\xcd\x7a\x9d\xad\xb6");
const BACK: (u8, [u8; 8]) = (9, *b"otherkey");
const LEVELS: [Level; 3] = [Level::Clear, Level::Auth, Level::Encrypt];

fn keys((kvno, key): (u8, [u8; 8])) -> ServerKeys {
    ServerKeys::new().with_des(kvno.into(), DesKey::new(key).expect("a good key"))
}

/// A KeyFile, as `asetkey` writes it.
fn key_file(name: &str, (kvno, key): (u8, [u8; 8])) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{kvno}.KeyFile"));
    std::fs::write(&path, [&[0, 0, 0, 1, 0, 0, 0, kvno][..], &key].concat()).expect("written");
    path
}

/// A gateway whose listener and pool have these security sections, each with a KeyFile of its own, in front of backends that take calls
/// with proof at level encrypt, and calls without any.
fn start(name: &str, listener: &str, pool: &str) -> Net {
    let sections = format!(
        "[pool.security]\nkeyfile = {:?}\n{pool}\n[[listener]]",
        key_file(name, BACK).display().to_string()
    );
    let text = config_text(name, "", "", "terminate").replace("[[listener]]", &sections);
    let sections = format!(
        "[listener.security]\nkeyfile = {:?}\n{listener}\n[[listener.service]]",
        key_file(name, FRONT).display().to_string()
    );
    let mut net = Net::start_as(name, parse(name, &text.replace("[[listener.service]]", &sections)));
    for server in 0..2 {
        net.serve_as(server, Security::rxkad(keys(BACK)).at_least(Level::Encrypt).or_none(), tell_who);
    }
    net.wait_for("the backends are probed", |stats| stats.backends.iter().all(|backend| backend.alive));
    net
}

/// Who called, and the request backwards.
fn tell_who(call: &mut ServedCall<'_, '_>) {
    let who = call.identity().map_or("nobody".into(), |who| format!("{who} {} {}", who.kvno, who.level));
    call.answer(|request| {
        [who.as_bytes(), b"\n"].into_iter().flatten().chain(request.iter().rev()).copied().collect()
    });
}

fn forged(name: &str, level: Level) -> Credentials {
    Credentials::rxkad(Token::forge_for(&keys(FRONT), name, "").expect("a ticket"), level)
}

/// Calls as somebody, or as nobody; who the backend thinks it was.
fn call_as(net: &Net, who: Option<Credentials>, bytes: usize) -> Result<String, CallFailed> {
    let client = net.client_engine.rx().client().expect("a client");
    let client = who.into_iter().fold(client, rxrpc::Client::credentials);
    let request: Vec<u8> = (0..bytes).map(|at| ((at * 31) ^ (at >> 8)) as u8).collect();
    let reply = client.request(gateway_address(), SERVICE, &request)?;
    let line = reply.iter().position(|byte| *byte == b'\n').expect("who, then what");
    assert!(reply[line + 1..].iter().eq(request.iter().rev()), "other bytes");
    Ok(String::from_utf8(reply[..line].to_vec()).expect("text"))
}

#[test]
fn who_is_admitted_goes_on_as_the_gateway() {
    let net = start("rxkad-on", "level = \"clear\"\nusers = [\"afs\", \"admin\"]", "level = \"encrypt\"");
    for level in LEVELS {
        for (name, bytes) in [("afs", 0), ("admin", 10), ("afs", 1_400), ("admin", 300_000)] {
            let seen = call_as(&net, Some(forged(name, level)), bytes).expect("a reply");
            assert_eq!(seen, "afs 9 encrypt", "{name} at level {level}");
        }
    }
    let stranger = call_as(&net, Some(forged("stranger", Level::Encrypt)), 10).expect_err("refused");
    assert_eq!(stranger.abort_code(), Some(rxkad_code::NO_AUTH), "{stranger}");
    let calls = net.finish().stats.calls;
    assert_eq!(
        (calls.accepted, calls.succeeded + calls.client_left, calls.refused_user),
        (13, 12, 1),
        "{calls:?}"
    );
}

#[test]
fn who_proves_nothing_or_too_little_never_reaches_a_backend() {
    let net = start("rxkad-no", "level = \"auth\"", "level = \"encrypt\"");
    call_as(&net, None, 10).expect_err("no proof");
    let below = call_as(&net, Some(forged("afs", Level::Clear)), 10).expect_err("too little");
    assert_eq!(below.abort_code(), Some(rxkad_code::LEVEL_FAIL), "{below}");
    let other = Credentials::local(&keys(BACK), Level::Encrypt).expect("a ticket");
    let other = call_as(&net, Some(other), 10).expect_err("another key");
    assert_eq!(other.abort_code(), Some(rxkad_code::UNKNOWN_KEY), "{other}");
    assert_eq!(net.gateway.stats().calls.accepted, 0);
    assert_eq!(call_as(&net, Some(forged("afs", Level::Auth)), 10).expect("a reply"), "afs 9 encrypt");
    let stats = net.finish().stats;
    let begun: u64 = stats.backends.iter().map(|backend| backend.succeeded + backend.aborted).sum();
    assert_eq!(begun, 1, "{}", stats.backend_table());
}

#[test]
fn who_may_be_anonymous_goes_on_as_nobody() {
    let net = start("rxkad-anon", "level = \"clear\"\nanonymous = true", "level = \"encrypt\"");
    for _ in 0..3 {
        assert_eq!(call_as(&net, None, 5_000).expect("a reply"), "nobody");
        assert_eq!(call_as(&net, Some(forged("afs", Level::Auth)), 5_000).expect("a reply"), "afs 9 encrypt");
    }
    net.finish();
}

#[test]
fn a_backend_that_does_not_take_the_gateways_proof_counts_as_failing() {
    let mut net = start("rxkad-bad", "level = \"clear\"", "level = \"clear\"");
    // First they want more than the pool's level, then they have another key.
    for security in [None, Some(Security::rxkad(keys(FRONT)))] {
        if let Some(security) = security {
            (0..2).for_each(|server| net.serve_as(server, security.clone(), tell_who));
        }
        // It is about the gateway's ticket, and the client's is as good as before: it may try elsewhere.
        let failed = call_as(&net, Some(forged("afs", Level::Clear)), 10).expect_err("not taken");
        assert_eq!(failed.abort_code(), Some(rxrpc::code::RESTARTING), "{failed}");
    }
    let stats = net.finish().stats;
    assert_eq!((stats.calls.proof_refused, stats.calls.backend_failed), (2, 0), "{:?}", stats.calls);
    let failed: u64 = stats.backends.iter().map(|backend| backend.failed).sum();
    assert_eq!(failed, 2, "{}", stats.backend_table());
}

#[test]
fn a_gateway_without_its_keys_does_not_start() {
    let name = "rxkad-missing";
    let section =
        "[listener.security]\nkeytab = \"/nowhere/afs.keytab\"\nlevel = \"auth\"\n[[listener.service]]";
    let text = config_text(name, "", "", "terminate").replace("[[listener.service]]", section);
    let error = Gateway::start(parse(name, &text), Vec::new()).err().expect("it does not start").to_string();
    assert_eq!(
        error,
        "listener 192.0.2.10:7009: /nowhere/afs.keytab: No such file or directory (os error 2)"
    );
}

/// Views and figures are made of other types; what is left is what a program could print by mistake.
#[test]
fn keys_are_not_printed() {
    let name = "rxkad-debug";
    let file = key_file(name, FRONT).display().to_string();
    let section = format!("[listener.security]\nkeyfile = {file:?}\nlevel = \"auth\"\n[[listener.service]]");
    let config =
        parse(name, &config_text(name, "", "", "terminate").replace("[[listener.service]]", &section));
    let secrets = gateway::secrets::Secrets::load(&config).expect("keys");
    let text = format!("{secrets:?} {config:?}").to_lowercase();
    assert!(text.contains("keyfile"), "{text}");
    for told in ["80b6a7", "80, b6", "128, 182", "0x80"] {
        assert!(!text.contains(told), "{text}");
    }
}
