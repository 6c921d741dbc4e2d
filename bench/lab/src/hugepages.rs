//! Hugepages for a step: reserved, and what there was put back.

use std::fs;

use crate::fault::{Context, Result, ensure};
use crate::step::Cx;

const SETTING: &str = "/proc/sys/vm/nr_hugepages";

/// At least so many pages are reserved while it lives.
pub struct Hugepages {
    before: usize,
    raised: bool,
}

impl Hugepages {
    /// Reserves pages of the default size, where there are fewer.
    pub fn reserve(cx: &Cx<'_>, pages: usize) -> Result<Hugepages> {
        let before = reserved()?;
        let raised = before < pages;
        if raised {
            fs::write(SETTING, pages.to_string()).context(|| format!("write {pages} to {SETTING}"))?;
        }
        let held = Hugepages { before, raised };
        let now = reserved()?;
        ensure!(now >= pages, "{pages} hugepages wanted, the kernel found memory for {now}");
        cx.log.line(format!("{now} hugepages, {before} before"));
        Ok(held)
    }

    /// Pages that nobody has mapped.
    pub fn free(&self) -> Result<usize> {
        let meminfo = fs::read_to_string("/proc/meminfo").context(|| "read /proc/meminfo".into())?;
        let line = meminfo.lines().find_map(|line| line.strip_prefix("HugePages_Free:"));
        Ok(line.and_then(|count| count.trim().parse().ok()).unwrap_or(0))
    }
}

impl Drop for Hugepages {
    fn drop(&mut self) {
        if self.raised {
            let _ = fs::write(SETTING, self.before.to_string());
        }
    }
}

fn reserved() -> Result<usize> {
    let text = fs::read_to_string(SETTING).context(|| format!("read {SETTING}"))?;
    Ok(text.trim().parse().unwrap_or(0))
}
