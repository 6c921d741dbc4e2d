//! [`Machine`]: where facts come from: files below a root, and what the kernel told of its interfaces.

use std::fs;
use std::path::{Path, PathBuf};

use crate::net::Network;

/// What is looked at. `root` is `/`, or a made-up tree in tests.
pub struct Machine {
    root: PathBuf,
    /// Interfaces, addresses and routes of this network namespace.
    pub network: Network,
    /// The program that is to be given capabilities.
    pub program: PathBuf,
}

impl Machine {
    /// The machine that this runs on.
    pub fn here() -> Self {
        let program = std::env::current_exe().unwrap_or_else(|_| "rxline".into());
        Machine { root: "/".into(), network: Network::read(), program }
    }

    /// A made-up one.
    pub fn at(root: &Path, network: Network) -> Self {
        Machine { root: root.into(), network, program: "/usr/bin/rxline".into() }
    }

    /// Where `path`, written as below `/` without its slash, really is.
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.root.join(path)
    }

    /// A file's text without white space around it; `None` if there is no such file, or nothing to read in it.
    pub fn text(&self, path: impl AsRef<Path>) -> Option<String> {
        let text = fs::read_to_string(self.path(path)).ok()?;
        Some(text.trim().to_owned())
    }

    /// A number in decimal, or in hexadecimal with 0x.
    pub fn number(&self, path: impl AsRef<Path>) -> Option<i64> {
        let text = self.text(path)?;
        match text.strip_prefix("0x") {
            Some(hex) => i64::from_str_radix(hex, 16).ok(),
            None => text.parse().ok(),
        }
    }

    /// The names in a folder, in order; none if there is no such folder.
    pub fn names(&self, path: impl AsRef<Path>) -> Vec<String> {
        let entries = fs::read_dir(self.path(path)).into_iter().flatten().flatten();
        let mut names: Vec<_> =
            entries.filter_map(|entry| entry.file_name().to_str().map(str::to_owned)).collect();
        names.sort_unstable();
        names
    }

    /// Whether there is such a file.
    pub fn has(&self, path: impl AsRef<Path>) -> bool {
        self.path(path).exists()
    }

    /// The last part of what a symbolic link points to: how sysfs names a device's driver.
    pub fn link(&self, path: impl AsRef<Path>) -> Option<String> {
        let target = fs::read_link(self.path(path)).ok()?;
        Some(target.file_name()?.to_str()?.to_owned())
    }

    /// The value behind `key` in a file of lines such as `CapEff: 0000`.
    pub fn value(&self, path: impl AsRef<Path>, key: &str) -> Option<String> {
        let text = self.text(path)?;
        let mut lines = text.lines();
        lines.find_map(|line| Some(line.strip_prefix(key)?.strip_prefix(':')?.trim().to_owned()))
    }
}

/// The numbers of a list such as `0-3,8,10-11`, as the kernel writes sets of CPUs and nodes.
pub(crate) fn list(text: &str) -> Vec<usize> {
    let range = |part: &str| {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let (from, to) = (from.trim().parse().ok()?, to.trim().parse::<usize>().ok()?);
        // No machine has more; a file that says so is not believed.
        (to < 1 << 16).then_some(from..=to)
    };
    text.split(',').filter_map(range).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::list;

    #[test]
    fn the_kernels_lists_are_read() {
        assert_eq!(list("0-2,8"), [0, 1, 2, 8]);
        assert_eq!(list(""), [0usize; 0]);
        assert_eq!(list("(null)"), [0usize; 0]);
        assert_eq!(list("0-99999999999"), [0usize; 0]);
    }
}
