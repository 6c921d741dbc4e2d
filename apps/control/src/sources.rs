//! [`Sources`]: what a process shows of itself.

use std::time::Instant;

use engine::Clock;
use rxrpc::{PAGE_ROWS, Page, RxViewer, ViewError};

use crate::capturing::Capturing;
use crate::protocol::{Cursor, Hello, ROWS_MAX, Refusal, RefusalCode, Rows};
use crate::rows::{CallRow, ConnRow, LocalRow, Origin, PeerRow, RelayRow};
use crate::snapshot::{self, Snapshot};
use crate::wish::CaptureWish;

/// Pages that one answer may take: a sparse table has many without a row.
const PAGES_MAX: usize = 64;

/// The engines of a process, and since when it runs. Keeps no engine alive.
pub struct Sources {
    command: String,
    started: Instant,
    engines: Vec<Source>,
}

struct Source {
    name: String,
    viewer: RxViewer,
}

impl Sources {
    /// Of the `rxline` command of that name, which runs these engines. Engines of one name are numbered.
    pub fn new(command: &str, viewers: impl IntoIterator<Item = RxViewer>) -> Self {
        let mut engines: Vec<Source> = Vec::new();
        for viewer in viewers {
            let own = viewer.stats().map_or_else(|_| "stopped".into(), |stats| stats.name);
            let taken = |name: &str| engines.iter().any(|source| source.name == name);
            let numbered = (2..).map(|n| format!("{own} #{n}"));
            let name = std::iter::once(own.clone()).chain(numbered).find(|name| !taken(name));
            engines.push(Source { name: name.expect("numbers do not end"), viewer });
        }
        Sources { command: command.into(), started: Instant::now(), engines }
    }

    pub(crate) fn hello(&self) -> Hello {
        Hello {
            command: self.command.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            uptime_seconds: self.started.elapsed().as_secs_f64(),
            engines: self.engines.iter().map(|source| source.name.clone()).collect(),
        }
    }

    /// All figures, now. An engine that has stopped is left out; a core that does not answer has no Rx figures.
    pub fn snapshot(&self) -> Snapshot {
        let engines = self.engines.iter().filter_map(|Source { name, viewer }| {
            let stats = viewer.stats().ok()?;
            let rx = |core| viewer.figures(core).ok();
            Some(snapshot::engine(name.clone(), stats, rx))
        });
        let engines = engines.collect();
        Snapshot { hello: self.hello(), engines, rcu: snapshot::rcu() }
    }

    pub(crate) fn calls(&self, from: Cursor, rows: usize) -> Result<Rows<CallRow>, Refusal> {
        self.rows(from, rows, RxViewer::calls, |at, call| at.call(call))
    }

    pub(crate) fn relayed(&self, from: Cursor, rows: usize) -> Result<Rows<RelayRow>, Refusal> {
        self.rows(from, rows, RxViewer::relayed, |at, conn| at.relayed(conn))
    }

    pub(crate) fn conns(&self, from: Cursor, rows: usize) -> Result<Rows<ConnRow>, Refusal> {
        self.rows(from, rows, RxViewer::conns, |at, conn| at.conn(conn))
    }

    pub(crate) fn peers(&self, from: Cursor, rows: usize) -> Result<Rows<PeerRow>, Refusal> {
        self.rows(from, rows, RxViewer::peers, |at, peer| at.peer(peer))
    }

    pub(crate) fn locals(&self, from: Cursor, rows: usize) -> Result<Rows<LocalRow>, Refusal> {
        self.rows(from, rows, RxViewer::locals, |at, local| at.local(local))
    }

    /// Begins to capture on an engine.
    pub(crate) fn capture(&self, wish: &CaptureWish) -> Result<Capturing, Refusal> {
        let names = || self.engines.iter().map(|source| source.name.as_str()).collect::<Vec<_>>().join(", ");
        let refuse = |what: String| {
            Err(Refusal::new(RefusalCode::BadRequest, format!("{what}; choose one of {}", names())))
        };
        let source = match (&wish.engine, &*self.engines) {
            (Some(name), engines) => match engines.iter().find(|source| source.name == *name) {
                Some(source) => source,
                None => return refuse(format!("there is no engine {name:?}")),
            },
            (None, [only]) => only,
            (None, engines) => return refuse(format!("there are {} engines", engines.len())),
        };
        Capturing::start(&source.name, &source.viewer, wish)
    }

    /// Goes from core to core and page to page until there are enough rows. A page is never taken apart, so there may
    /// be fewer than asked for.
    fn rows<V, R>(
        &self,
        mut at: Cursor,
        wanted: usize,
        page: impl Fn(&RxViewer, usize, usize) -> Result<Page<V>, ViewError>,
        row: impl Fn(Origin<'_>, V) -> R,
    ) -> Result<Rows<R>, Refusal> {
        let wanted = wanted.clamp(PAGE_ROWS, ROWS_MAX);
        let mut rows = Vec::new();
        for _ in 0..PAGES_MAX {
            let Some(source) = self.engines.get(at.0) else { return Ok(Rows { rows, next: None }) };
            if at.1 >= source.viewer.cores() {
                at = Cursor(at.0 + 1, 0, 0);
                continue;
            }
            if rows.len() + PAGE_ROWS > wanted {
                break;
            }
            let Cursor(engine, core, slot) = at;
            match page(&source.viewer, core, slot) {
                Ok(page) => {
                    let from = Origin { engine: &source.name, core, now: Clock::now() };
                    rows.extend(page.rows.into_iter().map(|view| row(from, view)));
                    at = page.next.map_or(Cursor(engine, core + 1, 0), |slot| Cursor(engine, core, slot));
                }
                Err(ViewError::Stopped) => at = Cursor(engine + 1, 0, 0),
                Err(error) => {
                    let message = format!("engine {}: {error}", source.name);
                    return Err(Refusal::new(RefusalCode::CoreSilent, message));
                }
            }
        }
        Ok(Rows { rows, next: Some(at) })
    }
}
