//! The bodies of CHALLENGE and RESPONSE, and how a RESPONSE is judged.
//!
//! Lengths come before everything else, and nothing is decrypted but the copy that this file makes on the stack.

use super::session::Session;
use super::ticket::{self, Opened};
use super::{INDEX, Level, code};
use crate::RxDrop;
use crate::security::{Identity, ServerKeys};
use crate::wire::Cid;
use zeroize::Zeroizing;

/// The version of the protocol; there was another before packets had checksums.
const VERSION: u32 = 2;
/// Length of a CHALLENGE's body.
pub const CHALLENGE_LEN: usize = 16;
/// A RESPONSE up to its ticket: version and spare, the proof, key number and ticket length.
pub const FIXED_LEN: usize = 56;
const PROOF: std::ops::Range<usize> = 8..48;
/// The sum's place within the proof.
const SUM: std::ops::Range<usize> = 16..20;
/// The longest ticket, as in OpenAFS: tickets of Active Directory bring along whom their owner belongs to.
pub const TICKET_MAX: usize = 12_000;
/// The shortest: OpenAFS's least for tickets of its own kind.
const TICKET_MIN: usize = 32;

/// The body of a CHALLENGE.
pub fn challenge(nonce: u32, min_level: Level) -> [u8; CHALLENGE_LEN] {
    let mut body = [0; CHALLENGE_LEN];
    for (to, word) in body.as_chunks_mut::<4>().0.iter_mut().zip([VERSION, nonce, min_level as u32]) {
        *to = word.to_be_bytes();
    }
    body
}

/// A client reads a CHALLENGE: its nonce, and the least level that the server takes. Too short or of another version, it is thrown
/// away: an answer would give something to whoever sent it.
pub fn read_challenge(body: &[u8]) -> Result<(u32, u32), RxDrop> {
    let words = body.first_chunk::<CHALLENGE_LEN>().ok_or(RxDrop::BadChallenge)?;
    match word(words, 0) {
        VERSION => Ok((word(words, 4), word(words, 8))),
        _ => Err(RxDrop::BadChallenge),
    }
}

/// Where a RESPONSE belongs: its connection, and the numbers of the calls on its channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub epoch: u32,
    pub cid: Cid,
    pub calls: [u32; 4],
}

/// Makes a RESPONSE up to its ticket.
pub fn respond(
    session: &Session,
    place: &Place,
    nonce: u32,
    kvno: u32,
    ticket_len: usize,
) -> [u8; FIXED_LEN] {
    let [a, b, c, d] = place.calls;
    let proof = [place.epoch, place.cid.connection().0, 0, u32::from(INDEX), a, b, c, d];
    let rest = [nonce.wrapping_add(1), session.level() as u32, kvno, ticket_len as u32];
    let words = [VERSION, 0].into_iter().chain(proof).chain(rest);
    let mut body = [0; FIXED_LEN];
    for (to, word) in body.as_chunks_mut::<4>().0.iter_mut().zip(words) {
        *to = word.to_be_bytes();
    }
    let sum = sum(&body);
    body[SUM].copy_from_slice(&sum.to_be_bytes());
    session.seal_proof(&mut body[PROOF]);
    body
}

/// Why a RESPONSE was refused: what it counts as, and what the client is told if it is worth it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    pub reason: RxDrop,
    /// The connection ends with this code. `None`: somebody sent nonsense, and the client may still answer.
    pub code: Option<i32>,
}

impl Refused {
    const fn quietly(reason: RxDrop) -> Self {
        Self { reason, code: None }
    }

    const fn with(reason: RxDrop, code: i32) -> Self {
        Self { reason, code: Some(code) }
    }
}

/// What a RESPONSE proved.
#[derive(Debug)]
pub struct Proved {
    pub session: Session,
    pub identity: Identity,
    /// The client's call numbers, none below those in `Place`.
    pub calls: [u32; 4],
}

/// Judges a RESPONSE. `place.calls` are the numbers known here. `unix`: the time of day in seconds, if known.
pub fn judge(
    response: &[u8],
    place: &Place,
    nonce: u32,
    min_level: Level,
    keys: &ServerKeys,
    unix: Option<u64>,
) -> Result<Proved, Refused> {
    let (fixed, ticket) = split(response)?;
    let mut secret = Zeroizing::new([0; TICKET_MAX]);
    let secret = &mut secret[..ticket.len()];
    secret.copy_from_slice(ticket);
    let refused = |code| Refused::with(RxDrop::ResponseRefused, code);
    let Opened { session_key, identity } =
        ticket::open(keys, word(fixed, 48), secret, unix).map_err(refused)?;
    // The level is within the proof, so the proof is opened before the level is known.
    let mut fixed = Zeroizing::new(*fixed);
    let mut session = Session::new(&session_key, Level::Clear, place.epoch, place.cid);
    session.open_proof(&mut fixed[PROOF]);
    let calls = check_proof(&fixed, place, nonce)?;
    let level = Level::from_u32(word(&*fixed, 44)).filter(|&level| level >= min_level);
    let level = level.ok_or_else(|| refused(code::LEVEL_FAIL))?;
    session.set_level(level);
    Ok(Proved { session, identity: Identity { level, ..identity }, calls })
}

/// Lengths, before anything else is looked at.
fn split(response: &[u8]) -> Result<(&[u8; FIXED_LEN], &[u8]), Refused> {
    let short = Refused::quietly(RxDrop::ResponseShort);
    let (fixed, rest) = response.split_first_chunk::<FIXED_LEN>().ok_or(short)?;
    if word(fixed, 0) != VERSION {
        return Err(Refused::with(RxDrop::ResponseRefused, code::INCONSISTENCY));
    }
    let len = word(fixed, 52) as usize;
    if len > TICKET_MAX {
        return Err(Refused::with(RxDrop::ResponseLong, code::TICKET_LEN));
    }
    if len < TICKET_MIN {
        return Err(Refused::with(RxDrop::ResponseShort, code::TICKET_LEN));
    }
    // OpenAFS pads what it sends; what lies behind the ticket means nothing.
    rest.get(..len).map(|ticket| (fixed, ticket)).ok_or(short)
}

/// Whether the proof is whole, and of this connection and CHALLENGE. Returns the client's call numbers.
fn check_proof(fixed: &[u8; FIXED_LEN], place: &Place, nonce: u32) -> Result<[u32; 4], Refused> {
    let mut unsummed = Zeroizing::new(*fixed);
    unsummed[SUM].fill(0);
    if sum(&unsummed) != word(fixed, SUM.start) {
        return Err(Refused::with(RxDrop::ResponseRefused, code::SEALED_INCONSISTENT));
    }
    let replayed = |code| Refused::with(RxDrop::ResponseReplayed, code);
    let whose = [word(fixed, 8), word(fixed, 12), word(fixed, 20)];
    if whose != [place.epoch, place.cid.connection().0, u32::from(INDEX)] {
        return Err(replayed(code::SEALED_INCONSISTENT));
    }
    if word(fixed, 40) != nonce.wrapping_add(1) {
        return Err(replayed(code::OUT_OF_SEQUENCE));
    }
    let calls = [24, 28, 32, 36].map(|at| word(fixed, at));
    let known = calls.iter().zip(place.calls);
    if known.clone().any(|(&call, here)| call > i32::MAX as u32 || call < here) {
        return Err(replayed(code::SEALED_INCONSISTENT));
    }
    Ok(calls)
}

/// The sum over a RESPONSE up to its ticket, with the sum itself zero and the proof in the clear.
fn sum(fixed: &[u8; FIXED_LEN]) -> u32 {
    fixed
        .iter()
        .fold(1_000_003, |sum: u32, &byte| sum.wrapping_mul(0x1020_4081).wrapping_add(u32::from(byte)))
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
