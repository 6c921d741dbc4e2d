//! A copy of the checkout, to be damaged: where checks are shown to find what they are there to find.

use std::fs;
use std::path::{Path, PathBuf};

use crate::fault::{Context, Result};
use crate::proc::Cmd;
use crate::step::Cx;

/// Kept from run to run, with what is built of it.
pub struct Copy<'a> {
    root: PathBuf,
    cx: &'a Cx<'a>,
}

impl<'a> Copy<'a> {
    /// The copy in the folder `root`, which may be there or not. [`sync`](Self::sync) fills it.
    pub fn new(cx: &'a Cx<'a>, root: PathBuf) -> Self {
        Copy { root, cx }
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The step that it is for.
    pub fn cx(&self) -> &'a Cx<'a> {
        self.cx
    }

    /// Makes the copy equal to the checkout. Files that are equal keep their time, so that cargo builds only what changed.
    pub fn sync(&self) -> Result {
        let root = &self.cx.host.root;
        let list = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
        let told = Cmd::new("git").args(list).cwd(root).quiet().ok(self.cx)?.stdout;
        let mut stale = files(&self.root);
        for name in told.split('\0').filter(|name| !name.is_empty()) {
            let (from, to) = (root.join(name), self.root.join(name));
            let Ok(content) = fs::read(&from) else { continue }; // deleted, and not yet committed
            stale.retain(|path| *path != to);
            if fs::read(&to).is_ok_and(|old| old == content) {
                continue;
            }
            let folder = to.parent().unwrap_or(&self.root);
            fs::create_dir_all(folder).context(|| format!("create {}", folder.display()))?;
            fs::write(&to, content).context(|| format!("write {}", to.display()))?;
        }
        stale
            .iter()
            .try_for_each(|path| fs::remove_file(path).context(|| format!("remove {}", path.display())))
    }

    /// Applies a patch, which may have moved by some lines.
    pub fn apply(&self, patch: &Path) -> Result {
        // The copy lies inside a checkout, which git must not take for what the patch is about.
        let git = Cmd::new("git").args(["apply", "-C1"]).arg(patch);
        let above = self.root.parent().unwrap_or(Path::new("/"));
        git.env("GIT_CEILING_DIRECTORIES", above).cwd(&self.root).quiet().ok(self.cx).map(drop)
    }
}

/// Every file under `folder`.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(files(&path))
        } else {
            found.push(path)
        }
    }
    found
}
