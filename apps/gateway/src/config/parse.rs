//! From TOML to [`Config`], section by section, then the checks that look across sections.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::security;
use super::source::{Section, Source, Value, did_you_mean};
use super::{
    BUFFERS_BESIDES, BUFFERS_PER_CALL, Cidr, Config, Cores, Idle, Limits, ListenerConfig, ListenerMode,
    Memory, PoolConfig, PortConfig, Probe, Problem, Relay, Route, ServiceConfig, Timeouts,
};

const DAY_MS: u64 = 86_400_000;

/// What a file says, or everything that is wrong with it.
pub(super) fn config(text: &str) -> Result<Config, Vec<Problem>> {
    let (mut source, root) = Source::parse(text);
    let mut root = Section::root(&root);
    let cores = cores(&mut source, &mut root);
    let idle = root.get("idle").and_then(|value| {
        let policy = source.string("idle", value)?.parse();
        // What is no policy is near one of these words.
        let words = [("spin", Idle::Spin), ("pause", Idle::Pause), ("sleep", Idle::default())];
        policy.ok().or_else(|| source.word("idle", value, &words))
    });
    let drain = root.integer(&mut source, "drain_seconds", 0..=86_400).unwrap_or(10);
    let limits = root.get("limits").map(|value| limits(&mut source, value)).unwrap_or_default();
    let memory = root.get("memory").map(|value| memory(&mut source, value)).unwrap_or_default();
    check_memory(&mut source, &mut root, memory, limits);
    let relay = root.get("relay").map(|value| relay(&mut source, value)).unwrap_or_default();

    let ports: Vec<PortConfig> = root
        .sections(&mut source, "port")
        .into_iter()
        .filter_map(|section| port(&mut source, section))
        .collect();
    // What refers to a section that is wrong itself is not complained about on top of that.
    let known = if source.is_sound() { &ports[..] } else { &[] };
    let (mut names, mut taken) = (Vec::new(), Vec::new());
    let pools: Vec<PoolConfig> = root
        .sections(&mut source, "pool")
        .into_iter()
        .filter_map(|section| pool(&mut source, section, known, &mut names))
        .collect();
    let known_pools = if source.is_sound() { &pools[..] } else { &[] };
    let listeners: Vec<ListenerConfig> = root
        .sections(&mut source, "listener")
        .into_iter()
        .filter_map(|section| listener(&mut source, section, known, known_pools, &mut taken))
        .collect();
    for (section, empty) in
        [("port", ports.is_empty()), ("pool", pools.is_empty()), ("listener", listeners.is_empty())]
    {
        if empty && source.is_sound() {
            let mend = format!("add a [[{section}]]; apps/gateway/examples/gateway.toml has one of each");
            source.problem(0..0, format!("there is no [[{section}]]"), mend);
        }
    }
    if let Some(value) = root.get("pool").filter(|_| source.is_sound()) {
        let tables = source.array("pool", value);
        security::check_pools(&mut source, tables, &pools, &listeners);
    }
    root.finish(&mut source);
    if !source.is_sound() {
        return Err(source.into_problems());
    }
    let (idle, drain) = (idle.unwrap_or_default(), Duration::from_secs(drain));
    Ok(Config { cores, idle, drain, memory, limits, relay, ports, listeners, pools })
}

/// A number of cores, or a list of CPUs.
fn cores<'t>(source: &mut Source<'t>, root: &mut Section<'_, 't>) -> Cores {
    let Some(value) = root.get("cores") else { return Cores::Count(1) };
    if value.get_ref().is_integer() {
        return Cores::Count(source.integer("cores", value, 1..=64).unwrap_or(1) as usize);
    }
    let mut cpus = Vec::new();
    for item in source.array("cores", value) {
        let Some(cpu) = source.integer("cores", item, 0..=1023) else { continue };
        let cpu = cpu as usize;
        if cpus.contains(&cpu) {
            source.problem(item.span(), format!("CPU {cpu} is named twice"), "name each CPU once");
        }
        cpus.push(cpu);
    }
    if cpus.is_empty() && source.is_sound() {
        source.problem(value.span(), "`cores` is empty", "name at least one CPU: `cores = [0]`");
    }
    Cores::Cpus(cpus)
}

fn memory<'t>(source: &mut Source<'t>, value: &Value<'t>) -> Memory {
    let default = Memory::default();
    let Some(mut section) = source.section("memory", value) else { return default };
    let buffers = section.integer(source, "buffers", 8192..=16_777_216);
    section.finish(source);
    Memory { buffers: buffers.map_or(default.buffers, |number| number as usize) }
}

/// Every call that may be in progress must have its buffers.
fn check_memory<'t>(source: &mut Source<'t>, root: &mut Section<'_, 't>, memory: Memory, limits: Limits) {
    let least = BUFFERS_BESIDES + limits.calls * BUFFERS_PER_CALL;
    if memory.buffers < least {
        let span = root.get("memory").or_else(|| root.get("limits")).map_or(0..0, Value::span);
        let calls = (memory.buffers.saturating_sub(BUFFERS_BESIDES)) / BUFFERS_PER_CALL;
        let what = format!("{} buffers are too few for {} calls in progress", memory.buffers, limits.calls);
        let mend = format!("write `buffers = {least}` in [memory], or `calls = {calls}` in [limits]");
        source.problem(span, what, mend);
    }
}

fn limits<'t>(source: &mut Source<'t>, value: &Value<'t>) -> Limits {
    let default = Limits::default();
    let Some(mut section) = source.section("limits", value) else { return default };
    let mut read = |key, range, default: usize| {
        section.integer(source, key, range).map_or(default, |number| number as usize)
    };
    let limits = Limits {
        calls: read("calls", 1..=1_000_000, default.calls),
        connections: read("connections", 1..=1_000_000, default.connections),
        peers: read("peers", 1..=1_000_000, default.peers),
    };
    section.finish(source);
    limits
}

fn relay<'t>(source: &mut Source<'t>, value: &Value<'t>) -> Relay {
    let default = Relay::default();
    let Some(mut section) = source.section("relay", value) else { return default };
    let ports = section.integer(source, "ports", 1..=16_000);
    let idle = section.integer(source, "idle_seconds", 60..=86_400);
    section.finish(source);
    Relay {
        ports: ports.map_or(default.ports, |number| number as usize),
        idle: idle.map_or(default.idle, Duration::from_secs),
    }
}

fn port<'t>(source: &mut Source<'t>, mut section: Section<'_, 't>) -> Option<PortConfig> {
    let url = section.require(source, "url", "url = \"af_packet:eth1\"");
    let url = url.and_then(|value| source.string("url", value)).map(str::to_string);
    let addresses = section.require(source, "addresses", "addresses = [\"192.0.2.10/24\"]");
    let addresses = addresses.map(|value| cidrs(source, "addresses", value)).unwrap_or_default();
    let subnets = if source.is_sound() { &addresses[..] } else { &[] };
    let gateways = section.get("gateways").map(|value| gateways(source, value, subnets)).unwrap_or_default();
    let mut routes = Vec::new();
    if let Some(value) = section.get("routes") {
        for item in source.array("routes", value) {
            routes.extend(route(source, item, subnets));
        }
    }
    let mtu = section.integer(source, "mtu", 576..=65_535).map(|mtu| mtu as usize);
    let vlan = section.integer(source, "vlan", 1..=4094).map(|vlan| vlan as u16);
    section.finish(source);
    Some(PortConfig { url: url?, addresses, gateways, routes, mtu, vlan })
}

const CIDR_SHAPE: &str = "an address and a prefix length, like \"192.0.2.10/24\" or \"2001:db8::10/64\"";

fn cidrs<'t>(source: &mut Source<'t>, key: &str, value: &Value<'t>) -> Vec<Cidr> {
    source.array(key, value).iter().filter_map(|item| source.parsed(key, item, CIDR_SHAPE)).collect()
}

fn gateways<'t>(source: &mut Source<'t>, value: &Value<'t>, addresses: &[Cidr]) -> Vec<IpAddr> {
    let mut gateways: Vec<IpAddr> = Vec::new();
    for item in source.array("gateways", value) {
        let Some(gateway) = router(source, "gateways", item, addresses) else { continue };
        if gateways.iter().any(|other| other.is_ipv4() == gateway.is_ipv4()) {
            let family = if gateway.is_ipv4() { "IPv4" } else { "IPv6" };
            let what = format!("`{gateway}` is a second default router for {family}");
            source.problem(item.span(), what, "keep one of each family; use `routes` for the rest");
        }
        gateways.push(gateway);
    }
    gateways
}

fn route<'t>(source: &mut Source<'t>, value: &Value<'t>, addresses: &[Cidr]) -> Option<Route> {
    let mut section = source.section("routes", value)?;
    let to = section.require(source, "to", "to = \"198.51.100.0/24\"");
    let to = to.and_then(|value| source.parsed("to", value, CIDR_SHAPE));
    let via = section.require(source, "via", "via = \"192.0.2.1\"");
    let via = via.and_then(|value| router(source, "via", value, addresses));
    section.finish(source);
    Some(Route { to: to?, via: via? })
}

/// A router's address, which must lie in a subnet of the port.
fn router<'t>(source: &mut Source<'t>, key: &str, value: &Value<'t>, addresses: &[Cidr]) -> Option<IpAddr> {
    let router: IpAddr = source.parsed(key, value, "an address like \"192.0.2.1\"")?;
    if !addresses.is_empty() && !addresses.iter().any(|subnet| subnet.contains(router)) {
        let what = format!("`{router}` is in no subnet of this port");
        source.problem(value.span(), what, format!("use a neighbour in one of: {}", list(addresses)));
    }
    Some(router)
}

const ENDPOINT_SHAPE: &str = "an address and a port, like \"192.0.2.10:7003\" or \"[2001:db8::10]:7003\"";

/// An address and a UDP port other than 0.
fn endpoint<'t>(source: &mut Source<'t>, key: &str, value: &Value<'t>) -> Option<SocketAddr> {
    let address: SocketAddr = source.parsed(key, value, ENDPOINT_SHAPE)?;
    if address.port() == 0 {
        source.problem(value.span(), format!("`{address}` has port 0"), "name the UDP port, 1 to 65535");
        return None;
    }
    Some(address)
}

fn pool<'t>(
    source: &mut Source<'t>,
    mut section: Section<'_, 't>,
    ports: &[PortConfig],
    names: &mut Vec<String>,
) -> Option<PoolConfig> {
    let name = section.require(source, "name", "name = \"vldb\"");
    let name = name.and_then(|value| pool_name(source, value, names));
    let mut backends = Vec::new();
    if let Some(value) = section.require(source, "backends", "backends = [\"198.51.100.1:7003\"]") {
        for item in source.array("backends", value) {
            let Some(address) = endpoint(source, "backends", item) else { continue };
            if backends.contains(&address) {
                let what = format!("backend `{address}` is named twice");
                source.problem(item.span(), what, "name each backend once");
            }
            if !is_reachable(address.ip(), ports) {
                let what = format!("no port reaches `{}`", address.ip());
                source.problem(
                    item.span(),
                    what,
                    "give a port an address in its subnet, a route, or a gateway",
                );
            }
            backends.push(address);
        }
        if backends.is_empty() {
            source.problem(value.span(), "`backends` names no server", "name at least one address:port");
        }
    }
    let calls = section.integer(source, "calls", 1..=1_000_000).unwrap_or(4096) as usize;
    let probe = section.get("probe").map(|value| probe(source, value)).unwrap_or_default();
    let timeouts = section.get("timeouts").map(|value| timeouts(source, value)).unwrap_or_default();
    let security = section.get("security").and_then(|value| security::of_pool(source, value));
    section.finish(source);
    Some(PoolConfig { name: name?, backends, calls, probe, timeouts, security })
}

/// A name that no other pool has.
fn pool_name<'t>(source: &mut Source<'t>, value: &Value<'t>, names: &mut Vec<String>) -> Option<String> {
    let name = source.string("name", value)?.to_string();
    if names.contains(&name) {
        source.problem(value.span(), format!("there are two pools `{name}`"), "give each a name of its own");
    }
    names.push(name.clone());
    Some(name)
}

/// Whether a port leads to the backend.
fn is_reachable(backend: IpAddr, ports: &[PortConfig]) -> bool {
    ports.is_empty() || ports.iter().any(|port| port.reach(backend).is_some())
}

fn probe<'t>(source: &mut Source<'t>, value: &Value<'t>) -> Probe {
    let default = Probe::default();
    let Some(mut section) = source.section("pool.probe", value) else { return default };
    let millis = |number: Option<u64>, default| number.map_or(default, Duration::from_millis);
    let probe = Probe {
        interval: millis(section.integer(source, "interval_ms", 10..=DAY_MS), default.interval),
        timeout: millis(section.integer(source, "timeout_ms", 5..=DAY_MS), default.timeout),
        failures: section
            .integer(source, "failures", 1..=1000)
            .map_or(default.failures, |number| number as u32),
        answers: section.integer(source, "answers", 1..=1000).map_or(default.answers, |number| number as u32),
    };
    if probe.timeout > probe.interval {
        let (timeout, interval) = (probe.timeout.as_millis(), probe.interval.as_millis());
        let what = format!("probes time out after {timeout} ms but are sent every {interval} ms");
        source.problem(value.span(), what, "make `timeout_ms` at most `interval_ms`");
    }
    section.finish(source);
    probe
}

fn timeouts<'t>(source: &mut Source<'t>, value: &Value<'t>) -> Timeouts {
    let default = Timeouts::default();
    let Some(mut section) = source.section("pool.timeouts", value) else { return default };
    let silence = section.integer(source, "silence_ms", 500..=DAY_MS);
    let call = section.integer(source, "call_ms", 1..=DAY_MS);
    section.finish(source);
    Timeouts {
        silence: silence.map_or(default.silence, Duration::from_millis),
        call: call.map(Duration::from_millis),
    }
}

fn listener<'t>(
    source: &mut Source<'t>,
    mut section: Section<'_, 't>,
    ports: &[PortConfig],
    pools: &[PoolConfig],
    taken: &mut Vec<SocketAddr>,
) -> Option<ListenerConfig> {
    let address = section.require(source, "address", "address = \"192.0.2.10:7003\"");
    let address = address.and_then(|value| listen_address(source, value, ports, taken));
    let mode = section.get("mode").map_or(Some(ListenerMode::Terminate), |value| mode(source, value));
    let security = section.get("security").and_then(|value| security::of_listener(source, value, mode));
    let mut services: Vec<ServiceConfig> = Vec::new();
    for item in section.sections(source, "service") {
        let span = item.span.clone();
        let Some(service) = service(source, item, pools) else { continue };
        for id in &service.ids {
            if services.iter().any(|other| other.ids.contains(id)) {
                let what = format!("service {id} is served twice by one listener");
                source.problem(span.clone(), what, "name each id in one [[listener.service]]");
            }
        }
        services.push(service);
    }
    if services.is_empty() && source.is_sound() {
        let mend = "add `[[listener.service]]` with `ids` and `pool` below it";
        source.problem(section.span.clone(), "this listener serves nothing", mend);
    }
    section.finish(source);
    Some(ListenerConfig { address: address?, mode: mode?, security, services })
}

fn listen_address<'t>(
    source: &mut Source<'t>,
    value: &Value<'t>,
    ports: &[PortConfig],
    taken: &mut Vec<SocketAddr>,
) -> Option<SocketAddr> {
    let address = endpoint(source, "address", value)?;
    if taken.contains(&address) {
        let mend = "put their services into one [[listener]]";
        source.problem(value.span(), format!("two listeners at `{address}`"), mend);
    }
    taken.push(address);
    let known = ports.iter().flat_map(|port| &port.addresses).any(|own| own.address == address.ip());
    if !known && !ports.is_empty() {
        source.problem(
            value.span(),
            format!("`{}` is no port's address", address.ip()),
            own_addresses(ports),
        );
    }
    Some(address)
}

fn mode<'t>(source: &mut Source<'t>, value: &Value<'t>) -> Option<ListenerMode> {
    let words = [("terminate", ListenerMode::Terminate), ("relay", ListenerMode::Relay)];
    source.word("mode", value, &words)
}

fn service<'t>(
    source: &mut Source<'t>,
    mut section: Section<'_, 't>,
    pools: &[PoolConfig],
) -> Option<ServiceConfig> {
    section.name = "[[listener.service]]".into();
    let mut ids = Vec::new();
    if let Some(value) = section.require(source, "ids", "ids = [52]") {
        for item in source.array("ids", value) {
            ids.extend(source.integer("ids", item, 1..=65_535).map(|id| id as u16));
        }
        if ids.is_empty() && source.is_sound() {
            source.problem(value.span(), "`ids` names no service", "name at least one: `ids = [52]`");
        }
    }
    let value = section.require(source, "pool", "pool = \"vldb\"");
    section.finish(source);
    let (value, name) = value.and_then(|value| Some((value, source.string("pool", value)?)))?;
    let pool = pools.iter().position(|pool| pool.name == name);
    if pool.is_none() && !pools.is_empty() {
        let names: Vec<&str> = pools.iter().map(|pool| pool.name.as_str()).collect();
        source.problem(value.span(), format!("there is no pool `{name}`"), did_you_mean(name, &names));
    }
    Some(ServiceConfig { ids, pool: pool? })
}

fn own_addresses(ports: &[PortConfig]) -> String {
    let own: Vec<Cidr> = ports.iter().flat_map(|port| port.addresses.iter().copied()).collect();
    format!("add it to a port's `addresses`, or use one of: {}", list(&own))
}

fn list(cidrs: &[Cidr]) -> String {
    cidrs.iter().map(Cidr::to_string).collect::<Vec<_>>().join(", ")
}
