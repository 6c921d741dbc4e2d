//! OpenAFS, as Debian has it: its database servers behind the gateway, its programs as clients.
//!
//! No kernel module is involved: only the user-space Rx of `vlserver`, `ptserver`, `vos`, `pts` and `rxdebug`. Each
//! server sees folders of its own where Debian's would be, mounted in its own mount namespace.

pub mod client;
pub mod kdc;
pub mod keys;
pub mod script;
pub mod seed;
pub mod servers;

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;

use crate::fault::{Context, Result};

/// The volume location database's port and Rx service.
pub const VLDB: (u16, u16) = (7003, 52);
/// The protection database's port and Rx service.
pub const PROTECTION: (u16, u16) = (7002, 73);

/// Writes a configuration folder that knows one cell with one database server.
pub fn write_config(dir: &Path, server: Ipv4Addr) -> Result {
    fs::create_dir_all(dir).context(|| format!("create {}", dir.display()))?;
    for (name, text) in
        [("ThisCell", "lab.test\n".to_string()), ("CellServDB", format!(">lab.test\n{server} #database\n"))]
    {
        let path = dir.join(name);
        fs::write(&path, text).context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}
