//! What fuzzing found worth keeping, and what it once broke, again and again.

use std::path::{Path, PathBuf};

fn inputs(target: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut inputs: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    inputs.sort();
    inputs
}

fn replay(target: &str) {
    let (_, run) = fuzz::TARGETS.iter().find(|(name, _)| *name == target).expect("a target");
    let inputs = inputs(target);
    assert!(inputs.len() >= 5, "{} inputs for {target}: has the corpus been lost?", inputs.len());
    for input in inputs {
        let bytes = std::fs::read(&input).unwrap();
        // A panic is reported with the input that caused it.
        let rerun = Rerun(input);
        run(&bytes);
        drop(rerun);
    }
}

struct Rerun(PathBuf);

impl Drop for Rerun {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the input is {}", self.0.display());
        }
    }
}

#[test]
fn packet() {
    replay("packet");
}

#[test]
fn ack() {
    replay("ack");
}

#[test]
fn security() {
    replay("security");
}

#[test]
fn ticket() {
    replay("ticket");
}

#[test]
fn datagrams() {
    replay("datagrams");
}

#[test]
fn every_target_has_a_corpus_and_a_test() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let mut folders: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    folders.sort();
    let mut targets: Vec<_> = fuzz::TARGETS.iter().map(|(name, _)| name.to_string()).collect();
    targets.sort();
    assert_eq!(folders, targets);
    let tests = include_str!("corpus.rs");
    for target in targets {
        assert!(tests.contains(&format!("replay(\"{target}\")")), "{target} is not replayed");
    }
}
