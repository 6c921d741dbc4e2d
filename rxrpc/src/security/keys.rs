//! A server's keys, and the files they come from.

use super::rxkad::DesKey;
use picky_krb::crypto::CipherSuite;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Keys that open tickets. Zeroised when dropped; `Debug` tells numbers and types only.
#[derive(Clone, Debug, Default)]
pub struct ServerKeys {
    des: Vec<(u32, DesKey)>,
    krb5: Vec<Krb5Key>,
}

/// Types of Kerberos 5 keys (RFC 3962). The numbers are the wire's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Enctype {
    /// aes128-cts-hmac-sha1-96.
    Aes128 = 17,
    /// aes256-cts-hmac-sha1-96.
    Aes256 = 18,
}

impl Enctype {
    /// The type with this number, if it is known here.
    pub const fn from_number(number: i32) -> Option<Self> {
        match number {
            17 => Some(Self::Aes128),
            18 => Some(Self::Aes256),
            _ => None,
        }
    }

    /// Bytes of a key.
    pub const fn key_len(self) -> usize {
        match self {
            Self::Aes128 => 16,
            Self::Aes256 => 32,
        }
    }

    pub(crate) fn suite(self) -> CipherSuite {
        match self {
            Self::Aes128 => CipherSuite::Aes128CtsHmacSha196,
            Self::Aes256 => CipherSuite::Aes256CtsHmacSha196,
        }
    }
}

/// A Kerberos 5 key of a service. Zeroised when dropped; `Debug` does not print it.
#[derive(Clone)]
pub struct Krb5Key {
    kvno: u32,
    enctype: Enctype,
    bytes: Zeroizing<Vec<u8>>,
}

impl Krb5Key {
    /// The key with this number.
    pub fn new(kvno: u32, enctype: Enctype, bytes: &[u8]) -> Result<Self, KeyError> {
        if bytes.len() != enctype.key_len() {
            return Err(KeyError::Length { len: bytes.len(), wanted: enctype.key_len() });
        }
        Ok(Self { kvno, enctype, bytes: Zeroizing::new(bytes.to_vec()) })
    }

    /// Its number.
    pub fn kvno(&self) -> u32 {
        self.kvno
    }

    /// Its type.
    pub fn enctype(&self) -> Enctype {
        self.enctype
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl std::fmt::Debug for Krb5Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Krb5Key")
            .field("kvno", &self.kvno)
            .field("enctype", &self.enctype)
            .finish_non_exhaustive()
    }
}

impl ServerKeys {
    /// No key: every ticket is refused.
    pub fn new() -> Self {
        Self::default()
    }

    /// With one more DES key.
    #[must_use]
    pub fn with_des(mut self, kvno: u32, key: DesKey) -> Self {
        self.des.push((kvno, key));
        self
    }

    /// With one more key of Kerberos 5.
    #[must_use]
    pub fn with_krb5(mut self, key: Krb5Key) -> Self {
        self.krb5.push(key);
        self
    }

    /// With all keys of another set.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.des.extend(other.des);
        self.krb5.extend(other.krb5);
        self
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.des.is_empty() && self.krb5.is_empty()
    }

    /// The contents of an OpenAFS KeyFile: a count, then key numbers with 8 bytes of DES key each.
    pub fn from_key_file(bytes: &[u8]) -> Result<Self, KeyError> {
        let mut file = Reader { bytes, at: 0 };
        let mut keys = Self::new();
        for _ in 0..file.u32()? {
            let kvno = file.u32()?;
            let key = DesKey::new(*file.array()?).map_err(|error| error.of(kvno))?;
            keys.des.push((kvno, key));
        }
        Ok(keys)
    }

    /// The contents of an OpenAFS KeyFileExt. Keys for other classes than rxkad, and of types unknown here, are left out.
    pub fn from_key_file_ext(bytes: &[u8]) -> Result<Self, KeyError> {
        const RXKAD: u32 = 0;
        const RXKAD_KRB5: u32 = 2;
        /// The record's own length, type, number and subtype.
        const KNOWN: usize = 16;
        let mut file = Reader { bytes, at: 0 };
        let mut keys = Self::new();
        for _ in 0..file.u32()? {
            let (meta, class) = (file.u32()? as usize, file.u32()?);
            let (kvno, subtype) = (file.u32()?, file.u32()?);
            file.take(meta.checked_sub(KNOWN).ok_or(KeyError::Truncated { at: file.at })?)?;
            let len = file.u32()? as usize;
            let bytes = file.take(len)?;
            match class {
                RXKAD => keys.push(kvno, 1, bytes)?,
                RXKAD_KRB5 => keys.push(kvno, subtype as i32, bytes)?,
                _ => {}
            }
        }
        Ok(keys)
    }

    /// The contents of a Kerberos 5 keytab (format 0x502). `principal`: whose keys to take, such as `afs/example.org` (with
    /// `@REALM` or without); everybody's if not given. Types unknown here are left out.
    pub fn from_keytab(bytes: &[u8], principal: Option<&str>) -> Result<Self, KeyError> {
        let mut file = Reader { bytes, at: 0 };
        if file.array()? != &[5, 2] {
            return Err(KeyError::Format { format: "a keytab of version 0x502" });
        }
        let mut keys = Self::new();
        while file.at < bytes.len() {
            let size = file.u32()? as i32;
            let entry = file.take(size.unsigned_abs() as usize)?;
            // The hole that a removed key left has a negative length.
            if size > 0 {
                keys.push_keytab_entry(entry, principal)?;
            }
        }
        Ok(keys)
    }

    fn push_keytab_entry(&mut self, bytes: &[u8], wanted: Option<&str>) -> Result<(), KeyError> {
        let mut entry = Reader { bytes, at: 0 };
        let parts = entry.u16()?;
        let realm = entry.counted()?;
        let mut name = Vec::new();
        for part in 0..parts {
            if part > 0 {
                name.push(b'/');
            }
            name.extend_from_slice(entry.counted()?);
        }
        let (_name_type, _timestamp) = (entry.u32()?, entry.u32()?);
        let short_kvno = u32::from(entry.array::<1>()?[0]);
        let enctype = i32::from(entry.u16()?);
        let key = entry.counted()?;
        let kvno = entry.u32().ok().filter(|&kvno| kvno != 0).unwrap_or(short_kvno);
        if wanted.is_some_and(|wanted| !is_principal(&name, realm, wanted)) {
            return Ok(());
        }
        self.push(kvno, enctype, key)
    }

    /// Adds a key of a type as files number them; others than those known here are left out.
    fn push(&mut self, kvno: u32, enctype: i32, bytes: &[u8]) -> Result<(), KeyError> {
        let read = match (enctype, Enctype::from_number(enctype)) {
            (_, Some(enctype)) => Krb5Key::new(kvno, enctype, bytes).map(|key| self.krb5.push(key)),
            (1..=3, None) => {
                let key = bytes.try_into().map_err(|_| KeyError::Length { len: bytes.len(), wanted: 8 });
                key.and_then(DesKey::new).map(|key| self.des.push((kvno, key)))
            }
            _ => Ok(()),
        };
        read.map_err(|error| error.of(kvno))
    }

    /// Reads a KeyFile.
    pub fn read_key_file(path: impl AsRef<Path>) -> Result<Self, KeyFileError> {
        read(path.as_ref(), Self::from_key_file)
    }

    /// Reads a KeyFileExt.
    pub fn read_key_file_ext(path: impl AsRef<Path>) -> Result<Self, KeyFileError> {
        read(path.as_ref(), Self::from_key_file_ext)
    }

    /// Reads a keytab; see [`from_keytab`](Self::from_keytab).
    pub fn read_keytab(path: impl AsRef<Path>, principal: Option<&str>) -> Result<Self, KeyFileError> {
        read(path.as_ref(), |bytes| Self::from_keytab(bytes, principal))
    }

    pub(crate) fn des(&self, kvno: u32) -> Option<&DesKey> {
        self.des.iter().find(|(number, _)| *number == kvno).map(|(_, key)| key)
    }

    pub(crate) fn krb5(&self, kvno: u32, enctype: Enctype) -> Option<&Krb5Key> {
        self.krb5.iter().find(|key| key.kvno == kvno && key.enctype == enctype)
    }

    /// The key to forge tickets with: the newest of the strongest type.
    pub(crate) fn strongest(&self) -> Option<Strongest<'_>> {
        let krb5 = self.krb5.iter().max_by_key(|key| (key.enctype, key.kvno)).map(Strongest::Krb5);
        krb5.or_else(|| {
            self.des.iter().max_by_key(|(kvno, _)| *kvno).map(|(kvno, key)| Strongest::Des(*kvno, key))
        })
    }
}

/// See [`ServerKeys::strongest`].
pub(crate) enum Strongest<'a> {
    Des(u32, &'a DesKey),
    Krb5(&'a Krb5Key),
}

/// Whether `name@realm` is meant by `wanted`, which may leave the realm out.
pub(crate) fn is_principal(name: &[u8], realm: &[u8], wanted: &str) -> bool {
    match wanted.split_once('@') {
        Some((wanted, wanted_realm)) => name == wanted.as_bytes() && realm == wanted_realm.as_bytes(),
        None => name == wanted.as_bytes(),
    }
}

/// Reads a small secret file whole.
pub(crate) fn read<T>(
    path: &Path,
    parse: impl FnOnce(&[u8]) -> Result<T, KeyError>,
) -> Result<T, KeyFileError> {
    let path: PathBuf = path.into();
    match std::fs::read(&path) {
        Ok(bytes) => {
            let bytes = Zeroizing::new(bytes);
            parse(&bytes).map_err(|error| KeyFileError::Contents { path, error })
        }
        Err(error) => Err(KeyFileError::Read { path, error }),
    }
}

/// A file's bytes, taken from the front.
pub(crate) struct Reader<'a> {
    pub bytes: &'a [u8],
    pub at: usize,
}

impl<'a> Reader<'a> {
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], KeyError> {
        let taken = self.bytes.get(self.at..).and_then(|rest| rest.get(..len));
        let taken = taken.ok_or(KeyError::Truncated { at: self.at })?;
        self.at += len;
        Ok(taken)
    }

    pub fn array<const N: usize>(&mut self) -> Result<&'a [u8; N], KeyError> {
        Ok(self.take(N)?.first_chunk().expect("so many were taken"))
    }

    pub fn u16(&mut self) -> Result<u16, KeyError> {
        self.array().map(|bytes| u16::from_be_bytes(*bytes))
    }

    pub fn u32(&mut self) -> Result<u32, KeyError> {
        self.array().map(|bytes| u32::from_be_bytes(*bytes))
    }

    /// Bytes behind their 16-bit count.
    pub fn counted(&mut self) -> Result<&'a [u8], KeyError> {
        let len = self.u16()?;
        self.take(len.into())
    }

    /// Bytes behind their 32-bit count.
    pub fn counted_long(&mut self) -> Result<&'a [u8], KeyError> {
        let len = self.u32()?;
        self.take(len as usize)
    }
}

/// Why a key, a set of keys or a ticket cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// One of the DES keys that encrypt badly.
    #[error("a weak DES key: make another")]
    Weak,
    /// One key of several.
    #[error("key {kvno}: {error}")]
    Numbered {
        /// Its number.
        kvno: u32,
        /// What is wrong with it.
        error: Box<KeyError>,
    },
    /// A key of the wrong length for its type.
    #[error("a key of {len} bytes where {wanted} are wanted")]
    Length {
        /// Bytes there are.
        len: usize,
        /// Bytes there should be.
        wanted: usize,
    },
    /// A type of key that nothing here can use.
    #[error("encryption type {enctype} is not supported: use aes256-cts-hmac-sha1-96")]
    Enctype {
        /// Its number.
        enctype: i32,
    },
    /// The contents end within a record.
    #[error("the contents end within a record, at byte {at}: is the file whole, and of this kind?")]
    Truncated {
        /// Where.
        at: usize,
    },
    /// Not of the format that was asked for.
    #[error("not {format}")]
    Format {
        /// What it should be.
        format: &'static str,
    },
    /// Nothing to forge tickets with.
    #[error("there is no key to make a ticket with")]
    NoKey,
    /// The credential cache has no ticket for the service.
    #[error("no ticket for {service}: get one, for instance with kvno {service}")]
    NoTicket {
        /// The principal that was looked for.
        service: String,
    },
    /// A name that a ticket cannot have.
    #[error("`{name}.{instance}` cannot be a name in a ticket: 1 to 63 printable characters each")]
    Name {
        /// The name.
        name: String,
        /// The instance.
        instance: String,
    },
    /// The system gives no random bytes.
    #[error("the system gives no random bytes")]
    NoRandomness,
}

impl KeyError {
    /// Said of the key with this number.
    fn of(self, kvno: u32) -> Self {
        Self::Numbered { kvno, error: Box::new(self) }
    }
}

/// Why a file of keys or tickets could not be read.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The file system's word.
    #[error("{}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// What is in it.
    #[error("{}: {error}", path.display())]
    Contents {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: KeyError,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    const DES: &[u8; 8] = b"\x80\xb6\xa7\xcd\x7a\x9d\xad\xb6";

    #[test]
    fn a_key_file_has_its_keys_by_number() {
        let file = [&[0, 0, 0, 2, 0, 0, 0, 4][..], DES, &[0, 0, 0, 5], b"otherkey"].concat();
        let keys = ServerKeys::from_key_file(&file).unwrap();
        assert_eq!(keys.des(4).unwrap().bytes(), DES);
        assert_eq!(keys.des(5).unwrap().bytes(), b"otherkey");
        assert!(keys.des(6).is_none());
        for len in 0..file.len() {
            let error = ServerKeys::from_key_file(&file[..len]).unwrap_err();
            assert!(matches!(error, KeyError::Truncated { .. }), "{len}: {error}");
        }
    }

    #[test]
    fn a_key_file_ext_has_typed_keys_and_may_grow_fields() {
        let record = |meta: u8, class: u8, subtype: u8, more: &[u8], key: &[u8]| {
            let head = [0, 0, 0, meta, 0, 0, 0, class, 0, 0, 0, 9, 0, 0, 0, subtype];
            [&head[..], more, &(key.len() as u32).to_be_bytes(), key].concat()
        };
        let records = [
            record(16, 2, 18, &[], &[1; 32]),
            record(20, 2, 17, &[9, 9, 9, 9], &[2; 16]),
            record(16, 1, 18, &[], &[3; 32]), // rxgk's
            record(16, 0, 0, &[], DES),
        ];
        let file = [&[0, 0, 0, 4][..], &records.concat()].concat();
        let keys = ServerKeys::from_key_file_ext(&file).unwrap();
        assert_eq!(keys.krb5(9, Enctype::Aes256).unwrap().bytes(), [1; 32]);
        assert_eq!(keys.krb5(9, Enctype::Aes128).unwrap().bytes(), [2; 16]);
        assert_eq!((keys.krb5.len(), keys.des.len()), (2, 1));
        for len in 0..file.len() {
            assert!(ServerKeys::from_key_file_ext(&file[..len]).is_err(), "{len}");
        }
        let short = [&[0, 0, 0, 1][..], &record(15, 2, 18, &[], &[1; 32])].concat();
        assert!(ServerKeys::from_key_file_ext(&short).is_err());
    }

    fn keytab_entry(
        principal: [&str; 2],
        kvno: u8,
        enctype: u8,
        key: &[u8],
        long_kvno: Option<u32>,
    ) -> Vec<u8> {
        let counted = |bytes: &[u8]| [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat();
        let name =
            [counted(b"EXAMPLE.ORG"), counted(principal[0].as_bytes()), counted(principal[1].as_bytes())];
        let mut entry =
            [&[0, 2][..], &name.concat(), &[0, 0, 0, 1, 0, 0, 0, 0, kvno, 0, enctype], &counted(key)]
                .concat();
        entry.extend(long_kvno.iter().flat_map(|kvno| kvno.to_be_bytes()));
        [&(entry.len() as u32).to_be_bytes()[..], &entry].concat()
    }

    #[test]
    fn a_keytab_has_the_principals_keys_and_holes() {
        let file = [
            vec![5, 2],
            keytab_entry(["afs", "example.org"], 3, 18, &[1; 32], None),
            vec![0xff, 0xff, 0xff, 0xfc, 9, 9, 9, 9], // a hole of four bytes
            keytab_entry(["afs", "example.org"], 44, 17, &[2; 16], Some(300)),
            keytab_entry(["host", "example.org"], 1, 18, &[3; 32], None),
            keytab_entry(["afs", "example.org"], 3, 23, &[4; 16], None), // RC4: left out
        ]
        .concat();
        let keys = ServerKeys::from_keytab(&file, Some("afs/example.org")).unwrap();
        assert_eq!(keys.krb5.len(), 2);
        assert_eq!(keys.krb5(3, Enctype::Aes256).unwrap().bytes(), [1; 32]);
        assert_eq!(keys.krb5(300, Enctype::Aes128).unwrap().bytes(), [2; 16]);
        assert_eq!(ServerKeys::from_keytab(&file, None).unwrap().krb5.len(), 3);
        assert!(ServerKeys::from_keytab(&file, Some("afs/example.org@OTHER")).unwrap().is_empty());
        for len in 2..file.len() {
            let _ = ServerKeys::from_keytab(&file[..len], None);
        }
        assert!(ServerKeys::from_keytab(&[5, 1], None).is_err());
    }

    #[test]
    fn debug_does_not_tell_keys() {
        let key = Krb5Key::new(1, Enctype::Aes128, &[0xab; 16]).unwrap();
        let keys = ServerKeys::new().with_des(2, DesKey::new(*DES).unwrap()).with_krb5(key);
        let text = format!("{keys:?}").to_lowercase();
        assert!(text.contains("aes128") && !text.contains("ab, ") && !text.contains("171"), "{text}");
    }
}
