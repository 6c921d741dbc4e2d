//! The two `security` sections: what clients of a listener prove, and what the gateway proves to backends of a pool.
//!
//! Files are only named here; [`crate::secrets`] reads them.

use std::path::PathBuf;
use std::str::FromStr;

use cli::KeyFiles;
use rxrpc::{Identity, Level};

use super::source::{Section, Source, Value};
use super::{ListenerConfig, ListenerMode, PoolConfig};

/// How clients of a listener prove who they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerSecurity {
    /// The service's keys.
    pub keys: KeyFiles,
    /// Connections must be protected so much at least.
    pub level: Level,
    /// Calls of clients that prove nothing are taken as well, and go on as such.
    pub anonymous: bool,
    /// Whose calls are taken, of those who have proved who they are. At least one.
    pub users: Vec<User>,
}

/// How the gateway proves who it is to the backends of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolSecurity {
    /// Keys to make a ticket with, as `-localauth` does; with `ccache`, only its principal counts.
    pub keys: KeyFiles,
    /// A credential cache to take the ticket from.
    pub ccache: Option<PathBuf>,
    /// How much of its connections is protected.
    pub level: Level,
}

/// Whom a listener admits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum User {
    /// Whoever has a ticket.
    Anybody,
    /// This principal.
    Named {
        /// Its name.
        name: String,
        /// Its instance; most have none.
        instance: String,
        /// Its cell or realm; empty for tickets made with the service's own key.
        cell: String,
    },
}

impl User {
    /// Who makes tickets with the service's own key, as OpenAFS's `-localauth` does, is called so.
    pub fn local() -> Self {
        Self::Named { name: "afs".into(), instance: String::new(), cell: String::new() }
    }

    /// Whether this is who called.
    pub fn is(&self, identity: &Identity) -> bool {
        match self {
            Self::Anybody => true,
            Self::Named { name, instance, cell } => {
                (name, instance, cell) == (&identity.name, &identity.instance, &identity.cell)
            }
        }
    }
}

/// `*`, or a principal as rxkad writes it: `name`, `name.instance`, each with or without `@CELL`.
impl FromStr for User {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "*" {
            return Ok(Self::Anybody);
        }
        let (person, cell) = text.split_once('@').unwrap_or((text, ""));
        let (name, instance) = person.split_once('.').unwrap_or((person, ""));
        if name.is_empty() || text.contains(['/', ' ']) || text.ends_with(['@', '.']) {
            return Err("not a principal");
        }
        Ok(Self::Named { name: name.into(), instance: instance.into(), cell: cell.into() })
    }
}

const USER_SHAPE: &str = "a principal like \"admin@EXAMPLE.ORG\" or \"backup.admin@EXAMPLE.ORG\", \"afs\" for -localauth, or \"*\"";

pub(super) fn of_listener<'t>(
    source: &mut Source<'t>,
    value: &Value<'t>,
    mode: Option<ListenerMode>,
) -> Option<ListenerSecurity> {
    if mode == Some(ListenerMode::Relay) {
        let mend = "remove it, for what clients prove there concerns the backends alone; or write `mode = \"terminate\"`";
        source.problem(value.span(), "a listener that relays has no use for keys", mend);
    }
    let mut section = source.section("listener.security", value)?;
    let keys = key_files(source, &mut section);
    if keys.is_empty() {
        let mend = "name the service's `keyfile`, `keyfile_ext` or `keytab`";
        source.problem(section.span.clone(), "[listener.security] names no keys", mend);
    }
    let level = level(source, &mut section);
    let anonymous = section.get("anonymous").and_then(|value| source.boolean("anonymous", value));
    let mut users = Vec::new();
    match section.get("users") {
        None => users.push(User::local()),
        Some(value) => {
            for item in source.array("users", value) {
                users.extend(source.parsed::<User>("users", item, USER_SHAPE));
            }
            if users.is_empty() && source.is_sound() {
                source.problem(value.span(), "`users` admits nobody", format!("write {USER_SHAPE}"));
            }
        }
    }
    section.finish(source);
    Some(ListenerSecurity { keys, level: level?, anonymous: anonymous.unwrap_or(false), users })
}

pub(super) fn of_pool<'t>(source: &mut Source<'t>, value: &Value<'t>) -> Option<PoolSecurity> {
    let mut section = source.section("pool.security", value)?;
    let keys = key_files(source, &mut section);
    let ccache = path(source, &mut section, "ccache");
    let span = section.span.clone();
    if keys.is_empty() && ccache.is_none() {
        let mend = "name the service's `keyfile`, `keyfile_ext` or `keytab`, or a `ccache`";
        source.problem(span, "[pool.security] names neither keys nor a ticket", mend);
    } else if !keys.is_empty() && ccache.is_some() {
        let what = "[pool.security] names keys to make a ticket with and a `ccache` to take it from";
        source.problem(span, what, "keep one of them");
    } else if ccache.is_some() && keys.principal.is_none() {
        let mend = "add `principal = \"afs/example.org\"`";
        source.problem(span, "[pool.security] does not say which ticket of its `ccache`", mend);
    }
    let level = level(source, &mut section);
    section.finish(source);
    Some(PoolSecurity { keys, ccache, level: level? })
}

fn key_files<'t>(source: &mut Source<'t>, section: &mut Section<'_, 't>) -> KeyFiles {
    let keyfile = path(source, section, "keyfile");
    let keyfile_ext = path(source, section, "keyfile_ext");
    let keytab = path(source, section, "keytab");
    let principal = section.get("principal").and_then(|value| source.string("principal", value));
    KeyFiles { keyfile, keyfile_ext, keytab, principal: principal.map(str::to_string) }
}

fn path<'t>(source: &mut Source<'t>, section: &mut Section<'_, 't>, key: &'static str) -> Option<PathBuf> {
    let value = section.get(key)?;
    source.string(key, value).map(PathBuf::from)
}

fn level<'t>(source: &mut Source<'t>, section: &mut Section<'_, 't>) -> Option<Level> {
    let value = section.require(source, "level", "level = \"encrypt\"")?;
    let words = [("clear", Level::Clear), ("auth", Level::Auth), ("encrypt", Level::Encrypt)];
    source.word("level", value, &words)
}

/// Complains about pools whose proof would go with nobody's calls: those of clients who proved nothing go on without one.
pub(super) fn check_pools<'t>(
    source: &mut Source<'t>,
    tables: &[Value<'t>],
    pools: &[PoolConfig],
    listeners: &[ListenerConfig],
) {
    for (at, (pool, table)) in pools.iter().zip(tables).enumerate() {
        let mut secured = listeners.iter().filter(|listener| listener.security.is_some());
        let is_served = secured.any(|listener| listener.services.iter().any(|service| service.pool == at));
        if pool.security.is_some() && !is_served {
            let what = format!("pool `{}` has a proof that nobody's calls would go with", pool.name);
            let mend = "add [listener.security] to a listener that serves it, or remove its [pool.security]";
            source.problem(table.span(), what, mend);
        }
    }
}
