//! Whether DPDK is there, and whether this binary was built with it.

use crate::machine::Machine;
use crate::report::{Group, State};
use crate::targets::Targets;

/// Where pkg-config looks, and distributions put libraries.
const LIBRARIES: &[&str] = &[
    "usr/lib/x86_64-linux-gnu",
    "usr/lib/aarch64-linux-gnu",
    "usr/lib64",
    "usr/lib",
    "usr/local/lib/x86_64-linux-gnu",
    "usr/local/lib/aarch64-linux-gnu",
    "usr/local/lib64",
    "usr/local/lib",
];
const OLDEST: u32 = 22;

pub(super) fn check(machine: &Machine, targets: &Targets, group: &mut Group<'_>) {
    let named = targets.drivers().any(|driver| driver.scheme == "dpdk");
    if !named && !targets.is_empty() {
        return;
    }
    let built = pmd::drivers().any(|(scheme, _)| scheme == "dpdk");
    let text = if built { "in this binary" } else { "not in this binary; built in by --features dpdk" };
    group.ok("feature", None, text);
    let folders =
        || LIBRARIES.iter().map(|folder| machine.names(folder).into_iter().map(move |n| (folder, n)));
    let library = folders().flatten().find(|(_, name)| name.starts_with("librte_eal.so."));
    match library {
        Some((folder, name)) => group.ok("libraries", None, format!("/{folder}/{name}")),
        None if named => {
            let text = "no librte_eal.so: DPDK is not installed";
            group.bad("libraries", None, State::Problem, text, "sudo apt-get install libdpdk-dev");
        }
        None => group.ok("libraries", None, "not installed; only dpdk: needs them"),
    }
    development(machine, named && !built, group);
}

/// What a build with the feature needs.
fn development(machine: &Machine, wanted: bool, group: &mut Group<'_>) {
    let file = |folder: &&str| machine.text(format!("{folder}/pkgconfig/libdpdk.pc"));
    let version = LIBRARIES.iter().find_map(file).and_then(|text| {
        text.lines().find_map(|line| line.strip_prefix("Version:").map(|version| version.trim().to_owned()))
    });
    let Some(version) = version else {
        if wanted {
            let text = "no libdpdk.pc: --features dpdk does not build here";
            group.bad(
                "pkg_config",
                None,
                State::Warning,
                text,
                "sudo apt-get install libdpdk-dev pkg-config",
            );
        }
        return;
    };
    let major = version.split('.').next().and_then(|year| year.parse().ok()).unwrap_or(0);
    if major >= OLDEST {
        group.ok("pkg_config", None, format!("libdpdk {version}"));
    } else {
        let text = format!("libdpdk {version} is older than 22.11");
        group.bad("pkg_config", None, State::Warning, text, "install DPDK 22.11 LTS or later");
    }
}
