//! A step's log: one file, lines with the seconds since the step began.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::fault::{Context, Result};

/// A clonable handle; threads of a step share it.
#[derive(Clone)]
pub struct Log {
    shared: Arc<Shared>,
}

struct Shared {
    path: PathBuf,
    file: Mutex<File>,
    begun: Instant,
}

/// More of one program's output than this stays out of the log; the head and the tail are kept.
const EXCERPT: usize = 40_000;

impl Log {
    /// Starts an empty log.
    pub fn create(path: &Path) -> Result<Log> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).context(|| format!("create {}", folder.display()))?;
        }
        // Children append to the same file, so everyone has to.
        File::create(path).context(|| format!("create {}", path.display()))?;
        let file = File::options().append(true).open(path).context(|| format!("open {}", path.display()))?;
        let shared = Shared { path: path.into(), file: Mutex::new(file), begun: Instant::now() };
        Ok(Log { shared: Arc::new(shared) })
    }

    /// Where it is kept.
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    /// For a child to write into directly.
    pub fn file(&self) -> Result<File> {
        let path = self.path();
        File::options().append(true).open(path).context(|| format!("open {}", path.display()))
    }

    /// One remark.
    pub fn line(&self, text: impl AsRef<str>) {
        let seconds = self.shared.begun.elapsed().as_secs_f64();
        self.write(&format!("[{seconds:8.3}] {}\n", text.as_ref()));
    }

    /// What a program printed.
    pub fn block(&self, text: &str) {
        if text.is_empty() {
            return;
        }
        let text = text.trim_end_matches('\n');
        if text.len() <= EXCERPT {
            return self.write(&format!("{text}\n"));
        }
        let head: String = text.chars().take(EXCERPT / 2).collect();
        let tail: Vec<char> = text.chars().rev().take(EXCERPT / 2).collect();
        let tail: String = tail.into_iter().rev().collect();
        self.write(&format!("{head}\n[.. {} bytes in all ..]\n{tail}\n", text.len()));
    }

    fn write(&self, text: &str) {
        let mut file = self.shared.file.lock().unwrap_or_else(PoisonError::into_inner);
        // A full disk must not turn a passing step into a failing one.
        let _ = file.write_all(text.as_bytes());
    }
}
