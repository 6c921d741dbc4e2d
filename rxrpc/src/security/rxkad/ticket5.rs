//! Tickets of Kerberos 5: all of one (key number 256), or its encrypted part alone (213).
//!
//! Formats and ciphers are picky-krb's; lengths are looked at before it reads by them (`der`). Deliberately absent: tickets sealed with DES or RC4, which no KDC of today gives out, and the
//! encryption types of RFC 8009, which picky-krb does not have.

use super::ticket::{KVNO_KRB5, Opened};
use super::{DesKey, Level, code, der};
use crate::security::{Enctype, Identity, KeyError, Krb5Key, ServerKeys};
use picky_asn1::bit_string::BitString;
use picky_asn1::date::GeneralizedTime;
use picky_asn1::restricted_string::Ia5String;
use picky_asn1::wrapper::{
    Asn1SequenceOf, BitStringAsn1, ExplicitContextTag0, ExplicitContextTag1, ExplicitContextTag2,
    ExplicitContextTag3, ExplicitContextTag4, ExplicitContextTag5, ExplicitContextTag7, GeneralStringAsn1,
    GeneralizedTimeAsn1, IntegerAsn1, OctetStringAsn1, Optional,
};
use picky_krb::data_types::{
    EncTicketPart, EncTicketPartInner, EncryptedData, EncryptionKey, PrincipalName, Ticket, TransitedEncoding,
};
use zeroize::{Zeroize, Zeroizing};

/// What the encrypted part of a ticket is encrypted for (RFC 4120, 7.5.1).
const KEY_USAGE: i32 = 2;
/// The type of DES session keys: what OpenAFS writes into tickets of its own.
const DES_CBC_CRC: u8 = 1;
/// A name of this type is a principal's.
const NT_PRINCIPAL: u8 = 1;
/// Bit 7 of the flags, counted from the left: the ticket is not valid (yet).
const FLAG_INVALID: u8 = 1;

/// Opens a ticket. The error is an abort code.
pub fn open(keys: &ServerKeys, form: u32, ticket: &[u8]) -> Result<Opened, i32> {
    let sealed = sealed_part(form, ticket).ok_or(code::BAD_TICKET)?;
    let kvno = match &sealed.kvno.0 {
        Some(kvno) => number(&kvno.0).ok_or(code::BAD_TICKET)?,
        // Left out where it is 0.
        None => 0,
    };
    let enctype = number(&sealed.etype.0).and_then(Enctype::from_number).ok_or(code::UNKNOWN_KEY)?;
    let key = keys.krb5(kvno as u32, enctype).ok_or(code::UNKNOWN_KEY)?;
    let cipher = &sealed.cipher.0.0;
    let plain =
        enctype.suite().cipher().decrypt(key.bytes(), KEY_USAGE, cipher).map_err(|_| code::BAD_TICKET)?;
    let plain = Zeroizing::new(plain);
    let whole = der::element(&plain).ok_or(code::BAD_TICKET)?;
    let mut part = picky_asn1_der::from_bytes::<EncTicketPart>(whole).map_err(|_| code::BAD_TICKET)?.0;
    let opened = read(&part, kvno as u32);
    part.key.0.key_value.0.0.zeroize();
    opened
}

/// The encrypted part, in the clear so far as its frame goes.
fn sealed_part(form: u32, ticket: &[u8]) -> Option<EncryptedData> {
    let ticket = der::element(ticket)?;
    if form != KVNO_KRB5 {
        return picky_asn1_der::from_bytes(ticket).ok();
    }
    let ticket = picky_asn1_der::from_bytes::<Ticket>(ticket).ok()?.0;
    (number(&ticket.tkt_vno.0)? == 5).then_some(ticket.enc_part.0)
}

/// What a decrypted ticket says.
fn read(part: &EncTicketPartInner, kvno: u32) -> Result<Opened, i32> {
    // Before the flags stands the number of bits that the last byte leaves unused.
    if part.flags.0.as_bytes().get(1).is_some_and(|flags| flags & FLAG_INVALID != 0) {
        return Err(code::NO_AUTH);
    }
    let key = &part.key.0;
    let enctype = number(&key.key_type.0).ok_or(code::BAD_TICKET)?;
    let session_key = DesKey::of_session(enctype, &key.key_value.0.0).map_err(|_| code::BAD_TICKET)?;
    let names = &part.cname.0.name_string.0.0;
    let (name, instance) = match &names[..] {
        [name] => (text(name), Some(String::new())),
        [name, instance] => (text(name), text(instance)),
        _ => (None, None),
    };
    let (name, instance) = name.zip(instance).ok_or(code::BAD_TICKET)?;
    // As a Kerberos 4 name, foo.root/ would be the same as foo/root: OpenAFS takes neither.
    if name.is_empty() || name.contains('.') {
        return Err(code::BAD_TICKET);
    }
    let cell = text(&part.crealm.0).ok_or(code::BAD_TICKET)?;
    let starts = part.starttime.0.as_ref().map_or(&part.auth_time.0, |start| &start.0);
    let (starts, expires) = (unix(&starts.0), Some(unix(&part.endtime.0.0)));
    Ok(Opened {
        session_key,
        identity: Identity { name, instance, cell, kvno, level: Level::Clear, starts, expires },
    })
}

/// Makes the encrypted part of a ticket without an end, as `-localauth` does with keys of Kerberos 5.
pub fn forge(key: &Krb5Key, session_key: &DesKey, name: &str, instance: &str) -> Result<Vec<u8>, KeyError> {
    let bad = || KeyError::Name { name: name.into(), instance: instance.into() };
    let string = |text: &str| {
        let text = Ia5String::new(text.as_bytes().to_vec()).map_err(|_| bad())?;
        Ok::<_, KeyError>(GeneralStringAsn1(text))
    };
    let mut names = vec![string(name)?];
    if !instance.is_empty() {
        names.push(string(instance)?);
    }
    let time = |year, month, day, hour, minute, second| {
        GeneralizedTimeAsn1(GeneralizedTime::new(year, month, day, hour, minute, second).expect("a date"))
    };
    let int = |byte: u8| IntegerAsn1(vec![byte]);
    let mut part = EncTicketPart::from(EncTicketPartInner {
        flags: ExplicitContextTag0(BitStringAsn1(BitString::with_bytes(vec![0, 0, 0, 0]))),
        key: ExplicitContextTag1(EncryptionKey {
            key_type: ExplicitContextTag0(int(DES_CBC_CRC)),
            key_value: ExplicitContextTag1(OctetStringAsn1(session_key.bytes().to_vec())),
        }),
        crealm: ExplicitContextTag2(string("")?),
        cname: ExplicitContextTag3(PrincipalName {
            name_type: ExplicitContextTag0(int(NT_PRINCIPAL)),
            name_string: ExplicitContextTag1(Asn1SequenceOf(names)),
        }),
        transited: ExplicitContextTag4(TransitedEncoding {
            tr_type: ExplicitContextTag0(int(0)),
            contents: ExplicitContextTag1(OctetStringAsn1(Vec::new())),
        }),
        auth_time: ExplicitContextTag5(time(1970, 1, 1, 0, 0, 0)),
        starttime: Optional(None),
        // The last second of signed 32-bit time: what OpenAFS writes for "never".
        endtime: ExplicitContextTag7(time(2038, 1, 19, 3, 14, 7)),
        renew_till: Optional(None),
        caddr: Optional(None),
        authorization_data: Optional(None),
    });
    let plain = Zeroizing::new(picky_asn1_der::to_vec(&part).map_err(|_| bad())?);
    part.0.key.0.key_value.0.0.zeroize();
    let suite = key.enctype().suite().cipher();
    let cipher = suite.encrypt(key.bytes(), KEY_USAGE, &plain).map_err(|_| KeyError::NoRandomness)?;
    let sealed = EncryptedData {
        etype: ExplicitContextTag0(int(key.enctype() as u8)),
        kvno: Optional(Some(ExplicitContextTag1(IntegerAsn1::from_bytes_be_unsigned(
            key.kvno().to_be_bytes().to_vec(),
        )))),
        cipher: ExplicitContextTag2(OctetStringAsn1(cipher)),
    };
    picky_asn1_der::to_vec(&sealed).map_err(|_| bad())
}

/// An integer of at most 32 bits.
fn number(integer: &IntegerAsn1) -> Option<i32> {
    let bytes = integer.as_signed_bytes_be();
    let negative = *bytes.first()? & 0x80 != 0;
    (bytes.len() <= 4)
        .then(|| bytes.iter().fold(-i32::from(negative), |value, &byte| value << 8 | i32::from(byte)))
}

fn text(string: &GeneralStringAsn1) -> Option<String> {
    let text = std::str::from_utf8(string.0.as_bytes()).ok()?;
    (!text.contains(char::is_control)).then(|| text.to_owned())
}

/// Seconds since 1970 (the days by Howard Hinnant's count from the civil calendar).
fn unix(time: &GeneralizedTime) -> u64 {
    let (year, month, day) = (i64::from(time.year()), i64::from(time.month()), i64::from(time.day()));
    let year = if month <= 2 { year - 1 } else { year };
    let (era, in_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = era * 146_097 + in_era * 365 + in_era / 4 - in_era / 100 + day_of_year - 719_468;
    let seconds = i64::from(time.hour()) * 3600 + i64::from(time.minute()) * 60 + i64::from(time.second());
    u64::try_from(days * 86_400 + seconds).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::super::ticket::{self, KVNO_KRB5_ENCPART};
    use super::*;

    fn keys(enctype: Enctype) -> (ServerKeys, Krb5Key) {
        let key = Krb5Key::new(7, enctype, &vec![0x5a; enctype.key_len()]).unwrap();
        (ServerKeys::new().with_krb5(key.clone()), key)
    }

    #[test]
    fn a_forged_ticket_opens_with_its_key_and_with_no_other() {
        for enctype in [Enctype::Aes128, Enctype::Aes256] {
            let (keys, key) = keys(enctype);
            let session = DesKey::random().unwrap();
            let ticket = forge(&key, &session, "afs", "").unwrap();
            let opened =
                ticket::open(&keys, KVNO_KRB5_ENCPART, &mut ticket.clone(), Some(1_800_000_000)).unwrap();
            assert_eq!(opened.session_key, session);
            assert_eq!((&*opened.identity.name, opened.identity.kvno), ("afs", 7));
            assert_eq!((opened.identity.starts, opened.identity.expires), (0, Some(0x7fff_ffff)));
            let other = Krb5Key::new(7, enctype, &vec![0x5b; enctype.key_len()]).unwrap();
            let others = ServerKeys::new().with_krb5(other);
            assert_eq!(open(&others, KVNO_KRB5_ENCPART, &ticket).unwrap_err(), code::BAD_TICKET);
            assert_eq!(open(&ServerKeys::new(), KVNO_KRB5_ENCPART, &ticket).unwrap_err(), code::UNKNOWN_KEY);
            assert_eq!(open(&keys, KVNO_KRB5, &ticket).unwrap_err(), code::BAD_TICKET, "half of a ticket");
        }
    }

    #[test]
    fn names_have_one_or_two_parts_and_no_dot_in_the_first() {
        let (keys, key) = keys(Enctype::Aes256);
        let session = DesKey::random().unwrap();
        let opened = open(&keys, 213, &forge(&key, &session, "rcmd", "host").unwrap()).unwrap();
        assert_eq!((&*opened.identity.name, &*opened.identity.instance), ("rcmd", "host"));
        let dotted = forge(&key, &session, "a.b", "").unwrap();
        assert_eq!(open(&keys, 213, &dotted).unwrap_err(), code::BAD_TICKET);
    }

    #[test]
    fn a_cut_or_changed_ticket_is_refused_and_never_panics() {
        let (keys, key) = keys(Enctype::Aes128);
        let ticket = forge(&key, &DesKey::random().unwrap(), "afs", "").unwrap();
        for len in 0..ticket.len() {
            assert!(open(&keys, 213, &ticket[..len]).is_err());
            let _ = open(&keys, 256, &ticket[..len]);
        }
        for at in 0..ticket.len() {
            for bit in 0..8 {
                let mut changed = ticket.clone();
                changed[at] ^= 1 << bit;
                // A bit of the frame that means nothing may change; what it holds may not.
                if let Ok(opened) = open(&keys, 213, &changed) {
                    assert_eq!(opened.identity.name, "afs");
                }
            }
        }
    }

    #[test]
    fn time_counts_from_1970() {
        let at = |y, mo, d, h, mi, s| unix(&GeneralizedTime::new(y, mo, d, h, mi, s).unwrap());
        assert_eq!(at(1970, 1, 1, 0, 0, 0), 0);
        assert_eq!(at(2000, 3, 1, 0, 0, 0), 951_868_800);
        assert_eq!(at(2038, 1, 19, 3, 14, 7), 0x7fff_ffff);
        assert_eq!(at(2024, 2, 29, 23, 59, 59), 1_709_251_199);
    }
}
