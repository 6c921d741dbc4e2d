//! Whether an interface carries the machine's default route.

use std::collections::BTreeSet;

use crate::machine::Machine;

/// The default route that `interface` carries, itself or for what is built upon it: bridges, bonds, VLANs.
pub fn default_route(machine: &Machine, interface: &str) -> Option<String> {
    let names = with_uppers(machine, interface);
    let routes = &machine.network.default_routes;
    let carries =
        |name: &&String| machine.network.link(name).is_some_and(|link| routes.contains(&Some(link.index)));
    if let Some(name) = names.iter().find(carries) {
        return Some(if name == interface {
            "the default route".into()
        } else {
            format!("{name}, which has the default route")
        });
    }
    // A route by a nexthop object names no interface: it may be any that is up.
    let up = machine.network.link(interface).is_some_and(|link| link.up);
    (up && routes.contains(&None)).then(|| "perhaps the default route, which names no interface".into())
}

/// An interface and all that stands upon it.
pub fn with_uppers(machine: &Machine, interface: &str) -> BTreeSet<String> {
    let (mut found, mut open) = (BTreeSet::new(), vec![interface.to_owned()]);
    while let Some(name) = open.pop() {
        let entries = machine.names(format!("sys/class/net/{name}")).into_iter();
        open.extend(
            entries
                .filter_map(|entry| Some(entry.strip_prefix("upper_")?.to_owned()))
                .filter(|upper| !found.contains(upper)),
        );
        found.insert(name);
    }
    found
}
