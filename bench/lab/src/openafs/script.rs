//! What clients ask for: the same commands through the gateway and against a server itself.

use std::fmt;

/// One command of OpenAFS's.
#[derive(Clone, Debug)]
pub struct Line {
    /// `vos` or `pts`.
    pub tool: &'static str,
    /// Its arguments, those that say who and where excepted.
    pub args: Vec<String>,
    /// What it reads.
    pub stdin: String,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.tool, self.args.join(" "))
    }
}

fn line(tool: &'static str, words: &str) -> Line {
    Line { tool, args: words.split_whitespace().map(str::to_string).collect(), stdin: String::new() }
}

fn vos(words: &str) -> Line {
    line("vos", words)
}

fn pts(words: &str) -> Line {
    line("pts", words)
}

fn names(prefix: &str, range: std::ops::RangeInclusive<usize>) -> String {
    range.map(|number| format!("{prefix}{number}")).collect::<Vec<_>>().join(" ")
}

/// Commands that change both databases, with looks at them in between, and some that are refused.
pub fn changes() -> Vec<Line> {
    let mut lines = vec![
        vos("listvldb"),
        vos("lock -id vol.3"),
        vos("listvldb -locked"),
        vos("unlock -id vol.3"),
        vos("delentry -id vol.9"),
        vos("setaddrs -uuid 00a1b2c3-1111-2222-33-44-0123456789ab -host 10.61.2.201 10.61.2.202"),
        vos("changeaddr -oldaddr 10.61.2.77 -newaddr 10.61.2.78"),
        vos("listvldb -name nosuch"),
    ];
    // One process and so one Rx connection for each of the first two hundred; then many calls on one connection.
    lines.extend((1..=200).map(|number| pts(&format!("createuser -name user{number}"))));
    lines.push(pts(&format!("createuser -name {}", names("user", 201..=300))));
    let groups = names("group", 1..=30);
    lines.push(pts(&format!("creategroup -name {groups} -owner system:administrators")));
    lines.push(pts(&format!("adduser -user {} -group {}", names("user", 1..=20), names("group", 1..=4))));
    lines.push(pts(&format!("adduser -user {} -group group6", names("user", 1..=120))));
    let typed = "createuser -name typed1\ncreateuser -name typed2\nlistmax\nexamine typed2\n";
    lines.push(Line { stdin: typed.into(), ..pts("interactive") });
    lines.extend([
        pts("createuser -name user7"),
        pts("createuser -name twice -id 7"),
        pts("creategroup -name nobody:group"),
        pts("examine nosuch"),
        pts("adduser -user user1 -group nosuch"),
        pts("rename user8 renamed"),
        pts("setfields user9 -access SOMar -groupquota 30"),
        pts("chown group2 group3"),
        pts("membership group1"),
        pts(&format!("removeuser -user {} -group group1", names("user", 11..=20))),
        pts(&format!("delete {} group30 group29", names("user", 281..=300))),
        pts("delete nosuch"),
    ]);
    lines
}

/// A few commands that change and read both databases, each time with other names and another volume.
pub fn few_changes(number: usize) -> Vec<Line> {
    let volume = format!("vol.{}", 10 + number);
    let user = |n: usize| format!("keyed{number}x{n}");
    vec![
        vos(&format!("lock -id {volume}")),
        vos("listvldb -locked"),
        vos(&format!("listvldb -name {volume}")),
        vos(&format!("unlock -id {volume}")),
        vos(&format!("delentry -id vol.{}", 20 + number)),
        vos(&format!("listvldb -name nosuch{number}")),
        pts(&format!("createuser -name {}", user(1))),
        pts(&format!("createuser -name {}", names(&format!("keyed{number}y"), 1..=20))),
        pts(&format!("creategroup -name keyed{number} -owner system:administrators")),
        pts(&format!("adduser -user {} -group keyed{number}", names(&format!("keyed{number}y"), 1..=20))),
        pts(&format!("membership keyed{number}")),
        pts(&format!("examine {}", user(1))),
        pts(&format!("delete {}", user(1))),
        pts(&format!("examine {}", user(1))),
        vos("listvldb"),
        pts("listentries -users -groups"),
    ]
}

/// Commands that only read; the answers are long, short, many at once, and empty.
pub fn reads() -> Vec<Line> {
    vec![
        vos("listvldb"),
        vos("listvldb -server 10.61.2.11"),
        vos("listvldb -name vol.17"),
        vos("listvldb -name vol.9"),
        vos("listaddrs"),
        vos("listaddrs -printuuid"),
        pts("listentries -users -groups"),
        pts("listentries -groups"),
        pts("listmax"),
        pts("membership group6"),
        pts("membership group1"),
        pts("membership user5"),
        pts("listowned system:administrators"),
        pts("listowned group3"),
        pts(&format!("examine {}", names("user", 1..=100))),
        pts("examine renamed user9 group1"),
        pts("membership nosuch"),
    ]
}
