//! The keys and tickets that the configuration's files hold.
//!
//! [`Secrets`] reads them when the gateway starts and owns them for as long as it serves; they are zeroised when dropped. No figure,
//! view or log has a way to them: `Debug` tells numbers and types only. Keys are not read again; tickets out of a credential cache are
//! ([`Tickets`]), for they end.

use cli::SecurityError;
use rxrpc::{Credentials, Level, Security, Token};

use crate::config::{Config, ListenerSecurity, PoolSecurity};

/// What clients prove and what the gateway proves, in the order of the configuration's listeners and pools.
#[derive(Debug)]
pub struct Secrets {
    listeners: Vec<Security>,
    pools: Vec<Option<(Token, Level)>>,
}

/// A file that is named in the configuration is of no use.
#[derive(Debug, thiserror::Error)]
#[error("{place}: {error}")]
pub struct SecretsError {
    /// Which section names it.
    place: String,
    /// The file, what is wrong, and the mend.
    error: SecurityError,
}

impl Secrets {
    /// Reads all files that `config` names.
    pub fn load(config: &Config) -> Result<Self, SecretsError> {
        let listeners = config.listeners.iter().map(|listener| {
            let asked = listener.security.as_ref().map_or(Ok(Security::none()), asked);
            asked.map_err(|error| SecretsError { place: format!("listener {}", listener.address), error })
        });
        let pools = config.pools.iter().map(|pool| {
            let proof = pool.security.as_ref().map(proof).transpose();
            proof.map_err(|error| SecretsError { place: format!("pool `{}`", pool.name), error })
        });
        Ok(Self { listeners: listeners.collect::<Result<_, _>>()?, pools: pools.collect::<Result<_, _>>()? })
    }

    /// What clients of this listener prove.
    pub fn listener(&self, index: usize) -> Security {
        self.listeners[index].clone()
    }

    /// What goes with calls to this pool. Each time other credentials of the same ticket: clones of one would have all cores write to
    /// one reference count, call by call.
    pub fn pool(&self, index: usize) -> Option<Credentials> {
        self.pools[index].as_ref().map(|(token, level)| Credentials::rxkad(token.clone(), *level))
    }
}

/// The tickets that were taken from credential caches, and when each ends.
#[derive(Debug)]
pub struct Tickets(Vec<Ticket>);

#[derive(Debug)]
struct Ticket {
    pool: usize,
    expires: Option<u64>,
    /// What the last look came to, so that it is said once.
    complaint: Option<std::mem::Discriminant<SecurityError>>,
}

impl Tickets {
    /// Those among the secrets.
    pub fn of(config: &Config, secrets: &Secrets) -> Self {
        let pools = config.pools.iter().zip(&secrets.pools).enumerate();
        let cached = pools.filter_map(|(pool, (config, proof))| {
            config.security.as_ref()?.ccache.as_ref()?;
            let (token, _) = proof.as_ref()?;
            Some(Ticket { pool, expires: token.expires(), complaint: None })
        });
        Self(cached.collect())
    }

    /// Looks into the caches again. `Ok`: a ticket that lasts longer, and its pool; `Err`: why there is none, once.
    pub fn renew(&mut self, config: &Config) -> Vec<Result<(usize, Token, Level), SecretsError>> {
        let look = |ticket: &mut Ticket| {
            let pool = &config.pools[ticket.pool];
            match proof(pool.security.as_ref()?) {
                Ok((token, level)) => {
                    ticket.complaint = None;
                    let longer = token.expires() > ticket.expires;
                    ticket.expires = token.expires();
                    longer.then_some(Ok((ticket.pool, token, level)))
                }
                Err(error) => {
                    let complaint = Some(std::mem::discriminant(&error));
                    let new = ticket.complaint != complaint;
                    ticket.complaint = complaint;
                    new.then(|| Err(SecretsError { place: format!("pool `{}`", pool.name), error }))
                }
            }
        };
        self.0.iter_mut().filter_map(look).collect()
    }
}

fn asked(security: &ListenerSecurity) -> Result<Security, SecurityError> {
    let asked = security.keys.server(security.level)?;
    Ok(if security.anonymous { asked.or_none() } else { asked })
}

fn proof(security: &PoolSecurity) -> Result<(Token, Level), SecurityError> {
    let token = security.keys.token(security.ccache.as_deref())?;
    Ok((token, security.level))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::*;

    fn long(bytes: &[u8]) -> Vec<u8> {
        [&(bytes.len() as u32).to_be_bytes()[..], bytes].concat()
    }

    /// A credential cache (format 4) with a ticket for afs/example.org that ends then.
    fn cache(ends: u64) -> Vec<u8> {
        let principal = |parts: &[&str]| {
            let parts_bytes: Vec<u8> = parts.iter().flat_map(|part| long(part.as_bytes())).collect();
            [&[0, 0, 0, 1][..], &(parts.len() as u32).to_be_bytes(), &long(b"EXAMPLE.ORG"), &parts_bytes]
                .concat()
        };
        let times = [0, 0, ends as u32, 0].map(u32::to_be_bytes).concat();
        let credential =
            [principal(&["gw"]), principal(&["afs", "example.org"]), vec![0, 18], long(&[7; 32]), times];
        let rest = [vec![0; 5], vec![0; 8], long(b"ticket"), long(b"")];
        [vec![5, 4, 0, 0], principal(&["gw"]), credential.concat(), rest.concat()].concat()
    }

    struct Files(PathBuf);

    impl Drop for Files {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    #[test]
    fn tickets_are_renewed_and_what_stands_against_it_is_said_once() {
        let file = Files(std::env::temp_dir().join(format!("rxline-gateway-{}.ccache", std::process::id())));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
        let write = |ends| std::fs::write(&file.0, cache(ends)).expect("written");
        let text = include_str!("../examples/rxkad.toml");
        let ccache = format!("ccache = {:?}\nprincipal = \"afs/example.org\"\n#", file.0);
        let (before, after) = text.split_once("[[listener]]").expect("a section");
        let text = format!("{}[[listener]]{after}", before.replace("keyfile_ext = ", &ccache));
        let config = Config::parse("", &text).unwrap_or_else(|error| panic!("{error}"));
        write(now + 1000);
        let proof = proof(config.pools[0].security.as_ref().expect("a section")).expect("a ticket");
        let secrets = Secrets { listeners: vec![Security::none()], pools: vec![Some(proof)] };
        let mut tickets = Tickets::of(&config, &secrets);
        assert!(tickets.renew(&config).is_empty(), "the same ticket");
        write(now + 2000);
        match &tickets.renew(&config)[..] {
            [Ok((0, token, Level::Encrypt))] => assert_eq!(token.expires(), Some(now + 2000)),
            other => panic!("{other:?}"),
        }
        assert!(tickets.renew(&config).is_empty(), "the same ticket");
        write(now - 60);
        let said = tickets.renew(&config);
        let [Err(error)] = &said[..] else { panic!("{said:?}") };
        let error = error.to_string();
        assert!(error.starts_with("pool `vldb`: /") && error.contains("s ago: get another"), "{error}");
        assert!(tickets.renew(&config).is_empty(), "it was said");
        write(now + 3000);
        assert_eq!(tickets.renew(&config).len(), 1);
    }
}
