//! The checks under rxkad. The guest's client seals its tickets with its kernel's DES, ours with the rxrpc crate's.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use super::checks::{SIZE_ABORT, must_fail};
use super::place::{Family, Place, SERVICE, Served, Serving, UPGRADED, Work, report};
use crate::fault::{Context, Fault, Result, ensure};
use crate::rxperf::Report;
use crate::step::Cx;
use crate::tshark::{Captured, sent};

/// The service's DES key, number 4, and one that is not the service's.
const KEY: [u8; 8] = [0x80, 0xb6, 0xa7, 0xcd, 0x7a, 0x9d, 0xad, 0xb6];
const OTHER_KEY: [u8; 8] = [0x3b, 0xe5, 0x2a, 0x10, 0xc8, 0x97, 0x4f, 0xd6];
const KVNO: u32 = 4;

/// Abort codes (OpenAFS src/rxkad/rxkad_errs.et; the last one is RX_INVALID_OPERATION).
const LEVEL_FAIL: i64 = 19_270_402;
const BAD_TICKET: i64 = 19_270_407;
const UNKNOWN_KEY: i64 = 19_270_408;
const EXPIRED: i64 = 19_270_409;
const INVALID_OPERATION: i64 = -2;

/// rxkad's levels; the numbers are the wire's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Clear,
    Auth,
    Encrypt,
}

impl Level {
    const ALL: [Level; 3] = [Level::Clear, Level::Auth, Level::Encrypt];

    fn class(self) -> &'static str {
        match self {
            Level::Clear => "rxkad:clear",
            Level::Auth => "rxkad:auth",
            Level::Encrypt => "rxkad:encrypt",
        }
    }

    /// The most that a packet holds, less the 24 bytes that begin a request. What is sealed is a multiple of eight and has a header of
    /// four bytes, or of eight.
    fn one_packet(self) -> usize {
        let payload = match self {
            Level::Clear => 1412,
            Level::Auth => 1408 - 4,
            Level::Encrypt => 1408 - 8,
        };
        payload - 24
    }
}

/// Calls by the level at which their first packets have to be on the wire.
pub type Sealed = BTreeMap<Level, usize>;

/// Key files for our side.
pub struct Keys {
    service: String,
    other: String,
}

impl Keys {
    /// Writes them, as OpenAFS's asetkey does: count, number, key.
    pub fn write(cx: &Cx<'_>) -> Result<Keys> {
        let write = |name: &str, key: [u8; 8]| {
            let path: PathBuf = cx.dir.join(name);
            let bytes = [&1_u32.to_be_bytes()[..], &KVNO.to_be_bytes(), &key].concat();
            fs::write(&path, bytes).context(|| format!("write {}", path.display()))?;
            Ok(path.to_string_lossy().into_owned())
        };
        Ok(Keys { service: write("KeyFile", KEY)?, other: write("KeyFile.other", OTHER_KEY)? })
    }
}

/// How servers are started.
pub fn servers(keys: &Keys) -> [Serving; 2] {
    let serving = |least: Level, upgrades| Serving {
        ours: security(least, &keys.service).map(String::from).to_vec(),
        guests: environment(&KEY),
        upgrades,
    };
    [serving(Level::Clear, false), serving(Level::Encrypt, true)]
}

/// Arguments of ours.
fn security(level: Level, keyfile: &str) -> [&str; 4] {
    ["--security", level.class(), "--keyfile", keyfile]
}

/// What the guest's programs learn of a key.
fn environment(key: &[u8; 8]) -> String {
    let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("RXKAD_KEY={hex}")
}

/// What its client learns.
fn proof(key: &[u8; 8], level: Level) -> String {
    format!("{} RXKAD_LEVEL={}", environment(key), level as u8)
}

/// Both ways at each level, from less than a packet to many; encrypted over IPv6 too. Every byte arrives, of requests and of replies.
pub fn every_level(cx: &Cx<'_>, place: &mut Place<'_>, keys: &Keys, sealed: &mut Sealed) -> Result {
    for level in Level::ALL {
        for (bytes, calls) in [(1, 8), (level.one_packet(), 4), (level.one_packet() + 1, 4), (10_000_000, 1)]
        {
            both_ways(cx, place, keys, sealed, (Family::V4, level), (bytes, calls))?;
        }
    }
    both_ways(cx, place, keys, sealed, (Family::V6, Level::Encrypt), (100_000, 2))
}

fn both_ways(
    cx: &Cx<'_>,
    place: &mut Place<'_>,
    keys: &Keys,
    sealed: &mut Sealed,
    (family, level): (Family, Level),
    (bytes, calls): (usize, usize),
) -> Result {
    let env = proof(&KEY, level);
    let told = place.call_from_guest(family, Work { env: &env, ..Work::calls(calls, bytes) })?;
    let well = told.verified == calls as u64 && told.failed == 0 && told.service == SERVICE;
    ensure!(well, "{calls} calls of {bytes} bytes from the guest, {family:?}, {level:?}: {told:?}");

    let report = to_guest(cx, place, &keys.service, (family, level), (bytes, calls))?;
    let well = report.verified == calls as u64 && report.failed == 0;
    ensure!(well, "{calls} calls of {bytes} bytes to the guest, {family:?}, {level:?}: {report:?}");
    *sealed.entry(level).or_default() += 2 * calls;
    Ok(())
}

fn to_guest(
    cx: &Cx<'_>,
    place: &Place<'_>,
    keyfile: &str,
    (family, level): (Family, Level),
    (bytes, calls): (usize, usize),
) -> Result<Report> {
    let count = calls.to_string();
    let security = security(level, keyfile);
    let arguments = [&["--calls", &count, "--in-flight", "2"][..], &security].concat();
    report(cx, &place.to_guest(family, (bytes, bytes), &arguments))
}

/// The guest's client asks for another service on a connection that it proves itself on.
pub fn upgrades(place: &mut Place<'_>, sealed: &mut Sealed) -> Result {
    const CALLS: usize = 4;
    let env = proof(&KEY, Level::Encrypt);
    for bytes in [100, 50_000] {
        let work = Work { mode: "upgrade", env: &env, ..Work::calls(CALLS, bytes) };
        let told = place.call_from_guest(Family::V6, work)?;
        let well = told.verified == CALLS as u64 && told.failed == 0 && told.service == UPGRADED;
        ensure!(well, "calls of {bytes} bytes from the guest that ask for an upgrade: {told:?}");
        *sealed.entry(Level::Encrypt).or_default() += CALLS;
    }
    Ok(())
}

/// What services say of calls crosses as it does without proof.
pub fn aborts(cx: &Cx<'_>, place: &mut Place<'_>, keys: &Keys, sealed: &mut Sealed) -> Result {
    for level in Level::ALL {
        let env = proof(&KEY, level);
        let told =
            place.call_from_guest(Family::V4, Work { mode: "badop", env: &env, ..Work::calls(1, 100) })?;
        ensure!(told.end == "abort -455", "{level:?}: our server's refusal reached the guest as {told:?}");
        place.expect_abort(-455);
        let report = to_guest(cx, place, &keys.service, (Family::V4, level), (SIZE_ABORT, 1))?;
        must_fail(&report, &format!("aborted by the peer with {SIZE_ABORT}"))?;
        place.expect_abort(SIZE_ABORT as i64);
        *sealed.entry(level).or_default() += 2;
    }
    Ok(())
}

/// Tickets under a key that is not the service's, under a number that it does not have, and from the day before yesterday; levels below
/// our least, which the guest's kernel gives up itself when it reads the CHALLENGE; no proof at all. Then one that is right.
pub fn proofs_that_we_refuse(place: &mut Place<'_>, sealed: &mut Sealed) -> Result {
    let right = proof(&KEY, Level::Encrypt);
    for (what, family, env, level, code) in [
        ("another key", Family::V4, proof(&OTHER_KEY, Level::Auth), Some(Level::Auth), BAD_TICKET),
        ("another number", Family::V4, format!("{right} RXKAD_KVNO=9"), Some(Level::Encrypt), UNKNOWN_KEY),
        ("an old ticket", Family::V4, format!("{right} RXKAD_AGE=172800"), Some(Level::Encrypt), EXPIRED),
        ("level clear", Family::V6, proof(&KEY, Level::Clear), Some(Level::Clear), LEVEL_FAIL),
        ("level auth", Family::V6, proof(&KEY, Level::Auth), Some(Level::Auth), LEVEL_FAIL),
        ("no proof", Family::V4, String::new(), None, INVALID_OPERATION),
    ] {
        let told = place.call_from_guest(family, Work { env: &env, ..Work::calls(1, 100) })?;
        ensure!(told.end == format!("abort {code}"), "a call with {what} ended so in the guest: {told:?}");
        // What the guest gives up itself it need not say on the wire: nobody but us could wait for it.
        if code == LEVEL_FAIL {
            place.allow_abort(code)
        } else {
            place.expect_abort(code)
        }
        if let Some(level) = level {
            *sealed.entry(level).or_default() += 1;
        }
    }
    for family in Family::BOTH {
        let told = place.call_from_guest(family, Work { env: &right, ..Work::calls(1, 100) })?;
        ensure!(told.verified == 1, "a call with the right proof after those with wrong ones: {told:?}");
        *sealed.entry(Level::Encrypt).or_default() += 1;
    }
    Ok(())
}

/// A ticket under another key; then any, where the service has no key. Its kernel asks for no level: Linux's servers take them all.
pub fn proofs_that_the_guest_refuses(
    cx: &Cx<'_>,
    place: &mut Place<'_>,
    keys: &Keys,
    sealed: &mut Sealed,
) -> Result {
    let encrypted = (Family::V4, Level::Encrypt);
    let refused = to_guest(cx, place, &keys.other, encrypted, (100, 1))?;
    must_fail(&refused, &format!("aborted by the peer with {BAD_TICKET} (RXKADBADTICKET)"))?;
    place.expect_abort(BAD_TICKET);

    place.kill_guests_server(Family::V4)?;
    let guests = std::mem::take(&mut place.serving[Family::V4 as usize].guests);
    place.guest_serves(cx, Family::V4)?;
    let refused = to_guest(cx, place, &keys.service, encrypted, (100, 1))?;
    must_fail(&refused, &format!("aborted by the peer with {INVALID_OPERATION} (RX_INVALID_OPERATION)"))?;
    place.expect_abort(INVALID_OPERATION);

    place.kill_guests_server(Family::V4)?;
    place.serving[Family::V4 as usize].guests = guests;
    place.guest_serves(cx, Family::V4)?;
    let right = to_guest(cx, place, &keys.service, encrypted, (100, 1))?;
    ensure!(right.verified == 1, "a call with the right proof after those with wrong ones: {right:?}");
    *sealed.entry(Level::Encrypt).or_default() += 3;
    Ok(())
}

/// Our servers know what they refused.
pub fn refusals_were_counted(served: &[Served; 2]) -> Result {
    for (family, name, count) in [
        (Family::V4, "rx_response_refused", 3),
        (Family::V4, "rx_unknown_security", 1),
        (Family::V6, "rx_response_refused", 0),
    ] {
        let counted = served[family as usize].drops.get(name).copied().unwrap_or(0);
        ensure!(counted == count, "{family:?}: {name} is {counted} instead of {count}: {served:?}");
    }
    Ok(())
}

/// Both kinds of servers asked who calls and were told, and the first packet of each call can be read as far as its level says: all of it,
/// all but its first eight bytes, or nothing.
pub fn levels_on_the_wire(cx: &Cx<'_>, captured: &Captured, sealed: &Sealed) -> Result {
    for (what, filter) in [("CHALLENGE", "rx.type == 6"), ("RESPONSE", "rx.type == 7")] {
        let senders = captured.fields(cx, &sent(filter), &["eth.src"])?;
        let count = senders.len();
        let senders: BTreeSet<_> = senders.into_iter().flatten().collect();
        cx.log.line(format!("{count} {what} packets from {senders:?}"));
        ensure!(
            senders.len() >= 3,
            "{what} packets were sent by {senders:?} only: not by the guest, or not by both of ours"
        );
    }
    let first = sent("rx.type == 1 && rx.seq == 1 && rx.flags.client_init == 1 && rx.securityindex == 2");
    let names = ["udp.payload", "rx.epoch", "rx.cid", "rx.callnumber"];
    let mut calls = BTreeMap::new();
    for row in captured.fields(cx, &first, &names)? {
        calls.insert(row[1..].to_vec(), level_of(&row[0])?);
    }
    let mut seen = Sealed::new();
    calls.into_values().for_each(|level| *seen.entry(level).or_default() += 1);
    cx.log.line(format!("calls by what can be read of them: {seen:?}"));
    ensure!(seen == *sealed, "calls by what can be read of them: {seen:?}, and by their levels: {sealed:?}");
    Ok(())
}

/// By a request's first packet, in hexadecimal digits: Rx's header, rxkad's, and rxperf's, in which version 3 comes first and two buffer
/// sizes, third and fourth, are the same in all of a client's calls.
fn level_of(packet: &str) -> Result<Level> {
    let word = |at: usize| packet.get(2 * at..2 * at + 8);
    let head = |at| Some((word(at)?, word(at + 8)?, word(at + 12)?));
    let (Some(clear), Some(auth)) = (head(28), head(32)) else {
        return Err(Fault::Check(format!("no request begins so: {packet}")));
    };
    let same = |(_, read, write): (&str, &str, &str)| read == write && read.starts_with("000");
    Ok(match () {
        () if clear.0 == "00000003" && same(clear) => Level::Clear,
        () if auth.0 != "00000003" && same(auth) => Level::Auth,
        () => Level::Encrypt,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_read_from_what_can_be_read() {
        let request = "0000000300000003000800000008000000000001";
        let header = "00".repeat(28);
        assert_eq!(level_of(&format!("{header}{request}")).unwrap(), Level::Clear);
        let sealed = format!("{header}c2d4a9b1f50e7766{}", &request[8..]);
        assert_eq!(level_of(&sealed).unwrap(), Level::Auth);
        assert_eq!(level_of(&format!("{header}{}", "c2d4a9b1f50e7766".repeat(5))).unwrap(), Level::Encrypt);
        assert!(level_of(&header).is_err());
    }
}
