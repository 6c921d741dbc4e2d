//! A veth pair of the kernel's, for tests that run as root in a network namespace of their own.

use std::process::Command;

/// Runs a program of the system's; what it printed.
pub fn run(program: &str, arguments: &str) -> String {
    let output = Command::new(program).args(arguments.split_whitespace()).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments}: {said}{complaint}");
    said
}

pub fn ip(arguments: &str) -> String {
    run("ip", arguments)
}

/// A veth pair that is removed at the end.
pub struct Veth {
    pub ends: [String; 2],
}

impl Veth {
    /// The ends are called `name` and a letter; both are made with `options`.
    pub fn new(name: &str, options: &str) -> Veth {
        let ends = ["a", "b"].map(|end| format!("{name}{end}"));
        // A run that was killed may have left it.
        let _ = Command::new("ip").args(["link", "del", &ends[0]]).output();
        ip(&format!("link add {} {options} type veth peer name {} {options}", ends[0], ends[1]));
        for end in &ends {
            // Without router solicitations and the like, the wire is idle.
            ip(&format!("link set {end} addrgenmode none up"));
        }
        Veth { ends }
    }

    /// The URL of a driver on an end.
    pub fn url(&self, driver: &str, end: usize, options: &str) -> String {
        format!("{driver}:{}{options}", self.ends[end])
    }

    /// Takes an end down or up.
    pub fn set_link(&self, end: usize) -> Box<dyn Fn(bool)> {
        let end = self.ends[end].clone();
        Box::new(move |up| drop(ip(&format!("link set {end} {}", if up { "up" } else { "down" }))))
    }
}

impl Drop for Veth {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["link", "del", &self.ends[0]]).output();
    }
}
