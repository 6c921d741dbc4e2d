//! Tickets: what a server opens with its key to learn who a client is, and the session key that both then share.
//!
//! This file has the tickets of Kerberos 4's form, which only somebody with the server's key can still make (`-localauth`), and tells
//! them from those of Kerberos 5.

use super::fcrypt::BLOCK;
use super::{DesKey, Level, code, ticket5};
use crate::security::{Identity, KeyError, ServerKeys};
use zeroize::Zeroizing;

/// The key number that says: the ticket is all of a Kerberos 5 ticket.
pub const KVNO_KRB5: u32 = 256;
/// The ticket is the encrypted part of one.
pub const KVNO_KRB5_ENCPART: u32 = 213;
/// The longest ticket of Kerberos 4's form.
const CLASSIC_MAX: usize = 344;
/// Names in such tickets are shorter than this.
const NAME_MAX: usize = 64;
/// Clocks may differ by so many seconds (OpenAFS's KTC_TIME_UNCERTAINTY).
pub const SKEW: u64 = 15 * 60;
/// A lifetime without an end.
const FOREVER: u8 = 0xff;

/// What a ticket says.
#[derive(Debug)]
pub struct Opened {
    pub session_key: DesKey,
    /// Its level is not the ticket's to say.
    pub identity: Identity,
}

/// Opens a ticket, in place. `unix`: the time of day in seconds; without it, only tickets without an end are good. The error is an
/// abort code.
pub fn open(keys: &ServerKeys, kvno: u32, ticket: &mut [u8], unix: Option<u64>) -> Result<Opened, i32> {
    let opened = match kvno {
        KVNO_KRB5 | KVNO_KRB5_ENCPART => ticket5::open(keys, kvno, ticket)?,
        _ => {
            let key = keys.des(kvno).ok_or(code::UNKNOWN_KEY)?;
            if ticket.len() > CLASSIC_MAX || !ticket.len().is_multiple_of(BLOCK) {
                return Err(code::TICKET_LEN);
            }
            key.pcbc_decrypt(ticket);
            classic(ticket, kvno).ok_or(code::BAD_TICKET)?
        }
    };
    check_times(&opened.identity, unix)?;
    Ok(opened)
}

fn check_times(identity: &Identity, unix: Option<u64>) -> Result<(), i32> {
    let Some(now) = unix else {
        return if identity.expires.is_none() { Ok(()) } else { Err(code::NO_AUTH) };
    };
    if identity.starts > now + SKEW {
        return Err(code::NO_AUTH);
    }
    if identity.expires.is_some_and(|end| end + SKEW < now) { Err(code::EXPIRED) } else { Ok(()) }
}

/// Reads a decrypted ticket of Kerberos 4's form. `None`: it is none, or another key sealed it.
fn classic(ticket: &[u8], kvno: u32) -> Option<Opened> {
    let (&flags, rest) = ticket.split_first()?;
    let little_endian = flags & 1 != 0;
    let (name, rest) = string(rest)?;
    let (instance, rest) = string(rest)?;
    let (cell, rest) = string(rest)?;
    let (_address, rest) = rest.split_first_chunk::<4>()?;
    let (session_key, rest) = rest.split_first_chunk::<BLOCK>()?;
    let (&life, rest) = rest.split_first()?;
    let (issued, rest) = rest.split_first_chunk::<4>()?;
    let (server, rest) = string(rest)?;
    let (_server_instance, rest) = string(rest)?;
    // What is left is padding. Old servers of this form made every ticket 56 bytes long.
    if rest.len() >= BLOCK && ticket.len() != 56 || name.is_empty() || server.is_empty() {
        return None;
    }
    let issued = if little_endian { u32::from_le_bytes(*issued) } else { u32::from_be_bytes(*issued) };
    let starts = u64::from(issued);
    let expires = (life != FOREVER).then(|| starts + lifetime(life));
    Some(Opened {
        session_key: DesKey::new(*session_key).ok()?,
        identity: Identity { name, instance, cell, kvno, level: Level::Clear, starts, expires },
    })
}

/// A string up to its NUL: printable, and not too long.
fn string(bytes: &[u8]) -> Option<(String, &[u8])> {
    let len = bytes.iter().take(NAME_MAX).position(|&byte| byte == 0)?;
    let text = std::str::from_utf8(&bytes[..len]).ok().filter(|text| !text.contains(char::is_control))?;
    Some((text.to_owned(), &bytes[len + 1..]))
}

/// Seconds of a Kerberos 4 lifetime: units of five minutes up to 127, then 64 steps of a geometric series up to 30 days.
fn lifetime(life: u8) -> u64 {
    const FIRST: f64 = 38_400.0;
    const LONGEST: f64 = 2_592_000.0;
    match life {
        0..0x80 => u64::from(life) * 5 * 60,
        0x80..=0xbf => {
            let step = f64::from(life - 0x80) / 63.0;
            (FIRST * (LONGEST / FIRST).powf(step)).round() as u64
        }
        0xc0.. => LONGEST as u64,
    }
}

/// Makes a ticket without an end in Kerberos 4's form, as `-localauth` does, for a client of this name. `issued`: since when it is good,
/// in Unix seconds. Linux knows no ticket without an end: for its servers this one ends 21 hours and a quarter later.
pub fn forge(
    key: &DesKey,
    session_key: &DesKey,
    name: &str,
    instance: &str,
    issued: u32,
) -> Result<Vec<u8>, KeyError> {
    let bad = |text: &str| text.len() >= NAME_MAX || text.contains(char::is_control);
    if name.is_empty() || bad(name) || bad(instance) {
        return Err(KeyError::Name { name: name.into(), instance: instance.into() });
    }
    let mut ticket = Zeroizing::new(Vec::with_capacity(CLASSIC_MAX));
    ticket.push(0);
    for text in [name, instance, ""] {
        ticket.extend(text.bytes());
        ticket.push(0);
    }
    ticket.extend([0; 4]);
    ticket.extend(session_key.bytes());
    ticket.push(FOREVER);
    ticket.extend(issued.to_be_bytes());
    ticket.extend(b"afs\0\0");
    let len = ticket.len().next_multiple_of(BLOCK);
    ticket.resize(len, 0);
    key.pcbc_encrypt(&mut ticket);
    Ok(ticket.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_are_those_of_the_kerberos_4_table() {
        let table = [
            (0x80, 38_400),
            (0x81, 41_055),
            (0x82, 43_894),
            (0x85, 53_643),
            (0x9f, 305_116),
            (0xbf, 2_592_000),
        ];
        for (life, seconds) in table {
            assert_eq!(lifetime(life), seconds, "{life:x}");
        }
        assert_eq!((lifetime(1), lifetime(127), lifetime(0xc0)), (300, 38_100, 2_592_000));
    }

    #[test]
    fn a_forged_ticket_opens_with_its_key_and_with_no_other() {
        let (key, session) = (DesKey::new(*b"serverky").unwrap(), DesKey::random().unwrap());
        let keys = ServerKeys::new().with_des(4, key.clone());
        let ticket = forge(&key, &session, "afs", "", 1_800_000_000).unwrap();
        let opened = open(&keys, 4, &mut ticket.clone(), None).unwrap();
        assert_eq!(opened.session_key, session);
        let Identity { name, starts, expires, .. } = opened.identity;
        assert_eq!((&*name, starts, expires), ("afs", 1_800_000_000, None));
        assert_eq!(open(&keys, 5, &mut ticket.clone(), None).unwrap_err(), code::UNKNOWN_KEY);
        let others = ServerKeys::new().with_des(4, DesKey::new(*b"otherkey").unwrap());
        assert_eq!(open(&others, 4, &mut ticket.clone(), None).unwrap_err(), code::BAD_TICKET);
        assert_eq!(open(&keys, 4, &mut ticket[..31].to_vec(), None).unwrap_err(), code::TICKET_LEN);
    }

    #[test]
    fn tickets_are_good_in_their_time_only() {
        let identity = |starts, expires| Identity { starts, expires, ..Identity::default() };
        const NOW: u64 = 1_800_000_000;
        assert_eq!(check_times(&identity(NOW - 1, Some(NOW + 1)), Some(NOW)), Ok(()));
        assert_eq!(check_times(&identity(NOW + SKEW, Some(NOW + 9_999)), Some(NOW)), Ok(()));
        assert_eq!(check_times(&identity(NOW + SKEW + 1, None), Some(NOW)), Err(code::NO_AUTH));
        assert_eq!(check_times(&identity(0, Some(NOW - SKEW - 1)), Some(NOW)), Err(code::EXPIRED));
        assert_eq!(check_times(&identity(0, Some(NOW)), None), Err(code::NO_AUTH), "nobody knows the time");
        assert_eq!(check_times(&identity(0, None), None), Ok(()));
    }

    #[test]
    fn a_cut_or_changed_ticket_never_panics() {
        let key = DesKey::new(*b"serverky").unwrap();
        let ticket = forge(&key, &DesKey::random().unwrap(), "afs", "x", 0).unwrap();
        let mut plain = ticket.clone();
        key.pcbc_decrypt(&mut plain);
        for len in 0..plain.len() {
            classic(&plain[..len], 4);
        }
        for at in 0..plain.len() {
            for bit in 0..8 {
                let mut changed = plain.clone();
                changed[at] ^= 1 << bit;
                classic(&changed, 4);
            }
        }
    }
}
