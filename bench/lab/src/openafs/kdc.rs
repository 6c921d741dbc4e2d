//! A Kerberos realm of our own: MIT's KDC on loopback in one namespace, its database in the step's folder.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use crate::fault::{Context, Result};
use crate::ns::Netns;
use crate::openafs::keys::REALM;
use crate::proc::{Cmd, Running};
use crate::step::Cx;

const ADDRESS: &str = "127.0.0.1:18888";
/// Of every principal that has one.
const PASSWORD: &str = "secret";

/// A KDC that runs.
pub struct Kdc<'n> {
    ns: &'n Netns,
    dir: PathBuf,
    _process: Running,
}

impl<'n> Kdc<'n> {
    /// Makes the realm with a service `afs/lab.test` and these people, and starts its KDC.
    pub fn start(cx: &Cx<'_>, ns: &'n Netns, people: &[&str]) -> Result<Kdc<'n>> {
        let dir = cx.dir.join("kdc");
        fs::create_dir_all(&dir).context(|| format!("create {}", dir.display()))?;
        let at = dir.display();
        let client = format!(
            "[libdefaults]\ndefault_realm = {REALM}\ndns_lookup_kdc = false\ndns_lookup_realm = false\nrdns = false\n\
             dns_canonicalize_hostname = false\n[realms]\n{REALM} = {{\n kdc = {ADDRESS}\n}}\n[logging]\nkdc = FILE:{at}/log\n"
        );
        let server = format!(
            "[kdcdefaults]\nkdc_listen = {ADDRESS}\nkdc_tcp_listen = {ADDRESS}\n[realms]\n{REALM} = {{\n\
             database_name = {at}/principal\nkey_stash_file = {at}/stash\n\
             supported_enctypes = aes256-cts-hmac-sha1-96:normal\n}}\n"
        );
        for (name, text) in [("krb5.conf", client), ("kdc.conf", server)] {
            fs::write(dir.join(name), text).context(|| format!("write {name}"))?;
        }
        let own = |cmd: Cmd| {
            let cmd = cmd.env("KRB5_CONFIG", dir.join("krb5.conf"));
            cmd.env("KRB5_KDC_PROFILE", dir.join("kdc.conf"))
        };
        own(Cmd::new("kdb5_util").args(["create", "-s", "-r", REALM, "-P", PASSWORD])).ok(cx)?;
        let keytab = format!("ktadd -k {at}/afs.keytab -norandkey afs/lab.test");
        let admin = ["addprinc -randkey afs/lab.test".to_string(), keytab];
        let people = people.iter().map(|name| format!("addprinc -pw {PASSWORD} {name}"));
        for query in admin.into_iter().chain(people) {
            own(Cmd::new("kadmin.local").args(["-r", REALM, "-q", &query])).ok(cx)?;
        }
        let kdc = own(Cmd::new("krb5kdc").args(["-n", "-r", REALM]));
        let process = kdc.under(["ip", "netns", "exec", ns.name()]).start(cx, "krb5kdc")?;
        Ok(Kdc { ns, dir, _process: process })
    }

    /// The service's key, version 1.
    pub fn keytab(&self) -> PathBuf {
        self.dir.join("afs.keytab")
    }

    /// The credential cache of `who`.
    pub fn cache(&self, who: &str) -> PathBuf {
        self.dir.join(format!("cache-{who}"))
    }

    /// A command in the KDC's namespace, with the credential cache of `who`.
    pub fn cmd_as(&self, who: &str, cmd: Cmd) -> Cmd {
        let cache = format!("FILE:{}", self.cache(who).display());
        let cmd = cmd.env("KRB5_CONFIG", self.dir.join("krb5.conf")).env("KRB5CCNAME", cache);
        cmd.under(["ip", "netns", "exec", self.ns.name()])
    }

    /// `who` shows its password and gets a ticket for tickets.
    pub fn log_in(&self, cx: &Cx<'_>, who: &str) -> Result {
        cx.wait_for(&format!("the KDC knows {who}"), Duration::from_secs(10), || {
            let kinit = Cmd::new("kinit").arg(format!("{who}@{REALM}")).stdin(format!("{PASSWORD}\n"));
            Ok(self.cmd_as(who, kinit).quiet().run(cx)?.status.success().then_some(()))
        })
    }
}
