//! Lines of text over a Unix socket that QEMU listens on: the guest's second serial line, and the monitor.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::fault::{Context, Fault, Result, ensure};
use crate::proc::Running;
use crate::step::Cx;

/// A line longer than this is not from us.
const LINE_MAX: usize = 1 << 20;

/// One connection.
pub struct Line {
    stream: UnixStream,
    name: String,
    received: Vec<u8>,
}

impl Line {
    /// Connects once QEMU listens.
    pub fn connect(cx: &Cx<'_>, qemu: &mut Running, path: &Path) -> Result<Line> {
        let name = path.display().to_string();
        let stream = cx.wait_for(&format!("QEMU listens on {name}"), Duration::from_secs(10), || {
            qemu.must_live()?;
            Ok(UnixStream::connect(path).ok())
        })?;
        stream.set_read_timeout(Some(Duration::from_millis(100))).context(|| name.clone())?;
        stream.set_write_timeout(Some(Duration::from_secs(10))).context(|| name.clone())?;
        Ok(Line { stream, name, received: Vec::new() })
    }

    /// Sends one line.
    pub fn send(&mut self, text: &str) -> Result {
        self.stream.write_all(format!("{text}\n").as_bytes()).context(|| format!("write to {}", self.name))
    }

    /// Waits for the next line.
    pub fn receive(&mut self, cx: &Cx<'_>, qemu: &mut Running, limit: Duration) -> Result<String> {
        let until = Instant::now() + limit;
        loop {
            if let Some(end) = self.received.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.received.drain(..=end).collect();
                return Ok(String::from_utf8_lossy(&line).trim().to_string());
            }
            ensure!(self.received.len() < LINE_MAX, "{} sends a line without end", self.name);
            cx.check()?;
            if Instant::now() > until {
                let command = format!("the other end of {}", self.name);
                return Err(Fault::TimedOut { command, limit, tail: String::new() });
            }
            let mut bytes = [0; 4096];
            match self.stream.read(&mut bytes) {
                Ok(0) => {
                    qemu.must_live()?;
                    return Err(Fault::Check(format!("QEMU closed {}", self.name)));
                }
                Ok(count) => self.received.extend_from_slice(&bytes[..count]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(source) => return Err(Fault::Io { what: format!("read from {}", self.name), source }),
            }
        }
    }
}
