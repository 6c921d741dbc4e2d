//! The keys of a cell, as `asetkey` leaves them for its servers and for whoever acts with `-localauth`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::fault::{Context, Result};
use crate::openafs::write_config;
use crate::proc::Cmd;
use crate::step::Cx;

/// The cell's realm.
pub const REALM: &str = "LAB.TEST";
/// Where OpenAFS's programs look for a server's configuration, whatever `-config` says in some of them.
pub const SERVER_DIR: &str = "/etc/openafs/server";
/// aes256-cts-hmac-sha1-96 (RFC 3962).
const AES256: u16 = 18;

/// A folder with a key file of one kind.
pub struct Keys {
    dir: PathBuf,
    file: &'static str,
}

impl Keys {
    /// A DES key, version 4: `KeyFile`.
    pub fn des(cx: &Cx<'_>) -> Result<Keys> {
        Keys::made(cx, "keys-des", "KeyFile", &["add", "4", "80b6a7cd7a9dadb6"])
    }

    /// An AES key out of a keytab, as Kerberos administrators have it: `KeyFileExt`. Tickets forged with it say version 213 or 256.
    pub fn ext(cx: &Cx<'_>) -> Result<Keys> {
        let path = cx.dir.join("afs.keytab");
        let key: Vec<u8> = (0..32).map(|at| at * 7 + 1).collect();
        fs::write(&path, keytab(&["afs", "lab.test"], 1, AES256, &key))
            .context(|| "write a keytab".into())?;
        Keys::of_keytab(cx, "keys-ext", &path, 1)
    }

    /// The AES key of version `version` in a keytab.
    pub fn of_keytab(cx: &Cx<'_>, name: &str, keytab: &Path, version: u32) -> Result<Keys> {
        let principal = format!("afs/lab.test@{REALM}");
        let keytab = keytab.to_string_lossy();
        let (version, kind) = (version.to_string(), AES256.to_string());
        Keys::made(cx, name, "KeyFileExt", &["add", "rxkad_krb5", &version, &kind, &keytab, &principal])
    }

    fn made(cx: &Cx<'_>, name: &str, file: &'static str, args: &[&str]) -> Result<Keys> {
        let dir = cx.dir.join(name);
        write_config(&dir, crate::net::FRONT)?;
        in_place_of_server_dir(Cmd::new("asetkey").args(args), &dir).under(["unshare", "--mount"]).ok(cx)?;
        Ok(Keys { dir, file })
    }

    /// The file.
    pub fn file(&self) -> PathBuf {
        self.dir.join(self.file)
    }

    /// What the gateway's configuration says of it.
    pub fn toml(&self) -> String {
        let key = if self.file == "KeyFile" { "keyfile" } else { "keyfile_ext" };
        format!("{key} = {:?}\n", self.file())
    }

    /// Copies them into a configuration folder.
    pub fn copy_to(&self, config: &Path) -> Result {
        let copied = fs::copy(self.file(), config.join(self.file));
        copied.map(drop).context(|| format!("copy {}", self.file))
    }
}

/// Runs a command where `dir` is what OpenAFS takes for the server's configuration. To be put into a mount namespace of its own.
pub fn in_place_of_server_dir(cmd: Cmd, dir: &Path) -> Cmd {
    let mount = format!("mount --bind \"$1\" {SERVER_DIR}; shift; exec \"$@\"");
    cmd.under(["sh", "-e", "-c", &mount, "sh", &dir.to_string_lossy()]).limit(Duration::from_secs(120))
}

/// A keytab with one entry: version 0x502 of MIT's format, all big-endian.
fn keytab(principal: &[&str], version: u8, kind: u16, key: &[u8]) -> Vec<u8> {
    let counted = |bytes: &[u8]| [&(bytes.len() as u16).to_be_bytes(), bytes].concat();
    let mut entry = (principal.len() as u16).to_be_bytes().to_vec();
    entry.extend(counted(REALM.as_bytes()));
    principal.iter().for_each(|part| entry.extend(counted(part.as_bytes())));
    // KRB5_NT_PRINCIPAL, and a time.
    entry.extend([0, 0, 0, 1, 0, 0, 0, 1, version]);
    entry.extend(kind.to_be_bytes());
    entry.extend(counted(key));
    [&[5, 2][..], &(entry.len() as u32).to_be_bytes(), &entry].concat()
}
