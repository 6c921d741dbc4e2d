//! Installing the real peers: Debian packages, with apt, as root or through sudo.
//!
//! The work is done by `apt.sh`, one readable script, because it has to run as root as a whole and to put things back
//! whichever way it ends. Packages that are installed already are left alone.

use std::time::Duration;

use crate::fault::{Fault, Result, ensure};
use crate::host::is_root;
use crate::proc::Cmd;
use crate::step::Cx;

/// A Debian package and what it is for.
pub struct Package {
    name: &'static str,
    why: &'static str,
}

const fn package(name: &'static str, why: &'static str) -> Package {
    Package { name, why }
}

/// What `cargo lab test` needs.
pub const FOR_TESTS: &[Package] = &[
    package(
        "openafs-client",
        "vos, pts, rxdebug, udebug: real Rx clients (no kernel module is built or loaded)",
    ),
    package("openafs-dbserver", "vlserver and ptserver: real Rx servers"),
    package("openafs-fileserver", "fileserver and volserver, which fill the volume database"),
    package("tshark", "captures on the gateway's interfaces, and judges every packet"),
    package("iproute2", "network namespaces, veth, bridges"),
    package("ethtool", "has the kernel finish checksums on veth"),
    package("iputils-ping", "ping and ping -6 against our stack"),
    package("valgrind", "counts the instructions that receiving executes"),
    package("xz-utils", "unpacks the modules of the guests' kernel"),
    package("dpdk-dev", "dpdk-testpmd: the other process of memif, and the anchor of forwarding"),
    package("binutils", "nm and objdump: which instructions these are"),
    package(
        "libdpdk-dev",
        "DPDK, for the feature `dpdk`; rte_ring and rte_mempool: the anchor of the buffer cycle",
    ),
    package("libclang-dev", "bindgen reads DPDK's headers with it"),
    package("pkg-config", "finds libdpdk and liburcu"),
    package("openafs-krb5", "asetkey, which gives servers their keys"),
    package("krb5-kdc", "a KDC in a namespace: tickets that no key of the cell's was needed for"),
    package("krb5-admin-server", "kadmin.local, which fills its database"),
    package("krb5-user", "kinit"),
    package("libkrb5-dev", "a client of the volume database that shows such a ticket"),
    package(
        "libopenafs-dev",
        "OpenAFS's Rx library: a server that calls its client back; the anchor of the rxperf bench",
    ),
];

/// What `cargo lab bench` needs besides.
pub const FOR_BENCHES: &[Package] = &[
    package("liburcu-dev", "liburcu's quiescent-state flavour: the anchor of the rcu bench"),
    package("linux-perf", "samples where a serving core spends its time"),
];

/// Installs what is missing, saying what and why. Nothing to do: says nothing and needs no root.
pub fn install(cx: &Cx<'_>, packages: &[&[Package]]) -> Result {
    let missing = missing(cx, packages)?;
    if missing.is_empty() {
        return Ok(());
    }
    println!("setup: installing with apt");
    for package in &missing {
        println!("  {:<20} {}", package.name, package.why);
    }
    let cache = cx.host.work.join("apt");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/src/apt.sh");
    let command = Cmd::new("sh").arg(script).arg(&cache);
    let command = command.args(missing.iter().map(|package| package.name));
    let command = if is_root() { command } else { command.under(["sudo", "-n"]) };
    command.limit(Duration::from_secs(900)).run_to_log(cx)?;
    let still: Vec<&str> = self::missing(cx, packages)?.iter().map(|package| package.name).collect();
    ensure!(still.is_empty(), "apt succeeded, and yet these are missing: {}", still.join(" "));
    Ok(())
}

fn missing<'p>(cx: &Cx<'_>, packages: &[&'p [Package]]) -> Result<Vec<&'p Package>> {
    let all = packages.iter().flat_map(|packages| packages.iter());
    let query = Cmd::new("dpkg-query").args(["-W", "-f", "${Package} ${db:Status-Status}\n"]).quiet();
    // Exit code 1 says that one of them is unknown, which is what we ask.
    let output = query.args(all.clone().map(|package| package.name)).run(cx).map_err(|fault| {
        Fault::Check(format!("{fault}: the lab installs its peers on Debian 12; this machine has no dpkg"))
    })?;
    let installed = |package: &&Package| {
        output.stdout.lines().any(|line| line.split_once(' ') == Some((package.name, "installed")))
    };
    Ok(all.filter(|package| !installed(package)).collect())
}
