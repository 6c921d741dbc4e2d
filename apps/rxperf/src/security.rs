//! `--security` and where its keys come from, on both sides.

use clap::Args as ClapArgs;
use rxrpc::security::{KeyError, KeyFileError};
use rxrpc::{Credentials, Level, Security, ServerKeys, Token};
use std::path::PathBuf;

/// Which proof calls carry, and the keys for it.
#[derive(ClapArgs, Debug, Clone, Default)]
pub struct SecurityArgs {
    /// Security class: none, or rxkad:clear, rxkad:auth, rxkad:encrypt (for a server: that level at least)
    #[arg(long, value_name = "CLASS", default_value = "none")]
    security: Class,

    /// The service's DES keys, in an OpenAFS KeyFile; a client makes its ticket from them, as -localauth does
    #[arg(long, value_name = "FILE")]
    keyfile: Option<PathBuf>,

    /// The service's Kerberos keys, in an OpenAFS KeyFileExt
    #[arg(long, value_name = "FILE")]
    keyfile_ext: Option<PathBuf>,

    /// The service's Kerberos keys, in a keytab
    #[arg(long, value_name = "FILE")]
    keytab: Option<PathBuf>,

    /// The service's principal in the keytab or credential cache, such as afs/example.org
    #[arg(long, value_name = "NAME")]
    principal: Option<String>,
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
            Some(level) => level
                .parse()
                .map(Self::Rxkad)
                .map_err(|error: rxrpc::security::UnknownLevel| error.to_string()),
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
    /// A server under rxkad without a key.
    #[error("--security rxkad needs a key: name one with --keyfile, --keyfile-ext or --keytab")]
    NoKeys,
    /// A client under rxkad with neither key nor ticket.
    #[error(
        "--security rxkad needs a key or a ticket: name one with --keyfile, --keyfile-ext, --keytab or --ccache"
    )]
    NoTicket,
}

impl SecurityArgs {
    fn keys(&self) -> Result<ServerKeys, KeyFileError> {
        let mut keys = ServerKeys::new();
        if let Some(path) = &self.keyfile {
            keys = keys.and(ServerKeys::read_key_file(path)?);
        }
        if let Some(path) = &self.keyfile_ext {
            keys = keys.and(ServerKeys::read_key_file_ext(path)?);
        }
        if let Some(path) = &self.keytab {
            keys = keys.and(ServerKeys::read_keytab(path, self.principal.as_deref())?);
        }
        Ok(keys)
    }

    /// What a server asks of its callers.
    pub fn server(&self) -> Result<Security, SecurityError> {
        let Class::Rxkad(level) = self.security else { return Ok(Security::none()) };
        let keys = self.keys()?;
        if keys.is_empty() {
            return Err(SecurityError::NoKeys);
        }
        Ok(Security::rxkad(keys).at_least(level))
    }

    /// What a client's calls bring along.
    pub fn client(&self, ticket: &TicketArgs) -> Result<Option<Credentials>, SecurityError> {
        let Class::Rxkad(level) = self.security else { return Ok(None) };
        let token = match (&ticket.ccache, &self.principal) {
            (Some(path), Some(principal)) => Token::read_ccache(path, principal)?,
            _ => {
                let keys = self.keys()?;
                if keys.is_empty() {
                    return Err(SecurityError::NoTicket);
                }
                Token::forge(&keys)?
            }
        };
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
}
