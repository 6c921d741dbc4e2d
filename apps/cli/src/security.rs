//! Where an app's keys and tickets come from: files, named on a command line or in a configuration.
//!
//! Errors name the file and what mends it, never what is in it but for key numbers.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args as ClapArgs;
use rxrpc::security::{KeyError, KeyFileError, UnknownLevel};
use rxrpc::{Credentials, Level, Security, ServerKeys, Token};

/// Files with a service's keys; all that are named count.
#[derive(ClapArgs, Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyFiles {
    /// The service's DES keys, in an OpenAFS KeyFile; a client makes its ticket from them, as -localauth does
    #[arg(long, value_name = "FILE")]
    pub keyfile: Option<PathBuf>,

    /// The service's Kerberos keys, in an OpenAFS KeyFileExt
    #[arg(long, value_name = "FILE")]
    pub keyfile_ext: Option<PathBuf>,

    /// The service's Kerberos keys, in a keytab
    #[arg(long, value_name = "FILE")]
    pub keytab: Option<PathBuf>,

    /// The service's principal in the keytab or credential cache, such as afs/example.org
    #[arg(long, value_name = "NAME")]
    pub principal: Option<String>,
}

/// Which proof calls carry, and the keys for it.
#[derive(ClapArgs, Debug, Clone, Default)]
pub struct SecurityArgs {
    /// Security class: none, or rxkad:clear, rxkad:auth, rxkad:encrypt (for a server: that level at least)
    #[arg(long, value_name = "CLASS", default_value = "none")]
    security: Class,

    #[command(flatten)]
    keys: KeyFiles,
}

/// A client's further source of credentials.
#[derive(ClapArgs, Debug, Clone, Default)]
pub struct TicketArgs {
    /// Take the ticket for --principal from this credential cache (of the FILE kind)
    #[arg(long, value_name = "FILE", requires = "principal", conflicts_with_all = ["keyfile", "keyfile_ext", "keytab"])]
    ccache: Option<PathBuf>,
}

/// `none`, or `rxkad:LEVEL`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Class {
    #[default]
    None,
    Rxkad(Level),
}

impl std::str::FromStr for Class {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("rxkad:") {
            Some(level) => level.parse().map(Self::Rxkad).map_err(|error: UnknownLevel| error.to_string()),
            None if text == "none" => Ok(Self::None),
            None => Err("none, rxkad:clear, rxkad:auth or rxkad:encrypt".into()),
        }
    }
}

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum SecurityError {
    /// A file of keys or tickets.
    #[error(transparent)]
    File(#[from] KeyFileError),
    /// The keys themselves.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A file without a key that rxkad can use.
    #[error("{}: there is no {wanted} in it: {mend}", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
        /// What should be there.
        wanted: String,
        /// What puts it there.
        mend: String,
    },
    /// A ticket whose time is over.
    #[error("{}: the ticket for {service} ended {seconds} s ago: get another, with kinit and kvno {service}", path.display())]
    Expired {
        /// The credential cache.
        path: PathBuf,
        /// Whose ticket.
        service: String,
        /// How long ago.
        seconds: u64,
    },
    /// A server under rxkad without a key.
    #[error("rxkad needs a key: name one with --keyfile, --keyfile-ext or --keytab")]
    NoKeys,
    /// A client under rxkad with neither key nor ticket.
    #[error("rxkad needs a key or a ticket: name one with --keyfile, --keyfile-ext, --keytab or --ccache")]
    NoTicket,
}

impl KeyFiles {
    /// Whether no file is named.
    pub fn is_empty(&self) -> bool {
        self.keyfile.is_none() && self.keyfile_ext.is_none() && self.keytab.is_none()
    }

    /// Reads them. A file without a key of use is an error; no file at all yields no key.
    pub fn read(&self) -> Result<ServerKeys, SecurityError> {
        let mut keys = ServerKeys::new();
        if let Some(path) = &self.keyfile {
            let mend = "put one there with asetkey add KVNO HEXKEY";
            keys = keys.and(some(path, ServerKeys::read_key_file(path)?, "DES key", mend)?);
        }
        if let Some(path) = &self.keyfile_ext {
            let mend = "put one there with asetkey add rxkad_krb5 KVNO 18 KEYTAB afs/CELL@REALM";
            keys = keys.and(some(path, ServerKeys::read_key_file_ext(path)?, "key for rxkad", mend)?);
        }
        if let Some(path) = &self.keytab {
            let found = ServerKeys::read_keytab(path, self.principal.as_deref())?;
            let owner = self.principal.as_deref().unwrap_or("anybody");
            let wanted = format!("aes256-cts-hmac-sha1-96 or aes128-cts-hmac-sha1-96 key of {owner}");
            let mend = format!("look with klist -ekt {}, add one with ktadd", path.display());
            keys = keys.and(some(path, found, &wanted, &mend)?);
        }
        Ok(keys)
    }

    /// What a server asks of its callers: proof by these keys, at this level at least.
    pub fn server(&self, level: Level) -> Result<Security, SecurityError> {
        let keys = self.read()?;
        if keys.is_empty() {
            return Err(SecurityError::NoKeys);
        }
        Ok(Security::rxkad(keys).at_least(level))
    }

    /// What a client proves with: the ticket for the principal in a credential cache, or else one made with these keys.
    pub fn token(&self, ccache: Option<&Path>) -> Result<Token, SecurityError> {
        if let (Some(path), Some(service)) = (ccache, &self.principal) {
            let token = Token::read_ccache(path, service)?;
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            return match token.expires() {
                Some(end) if end < now => {
                    let (path, service) = (path.to_owned(), service.clone());
                    Err(SecurityError::Expired { path, service, seconds: now - end })
                }
                _ => Ok(token),
            };
        }
        let keys = self.read()?;
        if keys.is_empty() {
            return Err(SecurityError::NoTicket);
        }
        Ok(Token::forge(&keys)?)
    }
}

fn some(path: &Path, keys: ServerKeys, wanted: &str, mend: &str) -> Result<ServerKeys, SecurityError> {
    if keys.is_empty() {
        return Err(SecurityError::Empty { path: path.into(), wanted: wanted.into(), mend: mend.into() });
    }
    Ok(keys)
}

impl SecurityArgs {
    /// What a server asks of its callers.
    pub fn server(&self) -> Result<Security, SecurityError> {
        match self.security {
            Class::None => Ok(Security::none()),
            Class::Rxkad(level) => self.keys.server(level),
        }
    }

    /// What a client's calls bring along.
    pub fn client(&self, ticket: &TicketArgs) -> Result<Option<Credentials>, SecurityError> {
        let Class::Rxkad(level) = self.security else { return Ok(None) };
        let token = self.keys.token(ticket.ccache.as_deref())?;
        Ok(Some(Credentials::rxkad(token, level)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_read() {
        assert_eq!("none".parse(), Ok(Class::None));
        assert_eq!("rxkad:encrypt".parse(), Ok(Class::Rxkad(Level::Encrypt)));
        for wrong in ["", "rxkad", "rxkad:", "rxkad:crypt", "rxgk:auth", "None"] {
            assert!(wrong.parse::<Class>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn rxkad_without_keys_says_what_is_missing() {
        let args = SecurityArgs { security: Class::Rxkad(Level::Auth), ..SecurityArgs::default() };
        assert!(args.server().unwrap_err().to_string().ends_with("--keytab"));
        assert!(args.client(&TicketArgs::default()).unwrap_err().to_string().ends_with("--ccache"));
    }

    /// A file of the test's own, gone with it.
    struct File(PathBuf);

    impl File {
        fn with(name: &str, bytes: &[u8]) -> Self {
            let path = std::env::temp_dir().join(format!("rxline-cli-{}-{name}", std::process::id()));
            std::fs::write(&path, bytes).expect("written");
            Self(path)
        }
    }

    impl Drop for File {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    #[test]
    fn errors_name_the_file_the_key_and_the_mend() {
        let says = |files: KeyFiles, words: [&str; 3]| {
            let text = files.read().expect_err("refused").to_string();
            assert!(words.iter().all(|word| text.contains(word)), "{text}");
        };
        let weak = File::with("weak", b"\0\0\0\x01\0\0\0\x07\x01\x01\x01\x01\x01\x01\x01\x01");
        let keyfile = |file: &File| KeyFiles { keyfile: Some(file.0.clone()), ..KeyFiles::default() };
        says(keyfile(&weak), ["-weak: ", "key 7", "make another"]);
        let empty = File::with("empty", &[0; 4]);
        says(keyfile(&empty), ["-empty: ", "no DES key", "asetkey add KVNO"]);
        says(
            KeyFiles { keyfile_ext: Some(empty.0.clone()), ..KeyFiles::default() },
            ["-empty: ", "no key for rxkad", "asetkey add rxkad_krb5"],
        );
        let keytab = File::with("keytab", &[5, 2]);
        let principal = Some("afs/example.org".to_string());
        says(
            KeyFiles { keytab: Some(keytab.0.clone()), principal, ..KeyFiles::default() },
            ["-keytab: ", "key of afs/example.org", "ktadd"],
        );
        says(
            KeyFiles { keyfile: Some("/nowhere/KeyFile".into()), ..KeyFiles::default() },
            ["/nowhere/KeyFile: ", "No such file", ""],
        );
    }
}
