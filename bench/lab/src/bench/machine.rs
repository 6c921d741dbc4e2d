//! What the figures were measured on. Figures of different machines are not to be compared; their ratios may be.

use std::fs::read_to_string;

use serde::Serialize;

/// The machine as the kernel describes it.
#[derive(Debug, Serialize)]
pub struct Machine {
    /// The processor's name.
    pub cpu: String,
    /// Whether it is a virtual machine.
    pub hypervisor: bool,
    /// CPUs that this program may use.
    pub cpus: usize,
    /// The kernel's release.
    pub kernel: String,
    /// Memory in kB.
    pub memory_kb: u64,
    /// Huge pages reserved, of the default size.
    pub huge_pages: u64,
    /// Programs that wanted a CPU in the last minute, on average, before anything was measured.
    pub load_1min: f64,
}

impl Machine {
    /// This one. What the kernel does not tell is empty or zero.
    pub fn describe() -> Machine {
        let text = |path: &str| read_to_string(path).unwrap_or_default();
        let (cpuinfo, meminfo) = (text("/proc/cpuinfo"), text("/proc/meminfo"));
        let number = |name| field(&meminfo, name).split(' ').next().and_then(|word| word.parse().ok());
        Machine {
            cpu: field(&cpuinfo, "model name").into(),
            hypervisor: field(&cpuinfo, "flags").split(' ').any(|flag| flag == "hypervisor"),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: text("/proc/sys/kernel/osrelease").trim().into(),
            memory_kb: number("MemTotal").unwrap_or_default(),
            huge_pages: number("HugePages_Total").unwrap_or_default(),
            load_1min: text("/proc/loadavg")
                .split(' ')
                .next()
                .and_then(|word| word.parse().ok())
                .unwrap_or(0.0),
        }
    }
}

/// What stands behind `name:` in the first line that begins with it.
fn field<'t>(text: &'t str, name: &str) -> &'t str {
    let value = |line: &'t str| Some(line.strip_prefix(name)?.trim_start().strip_prefix(':')?.trim());
    text.lines().find_map(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let text = "model\t\t: 2\nmodel name\t: A CPU @ 3 GHz\nHugePages_Total:      12\n";
        assert_eq!(field(text, "model name"), "A CPU @ 3 GHz");
        assert_eq!(field(text, "HugePages_Total"), "12");
        assert_eq!(field(text, "nothing"), "");
    }
}
