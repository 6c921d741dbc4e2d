use super::*;

const EXAMPLE: &str = include_str!("../../examples/gateway.toml");

/// The example with one line replaced.
fn with(old: &str, new: &str) -> String {
    assert!(EXAMPLE.contains(old), "the example has no {old:?}");
    EXAMPLE.replacen(old, new, 1)
}

fn problems(text: &str) -> Vec<Problem> {
    Config::parse("gw.toml", text).expect_err("it should be refused").problems
}

/// The place of `needle` in `text`, as an editor shows it.
fn place(text: &str, needle: &str) -> (usize, usize) {
    let offset = text.find(needle).expect("needle");
    let line = text[..offset].matches('\n').count() + 1;
    (line, offset - text[..offset].rfind('\n').map_or(0, |at| at + 1) + 1)
}

/// Replaces a line and expects exactly one complaint, at `at`, that says `what` and `mend`.
fn refused(old: &str, new: &str, at: &str, what: &str, mend: &str) {
    let text = with(old, new);
    let problems = problems(&text);
    assert_eq!(problems.len(), 1, "{problems:#?}");
    assert_eq!((problems[0].line, problems[0].column), place(&text, at), "{problems:#?}");
    assert!(problems[0].what.contains(what), "{problems:#?}");
    assert!(problems[0].mend.contains(mend), "{problems:#?}");
}

#[test]
fn the_example_is_sound() {
    let config = Config::parse("gateway.toml", EXAMPLE).expect("sound");
    assert_eq!(config.cores, Cores::Cpus(vec![0]));
    assert_eq!(Config::parse("", &with("cores = [0]", "cores = 2")).unwrap().cores, Cores::Count(2));
    assert_eq!(config.ports.len(), 2);
    assert_eq!(config.ports[0].gateways, ["192.0.2.1".parse::<IpAddr>().unwrap()]);
    assert_eq!(config.listeners[0].address, "192.0.2.10:7003".parse().unwrap());
    assert_eq!(config.listeners[1].services, [ServiceConfig { ids: vec![73], pool: 1 }]);
    assert_eq!(config.pools[0].probe, Probe::default());
    assert_eq!(config.pools[0].timeouts, Timeouts::default());
    assert_eq!((config.limits, config.memory), (Limits::default(), Memory::default()));
    assert_eq!(config.pools[0].backends.len(), 2);
}

#[test]
fn unknown_keys_are_named_with_the_nearest_known_one() {
    refused("idle = ", "idel = ", "idel", "no key `idel`", "did you mean `idle`?");
    refused("buffers = 65536", "bufers = 65536", "bufers", "no key `bufers`", "`buffers`");
    refused("answers = 1 ", "answer = 1 ", "answer = 1", "no key `answer`", "`answers`");
    refused("[limits]", "[limit]", "limit]", "no key `limit`", "`limits`");
    refused("calls = 2048\n", "zzz = 2048\n", "zzz", "no key `zzz`", "use one of: calls, connections");
}

#[test]
fn values_are_quoted_and_the_mend_says_the_range_or_the_kind() {
    refused("drain_seconds = 10", "drain_seconds = -4", "-4", "`drain_seconds = -4`", "from 0 to 86400");
    refused("cores = [0]", "cores = 0", "0     ", "`cores = 0` is out of range", "from 1 to 64");
    refused("cores = [0]", "cores = \"0\"", "\"0\"", "is a string", "a list");
    refused("cores = [0]", "cores = [0, 0]", "0]", "CPU 0 is named twice", "once");
    refused("idle = \"sleep\"", "idle = \"slep\"", "\"slep\"", "`idle = \"slep\"`", "did you mean `sleep`?");
    refused("buffers = 65536", "buffers = \"many\"", "\"many\"", "is a string", "a whole number");
}

#[test]
fn each_call_must_have_its_buffers() {
    let mend = "write `buffers = 53248` in [memory], or `calls = 512` in [limits]";
    refused(
        "buffers = 65536",
        "buffers = 16384",
        "[memory]",
        "16384 buffers are too few for 2048 calls",
        mend,
    );
}

#[test]
fn the_relays_example_is_sound() {
    let text = include_str!("../../examples/relay.toml");
    let config = Config::parse("relay.toml", text).expect("sound");
    assert!(config.listeners.iter().all(|listener| listener.mode == ListenerMode::Relay));
    assert_eq!(config.relay, Relay::default());
    assert_eq!(config.relayed_backends().count(), 3);
}

#[test]
fn a_listener_may_relay() {
    let relay = Config::parse("", &with("mode = \"terminate\"", "mode = \"relay\"")).unwrap();
    assert_eq!(
        relay.listeners.iter().map(|listener| listener.mode).collect::<Vec<_>>(),
        [ListenerMode::Relay, ListenerMode::Terminate]
    );
    assert_eq!(relay.relay_sources(), ["198.51.100.10".parse::<IpAddr>().unwrap()]);
    let terminate = Config::parse("", EXAMPLE).unwrap();
    assert_eq!(terminate.relay_sources(), [] as [IpAddr; 0], "no ports for nobody");
    refused("mode = \"terminate\"", "mode = \"rely\"", "\"rely\"", "not one of its words", "`relay`");
}

#[test]
fn the_example_with_keys_is_sound() {
    let text = include_str!("../../examples/rxkad.toml");
    let config = Config::parse("rxkad.toml", text).expect("sound");
    let [listener] = &config.listeners[..] else { panic!("one listener") };
    let asked = listener.security.as_ref().expect("it asks for proof");
    assert_eq!((asked.level, asked.anonymous), (rxrpc::Level::Auth, false));
    let cell = "EXAMPLE.ORG".into();
    let admin = User::Named { name: "admin".into(), instance: String::new(), cell };
    assert_eq!(asked.users, [User::local(), admin]);
    let proof = config.pools[0].security.as_ref().expect("it has a proof");
    assert_eq!(proof.level, rxrpc::Level::Encrypt);
    assert_eq!(proof.keys.keyfile_ext, Some("/etc/openafs/server/KeyFileExt".into()));
    let everything = text.replace("# ccache", "ccache").replace("# principal", "principal");
    assert!(problems(&everything)[0].what.contains("and a `ccache`"), "both is one too many");
    let ccache = everything.replacen("keyfile_ext", "# keyfile_ext", 1);
    let proof = Config::parse("", &ccache).expect("sound").pools[0].security.clone().expect("a proof");
    assert!(proof.keys.is_empty() && proof.ccache == Some("/run/rxline/krb5cc".into()));
}

/// As [`refused`], in the example with keys.
fn refused_with_keys(old: &str, new: &str, at: &str, what: &str, mend: &str) {
    let text = include_str!("../../examples/rxkad.toml");
    assert!(text.contains(old), "the example has no {old:?}");
    let text = text.replacen(old, new, 1);
    let problems = problems(&text);
    assert_eq!(problems.len(), 1, "{problems:#?}");
    assert_eq!((problems[0].line, problems[0].column), place(&text, at), "{problems:#?}");
    assert!(problems[0].what.contains(what) && problems[0].mend.contains(mend), "{problems:#?}");
}

#[test]
fn security_sections_say_what_is_missing() {
    let auth = "level = \"auth\"   ";
    refused_with_keys(auth, "level = \"aut\"", "\"aut\"", "`level = \"aut\"`", "did you mean `auth`?");
    refused_with_keys(auth, "#", "[listener.security]", "no `level`", "level = \"encrypt\"");
    refused_with_keys(auth, "levl = 1\nlevel = \"auth\"", "levl", "no key `levl`", "did you mean `level`?");
    let users = "users = [\"afs\", \"admin@EXAMPLE.ORG\"]";
    refused_with_keys(users, "users = []", "[] ", "admits nobody", "\"*\"");
    refused_with_keys(users, "users = [\"host/a\"]", "\"host/a\"", "cannot be read", "a principal like");
    refused_with_keys("# anonymous = true", "anonymous = 1", "1     ", "a whole number", "true or false");
    let listener = "keyfile_ext = \"/etc/openafs/server/KeyFileExt\"      # or keyfile";
    refused_with_keys(listener, "# or keyfile", "[listener.security]", "names no keys", "`keytab`");
    let pool = "keyfile_ext = \"/etc/openafs/server/KeyFileExt\"      # makes";
    refused_with_keys(pool, "# makes", "[pool.security]", "neither keys nor a ticket", "`ccache`");
    let ccache = "ccache = \"/tmp/krb5cc_0\" # makes";
    refused_with_keys(pool, ccache, "[pool.security]", "which ticket", "principal = ");
}

#[test]
fn proofs_that_nobody_needs_are_complained_about() {
    let section = "address = \"192.0.2.10:7003\"\n";
    let relay = format!("{section}mode = \"relay\"\n");
    refused_with_keys(section, &relay, "[listener.security]", "no use for keys", "`mode = \"terminate\"`");
    let text = include_str!("../../examples/rxkad.toml");
    let (before, rest) = text.split_once("[listener.security]").expect("a section");
    let (_, after) = rest.split_once("[[listener.service]]").expect("a section");
    let text = format!("{before}[[listener.service]]{after}");
    let problems = problems(&text);
    assert_eq!(problems.len(), 1, "{problems:#?}");
    assert_eq!((problems[0].line, problems[0].column), place(&text, "[[pool]]"), "{problems:#?}");
    assert!(problems[0].what.contains("nobody's calls"), "{problems:#?}");
}

#[test]
fn users_are_principals_as_rxkad_has_them() {
    let named = |name: &str, instance: &str, cell: &str| User::Named {
        name: name.into(),
        instance: instance.into(),
        cell: cell.into(),
    };
    for (text, user) in [
        ("*", User::Anybody),
        ("afs", User::local()),
        ("admin@EXAMPLE.ORG", named("admin", "", "EXAMPLE.ORG")),
        ("jo.admin@example.org", named("jo", "admin", "example.org")),
        ("rcmd.host1.example", named("rcmd", "host1.example", "")),
    ] {
        assert_eq!(text.parse(), Ok(user), "{text}");
    }
    for wrong in ["", "@CELL", ".admin", "a b", "host/a@CELL", "admin@", "jo."] {
        assert!(wrong.parse::<User>().is_err(), "{wrong:?}");
    }
    let who = rxrpc::Identity { name: "admin".into(), cell: "EXAMPLE.ORG".into(), ..Default::default() };
    assert!(User::Anybody.is(&who) && named("admin", "", "EXAMPLE.ORG").is(&who));
    for other in [User::local(), named("admin", "", ""), named("admin", "x", "EXAMPLE.ORG")] {
        assert!(!other.is(&who), "{other:?}");
    }
}

#[test]
fn what_relaying_may_take_is_bounded() {
    let some = "[relay]\nports = 10\nidle_seconds = 60\n\n[limits]";
    let parsed = Config::parse("", &with("[limits]", some)).unwrap();
    assert_eq!(parsed.relay, Relay { ports: 10, idle: Duration::from_secs(60) });
    let with_relay = |line: &str| format!("[relay]\n{line}\n\n[limits]");
    refused("[limits]", &with_relay("ports = 20000"), "20000", "`ports = 20000`", "from 1 to 16000");
    refused("[limits]", &with_relay("idle_seconds = 5"), "5\n", "`idle_seconds = 5`", "from 60 to 86400");
    refused("[limits]", &with_relay("port = 5"), "port = 5", "no key `port`", "`ports`");
}

#[test]
fn addresses_must_be_own_and_backends_reachable() {
    let own = "192.0.2.10/24, 2001:db8::10/64";
    refused("\"192.0.2.10:7003\"", "\"192.0.2.11:7003\"", "\"192.0.2.11:7003\"", "no port's address", own);
    refused(
        "\"192.0.2.10:7003\"",
        "\"192.0.2.10\"",
        "\"192.0.2.10\"\n",
        "cannot be read",
        "address and a port",
    );
    refused("\"192.0.2.10:7003\"", "\"192.0.2.10:0\"", "\"192.0.2.10:0\"", "port 0", "1 to 65535");
    let off = "gateways = [\"192.0.2.1\"]    # default routers, one of each family\n";
    let v6 = "\"[2001:db8:1::1]:7003\"";
    refused("\"198.51.100.2:7003\"", v6, v6, "no port reaches `2001:db8:1::1`", "a route, or a gateway");
    assert!(Config::parse("", &with(off, "")).is_ok(), "servers in a subnet need no default router");
    refused("gateways = [\"192.0.2.1\"]", "gateways = [\"10.1.1.1\"]", "\"10.1.1.1\"", "no subnet", own);
    let (bad, shape) = ("\"192.0.2.10/33\", \"2001:db8::10/64\"", "prefix length");
    refused("\"192.0.2.10/24\", \"2001:db8::10/64\"", bad, "\"192.0.2.10/33\"", "cannot be read", shape)
}

#[test]
fn names_must_resolve_and_be_unique() {
    refused("pool = \"vldb\"", "pool = \"vdlb\"", "\"vdlb\"", "no pool `vdlb`", "did you mean `vldb`?");
    refused(
        "\"192.0.2.10:7002\"",
        "\"192.0.2.10:7003\"",
        "\"192.0.2.10:7003\"\n\n[[listener.service]]\nids = [73]",
        "two listeners",
        "one [[listener]]",
    );
    refused(
        "\"198.51.100.2:7003\"",
        "\"198.51.100.1:7003\"",
        "\"198.51.100.1:7003\"]",
        "named twice",
        "once",
    );
    refused("ids = [52] ", "ids = [] ", "[] ", "names no service", "ids = [52]");
}

#[test]
fn every_mistake_is_reported_in_the_order_of_the_file() {
    let text = "cores = [0, true]\nidle = \"nap\"\n[[port]]\naddresses = [\"x\"]\n[[pool]]\nnmae = \"a\"\n";
    let lines: Vec<usize> = problems(text).iter().map(|problem| problem.line).collect();
    assert_eq!(lines, [1, 2, 3, 4, 5, 5, 6], "{:#?}", problems(text));
}

#[test]
fn syntax_errors_have_places_too() {
    let found = problems("cores = [0\nidle = \"sleep\"\n");
    assert!(found.iter().all(|problem| problem.line > 0), "{found:#?}");
}

#[test]
fn an_error_reads_as_file_line_column_value_and_mend() {
    let error = Config::parse("gw.toml", &with("idle = \"sleep\"", "idle = 3")).unwrap_err();
    let expected = "gw.toml:6:8: `idle = 3` is a whole number\n    mend: write a string in quotes";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn an_idle_policy_may_say_how_long_to_spin() {
    let idle =
        |text: &str| Config::parse("gw.toml", &with("idle = \"sleep\"", text)).map(|config| config.idle);
    assert_eq!(idle("idle = \"pause\"").unwrap(), engine::Idle::Pause);
    assert_eq!(idle("idle = \"sleep:2000\"").unwrap(), "sleep:2000".parse().unwrap());
    assert_eq!(idle("").unwrap(), engine::Idle::default());
    let error = idle("idle = \"sleep:long\"").unwrap_err().to_string();
    assert!(error.contains("`idle = \"sleep:long\"` is not one of its words"), "{error}");
}

#[test]
fn a_missing_file_is_a_readable_error() {
    let error = Config::load(Path::new("/nonexistent/gw.toml")).unwrap_err().to_string();
    assert!(error.starts_with("/nonexistent/gw.toml: cannot read it: No such file"), "{error}");
}

#[test]
fn a_subnet_contains_its_hosts_and_no_others() {
    let v4: Cidr = "192.0.2.10/24".parse().unwrap();
    assert!(v4.contains("192.0.2.255".parse().unwrap()));
    assert!(!v4.contains("192.0.3.0".parse().unwrap()));
    assert!(!v4.contains("2001:db8::1".parse().unwrap()));
    let everything: Cidr = "::/0".parse().unwrap();
    assert!(everything.contains("2001:db8::1".parse().unwrap()));
    let host: Cidr = "192.0.2.10/32".parse().unwrap();
    assert!(!host.contains("192.0.2.11".parse().unwrap()));
}
