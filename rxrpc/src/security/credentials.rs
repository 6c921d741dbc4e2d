//! What a client proves with that it is somebody: tickets, where they come from, and how much is to be protected.

use super::ServerKeys;
use super::keys::{KeyError, KeyFileError, Reader, Strongest, is_principal, read};
use super::rxkad::{DesKey, KVNO_KRB5, KVNO_KRB5_ENCPART, Level, TICKET_MAX, ticket, ticket5};
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// A ticket and the session key in it: what a client needs to call a server that takes rxkad.
///
/// `Debug` tells neither; the session key is zeroised when the token is dropped.
#[derive(Clone)]
pub struct Token {
    pub(crate) kvno: u32,
    pub(crate) ticket: Vec<u8>,
    pub(crate) session_key: DesKey,
    expires: Option<u64>,
}

impl Token {
    /// From what somebody else has got: `kvno` is the number of the DES key that sealed the ticket, or 256 for a ticket of Kerberos 5.
    pub fn new(kvno: u32, ticket: Vec<u8>, session_key: DesKey) -> Result<Self, KeyError> {
        if ticket.len() > TICKET_MAX {
            return Err(KeyError::Length { len: ticket.len(), wanted: TICKET_MAX });
        }
        Ok(Self { kvno, ticket, session_key, expires: None })
    }

    /// Made from the server's own keys, for the name that servers trust as themselves (`afs`). OpenAFS calls it `-localauth`.
    ///
    /// It has no end, but for Linux's servers, which know none: made from a DES key, it is good there for 20 hours.
    pub fn forge(keys: &ServerKeys) -> Result<Self, KeyError> {
        Self::forge_for(keys, "afs", "")
    }

    /// The same for another name.
    pub fn forge_for(keys: &ServerKeys, name: &str, instance: &str) -> Result<Self, KeyError> {
        let session_key = DesKey::random()?;
        let (kvno, ticket) = match keys.strongest().ok_or(KeyError::NoKey)? {
            Strongest::Des(kvno, key) => {
                (kvno, ticket::forge(key, &session_key, name, instance, good_since())?)
            }
            Strongest::Krb5(key) => (KVNO_KRB5_ENCPART, ticket5::forge(key, &session_key, name, instance)?),
        };
        Self::new(kvno, ticket, session_key)
    }

    /// The ticket for a service in a credential cache of the FILE kind (formats 3 and 4). `service`: its principal, such as
    /// `afs/example.org`, with `@REALM` or without. Of several, the one that lasts longest.
    pub fn from_ccache(bytes: &[u8], service: &str) -> Result<Self, KeyError> {
        let mut file = Reader { bytes, at: 0 };
        let version = match file.array()? {
            [5, version @ (3 | 4)] => *version,
            _ => return Err(KeyError::Format { format: "a credential cache of format 3 or 4" }),
        };
        if version == 4 {
            file.counted()?;
        }
        read_principal(&mut file)?;
        let mut best: Option<Credential<'_>> = None;
        while file.at < bytes.len() {
            let credential = Credential::read(&mut file, version)?;
            let ours = is_principal(&credential.server.0, credential.server.1, service);
            if ours && best.as_ref().is_none_or(|best| credential.ends > best.ends) {
                best = Some(credential);
            }
        }
        let best = best.ok_or_else(|| KeyError::NoTicket { service: service.into() })?;
        let session_key = DesKey::of_session(best.enctype, best.key)?;
        Ok(Self {
            expires: Some(best.ends.into()),
            ..Self::new(KVNO_KRB5, best.ticket.to_vec(), session_key)?
        })
    }

    /// Reads a credential cache; see [`from_ccache`](Self::from_ccache).
    pub fn read_ccache(path: impl AsRef<Path>, service: &str) -> Result<Self, KeyFileError> {
        read(path.as_ref(), |bytes| Self::from_ccache(bytes, service))
    }

    /// When the ticket ends, in Unix seconds, where that is known here.
    pub fn expires(&self) -> Option<u64> {
        self.expires
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token")
            .field("kvno", &self.kvno)
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

/// When tickets made now began to be good: an hour ago, for servers whose clocks are late. Linux takes no ticket from the future, and
/// counts every ticket's life from here.
fn good_since() -> u32 {
    const LATE_MAX: u64 = 3600;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.as_secs().saturating_sub(LATE_MAX) as u32
}

/// One entry of a credential cache.
struct Credential<'a> {
    server: (Vec<u8>, &'a [u8]),
    enctype: i32,
    key: &'a [u8],
    ends: u32,
    ticket: &'a [u8],
}

impl<'a> Credential<'a> {
    fn read(file: &mut Reader<'a>, version: u8) -> Result<Self, KeyError> {
        read_principal(file)?;
        let server = read_principal(file)?;
        let enctype = i32::from(file.u16()? as i16);
        if version == 3 {
            file.u16()?;
        }
        let key = file.counted_long()?;
        let (_authenticated, _starts, ends, _renewable) =
            (file.u32()?, file.u32()?, file.u32()?, file.u32()?);
        let (_is_session_key, _flags) = (file.array::<1>()?, file.u32()?);
        // Addresses, then authorisation data: each with a type.
        for _ in 0..2 {
            for _ in 0..file.u32()? {
                file.u16()?;
                file.counted_long()?;
            }
        }
        let ticket = file.counted_long()?;
        file.counted_long()?;
        Ok(Self { server, enctype, key, ends, ticket })
    }
}

/// A principal's name, with slashes between its parts, and its realm.
fn read_principal<'a>(file: &mut Reader<'a>) -> Result<(Vec<u8>, &'a [u8]), KeyError> {
    let (_name_type, parts) = (file.u32()?, file.u32()?);
    let realm = file.counted_long()?;
    let mut name = Vec::new();
    for part in 0..parts {
        if part > 0 {
            name.push(b'/');
        }
        name.extend_from_slice(file.counted_long()?);
    }
    Ok((name, realm))
}

/// A client's side of a security class: who it is, and how much of its calls is protected. Clones are the same credentials: their calls
/// share connections.
#[derive(Clone, Debug)]
pub struct Credentials(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    token: Token,
    level: Level,
}

impl Credentials {
    /// rxkad with this token at this level.
    pub fn rxkad(token: Token, level: Level) -> Self {
        Self(Arc::new(Inner { token, level }))
    }

    /// rxkad as the server itself, from its keys.
    pub fn local(keys: &ServerKeys, level: Level) -> Result<Self, KeyError> {
        Ok(Self::rxkad(Token::forge(keys)?, level))
    }

    /// How much is protected.
    pub fn level(&self) -> Level {
        self.0.level
    }

    /// The token.
    pub fn token(&self) -> &Token {
        &self.0.token
    }

    /// What tells these credentials from others for as long as they live.
    pub(crate) fn address(&self) -> usize {
        Arc::as_ptr(&self.0) as usize
    }
}

impl PartialEq for Credentials {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Credentials {}

/// How callers of a service prove who they are.
#[derive(Clone, Debug, Default)]
pub struct Security {
    rxkad: Option<Accepts>,
    /// Calls without proof are taken too.
    or_none: bool,
}

/// What a service takes of rxkad.
#[derive(Clone, Debug)]
pub(crate) struct Accepts {
    pub keys: Arc<ServerKeys>,
    pub min_level: Level,
}

impl Security {
    /// They do not (security class 0).
    pub fn none() -> Self {
        Self::default()
    }

    /// By tickets that these keys open (rxkad, class 2), at any level.
    pub fn rxkad(keys: impl Into<Arc<ServerKeys>>) -> Self {
        Self { rxkad: Some(Accepts { keys: keys.into(), min_level: Level::Clear }), or_none: false }
    }

    /// The same, with this level at least.
    #[must_use]
    pub fn at_least(mut self, level: Level) -> Self {
        if let Some(rxkad) = &mut self.rxkad {
            rxkad.min_level = level;
        }
        self
    }

    /// The same, and calls without proof as well: the service looks at each call's [`Identity`](crate::Identity).
    #[must_use]
    pub fn or_none(mut self) -> Self {
        self.or_none = true;
        self
    }

    pub(crate) fn takes_none(&self) -> bool {
        self.or_none || self.rxkad.is_none()
    }

    pub(crate) fn takes_rxkad(&self) -> Option<&Accepts> {
        self.rxkad.as_ref()
    }
}

/// The same keys, not merely equal ones.
impl PartialEq for Security {
    fn eq(&self, other: &Self) -> bool {
        let same = match (&self.rxkad, &other.rxkad) {
            (None, None) => true,
            (Some(a), Some(b)) => Arc::ptr_eq(&a.keys, &b.keys) && a.min_level == b.min_level,
            _ => false,
        };
        same && self.takes_none() == other.takes_none()
    }
}

impl Eq for Security {}

#[cfg(test)]
mod tests {
    use super::*;

    fn long(bytes: &[u8]) -> Vec<u8> {
        [&(bytes.len() as u32).to_be_bytes()[..], bytes].concat()
    }

    fn principal(parts: &[&str]) -> Vec<u8> {
        let mut bytes =
            [&[0, 0, 0, 1][..], &(parts.len() as u32).to_be_bytes(), &long(b"EXAMPLE.ORG")].concat();
        parts.iter().for_each(|part| bytes.extend(long(part.as_bytes())));
        bytes
    }

    fn credential(version: u8, service: &[&str], ends: u32, ticket: &[u8]) -> Vec<u8> {
        let enctype: &[u8] = if version == 3 { &[0, 18, 0, 18] } else { &[0, 18] };
        let times = [0, 0, ends, 0].map(u32::to_be_bytes).concat();
        let address = [&[0, 0, 0, 1, 0, 2][..], &long(&[192, 0, 2, 1])].concat();
        let parts: [&[u8]; 9] = [
            &principal(&["someone"]),
            &principal(service),
            enctype,
            &long(&[7; 32]),
            &times,
            &[0, 0, 0, 0, 0],
            &address,
            &[0, 0, 0, 0],
            &long(ticket),
        ];
        [parts.concat(), long(b"")].concat()
    }

    fn cache(version: u8, credentials: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = vec![5, version];
        if version == 4 {
            bytes.extend([0, 12, 0, 1, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0]);
        }
        bytes.extend(principal(&["someone"]));
        bytes.extend(credentials.concat());
        bytes
    }

    #[test]
    fn the_service_s_longest_ticket_is_taken_from_a_cache() {
        for version in [3, 4] {
            let file = cache(
                version,
                &[
                    credential(version, &["krbtgt", "EXAMPLE.ORG"], 900, b"tgt"),
                    credential(version, &["afs", "example.org"], 500, b"short"),
                    credential(version, &["afs", "example.org"], 700, b"long"),
                ],
            );
            let token = Token::from_ccache(&file, "afs/example.org").unwrap();
            assert_eq!((token.kvno, &*token.ticket, token.expires()), (256, &b"long"[..], Some(700)));
            assert_eq!(token.session_key, DesKey::of_session(18, &[7; 32]).unwrap());
            assert!(Token::from_ccache(&file, "afs/example.org@EXAMPLE.ORG").is_ok());
            let missing = Token::from_ccache(&file, "afs").unwrap_err();
            assert_eq!(missing, KeyError::NoTicket { service: "afs".into() });
            for len in 0..file.len() {
                let _ = Token::from_ccache(&file[..len], "afs/example.org");
            }
        }
        assert!(Token::from_ccache(&[5, 2], "afs").is_err());
    }

    #[test]
    fn tokens_are_forged_with_the_strongest_key() {
        use crate::security::{Enctype, Krb5Key};
        assert_eq!(Token::forge(&ServerKeys::new()).unwrap_err(), KeyError::NoKey);
        let keys =
            ServerKeys::new().with_des(4, DesKey::random().unwrap()).with_des(3, DesKey::random().unwrap());
        assert_eq!(Token::forge(&keys).unwrap().kvno, 4);
        let keys = keys.with_krb5(Krb5Key::new(1, Enctype::Aes128, &[1; 16]).unwrap());
        assert_eq!(Token::forge(&keys).unwrap().kvno, 213);
    }

    /// Linux takes a ticket for `life` times five minutes from when it was issued, and even one without an end for 255 times that.
    #[test]
    fn tokens_forged_now_are_good_now_for_linux_too() {
        let key = DesKey::random().unwrap();
        let token = Token::forge(&ServerKeys::new().with_des(4, key.clone())).unwrap();
        let mut ticket = token.ticket.clone();
        key.pcbc_decrypt(&mut ticket);
        // Flags, three strings, address, session key.
        let at = 1 + b"afs\0\0\0".len() + 4 + 8;
        let (life, issued) = (ticket[at], u32::from_be_bytes(*ticket[at + 1..].first_chunk().unwrap()));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let ends = u64::from(issued) + u64::from(life) * 300;
        assert!(
            u64::from(issued) < now && ends > now + 20 * 3600 - 60,
            "issued at {issued}, now it is {now}"
        );
    }

    #[test]
    fn debug_does_not_tell_what_a_token_holds() {
        let keys = ServerKeys::new().with_des(4, DesKey::random().unwrap());
        let token = Token::forge(&keys).unwrap();
        let text = format!("{:?}", Credentials::rxkad(token.clone(), Level::Auth));
        assert_eq!(text, "Credentials(Inner { token: Token { kvno: 4, expires: None, .. }, level: Auth })");
    }

    #[test]
    fn only_clones_are_the_same_credentials() {
        let keys = ServerKeys::new().with_des(4, DesKey::random().unwrap());
        let (a, b) = (
            Credentials::local(&keys, Level::Auth).unwrap(),
            Credentials::local(&keys, Level::Auth).unwrap(),
        );
        assert_eq!(a, a.clone());
        assert_ne!(a, b);
    }
}
