//! [`TraceLog`]: the file, and the thread that writes what endpoints put into their rings.

use crate::line::{Event, Line, VERSION};
use pmd::{Clock, Instant};
use rxrpc::wire::PacketType;
use rxrpc::{Happened, TraceEvent, TraceReader, TraceSink, TracedCall, trace_ring};
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Events that a core's ring holds: 8 MB, a twentieth of a second at a million packets a second.
const RING: usize = 1 << 16;
/// How long the writer sleeps when all rings are empty.
const NAP: Duration = Duration::from_millis(5);
/// Events taken from one ring before the others have their turn.
const TURN: usize = 4096;

/// What commands that can be traced have in common.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct TraceArgs {
    /// Write what every packet, ACK, loss, window and call did to FILE, as JSON lines; see rxline trace
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
}

impl TraceArgs {
    /// Opens the log, if there is to be one. `program` is who writes it.
    pub fn open(&self, program: &str) -> Result<Option<TraceLog>, LogError> {
        self.trace.as_deref().map(|path| TraceLog::create(path, program)).transpose()
    }
}

/// Why there is no log, or only a part of it.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The file.
    #[error("cannot create the event log {}: {source}", path.display())]
    Create {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Its end is missing.
    #[error("the event log {} is not whole: {source}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The writer's thread.
    #[error("cannot start the thread that writes the event log: {0}")]
    Thread(io::Error),
}

/// What a log came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Lines, the first one included.
    pub lines: u64,
    /// Events that came faster than they were written, and are missing.
    pub missing: u64,
}

/// Makes the sinks of a log. Cheap to clone.
#[derive(Clone)]
pub struct TraceSinks {
    readers: Arc<Mutex<Vec<(usize, TraceReader)>>>,
}

impl TraceSinks {
    /// A sink for the endpoint of core `core`.
    pub fn sink(&self, core: usize) -> TraceSink {
        let (sink, reader) = trace_ring(RING);
        self.readers.lock().unwrap_or_else(PoisonError::into_inner).push((core, reader));
        sink
    }
}

/// An event log that is being written.
pub struct TraceLog {
    path: PathBuf,
    sinks: TraceSinks,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<io::Result<Written>>>,
}

impl TraceLog {
    /// Creates the file, or empties it, and starts the writer.
    pub fn create(path: &Path, program: &str) -> Result<TraceLog, LogError> {
        let file = File::create(path).map_err(|source| LogError::Create { path: path.into(), source })?;
        let sinks = TraceSinks { readers: Arc::default() };
        let stop = Arc::new(AtomicBool::new(false));
        let mut writer = Writer {
            out: BufWriter::new(file),
            started: Clock::now(),
            sent: HashMap::new(),
            written: Written::default(),
        };
        let (program, readers, until) = (program.to_owned(), sinks.readers.clone(), stop.clone());
        let run = move || {
            writer.start(&program)?;
            writer.run(&readers, &until)
        };
        let thread = std::thread::Builder::new().name("trace".into()).spawn(run).map_err(LogError::Thread)?;
        Ok(TraceLog { path: path.into(), sinks, stop, thread: Some(thread) })
    }

    /// What gives each core its sink.
    pub fn sinks(&self) -> TraceSinks {
        self.sinks.clone()
    }

    /// Writes what is in the rings, and closes the file. Endpoints that are still there are not waited for: stop them first.
    pub fn finish(mut self) -> Result<Written, LogError> {
        let written = self.join().unwrap_or(Ok(Written::default()));
        written.map_err(|source| LogError::Write { path: std::mem::take(&mut self.path), source })
    }

    fn join(&mut self) -> Option<io::Result<Written>> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take()?;
        Some(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    }
}

impl Drop for TraceLog {
    fn drop(&mut self) {
        // Whoever wants to know calls `finish`.
        let _ = self.join();
    }
}

struct Writer {
    out: BufWriter<File>,
    started: Instant,
    /// The first sequence number that was not sent yet, of each call in progress.
    sent: HashMap<(usize, TracedCall), u32>,
    written: Written,
}

impl Writer {
    fn start(&mut self, program: &str) -> io::Result<()> {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let (program, unix_ms) = (program.to_owned(), unix.as_millis() as u64);
        let event = Event::Start { program, version: VERSION, unix_ms };
        self.line(&Line { t: 0, core: 0, conn: None, channel: None, call: None, event })
    }

    fn line(&mut self, line: &Line) -> io::Result<()> {
        serde_json::to_writer(&mut self.out, line)?;
        self.out.write_all(b"\n")?;
        self.written.lines += 1;
        Ok(())
    }

    /// Until it is stopped and the rings are empty.
    fn run(mut self, readers: &Mutex<Vec<(usize, TraceReader)>>, stop: &AtomicBool) -> io::Result<Written> {
        loop {
            // Read before the rings: what was put there before the stop is still written.
            let stopping = stop.load(Ordering::Relaxed);
            let mut busy = false;
            let mut readers = readers.lock().unwrap_or_else(PoisonError::into_inner);
            for (core, reader) in readers.iter_mut() {
                busy |= self.turn(*core, reader)?;
            }
            drop(readers);
            if busy {
                continue;
            }
            self.out.flush()?;
            if stopping {
                return Ok(self.written);
            }
            std::thread::sleep(NAP);
        }
    }

    /// Writes some of a core's events. Whether there may be more.
    fn turn(&mut self, core: usize, reader: &mut TraceReader) -> io::Result<bool> {
        for _ in 0..TURN {
            let Some(event) = reader.next_event() else { return Ok(false) };
            let again = self.again(core, &event);
            let t = event.at.saturating_duration_since(self.started).as_nanos() as u64;
            self.line(&Line::new(t, core, &event, again))?;
        }
        Ok(true)
    }

    /// Whether an event is DATA that was sent before. Keeps books of the calls in progress.
    fn again(&mut self, core: usize, event: &TraceEvent) -> bool {
        let key = (core, event.call);
        match event.happened {
            Happened::Begun { .. } => {
                self.sent.insert(key, 1);
            }
            Happened::Ended(_) => {
                self.sent.remove(&key);
            }
            Happened::Overflow { events } => self.written.missing += events,
            Happened::Sent(packet) if packet.kind == PacketType::Data => {
                let Some(next) = self.sent.get_mut(&key) else { return false };
                let again = packet.seq < *next;
                *next = (*next).max(packet.seq.saturating_add(u32::from(packet.packets)));
                return again;
            }
            _ => {}
        }
        false
    }
}
