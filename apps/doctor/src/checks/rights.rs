//! What this process may do, and which ports need that.

use crate::machine::Machine;
use crate::report::Group;
use crate::targets::{DRIVERS, Targets};

use super::missing;

/// Capabilities that matter here, with their bits (linux/capability.h).
const CAPABILITIES: &[(&str, u32)] = &[
    ("CAP_NET_ADMIN", 12),
    ("CAP_NET_RAW", 13),
    ("CAP_IPC_LOCK", 14),
    ("CAP_SYS_ADMIN", 21),
    ("CAP_BPF", 39),
];

/// A set of capabilities.
#[derive(Clone, Copy)]
pub(super) struct Held(u64);

impl Held {
    pub fn has(self, name: &str) -> bool {
        let bit = CAPABILITIES.iter().find(|entry| entry.0 == name).map(|entry| entry.1);
        let held = |bit: u32| self.0 >> bit & 1 == 1;
        // CAP_BPF was a part of CAP_SYS_ADMIN before 5.8, and still is for who has that.
        bit.is_some_and(held) || name == "CAP_BPF" && self.has("CAP_SYS_ADMIN")
    }
}

/// The capabilities that count now.
pub(super) fn effective(machine: &Machine) -> Option<Held> {
    let hex = machine.value("proc/self/status", "CapEff")?;
    u64::from_str_radix(&hex, 16).ok().map(Held)
}

pub(super) fn check(machine: &Machine, targets: &Targets, group: &mut Group<'_>) {
    let Some(held) = effective(machine) else { return };
    for (name, _) in CAPABILITIES {
        let needs: Vec<_> =
            DRIVERS.iter().filter(|driver| driver.capabilities.contains(name)).map(|d| d.scheme).collect();
        if held.has(name) {
            group.ok("capability", Some(name), "held");
            continue;
        }
        let what = match (*name, needs.is_empty()) {
            // What it is for is said where the limit is.
            ("CAP_IPC_LOCK", _) => continue,
            (_, true) => continue,
            _ => needs.iter().map(|scheme| format!("{scheme}:")).collect::<Vec<_>>().join(", "),
        };
        let needed = targets.drivers().any(|driver| driver.capabilities.contains(name));
        let all: Vec<_> = wanted(targets).iter().map(|name| name.to_lowercase()).collect();
        let mend =
            format!("sudo setcap {}+ep {}  # or run as root", all.join(","), machine.program.display());
        group.bad("capability", Some(name), missing(needed), format!("not held; needed by {what}"), mend);
    }
}

/// All capabilities that the named ports need, or that any port does: setcap replaces what was there.
fn wanted(targets: &Targets) -> Vec<&'static str> {
    let needs = |name: &&str| match targets.drivers().next() {
        Some(_) => targets.drivers().any(|driver| driver.capabilities.contains(name)),
        None => DRIVERS.iter().any(|driver| driver.capabilities.contains(name)),
    };
    CAPABILITIES.iter().map(|entry| entry.0).filter(needs).collect()
}
