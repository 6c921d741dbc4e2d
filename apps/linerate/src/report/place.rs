//! The directory of a report. It is looked at before the run, so that no run is in vain.
//!
//! A directory that is not there is made; an empty one is taken. One with an earlier report of ours is taken too: it is known by its report.json,
//! whose `format` is ours, and by holding no file but a report's. Anything else is refused, so that nothing of anybody else is overwritten.

use std::fs::{self, DirEntry};
use std::io;
use std::path::{Path, PathBuf};

use super::{FORMAT, Report, csv, html};

const PAGE: &str = "index.html";
const JSON: &str = "report.json";

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// There is something else.
    #[error(
        "{} is neither empty nor an earlier report: it has {what}; give another directory, or empty this one (an earlier report is known by \
         its {JSON} with \"format\": \"{FORMAT}\", and by holding nothing but a report's files)",
        dir.display()
    )]
    Occupied {
        /// The directory.
        dir: PathBuf,
        /// What is in it.
        what: String,
    },
    /// The system refused.
    #[error("cannot write the report: {}: {source}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A plot cannot be drawn.
    #[error("cannot draw {what}: {why}")]
    Plot {
        /// Which.
        what: &'static str,
        /// Why.
        why: String,
    },
}

impl PlaceError {
    fn io(path: &Path) -> impl FnOnce(io::Error) -> PlaceError {
        let path = path.to_owned();
        move |source| PlaceError::Io { path, source }
    }
}

/// A directory that a report may be written to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place(PathBuf);

impl Place {
    /// This directory, which is made if it is not there.
    pub fn take(dir: &Path) -> Result<Place, PlaceError> {
        fs::create_dir_all(dir).map_err(PlaceError::io(dir))?;
        let entries = fs::read_dir(dir).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        let entries = entries.map_err(PlaceError::io(dir))?;
        let occupied = |what: String| PlaceError::Occupied { dir: dir.to_owned(), what };
        if let Some(other) = entries.iter().find(|entry| !is_reports(entry)) {
            return Err(occupied(format!("{:?}", other.file_name())));
        }
        if !entries.is_empty() && !is_ours(&dir.join(JSON)) {
            return Err(occupied(format!("no {JSON} of ours")));
        }
        Ok(Place(dir.to_owned()))
    }

    /// Writes the report, in place of an earlier one; returns the page.
    pub fn write(&self, report: &Report) -> Result<PathBuf, PlaceError> {
        let json = serde_json::to_string_pretty(report).expect("plain data") + "\n";
        let page = html::page(report)?;
        // First what makes the directory known for ours, should the rest fail.
        self.put(JSON, &json)?;
        for (name, table) in csv::tables(report) {
            match table {
                Some(text) => self.put(name, &text)?,
                None => self.remove(name)?,
            }
        }
        self.put(PAGE, &page)?;
        Ok(self.0.join(PAGE))
    }

    /// A file that is there whole or not at all.
    fn put(&self, name: &str, text: &str) -> Result<(), PlaceError> {
        let (path, beside) = (self.0.join(name), self.0.join(format!("{name}{UNFINISHED}")));
        fs::write(&beside, text).map_err(PlaceError::io(&beside))?;
        fs::rename(&beside, &path).map_err(PlaceError::io(&path))
    }

    /// What an earlier report had and this one has not.
    fn remove(&self, name: &str) -> Result<(), PlaceError> {
        let path = self.0.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(PlaceError::io(&path)(error)),
            _ => Ok(()),
        }
    }
}

const UNFINISHED: &str = ".unfinished";

/// Whether this is a file of a report, by its name.
fn is_reports(entry: &DirEntry) -> bool {
    let name = entry.file_name();
    let Some(name) = name.to_str().map(|name| name.strip_suffix(UNFINISHED).unwrap_or(name)) else {
        return false;
    };
    let ours = [PAGE, JSON].contains(&name) || csv::NAMES.contains(&name);
    ours && entry.file_type().is_ok_and(|kind| kind.is_file())
}

fn is_ours(json: &Path) -> bool {
    let Ok(text) = fs::read(json) else { return false };
    let Ok(value) = serde_json::from_slice::<serde_json::Value>(&text) else { return false };
    value["format"] == FORMAT
}

#[cfg(test)]
mod tests {
    use super::super::tests::report;
    use super::*;

    /// A directory of the test's own, removed with it.
    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Dir {
            let dir = std::env::temp_dir().join(format!("linerate-report-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&dir);
            Dir(dir)
        }

        fn names(&self) -> Vec<String> {
            let entries = fs::read_dir(&self.0).unwrap();
            let mut names: Vec<_> =
                entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_report_is_written_and_may_be_written_again() {
        let dir = Dir::new("again");
        let place = Place::take(&dir.0.join("a/b")).unwrap();
        let page = place.write(&report()).unwrap();
        assert!(page.is_file());
        let of = Dir(dir.0.join("a/b"));
        let all = of.names();
        assert_eq!(all.len(), 2 + csv::NAMES.len(), "{all:?}");
        // One without RFC 2544 leaves none of its tables behind.
        let mut other = report();
        other.rfc2544 = None;
        Place::take(&of.0).unwrap().write(&other).unwrap();
        assert_eq!(of.names(), ["index.html", "rates.csv", "report.json"]);
    }

    #[test]
    fn what_is_not_ours_is_refused_and_not_touched() {
        let dir = Dir::new("foreign");
        fs::create_dir_all(&dir.0).unwrap();
        assert!(Place::take(&dir.0).is_ok(), "an empty directory");
        fs::write(dir.0.join("index.html"), "mine").unwrap();
        let error = Place::take(&dir.0).unwrap_err().to_string();
        assert!(error.contains("no report.json of ours"), "{error}");
        fs::write(dir.0.join("report.json"), "{\"format\": \"another\"}").unwrap();
        assert!(Place::take(&dir.0).is_err());
        // A report of ours, and something of somebody else beside it.
        Place(dir.0.clone()).write(&report()).unwrap();
        fs::write(dir.0.join("thesis.tex"), "mine").unwrap();
        let error = Place::take(&dir.0).unwrap_err().to_string();
        assert!(error.contains("\"thesis.tex\""), "{error}");
        assert_eq!(fs::read_to_string(dir.0.join("thesis.tex")).unwrap(), "mine");
    }

    #[test]
    fn a_place_that_cannot_be_is_said_by_name() {
        let dir = Dir::new("file");
        fs::create_dir_all(&dir.0).unwrap();
        let file = dir.0.join("file");
        fs::write(&file, "").unwrap();
        let error = Place::take(&file).unwrap_err().to_string();
        assert!(error.contains("linerate-report-file"), "{error}");
    }
}
